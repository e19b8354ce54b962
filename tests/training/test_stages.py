"""Selection in runs with several stages, and their lengths."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from training.tiny import WORDS, config, mirror, register, splits
from wasnow.errors import Interrupted, UsageError
from wasnow.models.checkpoint import read_header
from wasnow.models.sealed import read_sealed
from wasnow.training.config import Optimizer, Stage
from wasnow.training.logging import LineLogger, NullLogger, Progress
from wasnow.training.run_folder import RunFolder
from wasnow.training.stages import stage_scores
from wasnow.training.trainer import train
from wasnow.vocabulary import Vocabulary

STAGES = (
    Stage(name="change", loss="change", steps=8, trains=("encoder", "change")),
    Stage(name="classes", loss="classes", steps=4, trains=("classes",)),
)


@pytest.fixture(autouse=True)
def _tiny() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    register()
    yield
    torch.set_num_threads(threads)


def validations(folder: Path) -> list[dict[str, str]]:
    with (folder / "validations.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_stage_selects_with_a_score_that_it_can_improve():
    words = Vocabulary(WORDS)
    assert stage_scores(config(stages=STAGES), words) == ["binary.f1", "stacked.score"]
    own = (STAGES[0].model_copy(update={"select": "binary.iou_changed"}), STAGES[1])
    assert stage_scores(config(stages=own, select="from_to.sek"), words) == ["binary.iou_changed", "from_to.sek"]
    reverse = (Stage(loss="classes", steps=1), Stage(loss="change", steps=1))
    assert stage_scores(config(stages=reverse), words) == ["stacked.score", "stacked.score"]
    with pytest.raises(UsageError, match=r"there is no score 'binary\.f2'"):
        stage_scores(config(stages=(STAGES[0].model_copy(update={"select": "binary.f2"}), STAGES[1])), words)


def test_the_best_weights_come_from_the_last_stage(tmp_path: Path):
    """The class rate of the last stage is so small that the first stage has a class score almost as good."""
    last = STAGES[1].model_copy(update={"optimizer": Optimizer(lr=0.05)})
    result = train(config(stages=(STAGES[0], last), ema=None), splits(), tmp_path, transform=mirror)
    assert result.step > 8
    source = read_header(tmp_path / "best.safetensors").provenance
    assert (source.stage, source.step) == ("classes", result.step)
    first = read_header(tmp_path / "stage-1.safetensors").provenance
    assert first.stage == "change"
    assert first.step in (4, 8)
    start, _ = read_sealed(tmp_path / "stage-1.safetensors")
    best, _ = read_sealed(tmp_path / "best.safetensors")
    assert not torch.equal(start["classes.weight"], best["classes.weight"])
    marked = [int(row["step"]) for row in validations(tmp_path) if row["best"] == "1"]
    assert marked[-1] == result.step
    scores = {int(row["step"]): float(row["binary.f1"]) for row in validations(tmp_path) if int(row["step"]) <= 8}
    assert scores[first.step] == max(scores.values())


def diverging(continue_from: str) -> object:
    """Two stages; the learning rate of the first is so high that its last weights are not its best."""
    change = Stage(name="change", loss="change", steps=8, trains=("change",), optimizer=Optimizer(kind="sgd", lr=20))
    classes = STAGES[1].model_copy(update={"optimizer": Optimizer(lr=1e-9)})
    return config(stages=(change, classes), continue_from=continue_from, validate_every=2, ema=None)


def test_the_next_stage_starts_from_the_last_weights_or_from_the_best(tmp_path: Path):
    for name in ("last", "best"):
        train(diverging(name), splits(), tmp_path / name, transform=mirror)  # type: ignore[arg-type]
    first, _ = read_sealed(tmp_path / "best/stage-1.safetensors")
    state, _ = RunFolder(tmp_path / "best").latest()
    assert state is not None
    assert torch.equal(state.part("model")["change.weight"], first["change.weight"])
    assert read_header(tmp_path / "last/stage-1.safetensors").provenance.step == 4
    state, _ = RunFolder(tmp_path / "last").latest()
    assert state is not None
    assert not torch.equal(state.part("model")["change.weight"], first["change.weight"])


@pytest.mark.parametrize("stop", [8, 9])
def test_a_run_resumed_at_a_stage_border_gives_the_same_best_weights(stop: int, tmp_path: Path):
    settings = config(stages=STAGES, continue_from="best")
    train(settings, splits(), tmp_path / "whole", transform=mirror)

    class Stopper(NullLogger):
        def step(self, progress: Progress) -> None:
            if progress.step == stop:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(settings, splits(), tmp_path / "stopped", transform=mirror, logger=Stopper())
    train(settings, splits(), tmp_path / "stopped", transform=mirror, resume=True)
    for name in ("best.safetensors", "last.safetensors", "stage-1.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes()


def test_the_log_says_where_the_next_stage_starts(tmp_path: Path):
    lines: list[str] = []
    settings = config(stages=STAGES, continue_from="best")
    train(settings, splits(), tmp_path, transform=mirror, logger=LineLogger(0, lines.append))
    assert any("continuing from the best weights of the previous stage, step" in line for line in lines)


def test_new_settings_at_their_defaults_do_not_change_the_identity_of_a_run():
    identity = config(stages=STAGES).identity()
    assert "continue_from" not in identity
    assert all("select" not in stage for stage in identity["stages"])
    assert config(stages=STAGES, continue_from="best").identity()["continue_from"] == "best"
