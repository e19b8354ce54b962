"""Bootstrap intervals: against explicit resampling, and their coverage."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
from numpy.typing import NDArray

from wasnow.errors import UsageError
from wasnow.evaluation.metrics import Confusion, bootstrap, paired_bootstrap


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


# ------------------------------------------------------------------------------------------------- paired differences


def test_a_method_does_not_differ_from_itself():
    images = made_images(8)
    for one in paired_bootstrap([images], [images], n=50).values():
        assert one.estimate == one.low == one.high == 0
        assert one.p == 1


def test_paired_differences_equal_explicit_resampling():
    first, second = made_images(6, seed=1), made_images(6, seed=2)
    found = paired_bootstrap([first], [second], n=30, seed=3, level=0.8)
    draws = np.random.default_rng(3).multinomial(6, np.full(6, 1 / 6), size=30)

    def score(images: list[Confusion], row: NDArray[np.int64]) -> float:
        drawn = [one for one, times in zip(images, row, strict=True) for _ in range(times)]
        return Confusion.total(drawn).scores().headline()["binary.f1"]

    differences = np.array([score(second, row) - score(first, row) for row in draws])
    one = found["binary.f1"]
    assert (one.low, one.high) == pytest.approx(tuple(np.quantile(differences, [0.1, 0.9])))
    side = min((differences <= 0).sum(), (differences >= 0).sum())
    assert one.p == pytest.approx(min(1, 2 * (side + 1) / 31))


def test_pairing_finds_a_small_difference_that_separate_intervals_do_not_show():
    """Two methods on images of very different difficulty; the second one is right on a few more pixels of each."""
    rng = np.random.default_rng(0)
    first, second = [], []
    for right in rng.uniform(0.5, 0.95, 30):
        labels = rng.random(400) < 0.5
        wrong = rng.random(400) >= right
        better = wrong & (rng.random(400) < 0.9)
        first.append(Confusion.of_change(labels ^ wrong, labels))
        second.append(Confusion.of_change(labels ^ better, labels))
    one = paired_bootstrap([first], [second], n=400)["binary.oa"]
    assert one.low > 0
    assert one.p < 0.01
    assert bootstrap(first, n=400)["binary.oa"].high > bootstrap(second, n=400)["binary.oa"].low


def test_the_variation_of_seeds_widens_the_interval():
    images = made_images(12)
    good, bad = images, [Confusion.of_change(np.array([0, 1]), np.array([1, 0])) for _ in images]
    assert good[0].n_classes == 3
    reference = [Confusion.of_change(np.array([1, 0, 1]), np.array([1, 0, 0])) for _ in images]
    alike = paired_bootstrap([reference], [reference, reference], n=200)["binary.f1"]
    unlike = paired_bootstrap([reference], [reference, bad], n=200)["binary.f1"]
    assert unlike.high - unlike.low > alike.high - alike.low


def test_methods_without_classes_have_binary_differences_only():
    images = made_images(5)
    binary = [Confusion.of_change(np.array([1, 0, 1]), np.array([1, 0, 0])) for _ in images]
    assert {name.partition(".")[0] for name in paired_bootstrap([images], [binary], n=20)} == {"binary"}


def test_different_images_cannot_be_paired():
    with pytest.raises(UsageError, match="needs the same 2 or more images"):
        paired_bootstrap([made_images(4)], [made_images(5)])
    with pytest.raises(UsageError, match="needs the same 2 or more images"):
        paired_bootstrap([], [made_images(5)])


def test_counts_are_restored_from_json():
    for one in made_images(3):
        assert Confusion.from_dict(json.loads(json.dumps(one.as_dict()))) == one
