"""Moments and histograms of a stream of pixels, gathered chunk by chunk with constant memory.

chunk (N, D), weights (N,) ──> WeightedMoments.add ──> weight, mean (D,), covariance (D, D)
chunk (N,)                 ──> LogHistogram.add    ──> counts over logarithmic bins
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class WeightedMoments:
    """Weighted mean and covariance of a stream of vectors, in one pass and without cancellation.

    Each chunk is centred on its own mean, and its scatter is merged by the pairwise update of Chan, Golub and LeVeque
    (1983). Sums of raw squares are never formed, so an offset of 1e4 with a variance of 1 loses no digits.

    Attributes:
        count: number of vectors added, whatever their weight.
        weight: sum of all weights.
        mean: ``(D,)`` weighted mean; zero while ``weight`` is zero.
        scatter: ``(D, D)`` weighted sum of outer products of the deviations from ``mean``.
    """

    __slots__ = ("count", "mean", "scatter", "weight")

    def __init__(self, dimensions: int) -> None:
        self.count = 0
        self.weight = 0.0
        self.mean: Floats = np.zeros(dimensions)
        self.scatter: Floats = np.zeros((dimensions, dimensions))

    def add(self, values: Floats, weights: Floats | None = None) -> None:
        """Add a chunk.

        Args:
            values: ``(N, D)``, finite.
            weights: ``(N,)``, not negative; None weights every vector with 1.
        """
        weight = float(len(values) if weights is None else weights.sum())
        self.count += len(values)
        if weight <= 0.0:
            return
        mean: Floats = values.mean(axis=0) if weights is None else weights @ values / weight
        deviations = values - mean
        weighted = deviations if weights is None else deviations * weights[:, None]
        self._merge(weight, mean, weighted.T @ deviations)

    def _merge(self, weight: float, mean: Floats, scatter: Floats) -> None:
        total = self.weight + weight
        step = mean - self.mean
        self.scatter += scatter + np.outer(step, step) * (self.weight * weight / total)
        self.mean += step * (weight / total)
        self.weight = total

    @property
    def covariance(self) -> Floats:
        """``(D, D)`` weighted covariance, normalised by the sum of weights (``numpy.cov(..., ddof=0)``)."""
        return np.asarray((self.scatter + self.scatter.T) / (2.0 * self.weight), np.float64)  # exactly symmetric


class LogHistogram:
    """Counts of positive numbers in logarithmic bins; values outside the range are counted in the outermost bins.

    Attributes:
        log_centers: ``(BINS,)`` natural logarithms of the bin centres.
        counts: ``(BINS,)`` number of values in each bin.
    """

    LOG_LOW = float(np.log(1e-4))
    LOG_HIGH = float(np.log(1e7))
    BINS = 1024

    __slots__ = ("counts", "log_centers")

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(self.BINS, np.int64)
        width = (self.LOG_HIGH - self.LOG_LOW) / self.BINS
        self.log_centers = np.asarray(self.LOG_LOW + width * (np.arange(self.BINS) + 0.5), np.float64)

    def add(self, values: Floats) -> None:
        """Count a chunk of values ``(N,)``, not negative; zero falls into the lowest bin."""
        logs = np.log(np.maximum(values, np.exp(self.LOG_LOW)))
        bins = ((logs - self.LOG_LOW) * (self.BINS / (self.LOG_HIGH - self.LOG_LOW))).astype(np.int64)
        self.counts += np.bincount(np.clip(bins, 0, self.BINS - 1), minlength=self.BINS)
