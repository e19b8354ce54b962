"""Estimates equal the published examples and keep the invariants of the estimators."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasnow.areas import Strata, estimate, stratified_mean
from wasnow.areas.estimate import net_change
from wasnow.areas.estimators import clustered
from wasnow.errors import InputError

# Olofsson et al. 2014, section 4: map classes are the strata.
OLOFSSON = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
OLOFSSON_WEIGHTS = np.array([0.02, 0.015, 0.32, 0.645])
NAMES = ("deforestation", "forest gain", "stable forest", "stable non-forest")

# Stehman 2014, table 2: strata, map and reference of 40 points.
STEHMAN_STRATA = "A" * 10 + "B" * 10 + "C" * 10 + "D" * 10
STEHMAN_MAP = "A" * 7 + "B" * 3 + "A" + "B" * 9 + "BB" + "C" * 6 + "BB" + "D" * 10
STEHMAN_REFERENCE = "AAAAACBABC" + "ABBBBBAABB" + "CCCCCDDBBA" + "DDDDDDDCCB"


def olofsson():
    mapped, reference = [], []
    for row, name in enumerate(NAMES):
        for col, other in enumerate(NAMES):
            mapped += [name] * OLOFSSON[row, col]
            reference += [other] * OLOFSSON[row, col]
    # The paper leaves the finite population correction out.
    strata = Strata(NAMES, sizes=(np.inf,) * 4, areas_m2=tuple(OLOFSSON_WEIGHTS * 900_000 * 1e4))
    return estimate(reference=reference, mapped=mapped, stratum=mapped, strata=strata, labels=NAMES)


def stehman():
    strata = Strata(tuple("ABCD"), sizes=(40_000, 30_000, 20_000, 10_000))
    return estimate(
        reference=list(STEHMAN_REFERENCE), mapped=list(STEHMAN_MAP), stratum=list(STEHMAN_STRATA), strata=strata
    )


def test_areas_equal_those_of_olofsson_2014():
    found = olofsson()
    areas = [each.area_m2.value / 1e4 for each in found.classes]
    margins = [1.96 * each.area_m2.standard_error / 1e4 for each in found.classes]
    assert np.round(areas).tolist() == [21_158, 11_686, 285_770, 581_386]
    assert np.round(margins).tolist() == [6_158, 3_756, 15_510, 16_282]


def test_accuracies_equal_those_of_olofsson_2014():
    found = olofsson()
    assert round(found.overall_accuracy.value, 3) == 0.947
    assert round(1.96 * found.overall_accuracy.standard_error, 3) == 0.018
    assert [round(each.users_accuracy.value, 2) for each in found.classes] == [0.88, 0.73, 0.93, 0.96]
    assert [round(each.producers_accuracy.value, 2) for each in found.classes] == [0.75, 0.85, 0.93, 0.96]
    assert found.counts.tolist() == OLOFSSON.tolist()


def test_area_shares_equal_those_of_stehman_2014_where_strata_are_not_map_classes():
    found = stehman()
    assert [round(each.share.value, 2) for each in found.classes] == [0.35, 0.34, 0.20, 0.11]
    errors = [round(each.share.standard_error, 5) for each in found.classes]
    assert errors == [0.08225, 0.07585, 0.06428, 0.03072]


def test_accuracies_equal_those_of_stehman_2014():
    found = stehman()
    assert round(found.overall_accuracy.value, 2) == 0.63
    assert round(found.overall_accuracy.standard_error, 5) == 0.08464
    users, producers = zip(*((each.users_accuracy, each.producers_accuracy) for each in found.classes), strict=True)
    assert [round(each.value, 4) for each in users] == [0.7419, 0.5745, 0.5, 0.7]
    assert [round(each.standard_error, 5) for each in users] == [0.16454, 0.12478, 0.21511, 0.15268]
    assert [round(each.value, 4) for each in producers] == [0.6571, 0.7941, 0.3, 0.6364]
    assert [round(each.standard_error, 5) for each in producers] == [0.14771, 0.11655, 0.15041, 0.16228]


def test_a_cell_of_the_error_matrix_equals_that_of_stehman_2014():
    found = stehman()
    assert found.matrix[1, 2] == pytest.approx(0.08)
    strata = found.strata
    cell = [a == "B" and b == "C" for a, b in zip(STEHMAN_MAP, STEHMAN_REFERENCE, strict=True)]
    result = stratified_mean(cell, strata.indices(list(STEHMAN_STRATA)), strata)
    assert (round(result.value, 2), round(result.standard_error, 5)) == (0.08, 0.04807)


@st.composite
def samples(draw):
    strata = draw(st.integers(1, 4))
    sizes = draw(st.lists(st.integers(50, 10_000), min_size=strata, max_size=strata))
    counts = draw(st.lists(st.integers(2, 12), min_size=strata, max_size=strata))
    stratum = np.repeat(np.arange(strata), counts)
    label = st.sampled_from(["a", "b", "c"])
    n = len(stratum)
    reference = draw(st.lists(label, min_size=n, max_size=n))
    mapped = draw(st.lists(label, min_size=n, max_size=n))
    names = tuple(f"s{i}" for i in range(strata))
    return reference, mapped, stratum, Strata(names, tuple(map(float, sizes)), tuple(float(size) * 3 for size in sizes))


@settings(max_examples=15, deadline=None)
@given(samples())
def test_areas_of_all_classes_sum_to_the_total(sample):
    reference, mapped, stratum, strata = sample
    found = estimate(reference=reference, mapped=mapped, stratum=stratum, strata=strata)
    assert sum(each.area_m2.value for each in found.classes) == pytest.approx(strata.total_area_m2)
    assert found.matrix.sum() == pytest.approx(1)
    assert np.trace(found.matrix) == pytest.approx(found.overall_accuracy.value)


@settings(max_examples=10, deadline=None)
@given(samples())
def test_swapping_two_labels_swaps_their_rows_and_changes_nothing_else(sample):
    reference, mapped, stratum, strata = sample
    swap = {"a": "b", "b": "a", "c": "c"}
    labels = ("a", "b", "c")
    found = estimate(reference=reference, mapped=mapped, stratum=stratum, strata=strata, labels=labels)
    other = estimate(
        reference=[swap[each] for each in reference],
        mapped=[swap[each] for each in mapped],
        stratum=stratum,
        strata=strata,
        labels=labels,
    )
    for name in labels:
        mine, theirs = found[name], other[swap[name]]
        assert (mine.share, mine.jeffreys, mine.mapped_points) == (theirs.share, theirs.jeffreys, theirs.mapped_points)


@settings(max_examples=10, deadline=None)
@given(samples())
def test_a_perfect_map_has_accuracy_one_without_error_and_a_jeffreys_interval_that_is_not_empty(sample):
    reference, _, stratum, strata = sample
    found = estimate(reference=reference, mapped=reference, stratum=stratum, strata=strata)
    assert found.overall_accuracy.value == pytest.approx(1)
    assert found.overall_accuracy.standard_error == pytest.approx(0, abs=1e-12)
    assert all(each.jeffreys.low < each.jeffreys.high for each in found.classes)


def test_doubling_areas_doubles_area_estimates_and_leaves_shares_alone():
    reference, mapped, stratum = list("aabbab"), list("aabbbb"), [0, 0, 0, 1, 1, 1]
    small = Strata(("x", "y"), (100, 200), (1e4, 2e4))
    large = Strata(("x", "y"), (100, 200), (2e4, 4e4))
    first, second = (
        estimate(reference=reference, mapped=mapped, stratum=stratum, strata=each) for each in (small, large)
    )
    assert first["a"].share == second["a"].share
    assert second["a"].area_m2.value == pytest.approx(2 * first["a"].area_m2.value)
    assert second["a"].area_m2.standard_error == pytest.approx(2 * first["a"].area_m2.standard_error)


def test_weights_follow_ground_area_where_pixels_differ_in_size():
    strata = Strata(("tropics", "arctic"), (100, 100), (3e6, 1e6))
    assert strata.weights.tolist() == [0.75, 0.25]


def test_the_standard_error_of_a_union_is_not_the_sum_of_standard_errors():
    found = stehman()
    union = [each in "AB" for each in STEHMAN_REFERENCE]
    strata = found.strata
    together = stratified_mean(union, strata.indices(list(STEHMAN_STRATA)), strata)
    assert together.value == pytest.approx(found["A"].share.value + found["B"].share.value)
    assert together.standard_error < found["A"].share.standard_error + found["B"].share.standard_error


def test_net_change_is_the_difference_of_the_shares_at_both_dates():
    strata = Strata(("x", "y"), (100, 300))
    before, after, stratum = ["w", "w", "l", "w"], ["w", "l", "l", "l"], ["x", "x", "y", "y"]
    change = net_change(before=before, after=after, name="w", stratum=stratum, strata=strata)
    places = strata.indices(stratum)
    was = stratified_mean([each == "w" for each in before], places, strata).value
    now = stratified_mean([each == "w" for each in after], places, strata).value
    assert change.value == pytest.approx(now - was)
    assert change.value < 0


def test_points_without_a_label_are_left_out_and_give_two_bounds():
    strata = Strata(("x", "y"), (100, 100))
    reference = ["a", "a", "b", "", "b", "b", "b", "b"]
    mapped = ["a", "a", "a", "a", "b", "b", "b", "b"]
    found = estimate(reference=reference, mapped=mapped, stratum=[0] * 4 + [1] * 4, strata=strata)
    assert found.sampled == (3, 4)
    assert found.unlabelled == 1
    assert "1 of 8 points have no reference label" in found.warnings[-1]
    bounds = dict(zip(found.labels, found.bounds, strict=True))
    assert (bounds["a"].low, bounds["a"].high) == (0.25, 0.375)


def test_plots_of_several_points_count_as_units_and_report_their_design_effect():
    values = [1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0]
    plots = np.repeat([1, 2, 3, 4], 3)
    means, units, effect = clustered(values, plots, np.zeros(12, np.int64))
    assert means.tolist() == [1, 0, 1, 0]
    assert units.tolist() == [0, 0, 0, 0]
    assert effect > 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stratum": ["x", "x", "y", "z"]}, "points are in stratum 'z', which the design does not have: x, y"),
        ({"stratum": ["x", "x", "x", "y"]}, "stratum 'y' has 1 labelled point; at least 2 are required"),
        ({"mapped": ["a", "a", "b"]}, "4 reference labels, 3 map labels and 4 strata"),
        ({"labels": ("a", "c")}, "points have the label 'b', which is not among a, c"),
    ],
)
def test_a_sample_that_does_not_fit_its_design_is_rejected_in_one_line(change, message):
    sample = {
        "reference": ["a", "b", "a", "b"],
        "mapped": ["a", "a", "b", "b"],
        "stratum": ["x", "x", "y", "y"],
        "strata": Strata(("x", "y"), (10, 10)),
    }
    with pytest.raises(InputError, match=message):
        estimate(**(sample | change))


@pytest.mark.parametrize(
    ("names", "sizes", "message"),
    [
        ((), (), "no strata"),
        (("x", "x"), (1, 2), "stratum 'x' is listed twice"),
        (("x", "y"), (1,), "2 strata but 1 sizes"),
        (("x", "y"), (1, 0), "stratum 'y' has sizes 0; it must be greater than 0"),
    ],
)
def test_invalid_strata_are_rejected(names, sizes, message):
    with pytest.raises(InputError, match=message):
        Strata(names, sizes)
