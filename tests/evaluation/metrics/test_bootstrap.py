"""Bootstrap intervals: against explicit resampling, and their coverage."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from wasnow.evaluation.metrics import Confusion, bootstrap


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def made_images(n: int, seed: int = 0, side: int = 12) -> list[Confusion]:
    """Images of varying difficulty."""
    draw = np.random.default_rng(seed)
    images = []
    for _ in range(n):
        changed = draw.random(side * side) < draw.random() * 0.5
        labels = tuple(changed * draw.integers(1, 4, side * side) for _ in range(2))
        wrong = draw.random(side * side) < draw.random() * 0.4
        guess = tuple(np.where(wrong, draw.integers(0, 4, side * side), one) for one in labels)
        images.append(Confusion.of_classes(guess, labels, 3))  # type: ignore[arg-type]
    return images


def test_the_bootstrap_equals_explicit_resampling_of_images():
    images = made_images(7)
    weights = np.random.default_rng(11).multinomial(7, np.full(7, 1 / 7), size=40)
    drawn = [
        Confusion.total(one for one, times in zip(images, row, strict=True) for _ in range(times)).scores().headline()
        for row in weights
    ]
    intervals = bootstrap(images, n=40, seed=11, level=0.8)
    whole = Confusion.total(images).scores().headline()
    assert intervals.keys() == whole.keys()
    for name, interval in intervals.items():
        values = [one[name] for one in drawn if not math.isnan(one[name])]
        assert interval.estimate == pytest.approx(whole[name])
        assert interval.defined == len(values)
        assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(values, [0.1, 0.9])))


def test_the_bootstrap_repeats_itself_for_one_seed_and_differs_for_another():
    images = made_images(9)
    assert repr(bootstrap(images, n=50, seed=4)) == repr(bootstrap(images, n=50, seed=4))
    assert bootstrap(images, n=50, seed=4)["from_to.sek"] != bootstrap(images, n=50, seed=5)["from_to.sek"]


def test_intervals_of_identical_images_have_zero_width():
    for interval in bootstrap(made_images(1) * 5, n=20).values():
        assert interval.low == pytest.approx(interval.estimate) == pytest.approx(interval.high)


def test_intervals_cover_the_true_value_at_their_nominal_rate():
    # Accuracy of change over images of random difficulty: the true value is known.
    truth, hits = 0.8, 0
    draw = np.random.default_rng(5)
    for repeat in range(60):
        images = []
        for right in draw.uniform(0.6, 1.0, 40):
            labels = draw.random(50) < 0.5
            images.append(Confusion.of_change(labels ^ (draw.random(50) >= right), labels))
        interval = bootstrap(images, n=200, seed=repeat, level=0.9)["binary.oa"]
        hits += interval.low <= truth <= interval.high
    assert 46 <= hits <= 60  # binomial(60, 0.9) is outside this once in 500 times


def test_undefined_resamples_are_left_out_and_counted():
    nothing = Confusion.of_change(np.zeros(4, int), np.zeros(4, int))
    once = Confusion.of_change(np.array([1, 1, 0, 0]), np.array([1, 0, 0, 0]))
    intervals = bootstrap([nothing, nothing, once], n=200)
    assert 0 < intervals["binary.f1"].defined < 200
    assert intervals["binary.oa"].defined == 200
    assert intervals["from_to.sek"].defined == 0
    assert math.isnan(intervals["from_to.sek"].low)
    all_quiet = bootstrap([nothing, nothing], n=10)
    assert all_quiet["binary.oa"].low == 1
    assert all_quiet["binary.f1"].defined == 0
