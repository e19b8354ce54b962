"""A benchmark is run, interrupted, killed, gone on with, and refuses what is another's."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmark.contest import Labelled, contest, enter, pairs, planned, recipe, run
from training.tiny import Blobs
from wasnow.benchmark.job import _end_with_parent, flops_of, spread
from wasnow.benchmark.pairs import split_pairs
from wasnow.benchmark.run import Benchmark
from wasnow.errors import Interrupted, OutputError, ResumeRefused, UsageError
from wasnow.priors.samples import NoMasks
from wasnow.training.config import Stage
from wasnow.training.recipes import RECIPES


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    enter(monkeypatch, "tiny", "wide", "broken", "once", "guided")


def written(folder: Path) -> dict[str, int]:
    """When every file below was last written."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_failed_row_does_not_stop_the_others_and_is_shown(tmp_path: Path):
    outcome = run(tmp_path, "broken", "tiny", "irmad", seeds=(0, 1))
    assert outcome.failed == (
        ("broken, seed 0", "ArithmeticError: nothing here adds up"),
        ("broken, seed 1", "ArithmeticError: nothing here adds up"),
    )
    broken, tiny, irmad = outcome.table.lines
    assert (broken.status, tiny.status, irmad.status) == ("failed", "finished", "finished")
    assert (tiny.seeds, irmad.seeds) == ((0, 1), ())
    assert "nothing here adds up" in outcome.page.read_text()
    assert "Traceback" in (tmp_path / "runs/broken-seed0/failure.txt").read_text()

    # Change alone is scored on change alone.
    assert "binary.f1" in irmad.values
    assert "stacked.sek" in irmad.undefined
    assert tiny.values["binary.f1"].low is not None
    # tiny: 3x3 convolution of 3 to 8, norm, 1x1 of 8 to 8, and heads of 16 to 1 and 8 to 4.
    assert tiny.values["parameters"].mean == 8 * 27 + 8 + 16 + 64 + 8 + 17 + 36
    pixels = 32 * 32
    assert tiny.values["gflops"].mean == pytest.approx(2 * pixels * (2 * (8 * 27 + 64 + 32) + 16) / 1e9)
    assert tiny.values["train_steps"].mean == 2
    assert tiny.values["pairs_per_s"].mean > 0
    record = json.loads((tmp_path / "table.json").read_text())
    assert record["data"]["splits"] == {"all": 6, "scored": 2}
    assert (record["seeds"], record["budget"], record["command"]) == ([0, 1], "published", "wasnow benchmark")
    assert record["machine"]["cores"] == os.cpu_count()
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [
        "0-after.jpg",
        "0-before.jpg",
        "0-irmad.png",
        "0-labels.png",
        "0-tiny-seed0.png",
    ]
    for link in ("pictures/0-labels.png", "runs/tiny-seed1/report.html", "runs/irmad/evaluation/confusion.html"):
        assert f'href="{link}"' in outcome.page.read_text()
        assert (tmp_path / link).exists()

    assert record["reference"] == "tiny"
    assert record["differences"].keys() == {"irmad"}
    assert {"binary.f1", "binary.oa"} <= record["differences"]["irmad"].keys()
    # Again: finished trials are skipped and failed ones run again.
    before = written(tmp_path / "runs")
    again = run(tmp_path, "broken", "tiny", "irmad", seeds=(0, 1))
    assert again.failed == outcome.failed
    after = written(tmp_path / "runs")
    assert {name for name in before if before[name] != after.get(name)} <= {
        name for name in before if name.startswith("broken")
    }


def once(monkeypatch: pytest.MonkeyPatch, mark: Path, whom: str) -> None:
    """Let the recipe of `Once` have four steps, and an end after the second."""
    options = {"mark": str(mark), "whom": whom}
    monkeypatch.setitem(
        RECIPES, "once-recipe", lambda: recipe("once", stages=(Stage(loss="ding", steps=4),), model_options=options)
    )


def test_a_killed_training_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    once(monkeypatch, tmp_path / "mark", "self")
    output = tmp_path / "table"
    first = run(output, "once", "tiny")
    assert [name for name, _ in first.failed] == ["once, seed 0"]
    assert "was killed, probably because memory ran out" in first.failed[0][1]
    assert first.table.lines[1].status == "finished"
    states = [one.state for one in contest(output, planned("once", "tiny")).tasks()]
    assert states == ["resumes after step 2", "finished"]
    log = (output / "runs/once-seed0/log.csv").read_text()

    second = run(output, "once", "tiny")
    assert second.failed == ()
    assert second.table.lines[0].reason is None
    assert not (output / "runs/once-seed0/failure.txt").exists()
    assert (output / "runs/once-seed0/log.csv").read_text().startswith(log)
    assert second.table.lines[0].values["train_steps"].mean == 4


def test_ctrl_c_ends_the_benchmark_and_keeps_the_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    once(monkeypatch, tmp_path / "mark", "parent")
    output = tmp_path / "table"
    # Shells start background jobs with SIGINT ignored, and the tests may be one.
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(Interrupted, match="the same command continues"):
            run(output, "once", "tiny")
    finally:
        signal.signal(signal.SIGINT, heard)
    states = [one.state for one in contest(output, planned("once", "tiny")).tasks()]
    assert states == ["resumes after step 3", "to do"]
    assert json.loads((output / "table.json").read_text())["lines"][0]["status"] == "not run"


def test_rows_can_be_run_alone_and_the_table_keeps_the_others(tmp_path: Path):
    plan = planned("tiny", "wide")
    first = contest(tmp_path, plan).run(["wide"])
    assert [line.status for line in first.table.lines] == ["not run", "finished"]
    assert "not run" in first.page.read_text()
    second = contest(tmp_path, plan).run(["tiny"])
    assert [line.status for line in second.table.lines] == ["finished", "finished"]


