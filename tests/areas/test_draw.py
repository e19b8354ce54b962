"""The draw depends on the seed and the map alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasnow.areas.draw import Draw, keys

SHAPE = (60, 70)
STRATA = np.random.default_rng(5).integers(-1, 3, SHAPE)


def drawn(wanted, seed=1, tile=16):
    draw = Draw(seed, np.array(wanted))
    for row in range(0, SHAPE[0], tile):
        for col in range(0, SHAPE[1], tile):
            part = STRATA[row : row + tile, col : col + tile]
            rows, cols = np.indices(part.shape)
            draw.add(part.ravel(), ((rows + row) * SHAPE[1] + cols + col).ravel())
    return draw


def test_the_keys_are_those_of_splitmix64():
    # First output of SplitMix64 for seed 0, from the reference implementation.
    from wasnow.areas.draw import _mixed

    assert int(_mixed(np.array([0], np.uint64))[0]) == 0xE220A8397B1DCDAF


@given(st.integers(1, 70), st.integers(0, 2**64 - 1))
def test_the_same_units_are_drawn_for_any_tiling(tile, seed):
    first, second = drawn((5, 9, 2), seed, tile), drawn((5, 9, 2), seed, 64)
    for mine, theirs in zip(first.drawn(), second.drawn(), strict=True):
        assert mine.tolist() == theirs.tolist()


def test_a_larger_sample_begins_with_the_smaller_one():
    for few, many in zip(drawn((5, 5, 5)).drawn(), drawn((20, 30, 40)).drawn(), strict=True):
        assert many[:5].tolist() == few.tolist()


def test_units_are_drawn_once_and_lie_in_their_stratum():
    draw = drawn((20, 20, 20))
    for stratum, indices in enumerate(draw.drawn()):
        assert len(set(indices.tolist())) == 20
        assert (STRATA.ravel()[indices] == stratum).all()
    assert draw.sizes.tolist() == [int((stratum == STRATA).sum()) for stratum in range(3)]


def test_a_stratum_with_few_units_is_drawn_whole():
    draw = Draw(1, np.array([10]))
    draw.add(np.zeros(4, np.int64), np.arange(4))
    assert sorted(draw.drawn()[0].tolist()) == [0, 1, 2, 3]


def test_every_unit_is_equally_likely():
    counts = np.zeros(50)
    for seed in range(400):
        draw = Draw(seed, np.array([10]))
        draw.add(np.zeros(50, np.int64), np.arange(50))
        counts[draw.drawn()[0]] += 1
    # 400 draws of 10 out of 50: 80 each, standard deviation 8.
    assert np.abs(counts - 80).max() < 36


def test_two_seeds_draw_different_units():
    assert keys(1, np.arange(100)).tolist() != keys(2, np.arange(100)).tolist()
    assert set(drawn((30, 30, 30), 1).drawn()[0].tolist()) != set(drawn((30, 30, 30), 2).drawn()[0].tolist())


@pytest.mark.parametrize("seed", [0, 2**64 - 1])
def test_any_64_bit_seed_is_accepted(seed):
    assert len(drawn((3, 3, 3), seed).drawn()[0]) == 3
