"""From a tile's answer to the pixels that are kept: centre crop, weighted blending, change of resolution.

    centre crop   each pixel from the one tile whose core holds it
    blending      each pixel the mean of all tiles that see it, weighted by the distance to the tile's edge

Pure numpy on probabilities; nothing here opens a file or knows about torch.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from wasnow.raster.tiles import Window

Array = NDArray[np.float32]


def edge_weights(height: int, width: int) -> Array:
    """``(height, width)`` weights in (0, 1]: a triangle along each axis, 1 in the middle, never 0 at the edge."""

    def triangle(length: int) -> Array:
        centre = (np.arange(length, dtype=np.float32) + 0.5) / length
        return np.asarray(1 - np.abs(2 * centre - 1), np.float32)

    return np.maximum(np.outer(triangle(height), triangle(width)), np.float32(1e-6)).astype(np.float32)


class Blender:
    """Accumulates weighted answers over one window; the order of `add` calls must be fixed for bit-equal results."""

    def __init__(self, channels: int, window: Window) -> None:
        self.window = window
        self._sum = np.zeros((channels, window.height, window.width), np.float32)
        self._weight = np.zeros((window.height, window.width), np.float32)

    def add(self, answer: Array, seen: Window) -> None:
        """Add ``answer (C, h, w)`` of a tile that saw the window ``seen``."""
        common = self.window.intersect(seen)
        if common.size == 0:
            return
        weights = edge_weights(seen.height, seen.width)[common.within(seen)]
        rows, cols = common.within(self.window)
        there_rows, there_cols = common.within(seen)
        self._sum[:, rows, cols] += answer[:, there_rows, there_cols] * weights
        self._weight[rows, cols] += weights

    def result(self) -> Array:
        """The weighted mean ``(C, h, w)``; 0 where nothing was added."""
        return np.asarray(self._sum / np.where(self._weight == 0, np.float32(1), self._weight), np.float32)


def scaled_range(start: int, stop: int, factor: float, length: int) -> tuple[int, int]:
    """The pixels of a finer (or coarser) axis whose centres lie in ``[start, stop)`` of a coarser (or finer) one.

    ``factor`` is how many pixels of the result one input pixel spans. Neighbouring ranges of the input give
    neighbouring ranges of the result: a partition stays one. The last range reaches to ``length``.
    """

    def edge(position: int) -> int:
        return min(length, max(0, math.ceil(position * factor - 0.5 - 1e-9)))

    return edge(start), edge(stop)


def scale_matrix(out_start: int, out_stop: int, in_start: int, in_stop: int, factor: float) -> Array:
    """Linear interpolation as a matrix ``(out_stop - out_start, in_stop - in_start)``, rows summing to 1.

    Pixel centre ``i`` of the result lies at ``(i + 0.5) / factor - 0.5`` of the input. Where the result is coarser
    (``factor < 1``) the triangle widens to the result's pixel, so nothing is skipped. Beyond the input it is clamped.
    """
    centres = (np.arange(out_start, out_stop) + 0.5) / factor - 0.5
    support = max(1.0, 1.0 / factor)
    positions = np.arange(in_start, in_stop)
    inside = np.clip(centres, in_start, in_stop - 1)
    weights = np.maximum(0.0, 1.0 - np.abs(inside[:, None] - positions[None, :]) / support)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def halo(factor: float) -> int:
    """How many input pixels beyond a core `scale_matrix` reaches."""
    return 0 if factor == 1 else math.ceil(max(1.0, 1.0 / factor)) + 1
