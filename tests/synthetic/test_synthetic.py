"""Synthetic scenes: reproducible, with the requested share of change, and exact reference data."""

import datetime
import functools
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp
from scipy import ndimage
from skimage.filters import window
from skimage.registration import phase_cross_correlation

from wasnow.errors import UsageError
from wasnow.synthetic import CLASSES, SHIFT_PX, Acquisition, Scene, render_scene, write_scene
from wasnow.synthetic.shapes import Warp, area, contains, inset, keep_below, rectangle
from wasnow.vocabulary import Vocabulary

SIDE = 320
BUILDING, ROAD, WATER, VEGETATION, BARE = range(1, 6)


@functools.cache
def scene(seed: int, **options: object) -> Scene:
    return render_scene(seed, height=SIDE, width=SIDE, **options)  # type: ignore[arg-type]


def pixels(rendered: Scene) -> list[np.ndarray]:
    return [rendered.before, rendered.after, rendered.before_classes, rendered.after_classes]


def test_the_same_seed_gives_the_same_pixels() -> None:
    once, twice = (render_scene(3, height=120, width=150) for _ in range(2))
    for first, second in zip(pixels(once), pixels(twice), strict=True):
        np.testing.assert_array_equal(first, second)
    assert once.acquisitions == twice.acquisitions


def test_different_seeds_give_different_places() -> None:
    assert (scene(0).before_classes != scene(1).before_classes).mean() > 0.1
    assert (scene(0).before != scene(1).before).mean() > 0.9


def test_the_share_of_change_is_close_to_the_requested_one() -> None:
    shares = [scene(seed).changed.mean() for seed in range(4)]
    assert np.mean(shares) == pytest.approx(0.08, rel=0.2)
    assert all(0.05 < share < 0.12 for share in shares)


def test_a_larger_requested_share_gives_more_change() -> None:
    assert scene(1, change_share=0.2).changed.mean() > 1.6 * scene(1).changed.mean()


def test_every_class_occurs_at_both_dates() -> None:
    for date in ("before_classes", "after_classes"):
        codes = np.concatenate([getattr(scene(seed), date).ravel() for seed in range(4)])
        assert set(np.unique(codes)) == {BUILDING, ROAD, WATER, VEGETATION, BARE}


def test_many_transitions_occur() -> None:
    pairs = {
        (int(before), int(after))
        for seed in range(4)
        for before, after in np.unique(
            np.stack([scene(seed).before_classes, scene(seed).after_classes], -1)[scene(seed).changed], axis=0
        )
    }
    assert {(VEGETATION, BUILDING), (VEGETATION, ROAD), (VEGETATION, WATER), (VEGETATION, BARE)} <= pairs
    assert pairs & {(BUILDING, BARE), (BUILDING, VEGETATION)}, "no house was demolished"


def test_an_unchanged_place_has_no_change_but_different_pixels() -> None:
    same = scene(0, identical=True)
    assert not same.changed.any()
    assert np.abs(same.before.astype(int) - same.after).mean() > 5


def test_season_sun_and_haze_do_not_change_the_reference_data() -> None:
    drawn = scene(1)
    low_sun = Acquisition(
        datetime.date(2020, 10, 20), sun_azimuth=220, sun_elevation=15, haze=0.3, gain=(1.3, 0.9, 0.8)
    )
    other = scene(1, acquisitions=(low_sun, replace(low_sun, date=datetime.date(2024, 4, 1), sun_azimuth=120)))
    np.testing.assert_array_equal(drawn.before_classes, other.before_classes)
    np.testing.assert_array_equal(drawn.after_classes, other.after_classes)
    assert np.abs(drawn.before.astype(int) - other.before).mean() > 10


def test_the_shift_of_the_second_image_does_not_change_the_reference_data() -> None:
    np.testing.assert_array_equal(scene(1).after_classes, scene(1, shift_px=(-3.5, 2.0)).after_classes)


def correlation_peak(rendered: Scene, normalization: str | None) -> np.ndarray:
    """Shift of the second image (rows, cols) by skimage; a Hann window suppresses the edges."""
    taper = window("hann", rendered.changed.shape)
    first, second = ((image.mean(-1) - image.mean()) * taper for image in (rendered.before, rendered.after))
    return -phase_cross_correlation(first, second, upsample_factor=50, normalization=normalization)[0]


@pytest.mark.parametrize("shift", [SHIFT_PX, (-1.3, 2.6)])
def test_the_second_image_is_shifted_by_exactly_the_given_amount(shift: tuple[float, float]) -> None:
    quiet = Acquisition(datetime.date(2020, 7, 1), noise=0.004)
    same = scene(0, identical=True, shift_px=shift, acquisitions=(quiet, quiet))
    assert correlation_peak(same, None) == pytest.approx(shift, abs=0.05)


def test_the_shift_can_be_estimated_across_seasons() -> None:
    assert correlation_peak(scene(0, identical=True), "phase") == pytest.approx(SHIFT_PX, abs=0.15)


def test_shadows_fall_away_from_the_sun() -> None:
    def dark_side(azimuth: float) -> float:
        """Difference in brightness between just south and just north of the buildings."""
        look = Acquisition(datetime.date(2020, 7, 1), sun_azimuth=azimuth, sun_elevation=35)
        lit = render_scene(0, height=256, width=256, identical=True, shift_px=(0.0, 0.0), acquisitions=(look, look))
        brightness = lit.before.mean(-1)
        buildings = lit.before_classes == BUILDING
        ground = ~ndimage.binary_dilation(buildings, iterations=1)
        north = np.roll(buildings, -7, 0) & ground
        south = np.roll(buildings, 7, 0) & ground
        return float(brightness[south].mean() - brightness[north].mean())

    assert dark_side(180) > dark_side(0) + 20


