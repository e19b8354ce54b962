"""Confidence intervals of stratified estimates, and what an interval misses where a class was never seen.

The usual interval, estimate +- z standard errors, fails for rare change: where a large stratum has no point of the
class, its contribution to the standard error is 0 and the true area lies outside. `jeffreys` combines one Beta
posterior per stratum instead and keeps its coverage (the simulation is in tests/areas/test_coverage.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from wasnow.areas.estimators import Estimate
from wasnow.areas.strata import FloatArray, IntArray, Strata

Z95 = 1.959963984540054
"""97.5 % quantile of the normal distribution."""

DRAWS = 100_000
LARGE_STRATUM = 0.1
"""Share of the study area from which a stratum without a single hit deserves a warning."""


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval."""

    low: float
    high: float


def wald(estimate: Estimate, *, low: float = 0.0, high: float = 1.0) -> Interval:
    """Estimate +- 1.96 standard errors, cut at the bounds of the quantity.

    Args:
        estimate: of a mean or a ratio.
        low: smallest possible value: 0 for shares, -1 for net change.
        high: largest possible value.
    """
    half = Z95 * estimate.standard_error
    return Interval(max(low, estimate.value - half), min(high, estimate.value + half))


def jeffreys(hits: IntArray, counts: IntArray, strata: Strata, *, seed: int = 0, draws: int = DRAWS) -> Interval:
    """Interval of a share from independent Beta(x_h + 1/2, n_h - x_h + 1/2) posteriors, combined by stratum weight.

    Args:
        hits: ``(H,)`` points of the class per stratum, x_h.
        counts: ``(H,)`` labelled points per stratum, n_h.
        strata: the design.
        seed: of the random draws.
        draws: number of draws; 100,000 give about three digits.
    """
    random = np.random.default_rng(seed)
    total: FloatArray = np.zeros(draws)
    for weight, hit, count in zip(strata.weights, hits, counts, strict=True):
        total += weight * random.beta(hit + 0.5, count - hit + 0.5, draws)
    low, high = np.quantile(total, (0.025, 0.975))
    return Interval(float(low), float(high))


def unseen_bound(weight: float, count: int) -> float:
    """Largest share of the study area that a class can have in a stratum without a hit, with 95 % confidence.

    Args:
        weight: share of the stratum, W_h.
        count: labelled points in it, none of the class.

    Returns:
        ``W_h (1 - 0.05^(1 / n_h))``.
    """
    return float(weight * (1.0 - 0.05 ** (1.0 / count)))


def unseen_warnings(hits: Mapping[str, IntArray], counts: IntArray, strata: Strata) -> Iterator[str]:
    """A sentence for each large stratum in which no point has some of the classes.

    Args:
        hits: per class or transition ``(H,)`` its points per stratum.
        counts: ``(H,)`` labelled points per stratum.
        strata: the design.
    """
    for place, (stratum, weight, count) in enumerate(zip(strata.names, strata.weights, counts, strict=True)):
        unseen = [name for name, each in hits.items() if each[place] == 0]
        if unseen and weight > LARGE_STRATUM:
            yield (
                f"stratum {stratum!r} ({weight:.1%} of the study area): none of its {count} points is "
                f"{' or '.join(unseen)}. Up to {unseen_bound(float(weight), int(count)):.2%} of the study area may be "
                "each of them unseen, and +- 1.96 standard errors do not cover that: use the Jeffreys interval"
            )
