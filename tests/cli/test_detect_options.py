"""The options of detect that are read before anything runs."""

import json

import pytest
from typer.testing import CliRunner

from making import ToyEncoding, pair
from wasnow.cli import app
from wasnow.cli.detect import parse_thresholds
from wasnow.errors import UsageError
from wasnow.output.change_map import ChangeMap
from wasnow.pipeline import plan


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], (None, {})),
        (["0.5"], (0.5, {})),
        (["building=0.7"], (None, {"building": 0.7})),
        (["0.5", "low vegetation=0.7", " a=b = 1e-1"], (0.5, {"low vegetation": 0.7, "a=b": 0.1})),
    ],
)
def test_thresholds_are_one_number_and_one_for_each_class(texts, expected):
    assert parse_thresholds(texts) == expected


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["building"], "building=0.7"),
        (["building=high"], "is not understood"),
        (["0.5", "0.6"], "give each once"),
        (["water=0.5", "water=0.6"], "give each once"),
    ],
)
def test_thresholds_that_cannot_be_meant_are_refused(texts, message):
    with pytest.raises(UsageError, match=message):
        parse_thresholds(texts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--landcover"], "irmad answers without classes"),
        (["--threshold", "water=0.7"], "irmad answers without classes"),
        (["--threshold", "1.5"], "no probability"),
        (["--keep-features", "kept"], "keeps no image features"),
        (["--keep-features", "kept", "--features-limit", "0"], "--features-limit 0"),
    ],
)
def test_what_the_model_cannot_do_is_answered_in_one_line(tmp_path, options, message):
    before, after = pair(tmp_path)
    given = ["detect", str(before), str(after), "-o", str(tmp_path / "out"), "--model", "irmad"]
    done = CliRunner().invoke(app, [*given, *options])
    assert done.exit_code == 2
    told = " ".join(done.output.split())
    assert message in told
    assert "Traceback" not in told
    assert not (tmp_path / "out").exists()


def test_everything_that_a_network_with_words_can_do_goes_through_one_command(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "named_model", lambda name, device: ToyEncoding())
    before, after = pair(tmp_path)
    options = ["--threshold", "0.6", "--threshold", "building=0.9", "--landcover", "--json", "--keep-features"]
    given = ["detect", str(before), str(after), *options, str(tmp_path / "kept")]
    first = CliRunner().invoke(app, [*given, "-o", str(tmp_path / "one")])
    assert first.exit_code == 0, first.output
    facts = json.loads(first.stdout)
    assert {"landcover_before.tif", "landcover_after.tif"} <= set(facts["files"])
    assert facts["features"]["tiles_reused"] == 0
    record = ChangeMap.open(tmp_path / "one").record
    assert (record.model.threshold, record.model.class_thresholds) == (0.6, {"building": 0.9})
    again = CliRunner().invoke(app, [*given, "-o", str(tmp_path / "two"), "--classes", "pond, house, building"])
    assert json.loads(again.stdout)["features"]["tiles_encoded"] == 0
    told = CliRunner().invoke(app, [each for each in given if each != "--json"] + ["-o", str(tmp_path / "one")])
    assert "landcover_before.tif" in told.output
    assert "tiles answered from" in told.output