def test_water_is_dark_and_smooth_and_roofs_are_not_water() -> None:
    found = next(scene(seed) for seed in range(4) if (scene(seed).before_classes == WATER).mean() > 0.01)
    inside = ndimage.binary_erosion(found.before_classes == WATER, iterations=4)
    fields = ndimage.binary_erosion(found.before_classes == VEGETATION, iterations=4)
    grain = np.abs(ndimage.laplace(found.before.mean(-1)))
    assert grain[inside].mean() < grain[fields].mean()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (300, 700), (17, 233)])
def test_any_image_size_is_rendered(height: int, width: int) -> None:
    odd = render_scene(5, height=height, width=width)
    assert odd.before.shape == odd.after.shape == (height, width, 3)
    assert odd.before_classes.shape == odd.after_classes.shape == odd.changed.shape == (height, width)
    assert odd.before_classes.min() >= 1
    assert odd.after_classes.max() <= len(CLASSES)


def test_the_same_place_is_rendered_at_any_pixel_size() -> None:
    fine = render_scene(6, height=200, width=200, gsd_m=0.5, identical=True)
    coarse = render_scene(6, height=100, width=100, gsd_m=1.0, identical=True)
    agree = fine.before_classes[::2, ::2] == coarse.before_classes
    assert agree.mean() > 0.93


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 3}, "height 3 must be 16 to 20000"),
        ({"change_share": 0.9}, "change_share 0.9 must be 0 to 0.4"),
        ({"gsd_m": 0.0}, "gsd_m 0.0 must be 0.1 to 5"),
        ({"shift_px": (0.0, -99.0)}, "shift_px 99.0 must be 0 to 8"),
    ],
)
def test_arguments_outside_their_range_are_rejected(options: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        render_scene(0, **options)  # type: ignore[arg-type]


def test_a_sun_below_the_horizon_is_rejected() -> None:
    with pytest.raises(UsageError, match="must be 10 to 85 degrees"):
        Acquisition(datetime.date(2020, 7, 1), sun_elevation=-3)


def test_written_files_read_back_unchanged(tmp_path) -> None:
    rendered = scene(0)
    paths = write_scene(rendered, tmp_path / "new" / "folder")
    dates = []
    for path, expected in ((paths.before, rendered.before), (paths.after, rendered.after)):
        with rasterio.open(path) as raster:
            np.testing.assert_array_equal(np.moveaxis(raster.read(), 0, -1), expected)
            assert raster.colorinterp == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
            assert raster.crs.to_epsg() == 25832
            assert raster.res == (0.5, 0.5)
            assert raster.profile["tiled"]
            assert raster.profile["compress"] == "deflate"
            dates.append(datetime.datetime.strptime(raster.tags()["TIFFTAG_DATETIME"], "%Y:%m:%d %H:%M:%S"))
    assert dates[0].year < dates[1].year
    assert dates[0].month != dates[1].month
    for path, codes in ((paths.truth_before, rendered.before_classes), (paths.truth_after, rendered.after_classes)):
        with rasterio.open(path) as raster:
            np.testing.assert_array_equal(raster.read(1), codes)
            assert raster.colorinterp == (ColorInterp.palette,)
            for code, word in enumerate(CLASSES, start=1):
                assert raster.colormap(1)[code][:3] == Vocabulary(CLASSES).color(code)
                assert raster.tags()[f"class_{code}"] == word
    assert sorted(path.name for path in paths.before.parent.glob("[!.]*")) == [
        "after.tif",
        "before.tif",
        "truth_after.tif",
        "truth_before.tif",
    ]


def test_a_failed_write_keeps_the_old_file_and_leaves_no_partial_file(tmp_path, monkeypatch) -> None:
    paths = write_scene(scene(0), tmp_path)
    old = paths.before.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(rasterio.io.DatasetWriter, "update_tags", fail)
    with pytest.raises(OSError, match="disk full"):
        write_scene(scene(1), tmp_path)
    assert paths.before.read_bytes() == old
    assert len(list(tmp_path.glob("[!.]*"))) == 4


@given(st.integers(0, 2**32), st.floats(-2000, 2000), st.floats(-2000, 2000))
@settings(max_examples=50, deadline=None)
def test_the_warp_of_the_plan_is_invertible(seed: int, x: float, y: float) -> None:
    warp = Warp.drawn(np.random.default_rng(seed))
    plan = np.array([[x, y]])
    np.testing.assert_allclose(warp.to_plan(warp.to_world(plan)), plan, atol=1e-2)


@given(st.floats(0, 7), st.floats(5, 80), st.floats(5, 80), st.floats(-3, 3), st.floats(0.1, 2.4))
@settings(max_examples=50, deadline=None)
def test_a_cut_divides_the_area_and_an_inset_shrinks_it(
    angle: float, length: float, width: float, offset: float, margin: float
) -> None:
    box = rectangle(np.array([3.0, -2.0]), angle, length, width)
    normal = np.array([0.6, 0.8])
    whole = area(box)
    parts = area(keep_below(box, normal, offset)) + area(keep_below(box, -normal, -offset))
    assert whole == pytest.approx(length * width)
    assert parts == pytest.approx(whole)
    assert area(inset(box, margin)) == pytest.approx((length - 2 * margin) * (width - 2 * margin), rel=1e-6)
    assert all(contains(box, corner, margin - 1e-6) for corner in inset(box, margin))
