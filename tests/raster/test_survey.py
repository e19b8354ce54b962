"""One bounded look over the pair: a fair sample, the true shift, one stretch for all tiles."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import shift as displaced

from making import textured, write_raster
from wasnow.errors import InputError, UsageError
from wasnow.raster.pair import Pair, PairWindow
from wasnow.raster.radiometry import Stretch
from wasnow.raster.read import probe
from wasnow.raster.survey import estimate_shift, sample_windows, survey
from wasnow.raster.tiles import Window


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(2**16, 2**22))
def test_the_look_stays_within_its_budget_and_inside_the_raster(height, width, budget):
    windows = sample_windows(height, width, budget)
    assert windows
    assert all(w.size and w.row_stop <= height and w.col_stop <= width for w in windows)
    assert sum(w.size for w in windows) <= max(budget, 2**16)
    assert len(set(windows)) == len(windows)


def test_a_raster_within_the_budget_is_seen_whole():
    seen = np.zeros((700, 300), int)
    for window in sample_windows(700, 300):
        seen[window.within(Window(0, 0, 700, 300))] += 1
    assert (seen == 1).all()


@given(st.floats(-3, 3), st.floats(-3, 3), st.integers(0, 20))
def test_a_known_shift_is_found_through_a_change_of_light(rows, cols, seed):
    before = textured(seed, 192, 192, 2)
    after = displaced(before, (0, rows, cols), order=3, mode="reflect") * 1.4 + 20
    found = estimate_shift([PairWindow(Window(0, 0, 192, 192), before, after, np.zeros((192, 192), np.uint8))])
    assert found is not None
    assert found.rows_px == pytest.approx(rows, abs=0.15)
    assert found.cols_px == pytest.approx(cols, abs=0.15)


def test_flat_images_have_no_shift_to_tell():
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


def test_a_pair_without_a_common_pixel_is_refused(tmp_path):
    one, other = textured(0, 60, 60).astype(np.uint8), textured(1, 60, 60).astype(np.uint8)
    one[:, :30] = 0
    other[:, 30:] = 0
    before, after = (probe(write_raster(tmp_path / f"{i}.tif", v, nodata=0)) for i, v in enumerate((one, other)))
    with Pair.of(before, after, before.grid).open() as reader, pytest.raises(InputError, match="no pixel is valid"):
        survey(reader)


def test_rgb_of_8_bits_is_left_as_it_is():
    stretch = Stretch.of_samples(np.full((10, 3), 7, np.float32), as_it_is=True)
    np.testing.assert_allclose(stretch.apply(np.array([0, 51, 255], np.float32).reshape(3, 1, 1)).ravel(), [0, 0.2, 1])


@given(st.floats(1e-3, 1e4), st.floats(-1e4, 1e4))
def test_other_types_look_the_same_whatever_their_units(gain, offset):
    samples = textured(0, 40, 40).reshape(3, -1).T
    image = samples.T.reshape(3, 40, 40)
    plain = Stretch.of_samples(samples, as_it_is=False).apply(image)
    units = (gain * image + offset).astype(np.float32)
    other = Stretch.of_samples(units.reshape(3, -1).T, as_it_is=False).apply(units)
    np.testing.assert_allclose(plain, other, atol=0.02 + 1e-6 * abs(offset) / gain)


def test_a_flat_band_does_not_divide_by_zero():
    stretch = Stretch.of_samples(np.full((10, 1), 7, np.float32), as_it_is=False)
    assert np.isfinite(stretch.apply(np.full((1, 2, 2), 7, np.float32))).all()


@pytest.mark.parametrize("text", ["3000", "a,b", "5,1", "1,1"])
def test_a_stretch_that_makes_no_sense_is_refused(text):
    with pytest.raises(UsageError):
        Stretch.declared(text, 3)
