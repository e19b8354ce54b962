"""SAM-CD from pairs and masks on disk to scores, as a user does it; and that masks are part of what a run is."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from data.fakes import binary, save
from training.tiny import Blobs, register
from wasnow.cli import calibrate, evaluate, priors, train
from wasnow.data.dataset import Dataset, open_dataset
from wasnow.errors import CheckpointError, InputError, ResumeRefused, UsageError, VocabularyError
from wasnow.evaluation import evaluate as score
from wasnow.evaluation import evaluation_mode, predict
from wasnow.models.checkpoint import load, read_header
from wasnow.models.sam_cd import SAMCD
from wasnow.priors import open_priors
from wasnow.priors.files import MaskFiles
from wasnow.priors.make import PriorRequest, make_dataset
from wasnow.priors.samples import NoMasks, WithPriors, pair_masks
from wasnow.training.batches import collate
from wasnow.training.config import Augmentation, Light, Optimizer, Stage, TrainConfig
from wasnow.training.logging import LineLogger, NullLogger, Progress
from wasnow.training.run_folder import RunFolder
from wasnow.training.trainer import TrainResult
from wasnow.training.trainer import train as run_training

OPTIONS = {
    "words": ["building"],
    "encoder": {"widths": [8, 8, 8, 8], "depths": [1, 1, 1, 1], "heads": [1, 1, 1, 1]},
    "width": 8,
    # Keys as fine as the maps: at 32 px the usual ones would be a single key, and any mask all or nothing.
    "reductions": [1, 1, 1, 1],
}
NAMES = ("one", "two", "three", "four")


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    register()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pairs, and masks of buildings from files: what changed was not there before."""
    root = tmp_path_factory.mktemp("pairs")
    made = binary(root / "data", names=NAMES)
    for truth in made:
        for date, mask in (("A", 0 * truth.change), ("B", truth.change)):
            save(root / "masks" / date / f"{truth.name}.png", mask)
    files = MaskFiles.of_dataset([root / "masks"], ("building",))
    make_dataset(open_dataset(root / "data"), root / "priors", PriorRequest(("building",), files))
    return root


def config(**changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "name": "sam-cd-tiny",
        "model": "sam-cd",
        "model_options": OPTIONS,
        "crop": 32,
        "augment": Augmentation(scale=(0.8, 1.25), swap=0.5, light=Light(), shift_px=1.5),
        "batch_size": 2,
        "workers": 0,
        "stages": (Stage(name="change", loss="change", steps=6),),
        "optimizer": Optimizer(lr=0.01),
        "ema": 0.9,
        "holdback": 0.25,
        "validate_every": 3,
        "save_every": 2,
        "log_every": 1,
        "samples": 1,
        "device": "cpu",
        "select": "binary.f1",
    }
    return TrainConfig(**{**values, **changes})


def run(folder: Path, output: Path, settings: TrainConfig | None = None, **options: Any) -> TrainResult:
    options = {"priors": open_priors(folder / "priors"), **options}
    return run_training(settings or config(), dict(data(folder).splits), output, **options)


def data(folder: Path) -> Dataset:
    return open_dataset(folder / "data")


def weights(output: Path) -> dict[str, torch.Tensor]:
    state, faults = RunFolder(output).latest()
    assert state is not None
    assert not faults
    return dict(state.tensors)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


class StopsAfter(NullLogger):
    """Somebody who pulls the plug."""

    def __init__(self, step: int) -> None:
        self._step = step

    def step(self, progress: Progress) -> None:
        if progress.step == self._step:
            raise ConnectionAbortedError


# ------------------------------------------------------------------------------------------------------------ training


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run(folder, folder / "run")
    torch.set_num_threads(threads)
    return folder / "run"


def test_a_run_that_broke_off_and_read_with_two_processes_ends_the_same(folder: Path, trained: Path, tmp_path: Path):
    with pytest.raises(ConnectionAbortedError):
        run(folder, tmp_path / "b", logger=StopsAfter(3))
    run(folder, tmp_path / "b", config(workers=2), resume=True)
    assert same(weights(tmp_path / "b"), weights(trained))


def test_masks_have_a_say_in_what_is_learned(folder: Path, trained: Path, tmp_path: Path):
    run(folder, tmp_path / "without", priors=NoMasks())
    assert not same(weights(tmp_path / "without"), weights(trained))


