"""Two rasters on one working grid.

    Pair         sources and placements, decided once; plain values
    PairReader   open files; `read(window of the working grid) -> PairWindow(before, after, reason)`

Pixels that cannot be compared have a `Reason`, which is kept to the end of the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cache, cached_property
from types import TracebackType

import numpy as np
import rasterio.features
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.warp import reproject
from shapely.geometry import Polygon, box

from wasnow.errors import RasterUnreadable
from wasnow.raster.align import Placement
from wasnow.raster.grid import Grid
from wasnow.raster.reader import RasterReader
from wasnow.raster.source import RasterSource
from wasnow.raster.tiles import Window

WARP_TOLERANCE_PX = 0.01
"""Tolerance of GDAL's approximate transformer; its default of 0.125 is visible at the seams between windows."""

SMALLEST_DAMAGE_PX = 32
"""Unreadable parts of a file are narrowed down to squares of this side."""


class Reason(IntEnum):
    """Why a pixel was not processed; 0 if it was."""

    PROCESSED = 0
    OUTSIDE_BEFORE = 1
    OUTSIDE_AFTER = 2
    BEFORE_MISSING = 3
    AFTER_MISSING = 4
    UNREADABLE = 5
    NOT_FINITE = 6
    WORKER_DIED = 7

    @property
    def text(self) -> str:
        """The reason as text for reports."""
        return _REASON_TEXTS[self]


_REASON_TEXTS = {
    Reason.PROCESSED: "processed",
    Reason.OUTSIDE_BEFORE: "outside the before image",
    Reason.OUTSIDE_AFTER: "outside the after image",
    Reason.BEFORE_MISSING: "no data in the before image",
    Reason.AFTER_MISSING: "no data in the after image",
    Reason.UNREADABLE: "could not be read",
    Reason.NOT_FINITE: "the model's answer was not a number",
    Reason.WORKER_DIED: "its worker died",
}


@dataclass(frozen=True)
class PlacedSource:
    """A source with its placement on the working grid."""

    source: RasterSource
    placement: Placement

    @classmethod
    def of(cls, source: RasterSource, working: Grid) -> PlacedSource:
        """Place a source; use an overview if it is still at least as fine as the working grid."""
        placement = Placement.of(source.grid, working)
        decimation = source.finest_overview_for(placement.scale) if placement.kind == "warp" else None
        if decimation is not None:
            source = source.at_overview(decimation)
            placement = Placement.of(source.grid, working)
        return cls(source, placement)

    @cached_property
    def outline(self) -> Polygon:
        """Edge of the source in pixel coordinates of the working grid."""
        outline = self.placement.source_outline()
        shapely.prepare(outline)
        return outline

    def outside(self, window: Window) -> NDArray[np.bool_]:
        """Return ``(h, w)`` bool: pixels of the window whose centres lie outside the source."""
        frame = box(window.col, window.row, window.col_stop, window.row_stop)
        if self.placement.kind == "same" or self.outline.contains(frame):
            return np.zeros((window.height, window.width), np.bool_)
        if not self.outline.intersects(frame):
            return np.ones((window.height, window.width), np.bool_)
        outside: NDArray[np.bool_] = rasterio.features.geometry_mask(
            [self.outline.intersection(frame.buffer(2))],
            (window.height, window.width),
            Affine.translation(window.col, window.row),
        )
        return outside


@dataclass(frozen=True)
class PairWindow:
    """Both dates over one window of the working grid.

    Attributes:
        window: of the working grid.
        before: ``(Cb, h, w)`` float32 values as in the file, NaN where missing.
        after: ``(Ca, h, w)``, the same for the second date.
        reason: ``(h, w)`` uint8 of `Reason`.
    """

    window: Window
    before: NDArray[np.float32]
    after: NDArray[np.float32]
    reason: NDArray[np.uint8]

    @property
    def valid(self) -> NDArray[np.bool_]:
        """``(h, w)`` bool: both dates have data."""
        return np.equal(self.reason, Reason.PROCESSED)


@dataclass(frozen=True)
class Pair:
    """A pair of rasters and the grid on which they are compared."""

    before: PlacedSource
    after: PlacedSource
    working: Grid

    @classmethod
    def of(cls, before: RasterSource, after: RasterSource, working: Grid) -> Pair:
        """Place both sources on the working grid."""
        return cls(PlacedSource.of(before, working), PlacedSource.of(after, working), working)

    def open(self) -> PairReader:
        """Open both files, for use by one thread."""
        return PairReader(self)


