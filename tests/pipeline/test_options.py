"""The options of a run: one declaration for Python, the command line and lists of pairs."""

import inspect
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS

import wasnow
from wasnow.cli.options import flag_name
from wasnow.errors import InvalidOption
from wasnow.pipeline.options import Options, OptionValues, fields, shown


def test_the_keywords_for_type_checkers_are_the_options():
    assert set(OptionValues.__annotations__) == set(Options.model_fields)


def test_help_and_editors_see_every_option_of_detect_with_its_default():
    for function in (wasnow.detect, wasnow.detect_pairs):
        parameters = inspect.signature(function).parameters
        assert {name: parameters[name].default for name in fields()} == {
            name: field.default for name, field in fields().items()
        }


@pytest.mark.parametrize("name", list(Options.model_fields))
def test_every_option_has_a_help_text_and_says_what_is_valid(name):
    field = fields()[name]
    assert field.description
    assert field.description.endswith(".")
    assert shown(field).valid


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ({"align": Path("grid.tif")}, "grid.tif"),
        ({"date_before": date(2019, 6, 30)}, "2019-06-30"),
        ({"stretch": (0, 3000)}, "0.0,3000.0"),
        ({"stretch": "0, 3000"}, "0, 3000"),
        ({"bands": [4, 3, 2]}, (4, 3, 2)),
        ({"bands": np.array([4, 3, 2])}, (4, 3, 2)),
        ({"bands": "4,3,2"}, (4, 3, 2)),
        ({"gsd": np.float32(0.5)}, 0.5),
        ({"tile": np.int64(512)}, 512),
        ({"assume_crs": 32631}, "EPSG:32631"),
        ({"assume_crs": CRS.from_epsg(32631)}, "EPSG:32631"),
        ({"masks": Path("masks.gpkg")}, ("masks.gpkg",)),
        ({"blend": "yes"}, True),
        ({"connectivity": "8"}, 8),
        ({"precision": 32}, "32"),
    ],
)
def test_values_of_python_and_text_are_accepted(given, stored):
    ((name, _),) = given.items()
    assert getattr(Options(**given), name) == stored


def test_thresholds_may_be_written_as_on_the_command_line():
    options = Options(threshold=["0.5", "building=0.7"])
    assert (options.threshold, options.class_thresholds) == (0.5, (("building", 0.7),))
    assert Options(threshold="0.5; building=0.7") == options


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"threshold": "high"}, "threshold 'high' is not a threshold"),
        ({"threshold": object()}, "threshold must be a number from 0 to below 1"),
        ({"stretch": (0, float("inf"))}, "stretch needs finite numbers"),
        ({"stretch": (5, 1)}, "write the smaller number first"),
        ({"stretch": 7}, "stretch must be auto"),
        ({"bands": 1.5}, "bands must be numbers from 1, such as 4,3,2"),
        ({"align": 3}, "align must be before, after, finest or a path"),
        ({"tile": 0.5}, "tile must be a whole number of pixels"),
        ({"min_area": "large"}, "min_area must be a number from 0"),
        ({"priors": "a", "masks": "b"}, "priors and masks exclude each other"),
        ({"treshold": 0.5}, "no option is called 'treshold'; did you mean 'threshold'?"),
    ],
)
def test_invalid_values_are_refused_in_the_words_of_python(given, message):
    with pytest.raises(InvalidOption) as caught:
        Options(**given)
    assert message in str(caught.value)
    assert "--" not in str(caught.value)


def test_the_command_line_spells_options_its_own_way():
    with pytest.raises(InvalidOption) as caught:
        Options(min_area=-1)
    assert caught.value.written(flag_name) == "--min-area must be a number from 0, not -1"


def test_an_error_in_detect_speaks_of_the_python_name(tmp_path):
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", width=8, height=8, count=3, dtype="uint8"):
        pass
    with pytest.raises(InvalidOption, match=r"^min_area must be"):
        wasnow.detect(tmp_path / "a.tif", tmp_path / "a.tif", output=tmp_path / "out", min_area="large")
