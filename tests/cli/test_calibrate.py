"""``wasnow calibrate`` on a dataset folder: the checkpoint is rewritten, the maps stay."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import typer
from typer.testing import CliRunner, Result

from training.tiny import Blobs, Tiny, TinyChange, register
from wasnow.cli import calibrate, evaluate
from wasnow.data.dataset import open_dataset
from wasnow.errors import CheckpointError
from wasnow.models.checkpoint import Provenance, load, read_header, save, set_calibration
from wasnow.models.model_card import describe
from wasnow.models.registry import shipped
from wasnow.models.sealed import read_sealed, write_sealed

PALETTE = np.array([[255, 255, 255], [0, 0, 255], [128, 128, 128], [0, 128, 0]], np.uint8)
SECOND_WORDS = ("water", "ground", "low vegetation", "tree", "building", "playground")


@pytest.fixture(autouse=True)
def _tiny() -> None:
    register()
    torch.set_num_threads(1)


def write(path: Path, rgb: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="PNG", width=rgb.shape[1], height=rgb.shape[0], count=3, dtype="uint8"
    ) as file:
        file.write(np.moveaxis(rgb, 2, 0))


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """A folder in the layout and colours of SECOND, and an overconfident network."""
    for split, count, seed in (("train", 2, 0), ("val", 2, 1), ("test", 2, 2)):
        for i in range(count):
            sample = Blobs(count, seed=seed)[i]
            labels = (PALETTE[sample.before_classes], PALETTE[sample.after_classes])
            for part, rgb in zip(
                ("im1", "im2", "label1", "label2"), (sample.before, sample.after, *labels), strict=True
            ):
                write(tmp_path / "data" / split / part / f"{i}.png", rgb)
    torch.manual_seed(0)
    model = Tiny(SECOND_WORDS)
    with torch.no_grad():
        model.change.weight *= 30
        model.classes.weight *= 30
    trained_on = open_dataset(tmp_path / "data").splits["train"].fingerprint
    source = Provenance(origin="made in a test", data_fingerprint=trained_on, recipe={"leave_out": ["tree"]})
    save(tmp_path / "run/best.safetensors", model, provenance=source)
    return tmp_path


def wasnow(*words: object) -> Result:
    app = typer.Typer()
    app.command("calibrate")(calibrate.calibrate)
    app.command("evaluate")(evaluate.evaluate)
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_run_is_calibrated_on_its_validation_pairs_without_changing_maps(second: Path):
    run, data = second / "run", second / "data"
    before = json.loads(wasnow("evaluate", run, "--data", data, "--json").stdout)
    plain = read_header(run)
    weights, _ = read_sealed(run / "best.safetensors")

    done = wasnow("calibrate", run, "--data", data, "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["split"], told["pairs"]) == ("val", 2)
    assert told["change_temperature"] > 1
    assert told["ece_change_after"] < told["ece_change_before"]
    assert told["ece_class_after"] < told["ece_class_before"]
    page = (run / "best-calibration.html").read_text()
    assert told["page"] == str(run / "best-calibration.html")
    assert page.count('<svg class="chart"') == 2

    header = read_header(run)
    assert header.calibration is not None
    assert header.model_copy(update={"calibration": None, "digest": plain.digest}) == plain
    again, _ = read_sealed(run / "best.safetensors")
    assert all(torch.equal(one, again[name]) for name, one in weights.items())
    model = load(run)
    assert model.card.weights.calibration == header.calibration
    assert model.card.weights.fingerprint == header.digest != plain.digest

    after = json.loads(wasnow("evaluate", run, "--data", data, "--json").stdout)
    assert after["scores"] == before["scores"]
    assert after["per_image"] == before["per_image"]
    assert before["calibration"] is None
    assert after["calibration"]["split"] == "val"
    own = json.loads(wasnow("evaluate", run, "--data", data, "--split", "val", "--json").stdout)["reliability"]
    assert own["change"]["ece"] == pytest.approx(told["ece_change_after"])
    assert own["classes"]["ece"] == pytest.approx(told["ece_class_after"])


def test_the_card_and_the_table_show_the_measured_calibration(second: Path):
    run = second / "run"
    assert "wasnow calibrate" in describe(run)["calibration"]["temperatures"]
    done = wasnow("calibrate", run, "--data", second / "data")
    assert done.exit_code == 0, done.output
    assert "change   temperature" in done.stdout
    assert "classes  temperature" in done.stdout
    card = describe(run)["calibration"]
    assert set(card) == {"temperature of change", "temperature of classes", "measured on"}
    assert "before" in card["temperature of change"]
    assert card["measured on"] == "val (2 pairs)"


def test_test_and_training_pairs_are_rejected_without_force(second: Path):
    run, data = second / "run", second / "data"
    for split, text in (("test", "invalidate its scores"), ("train", "was trained on these pairs")):
        refused = wasnow("calibrate", run, "--data", data, "--split", split)
        assert refused.exit_code == 2
        assert text in refused.stderr
        assert refused.stderr.count("\n") == 1
        assert read_header(run).calibration is None
    forced = wasnow("calibrate", run, "--data", data, "--split", "test", "--force", "-q")
    assert forced.exit_code == 0, forced.output
    assert read_header(run).calibration.split == "test"
    nothing = wasnow("calibrate", run, "--data", data / "test")
    assert nothing.exit_code == 2
    assert "no split val and no pairs held back" in nothing.stderr


def test_an_included_model_is_not_changed_and_a_copy_can_be(second: Path):
    own = shipped("semantic-cd-mini")
    digest = read_header(own).digest
    refused = wasnow("calibrate", "semantic-cd-mini", "--data", second / "data")
    assert refused.exit_code == 2
    assert "calibrate a copy: cp" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert read_header(own).digest == digest


def test_an_included_model_is_evaluated_by_its_name(second: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(second)
    scored = wasnow("evaluate", "semantic-cd-mini", "--data", second / "data", "-q")
    assert scored.exit_code == 0, scored.output
    assert (second / "semantic-cd-mini/evaluation/test/scores.json").is_file()


def test_calibrating_twice_gives_the_same_file_and_removal_restores_the_original(second: Path):
    path = second / "run/best.safetensors"
    plain = path.read_bytes()
    files = []
    for _ in range(2):
        assert wasnow("calibrate", path, "--data", second / "data", "-q").exit_code == 0
        files.append(path.read_bytes())
    assert files[0] == files[1] != plain
    set_calibration(path, None)
    assert path.read_bytes() == plain


def test_an_invalid_calibration_is_rejected_on_reading(second: Path):
    path = second / "run/best.safetensors"
    tensors, header = read_sealed(path)
    header.pop("digest")
    wrong = {"change_temperature": 0, "ece_change_before": 0, "ece_change_after": 0, "split": "val", "pairs": 1}
    write_sealed(path, tensors, {**header, "calibration": wrong})
    with pytest.raises(CheckpointError, match=r"calibration\.change_temperature"):
        load(path)


def test_a_change_model_can_be_calibrated(second: Path):
    torch.manual_seed(0)
    save(second / "c.safetensors", TinyChange(), provenance={"origin": "made in a test"})
    done = wasnow("calibrate", second / "c.safetensors", "--data", second / "data", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["ece_class_before"] is None
    assert set(describe(second / "c.safetensors")["calibration"]) == {"temperature of change", "measured on"}
