"""Canonical correlation analysis of two dates from their joint moments: the core of (IR-)MAD."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wasnow.models.difference import Difference
from wasnow.models.moments import Floats, WeightedMoments

NOISE_FLOOR = 1e-6
"""Smallest variance of a difference of two unit-variance variates: below 0.1 % of the signal there is only rounding."""

RANK_FLOOR = 1e-7
"""Eigenvectors of a date's correlation matrix below this share of the largest eigenvalue are left out as rounding."""

FLAT = 4.0 * float(np.finfo(np.float32).eps)
"""A band whose deviation is below this share of its mean is constant: float32 cannot resolve less."""


@dataclass(frozen=True, slots=True)
class Canonical:
    """Canonical correlations ``(p,)`` of two dates, descending, and the difference along their axes of unit noise."""

    correlations: Floats
    difference: Difference


def canonical(moments: WeightedMoments, n_before: int, *, ridge: float = 0.0, trimmed: float = 1.0) -> Canonical:
    """Return MAD variates of unit variance from joint moments (Nielsen 2007).

    Both dates are whitened on the eigenvectors of their correlation matrices; constant and repeated bands appear as
    directions without variance and are left out. The singular values between the whitened dates are the correlations.

    Args:
        moments: of the concatenated bands of both dates.
        n_before: how many bands belong to the first date.
        ridge: added to the diagonals of both correlation matrices (the paper's penalty with the identity matrix).
        trimmed: the share c(p) of the noise variance that the weights of ``moments`` left.
    """
    covariance, mean = moments.covariance, moments.mean
    whiten_before = _whitening(covariance[:n_before, :n_before], mean[:n_before], ridge)
    whiten_after = _whitening(covariance[n_before:, n_before:], mean[n_before:], ridge)
    components = min(whiten_before.shape[1], whiten_after.shape[1])
    cross = whiten_before.T @ covariance[:n_before, n_before:] @ whiten_after
    left, correlations, right = np.linalg.svd(cross, full_matrices=False)
    before_axes = whiten_before @ left[:, :components]
    after_axes = whiten_after @ right[:components].T
    joint = np.concatenate([before_axes, -after_axes])
    variance = np.einsum("ip,ij,jp->p", joint, covariance, joint) / trimmed  # 2 (1 - rho) / c, also with a ridge
    noise = np.sqrt(np.maximum(variance, NOISE_FLOOR))
    return Canonical(
        np.clip(correlations[:components], 0.0, 1.0),
        Difference.around(mean[:n_before], mean[n_before:], before_axes / noise, after_axes / noise),
    )


def _whitening(covariance: Floats, mean: Floats, ridge: float) -> Floats:
    """Return axes ``(C, rank)`` along which the bands are uncorrelated and of unit variance."""
    deviation = np.sqrt(np.diag(covariance))
    varies = deviation > FLAT * np.abs(mean)
    inverse = np.where(varies, 1.0 / np.where(varies, deviation, 1.0), 0.0)
    correlation = covariance * np.outer(inverse, inverse)
    values, vectors = np.linalg.eigh(correlation + ridge * np.diag(varies.astype(np.float64)))
    kept = values > RANK_FLOOR * max(float(values[-1]), 1e-300)
    axes: Floats = inverse[:, None] * vectors[:, kept] / np.sqrt(values[kept])
    return axes