def test_a_run_and_its_checkpoint_say_which_masks_they_learned_from(folder: Path, trained: Path):
    origin = open_priors(folder / "priors", ["building"]).origin
    assert (RunFolder(trained).record or {})["priors"] == origin
    told = (read_header(trained).provenance.recipe or {})["priors"]
    assert told == json.loads(json.dumps(origin))
    assert told["masker"]["masker"] == "files"
    # Whoever gets the checkpoint need not know where they lay.
    assert str(folder) not in json.dumps(told)


def test_a_run_does_not_go_on_with_other_masks(folder: Path, trained: Path, tmp_path: Path):
    shutil.copytree(trained, tmp_path / "run")
    with pytest.raises(ResumeRefused, match="priors"):
        run(folder, tmp_path / "run", priors=pair_masks("labels", data(folder)), resume=True)
    shutil.copytree(folder / "priors", tmp_path / "moved")
    # The same masks elsewhere are the same.
    run(folder, tmp_path / "run", config(priors="anywhere"), priors=open_priors(tmp_path / "moved"), resume=True)


def test_the_control_without_masks_ignores_them(folder: Path, tmp_path: Path):
    control = config(model_options={**OPTIONS, "priors": "none"})
    told: list[str] = []
    run(folder, tmp_path / "with", control, logger=LineLogger(0, told.append))
    assert any("uses no prior masks with these options" in line for line in told)
    run(folder, tmp_path / "bare", control, priors=None)
    assert same(weights(tmp_path / "with"), weights(tmp_path / "bare"))
    assert (RunFolder(tmp_path / "with").record or {})["priors"] is None


def test_missing_masks_and_other_words_are_reported_before_the_first_step(folder: Path, tmp_path: Path):
    with pytest.raises(UsageError, match=r"sam-cd needs masks of building\. Make them"):
        run(folder, tmp_path / "a", priors=None)
    with pytest.raises(VocabularyError, match="no priors for road, only for building"):
        run(folder, tmp_path / "b", config(model_options={**OPTIONS, "words": ["road"]}))
    with pytest.raises(UsageError, match="has priors of all, not of 'train'"):
        run_training(
            config(), {"train": data(folder).splits["all"]}, tmp_path / "c", priors=open_priors(folder / "priors")
        )
    with pytest.raises(UsageError, match="uses prior masks as well as images"):
        run(folder, tmp_path / "d", config(cache_features=True))
    assert not any((tmp_path / name / "log.csv").exists() for name in "abcd")


def test_a_batch_has_priors_of_all_its_pairs_or_of_none(folder: Path):
    samples = WithPriors(data(folder).splits["all"], open_priors(folder / "priors"), "all")
    batch = collate([samples[0], samples[2]])
    assert batch.priors is not None
    np.testing.assert_array_equal(batch.priors[1].numpy(), samples[2].priors)
    assert collate([Blobs()[0]]).priors is None
    with pytest.raises(InputError, match="three has no priors and others in its batch do"):
        collate([samples[0], replace(samples[2], priors=None)])


# ------------------------------------------------------------------------------------------------------------- scoring


def test_scoring_gives_the_model_the_masks_of_each_pair(folder: Path, trained: Path):
    model = load(trained)
    samples = WithPriors(data(folder).splits["all"], open_priors(folder / "priors"), "all")
    sample = samples[1]
    with evaluation_mode(model):
        found = predict(model, sample, 0.5).change
        images = [
            torch.from_numpy(np.moveaxis(rgb, 2, 0) / np.float32(255))[None] for rgb in (sample.before, sample.after)
        ]
        # 24 px are filled up to 32, mirrored; and no mask is there.
        images = [torch.nn.functional.pad(one, (0, 8, 0, 8), mode="reflect") for one in images]
        masks = torch.zeros(1, 2, 1, 32, 32)
        masks[0, ..., :24, :24] = torch.from_numpy(sample.priors)
        expected = model(*images, None, masks).change.sigmoid() > 0.5  # type: ignore[call-arg, arg-type]
    np.testing.assert_array_equal(found, expected[0, 0, :24, :24].numpy())
    with pytest.raises(UsageError, match="needs prior masks of building and four has none"):
        score(model, data(folder).splits["all"])


def wasnow(*words: object) -> Result:
    app = typer.Typer()
    verbs = {
        "priors": priors.priors,
        "train": train.train,
        "evaluate": evaluate.evaluate,
        "calibrate": calibrate.calibrate,
    }
    for name, verb in verbs.items():
        app.command(name)(verb)
    return CliRunner().invoke(app, [str(word) for word in words])


