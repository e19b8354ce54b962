"""The streaming sums against numpy's dense ones."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasnow.models.moments import LogHistogram, WeightedMoments


def cut(values, weights, cuts):
    """The same rows in pieces, some of them empty."""
    edges = [0, *sorted(cuts), len(values)]
    return [(values[a:b], weights[a:b]) for a, b in pairwise(edges)]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), offset=st.floats(-1e4, 1e4), cuts=st.lists(st.integers(0, 200), max_size=6))
def test_moments_do_not_depend_on_the_chunks_of_the_stream(seed, offset, cuts):
    rng = np.random.default_rng(seed)
    values, weights = rng.normal(offset, 1.0, (200, 3)), rng.random(200)
    moments = WeightedMoments(3)
    for piece, weight in cut(values, weights, cuts):
        moments.add(piece, weight)
    assert moments.count == 200
    assert moments.weight == pytest.approx(weights.sum())
    np.testing.assert_allclose(moments.mean, np.average(values, axis=0, weights=weights), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(values.T, aweights=weights, ddof=0), rtol=1e-9, atol=1e-10)


def test_small_variance_on_a_large_offset_keeps_its_digits():
    steps = np.arange(1000) % 2 * 2.0 - 1.0  # exactly: mean 0, variance 1
    moments = WeightedMoments(1)
    for piece in np.array_split(1e8 + steps[:, None], 7):
        moments.add(piece)
    assert moments.covariance[0, 0] == pytest.approx(1.0, rel=1e-9)


def test_missing_weights_count_as_one():
    values = np.random.default_rng(0).normal(size=(50, 2))
    plain, ones = WeightedMoments(2), WeightedMoments(2)
    plain.add(values)
    ones.add(values, np.ones(50))
    np.testing.assert_allclose(plain.covariance, ones.covariance, rtol=1e-13)


def test_a_chunk_with_zero_weight_is_counted_and_changes_no_moment():
    moments = WeightedMoments(2)
    moments.add(np.full((4, 2), 9.0), np.zeros(4))
    moments.add(np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert moments.count == 6
    assert moments.mean.tolist() == [2.0, 3.0]


def test_the_histogram_counts_every_value_once_in_a_near_bin():
    values = np.exp(np.random.default_rng(1).uniform(np.log(1e-3), np.log(1e6), 5000))
    histogram = LogHistogram()
    for piece in np.array_split(values, 3):
        histogram.add(piece)
    assert histogram.counts.sum() == 5000
    width = histogram.log_centers[1] - histogram.log_centers[0]
    seen = np.sort(np.repeat(histogram.log_centers, histogram.counts))
    assert np.abs(seen - np.sort(np.log(values))).max() <= width * 0.5000001


def test_values_outside_the_histogram_are_in_its_outermost_bins():
    histogram = LogHistogram()
    histogram.add(np.array([0.0, 1e-30, 1e30]))
    assert (histogram.counts[0], histogram.counts[-1]) == (2, 1)
