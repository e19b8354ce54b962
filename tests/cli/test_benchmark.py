"""``wasnow benchmark`` on a folder as users have it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner, Result

from benchmark.contest import HOSTILE, enter, recipe, write_folder
from wasnow.cli import benchmark
from wasnow.training.recipes import RECIPES


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    enter(monkeypatch, "tiny", "broken")


def wasnow(*words: object) -> Result:
    app = typer.Typer()
    app.command("benchmark")(benchmark.benchmark)
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_dry_run_says_what_would_be_run_and_writes_nothing(tmp_path: Path):
    data = write_folder(tmp_path / "data")
    words = ("--data", data, "--models", "tiny,irmad", "--seeds", "0,2", "-o", tmp_path / "table", "--dry-run")
    done = wasnow(*words, "--budget", "40", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [(one["row"], one["seed"], one["steps"], one["state"]) for one in told["runs"]] == [
        ("tiny", 0, [40], "to do"),
        ("tiny", 2, [40], "to do"),
        ("irmad", None, [], "to do"),
    ]
    assert (told["splits"], told["scored_on"]) == ({"train": 5, "scored": 1}, "1 of the 6 pairs of train")
    table = wasnow(*words).stdout
    assert "train 5" in table.splitlines()[0]
    assert table.count("to do") == 3
    assert not (tmp_path / "table").exists()


def test_a_table_is_made_and_a_failure_is_told_by_the_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hostile = tmp_path / "mine.yaml"
    hostile.write_text(json.dumps({"extends": "tiny-recipe", "name": HOSTILE}))
    words = ("--data", write_folder(tmp_path / "data"), "-m", f"{hostile},broken", "-o", tmp_path / "table")
    done = wasnow(*words, "--set", "crop=24", "--device", "cpu", "--examples", 0)
    assert done.exit_code == 5, done.output
    assert "broken, seed 0: ArithmeticError: nothing here adds up" in done.stderr
    assert str(tmp_path / "table/index.html") in done.stdout
    assert (tmp_path / "table/runs/script-b-onclick-x-_-seed0/result.json").exists()
    record = json.loads((tmp_path / "table/table.json").read_text())
    assert record["recipes"][HOSTILE]["crop"] == 24
    assert record["settings"] == ["crop=24"]
    assert [line["status"] for line in record["lines"]] == ["finished", "failed"]

    alone = wasnow(*words, "--set", "crop=24", "--device", "cpu", "--only", HOSTILE, "--json", "--examples", 0)
    assert alone.exit_code == 0, alone.output
    assert json.loads(alone.stdout)["failed"] == []

    monkeypatch.setitem(RECIPES, "tiny-recipe", lambda: recipe("tiny", clip=1.0))
    other = wasnow(*words, "--set", "crop=24", "--device", "cpu")
    assert other.exit_code == 4
    assert "clip" in other.stderr


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("--models", "tniy"), 2, "did you mean 'tiny'"),
        (("--models", "tiny", "--only", "wide"), 2, "not a row of this table"),
        (("--models", "tiny", "--seeds", "a"), 2, "--seeds 0,1"),
        (("--models", "tiny", "--set", "device=cuda"), 2, "use --device"),
        (("--models", "tiny"), 3, "nowhere"),
    ],
)
def test_invalid_options_are_rejected_in_one_line(tmp_path: Path, words: tuple[str, ...], code: int, text: str):
    done = wasnow("--data", tmp_path / "nowhere", *words)
    assert done.exit_code == code, done.output
    assert text in done.stderr
    assert done.stderr.count("\n") == 1
