"""Declared nodata values: which pixels of a raster they mark as missing.

A value at the end of an unsigned type's range (0 or the maximum) is also a colour, so a pixel is missing only where all
bands in use have it. With any other value, a pixel is missing as soon as one band has it
(docs/decisions/0005-nodata-that-is-a-colour.md).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def nodata_is_also_a_color(nodata: tuple[float | None, ...], dtype: str) -> bool:
    """Whether the declared value is the same in all bands and is black or white of an unsigned type."""
    kind = np.dtype(dtype)
    return kind.kind == "u" and len(set(nodata)) == 1 and nodata[0] in (0, np.iinfo(kind).max)


def declared_valid(raw: NDArray[Any], nodata: tuple[float | None, ...], dtype: str) -> NDArray[np.bool_]:
    """Return which pixels the declared nodata values leave valid.

    Args:
        raw: ``(C, h, w)`` as stored in the file.
        nodata: the declared value of each band; None where none is declared.
        dtype: common type of the bands.

    Returns:
        ``(h, w)`` bool.
    """
    if not any(value is not None for value in nodata):
        return np.ones(raw.shape[1:], np.bool_)
    missing = [equals_nodata(band, value) for band, value in zip(raw, nodata, strict=True)]
    combine = np.logical_and if nodata_is_also_a_color(nodata, dtype) else np.logical_or
    return np.asarray(~combine.reduce(missing))


def equals_nodata(band: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    """Return where a band ``(h, w)`` has the nodata value; NaN equals NaN."""
    if nodata is None:
        return np.zeros(band.shape, np.bool_)
    if math.isnan(nodata):
        return np.asarray(np.isnan(band)) if band.dtype.kind == "f" else np.zeros(band.shape, np.bool_)
    if band.dtype == np.float32:
        # GDAL reports the nodata value of a float32 file as the nearest double: compare in the file's own precision.
        return np.asarray(band == np.float32(nodata))
    return np.asarray(band == nodata)
