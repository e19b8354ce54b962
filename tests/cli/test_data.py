"""``wasnow data``: check prints ready or all faults, preview writes a page, pairs a dataset."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from data.fakes import binary, masks, save, second
from wasnow.cli.data import app
from wasnow.data.dataset import open_dataset

run = CliRunner()


def wasnow_data(*words: object) -> tuple[int, str, str]:
    done = run.invoke(app, [str(word) for word in words])
    return done.exit_code, done.stdout, done.stderr


def test_check_of_a_valid_dataset_ends_with_ready(tmp_path: Path) -> None:
    binary(tmp_path)
    code, out, _ = wasnow_data("check", tmp_path)
    assert code == 0
    assert out.splitlines()[-1] == "ready"


def test_check_reports_layout_and_assumptions(tmp_path: Path) -> None:
    second(tmp_path)
    code, out, err = wasnow_data("check", tmp_path)
    assert code == 0
    assert "role folders im1, im2, label1, label2" in " ".join(out.split())
    assert "train 4, test 4" in out
    assert "warning: second-e1 assumed" in err
    assert "assumed" not in wasnow_data("check", tmp_path, "--encoding", "e2")[2]


def test_check_lists_every_fault_and_exits_with_code_3(tmp_path: Path) -> None:
    binary(tmp_path)
    (tmp_path / "A" / "one.png").unlink()
    save(tmp_path / "label" / "two.png", np.full((24, 24), 9, np.uint8))
    code, out, err = wasnow_data("check", tmp_path, "--encoding", "binary")
    assert code == 3
    assert "B/one.png: has no before image" in err
    assert "label/two.png: unknown label values 9 in 576 px" in err
    assert "not ready: 2 faults in 2 files" in err.splitlines()[-1]
    assert "ready" not in out


def test_check_as_json_prints_one_object_with_all_faults(tmp_path: Path) -> None:
    binary(tmp_path, names=[f"p{n}" for n in range(60)])
    for path in sorted((tmp_path / "B").iterdir())[:55]:
        path.unlink()
    code, out, _ = wasnow_data("check", tmp_path, "--json")
    report = json.loads(out)
    assert code == 3
    assert report["ready"] is False
    assert len(report["faults"]) == 55


def test_check_of_an_unknown_folder_prints_one_line(tmp_path: Path) -> None:
    code, out, err = wasnow_data("check", tmp_path)
    assert code == 3
    assert out == ""
    assert len(err.splitlines()) == 1
    assert wasnow_data("check", tmp_path, "--encoding", "e7")[0] == 2


def test_check_recognises_images_of_one_date_with_masks(tmp_path: Path) -> None:
    masks(tmp_path)
    code, out, _ = wasnow_data("check", tmp_path)
    assert code == 0
    assert "2 groups: north, south" in " ".join(out.split())
    assert out.splitlines()[-1] == "ready, for wasnow data pairs"
    (tmp_path / "north" / "masks" / "part_0.png").unlink()
    code, _, err = wasnow_data("check", tmp_path)
    assert code == 3
    assert "north/images/part_0.png: has no mask" in err


def test_preview_writes_a_page(tmp_path: Path) -> None:
    binary(tmp_path / "d")
    code, out, _ = wasnow_data("preview", tmp_path / "d", "-o", tmp_path / "page.html")
    assert code == 0
    assert "wrote" in out
    assert (tmp_path / "page.html").stat().st_size > 1000
    assert wasnow_data("preview", tmp_path / "d", "-o", tmp_path / "no" / "page.html")[0] == 4


def test_pairs_writes_a_dataset_that_is_ready(tmp_path: Path) -> None:
    masks(tmp_path / "m")
    code, out, err = wasnow_data(
        "pairs", tmp_path / "m", "-o", tmp_path / "p", "--count", 3, "--val", 2, "--size", 32, "--hold-back", "north"
    )
    assert code == 0, err
    assert "val is generated from north only" in out
    dataset = open_dataset(tmp_path / "p")
    assert {split: len(samples) for split, samples in dataset.splits.items()} == {"train": 3, "val": 2}
    assert dataset.check() == ()
    assert "train from: south" in (tmp_path / "p" / "dataset.yaml").read_text()
    again = wasnow_data("pairs", tmp_path / "m", "-o", tmp_path / "p", "--count", 1, "--size", 32)
    assert again[0] == 4
    assert "--overwrite" in again[2]


@pytest.mark.parametrize("verb", ["check", "preview", "pairs", "get"])
def test_the_help_of_every_command_has_an_example(verb: str) -> None:
    code, out, _ = wasnow_data(verb, "--help")
    assert code == 0
    assert "wasnow data" in out
