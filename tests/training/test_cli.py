"""``wasnow train``, ``evaluate`` and ``recipes``, on a folder as users have it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import typer
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from training.tiny import Blobs, register
from wasnow.cli import evaluate, recipes, train
from wasnow.models.checkpoint import read_header

PALETTE = np.array([[255, 255, 255], [0, 0, 255], [128, 128, 128], [0, 128, 0]], np.uint8)
RECIPE = """
model: tiny
crop: 16
batch_size: 4
workers: 0
device: cpu
samples: 1
validate_every: 10
stages: [{steps: 20}]
optimizer: {lr: 0.02}
"""


@pytest.fixture(autouse=True)
def _tiny() -> None:
    register()


def write(path: Path, rgb: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="PNG", width=rgb.shape[1], height=rgb.shape[0], count=3, dtype="uint8"
    ) as file:
        file.write(np.moveaxis(rgb, 2, 0))


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """A folder in the layout and colours of SECOND."""
    for split, count, seed in (("train", 5, 0), ("val", 2, 1), ("test", 2, 2)):
        for i in range(count):
            sample = Blobs(count, seed=seed)[i]
            for part, rgb in (
                ("im1", sample.before),
                ("im2", sample.after),
                ("label1", PALETTE[sample.before_classes]),
                ("label2", PALETTE[sample.after_classes]),
            ):
                write(tmp_path / "data" / split / part / f"{i}.png", rgb)
    (tmp_path / "mine.yaml").write_text(RECIPE)
    return tmp_path


def wasnow(*words: object) -> Result:
    app = typer.Typer()
    for name, verb in (("train", train.train), ("evaluate", evaluate.evaluate), ("recipes", recipes.recipes)):
        app.command(name)(verb)
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_folder_is_trained_on_and_its_test_split_scored(second: Path):
    run = second / "runs/a"
    done = wasnow("train", second / "mine.yaml", "--data", second / "data", "-o", run, "--json", "--set", "ema=0.9")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["checkpoint"] == str(run / "best.safetensors")
    assert json.loads((run / "run.json").read_text())["untouched"] == ["test"]
    again = wasnow("train", second / "mine.yaml", "--data", second / "data", "-o", run)
    assert again.exit_code == 4
    assert "--resume" in again.stderr

    scored = wasnow("evaluate", run, "--data", second / "data", "--json")
    assert scored.exit_code == 0, scored.output
    result = json.loads(scored.stdout)
    assert (result["split"], result["images"]) == ("test", 2)
    assert json.loads((run / "evaluation/test/scores.json").read_text()) == result
    assert (run / "evaluation/test/confusion.html").exists()

    shown = wasnow("evaluate", run, "--data", second / "data", "--split", "train", "-q")
    assert shown.exit_code == 0, shown.output
    assert "model was trained on these pairs" in shown.stderr
    table = wasnow("evaluate", run, "--data", second / "data", "-o", second / "x")
    assert all(text in table.stdout for text in ("binary:", "stacked:", "from_to:", "sek", "water"))


def test_pairs_held_back_from_training_can_be_scored_alone(second: Path):
    data = second / "data/train"
    run = second / "runs/b"
    more = ("--set", "holdback=0.4", "--set", "steps=4", "--set", "validate_every=2", "-q")
    done = wasnow("train", second / "mine.yaml", "--data", data, "-o", run, *more)
    assert done.exit_code == 0, done.output
    scored = wasnow("evaluate", run, "--data", data, "--split", "held-back", "--json")
    assert scored.exit_code == 0, scored.output
    result = json.loads(scored.stdout)
    assert result["images"] == 2
    assert result["scores"]["stacked"]["miou"] == read_header(run).scores["val"]["stacked.miou"]
    elsewhere = wasnow("evaluate", run, "--data", second / "data/test", "--split", "held-back")
    assert elsewhere.exit_code == 2
    assert "no pairs of this data were held back" in elsewhere.stderr


def test_invalid_options_are_rejected_in_one_line(second: Path):
    for words, code, text in (
        (("train", "sscd"), 2, "did you mean 'sscd-l'"),
        (("train", "sscd-l"), 2, "pass its folder with --data"),
        (("train", "sscd-l", "--set", "batchsize=3"), 2, "did you mean 'batch_size'"),
        (("train", "sscd-l", "--data", second / "nowhere"), 3, "nowhere"),
        (("evaluate", second, "--data", second / "data"), 3, "neither best.safetensors"),
    ):
        done = wasnow(*words)
        assert done.exit_code == code, done.output
        assert text in done.stderr
        assert done.stderr.count("\n") == 1


def test_recipes_are_listed_and_printed_as_yaml(tmp_path: Path):
    listed = wasnow("recipes")
    assert all(name in listed.stdout for name in ("sscd-l", "bisrnet", "sscd-l-small"))
    printed = wasnow("recipes", "sscd-l").stdout
    (tmp_path / "own.yaml").write_text(printed)
    from wasnow.training.recipes import recipe

    assert recipe(str(tmp_path / "own.yaml")) == recipe("sscd-l")
