"""Correct what the headers of two rasters say by a look at their pixels, before a run is planned.

    undeclared nodata     collars and fill values become gaps                       `wasnow.raster.gaps`
    alpha                 near infrared flagged as alpha becomes a band; a mask that is not flagged becomes alpha
    number range          large offsets and tiny values are shifted and scaled before the cast to float32
    types                 16-bit files of 8-bit values are compared with 8-bit files as they are

Reads a decimated copy of each raster, or squares of a large one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow

from wasnow.errors import RasterUnreadable
from wasnow.raster.gaps import find_gaps
from wasnow.raster.gdal import open_raster
from wasnow.raster.nodata import declared_valid
from wasnow.raster.reader import LARGEST_VALUE
from wasnow.raster.source import RasterSource

SIDE = 1024
"""Longest side of the decimated copy."""
LARGE_PX = 2**26
"""A raster with more pixels and without overviews is decimated only if its outermost rows look like a collar."""


@dataclass(frozen=True)
class _Sample:
    """A decimated copy of a raster: ``(C, h, w)`` of all bands as stored."""

    values: NDArray[Any]
    lossy: bool


def examine(
    before: RasterSource, after: RasterSource, nodata: tuple[float | None, float | None] = (None, None)
) -> tuple[tuple[RasterSource, RasterSource], list[str]]:
    """Return both sources corrected by their pixels, and a warning for each correction.

    Args:
        before: as probed.
        after: as probed.
        nodata: given by the user per date; replaces the declared values.
    """
    warnings: list[str] = []
    sources: list[RasterSource] = []
    samples: list[NDArray[np.float64]] = []
    for source, value in zip((before, after), nodata, strict=True):
        source = source if value is None else source.with_nodata(value)
        sample = _sample(source)
        if sample is None:
            sources.append(source)
            samples.append(np.zeros((0, 0)))
            continue
        source, found = _examine_alpha(source, sample)
        warnings += found
        source, found, data = _examine_gaps(source, sample)
        warnings += found
        sources.append(source)
        samples.append(data)
    examined = (sources[0], sources[1])
    if all(data.size for data in samples):
        examined, found = _examine_types(examined, (samples[0], samples[1]))
        warnings += found
        examined = _examine_range(examined, (samples[0], samples[1]))
    return examined, warnings


def _sample(source: RasterSource) -> _Sample | None:
    """Return a decimated copy; None with a palette, or if the file cannot be read (the run reports that)."""
    if source.palette is not None:
        return None
    rows, cols = source.stored_shape
    try:
        with open_raster(source.path, allow_indirect=source.allow_indirect) as raster:
            compression = str(raster.get_tag_item("COMPRESSION", "IMAGE_STRUCTURE") or "").upper()
            lossy = raster.driver in ("JPEG", "WEBP", "JP2OpenJPEG") or "JPEG" in compression or compression == "WEBP"
            if rows * cols > LARGE_PX and not source.overviews and not _has_uniform_edge(raster):
                return _Sample(_squares(raster), lossy)
            shape = (raster.count, min(rows, SIDE), min(cols, SIDE))
            return _Sample(raster.read(out_shape=shape), lossy)
    except (RasterioError, CPLE_BaseError, RasterUnreadable, MemoryError):
        return None


def _has_uniform_edge(raster: Any) -> bool:
    """Whether the first or last row holds long runs of one value, as collars do."""
    for row in (0, raster.height - 1):
        line = raster.read(window=RasterioWindow(0, row, raster.width, 1), out_shape=(raster.count, 1, SIDE))
        if (np.diff(line[:, 0].astype(np.float64), axis=1) == 0).all(axis=0).mean() > 0.1:
            return True
    return False


def _squares(raster: Any, side: int = 128, per_side: int = 4) -> NDArray[Any]:
    """Return squares of an even lattice, joined to one image."""
    rows = np.linspace(0, raster.height - side, per_side + 2)[1:-1].astype(int)
    cols = np.linspace(0, raster.width - side, per_side + 2)[1:-1].astype(int)
    lines = [
        np.concatenate([raster.read(window=RasterioWindow(col, row, side, side)) for col in cols.tolist()], axis=2)
        for row in rows.tolist()
    ]
    return np.concatenate(lines, axis=1)


def _examine_alpha(source: RasterSource, sample: _Sample) -> tuple[RasterSource, list[str]]:
    name = source.path
    alpha = [band for band, color in enumerate(source.colors, 1) if color == "alpha"]
    if len(alpha) == 1:
        values = sample.values[alpha[0] - 1]
        top = values.max()
        positive = values[values > 0]
        if positive.size and (positive == top).mean() < 0.5 and len(np.unique(positive)) > 16:
            return source.with_alpha(()), [
                f"{name}: band {alpha[0]} is flagged as alpha but has {len(np.unique(positive))} different values over "
                "the image: used as a band"
            ]
        return replace(source, opaque=max(1.0, 0.98 * float(top))), []
    band = source.count
    if not alpha and source.mask in ("none", "nodata") and source.count in (2, 4, 5) and source.dtype == "uint8":
        values, others = sample.values[-1], sample.values[:-1]
        holes = values == 0
        if set(np.unique(values).tolist()) == {0, 255} and _is_uniform(others[:, holes]):
            return replace(source.with_alpha((band,)), opaque=255.0), [
                f"{name}: band {band} has only the values 0 and 255, and 0 where the others are empty: used as a mask"
            ]
    return source, []


def _is_uniform(values: NDArray[Any]) -> bool:
    """Whether nearly all pixels ``(C, N)`` have the same value in all bands."""
    if values.shape[1] == 0:
        return False
    return bool((values == np.median(values)).all(axis=0).mean() > 0.95)


def _examine_gaps(source: RasterSource, sample: _Sample) -> tuple[RasterSource, list[str], NDArray[np.float64]]:
    """Return the source with its gaps, warnings, and ``(C, N)`` physical values of valid pixels."""
    raw = sample.values[[band - 1 for band in source.bands]]
    valid = declared_valid(raw, source.nodata, source.dtype)
    for band, color in enumerate(source.colors, 1):
        if color == "alpha":
            valid &= sample.values[band - 1] >= source.opaque
    if raw.dtype.kind == "f":
        valid &= (np.isfinite(raw) & (np.abs(raw) < LARGEST_VALUE)).all(axis=0)
    warnings = []
    if source.mask in ("none", "nodata"):
        gaps = find_gaps(raw, source.nodata, valid, lossy=sample.lossy)
        for gap in gaps:
            warnings.append(
                f"{source.path}: {gap.share:.1%} of its pixels have the undeclared nodata value {gap.value:g}: left "
                "out and flagged; pass --nodata to declare it"
            )
            valid &= np.abs(raw.astype(np.float64) - gap.value).max(axis=0) > gap.tolerance
        source = replace(source, gaps=gaps)
    return source, warnings, source.conversion.physical(raw[:, valid])


def _examine_types(
    sources: tuple[RasterSource, RasterSource], samples: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> tuple[tuple[RasterSource, RasterSource], list[str]]:
    """Treat 16-bit files of 8-bit values as 8-bit, if the other date is 8-bit."""
    eight = [source.dtype == "uint8" for source in sources]
    if eight[0] == eight[1] or not all(source.conversion.is_identity for source in sources):
        return sources, []
    other = eight.index(False)
    values, source = samples[other], sources[other]
    if values.min() >= 0 and 1 < values.max() <= 255 and (values == np.rint(values)).all():
        corrected = replace(source, display=True)
        pair = (corrected, sources[1]) if other == 0 else (sources[0], corrected)
        return pair, [f"{source.path}: {source.dtype} with values from 0 to 255, compared as 8-bit"]
    return sources, []


def _examine_range(
    sources: tuple[RasterSource, RasterSource], samples: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> tuple[RasterSource, RasterSource]:
    """Set a common base and unit if float32 would lose the differences of values."""
    spread = max(float(np.ptp(np.percentile(data, (1, 99)))) for data in samples)
    if not spread > 0:
        return sources
    middle = float(np.median(np.concatenate([data.ravel()[:: max(1, data.size // 65536)] for data in samples])))
    base = middle if abs(middle) > 4096 * spread or _needs_more_than_24_bits(sources, samples) else 0.0
    unit = 2.0 ** round(math.log2(spread)) if not 1e-20 < spread < 1e20 else 1.0
    if base == 0 and unit == 1:
        return sources
    before, after = (replace(source, base=base, unit=unit) for source in sources)
    return before, after


def _needs_more_than_24_bits(
    sources: tuple[RasterSource, RasterSource], samples: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> bool:
    """Whether integers exceed the 24 bits of a float32 mantissa."""
    kinds = [np.dtype(source.dtype) for source in sources]
    wide = any(kind.kind in "ui" and kind.itemsize >= 4 for kind in kinds)
    return wide and max(float(np.abs(data).max()) for data in samples) > 2**24
