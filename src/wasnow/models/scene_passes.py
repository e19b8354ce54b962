"""Passes over the pixels of a scene: weighted moments, and the histogram of Z with the reading fitted to it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.special import gammainccinv

from wasnow.errors import InputError
from wasnow.models.contract import PixelStream
from wasnow.models.difference import CHUNK, Difference
from wasnow.models.moments import Floats, LogHistogram, WeightedMoments
from wasnow.models.probability import GammaMixture, Probability, Reading, SurvivalTable


def blocks(pixels: PixelStream) -> Iterator[tuple[Floats, Floats]]:
    """Yield one pass over the stream in float64 blocks of at most `CHUNK` pixels, whatever the chunks of the stream."""
    for before, after in pixels():
        for start in range(0, len(before), CHUNK):
            piece = slice(start, start + CHUNK)
            yield before[piece].astype(np.float64), after[piece].astype(np.float64)


def gather(
    pixels: PixelStream, difference: Difference | None = None, survival: SurvivalTable | None = None
) -> tuple[WeightedMoments, int]:
    """Return the joint moments of both dates from one pass, and the number of bands of the first date.

    Each pixel weighs 1, or the probability of a difference at least as large as its own where nothing changed.

    Args:
        pixels: the scene.
        difference: the axes of Z; None weighs every pixel 1.
        survival: P(chi² > Z); None weighs every pixel 1.

    Raises:
        InputError: there are no valid pixels.
    """
    moments: WeightedMoments | None = None
    n_before = 0
    for before, after in blocks(pixels):
        if moments is None:
            n_before = before.shape[1]
            moments = WeightedMoments(n_before + after.shape[1])
        weights = None if difference is None or survival is None else survival(difference.squared(before, after))
        moments.add(np.concatenate([before, after], axis=1), weights)
    if moments is None or moments.count == 0:
        raise InputError(
            "the two images have no valid pixels in common; check that they overlap, and their nodata values"
        )
    return moments, n_before


def read_scene(
    pixels: PixelStream, difference: Difference, dof: float, probability: Probability, false_alarm: float
) -> tuple[Reading, dict[str, Any]]:
    """Return the reading fitted to the histogram of Z from one last pass, and facts about it as JSON values.

    Args:
        pixels: the scene.
        difference: the fitted axes of Z.
        dof: degrees of freedom of Z where nothing changed; 0 for constant images.
        probability: see `IRMAD`.
        false_alarm: see `IRMAD`.
    """
    if dof == 0.0:
        # Two constant images differ by an affine change; one degree of freedom reads their Z = 0 as no change.
        return Reading(1.0, probability, false_alarm, None), {
            "z_threshold": None,
            "changed_share": 0.0,
            "mixture": None,
        }
    histogram = LogHistogram()
    for before, after in blocks(pixels):
        histogram.add(difference.squared(before, after))
    significant = 2.0 * float(gammainccinv(dof / 2.0, false_alarm))  # exceeded by this share of unchanged pixels
    mixture = GammaMixture.fit(histogram, significant)
    reading = Reading(dof, probability, false_alarm, mixture)
    over = histogram.log_centers > math.log(reading.z_threshold)
    return reading, {
        "z_threshold": reading.z_threshold,
        "changed_share": float(histogram.counts[over].sum() / histogram.counts.sum()),
        "mixture": mixture
        and {
            "changed_share": mixture.changed_share,
            "unchanged_shape_scale": list(mixture.unchanged),
            "changed_shape_scale": list(mixture.changed),
        },
    }
