"""Sample sizes and allocations: published numbers and invariants."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasnow.areas import allocate, expected_margins, size_for_area, size_for_overall_accuracy
from wasnow.areas.allocation import ALLOCATIONS
from wasnow.errors import UsageError

BUFFERED = (0.01, 0.04, 0.95)
SHARES = (0.8, 0.04, 0.0004)


def test_the_size_for_an_overall_accuracy_is_that_of_olofsson_2014():
    assert size_for_overall_accuracy((0.02, 0.015, 0.32, 0.645), (0.7, 0.6, 0.9, 0.95), standard_error=0.01) == 641


@pytest.mark.parametrize(("margin", "points"), [(0.1, 8972), (0.2, 2243), (0.3, 997)])
def test_a_rare_class_without_a_buffer_stratum_needs_this_many_points(margin, points):
    assert size_for_area((0.01, 0.99), (0.8, 0.002), margin=margin) == points


@pytest.mark.parametrize(("margin", "points"), [(0.1, 3667), (0.2, 917), (0.3, 408)])
def test_a_buffer_stratum_saves_more_than_half_of_the_points(margin, points):
    assert size_for_area(BUFFERED, SHARES, margin=margin) == pytest.approx(points, abs=1)


@pytest.mark.parametrize(
    ("method", "counts", "margin"),
    [("proportional", (5, 20, 475), 0.52), ("equal", (167, 167, 166), 0.32), ("neyman", (65, 127, 308), 0.27)],
)
def test_five_hundred_points_are_divided_as_in_the_worked_example(method, counts, margin):
    found = allocate(500, BUFFERED, method=method, shares=SHARES, floor=2)
    assert np.abs(found - counts).max() <= 1
    assert expected_margins(found, BUFFERED, SHARES).margin == pytest.approx(margin, abs=0.006)


def test_a_floor_takes_points_from_the_larger_strata_and_keeps_the_total():
    found = allocate(500, BUFFERED, method="proportional", floor=30)
    assert found.tolist() == [30, 30, 440]


def test_a_stratum_never_gets_more_points_than_it_has_units():
    found = allocate(100, (0.5, 0.5), method="equal", available=(7, 1000))
    assert found.tolist() == [7, 93]


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=6), st.integers(20, 2000), st.sampled_from(ALLOCATIONS))
def test_every_allocation_keeps_the_total_and_gives_two_points_to_each_stratum(weights, total, method):
    shares = [0.5 / (index + 1) for index in range(len(weights))]
    found = allocate(total, weights, method=method, shares=shares)
    assert found.sum() == total
    assert found.min() >= 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"total": 3, "weights": (0.5, 0.5)}, "3 points for 2 strata; at least 4 are required"),
        ({"total": 30, "weights": (0.5, 0.5), "available": (10, 10)}, "30 points, but the strata have 20 units"),
        ({"total": 30, "weights": (0.5, 0.5), "method": "neyman"}, "neyman allocation needs the expected share"),
    ],
)
def test_an_impossible_allocation_is_rejected(arguments, message):
    with pytest.raises(UsageError, match=message):
        allocate(**arguments)
