"""Confidence intervals of scores, by resampling images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wasnow.errors import UsageError
from wasnow.evaluation.metrics.counts import Confusion
from wasnow.evaluation.metrics.margins import Floats, Margins, Views

_RESAMPLE_CELLS = 1 << 22
"""Bootstrap weights in memory at a time: 32 MiB."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A score with its confidence interval.

    Attributes:
        estimate: the score of all images; NaN if undefined.
        low: lower bound; NaN if the score is undefined in every resample.
        high: upper bound.
        level: nominal coverage, 0..1.
        defined: resamples in which the score is defined; the bounds are quantiles over these.
    """

    estimate: float
    low: float
    high: float
    level: float
    defined: int


def bootstrap(
    confusions: Sequence[Confusion], *, n: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, Interval]:
    """Return confidence intervals of every headline score by drawing images with replacement (percentile bootstrap).

    The image is the sampling unit: neighbouring pixels are correlated, so intervals over pixels would be far too
    narrow. Each resample draws as many images as there are, adds their counts and scores the sum. The same input and
    seed give the same numbers: integer counts in float64 add exactly, in any order and with any number of threads.

    Memory: 8 (N + n) * 3 c bytes for N images and c codes that occur, and at most 32 MiB of weights at a time.

    Args:
        confusions: one per image, 2 or more.
        n: number of resamples.
        seed: random seed.
        level: coverage of the intervals, strictly between 0 and 1.

    Returns:
        Intervals by dotted name, as in `Scores.headline`.

    Raises:
        UsageError: fewer than 2 images, fewer than 1 resample, a level outside 0..1, or different numbers of classes.
    """
    if len(confusions) < 2:
        raise UsageError(f"{len(confusions)} image(s) cannot be resampled; give the counts of 2 images or more")
    if n < 1 or not 0 < level < 1:
        raise UsageError(f"bootstrap with n={n} and level={level} is invalid; use n >= 1 and 0 < level < 1")
    whole = _views(Confusion.total(confusions))
    views = ("binary", "before", "after", "from_to")
    # Code 0 comes first in every view; other codes are kept only if they occur.
    occur = {view: _with_zero(np.flatnonzero(getattr(whole, view).rows + getattr(whole, view).cols)) for view in views}
    occur["before"] = occur["after"] = np.union1d(occur["before"], occur["after"])  # both dates are added
    occur["binary"] = np.arange(2)
    table = np.stack([_as_row(_views(one), occur) for one in confusions])

    rng = np.random.default_rng(seed)
    images = len(confusions)
    weights = np.full(images, 1 / images)
    step = max(1, _RESAMPLE_CELLS // images)
    sums = np.concatenate(
        [
            rng.multinomial(images, weights, size=min(step, n - start)).astype(np.float64) @ table
            for start in range(0, n, step)
        ]
    )
    resampled = _from_rows(sums, occur, whole.classes).headline()
    estimates = whole.headline()
    return {name: _interval(float(estimates[name]), resampled[name], level) for name in estimates}


def _views(confusion: Confusion) -> Views:
    return Views.of(confusion.digits(), confusion.counts, confusion.n_classes)


def _with_zero(codes: NDArray[np.intp]) -> NDArray[np.intp]:
    return np.union1d(np.zeros(1, np.intp), codes)


def _as_row(counted: Views, occur: Mapping[str, NDArray[np.intp]]) -> Floats:
    """Return the margins of every view, restricted to the codes that ``occur``, concatenated."""
    margins = [(getattr(counted, view), codes) for view, codes in occur.items()]
    return np.concatenate([part[codes] for m, codes in margins for part in (m.rows, m.cols, m.diagonal)])


def _from_rows(table: Floats, occur: Mapping[str, NDArray[np.intp]], classes: bool) -> Views:
    """Invert `_as_row` for rows ``(n, ...)``. Codes that never occur do not affect any score."""
    lengths = [len(codes) for codes in occur.values() for _ in range(3)]
    parts = iter(np.split(table, np.cumsum(lengths)[:-1], axis=1))
    margins = {view: Margins(next(parts), next(parts), next(parts)) for view in occur}
    return Views(**margins, classes=classes)


def _interval(estimate: float, resampled: Floats, level: float) -> Interval:
    defined = resampled[~np.isnan(resampled)]
    if not len(defined):
        return Interval(estimate, math.nan, math.nan, level, 0)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), level, len(defined))
