"""Confidence intervals of scores, by resampling images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
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
    rng = np.random.default_rng(seed)
    images = len(confusions)
    weights = np.full(images, 1 / images)
    step = max(1, _RESAMPLE_CELLS // images)
    draws = (rng.multinomial(images, weights, size=min(step, n - start)) for start in range(0, n, step))
    resampled = _resampled(confusions, draws)
    estimates = _views(Confusion.total(confusions)).headline()
    return {name: _interval(float(estimates[name]), resampled[name], level) for name in estimates}


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference of a score between two methods on the same images.

    Attributes:
        estimate: score of the second method minus score of the first, each the mean over its seeds.
        low: lower bound.
        high: upper bound.
        p: two-sided p-value of no difference, 0..1: twice the smaller share of resamples on either side of 0.
    """

    estimate: float
    low: float
    high: float
    p: float


def paired_bootstrap(
    first: Sequence[Sequence[Confusion]],
    second: Sequence[Sequence[Confusion]],
    *,
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Difference]:
    """Return the differences of the headline scores of two methods, by resampling images and seeds.

    Each resample draws images with replacement, the same ones for both methods, and for each method as many of its
    seeds with replacement (hierarchical bootstrap); the score of a method is the mean over the drawn seeds. So the
    intervals include the variation of the test set and of the training.

    Args:
        first: for each seed of the first method, the counts of every image.
        second: the same for the second method, with the same images in the same order.
        n: number of resamples.
        seed: random seed of the resampling.
        level: coverage of the intervals, strictly between 0 and 1.

    Returns:
        Differences by dotted name, for scores that are defined for both methods on all images.

    Raises:
        UsageError: there are no seeds, fewer than 2 images, or different numbers of images.
    """
    counts = {len(one) for one in (*first, *second)}
    if not first or not second or len(counts) != 1 or min(counts) < 2:
        raise UsageError(
            f"a paired bootstrap needs the same 2 or more images for every seed, not {sorted(counts)}; score again"
        )
    images = counts.pop()
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(images, np.full(images, 1 / images), size=n)
    means, resampled = [], []
    for method in (first, second):
        scores = [_views(Confusion.total(one)).headline() for one in method]
        means.append({name: np.mean([float(one[name]) for one in scores]) for name in scores[0]})
        seeds = [_resampled(one, [draws]) for one in method]
        chosen = rng.integers(len(method), size=(n, len(method)))
        resampled.append(
            {
                name: np.stack([one[name] for one in seeds], 1)[np.arange(n)[:, None], chosen].mean(1)
                for name in scores[0]
            }
        )
    found = {}
    for name in means[0]:
        estimate = float(means[1][name] - means[0][name])
        differences = resampled[1][name] - resampled[0][name]
        defined = differences[~np.isnan(differences)]
        if math.isnan(estimate) or not len(defined):
            continue
        interval = _interval(estimate, defined, level)
        side = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
        found[name] = Difference(estimate, interval.low, interval.high, min(1.0, 2 * (side + 1) / (len(defined) + 1)))
    return found


def _resampled(confusions: Sequence[Confusion], draws: Iterable[NDArray[np.int64]]) -> dict[str, Floats]:
    """Return the headline scores ``(n,)`` of resampled images.

    Args:
        confusions: one per image.
        draws: chunks ``(m, images)``: how often each image is drawn in each resample.
    """
    whole = _views(Confusion.total(confusions))
    views = ("binary", "before", "after", "from_to")
    # Code 0 comes first in every view; other codes are kept only if they occur.
    occur = {view: _with_zero(np.flatnonzero(getattr(whole, view).rows + getattr(whole, view).cols)) for view in views}
    occur["before"] = occur["after"] = np.union1d(occur["before"], occur["after"])  # both dates are added
    occur["binary"] = np.arange(2)
    table = np.stack([_as_row(_views(one), occur) for one in confusions])
    sums = np.concatenate([one.astype(np.float64) @ table for one in draws])
    return _from_rows(sums, occur, whole.classes).headline()


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
