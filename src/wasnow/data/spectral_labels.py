"""Weak labels from bands that a model does not see: water, vegetation and bare ground, where an index is clear.

    NIR, SWIR (withheld) ──> index ──> limits from this raster's own histogram ──> label ──> teaches a model of RGB

                 density of a water index
        land                                    water
        ▂▆█▆▃▂▁                                  ▂▅▃
    ────────────┼···············┼───────────────────────> index
              low   no label   high

An index is a normalised difference (a - b) / (a + b) of two bands, -1 to 1:

    NDWI   green, near infrared     water is high   McFeeters 1996
    MNDWI  green, short-wave        water is high   Xu 2006; where there is such a band: towns are lower than in NDWI
    NDVI   near infrared, red       plants are high Rouse et al. 1973

Numbers of cameras that were never calibrated put the same ground at other values on every date, so no textbook
threshold holds: each raster finds its own. Pixels between clear and clear have no label, and what no index can tell
(buildings, roads) has none either. The labels are weak: right where they speak, for most of the pixels.
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
"""Standard deviation of the histogram's smoothing, in units of the index."""

_FLANK = 0.25
"""A class begins where the density reaches this share of the lower of the two peaks beside the valley."""

_GAP = (0.03, 0.10)
"""How far the unlabelled interval reaches to either side of the valley, at least and at most."""


_LEAST_MIDDLE = 0.10
"""A middle class narrower than this is none."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Up to ``low`` clearly not, from ``high`` on clearly so; nothing is said in between."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise InputError(f"limits {self.low:g} to {self.high:g} do not rise; give the smaller first")


@dataclass(frozen=True)
class SpectralBands:
    """The bands of one date, ``(H, W)`` float32 in any unit that is proportional to light; NaN where missing.

    Attributes:
        swir: short-wave infrared around 1.6 micrometres; None for cameras that have none.
    """

    red: Values
    green: Values
    nir: Values
    swir: Values | None = None

    @property
    def water_index(self) -> Values:
        """MNDWI where there is a short-wave band, else NDWI."""
        return normalised_difference(self.green, self.nir if self.swir is None else self.swir)

    @property
    def vegetation_index(self) -> Values:
        """NDVI."""
        return normalised_difference(self.nir, self.red)


@dataclass(frozen=True)
class SpectralLabels:
    """What the indices of one date say, and by which limits.

    Attributes:
        water: ``(H, W)``: clearly water.
        land: ``(H, W)``: clearly no water.
        vegetation: ``(H, W)``: clearly plants.
        bare: ``(H, W)``: clearly neither; bare ground, or anything built.
        water_limits: of the water index.
        vegetation_limits: of NDVI on what is clearly no water.
    """

    water: Mask
    land: Mask
    vegetation: Mask
    bare: Mask
    water_limits: Limits
    vegetation_limits: Limits


def normalised_difference(first: Values, second: Values) -> Values:
    """``(first - second) / (first + second)``, -1 to 1; NaN where both are 0 or one is missing."""
    total = first + second
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, (first - second) / total, np.float32(np.nan)).astype(np.float32)


def valley(values: Values, within: tuple[float, float] = (0.05, 0.6)) -> Limits:
    """The deepest valley of a histogram, with the interval around it that belongs to neither side.

    The histogram is smoothed (Gaussian, 0.02). A place is as deep as its density lies below the lower of the highest
    peaks on its two sides; of an empty gap, which is as deep everywhere, the middle is taken. The interval reaches to
    where the density has risen to a quarter of that lower peak: 0.03 to 0.10 to either side.

    Args:
        values: of an index, any shape; NaN is left out.
        within: where the valley may lie.

    Raises:
        InputError: there is none, because the index falls off evenly from one peak.
    """
    density, edges = np.histogram(values[np.isfinite(values)], _BINS, (-1.0, 1.0))
    centres = (edges[:-1] + edges[1:]) / 2
    smooth = ndimage.gaussian_filter1d(density.astype(np.float64), _SMOOTH * _BINS / 2, mode="constant")
    peaks = np.minimum(np.maximum.accumulate(smooth), np.maximum.accumulate(smooth[::-1])[::-1])
    depth = np.where((centres >= within[0]) & (centres <= within[1]), peaks - smooth, 0.0)
    if depth.max() <= 1e-6 * smooth.max():
        raise InputError(
            f"the index has no valley from {within[0]:g} to {within[1]:g}, so water and land cannot be told apart; "
            "give a raster that shows both"
        )
    deepest = np.flatnonzero(depth >= depth.max() * (1 - 1e-4))
    at = int(deepest[len(deepest) // 2])
    risen = smooth > max(_FLANK * peaks[at], smooth[at])
    below, above = np.flatnonzero(risen[:at]), np.flatnonzero(risen[at + 1 :])
    low = centres[at] - centres[below[-1]] if below.size else np.inf
    high = centres[at + 1 + above[0]] - centres[at] if above.size else np.inf
    return Limits(float(centres[at] - np.clip(low, *_GAP)), float(centres[at] + np.clip(high, *_GAP)))


def thirds(values: Values) -> Limits:
    """The two thresholds that part values into low, middle and high with the least variance within each (Otsu 1979).

    Two kinds of ground have no middle, and then a threshold would run through one of them: where the middle would be
    narrower than 0.10, two kinds are parted by one threshold, halfway between their means (where Otsu's lies, but for
    an empty gap, in which any place is as good), and 0.05 to either side of it is left open.

    Raises:
        InputError: fewer than three different values.
    """
    known = values[np.isfinite(values)]
    if np.unique(known).size < 3:
        raise InputError("the index has fewer than three different values; give a raster that shows more")
    low, high = threshold_multiotsu(known, 3, nbins=_BINS)  # type: ignore[no-untyped-call]
    if high - low < _LEAST_MIDDLE:
        parted = known > threshold_otsu(known, nbins=_BINS)  # type: ignore[no-untyped-call]
        between = float(known[parted].mean() + known[~parted].mean()) / 2
        return Limits(between - _LEAST_MIDDLE / 2, between + _LEAST_MIDDLE / 2)
    return Limits(float(low), float(high))


def label_spectrally(seen: SpectralBands) -> SpectralLabels:
    """Where one date clearly shows water, plants, or neither; see the head of this module.

    Raises:
        InputError: the raster shows one kind of ground only.
    """
    water_index, vegetation_index = seen.water_index, seen.vegetation_index
    by_water = valley(water_index)
    with np.errstate(invalid="ignore"):
        water = water_index >= by_water.high
        land = water_index <= by_water.low
        by_plants = thirds(vegetation_index[land])
        vegetation = land & (vegetation_index >= by_plants.high)
        # Soil reflects more red than green, whatever the camera's infrared is worth.
        bare = land & (vegetation_index <= by_plants.low) & (seen.red > seen.green)
    return SpectralLabels(water, land, vegetation, bare, by_water, by_plants)


def open_mask(mask: Mask, width: int) -> Mask:
    """The parts of a mask that a square of ``width`` pixels fits into: fields stay, tracks and yards go."""
    opened: Mask = ndimage.binary_opening(mask, np.ones((width, width), np.bool_))
    return opened


def label_map(masks: dict[int, Mask]) -> NDArray[np.uint8]:
    """Masks by class code as one label map, ``(H, W)`` uint8; 255 where none speaks, or several do."""
    stack = np.stack(list(masks.values()))
    codes = np.full(stack.shape[1:], NO_LABEL, np.uint8)
    for code, mask in masks.items():
        codes[mask] = code
    codes[stack.sum(axis=0) > 1] = NO_LABEL
    return codes
