"""Merge the predictions of tiles: centre crop, weighted blending, change of resolution.

    centre crop   each pixel comes from the one tile whose core contains it
    blending      each pixel is the mean of all tiles that contain it, weighted by the distance to the tile's edge

Pure numpy on probabilities: no files, no torch.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from wasnow.raster.tiles import Window

Array = NDArray[np.float32]


def edge_weights(height: int, width: int) -> Array:
    """Return ``(height, width)`` weights in (0, 1]: a triangle along each axis, 1 in the middle, never 0."""

    def triangle(length: int) -> Array:
        centre = (np.arange(length, dtype=np.float32) + 0.5) / length
        return np.asarray(1 - np.abs(2 * centre - 1), np.float32)

    return np.maximum(np.outer(triangle(height), triangle(width)), np.float32(1e-6)).astype(np.float32)


class Blender:
    """Weighted mean of tiles over one window; results are bit-identical only for a fixed order of `add` calls."""

    def __init__(self, channels: int, window: Window) -> None:
        self.window = window
        self._sum = np.zeros((channels, window.height, window.width), np.float32)
        self._weight = np.zeros((window.height, window.width), np.float32)

    def add(self, prediction: Array, tile: Window) -> None:
        """Add the ``(C, h, w)`` prediction of a tile at the window ``tile``."""
        common = self.window.intersect(tile)
        if common.size == 0:
            return
        weights = edge_weights(tile.height, tile.width)[common.within(tile)]
        rows, cols = common.within(self.window)
        tile_rows, tile_cols = common.within(tile)
        self._sum[:, rows, cols] += prediction[:, tile_rows, tile_cols] * weights
        self._weight[rows, cols] += weights

    def result(self) -> Array:
        """Return the weighted mean ``(C, h, w)``; 0 where no tile was added."""
        return np.asarray(self._sum / np.where(self._weight == 0, np.float32(1), self._weight), np.float32)


def scaled_range(start: int, stop: int, factor: float, length: int) -> tuple[int, int]:
    """Return the range of output pixels whose centres lie in the input range ``[start, stop)``.

    Adjacent input ranges give adjacent output ranges, so a partition stays a partition.

    Args:
        start: first input pixel.
        stop: one past the last input pixel.
        factor: output pixels per input pixel, in length.
        length: number of output pixels along the axis.
    """

    def edge(position: int) -> int:
        return min(length, max(0, math.ceil(position * factor - 0.5 - 1e-9)))

    return edge(start), edge(stop)


def scale_matrix(out_start: int, out_stop: int, in_start: int, in_stop: int, factor: float) -> Array:
    """Return linear interpolation as a matrix ``(out_stop - out_start, in_stop - in_start)`` with rows that sum to 1.

    The centre of output pixel ``i`` lies at ``(i + 0.5) / factor - 0.5`` of the input. If the output is coarser
    (``factor < 1``), the triangle widens to the output pixel, so no input pixel is skipped. Positions beyond the
    input are clamped.

    Args:
        out_start: first output pixel.
        out_stop: one past the last output pixel.
        in_start: first input pixel.
        in_stop: one past the last input pixel.
        factor: output pixels per input pixel, in length.
    """
    centres = (np.arange(out_start, out_stop) + 0.5) / factor - 0.5
    support = max(1.0, 1.0 / factor)
    positions = np.arange(in_start, in_stop)
    inside = np.clip(centres, in_start, in_stop - 1)
    weights = np.maximum(0.0, 1.0 - np.abs(inside[:, None] - positions[None, :]) / support)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def halo(factor: float) -> int:
    """Return how many input pixels `scale_matrix` needs beyond a core."""
    return 0 if factor == 1 else math.ceil(max(1.0, 1.0 / factor)) + 1
