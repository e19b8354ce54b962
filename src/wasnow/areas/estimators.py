"""Stratified estimators of means and ratios with their standard errors; strata need not be map classes.

    mean    Y = sum_h W_h ybar_h              V = sum_h W_h^2 (1 - f_h) s2_yh / n_h
    ratio   R = sum_h W_h ybar_h / X          V = X^-2 sum_h W_h^2 (1 - f_h) (s2_yh + R^2 s2_xh - 2 R s_xyh) / n_h
            X = sum_h W_h xbar_h

with sample variances of divisor n_h - 1 and f_h = n_h / N_h (Stehman 2014, equations 1 to 3 and 21 to 28).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from wasnow.areas.strata import FloatArray, IntArray, Strata


@dataclass(frozen=True)
class Estimate:
    """A number estimated from a sample.

    Attributes:
        value: the estimate; NaN where it is not defined (a ratio without a single point in its denominator).
        standard_error: its standard error; NaN where the value is.
        points: labelled points that the denominator rests on; all points for a mean.
    """

    value: float
    standard_error: float
    points: int


def stratified_mean(y: ArrayLike, indices: IntArray, strata: Strata) -> Estimate:
    """The mean of an indicator over the study area: overall accuracy, area shares, net change, map bias.

    Args:
        y: ``(n,)`` value of each point, usually 0 or 1.
        indices: ``(n,)`` position of the stratum of each point.
        strata: the design.

    Raises:
        InputError: a stratum has fewer than two points.
    """
    counts = strata.sampled(indices)
    values = np.asarray(y, np.float64)
    mean = _means(values, indices, counts)
    variance = _covariances(values, values, mean, mean, indices, counts)
    weights = strata.weights
    spread = weights**2 * _left(counts, strata) * variance / counts
    return Estimate(float(weights @ mean), float(np.sqrt(spread.sum())), int(counts.sum()))


def stratified_ratio(y: ArrayLike, x: ArrayLike, indices: IntArray, strata: Strata) -> Estimate:
    """The ratio of two means over the study area: user's and producer's accuracy.

    Args:
        y: ``(n,)`` indicator of the numerator.
        x: ``(n,)`` indicator of the denominator.
        indices: ``(n,)`` position of the stratum of each point.
        strata: the design.

    Raises:
        InputError: a stratum has fewer than two points.
    """
    counts = strata.sampled(indices)
    above, below = np.asarray(y, np.float64), np.asarray(x, np.float64)
    mean_y, mean_x = _means(above, indices, counts), _means(below, indices, counts)
    weights = strata.weights
    total = float(weights @ mean_x)
    points = int(np.count_nonzero(below))
    if total == 0:
        return Estimate(float("nan"), float("nan"), points)
    ratio = float(weights @ mean_y) / total
    residual = (
        _covariances(above, above, mean_y, mean_y, indices, counts)
        + ratio**2 * _covariances(below, below, mean_x, mean_x, indices, counts)
        - 2 * ratio * _covariances(above, below, mean_y, mean_x, indices, counts)
    )
    # Rounding can leave a tiny negative number where every point agrees.
    spread = weights**2 * _left(counts, strata) * np.maximum(residual, 0) / counts
    return Estimate(ratio, float(np.sqrt(spread.sum())) / total, points)


def clustered(values: ArrayLike, plots: ArrayLike, indices: IntArray) -> tuple[FloatArray, IntArray, float]:
    """Plot means of points that were sampled in clusters, so that the plot is the unit of every estimator.

    Args:
        values: ``(n,)`` value of each point.
        plots: ``(n,)`` identifier of the plot of each point.
        indices: ``(n,)`` position of the stratum of each point; equal within a plot.

    Returns:
        ``(m,)`` mean of each plot, ``(m,)`` its stratum, and the design effect: the variance of the mean with plots as
        units over the variance with points as if they were independent; NaN where the latter is 0.
    """
    every = np.asarray(values, np.float64)
    _, first, member = np.unique(np.asarray(plots), return_index=True, return_inverse=True)
    sizes = np.bincount(member)
    means = np.bincount(member, weights=every) / sizes
    units = indices[first]
    of_plots = means.var(ddof=1) / len(means) if len(means) > 1 else float("nan")
    of_points = every.var(ddof=1) / len(every) if len(every) > 1 else 0.0
    return means, units, float(of_plots / of_points) if of_points > 0 else float("nan")


def hits(y: ArrayLike, indices: IntArray, strata: Strata) -> IntArray:
    """Points per stratum for which a 0/1 indicator is 1, x_h."""
    chosen = indices[np.asarray(y, bool)]
    return np.bincount(chosen, minlength=len(strata)).astype(np.int64)


def _means(values: FloatArray, indices: IntArray, counts: IntArray) -> FloatArray:
    return np.bincount(indices, weights=values, minlength=len(counts)) / counts


def _covariances(
    first: FloatArray, second: FloatArray, mean: FloatArray, other: FloatArray, indices: IntArray, counts: IntArray
) -> FloatArray:
    products = (first - mean[indices]) * (second - other[indices])
    return np.bincount(indices, weights=products, minlength=len(counts)) / (counts - 1)


def _left(counts: IntArray, strata: Strata) -> FloatArray:
    """1 - f_h: the finite population correction, 1 where the size of a stratum is infinite."""
    return np.maximum(0.0, 1.0 - counts / np.asarray(strata.sizes, np.float64))
