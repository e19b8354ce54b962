"""Judge the pixel size of a pair that does not state it, from what the images show.

    windows of both images ─> 0..1 ─> model.log2_gsd ─> median ─> metres

Houses, cars and field patterns have sizes; a model that learned at known pixel sizes can tell them to within a factor
of about two. That is enough to avoid showing it houses many times as wide as any that it was trained on.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from wasnow.models.contract import PixelSizeEstimator
from wasnow.raster.radiometry import Stretch
from wasnow.raster.reader import RasterReader
from wasnow.raster.source import RasterSource
from wasnow.raster.tiles import Window

SIDE = 384
"""Side of the windows that are looked at, in pixels."""


def estimated_gsd(model: PixelSizeEstimator, sources: tuple[RasterSource, RasterSource]) -> float | None:
    """Return the pixel size in metres that the images seem to have; None where they show nothing.

    Raises:
        RasterUnreadable: a file is damaged where it is looked at.
    """
    guesses: list[float] = []
    for source in sources:
        with RasterReader(source) as reader:
            for window in _windows(*source.grid.shape):
                values, valid = reader.read(window)
                if valid.mean() > 0.5 and min(values.shape[1:]) >= 32:
                    guesses.append(_judged(model, values, valid, source))
    return float(2 ** np.median(guesses)) if guesses else None


def _windows(height: int, width: int) -> list[Window]:
    """Return the middle of the raster, and where it is large the middles of its quarters as well."""
    high, wide = min(SIDE, height), min(SIDE, width)
    centres = [(0.5, 0.5)]
    if height >= 2 * SIDE and width >= 2 * SIDE:
        centres += [(row, col) for row in (0.25, 0.75) for col in (0.25, 0.75)]
    return [Window(int(row * height - high / 2), int(col * width - wide / 2), high, wide) for row, col in centres]


def _judged(
    model: PixelSizeEstimator, values: NDArray[np.float32], valid: NDArray[np.bool_], source: RasterSource
) -> float:
    stretch = Stretch.of_samples(values[:, valid].T, display=source.is_display_rgb)
    shown = np.nan_to_num(stretch.apply(values), nan=0.5)
    with torch.inference_mode():
        return float(model.log2_gsd(torch.from_numpy(np.ascontiguousarray(shown))[None])[0])
