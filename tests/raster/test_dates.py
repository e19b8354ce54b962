"""Dates in the tags of rasters: only days that exist, and doubt about time stamps of files."""

import json

import pytest
import rasterio

import wasnow
from making import Toy, pair
from wasnow.raster.dates import file_date


@pytest.mark.parametrize(
    "text", ["2019:00:00 00:00:00", "0000:00:00", "2019-02-30", "2019:13:01", "1066:10:14", "9999:01:01", "yesterday"]
)
def test_a_day_that_does_not_exist_or_lies_in_the_future_is_ignored_with_a_reason(text):
    found = file_date({"TIFFTAG_DATETIME": text})
    assert found.date is None
    assert "is not a date" in found.doubt


def test_the_acquisition_date_is_preferred_to_the_time_stamp_of_the_file():
    tags = {"TIFFTAG_DATETIME": "2024:01:02 03:04:05", "ACQUISITIONDATETIME": "2017-06-30 10:20:30"}
    assert (file_date(tags).date, file_date(tags).doubt) == ("2017-06-30", None)


def test_an_invalid_acquisition_date_falls_back_to_the_time_stamp_with_both_reasons():
    found = file_date({"ACQUISITIONDATETIME": "2017-99-99", "EXIF_DateTime": "2018:01:01 00:00:00"})
    assert found.date == "2018-01-01"
    assert "ACQUISITIONDATETIME" in found.doubt
    assert "time of processing" in found.doubt


def test_doubt_reaches_warnings_record_item_and_report_unless_the_date_is_given(tmp_path):
    before, after = pair(tmp_path, height=60, width=80)
    for path, text in ((before, "2019:00:00 00:00:00"), (after, "2020:05:06 00:00:00")):
        with rasterio.open(path, "r+") as raster:
            raster.update_tags(TIFFTAG_DATETIME=text)
    result = wasnow.detect(before, after, output=tmp_path / "out", model=Toy(tile=32))
    warnings = " ".join(result.record.warnings)
    assert "'2019:00:00 00:00:00' is not a date" in warnings
    assert "2020-05-06 is that of the tag TIFFTAG_DATETIME" in warnings
    assert (result.record.before.date, result.record.after.date) == (None, "2020-05-06")
    properties = json.loads(result.item.read_text())["properties"]
    assert "time of processing" in properties["wasnow:after_date_doubt"]
    assert "time of processing" in result.report.read_text()
    given = {"date_before": "2018", "date_after": "2019-05"}
    sure = wasnow.detect(before, after, output=tmp_path / "sure", model=Toy(tile=32), **given)
    assert not any("date" in warning for warning in sure.record.warnings)
    assert sure.record.after.date_doubt is None
