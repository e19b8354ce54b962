"""The pair of ``wasnow demo``: a synthetic village in two summers, and scores of a result against its ground truth."""

from __future__ import annotations

import numpy as np
import rasterio

from wasnow.evaluation.metrics import Confusion, Scores
from wasnow.output.change_map import ChangeMap
from wasnow.synthetic import CLASSES, Acquisition, Scene, render_scene
from wasnow.vocabulary import Vocabulary


def render(seed: int, side: int) -> Scene:
    """Render a scene in two summers five years apart with different illumination, without seasonal change.

    Args:
        seed: random seed.
        side: rows and columns.
    """
    rng = np.random.default_rng(seed)
    acquisitions = Acquisition.drawn(rng, "summer", 2018), Acquisition.drawn(rng, "summer", 2023)
    return render_scene(seed, height=side, width=side, acquisitions=acquisitions)


def score(result: ChangeMap, scene: Scene) -> Scores:
    """Return the scores of a result against the ground truth, without pixels that were not processed.

    Classes are scored if the result has the classes of the ground truth in their order, otherwise change only.
    """
    with rasterio.open(result.change) as raster:
        codes = raster.read()
    if result.vocabulary.words == CLASSES:
        truth = Vocabulary(CLASSES).encode(scene.changed, scene.before_classes - 1, scene.after_classes - 1)
        return Confusion.of_classes((codes[0], codes[1]), (truth[0], truth[1]), len(CLASSES)).scores()
    predicted = np.where(codes[2] == result.vocabulary.not_processed, 255, codes[2] > 0).astype(np.uint8)
    return Confusion.of_change(predicted, scene.changed.astype(np.uint8)).scores()
