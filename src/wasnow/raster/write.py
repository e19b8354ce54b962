"""Write result rasters: block by block into a plain GeoTIFF, then rewritten as a Cloud Optimized GeoTIFF.

Neither step holds more than a few blocks in memory. Callers pass temporary paths and rename the finished files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import DTypeLike, NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow

from wasnow.raster.grid import Grid
from wasnow.raster.tiles import Window
from wasnow.storage.atomic import output_errors

BLOCK = 512


class RasterWriter:
    """An open GeoTIFF whose windows can be written in any order; see `writing`."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def write(self, window: Window, values: NDArray[Any]) -> None:
        """Write ``(bands, h, w)`` values to a window."""
        self._dataset.write(values, window=RasterioWindow(window.col, window.row, window.width, window.height))


@contextmanager
def writing(
    path: Path, grid: Grid, *, dtype: DTypeLike, nodata: float, bands: tuple[str, ...], tags: dict[str, str]
) -> Iterator[RasterWriter]:
    """Create a GeoTIFF to be written window by window: tiled and uncompressed.

    Args:
        path: of the new file.
        grid: CRS, transform and shape.
        dtype: of all bands.
        nodata: declared for all bands.
        bands: their names.
        tags: metadata of the file.

    Raises:
        OutputError, DiskFull: it cannot be written.
    """
    profile = {
        "driver": "GTiff",
        "width": grid.width,
        "height": grid.height,
        "count": len(bands),
        "dtype": np.dtype(dtype).name,
        "nodata": nodata,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "interleave": "band",
        "BIGTIFF": "IF_SAFER",
    }
    if grid.georeferenced:
        profile |= {"crs": grid.crs, "transform": grid.transform}
    with raster_output_errors(path), rasterio.open(path, "w", **profile) as dataset:
        dataset.colorinterp = [ColorInterp.gray] + [ColorInterp.undefined] * (len(bands) - 1)
        for index, name in enumerate(bands, 1):
            dataset.set_band_description(index, name)
        dataset.update_tags(**tags)
        yield RasterWriter(dataset)


def to_cog(source: Path, target: Path, *, overviews: str, predictor: bool) -> None:
    """Rewrite a raster as a Cloud Optimized GeoTIFF with zstd compression and 512 px blocks.

    Args:
        source: of the plain GeoTIFF.
        target: of the new file.
        overviews: resampling of the overviews: ``mode``, ``nearest`` or ``average``.
        predictor: whether to store differences of neighbouring pixels.

    Raises:
        OutputError, DiskFull: it cannot be written.
    """
    with raster_output_errors(target):
        rasterio.shutil.copy(
            source,
            target,
            driver="COG",
            COMPRESS="ZSTD",
            LEVEL="3",
            PREDICTOR="YES" if predictor else "NO",
            BLOCKSIZE=str(BLOCK),
            OVERVIEW_RESAMPLING=overviews,
            BIGTIFF="IF_SAFER",
            STATISTICS="NO",
        )


@contextmanager
def reading_back(path: Path) -> Iterator[Callable[[Window, NDArray[Any]], None]]:
    """Return a function that compares a window of a closed raster with the ``(bands, h, w)`` written to it.

    GDAL can lose blocks on a full disk without an error.

    Raises:
        OutputError, DiskFull: also by that function: the raster has other values, or cannot be read.
    """
    with ExitStack() as stack:
        with raster_output_errors(path):
            raster = stack.enter_context(rasterio.open(path))

        def check(window: Window, values: NDArray[Any]) -> None:
            with raster_output_errors(path):
                found = raster.read(window=RasterioWindow(window.col, window.row, window.width, window.height))
                if not np.array_equal(found, values):
                    raise RasterioError(
                        f"rows {window.row} to {window.row_stop - 1}, cols {window.col} to {window.col_stop - 1} "
                        "differ from what was written; check the disk and run the same command again"
                    )

        yield check


def raster_output_errors(path: Path) -> AbstractContextManager[None]:
    """Turn failed writes of rasters into `DiskFull` or `OutputError`; incomplete files stay for the caller.

    Errors of GDAL while a file is closed reach Python as its own classes, not as errors of rasterio.
    """
    return output_errors(path, RasterioError, CPLE_BaseError)
