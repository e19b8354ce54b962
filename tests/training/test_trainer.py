"""A whole run: what it learns, what it keeps, and that neither a kill nor the number of processes changes it."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from training.tiny import Blobs, Tiny, config, mirror, process, register, splits
from wasnow.errors import Interrupted, OutOfMemory, OutputError, ResumeRefused, TrainingDiverged, UsageError
from wasnow.evaluation import evaluate
from wasnow.models.checkpoint import load, read_header
from wasnow.models.contract import ChangeLogits
from wasnow.models.sealed import read_sealed
from wasnow.training.config import Stage
from wasnow.training.devices import memory_advice
from wasnow.training.logging import LineLogger, NullLogger, Progress, progress_line
from wasnow.training.run_folder import CsvLog, RunFolder
from wasnow.training.trainer import TrainResult, train


@pytest.fixture(autouse=True)
def _tiny() -> Iterator[None]:
    """One thread, and the test networks known by name."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    register()
    yield
    torch.set_num_threads(threads)


def run(
    folder: Path, *settings: str, data: dict[str, Any] | None = None, logger: Any = None, **changes: Any
) -> TrainResult:
    resume = changes.pop("resume", False)
    return train(config(*settings, **changes), data or splits(), folder, resume=resume, transform=mirror, logger=logger)


def weights(folder: Path, part: str = "model") -> dict[str, torch.Tensor]:
    """The weights of the last state of a run."""
    state, faults = RunFolder(folder).latest()
    assert state is not None
    assert not faults
    return state.part(part)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def logged(folder: Path) -> int:
    """The last step in the log of a run."""
    log = folder / "log.csv"
    lines = log.read_text().splitlines() if log.exists() else []
    return int(lines[-1].partition(",")[0] or 0) if len(lines) > 1 else 0


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# --------------------------------------------------------------------------------------------------------- bit for bit


def test_a_run_killed_repeatedly_ends_with_the_weights_of_an_uninterrupted_run(tmp_path: Path):
    draw = random.Random(20)
    whole, folder = process(tmp_path / "whole"), tmp_path / "killed"
    kills = 0
    for done in (1, 3, 4, 6, 9, 11):
        victim = process(folder)
        while victim.is_alive() and logged(folder) < done:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.06))
        victim.kill()
        victim.join()
        kills += victim.exitcode == -signal.SIGKILL
    last = process(folder)
    for one in (whole, last):
        one.join(60)
        assert one.exitcode == 0
    assert kills >= 4
    for part in ("model", "average", "optimizer"):
        assert same(weights(tmp_path / "whole", part), weights(folder, part))
    for name in ("best.safetensors", "last.safetensors", "validations.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize("stop", [1, 7, 8, 11])
def test_a_run_stopped_after_any_step_resumes_with_the_same_result(stop: int, tmp_path: Path):
    stages = (Stage(steps=8), Stage(name="heads", steps=6, trains=("change", "classes")))
    run(tmp_path / "whole", stages=stages)

    class Stopper(NullLogger):
        def step(self, progress: Progress) -> None:
            if progress.step == stop:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match=f"after step {stop} of 14; continue with --resume"):
        run(tmp_path / "stopped", stages=stages, logger=Stopper())
    assert json.loads((tmp_path / "stopped/run.json").read_text())["status"] == "interrupted"
    assert read_header(tmp_path / "stopped/last.safetensors").provenance.step == stop
    run(tmp_path / "stopped", stages=stages, resume=True)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "stopped"))
    assert len(rows(tmp_path / "stopped/log.csv")) == 14


def test_workers_do_not_change_the_weights(tmp_path: Path):
    run(tmp_path / "none", "steps=4")
    run(tmp_path / "two", "steps=4", "workers=2")
    assert same(weights(tmp_path / "none"), weights(tmp_path / "two"))


