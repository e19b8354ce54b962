"""Small pictures of the two input rasters, for the report."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from wasnow.raster.grid import Grid
from wasnow.raster.pair import PlacedSource, read_around_damage
from wasnow.raster.radiometry import Stretch
from wasnow.raster.reader import RasterReader
from wasnow.raster.source import RasterSource
from wasnow.raster.tiles import Window

LONGEST_SIDE = 1200

Picture = tuple[NDArray[np.uint8], NDArray[np.bool_]]
"""``(h, w, 3)`` display colours, and ``(h, w)`` validity."""


def input_picture(source: RasterSource, grid: Grid, longest_side: int = LONGEST_SIDE) -> Picture:
    """Read one date over the extent of a grid, reduced and stretched for display.

    Args:
        source: the raster.
        grid: whose extent the picture has.
        longest_side: of the picture, in pixels.

    Returns:
        ``(h, w, 3)`` uint8 and ``(h, w)`` validity.
    """
    small = grid.scaled(max(1.0, max(grid.shape) / longest_side))
    full = PlacedSource.of(source, small)
    # Decimated a little too far and enlarged again: interpolation is several times faster than averaging.
    thinned = full.source.thinned(math.ceil(full.placement.scale - 0.01))
    placed = PlacedSource(thinned, PlacedSource.of(thinned, small).placement)
    with RasterReader(placed.source) as reader:
        values, _, _ = read_around_damage(reader, placed.placement, Window(0, 0, *small.shape))
    values = values[list(_display_bands(source))]
    valid = np.asarray(np.isfinite(values).all(axis=0))
    stretch = Stretch.of_samples(values[:, valid].T, display=source.is_display_rgb)
    shown = np.where(valid, stretch.apply(values), 0)
    return np.moveaxis(np.rint(shown * 255).astype(np.uint8), 0, -1), valid


def _display_bands(source: RasterSource) -> tuple[int, int, int]:
    """Return the positions of the bands shown as red, green, blue."""
    names = [name.casefold() for name in source.band_names]
    if all(color in names for color in ("red", "green", "blue")):
        return names.index("red"), names.index("green"), names.index("blue")
    return (0, 1, 2) if source.n_bands >= 3 else (0, 0, 0)
