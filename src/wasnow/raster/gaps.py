"""Find undeclared nodata: fill values that cover edge-connected regions or are never data.

    fill value       -9999, -32768, ...        a gap anywhere, if no similar value occurs
    end of range     0, 255, 65535             a gap only in regions that touch the edge, as collars do

Black water and white roofs stay data: they lie inside, or their values pass gradually into those of their surroundings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wasnow.raster.tiles import Window

FILL_VALUES = (-9999.0, -99999.0, -32768.0, -32767.0, -999.0, 1e20, -1e30)
LOSSY_TOLERANCE = 8
"""Deviation of JPEG-compressed collars from their value, in grey levels; their edge reaches `LOSSY_EDGE`."""
LOSSY_EDGE = 40
MIN_SHARE, MAX_SHARE = 0.002, 0.9
"""Share of the raster that an edge-connected region covers to count as a gap."""


@dataclass(frozen=True)
class Gap:
    """An undeclared nodata value of a raster.

    Attributes:
        value: in all bands, as stored.
        tolerance: largest deviation from it.
        share: of the raster, 0..1.
        shape: (rows, cols) of ``region``; (0, 0) if the value is a gap anywhere.
        region: packed bits: cells of a regular grid over the raster in which the value is a gap.
    """

    value: float
    tolerance: float
    share: float
    shape: tuple[int, int] = (0, 0)
    region: bytes = b""

    def mask(self, raw: NDArray[Any], window: Window, stored: tuple[int, int], every: int = 1) -> NDArray[np.bool_]:
        """Return which pixels of a window are in the gap.

        Args:
            raw: ``(C, h, w)`` as stored.
            window: of the stored raster that ``raw`` covers.
            stored: (rows, cols) of the stored raster.
            every: pixels of the window per pixel of ``raw``, in length.

        Returns:
            ``(h, w)`` bool.
        """
        missing = _matches(raw, self.value, self.tolerance)
        if self.shape == (0, 0) or not missing.any():
            return missing
        cells = np.unpackbits(np.frombuffer(self.region, np.uint8), count=self.shape[0] * self.shape[1])
        region = cells.reshape(self.shape).astype(np.bool_)
        rows = np.minimum(window.row + np.arange(raw.shape[1]) * every, stored[0] - 1) * self.shape[0] // stored[0]
        cols = np.minimum(window.col + np.arange(raw.shape[2]) * every, stored[1] - 1) * self.shape[1] // stored[1]
        return np.asarray(missing & region[np.ix_(rows, cols)], np.bool_)


def find_gaps(
    values: NDArray[Any], declared: tuple[float | None, ...], valid: NDArray[np.bool_], *, lossy: bool
) -> tuple[Gap, ...]:
    """Find undeclared nodata values in a raster or a decimated copy of it.

    Args:
        values: ``(C, h, w)`` as stored.
        declared: nodata values of the file, which are not searched.
        valid: ``(h, w)`` pixels that alpha, mask and declared nodata leave.
        lossy: whether the file is compressed with loss, so that collars are smeared.
    """
    dtype = values.dtype
    known = {value for value in declared if value is not None}
    found: list[Gap] = []
    rest = valid & np.isfinite(values).all(axis=0) if dtype.kind == "f" else valid
    for value in (*FILL_VALUES, *_ends(dtype)):
        if value in known or not _representable(value, dtype):
            continue
        tolerance = LOSSY_TOLERANCE if lossy and dtype == np.uint8 else abs(value) * 1e-6 if dtype.kind == "f" else 0
        matches = _matches(values, value, tolerance) & rest
        if not matches.any() or (matches.sum() == rest.sum() and value not in FILL_VALUES):
            continue
        if value in FILL_VALUES:
            if not _is_isolated(values, matches, rest, value):
                continue
            found.append(Gap(value, tolerance, float(matches.mean())))
        else:
            region = _edge_regions(matches)
            exact = (matches & region & _matches(values, value, 0)).sum()
            if not region.any() or exact < 0.8 * (matches & region).sum():
                continue
            if not lossy and not _is_isolated(values, matches & region, rest & ~region, value):
                continue
            cells = ndimage.binary_dilation(region, np.ones((3, 3), np.bool_))
            packed = np.packbits(cells).tobytes()
            edge = LOSSY_EDGE if lossy and dtype == np.uint8 else tolerance
            found.append(Gap(value, edge, float(region.mean()), values.shape[1:], packed))
            matches = region
        rest &= ~matches
    return tuple(found)


def _ends(dtype: np.dtype[Any]) -> tuple[float, ...]:
    return (0.0, float(np.iinfo(dtype).max)) if dtype.kind in "ui" else (0.0,)


def _representable(value: float, dtype: np.dtype[Any]) -> bool:
    if dtype.kind == "f":
        return abs(value) <= float(np.finfo(dtype).max)
    limits = np.iinfo(dtype)
    return value == int(value) and limits.min <= value <= limits.max


def _matches(values: NDArray[Any], value: float, tolerance: float) -> NDArray[np.bool_]:
    """Return ``(h, w)``: all bands are within the tolerance of the value."""
    if tolerance == 0:
        return np.asarray((values == value).all(axis=0))
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray((np.abs(values.astype(np.float64) - value) <= tolerance).all(axis=0))


def _edge_regions(matches: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the connected regions along the edge that are as large and as long as collars."""
    labels, count = ndimage.label(matches, np.ones((3, 3)))
    rows, cols = matches.shape
    edge = np.concatenate([labels[0], labels[-1], labels[1:-1, 0], labels[1:-1, -1]])
    along = np.bincount(edge, minlength=count + 1)
    area = np.bincount(labels.ravel(), minlength=count + 1)
    corners = {int(labels[row, col]) for row in (0, -1) for col in (0, -1)}
    accepted = np.zeros(count + 1, np.bool_)
    for label in range(1, count + 1):
        long_enough = along[label] >= min(rows, cols) * (0.1 if label in corners else 0.5)
        accepted[label] = long_enough and area[label] >= MIN_SHARE * matches.size
    region = accepted[labels]
    return region if region.mean() <= MAX_SHARE else np.zeros_like(region)


def _is_isolated(values: NDArray[Any], gap: NDArray[np.bool_], rest: NDArray[np.bool_], value: float) -> bool:
    """Whether few data pixels have values near the fill value, as dark water has around 0."""
    data = values[:, rest & ~gap].astype(np.float64)
    if data.shape[1] == 0:
        return True
    low, high = np.percentile(data, (1, 99))
    near = (np.abs(data - value) <= 0.02 * max(high - low, 1e-300)).all(axis=0).sum()
    return bool(near <= 0.25 * gap.sum() and len(np.unique(data[0, :4096])) > 1)
