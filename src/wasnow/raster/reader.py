"""Read windows of a raster: values and validity, upright, with the palette expanded.

Validity combines, in this order:
    alpha band or mask    missing where it is 0
    declared nodata       see `wasnow.raster.nodata`
    undeclared nodata     see `wasnow.raster.gaps`
    NaN, infinity         missing as soon as one band is not finite
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow

from wasnow.errors import RasterUnreadable
from wasnow.raster.gdal import open_raster
from wasnow.raster.nodata import declared_valid
from wasnow.raster.source import RasterSource
from wasnow.raster.tiles import Window

LARGEST_VALUE = 1e36


class RasterReader:
    """An open raster. Not safe for use by two threads at once; close it, or use it in a ``with`` statement."""

    def __init__(self, source: RasterSource) -> None:
        self.source = source
        level = None if source.overview is None else source.overviews.index(source.overview)
        self._raster = open_raster(source.path, overview_level=level, allow_indirect=source.allow_indirect)

    def __enter__(self) -> RasterReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._raster.close()

    def read(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window inside the raster.

        Returns:
            ``(C, h, w)`` float32 values as in the file, NaN where not valid; and ``(h, w)`` bool validity.

        Raises:
            RasterUnreadable: the file is damaged there; names the file and the window.
        """
        source = self.source
        stored = _stored_window(window, source.stored_shape, source.orientation)
        shape = (stored.height, stored.width)
        if source.every > 1:
            col, row = stored.col * source.every, stored.row * source.every
            rows, cols = source.stored_shape
            at = RasterioWindow(
                col, row, min(stored.width * source.every, cols - col), min(stored.height * source.every, rows - row)
            )
        else:
            at = RasterioWindow(stored.col, stored.row, stored.width, stored.height)
        try:
            raw: NDArray[Any] = self._raster.read(list(source.bands), window=at, out_shape=(len(source.bands), *shape))
            valid = self._valid(raw, at)
        except (RasterioError, CPLE_BaseError) as error:
            cause = error.__cause__ or error
            raise RasterUnreadable(
                source.path,
                f"rows {window.row}-{window.row_stop - 1}, cols {window.col}-{window.col_stop - 1} cannot be read: "
                + " ".join(str(cause).split()),
                "Copy the file again, or pass --keep-going to flag the unreadable part",
            ) from None
        if source.palette is not None:
            table = np.asarray(source.palette, np.float32)
            index = raw[0].astype(np.int64)
            known = (index >= 0) & (index < len(table))
            rgba = table[np.where(known, index, 0)]
            valid &= known & (rgba[..., 3] > 0)
            values = np.moveaxis(rgba[..., :3], -1, 0)
        else:
            values = source.conversion.apply(raw)
            if raw.dtype.kind == "f":
                # Magnitudes from 1e36 are fill values: -3.4e38 (GDAL, ArcGIS), 9.97e36 (netCDF).
                valid &= (np.isfinite(values) & (np.abs(raw) < LARGEST_VALUE)).all(axis=0)
        values = np.where(valid, values, np.float32(np.nan))
        if source.orientation != 1:
            return _orient(values, source.orientation), _orient(valid, source.orientation)
        return values, valid

    def _valid(self, raw: NDArray[Any], at: RasterioWindow) -> NDArray[np.bool_]:
        """Return ``(h, w)``: valid by alpha or mask, and by declared nodata."""
        source = self.source
        valid = np.ones(raw.shape[1:], np.bool_)
        if source.mask == "alpha":
            alpha = [i for i, color in enumerate(source.colors, 1) if color == "alpha"]
            opacity = self._raster.read(alpha, window=at, out_shape=(len(alpha), *valid.shape))
            valid &= (opacity >= source.opaque).all(axis=0)
        elif source.mask == "mask":
            bands = list(source.bands)
            valid &= (self._raster.read_masks(bands, window=at, out_shape=raw.shape) != 0).all(axis=0)
        if source.palette is not None:
            if source.nodata[0] is not None:
                valid &= raw[0] != source.nodata[0]
            return valid
        valid &= declared_valid(raw, source.nodata, source.dtype)
        window = Window(int(at.row_off), int(at.col_off), int(at.height), int(at.width))
        for gap in source.gaps:
            valid &= ~gap.mask(raw, window, source.stored_shape, source.every)
        return valid


# EXIF orientations 1..8 by what they undo.
_FLIPS_ROWS = (3, 4, 6, 7)
_FLIPS_COLS = (2, 3, 7, 8)
_TRANSPOSES = (5, 6, 7, 8)


def _stored_window(window: Window, stored: tuple[int, int], orientation: int) -> Window:
    """Return the window of the stored image that contains an upright window.

    Args:
        window: in upright pixel coordinates.
        stored: (rows, cols) of the stored image.
        orientation: EXIF orientation 1..8.
    """
    row, col, height, width = window.row, window.col, window.height, window.width
    if orientation in _TRANSPOSES:
        row, col, height, width = col, row, width, height
    if orientation in _FLIPS_ROWS:
        row = stored[0] - row - height
    if orientation in _FLIPS_COLS:
        col = stored[1] - col - width
    return Window(row, col, height, width)


def _orient(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn the last two axes of a stored window upright: flip along the stored axes, then transpose."""
    if orientation in _FLIPS_ROWS:
        array = array[..., ::-1, :]
    if orientation in _FLIPS_COLS:
        array = array[..., ::-1]
    if orientation in _TRANSPOSES:
        array = np.swapaxes(array, -1, -2)
    return np.ascontiguousarray(array)
