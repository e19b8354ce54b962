"""Weak labels from bands that the model does not get: water, vegetation and bare ground, where an index is conclusive.

    NIR, SWIR (withheld) ──> index ──> thresholds from the raster's own histogram ──> label ──> trains a model of RGB

                 density of a water index
        land                                    water
        ▂▆█▆▃▂▁                                  ▂▅▃
    ────────────┼···············┼───────────────────────> index
              low   no label   high

An index is a normalised difference (a - b) / (a + b) of two bands, -1 to 1:

    NDWI   green, near infrared     water is high       McFeeters 1996
    MNDWI  green, short-wave        water is high       Xu 2006; preferred: built-up areas are lower than in NDWI
    NDVI   near infrared, red       vegetation is high  Rouse et al. 1973

Uncalibrated cameras give the same ground different values at every date, so no textbook threshold holds: thresholds
are estimated from each raster. Pixels between the thresholds have no label, and neither have classes that no index
separates (buildings, roads). The labels are weak: mostly right where given, and missing elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_multiotsu, threshold_otsu

from wasnow.errors import InputError
from wasnow.vocabulary import NO_LABEL

Values = NDArray[np.float32]
Mask = NDArray[np.bool_]

_BINS = 256
_SMOOTH = 0.02
"""Standard deviation of the smoothing of the histogram, in units of the index."""

_FLANK = 0.25
"""A class begins where the density reaches this share of the lower of the two peaks beside the valley."""

_GAP = (0.03, 0.10)
"""Smallest and largest reach of the unlabelled interval to either side of the valley."""


_LEAST_MIDDLE = 0.10
"""Smallest width of a middle class, in units of the index."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Two thresholds: up to ``low`` the class is absent, from ``high`` it is present, in between there is no label."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise InputError(f"limits {self.low:g} to {self.high:g} are not ascending. Give the smaller one first")


@dataclass(frozen=True)
class SpectralBands:
    """The bands of one date, ``(H, W)`` float32 in any unit proportional to radiance; NaN where missing.

    Attributes:
        red: red band.
        green: green band.
        nir: near infrared band.
        swir: short-wave infrared band around 1.6 micrometres; None for cameras without one.
    """

    red: Values
    green: Values
    nir: Values
    swir: Values | None = None

    @property
    def water_index(self) -> Values:
        """MNDWI if there is a short-wave band, else NDWI."""
        return normalised_difference(self.green, self.nir if self.swir is None else self.swir)

    @property
    def vegetation_index(self) -> Values:
        """NDVI."""
        return normalised_difference(self.nir, self.red)


@dataclass(frozen=True)
class SpectralLabels:
    """Weak labels of one date, and the thresholds they come from.

    Attributes:
        water: ``(H, W)``: water.
        land: ``(H, W)``: not water.
        vegetation: ``(H, W)``: vegetation.
        bare: ``(H, W)``: neither water nor vegetation: bare ground, or anything built.
        water_limits: thresholds of the water index.
        vegetation_limits: thresholds of NDVI on ``land``.
    """

    water: Mask
    land: Mask
    vegetation: Mask
    bare: Mask
    water_limits: Limits
    vegetation_limits: Limits


def normalised_difference(first: Values, second: Values) -> Values:
    """Return ``(first - second) / (first + second)``, -1 to 1; NaN where both are 0 or one is missing."""
    total = first + second
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, (first - second) / total, np.float32(np.nan)).astype(np.float32)


