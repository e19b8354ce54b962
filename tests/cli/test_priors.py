"""``wasnow priors``, as it is typed."""

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
    """A program with this verb and another: with one alone, typer would leave its name out."""
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


def test_a_pair_and_words_make_a_prior_folder_and_the_next_time_it_is_quick(app, tmp_path, clipseg):
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


def test_masks_of_one_s_own_need_no_weights(app, tmp_path):
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


def test_a_dataset_folder_works_as_well(app, tmp_path, clipseg):
    binary(tmp_path / "data")
    result = run.invoke(
        app,
        ["priors", str(tmp_path / "data"), "--classes", "house", "--masker", "clipseg", "--weights", str(clipseg),
         "--quiet", "-o", str(tmp_path / "out")],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert open_priors(tmp_path / "out").manifest.kind == "dataset"


def test_without_weights_one_line_says_what_to_fetch(app, tmp_path):
    before, after = pair(tmp_path)
    result = run.invoke(app, ["priors", str(before), str(after), "--classes", "building", "-o", str(tmp_path / "o")])
    assert result.exit_code == 3
    assert "hf download IDEA-Research/grounding-dino-tiny --local-dir" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--masker", "sam4"], "did you mean 'sam3'"),
        (["--masker", "files"], "wants --masks"),
        (["--masker", "sam3", "--masks", "x.tif"], "not for sam3"),
        (["--weights", "one"], "name the detector, then the segmenter"),
        (["--masker", "clipseg", "--weights", "a", "--weights", "b"], "has 1 network"),
        (["--masks", "m.tif", "--bands", "red"], "write numbers from 1"),
        (["--classes", ""], "a class word is empty"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(app, tmp_path, options, said):
    before, after = pair(tmp_path)
    write_raster(tmp_path / "m.tif", np.zeros((1, 96, 128), np.uint8))
    options = [str(tmp_path / "m.tif") if option == "m.tif" else option for option in options]
    classes = [] if "--classes" in options else ["--classes", "building"]
    result = run.invoke(app, ["priors", str(before), str(after), *classes, *options, "-o", str(tmp_path / "o")])
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_word_that_is_found_nowhere_is_told_with_what_to_look_at(app, tmp_path, clipseg):
    before, after = pair(tmp_path)
    values = np.full((1, 96, 128), 255, np.uint8)
    values[0, :50] = 1
    masks = ["--masks", str(write_raster(tmp_path / "m.tif", values)), "-o", str(tmp_path / "o")]
    result = run.invoke(app, ["priors", str(before), str(after), "--classes", "building, road, lake", *masks])
    assert result.exit_code == 0, result.output
    assert "road and lake: nothing at either date" in result.stderr
    assert "the numbers 1, 2, ... in the order of --classes" in result.stderr
    sure = ["--masker", "clipseg", "--weights", str(clipseg), "--score", "0.999", "-o", str(tmp_path / "p")]
    result = run.invoke(app, ["priors", str(before), str(after), "--classes", "house", *sure])
    assert "house: nothing at either date; lower --score" in result.stderr


def test_classes_whose_order_nothing_tells_can_be_told(app, tmp_path):
    write_second(tmp_path / "data")
    masks = save(tmp_path / "m.png", np.ones((SIDE, SIDE), np.uint8))
    words = ["priors", str(tmp_path / "data"), "--classes", "building", "--masks", str(masks), "--quiet"]
    result = run.invoke(app, [*words, "-o", str(tmp_path / "a")])
    assert "pass --encoding second-e2" in result.stderr
    result = run.invoke(app, [*words, "-o", str(tmp_path / "b"), "--encoding", "second-e2"])
    assert result.exit_code == 0, result.output
    assert result.stderr == ""


def test_one_raster_alone_is_no_dataset(app, tmp_path):
    before, _ = pair(tmp_path)
    result = run.invoke(app, ["priors", str(before), "--classes", "x", "-o", str(tmp_path / "o")])
    assert result.exit_code == 2
    assert "is one raster; give BEFORE and AFTER" in result.stderr


def test_three_inputs_are_one_too_many(app, tmp_path):
    result = run.invoke(app, ["priors", "a", "b", "c", "--classes", "x", "-o", str(tmp_path / "o")])
    assert result.exit_code == 2
    assert "BEFORE and AFTER, or one dataset folder" in result.stderr