def test_another_seed_gives_other_weights(tmp_path: Path):
    run(tmp_path / "a", "steps=2")
    run(tmp_path / "b", "steps=2", "seed=1")
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_two_processes_give_the_weights_of_one(tmp_path: Path):
    """Weights of size 1 agree within 1e-5 after 14 steps of Adam: only the order of float32 sums differs."""
    settings = ("model_options.dropout=0", "ema=null", "validate_every=7")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": "0"}
    pair = [process(tmp_path / "two", *settings, "devices=2", LOCAL_RANK=str(i), **address) for i in range(2)]
    alone = process(tmp_path / "one", *settings)
    for one in (*pair, alone):
        one.join(90)
        assert one.exitcode == 0
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    start = Tiny(dropout=0).state_dict()
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-5
    assert max(float((one[name] - start[name]).abs().max()) for name in one) > 0.05
    scores = [rows(tmp_path / name / "validations.csv") for name in ("one", "two")]
    assert [row["step"] for row in scores[0]] == [row["step"] for row in scores[1]] == ["7", "14"]
    assert float(scores[0][-1]["stacked.miou"]) == pytest.approx(float(scores[1][-1]["stacked.miou"]), abs=0.01)


def test_micro_batches_give_the_mean_gradient(tmp_path: Path):
    """With pairs that are all alike, the parts are too, and so are the runs (up to the order of sums)."""
    one = {"train": Blobs(1), "val": Blobs(1)}
    options = ("model_options.dropout=0", "steps=3", "ema=null", "batch_size=4")

    def still(sample: Any, rng: np.random.Generator) -> Any:
        return sample

    for parts in (1, 2, 4):
        settings = config(*options, f"accumulate={parts}")
        train(settings, one, tmp_path / str(parts), transform=still)
    whole = weights(tmp_path / "1")
    for parts in (2, 4):
        parted = weights(tmp_path / str(parts))
        assert all(torch.allclose(whole[name], parted[name], atol=1e-5) for name in whole)


# ------------------------------------------------------------------------------------------------------ what it learns


def test_training_lowers_the_loss_and_keeps_the_weights_with_the_best_validation(tmp_path: Path):
    trained = run(tmp_path, "steps=60", "validate_every=10", "select=stacked.fscd", "log_every=10")
    found = rows(tmp_path / "validations.csv")
    best = max(found, key=lambda row: float(row["stacked.fscd"]))
    assert trained.score == float(best["stacked.fscd"]) > 0.8
    assert trained.step == int(best["step"])
    model = load(tmp_path)
    again = evaluate(model, splits()["val"], split="val", resamples=0)
    assert again.scores.stacked.fscd == trained.score
    header = read_header(tmp_path)
    assert header.scores["val"]["stacked.fscd"] == trained.score
    assert header.provenance.trained_on == "train (6 pairs)"
    assert header.provenance.selected_on == "val (3 pairs)"
    assert header.provenance.data_fingerprint == Blobs(6).fingerprint
    log = rows(tmp_path / "log.csv")
    assert float(log[-1]["loss"]) < 0.5 * float(log[0]["loss"])
    assert {"classes", "change", "consistency", "rate", "waiting"} <= set(log[0])


def test_a_change_model_trains_on_masks(tmp_path: Path):
    data = {"train": Blobs(6, words=()), "val": Blobs(3, seed=1, words=())}
    stages = (Stage(loss="change", steps=40),)
    trained = run(tmp_path, model="tiny-change", stages=stages, data=data, validate_every=20)
    assert trained.select == "binary.f1"
    assert trained.score is not None
    assert trained.score > 0.8
    assert load(tmp_path).card.classes == ()


def test_a_stage_changes_only_its_parameters(tmp_path: Path):
    run(tmp_path / "a", "steps=3")
    stages = (Stage(steps=3), Stage(name="heads", steps=3, trains=("change",), loss="change"))
    run(tmp_path / "b", stages=stages, schedule=config().schedule)
    before, after = weights(tmp_path / "a"), weights(tmp_path / "b")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"change.weight", "change.bias"}


def test_training_starts_from_the_weights_of_a_checkpoint(tmp_path: Path):
    run(tmp_path / "a", "steps=20", "ema=null")
    told: list[str] = []
    run(tmp_path / "b", "steps=1", f"start={tmp_path / 'a'}", "optimizer.lr=1e-9", logger=LineLogger(0, told.append))
    taken, _ = read_sealed(tmp_path / "a/best.safetensors")
    here = weights(tmp_path / "b")
    assert all(torch.allclose(taken[name], here[name], atol=1e-6) for name in here)
    assert any("started from best.safetensors: 10 tensors loaded, 0 are random" in text for text in told)


def test_bf16_training_converges(tmp_path: Path):
    trained = run(tmp_path, "steps=40", "precision=bf16", "validate_every=20", "select=binary.f1")
    assert trained.score is not None
    assert trained.score > 0.7
    assert all(one.dtype == torch.float32 for one in weights(tmp_path).values())


