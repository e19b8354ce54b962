"""Read bands of codes on a window of another grid by nearest neighbour, so that masks are never interpolated.

Outside the raster, and where its own mask is invalid, the result is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.warp import reproject
from rasterio.windows import Window as RasterioWindow

from wasnow.errors import GridMismatch, RasterUnreadable
from wasnow.raster.align import Placement
from wasnow.raster.grid import Grid
from wasnow.raster.tiles import Window


@cache
def _any_projected() -> CRS:
    """Not a constant: PROJ must not be used at import."""
    return CRS.from_epsg(3857)


"""GDAL needs a CRS for pixel coordinates; any projected one works if both sides use the same."""


def grid_of(raster: Any) -> Grid:
    """Return the grid of an open raster. Without a CRS or a transform, it has pixel coordinates only."""
    placed = raster.crs is not None and raster.transform != Affine.identity()
    return Grid(
        raster.crs if placed else None,
        raster.transform if placed else Affine.identity(),
        raster.width,
        raster.height,
    )


def read_nearest(raster: Any, path: Path, bands: Sequence[int], grid: Grid, window: Window) -> NDArray[Any]:
    """Read bands on a window of a grid, ``(len(bands), h, w)`` in the raster's data type.

    Args:
        raster: open.
        path: of the raster, for messages.
        bands: counted from 1.
        grid: target grid.
        window: of the target grid.

    Raises:
        GridMismatch: only one of the two is georeferenced, and their sizes differ.
        RasterUnreadable: the file is damaged.
    """
    own = grid_of(raster)
    if own.georeferenced != grid.georeferenced:
        if own.shape != grid.shape:
            raise GridMismatch(
                f"{path} has {own.width} x {own.height} px, the image {grid.width} x {grid.height}, and only one of "
                "them has a CRS. Georeference both, or cut them to the same size"
            )
        own = grid = Grid(None, Affine.identity(), own.width, own.height)
    placement = Placement.of(own, grid)
    result = np.zeros((len(bands), window.height, window.width), raster.dtypes[bands[0] - 1])
    need = placement.source_window(window).clip(*own.shape)
    if not need.size:
        return result
    at = RasterioWindow(need.col, need.row, need.width, need.height)
    try:
        values = raster.read(list(bands), window=at)
        values[raster.read_masks(list(bands), window=at) == 0] = 0
        if placement.kind != "warp":
            row, col = need.row - placement.offset[0] - window.row, need.col - placement.offset[1] - window.col
            result[:, row : row + need.height, col : col + need.width] = values
            return result
        source, target = own.crop(need), grid.crop(window)
        reproject(
            values,
            result,
            src_transform=source.transform,
            src_crs=source.crs or _any_projected(),
            dst_transform=target.transform,
            dst_crs=target.crs or _any_projected(),
            resampling=Resampling.nearest,
            num_threads=1,
        )
    except RasterioError as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise RasterUnreadable(path, f"is damaged or cannot be warped: {reason}", "Copy or make it again") from None
    return result
