"""Random textures as smooth functions of world coordinates: the same ground has the same grain at both dates."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from wasnow.synthetic.shapes import Field


def smooth_noise(x: Field, y: Field, scale_m: float, gsd_m: float, seed: int) -> Field:
    """Return random numbers on a lattice of ``scale_m`` metres, interpolated by uniform cubic B-splines; ``(H, W)``.

    The lattice is fixed to the world and depends on the image size, not on its shift: both dates use the same numbers.

    Args:
        x: ``(W,)`` world coordinates of the columns, metres.
        y: ``(H,)`` world coordinates of the rows, metres.
        scale_m: size of the features, metres.
        gsd_m: pixel size, metres.
        seed: of the random numbers.
    """
    reach = 12  # nodes beyond the image: the largest shift, and four for the spline
    rows, cols = (math.ceil(len(axis) * gsd_m / scale_m) + 2 * reach for axis in (y, x))
    rng = np.random.Generator(np.random.PCG64([seed, round(scale_m * 1000)]))
    lattice = rng.standard_normal((rows, cols), dtype=np.float32)

    def taps(at: Field) -> Iterator[tuple[NDArray[np.intp], Field]]:
        place = at / np.float32(scale_m) + reach
        whole = np.floor(place)
        t = (place - whole).astype(np.float32)
        weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
        for step, weight in enumerate(weights):
            yield whole.astype(np.intp) - 1 + step, (weight / 6).astype(np.float32)

    down = np.zeros((len(y), cols), np.float32)
    for index, weight in taps(y):
        down += weight[:, None] * lattice[index]
    smooth = np.zeros((len(y), len(x)), np.float32)
    for index, weight in taps(x):
        smooth += weight[None] * down[:, index]
    # Over a cell the squared spline weights average 151/315 per axis: this restores unit standard deviation.
    smooth *= np.float32(315 / 151)
    return smooth


def streaks(rows: Field, pitch_m: float) -> Field:
    """Return a random brightness per drill pass, smooth across the passes; standard deviation about 1.

    Args:
        rows: metres across the passes, of any shape.
        pitch_m: distance between passes, metres.
    """
    table = np.random.Generator(np.random.PCG64(11)).standard_normal(512).astype(np.float32)
    place = rows / np.float32(pitch_m)
    whole = np.floor(place)
    t = (place - whole).astype(np.float32)
    t = t * t * (3 - 2 * t)
    index = whole.astype(np.int32)
    brightness: Field = table[index & 511] * (1 - t) + table[(index + 1) & 511] * t
    return brightness