def test_without_selection_the_last_weights_are_the_result(tmp_path: Path):
    trained = run(tmp_path, "steps=3", "holdback=0", data={"all": Blobs(4)})
    assert trained.checkpoint == tmp_path / "last.safetensors"
    assert trained.score is None
    assert "nothing: the last weights are kept" in (tmp_path / "report.html").read_text()
    assert load(tmp_path).card.name == "tiny"


# ------------------------------------------------------------------------------------------------------- what is kept


def test_two_states_are_kept(tmp_path: Path):
    run(tmp_path)
    assert sorted(path.name for path in (tmp_path / "states").iterdir()) == [
        "00000010.safetensors",
        "00000012.safetensors",
    ]


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_damaged_state_is_rejected_and_the_previous_one_used(damage: str, tmp_path: Path):
    run(tmp_path / "a")
    expected = weights(tmp_path / "a")
    last = tmp_path / "a/states/00000012.safetensors"
    content = bytearray(last.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    else:
        content[-100] ^= 1
    last.write_bytes(content)
    told: list[str] = []
    run(tmp_path / "a", resume=True, logger=LineLogger(0, told.append))
    assert any("00000012.safetensors" in text and "the previous state is used" in text for text in told)
    assert any("resumed after step 10 of 12" in text for text in told)
    assert same(weights(tmp_path / "a"), expected)


def test_a_finished_run_resumed_changes_nothing(tmp_path: Path):
    first = run(tmp_path, "steps=4")
    before = {name: (tmp_path / name).read_bytes() for name in ("best.safetensors", "last.safetensors", "log.csv")}
    assert run(tmp_path, "steps=4", resume=True) == first
    assert before == {name: (tmp_path / name).read_bytes() for name in before}


def test_a_folder_with_a_run_is_not_overwritten_without_the_option(tmp_path: Path):
    run(tmp_path, "steps=2")
    with pytest.raises(OutputError, match="add --resume"):
        run(tmp_path, "steps=2")
    with pytest.raises(ResumeRefused, match=r"batch_size is 4, now 2"):
        run(tmp_path, "steps=2", "batch_size=2", resume=True)
    with pytest.raises(ResumeRefused, match="data_fingerprint"):
        run(tmp_path, "steps=2", data={**splits(), "train": Blobs(7)}, resume=True)
    train(config("steps=2", "batch_size=2"), splits(), tmp_path, overwrite=True, transform=mirror)
    assert read_header(tmp_path).provenance.recipe["batch_size"] == 2


def test_an_incomplete_log_row_is_dropped(tmp_path: Path):
    folder = RunFolder(tmp_path)
    table = CsvLog(folder, "log.csv", 0)
    for step in range(1, 5):
        table.add({"step": step, "loss": step / 2})
    table.add({"step": 5, "loss": 1, "new": 7})
    with (tmp_path / "log.csv").open("a") as file:
        file.write("6,3.")
    assert [row["step"] for row in CsvLog(folder, "log.csv", 9).rows] == ["1", "2", "3", "4", "5"]
    assert [row["step"] for row in CsvLog(folder, "log.csv", 2).rows] == ["1", "2"]


def test_the_page_names_the_splits_and_shows_curves_and_predictions(tmp_path: Path):
    run(tmp_path)
    page = (tmp_path / "report.html").read_text()
    for text in ("train (6 pairs)", "val (3 pairs)", "Not used", "predicted after step 8", "stacked.fscd"):
        assert text in page
    assert page.count('<svg class="chart"') == 6
    assert page.count("data:image/png") == 4  # labels, and predictions at steps 4, 8, 12
    assert not re.search(r"https?://", page)


def test_a_progress_line_shows_loss_speed_and_remaining_time():
    progress = Progress(120, 2500, 3.2, "train", 0.8, {"change": 0.3, "classes": 0.5}, 0.01, 1, 12, 3700, 0.04, 900)
    assert progress_line(progress) == (
        "step 120/2500, epoch 3.20, loss 0.8 (change 0.3, classes 0.5), rate 0.01, 12 pairs/s, 1 h 01 min left, "
        "900 MB, 4% waiting"
    )


# ---------------------------------------------------------------------------------------------------- what goes wrong


class Breaking(Tiny):
    """A network that fails after some calls."""

    def __init__(self, classes: Any, *, error: str = "", after: int = 3) -> None:
        super().__init__(classes, dropout=0)
        self._config = {"error": error, "after": after}
        self.calls = 0

    def forward(self, before: Any, after: Any, valid: Any = None) -> ChangeLogits:
        answer = super().forward(before, after, valid)
        self.calls += self.training
        if self.calls <= self._config["after"]:
            return answer
        if self._config["error"]:
            raise RuntimeError(self._config["error"])
        return ChangeLogits(answer.change * float("nan"), answer.before, answer.after, answer.unchanged_channel)


@pytest.fixture
def _breaking(monkeypatch: pytest.MonkeyPatch) -> None:
    import wasnow.models.registry

    entry = wasnow.models.registry.ModelEntry("a test network", "change, classes", "none", f"{__name__}:Breaking")
    monkeypatch.setitem(wasnow.models.registry.MODELS, "tiny", entry)  # type: ignore[arg-type]


@pytest.mark.usefixtures("_breaking")
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_finite_weights(tmp_path: Path):
    with pytest.raises(TrainingDiverged) as caught:
        run(tmp_path, ema=None)
    message = str(caught.value)
    assert "the loss is nan at step 4 (stage train, classes " in message
    assert "--set optimizer.lr=0.0067 or --set clip=1" in message
    assert f"--set start={tmp_path / 'last.safetensors'}" in message
    tensors, header = read_sealed(tmp_path / "last.safetensors")
    assert header["provenance"]["step"] == 3
    assert all(torch.isfinite(one).all() for one in tensors.values())
    assert "the loss is nan" in (tmp_path / "report.html").read_text()


@pytest.mark.usefixtures("_breaking")
@pytest.mark.parametrize(
    "words", ["CUDA out of memory. Tried to allocate", "DefaultCPUAllocator: can't allocate memory"]
)
def test_out_of_memory_names_the_setting_to_lower(words: str, tmp_path: Path):
    with pytest.raises(OutOfMemory, match="at step 4, with 4 pairs of 16 px at once; --set accumulate=2"):
        run(tmp_path, ema=None, model_options={"error": words})


@pytest.mark.usefixtures("_breaking")
def test_other_errors_are_not_converted(tmp_path: Path):
    with pytest.raises(RuntimeError, match="a bug"):
        run(tmp_path, ema=None, model_options={"error": "a bug"})


def test_memory_advice_starts_with_the_least_intrusive_setting():
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    whole = config(crop=512, batch_size=8)
    assert re.search(r"accumulate=2 .* or --set precision=bf16 or --set crop=256$", memory_advice(whole, cuda, 0))
    single = config(crop=512, batch_size=8, accumulate=8, precision="bf16")
    assert memory_advice(single, cuda, 0).endswith("with 1 pairs of 512 px at once; --set crop=256")
    assert "bf16" not in memory_advice(whole, cpu, 0)
    assert "checkpointing" not in memory_advice(single, cuda, 0)
    assert "--set checkpointing=true (slower) or --set crop=256" in memory_advice(single, cuda, 0, checkpointing=True)


def test_an_unknown_score_is_rejected_before_training(tmp_path: Path):
    with pytest.raises(UsageError, match=r"did you mean 'stacked\.fscd'"):
        run(tmp_path, "select=stacked.fcsd")
    with pytest.raises(UsageError, match="needs classes"):
        run(tmp_path, "select=stacked.fscd", model="tiny-change", stages=(Stage(loss="change", steps=1),))


def test_a_model_with_classes_is_rejected_for_data_without(tmp_path: Path):
    with pytest.raises(UsageError, match="the data has none; choose a model that predicts change only"):
        run(tmp_path, data={"all": Blobs(4, words=())})


def test_tensorboard_contains_the_values_of_the_log(tmp_path: Path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    told = {event.step: event.value for event in events.Scalars("train/loss")}
    written = {int(row["step"]): float(row["loss"]) for row in rows(tmp_path / "log.csv")}
    assert told == pytest.approx(written, rel=1e-4)
    validated = {int(row["step"]): float(row["binary.f1"]) for row in rows(tmp_path / "validations.csv")}
    assert {e.step: e.value for e in events.Scalars("validation/binary.f1")} == pytest.approx(validated, rel=1e-4)
