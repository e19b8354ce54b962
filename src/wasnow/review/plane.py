"""Show a raster grid in a web map without reprojecting it.

MapLibre draws in Web Mercator. A result may have any CRS or none, and reviewers should see the pixels as they are. So
the grid itself is laid over the square world of Mercator; at the deepest zoom, tiles have the pixels of the grid.

    pixel (col, row)  <->  unit square (x, y) = (col, row) / (256 * 2^zoom)  <->  longitude, latitude of Mercator
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wasnow.raster.tiles import Window

TILE = 256
"""Side of a tile in pixels."""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Plane:
    """The world of one grid.

    Attributes:
        height: rows of the grid.
        width: columns of the grid.
    """

    height: int
    width: int

    @property
    def deepest(self) -> int:
        """Zoom at which tiles have the resolution of the grid."""
        return max(0, math.ceil(math.log2(max(self.height, self.width) / TILE)))

    @property
    def side(self) -> int:
        """Pixels along one side of the world at the deepest zoom."""
        return TILE << self.deepest

    def factor(self, zoom: int) -> int:
        """Grid pixels per tile pixel, in length."""
        return 1 << (self.deepest - zoom)

    def window(self, zoom: int, x: int, y: int) -> Window | None:
        """Return the pixels of a tile in the grid reduced by `factor`, or None if it lies outside.

        Args:
            zoom: 0 to `deepest`.
            x: column of the tile.
            y: row of the tile.
        """
        if not (0 <= zoom <= self.deepest and 0 <= x < 2**zoom and 0 <= y < 2**zoom):
            return None
        factor = self.factor(zoom)
        rows, cols = math.ceil(self.height / factor), math.ceil(self.width / factor)
        row, col = y * TILE, x * TILE
        if row >= rows or col >= cols:
            return None
        return Window(row, col, min(TILE, rows - row), min(TILE, cols - col))

    def lnglat(self, pixels: FloatArray) -> FloatArray:
        """Return ``(n, 2)`` longitude and latitude of ``(n, 2)`` col, row."""
        x, y = pixels[:, 0] / self.side, pixels[:, 1] / self.side
        return np.column_stack([x * 360 - 180, np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * y))))])

    def pixels(self, lnglat: FloatArray) -> FloatArray:
        """Return ``(n, 2)`` col, row of ``(n, 2)`` longitude and latitude; the inverse of `lnglat`."""
        y = (1 - np.arcsinh(np.tan(np.radians(lnglat[:, 1]))) / np.pi) / 2
        return np.column_stack([(lnglat[:, 0] + 180) / 360, y]) * self.side