def valley_limits(values: Values, within: tuple[float, float] = (0.05, 0.6)) -> Limits:
    """Return the deepest valley of a histogram, with the interval around it that belongs to neither side.

    The histogram is smoothed with a Gaussian of 0.02. The depth of a point is the distance of its density below the
    lower of the highest peaks on its two sides. In an empty gap, where all depths are equal, the middle is taken. The
    interval extends to where the density has risen to a quarter of that lower peak, 0.03 to 0.10 to either side.

    Args:
        values: of an index, any shape; NaN is ignored.
        within: interval in which the valley is searched.

    Raises:
        InputError: there is no valley, because the histogram has a single peak.
    """
    density, edges = np.histogram(values[np.isfinite(values)], _BINS, (-1.0, 1.0))
    centres = (edges[:-1] + edges[1:]) / 2
    smooth = ndimage.gaussian_filter1d(density.astype(np.float64), _SMOOTH * _BINS / 2, mode="constant")
    peaks = np.minimum(np.maximum.accumulate(smooth), np.maximum.accumulate(smooth[::-1])[::-1])
    depth = np.where((centres >= within[0]) & (centres <= within[1]), peaks - smooth, 0.0)
    if depth.max() <= 1e-6 * smooth.max():
        raise InputError(
            f"the index has no valley from {within[0]:g} to {within[1]:g}, so water and land cannot be separated. "
            "Give a raster that shows both"
        )
    deepest = np.flatnonzero(depth >= depth.max() * (1 - 1e-4))
    at = int(deepest[len(deepest) // 2])
    risen = smooth > max(_FLANK * peaks[at], smooth[at])
    below, above = np.flatnonzero(risen[:at]), np.flatnonzero(risen[at + 1 :])
    low = centres[at] - centres[below[-1]] if below.size else np.inf
    high = centres[at + 1 + above[0]] - centres[at] if above.size else np.inf
    return Limits(float(centres[at] - np.clip(low, *_GAP)), float(centres[at] + np.clip(high, *_GAP)))


def otsu_limits(values: Values) -> Limits:
    """Return the two thresholds that separate low, middle and high values with the least variance within (Otsu 1979).

    With only two kinds of ground there is no middle class, and one threshold would split one of them. Where the middle
    class would be narrower than 0.10, a single threshold is used instead: the midpoint of the two means (as Otsu's,
    except in an empty gap, where every point is equally good), with 0.05 to either side left unlabelled.

    Raises:
        InputError: fewer than three different values.
    """
    known = values[np.isfinite(values)]
    if np.unique(known).size < 3:
        raise InputError("the index has fewer than three different values. Give a raster with more variation")
    low, high = threshold_multiotsu(known, 3, nbins=_BINS)  # type: ignore[no-untyped-call]
    if high - low < _LEAST_MIDDLE:
        upper = known > threshold_otsu(known, nbins=_BINS)  # type: ignore[no-untyped-call]
        between = float(known[upper].mean() + known[~upper].mean()) / 2
        return Limits(between - _LEAST_MIDDLE / 2, between + _LEAST_MIDDLE / 2)
    return Limits(float(low), float(high))


def label_spectrally(bands: SpectralBands) -> SpectralLabels:
    """Return the weak labels of one date: water, vegetation, or neither.

    Raises:
        InputError: the raster shows one kind of ground only.
    """
    water_index, vegetation_index = bands.water_index, bands.vegetation_index
    by_water = valley_limits(water_index)
    with np.errstate(invalid="ignore"):
        water = water_index >= by_water.high
        land = water_index <= by_water.low
        by_plants = otsu_limits(vegetation_index[land])
        vegetation = land & (vegetation_index >= by_plants.high)
        # Soil reflects more red than green, however the infrared band is calibrated.
        bare = land & (vegetation_index <= by_plants.low) & (bands.red > bands.green)
    return SpectralLabels(water, land, vegetation, bare, by_water, by_plants)


def open_mask(mask: Mask, width: int) -> Mask:
    """Return the parts of a mask that a square of ``width`` pixels fits into (binary opening)."""
    opened: Mask = ndimage.binary_opening(mask, np.ones((width, width), np.bool_))
    return opened


def label_map(masks: dict[int, Mask]) -> NDArray[np.uint8]:
    """Combine masks by class code into a label map, ``(H, W)`` uint8; 255 where no mask or several are set."""
    stack = np.stack(list(masks.values()))
    codes = np.full(stack.shape[1:], NO_LABEL, np.uint8)
    for code, mask in masks.items():
        codes[mask] = code
    codes[stack.sum(axis=0) > 1] = NO_LABEL
    return codes
