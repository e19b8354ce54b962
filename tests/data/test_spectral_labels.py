"""Weak labels from withheld bands: indices, thresholds from histograms, and the labels they give."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from wasnow.data.spectral_labels import (
    Limits,
    SpectralBands,
    label_map,
    label_spectrally,
    normalised_difference,
    open_mask,
    otsu_limits,
    valley_limits,
)
from wasnow.errors import InputError
from wasnow.vocabulary import NO_LABEL

LIGHT = st.floats(1, 4000, width=32)


def drawn(seed: int, *parts: tuple[float, float, int]) -> np.ndarray:
    """Values of several normal distributions: (mean, standard deviation, count)."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(mean, spread, n) for mean, spread, n in parts]).astype(np.float32)


def place(seed: int = 0) -> tuple[SpectralBands, np.ndarray]:
    """The bands of a lake, fields and soil with some noise, and their classes: 1, 2, 3."""
    truth = np.full((120, 120), 2, np.uint8)
    truth[20:60, 20:80] = 1
    truth[70:110, 10:70] = 3
    #             red  green  nir
    light = {1: (0.05, 0.08, 0.02), 2: (0.06, 0.09, 0.45), 3: (0.25, 0.20, 0.32)}
    bands = np.zeros((3, 120, 120), np.float32)
    for code, values in light.items():
        bands[:, truth == code] = np.array(values, np.float32)[:, None]
    bands *= np.random.default_rng(seed).normal(1, 0.04, bands.shape).astype(np.float32)
    return SpectralBands(*bands), truth


# ---------------------------------------------------------------------------------------------------------------- index


@given(LIGHT, LIGHT)
def test_an_index_is_between_minus_one_and_one_and_antisymmetric(first: float, second: float) -> None:
    a, b = (np.full((1, 1), value, np.float32) for value in (first, second))
    index = normalised_difference(a, b)
    assert -1 <= index[0, 0] <= 1
    assert normalised_difference(b, a) == -index
    assert (index[0, 0] > 0) == (first > second)


@given(LIGHT, LIGHT, st.integers(-3, 3))
def test_an_index_does_not_depend_on_exposure(first: float, second: float, stops: int) -> None:
    a, b = (np.full((1, 1), value, np.float32) for value in (first, second))
    assert normalised_difference(a * np.float32(2.0**stops), b * np.float32(2.0**stops)) == normalised_difference(a, b)


def test_the_index_is_nan_where_both_bands_are_zero_or_one_is_missing() -> None:
    index = normalised_difference(np.array([0, np.nan, 3], np.float32), np.array([0, 2, 1], np.float32))
    assert np.isnan(index[:2]).all()
    assert index[2] == 0.5


# --------------------------------------------------------------------------------------------------------------- limits


@given(st.floats(-0.5, -0.1), st.floats(0.5, 0.9), st.integers(0, 100))
def test_the_valley_is_between_land_and_water_even_if_water_is_rare(land: float, water: float, seed: int) -> None:
    limits = valley_limits(drawn(seed, (land, 0.08, 20_000), (water, 0.05, 600)))
    assert land < limits.low < limits.high < water
    assert 0.06 - 1e-6 <= limits.high - limits.low <= 0.2 + 1e-6


def test_two_overlapping_classes_of_equal_size_are_separated_in_the_middle() -> None:
    limits = valley_limits(drawn(1, (0.1, 0.07, 200_000), (0.5, 0.07, 200_000)))
    assert (limits.low + limits.high) / 2 == pytest.approx(0.3, abs=0.02)


def test_in_an_empty_gap_the_middle_is_taken() -> None:
    values = np.concatenate([np.linspace(-0.4, -0.1, 5000), np.linspace(0.7, 0.8, 500)]).astype(np.float32)
    limits = valley_limits(values, within=(-0.5, 0.9))
    assert (limits.low + limits.high) / 2 == pytest.approx(0.3, abs=0.02)


def test_an_index_with_one_peak_is_rejected_with_advice() -> None:
    with pytest.raises(InputError, match="Give a raster that shows both"):
        valley_limits(np.linspace(-0.8, -0.2, 10_000).astype(np.float32))


