"""Intervals: published numbers, and coverage of the nominal 95 % by simulation."""

import numpy as np
import pytest

from wasnow.areas import Strata, jeffreys, stratified_mean, unseen_bound, wald
from wasnow.areas.estimators import Estimate
from wasnow.areas.intervals import unseen_warnings

RARE = Strata(("change", "no change"), (10_000, 990_000))


def intervals(hits, counts, strata):
    y = np.concatenate([np.arange(n) < x for x, n in zip(hits, counts, strict=True)])
    indices = np.repeat(np.arange(len(counts)), counts)
    return wald(stratified_mean(y, indices, strata)), jeffreys(np.array(hits), np.array(counts), strata)


@pytest.mark.parametrize(
    ("hits", "expected_wald", "expected_jeffreys"),
    [((40, 0), (0.0069, 0.0091), (0.0072, 0.0179)), ((40, 1), (0.0041, 0.0198), (0.0082, 0.0263))],
)
def test_intervals_of_a_rare_class_equal_the_worked_example(hits, expected_wald, expected_jeffreys):
    by_wald, by_jeffreys = intervals(hits, (50, 250), RARE)
    assert (by_wald.low, by_wald.high) == pytest.approx(expected_wald, abs=1e-4)
    assert (by_jeffreys.low, by_jeffreys.high) == pytest.approx(expected_jeffreys, abs=2e-4)


def test_a_buffer_stratum_gives_the_interval_of_the_worked_example():
    strata = Strata(("change", "buffer", "rest"), (10_000, 40_000, 950_000))
    by_wald, by_jeffreys = intervals((80, 8, 0), (100, 200, 300), strata)
    assert (by_wald.low, by_wald.high) == pytest.approx((0.0083, 0.0109), abs=1e-4)
    assert (by_jeffreys.low, by_jeffreys.high) == pytest.approx((0.0088, 0.0177), abs=2e-4)


def test_a_stratum_without_a_hit_can_hide_this_share():
    assert unseen_bound(0.99, 250) == pytest.approx(0.0118, abs=5e-5)


def test_a_large_stratum_without_a_hit_is_warned_about_and_a_small_one_is_not():
    counts = np.array([50, 250])
    assert list(unseen_warnings({"water": np.array([0, 3])}, counts, RARE)) == []
    hits = {"water": np.array([40, 0]), "road": np.array([2, 0]), "land": np.array([8, 250])}
    (warning,) = unseen_warnings(hits, counts, RARE)
    assert "stratum 'no change' (99.0% of the study area): none of its 250 points is water or road." in warning
    assert "Up to 1.18% of the study area" in warning


def test_an_interval_never_reaches_below_zero():
    assert wald(Estimate(0.001, 0.01, 100)).low == 0
    assert wald(Estimate(-0.001, 0.01, 100), low=-1).low < 0


@pytest.mark.parametrize(
    ("counts", "jeffreys_at_least", "wald_at_most"),
    [((50, 250), 0.93, 0.60), ((100, 500), 0.93, 0.80)],
)
def test_for_rare_change_jeffreys_intervals_cover_the_truth_and_wald_intervals_do_not(
    counts, jeffreys_at_least, wald_at_most
):
    q, weights = np.array([0.8, 0.002]), RARE.weights
    truth = float(weights @ q)
    random = np.random.default_rng(3)
    covered_wald = covered_jeffreys = 0
    runs = 400
    sizes = np.array(counts)
    for run in range(runs):
        hits = random.binomial(sizes, q)
        p = hits / sizes
        error = np.sqrt((weights**2 * p * (1 - p) / (sizes - 1)).sum())
        interval = wald(Estimate(float(weights @ p), float(error), int(sizes.sum())))
        covered_wald += interval.low <= truth <= interval.high
        interval = jeffreys(hits, sizes, RARE, seed=run, draws=4000)
        covered_jeffreys += interval.low <= truth <= interval.high
    assert covered_jeffreys / runs >= jeffreys_at_least
    assert covered_wald / runs <= wald_at_most
