"""Find the masks of one raster and write them as a Cloud Optimized GeoTIFF on its own grid, one band per word."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

from wasnow.priors.cache import CachedMasker
from wasnow.priors.files import MaskFiles
from wasnow.priors.regions import Mask
from wasnow.priors.rgb_raster import RgbRaster
from wasnow.priors.tiles import MARGIN, TILE, MaskCounts, find_tiled
from wasnow.raster.gdal import gdal_settings
from wasnow.raster.grid import Grid
from wasnow.raster.tiles import Window
from wasnow.raster.write import BLOCK, raster_output_errors, to_cog
from wasnow.storage.atomic import atomic_path

_STEP = 1024
"""Side of the windows in which masks from files are read and mask pixels are counted."""


def write_raster_masks(
    path: Path,
    raster: RgbRaster,
    words: tuple[str, ...],
    masks: CachedMasker | tuple[MaskFiles, Path],
    *,
    tile: int = TILE,
    margin: int = MARGIN,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[NDArray[np.int64], MaskCounts]:
    """Write the masks of one raster.

    Args:
        path: of the GeoTIFF.
        raster: the image.
        words: class words, one band each.
        masks: a masker, or mask files with the file of this image.
        tile: side of the tiles of a masker, pixels.
        margin: overlap of the tiles to each side, pixels.
        progress: called with tiles or windows done, and their number.

    Returns:
        Mask pixels of each word, and counts of objects and valid pixels.

    Raises:
        InputError: the raster or the mask file cannot be used.
        OutputError, DiskFull: the file cannot be written.
    """
    grid = raster.source.grid
    plain = path.with_name(f".{path.name}.{os.getpid()}.plain.part")
    try:
        with gdal_settings(), raster_output_errors(path):
            with rasterio.open(plain, "w+", **_profile(grid, len(words))) as output:
                for band, word in enumerate(words, 1):
                    output.set_band_description(band, word)

                def write(window: Window, found: Mask) -> None:
                    at = _rasterio_window(window)
                    output.write(output.read(window=at) | found, window=at)

                if isinstance(masks, CachedMasker):
                    with raster.open() as read:
                        counts = find_tiled(
                            masks, read, write, grid.shape, words, tile=tile, margin=margin, progress=progress
                        )
                else:
                    counts = _copy_from_files(*masks, grid, write, progress)
                pixels = np.zeros(len(words), np.int64)
                for window in _windows(grid.shape):
                    pixels += output.read(window=_rasterio_window(window)).sum(axis=(1, 2), dtype=np.int64)
            with atomic_path(path, shared=True) as temporary:
                to_cog(plain, temporary, overviews="nearest", predictor=False)
    finally:
        plain.unlink(missing_ok=True)
    return pixels, counts


def _profile(grid: Grid, bands: int) -> dict[str, object]:
    profile: dict[str, object] = {
        "driver": "GTiff",
        "width": grid.width,
        "height": grid.height,
        "count": bands,
        "dtype": "uint8",
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "interleave": "band",
        "BIGTIFF": "IF_SAFER",
        # Blocks without any mask pixel take no space.
        "SPARSE_OK": True,
    }
    if grid.georeferenced:
        profile |= {"crs": grid.crs, "transform": grid.transform}
    return profile


def _copy_from_files(
    files: MaskFiles,
    path: Path,
    grid: Grid,
    write: Callable[[Window, Mask], None],
    progress: Callable[[int, int], None],
) -> MaskCounts:
    windows = list(_windows(grid.shape))
    for done, window in enumerate(windows):
        progress(done, len(windows))
        masks = files.on(path, grid, window)
        if masks.any():
            write(window, masks)
    progress(len(windows), len(windows))
    return MaskCounts((0,) * len(files.words), grid.height * grid.width)


def _windows(shape: tuple[int, int]) -> Iterator[Window]:
    for row in range(0, shape[0], _STEP):
        for col in range(0, shape[1], _STEP):
            yield Window(row, col, min(_STEP, shape[0] - row), min(_STEP, shape[1] - col))


def _rasterio_window(window: Window) -> RasterioWindow:
    return RasterioWindow(window.col, window.row, window.width, window.height)
