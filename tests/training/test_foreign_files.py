"""Files of other origin in a run, evaluation or benchmark folder are neither replaced nor deleted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.tiny import config, mirror, register, splits
from wasnow.errors import OutputError
from wasnow.training.trainer import train


@pytest.mark.parametrize("name", ["report.html", "best.safetensors", "log.csv", "pictures", "run.json"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_training_rejects_a_folder_with_files_of_these_names(name: str, overwrite: bool, tmp_path: Path):
    register()
    path = tmp_path / name
    if name == "pictures":
        path.mkdir()
        path = path / "holiday.jpg"
    path.write_text(json.dumps({"identity": "of another tool"}))
    with pytest.raises(OutputError, match=rf"contains {name}, which no run of wasnow made there"):
        train(config("steps=2"), splits(), tmp_path, overwrite=overwrite, transform=mirror)
    assert json.loads(path.read_text()) == {"identity": "of another tool"}


def test_other_files_in_a_run_folder_survive_overwriting(tmp_path: Path):
    register()
    (tmp_path / "notes.txt").write_text("mine")
    train(config("steps=2"), splits(), tmp_path, transform=mirror)
    train(config("steps=3"), splits(), tmp_path, overwrite=True, transform=mirror)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_run_of_an_earlier_version_without_a_list_of_files_can_be_resumed_and_overwritten(tmp_path: Path):
    register()
    train(config("steps=2"), splits(), tmp_path, transform=mirror)
    (tmp_path / ".wasnow/files.json").unlink()
    train(config("steps=2"), splits(), tmp_path, transform=mirror, resume=True)
    (tmp_path / ".wasnow/files.json").unlink()
    train(config("steps=1"), splits(), tmp_path, transform=mirror, overwrite=True)
    assert (tmp_path / "run.json").exists()
    assert "run.json" in json.loads((tmp_path / ".wasnow/files.json").read_text())["files"]