RECIPE = f"""
extends: sam-cd-levir
model_options: {json.dumps(OPTIONS)}
crop: 32
batch_size: 2
workers: 0
device: cpu
samples: 1
holdback: 0.5
validate_every: 4
stages: [{{loss: change, steps: 4}}]
"""


def test_from_priors_to_scores_as_it_is_typed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    made = wasnow("priors", folder / "data", "--classes", "building", "--masks", folder / "masks", "-o", "priors", "-q")
    assert made.exit_code == 0, made.output
    done = wasnow("train", "tiny.yaml", "--data", folder / "data", "--priors", "priors", "-o", "run", "-q")
    assert done.exit_code == 0, done.output
    # Without a word the run's own masks are taken, wherever the command is typed.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    first = wasnow("evaluate", tmp_path / "run", "--data", folder / "data", "--split", "held-back", "--json")
    assert first.exit_code == 0, first.output
    assert json.loads(first.stdout)["priors"]["masker"]["masker"] == "files"
    told = wasnow(
        *("evaluate", tmp_path / "run", "--data", folder / "data", "--split", "held-back", "--json"),
        *("--priors", tmp_path / "priors"),
    )
    assert json.loads(told.stdout) == json.loads(first.stdout)
    control = wasnow("evaluate", tmp_path / "run", "--data", folder / "data", "--priors", "labels", "--json")
    assert control.exit_code == 0, control.output
    assert "was trained with masks by files and is given masks from labels" in control.stderr
    assert json.loads(control.stdout)["priors"]["masker"]["masker"] == "labels"
    calibrated = wasnow("calibrate", tmp_path / "run", "--data", folder / "data", "-q")
    assert calibrated.exit_code == 0, calibrated.output

    # A checkpoint away from its run knows which masks it was trained with, and not where they are.
    shutil.copy(tmp_path / "run/best.safetensors", elsewhere / "alone.safetensors")
    lost = wasnow("evaluate", "alone.safetensors", "--data", folder / "data")
    assert lost.exit_code == 2
    assert "pass --priors priors/" in lost.stderr.splitlines()[-1]
    bare = wasnow("train", tmp_path / "tiny.yaml", "--data", folder / "data", "-o", "bare")
    assert bare.exit_code == 2
    assert "Make them with wasnow priors DATASET --classes 'building' -o priors/" in bare.stderr


# --------------------------------------------------------------------------------------- an encoder from somewhere else


def segformer(path: Path, widths: tuple[int, ...] = (8, 8, 8, 8)) -> Path:
    """Published weights in the layout of the hub: a folder, and a head that is not wanted."""
    from transformers import SegformerConfig, SegformerForImageClassification

    torch.manual_seed(3)
    made = SegformerForImageClassification(
        SegformerConfig(hidden_sizes=widths, depths=(1, 1, 1, 1), num_attention_heads=(1, 1, 1, 1))
    )
    made.save_pretrained(path)
    return path


def test_training_starts_from_a_published_segformer(folder: Path, tmp_path: Path):
    from safetensors.torch import load_file

    from wasnow.nn.segformer import tower_of

    weights_of = segformer(tmp_path / "mit")
    told: list[str] = []
    still = config(
        start=str(weights_of), stages=(Stage(loss="change", steps=1, trains=("decoder",)),), ema=None, holdback=0.0
    )
    run(folder, tmp_path / "run", still, logger=LineLogger(0, told.append))
    published = tower_of(load_file(weights_of / "model.safetensors"))
    model = load(tmp_path / "run/last.safetensors")
    assert isinstance(model, SAMCD)
    assert same(dict(sorted(model.encoder.state_dict().items())), dict(sorted(published.items())))
    assert any(f"{len(published)} tensors of SegFormer" in line for line in told)
    # The file itself will do as well.
    run(folder, tmp_path / "again", still.model_copy(update={"start": str(weights_of / "model.safetensors")}))


def test_another_encoder_and_a_model_without_one_are_rejected(folder: Path, tmp_path: Path):
    weights_of = segformer(tmp_path / "mit", (16, 8, 8, 8))
    with pytest.raises(CheckpointError, match=r"another encoder; pass --set model.encoder"):
        run(folder, tmp_path / "a", config(start=str(weights_of)))
    with pytest.raises(UsageError, match="this model has no such encoder; use sam-cd"):
        run(folder, tmp_path / "b", config(start=str(weights_of), model="tiny-change", model_options={}))
    save_file({"patch_embed.0.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="wasnow convert"):
        run(folder, tmp_path / "c", config(start=str(tmp_path / "other.safetensors")))
