"""``wasnow priors`` on the command line."""

import json

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from data.fakes import SIDE, binary, save
from data.fakes import second as write_second
from making import pair, write_raster
from priors import families
from wasnow.cli import priors as verb
from wasnow.priors import open_priors
from wasnow.raster.tiles import Window

run = CliRunner()


@pytest.fixture
def app():
    """A program with two commands: with a single one, typer would omit its name."""
    program = typer.Typer()
    program.command("other")(lambda: None)
    program.command("priors", epilog=verb.EXAMPLES)(verb.priors)
    return program


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WASNOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="module")
def clipseg(tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield families.clipseg(tmp_path_factory.mktemp("weights") / "clipseg")
    torch.set_num_threads(threads)


def test_a_pair_gives_a_prior_folder_and_a_second_run_uses_the_cache(app, tmp_path, clipseg):
    before, after = pair(tmp_path)
    command = ["priors", str(before), str(after), "--classes", "house, road", "--masker", "clipseg",
               "--weights", str(clipseg), "--tile", "64", "--margin", "8", "--device", "cpu"]  # fmt: skip
    result = run.invoke(app, [*command, "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "house" in result.output
    assert "megapixels" in result.output
    assert open_priors(tmp_path / "out").words == ("house", "road")
    again = run.invoke(app, [*command, "-o", str(tmp_path / "again"), "--json"])
    told = json.loads(again.stdout)
    assert told["asked"] == 0 < told["reused"]
    assert told["masker"]["masker"] == "clipseg"
    assert set(told["covered"]["after"]) == {"house", "road"}
    another = run.invoke(app, [*command, "-o", str(tmp_path / "strict"), "--json", "--score", "0.9"])
    assert json.loads(another.stdout)["asked"] == told["reused"]


def test_existing_masks_need_no_weights(app, tmp_path):
    before, after = pair(tmp_path)
    values = np.zeros((1, 96, 128), np.uint8)
    values[0, 10:30, 40:90] = 1
    masks = write_raster(tmp_path / "footprints.tif", values)
    result = run.invoke(
        app,
        ["priors", str(before), str(after), "--classes", "building", "--masks", str(masks), "-o", str(tmp_path / "o")],
    )
    assert result.exit_code == 0, result.output
    assert "8.14 %" in result.output
    found = open_priors(tmp_path / "o").read(Window(0, 0, 96, 128), "after")
    np.testing.assert_array_equal(found, values)


def test_a_dataset_folder_gives_a_prior_folder(app, tmp_path, clipseg):
    binary(tmp_path / "data")
    result = run.invoke(
        app,
        ["priors", str(tmp_path / "data"), "--classes", "house", "--masker", "clipseg", "--weights", str(clipseg),
         "--quiet", "-o", str(tmp_path / "out")],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert open_priors(tmp_path / "out").manifest.kind == "dataset"


def test_without_weights_one_line_gives_the_download_command(app, tmp_path):
    before, after = pair(tmp_path)
    result = run.invoke(app, ["priors", str(before), str(after), "--classes", "building", "-o", str(tmp_path / "o")])
    assert result.exit_code == 3
    assert "hf download IDEA-Research/grounding-dino-tiny --local-dir" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--masker", "sam4"], "did you mean 'sam3'"),
        (["--masker", "files"], "needs --masks"),
        (["--masker", "sam3", "--masks", "x.tif"], "not for sam3"),
        (["--weights", "one"], "give the detector, then the segmenter"),
        (["--masker", "clipseg", "--weights", "a", "--weights", "b"], "has 1 network"),
        (["--masks", "m.tif", "--bands", "red"], "must be numbers from 1"),
        (["--classes", ""], "a class word is empty"),
    ],
)
def test_invalid_options_are_rejected_in_one_line(app, tmp_path, options, message):
    before, after = pair(tmp_path)
    write_raster(tmp_path / "m.tif", np.zeros((1, 96, 128), np.uint8))
    options = [str(tmp_path / "m.tif") if option == "m.tif" else option for option in options]
    classes = [] if "--classes" in options else ["--classes", "building"]
    result = run.invoke(app, ["priors", str(before), str(after), *classes, *options, "-o", str(tmp_path / "o")])
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_word_that_is_not_found_gives_a_warning_with_advice(app, tmp_path, clipseg):
    before, after = pair(tmp_path)
    values = np.full((1, 96, 128), 255, np.uint8)
    values[0, :50] = 1
    masks = ["--masks", str(write_raster(tmp_path / "m.tif", values)), "-o", str(tmp_path / "o")]
    result = run.invoke(app, ["priors", str(before), str(after), "--classes", "building, road, lake", *masks])
    assert result.exit_code == 0, result.output
    assert "road and lake: nothing found at either date" in result.stderr
    assert "the numbers 1, 2, ... in the order of --classes" in result.stderr
    sure = ["--masker", "clipseg", "--weights", str(clipseg), "--score", "0.999", "-o", str(tmp_path / "p")]
    result = run.invoke(app, ["priors", str(before), str(after), "--classes", "house", *sure])
    assert "house: nothing found at either date; lower --score" in result.stderr


def test_the_label_encoding_of_a_dataset_can_be_given(app, tmp_path):
    write_second(tmp_path / "data")
    masks = save(tmp_path / "m.png", np.ones((SIDE, SIDE), np.uint8))
    words = ["priors", str(tmp_path / "data"), "--classes", "building", "--masks", str(masks), "--quiet"]
    result = run.invoke(app, [*words, "-o", str(tmp_path / "a")])
    assert "pass --encoding second-e2" in result.stderr
    result = run.invoke(app, [*words, "-o", str(tmp_path / "b"), "--encoding", "second-e2"])
    assert result.exit_code == 0, result.output
    assert result.stderr == ""


def test_a_single_raster_is_rejected(app, tmp_path):
    before, _ = pair(tmp_path)
    result = run.invoke(app, ["priors", str(before), "--classes", "x", "-o", str(tmp_path / "o")])
    assert result.exit_code == 2
    assert "is one raster. Give BEFORE and AFTER" in result.stderr


def test_three_inputs_are_rejected(app, tmp_path):
    result = run.invoke(app, ["priors", "a", "b", "c", "--classes", "x", "-o", str(tmp_path / "o")])
    assert result.exit_code == 2
    assert "BEFORE and AFTER, or one dataset folder" in result.stderr
