"""The pair of ``make demo``: two summers of a synthetic village, and how well a result agrees with their truth."""

from __future__ import annotations

import numpy as np
import rasterio

from wasnow.data.synthetic import Look, Scene, render_scene
from wasnow.metrics import BinaryScores, Confusion
from wasnow.results import ChangeMap


def render(seed: int, side: int) -> Scene:
    """A scene seen in two summers five years apart, under another sun: seasons would drown what really changed."""
    rng = np.random.default_rng(seed)
    looks = Look.drawn(rng, "summer", 2018), Look.drawn(rng, "summer", 2023)
    return render_scene(seed, height=side, width=side, looks=looks)


def score(result: ChangeMap, scene: Scene) -> BinaryScores:
    """Precision, recall, F1 and IoU of change per pixel; pixels that were not processed do not count."""
    with rasterio.open(result.change) as raster:
        transition = raster.read(3)
    predicted = np.where(transition == result.vocabulary.not_processed, 255, transition > 0).astype(np.uint8)
    return Confusion.of_change(predicted, scene.changed.astype(np.uint8)).scores().binary