def test_the_two_thresholds_minimise_the_variance_within_classes() -> None:
    values = drawn(2, (0.05, 0.05, 300), (0.3, 0.05, 200), (0.6, 0.05, 250))
    limits = otsu_limits(values)
    ladder = np.linspace(values.min(), values.max(), 60)

    def within(low: float, high: float) -> float:
        parts = (values[values <= low], values[(values > low) & (values <= high)], values[values > high])
        return sum(float(part.var()) * part.size for part in parts if part.size)

    best = min(within(low, high) for low, high in itertools.combinations(ladder, 2))
    assert within(limits.low, limits.high) <= best * 1.03


@settings(max_examples=8)
@given(st.floats(-0.3, 0.1), st.floats(0.4, 0.8), st.integers(0, 50))
def test_with_two_kinds_of_ground_neither_is_split(soil: float, plants: float, seed: int) -> None:
    limits = otsu_limits(drawn(seed, (soil, 0.02, 3000), (plants, 0.005, 9000)))
    assert soil + 0.05 < limits.low < limits.high < plants


def test_a_raster_of_one_value_is_rejected() -> None:
    with pytest.raises(InputError, match="fewer than three"):
        otsu_limits(np.zeros(100, np.float32))


def test_descending_limits_are_rejected() -> None:
    with pytest.raises(InputError, match="Give the smaller one first"):
        Limits(0.3, 0.2)


# --------------------------------------------------------------------------------------------------------------- covers


def test_a_lake_fields_and_soil_are_separated_without_confusion() -> None:
    seen, truth = place()
    found = label_spectrally(seen)
    for code, mask in ((1, found.water), (2, found.vegetation), (3, found.bare)):
        assert (truth[mask] == code).all()
        assert mask[truth == code].mean() > 0.9
    assert not (found.water & found.land).any()
    assert not (found.vegetation & ~found.land).any()


@settings(max_examples=8)
@given(st.integers(-4, 4), st.integers(0, 20))
def test_labels_do_not_depend_on_exposure(stops: int, seed: int) -> None:
    seen, _ = place(seed)
    factor = np.float32(2.0**stops)
    one, other = (
        label_spectrally(seen),
        label_spectrally(SpectralBands(seen.red * factor, seen.green * factor, seen.nir * factor)),
    )
    for name in ("water", "land", "vegetation", "bare"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_missing_pixels_have_no_label() -> None:
    seen, _ = place()
    seen.nir[30:50] = np.nan
    found = label_spectrally(seen)
    assert not (found.water | found.land | found.vegetation | found.bare)[30:50].any()
    assert found.water[20:30, 20:80].mean() > 0.9


def test_a_roof_that_is_dark_in_infrared_is_not_water_with_a_short_wave_band() -> None:
    seen, truth = place()
    roof = (slice(2, 14), slice(90, 118))
    seen.green[roof], seen.nir[roof] = 0.30, 0.10
    assert label_spectrally(seen).water[roof].all()
    swir = np.select([truth == 1, truth == 2], [0.01, 0.2], 0.4).astype(np.float32)
    swir[roof] = 0.35
    swir *= np.random.default_rng(5).normal(1, 0.04, swir.shape).astype(np.float32)
    found = label_spectrally(SpectralBands(seen.red, seen.green, seen.nir, swir))
    assert not found.water[roof].any()
    assert found.water[20:60, 20:80].mean() > 0.9


@given(st.integers(0, 50), st.integers(2, 6))
def test_opening_keeps_exactly_what_a_square_fits_into(seed: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    mask = ndimage.gaussian_filter(rng.standard_normal((40, 50)), 2) > 0
    kept = open_mask(mask, width)
    expected = np.zeros_like(mask)
    for row, col in np.ndindex(40 - width + 1, 50 - width + 1):
        if mask[row : row + width, col : col + width].all():
            expected[row : row + width, col : col + width] = True
    np.testing.assert_array_equal(kept, expected)


def test_pixels_in_two_masks_have_no_label() -> None:
    first, second = np.array([[True, True, False]]), np.array([[False, True, False]])
    assert label_map({3: first, 4: second}).tolist() == [[3, NO_LABEL, NO_LABEL]]
