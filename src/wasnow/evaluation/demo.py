"""The pair of ``make demo``: two summers of a synthetic village, and how well a result agrees with their truth."""

from __future__ import annotations

import numpy as np
import rasterio

from wasnow.evaluation.metrics import Confusion, Scores
from wasnow.output.change_map import ChangeMap
from wasnow.synthetic import CLASSES, Acquisition, Scene, render_scene
from wasnow.vocabulary import Vocabulary


def render(seed: int, side: int) -> Scene:
    """A scene seen in two summers five years apart, under another sun: seasons would drown what really changed."""
    rng = np.random.default_rng(seed)
    acquisitions = Acquisition.drawn(rng, "summer", 2018), Acquisition.drawn(rng, "summer", 2023)
    return render_scene(seed, height=side, width=side, acquisitions=acquisitions)


def score(result: ChangeMap, scene: Scene) -> Scores:
    """How well a result agrees with the truth; pixels that were not processed do not count.

    From what to what is scored where the result answers with the classes of the truth, in their order; of all other
    results, change alone is.
    """
    with rasterio.open(result.change) as raster:
        codes = raster.read()
    if result.vocabulary.words == CLASSES:
        truth = Vocabulary(CLASSES).encode(scene.changed, scene.before_classes - 1, scene.after_classes - 1)
        return Confusion.of_classes((codes[0], codes[1]), (truth[0], truth[1]), len(CLASSES)).scores()
    predicted = np.where(codes[2] == result.vocabulary.not_processed, 255, codes[2] > 0).astype(np.uint8)
    return Confusion.of_change(predicted, scene.changed.astype(np.uint8)).scores()