def test_a_folder_of_another_benchmark_is_refused_before_anything_runs(tmp_path: Path):
    run(tmp_path, "tiny")
    before = written(tmp_path)
    for other in (
        contest(tmp_path, planned("tiny", settings=["optimizer.lr=0.5"])),
        contest(tmp_path, planned("tiny"), pairs(9)),
    ):
        with pytest.raises(ResumeRefused, match="tiny-seed0 holds another run"):
            other.run()
    assert written(tmp_path) == before
    changed = contest(tmp_path, planned("tiny", settings=["optimizer.lr=0.5"])).run(overwrite=True)
    assert changed.failed == ()


def test_a_device_that_is_not_there_and_a_folder_that_is_a_file_are_refused_before_anything_runs(tmp_path: Path):
    with pytest.raises(UsageError, match="use --device cpu"):
        Benchmark(planned("irmad"), pairs(), tmp_path / "table", device="mps").run()
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="choose a folder"):
        contest(tmp_path / "file", planned("irmad")).check()


@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_counted_as_the_matrix_products_that_it_is(masked: bool):
    query, key = torch.rand(2, 3, 20, 8), torch.rand(2, 3, 12, 8)
    mask = torch.rand(2, 1, 1, 12) > 0.5 if masked else None

    def attend() -> object:
        return functional.scaled_dot_product_attention(query, key, key, attn_mask=mask)

    assert flops_of(attend) == 2 * 2 * 3 * 20 * 12 * (8 + 8)
    with sdpa_kernel(SDPBackend.MATH):
        assert flops_of(attend) == 2 * 2 * 3 * 20 * 12 * (8 + 8)


def test_costs_of_an_older_format_are_measured_again_and_nothing_else(tmp_path: Path):
    run(tmp_path, "irmad")
    cost, result = tmp_path / "runs/irmad/cost.json", tmp_path / "runs/irmad/result.json"
    cost.write_text(json.dumps({**json.loads(cost.read_text()), "format": 1, "pairs_per_s": -1}))
    before = result.stat().st_mtime_ns
    (line,) = run(tmp_path, "irmad").table.lines
    assert line.values["pairs_per_s"].mean > 0
    assert result.stat().st_mtime_ns == before


def test_a_row_with_masks_from_labels_says_that_it_is_an_upper_bound(tmp_path: Path):
    for masks, said in ((Labelled(), "masks of water: labels, an upper bound"), (NoMasks(), "masks of water: none")):
        folder = tmp_path / type(masks).__name__
        (line,) = contest(folder, planned("guided"), replace(pairs(4), masks=masks)).run().table.lines
        assert line.status == "finished"
        assert line.notes[0].startswith(said)


def test_a_checkpoint_is_scored_as_it_is(tmp_path: Path):
    trained = run(tmp_path / "a", "tiny").table.lines[0]
    ready = run(tmp_path / "b", str(tmp_path / "a/runs/tiny-seed0")).table.lines[0]
    assert ready.recipe is None
    assert ready.values["stacked.sek"] == trained.values["stacked.sek"]
    missing = run(tmp_path / "c", str(tmp_path / "none.safetensors"))
    assert "none.safetensors" in missing.failed[0][1]


def test_a_recipe_for_dense_labels_is_trained_without_where_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(RECIPES, "tiny-recipe", lambda: recipe("tiny", dense=True))
    row = contest(tmp_path, planned("tiny")).plan.rows[0]
    assert row.config is not None
    assert not row.config.dense
    assert "do not have" in row.notes[0]


def test_change_labels_are_trained_as_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    bare = split_pairs({"all": Blobs(4, words=())}, "bare")
    row = contest(tmp_path, planned("tiny", budget="3"), bare).plan.rows[0]
    assert row.config is not None
    assert [stage.loss for stage in row.config.stages] == ["change"]
    monkeypatch.setitem(RECIPES, "tiny-recipe", lambda: recipe("tiny", stages=(Stage(loss="change", steps=1),)))
    (told,) = contest(tmp_path, planned("tiny")).plan.rows
    assert "classes are untrained" in told.notes[0]


def middle(file: str) -> None:
    """A process whose child waits for its end."""
    child = multiprocessing.get_context("fork").Process(target=lowest, args=(file,))
    child.start()
    while not Path(file).exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


def lowest(file: str) -> None:
    """Say what signal came."""
    caught: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: caught.append(number))
    _end_with_parent()
    Path(file).write_text("ready")
    for _ in range(500):
        time.sleep(0.01)
        if caught:
            Path(file).write_text("asked to stop")
            break
    os._exit(0)


def test_a_training_whose_benchmark_was_killed_is_asked_to_stop(tmp_path: Path):
    file = tmp_path / "said"
    process: Any = multiprocessing.get_context("fork").Process(target=middle, args=(str(file),))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    for _ in range(500):
        if file.read_text() == "asked to stop":
            break
        time.sleep(0.01)
    assert file.read_text() == "asked to stop"


@pytest.mark.parametrize(("count", "wanted"), [(0, 4), (1, 4), (4, 4), (100, 4), (7, 3), (5, 0)])
def test_examples_are_spread_over_the_pairs(count: int, wanted: int):
    places = spread(count, wanted)
    assert len(places) == min(count, wanted)
    assert all(0 <= place < count for place in places)
    gaps = {second - first for first, second in pairwise(places)}
    assert max(gaps, default=0) - min(gaps, default=0) <= 1


def test_files_of_other_origin_are_not_replaced(tmp_path: Path):
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(OutputError, match=r"contains index\.html, which no run of wasnow made"):
        run(tmp_path, "tiny")
    assert (tmp_path / "index.html").read_text() == "mine"
    assert not (tmp_path / "table.json").exists()