class PairReader:
    """An open pair. Not safe for use by two threads at once; close it, or use it in a ``with`` statement."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self._before = RasterReader(pair.before.source)
        self._after = RasterReader(pair.after.source)

    def __enter__(self) -> PairReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close both files."""
        self._before.close()
        self._after.close()

    def read(self, window: Window) -> PairWindow:
        """Read both dates over a window of the working grid.

        Raises:
            RasterUnreadable: a file is damaged there; names the file and the window.
        """
        before = read_placed(self._before, self.pair.before.placement, window)
        after = read_placed(self._after, self.pair.after.placement, window)
        return self._combine(window, before, after)

    def read_around_damage(self, window: Window) -> tuple[PairWindow, str | None]:
        """Read a window and flag only its unreadable pixels.

        Returns:
            The window, with `Reason.UNREADABLE` for unreadable pixels, and the first error's text or None.
        """
        before, before_damage, before_error = read_around_damage(self._before, self.pair.before.placement, window)
        after, after_damage, after_error = read_around_damage(self._after, self.pair.after.placement, window)
        combined = self._combine(window, before, after)
        combined.reason[before_damage | after_damage] = Reason.UNREADABLE
        return combined, before_error or after_error

    def _combine(self, window: Window, before: NDArray[np.float32], after: NDArray[np.float32]) -> PairWindow:
        reason = np.zeros((window.height, window.width), np.uint8)
        # The last assignment wins: a gap in the before image takes precedence over one in the after image.
        for values, placed, missing, outside in (
            (after, self.pair.after, Reason.AFTER_MISSING, Reason.OUTSIDE_AFTER),
            (before, self.pair.before, Reason.BEFORE_MISSING, Reason.OUTSIDE_BEFORE),
        ):
            gaps = ~np.isfinite(values).all(axis=0)
            if gaps.any():
                reason[gaps] = missing
                reason[gaps & placed.outside(window)] = outside
        return PairWindow(window, before, after, reason)


def read_around_damage(
    reader: RasterReader, placement: Placement, window: Window
) -> tuple[NDArray[np.float32], NDArray[np.bool_], str | None]:
    """Read a window of the target grid; if reading fails, halve it until only the damaged part is left.

    Args:
        reader: the open source.
        placement: of the source on the target grid.
        window: of the target grid.

    Returns:
        ``(C, h, w)`` values, NaN where missing or damaged; ``(h, w)`` bool damage; the first error's text or None.
    """
    shape = (window.height, window.width)
    try:
        return read_placed(reader, placement, window), np.zeros(shape, np.bool_), None
    except RasterUnreadable as error:
        if max(shape) <= SMALLEST_DAMAGE_PX:
            missing = np.full((reader.source.n_bands, *shape), np.nan, np.float32)
            return missing, np.ones(shape, np.bool_), str(error)
    axis = 0 if window.height >= window.width else 1
    one, other = (read_around_damage(reader, placement, half) for half in window.halves(axis, SMALLEST_DAMAGE_PX))
    values = np.concatenate([one[0], other[0]], axis + 1)
    return values, np.concatenate([one[1], other[1]], axis), one[2] or other[2]


def read_placed(reader: RasterReader, placement: Placement, window: Window) -> NDArray[np.float32]:
    """Read a window of the target grid.

    Args:
        reader: the open source.
        placement: of the source on the target grid.
        window: of the target grid.

    Returns:
        ``(C, h, w)`` float32, NaN where the source has no data.

    Raises:
        RasterUnreadable: the file is damaged there.
    """
    shape = (reader.source.n_bands, window.height, window.width)
    need = placement.source_window(window)
    if need.size == 0:
        return np.full(shape, np.nan, np.float32)
    values, _ = reader.read(need)
    if placement.kind == "same":
        return values
    result = np.full(shape, np.nan, np.float32)
    if placement.kind == "shift":
        row, col = need.row - placement.offset[0] - window.row, need.col - placement.offset[1] - window.col
        result[:, row : row + need.height, col : col + need.width] = values
        return result
    source, target = placement.source.crop(need), placement.target.crop(window)
    if not source.georeferenced:
        # GDAL needs a CRS; any projected one serves for pixel coordinates, the same on both sides.
        source, target = (Grid(_any_projected(), grid.transform, grid.width, grid.height) for grid in (source, target))
    try:
        for turn in _longitude_turns(placement):
            part = np.full(shape, np.nan, np.float32)
            reproject(
                values,
                part,
                src_transform=Affine.translation(turn, 0) @ source.transform,
                src_crs=source.crs,
                src_nodata=np.nan,
                dst_transform=target.transform,
                dst_crs=target.crs,
                dst_nodata=np.nan,
                resampling=Resampling.bilinear,
                tolerance=WARP_TOLERANCE_PX,
                num_threads=1,
                XSCALE=f"{1 / placement.scale:.12g}",
                YSCALE=f"{1 / placement.scale:.12g}",
            )
            result = np.where(np.isnan(result), part, result)
    except (RasterioError, CPLE_BaseError) as error:
        raise RasterUnreadable(
            reader.source.path, f"cannot be warped: {' '.join(str(error).split())}", "Check its CRS with rio info"
        ) from None
    # A pixel is valid in all bands or in none.
    result[:, ~np.isfinite(result).all(axis=0)] = np.nan
    return result


def _longitude_turns(placement: Placement) -> tuple[float, ...]:
    """Return the multiples of 360 degrees to add to the source's longitudes; (0,) unless it extends beyond 180."""
    source, target = placement.source, placement.target
    if source.crs is None or not source.crs.is_geographic:
        return (0.0,)
    grids = [grid for grid in (source, target) if grid.crs is not None and grid.crs.is_geographic]
    longitudes = np.concatenate([grid.to_world(*grid.outline(2))[0] for grid in grids])
    return (0.0,) if np.abs(longitudes).max() <= 180 + 1e-6 else (0.0, -360.0, 360.0)


@cache
def _any_projected() -> rasterio.crs.CRS:
    """Not a constant: PROJ must not be used at import."""
    return rasterio.crs.CRS.from_epsg(3857)
