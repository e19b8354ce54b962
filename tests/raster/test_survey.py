"""Survey of a pair: bounded reading, samples of valid pixels, shift and stretch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import shift as displaced

from making import textured, write_raster
from wasnow.errors import UsageError
from wasnow.raster.pair import Pair, PairWindow
from wasnow.raster.radiometry import Stretch
from wasnow.raster.source import probe
from wasnow.raster.survey import estimate_shift, sample_windows, survey
from wasnow.raster.tiles import Window


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(2**16, 2**22))
def test_sample_windows_stay_within_the_budget_and_the_raster(height, width, budget):
    windows = sample_windows(height, width, budget)
    assert windows
    assert all(w.size and w.row_stop <= height and w.col_stop <= width for w in windows)
    assert sum(w.size for w in windows) <= max(budget, 2**16)
    assert len(set(windows)) == len(windows)


def test_a_raster_within_the_budget_is_read_completely():
    seen = np.zeros((700, 300), int)
    for window in sample_windows(700, 300):
        seen[window.within(Window(0, 0, 700, 300))] += 1
    assert (seen == 1).all()


@given(st.floats(-3, 3), st.floats(-3, 3), st.integers(0, 20))
def test_a_known_shift_is_estimated_despite_a_change_of_brightness(rows, cols, seed):
    before = textured(seed, 192, 192, 2)
    after = displaced(before, (0, rows, cols), order=3, mode="reflect") * 1.4 + 20
    found = estimate_shift([PairWindow(Window(0, 0, 192, 192), before, after, np.zeros((192, 192), np.uint8))])
    assert found is not None
    assert found.rows_px == pytest.approx(rows, abs=0.15)
    assert found.cols_px == pytest.approx(cols, abs=0.15)


def test_no_shift_is_estimated_for_flat_images():
    flat = np.full((1, 128, 128), 7, np.float32)
    assert estimate_shift([PairWindow(Window(0, 0, 128, 128), flat, flat, np.zeros((128, 128), np.uint8))]) is None


def test_only_pixels_valid_at_both_dates_are_sampled(tmp_path):
    one, other = textured(0, 90, 90).astype(np.uint8), textured(1, 90, 90).astype(np.uint8)
    one[:, :30] = 0
    other[:, :, :30] = 0
    paths = [write_raster(tmp_path / f"{i}.tif", v, nodata=0) for i, v in enumerate((one, other))]
    before, after = map(probe, paths)
    with Pair.of(before, after, before.grid).open() as reader:
        looked = survey(reader)
    assert looked.valid_px == 60 * 60
    assert np.isfinite(looked.before).all()
    assert np.isfinite(looked.after).all()
    np.testing.assert_array_equal(np.sort(looked.before[:, 0]), np.sort(one[0, 30:, 30:].ravel()))


def test_a_pair_without_a_common_valid_pixel_has_no_samples_and_no_shift(tmp_path):
    one, other = textured(0, 60, 60).astype(np.uint8), textured(1, 60, 60).astype(np.uint8)
    one[:, :30] = 0
    other[:, 30:] = 0
    before, after = (probe(write_raster(tmp_path / f"{i}.tif", v, nodata=0)) for i, v in enumerate((one, other)))
    with Pair.of(before, after, before.grid).open() as reader:
        found = survey(reader)
    assert (found.valid_px, found.read_px, len(found.before), found.shift) == (0, 3600, 0, None)


def test_valid_pixels_outside_the_sampled_squares_are_found(tmp_path):
    one = np.zeros((3, 600, 600), np.uint8)
    one[:, 590:, 590:] = 7
    before, after = (probe(write_raster(tmp_path / f"{i}.tif", one, nodata=0)) for i in range(2))
    with Pair.of(before, after, before.grid).open() as reader:
        assert survey(reader, budget_px=1).valid_px == 100


def test_8_bit_rgb_is_not_stretched():
    stretch = Stretch.of_samples(np.full((10, 3), 7, np.float32), display=True)
    np.testing.assert_allclose(stretch.apply(np.array([0, 51, 255], np.float32).reshape(3, 1, 1)).ravel(), [0, 0.2, 1])


@given(st.floats(1e-3, 1e4), st.floats(-1e4, 1e4))
def test_the_stretch_does_not_depend_on_units(gain, offset):
    samples = textured(0, 40, 40).reshape(3, -1).T
    image = samples.T.reshape(3, 40, 40)
    plain = Stretch.of_samples(samples, display=False).apply(image)
    units = (gain * image + offset).astype(np.float32)
    other = Stretch.of_samples(units.reshape(3, -1).T, display=False).apply(units)
    np.testing.assert_allclose(plain, other, atol=0.02 + 1e-6 * abs(offset) / gain)


def test_the_stretch_of_a_constant_band_is_finite():
    stretch = Stretch.of_samples(np.full((10, 1), 7, np.float32), display=False)
    assert np.isfinite(stretch.apply(np.full((1, 2, 2), 7, np.float32))).all()


@pytest.mark.parametrize("text", ["3000", "a,b", "5,1", "1,1"])
def test_an_invalid_stretch_is_rejected(text):
    with pytest.raises(UsageError):
        Stretch.declared(text, 3)


@pytest.mark.parametrize(("rows", "cols"), [(60, 0), (0, -75), (45, 90)])
def test_a_shift_beyond_the_range_of_single_windows_is_found(tmp_path, rows, cols):
    scene = textured(3, 900, 900, 3)
    before = scene[:, 150:750, 150:750]
    after = scene[:, 150 - rows : 750 - rows, 150 - cols : 750 - cols] * 1.1
    paths = [write_raster(tmp_path / f"{i}.tif", v.astype(np.float32)) for i, v in enumerate((before, after))]
    first, second = map(probe, paths)
    with Pair.of(first, second, first.grid).open() as reader:
        found = survey(reader).shift
    assert found is not None
    assert found.rows_px == pytest.approx(rows, abs=0.5)
    assert found.cols_px == pytest.approx(cols, abs=0.5)


def test_no_large_shift_is_invented_between_unrelated_images(tmp_path):
    paths = [write_raster(tmp_path / f"{i}.tif", textured(20 + i, 600, 600, 3)) for i in range(2)]
    first, second = map(probe, paths)
    with Pair.of(first, second, first.grid).open() as reader:
        found = survey(reader).shift
    assert found is None or found.length_px < 32
