"""Plans: decisions from file headers, and their warnings."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp

from making import Toy, pair, textured, write_raster
from wasnow.errors import BandsUnclear, RasterUnsuitable, UnknownModel, UsageError, VocabularyError
from wasnow.models.contract import WeightsInfo
from wasnow.output.record import CalibrationRecord
from wasnow.pipeline.options import Options
from wasnow.pipeline.plan import make_plan


def test_a_model_runs_at_its_own_resolution_and_results_are_on_the_target_grid(tmp_path):
    plan = make_plan(*pair(tmp_path), model=Toy(gsd_m=4.0))
    # UTM metres are a little longer than metres on the ground here: 64.03 columns become 64, not 65.
    assert plan.pair.working.shape == (48, 64)
    assert plan.result.shape == (96, 128)
    assert plan.factor == 2


def test_the_working_grid_is_a_whole_number_of_strides_where_the_resolution_allows(tmp_path):
    plan = make_plan(*pair(tmp_path), model=Toy(gsd_m=3.9, stride=16))
    assert plan.pair.working.shape == (48, 64)
    assert plan.tiling[0].read == plan.tiling[0].core
    # 32 columns would be a third coarser than asked for: a whole number of pixels has to do.
    plan = make_plan(*pair(tmp_path), model=Toy(gsd_m=5.3, stride=32))
    assert plan.pair.working.width == 48
    assert plan.factor == pytest.approx(128 / 48)


def test_results_on_the_working_grid_are_an_option(tmp_path):
    plan = make_plan(*pair(tmp_path), model=Toy(gsd_m=4.0), options=Options(grid="working"))
    assert plan.result == plan.pair.working
    assert plan.factor == 1


def test_gsd_overrides_the_model(tmp_path):
    plan = make_plan(*pair(tmp_path), model=Toy(gsd_m=4.0), options=Options(gsd=8.0))
    assert plan.factor == pytest.approx(4, rel=0.01)


def test_a_nearly_equal_resolution_is_not_resampled(tmp_path):
    assert make_plan(*pair(tmp_path), model=Toy(gsd_m=2.05)).factor == 1


def test_images_without_crs_take_their_pixel_size_from_gsd(tmp_path):
    paths = pair(tmp_path, crs=None)
    assert any("pixel size of these images is unknown" in w for w in make_plan(*paths, model=Toy(gsd_m=1.0)).warnings)
    plan = make_plan(*paths, model=Toy(gsd_m=1.0), options=Options(gsd=0.5))
    assert plan.factor == pytest.approx(2)
    assert not any("pixel size" in w for w in plan.warnings)


def test_colours_are_found_in_any_band_order(tmp_path):
    for name in ("before.tif", "after.tif"):
        write_raster(tmp_path / name, textured(0, 20, 20, 4).astype(np.uint16))
    with rasterio.open(tmp_path / "after.tif", "r+") as raster:
        raster.colorinterp = [ColorInterp.undefined, ColorInterp.blue, ColorInterp.green, ColorInterp.red]
    with pytest.raises(BandsUnclear, match=r"before\.tif has 4 bands .* --bands 3,2,1"):
        make_plan(tmp_path / "before.tif", tmp_path / "after.tif", model=Toy())
    with rasterio.open(tmp_path / "before.tif", "r+") as raster:
        raster.descriptions = ("B2", "B3", "B4", "B8")
    plan = make_plan(tmp_path / "before.tif", tmp_path / "after.tif", model=Toy())
    assert plan.pair.after.source.bands == (4, 3, 2)
    assert plan.pair.before.source.bands == (3, 2, 1)


def test_four_bands_of_bytes_without_colours_are_red_green_blue_and_near_infrared_with_a_warning(tmp_path):
    for name in ("before.tif", "after.tif"):
        write_raster(tmp_path / name, textured(0, 20, 20, 4).astype(np.uint8))
        with rasterio.open(tmp_path / name, "r+") as raster:
            raster.colorinterp = [ColorInterp.gray] + [ColorInterp.undefined] * 3
    plan = make_plan(tmp_path / "before.tif", tmp_path / "after.tif", model=Toy())
    assert plan.pair.before.source.bands == (1, 2, 3)
    assert any("does not declare its colours" in w and "before.tif" in w for w in plan.warnings)


def test_three_bands_without_colours_are_taken_as_red_green_blue_with_a_warning(tmp_path):
    for name in ("before.tif", "after.tif"):
        write_raster(tmp_path / name, textured(0, 20, 20, 3).astype(np.uint16))
    plan = make_plan(tmp_path / "before.tif", tmp_path / "after.tif", model=Toy())
    assert plan.pair.before.source.bands == (1, 2, 3)
    assert any("does not declare its colours" in w and "before.tif" in w for w in plan.warnings)


def test_different_band_counts_fall_back_to_common_colours_or_are_refused(tmp_path):
    rgb = write_raster(tmp_path / "rgb.tif", textured(0, 20, 20).astype(np.uint8), photometric="RGB")
    rgbn = write_raster(tmp_path / "rgbn.tif", textured(0, 20, 20, 4).astype(np.uint8), photometric="RGB", alpha="no")
    plan = make_plan(rgb, rgbn, model="irmad")
    assert plan.pair.after.source.bands == (1, 2, 3)
    assert any("red, green, blue of both" in w for w in plan.warnings)
    five = write_raster(tmp_path / "five.tif", textured(0, 20, 20, 5).astype(np.uint16))
    with pytest.raises(BandsUnclear, match="--bands"):
        make_plan(rgb, five, model="irmad")
    assert make_plan(rgb, five, model="irmad", options=Options(bands=(2, 1))).pair.after.source.bands == (2, 1)


def test_the_target_grid_can_be_that_of_another_file(tmp_path):
    before, after = pair(tmp_path)
    third = write_raster(
        tmp_path / "grid.tif", np.zeros((1, 30, 40), np.uint8), transform=Affine(5, 0, 500_000, 0, -5, 5_500_000)
    )
    assert make_plan(before, after, model=Toy(), options=Options(align=str(third))).result.shape == (30, 40)
    with pytest.raises(UsageError, match="must be before, after, finest or a raster file"):
        make_plan(before, after, model=Toy(), options=Options(align="afterr"))


def test_class_words_are_bound_to_the_model_which_may_refuse_them(tmp_path):
    paths = pair(tmp_path)
    assert make_plan(*paths, model=Toy(), classes="a, b").vocabulary.words == ("a", "b")
    with pytest.raises(VocabularyError, match="dragon"):
        make_plan(*paths, model=Toy(), classes="dragon")
    with pytest.raises(VocabularyError):
        make_plan(*paths, model="irmad", classes="water")


def test_an_unknown_model_is_refused_with_a_similar_name(tmp_path):
    with pytest.raises(UnknownModel, match="did you mean 'irmad'"):
        make_plan(*pair(tmp_path), model="irmed")


@pytest.mark.parametrize(
    "options",
    [
        {"gsd": 0},
        {"gsd": -1},
        {"gsd": float("nan")},
        {"threshold": 1.0},
        {"threshold": -0.1},
        {"class_thresholds": {"water": 1.0}},
        {"class_thresholds": (("water", float("nan")),)},
        {"features_limit": 0},
        {"features_limit": float("inf")},
        {"connectivity": 6},
        {"min_area": -1},
        {"batch": 0},
        {"grid": "elsewhere"},
        {"date_before": "june"},
        {"date_after": "2017-13"},
        {"date_after": "2017-02-30"},
    ],
)
def test_invalid_option_values_are_refused_by_their_python_name(options):
    (name,) = options
    with pytest.raises(UsageError, match=rf"^{name}\b"):
        Options(**options)


@pytest.mark.parametrize("date", ["2017", "2017-06", "2017-06-30"])
def test_dates_may_be_years_months_or_days(date):
    assert Options(date_before=date).date_before == date


def test_a_single_missing_crs_names_the_file(tmp_path):
    before, _ = pair(tmp_path)
    (tmp_path / "x").mkdir()
    _, after = pair(tmp_path / "x", crs=None)
    with pytest.raises(RasterUnsuitable, match=r"x/after\.tif: no transform"):
        make_plan(before, after)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("2017", "2009", True),
        ("2009", "2017-06", False),
        ("2017-06-30", "2017", False),
        ("2017-07", "2017-06-30", True),
    ],
)
def test_swapped_dates_cause_a_warning(tmp_path, before, after, expected):
    plan = make_plan(*pair(tmp_path), model=Toy(), options=Options(date_before=before, date_after=after))
    assert any("swapped" in warning for warning in plan.warnings) == expected


def test_class_thresholds_match_words_in_any_case_and_order(tmp_path):
    paths = pair(tmp_path)
    options = Options(class_thresholds={"FIELD": 0.9, " water ": 0.6})
    assert make_plan(*paths, model=Toy(), options=options).class_thresholds == (("water", 0.6), ("field", 0.9))
    assert Options(class_thresholds={"b": 0.1, "a": 0.2}) == Options(class_thresholds=(("a", 0.2), ("b", 0.1)))


@pytest.mark.parametrize(
    ("model", "wanted", "message"),
    [
        (Toy(), {"bulding": 0.7}, "did you mean 'building'"),
        (Toy(), {"lava": 0.7}, r"names no class of this run \(water, building, field\)$"),
        (Toy(), {"water": 0.7, "Water": 0.8}, "'water' twice"),
        ("irmad", {"water": 0.7}, "irmad has no classes"),
    ],
)
def test_thresholds_of_unknown_classes_are_refused_with_a_similar_name(tmp_path, model, wanted, message):
    with pytest.raises(UsageError, match=message):
        make_plan(*pair(tmp_path), model=model, options=Options(class_thresholds=wanted))


def test_class_maps_of_a_model_without_classes_are_refused(tmp_path):
    with pytest.raises(UsageError, match="irmad has no classes: leave landcover out"):
        make_plan(*pair(tmp_path), model="irmad", options=Options(landcover=True))


def test_a_calibration_belongs_to_the_weights_and_is_marked_when_the_words_differ(tmp_path):
    errors = {name: 0.1 for name in CalibrationRecord.model_fields if name.startswith("ece")}
    fitted = SimpleNamespace(change_temperature=2.0, class_temperature=3.0, split="val", pairs=7, more=0, **errors)

    class Calibrated(Toy):
        @property
        def card(self):
            return replace(super().card, weights=WeightsInfo(fingerprint="digest", calibration=fitted))

        def bind(self, classes):
            return Toy(classes=tuple(classes))

    paths = pair(tmp_path)
    assert make_plan(*paths, model=Toy()).calibration is None
    own = make_plan(*paths, model=Calibrated())
    other = make_plan(*paths, model=Calibrated(), classes="pond, house")
    assert (own.calibration.change_temperature, own.calibration.split, own.calibration.pairs) == (2.0, "val", 7)
    assert own.calibration.for_these_classes
    assert other.calibration == own.calibration.model_copy(update={"for_these_classes": False})
    assert other.fingerprint == "digest"


def test_class_words_are_recorded_as_the_user_wrote_them(tmp_path):
    class Fixed(Toy):
        def bind(self, classes):
            return self

    paths = pair(tmp_path)
    assert make_plan(*paths, model=Toy()).words == Toy().classes
    assert make_plan(*paths, model=Fixed(), classes="Water, FIELD|crops, field").words == (
        "water",
        "FIELD|crops",
        "field",
    )
    assert make_plan(*paths, model=Fixed(classes=()), classes="water").words == ()
