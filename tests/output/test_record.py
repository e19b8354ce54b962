"""run.json is read across versions of wasnow."""

import json

import pytest

import wasnow
from making import Toy, pair
from wasnow.errors import InputError
from wasnow.output.record import FORMAT, RunRecord

ADDED_LATER = {
    "": ("landcover", "features", "priors", "executor"),
    "model": ("class_thresholds", "calibration", "about", "gsd_range_m", "other_words", "fit", "shipped"),
    "before": ("date_doubt",),
    "after": ("date_doubt",),
}
"""Fields that the first version of format 1 did not have, by object."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("run")
    wasnow.detect(*pair(place, height=60, width=80), output=place / "out", model=Toy(tile=32))
    return place / "out"


def changed(folder, tmp_path, **fields):
    content = json.loads((folder / "run.json").read_text()) | fields
    (tmp_path / "run.json").write_text(json.dumps(content))
    return content


def test_a_record_of_the_first_version_is_read(folder, tmp_path):
    content = changed(folder, tmp_path)
    for name, fields in ADDED_LATER.items():
        for field in fields:
            (content[name] if name else content).pop(field)
    for block in content["blocks"]:
        block.pop("tiles_reused"), block.pop("tiles_encoded")
    (tmp_path / "run.json").write_text(json.dumps(content))
    record = RunRecord.read(tmp_path)
    assert record.pixels == RunRecord.read(folder).pixels
    assert record.model.shipped is False


def test_a_record_with_fields_of_a_later_version_is_read(folder, tmp_path):
    changed(folder, tmp_path, later={"x": 1})
    assert RunRecord.read(tmp_path) == RunRecord.read(folder)


def test_a_record_of_a_later_format_asks_for_an_upgrade(folder, tmp_path):
    changed(folder, tmp_path, format=FORMAT + 1)
    with pytest.raises(InputError, match=f"has format {FORMAT + 1}, .* up to {FORMAT}; upgrade wasnow"):
        RunRecord.read(tmp_path)
