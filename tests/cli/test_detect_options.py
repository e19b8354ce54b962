"""Options of detect that are checked before the run."""

import json

import pytest
from typer.testing import CliRunner

from making import ToyEncoding, pair
from wasnow.cli import app
from wasnow.errors import UsageError
from wasnow.models import loading
from wasnow.output.change_map import ChangeMap
from wasnow.pipeline.option_values import parse_thresholds


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
        (["building=high"], "is not a threshold"),
        (["0.5", "0.6"], "give each once"),
        (["water=0.5", "water=0.6"], "give each once"),
    ],
)
def test_invalid_thresholds_are_refused(texts, message):
    with pytest.raises(UsageError, match=message):
        parse_thresholds(texts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--landcover"], "irmad has no classes"),
        (["--threshold", "water=0.7"], "irmad has no classes"),
        (["--threshold", "1.5"], "--threshold must be a number from 0 to below 1, not 1.5"),
        (["--keep-features", "kept"], "has no image features"),
        (["--keep-features", "kept", "--features-limit", "0"], "--features-limit must be gigabytes above 0"),
    ],
)
def test_options_that_the_model_does_not_support_are_refused_in_one_line(tmp_path, options, message):
    before, after = pair(tmp_path)
    given = ["detect", str(before), str(after), "-o", str(tmp_path / "out"), "--model", "irmad"]
    done = CliRunner().invoke(app, [*given, *options])
    assert done.exit_code == 2
    printed = " ".join(done.output.split())
    assert message in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "out").exists()


def test_one_command_can_use_all_options_of_a_network_with_classes(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "load", lambda model, device: ToyEncoding())
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
    printed = CliRunner().invoke(app, [each for each in given if each != "--json"] + ["-o", str(tmp_path / "one")])
    assert "landcover_before.tif" in printed.output
    assert "tiles read from" in printed.output
