"""How many points to label, and how to divide them among the strata.

    overall accuracy   n = (sum W_h S_h)^2 / (SE^2 + sum W_h S_h^2 / N)      S_h = sqrt(U_h (1 - U_h))
    area of a class    n = z^2 (sum W_h S_h)^2 / (d A)^2                     S_h = sqrt(q_h (1 - q_h)), A = sum W_h q_h

Cochran 1977, equation 5.25; Olofsson et al. 2014, section 5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from wasnow.areas.intervals import Z95
from wasnow.areas.strata import FloatArray, IntArray
from wasnow.errors import UsageError

Allocation = Literal["proportional", "equal", "neyman", "balanced"]
ALLOCATIONS: tuple[Allocation, ...] = ("proportional", "equal", "neyman", "balanced")
MINIMUM = 2
"""Points per stratum below which no variance can be estimated."""


@dataclass(frozen=True)
class Margin:
    """The precision to expect of one class.

    Attributes:
        share: expected share of the study area, 0..1.
        margin: half width of the 95 % interval relative to the share; infinite where the share is 0.
        hits: expected number of points of the class.
    """

    share: float
    margin: float
    hits: float


def size_for_overall_accuracy(
    weights: Sequence[float], users_accuracies: Sequence[float], *, standard_error: float, units: float = math.inf
) -> int:
    """Points for a wanted standard error of the overall accuracy.

    Args:
        weights: share of each stratum, W_h.
        users_accuracies: expected user's accuracy of each stratum, U_h.
        standard_error: wanted, such as 0.01.
        units: sampling units in the study area, N.
    """
    spread = np.sqrt(np.multiply(users_accuracies, np.subtract(1.0, users_accuracies)))
    share = np.asarray(weights, np.float64)
    variance = standard_error**2 + float(share @ spread**2) / units
    return math.ceil(float(share @ spread) ** 2 / variance - 1e-9)


def size_for_area(weights: Sequence[float], shares: Sequence[float], *, margin: float) -> int:
    """Points for a wanted relative margin of the area of one class, divided by Neyman allocation.

    Args:
        weights: share of each stratum, W_h.
        shares: expected share of the class within each stratum, q_h.
        margin: wanted half width of the 95 % interval relative to the area, such as 0.2.
    """
    share = np.asarray(weights, np.float64)
    spread = np.sqrt(np.multiply(shares, np.subtract(1.0, shares)))
    area = share @ np.asarray(shares, np.float64)
    return math.ceil((1.96 * float(share @ spread) / (margin * float(area))) ** 2 - 1e-9)


def allocate(
    total: int,
    weights: Sequence[float],
    *,
    method: Allocation = "balanced",
    shares: Sequence[float] | None = None,
    floor: int = 30,
    available: Sequence[int] | None = None,
) -> IntArray:
    """Divide points among strata; the total is kept.

    Args:
        total: points in all.
        weights: share of each stratum, W_h.
        method: ``proportional`` to the weights, ``equal``, ``neyman`` (W_h S_h), or ``balanced``: the mean of equal and
            proportional.
        shares: expected share of the class of interest within each stratum, q_h; required by ``neyman``.
        floor: fewest points per stratum; points above it are taken from the larger strata. Lowered where ``total`` is
            too small for it, never below 2.
        available: sampling units per stratum; no stratum gets more.

    Raises:
        UsageError: too few points for two in each stratum, more points than units, or ``neyman`` without shares.
    """
    share = np.asarray(weights, np.float64)
    share = share / share.sum()
    strata = len(share)
    room = np.full(strata, total) if available is None else np.minimum(np.asarray(available, np.int64), total)
    if total < MINIMUM * strata:
        raise UsageError(f"{total} points for {strata} strata; at least {MINIMUM * strata} are required, 2 in each")
    if available is not None and sum(available) < total:
        raise UsageError(f"{total} points, but the strata have {sum(available)} units; ask for fewer points")
    least = np.minimum(max(MINIMUM, min(floor, total // strata)), room)
    wanted = total * _proportions(method, share, shares)
    return _rounded(wanted, least, room, total)


def expected_margins(counts: IntArray, weights: Sequence[float], shares: Sequence[float]) -> Margin:
    """The margin of one class to expect of a sample.

    Args:
        counts: ``(H,)`` points per stratum, n_h.
        weights: share of each stratum, W_h.
        shares: expected share of the class within each stratum, q_h.
    """
    share, q = np.asarray(weights, np.float64), np.asarray(shares, np.float64)
    area = float(share @ q)
    error = math.sqrt(float((share**2 * q * (1 - q) / counts).sum()))
    return Margin(area, Z95 * error / area if area > 0 else math.inf, float((counts * q).sum()))


def _proportions(method: Allocation, share: FloatArray, shares: Sequence[float] | None) -> FloatArray:
    equal = np.full(len(share), 1.0 / len(share))
    if method == "proportional":
        return share
    if method == "equal":
        return equal
    if method == "balanced":
        half_equal: FloatArray = (share + equal) / 2
        return half_equal
    if shares is None:
        raise UsageError("neyman allocation needs the expected share of the class in each stratum")
    product = share * np.sqrt(np.multiply(shares, np.subtract(1.0, shares)))
    proportions: FloatArray = product / product.sum() if product.sum() > 0 else equal
    return proportions


def _rounded(wanted: FloatArray, least: IntArray, most: IntArray, total: int) -> IntArray:
    """Whole numbers of the given total within bounds, as close to ``wanted`` as they allow."""
    counts = np.clip(np.floor(wanted).astype(np.int64), least, most)
    while (difference := total - int(counts.sum())) != 0:
        step = 1 if difference > 0 else -1
        open_ = counts < most if step > 0 else counts > least
        lack = np.where(open_, step * (wanted - counts), -np.inf)
        counts[int(np.argmax(lack))] += step
    return counts
