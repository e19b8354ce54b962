"""Reliability, temperature scaling and the pixel sample."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, logsumexp, softmax

from wasnow.errors import InputError
from wasnow.evaluation.diagram import reliability_diagram
from wasnow.evaluation.reliability import Reliability, ece, max_probability, sigmoid
from wasnow.evaluation.temperature import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    PixelSample,
    at_bound,
    fit_temperature,
)
from wasnow.models.calibration import Calibration

PROBABILITIES = arrays.arrays(np.float64, st.integers(1, 60), elements=st.floats(0, 1))
TEMPERATURES = st.floats(0.1, 8)


def kept(**changes: float | None) -> Calibration:
    values = {"change_temperature": 2.0, "ece_change_before": 0.1, "ece_change_after": 0.01, **changes}
    return Calibration(**values, split="val", pairs=3)


# --- reliability


def test_ece_of_a_case_computed_by_hand():
    # Two bins: 0.2 and 0.4 (one right of two: |1 - 0.6| = 0.4), 0.6, 0.9 and 1.0 (two of three: |2 - 2.5| = 0.5).
    found = ece([0.2, 0.4, 0.6, 0.9, 1.0], [True, False, True, False, True], bins=2)
    assert found == pytest.approx((0.4 + 0.5) / 5)


def test_a_bin_includes_its_upper_end_and_the_first_bin_includes_zero():
    assert Reliability.of([0, 0.25, 0.5, 0.75, 1], np.ones(5), bins=4).count.tolist() == [2, 1, 1, 1]


@given(PROBABILITIES, st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_ece_equals_its_definition_bin_by_bin(confidence, bins, seed):
    correct = np.random.default_rng(seed).random(confidence.shape) < 0.5
    error = 0.0
    for m in range(bins):
        inside = [
            i for i, p in enumerate(confidence) if m < math.ceil(p * bins) <= m + 1 or (m == 0 and math.ceil(p) == 0)
        ]
        if inside:
            stated = sum(confidence[i] for i in inside) / len(inside)
            observed = sum(bool(correct[i]) for i in inside) / len(inside)
            error += len(inside) / len(confidence) * abs(observed - stated)
    assert ece(confidence, correct, bins) == pytest.approx(error, abs=1e-12)


@given(PROBABILITIES, PROBABILITIES)
def test_the_sum_over_images_equals_all_pixels_together(first, second):
    parts = [Reliability.of(one, one > 0.4) for one in (first, second)]
    whole = Reliability.of(np.concatenate([first, second]), np.concatenate([first, second]) > 0.4)
    both = parts[0] + parts[1]
    assert np.array_equal(both.count, whole.count)
    assert np.array_equal(both.met, whole.met)
    assert both.ece == pytest.approx(whole.ece, abs=1e-12)
    assert (Reliability.empty() + whole).ece == whole.ece


def test_without_pixels_ece_is_undefined_and_the_diagram_empty():
    assert math.isnan(Reliability.empty().ece)
    assert Reliability.empty().as_dict() == {"ece": None, "pixels": 0, "bins": 15, "diagram": []}
    assert "<svg" not in reliability_diagram({"none": Reliability.empty()}, stated="p", observed="q")


def test_confidences_outside_0_to_1_are_rejected():
    for confidence in ([0.5, 1.5], [-0.1, 0.5], [math.nan, 0.5]):
        with pytest.raises(InputError, match="must be probabilities"):
            ece(confidence, [True, True])
    with pytest.raises(InputError, match="3 confidences for 2 outcomes"):
        ece([0.1, 0.2, 0.3], [True, True])


@given(arrays.arrays(np.float64, (7, 5), elements=st.floats(-1e3, 1e3)), TEMPERATURES)
def test_probabilities_are_those_of_scipy(logits, temperature):
    assert max_probability(logits, temperature) == pytest.approx(
        softmax(logits / temperature, axis=1).max(1), rel=1e-12
    )
    assert sigmoid(logits, temperature) == pytest.approx(expit(logits / temperature), abs=1e-15)


# --- temperature


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), TEMPERATURES)
def test_the_temperature_of_two_outcomes_minimises_the_likelihood_by_direct_search(seed, temperature):
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 4, 400)
    happened = draw.random(400) < expit(logits / temperature)

    def loss(log_t: float) -> float:
        z = logits / math.exp(log_t)
        return -float(np.where(happened, log_expit(z), log_expit(-z)).mean())

    best = minimize_scalar(
        loss, bounds=(math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE)), method="bounded", options={"xatol": 1e-9}
    )
    found = fit_temperature(logits, happened)
    assert loss(math.log(found)) <= best.fun + 1e-12
    assert MIN_TEMPERATURE <= found <= MAX_TEMPERATURE


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), TEMPERATURES, st.integers(2, 9))
def test_the_temperature_of_many_classes_minimises_the_likelihood_by_direct_search(seed, temperature, classes):
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 3, (300, classes)).astype(np.float32)
    chances = softmax(logits / temperature, axis=1)
    named = (chances.cumsum(1) < draw.random((300, 1))).sum(1).clip(max=classes - 1)

    def loss(log_t: float) -> float:
        z = logits.astype(np.float64) / math.exp(log_t)
        return float((logsumexp(z, axis=1) - z[np.arange(300), named]).mean())

    best = minimize_scalar(
        loss, bounds=(math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE)), method="bounded", options={"xatol": 1e-9}
    )
    assert loss(math.log(fit_temperature(logits, named))) <= best.fun + 1e-12


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5, 6.0])
def test_a_known_temperature_is_recovered_and_lowers_ece(true):
    draw = np.random.default_rng(1)
    logits = draw.normal(0, 4, 100_000)
    happened = draw.random(logits.shape) < expit(logits / true)
    found = fit_temperature(logits, happened)
    assert found == pytest.approx(true, rel=0.03)
    assert ece(sigmoid(logits, found), happened) < 0.01
    if true != 1:
        assert ece(sigmoid(logits), happened) > 3 * ece(sigmoid(logits, found), happened)


def test_two_logits_and_their_difference_have_the_same_temperature():
    draw = np.random.default_rng(2)
    pair = draw.normal(0, 3, (500, 2))
    labels = draw.random(500) < expit((pair[:, 1] - pair[:, 0]) / 2)
    assert fit_temperature(pair, labels) == pytest.approx(fit_temperature(pair[:, 1] - pair[:, 0], labels), rel=1e-7)


def test_samples_without_and_with_only_errors_give_the_bounds():
    assert fit_temperature([3.0, -2.0, 5.0], [1, 0, 1]) == pytest.approx(MIN_TEMPERATURE)
    assert fit_temperature([3.0, -2.0, 5.0], [0, 1, 0]) == pytest.approx(MAX_TEMPERATURE)
    assert at_bound(fit_temperature([3.0, -2.0, 5.0], [1, 0, 1]))
    assert at_bound(fit_temperature([3.0, -2.0, 5.0], [0, 1, 0]))
    assert not at_bound(fit_temperature([3.0, -2.0, 5.0, 1.0], [1, 0, 1, 0]))


def test_equal_logits_give_temperature_one():
    assert fit_temperature(np.zeros(5), [0, 1, 1, 0, 1]) == 1
    assert fit_temperature(np.full((4, 1), 7.0), np.zeros(4)) == 1


def test_large_logits_do_not_overflow():
    found = fit_temperature(np.array([1e30, -1e30, 1e30, 5e29], np.float32), [1, 0, 0, 1])
    assert found == pytest.approx(MAX_TEMPERATURE)


@pytest.mark.parametrize(
    ("logits", "labels", "text"),
    [
        ([], [], "one label per row"),
        ([[1.0, 2.0]], [0, 1], "one label per row"),
        ([1.0, math.inf], [0, 1], "not finite"),
        ([[1.0, 2.0]], [2], "2 classes need 0 to 1"),
    ],
)
def test_invalid_logits_or_labels_are_rejected(logits, labels, text):
    with pytest.raises(InputError, match=text):
        fit_temperature(logits, labels)


# --- the sample


@given(st.lists(st.integers(0, 40), max_size=8), st.integers(1, 60))
def test_the_sample_keeps_all_pixels_up_to_its_capacity(lengths, capacity):
    held = PixelSample(capacity)
    at = 0
    for length in lengths:
        held.add(np.arange(at, at + length, dtype=np.float32), np.arange(at, at + length))
        at += length
        values, labels = held.sample
        assert len(values) == min(at, capacity)
        assert np.array_equal(values, labels)
        assert len(set(labels.tolist())) == len(labels)
    assert held.total == at


def test_early_and_late_pixels_are_kept_with_equal_probability():
    times = np.zeros(100)
    for seed in range(400):
        held = PixelSample(20, seed)
        for start, stop in ((0, 10), (10, 40), (40, 100)):
            held.add(np.zeros(stop - start), np.arange(start, stop))
        times[held.sample[1]] += 1
    # Each is kept 80 times of 400 in expectation, with a deviation of 8.
    for part in (slice(0, 10), slice(10, 40), slice(40, 100)):
        assert times[part].mean() == pytest.approx(80, abs=8)
    assert times.min() > 40


def test_the_same_pixels_give_the_same_sample():
    draws = []
    for _ in range(2):
        held = PixelSample(50, seed=3)
        for part in range(5):
            held.add(np.full((30, 4), part, np.float32), np.arange(30))
        draws.append(held.sample)
    assert np.array_equal(draws[0][0], draws[1][0])
    assert np.array_equal(draws[0][1], draws[1][1])
    assert draws[0][0].shape == (50, 4)


# --- thresholds


@given(st.floats(0.001, 0.999), TEMPERATURES, st.floats(-30, 30))
def test_a_converted_threshold_marks_the_same_pixels(own, temperature, logit):
    moved = kept(change_temperature=temperature).threshold(own)
    if abs(logit - math.log(own / (1 - own))) > 1e-6:
        assert (expit(logit) > own) == (expit(logit / temperature) > moved)


@given(st.floats(0.01, 0.99), TEMPERATURES)
def test_threshold_conversion_is_invertible(own, temperature):
    one = kept(change_temperature=temperature)
    moved = one.threshold(own)
    # Closer to 1, float64 has too few digits to invert.
    assume(moved < 1 - 1e-9)
    assert one.raw_threshold(moved) == pytest.approx(own, rel=1e-6)


def test_thresholds_of_0_half_and_1_and_a_temperature_of_one_are_unchanged():
    assert [kept().threshold(p) for p in (0, 0.5, 1)] == [0, 0.5, 1]
    assert kept(change_temperature=1.0).threshold(0.3) == 0.3


# --- the drawing


def test_the_diagram_has_one_dot_per_filled_bin_and_escapes_text():
    one = Reliability.of([0.1, 0.5, 0.9, 0.91], [False, True, True, True])
    svg = reliability_diagram({"<b>": one, "empty": Reliability.empty()}, stated="a & b", observed="c")
    assert svg.count("<circle") == 3
    assert "<b>ECE" in svg
    assert "&lt;b&gt;" in svg
    assert "a &amp; b" in svg
    assert "empty" not in svg
