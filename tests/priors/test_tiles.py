"""Tiled rasters: nothing is lost or counted twice, and objects across borders are merged."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from priors.stand_ins import Bright
from wasnow.errors import TilingError
from wasnow.priors.regions import Region
from wasnow.priors.tiles import ObjectMerger, find_tiled, tiles_of

TILINGS = st.sampled_from([(8, 1), (8, 3), (12, 2), (5, 2), (64, 4)])


def tiled(masker, rgb, words, tile, margin, valid=None):
    out = np.zeros((len(words), *rgb.shape[:2]), bool)
    valid = np.ones(rgb.shape[:2], bool) if valid is None else valid

    def read(window):
        at = slice(window.row, window.row_stop), slice(window.col, window.col_stop)
        return rgb[at], valid[at]

    def write(window, masks):
        out[:, window.row : window.row_stop, window.col : window.col_stop] |= masks

    return out, find_tiled(masker, read, write, rgb.shape[:2], words, tile=tile, margin=margin)


def picture(mask):
    return np.where(mask[..., None], 255, 0).astype(np.uint8).repeat(3, axis=2)


@given(arrays(np.bool_, st.tuples(st.integers(1, 30), st.integers(1, 30))), TILINGS)
def test_a_local_masker_finds_the_same_in_tiles_as_in_the_whole_raster(mask, tiling):
    out, counts = tiled(Bright(), picture(mask), ["red"], *tiling)
    np.testing.assert_array_equal(out[0], mask)
    assert counts.objects == (ndimage.label(mask, np.ones((3, 3)))[1],)
    assert counts.valid_pixels == mask.size


def test_an_object_through_all_tiles_is_counted_once():
    mask = np.zeros((40, 40), bool)
    for row in range(0, 40, 4):
        mask[row] = True
        mask[row : row + 5, -1 if row % 8 == 0 else 0] = True
    mask[-3:] = False
    out, counts = tiled(Bright(), picture(mask), ["red", "green"], 12, 3)
    assert counts.objects == (1, 1)
    np.testing.assert_array_equal(out, np.stack([mask, mask]))


class WholeSquares:
    """Finds squares that are at least half visible, clipped to the tile, as a detector does."""

    knows_objects = True

    def __init__(self, squares):
        self.squares = squares
        self.key = {"masker": "squares"}

    def find(self, rgb, words):
        # The picture carries its own place: two channels are row and column.
        top, left = int(rgb[0, 0, 0]), int(rgb[0, 0, 1])
        found = []
        for row, col, side in self.squares:
            mask = np.zeros(rgb.shape[:2], bool)
            mask[max(0, row - top) : max(0, row - top + side), max(0, col - left) : max(0, col - left + side)] = True
            if mask.sum() * 2 >= side * side:
                found.append(Region.of(mask, 0.9))
        return (tuple(found),) * len(words)

    def masks(self, rgb, words):
        raise NotImplementedError


@pytest.mark.parametrize("squares", [[(10, 10, 8)], [(0, 0, 6), (14, 13, 6), (26, 2, 10), (30, 30, 9)]])
def test_objects_on_borders_are_complete_and_counted_once(squares):
    rows, cols = np.mgrid[:48, :48]
    rgb = np.stack([rows, cols, rows], axis=2).astype(np.uint8)
    expected = np.zeros((48, 48), bool)
    for row, col, side in squares:
        expected[row : row + side, col : col + side] = True
    out, counts = tiled(WholeSquares(squares), rgb, ["square"], 24, 6)
    np.testing.assert_array_equal(out[0], expected)
    assert counts.objects == (len(squares),)


def test_two_objects_that_touch_are_not_merged():
    squares = [(8, 8, 6), (8, 14, 6)]
    rows, cols = np.mgrid[:32, :32]
    rgb = np.stack([rows, cols, rows], axis=2).astype(np.uint8)
    assert tiled(WholeSquares(squares), rgb, ["square"], 20, 6)[1].objects == (2,)


def test_an_object_in_the_margin_is_written_by_the_tile_of_its_core():
    first, second = list(tiles_of(10, 16, 10, 2))[:2]
    in_margin = np.zeros((10, 10), bool)
    in_margin[4, 9] = True
    joiner = ObjectMerger(1)
    assert first.core.col_stop == 8
    assert joiner.add(first, [[Region.of(in_margin)]]) == [[]]
    assert joiner.counts == [0]
    there = np.zeros((10, 10), bool)
    there[4, 9 - second.read.col] = True
    assert len(joiner.add(second, [[Region.of(there)]])[0]) == 1
    assert joiner.counts == [1]


def test_invalid_pixels_are_not_masked_and_empty_tiles_are_skipped():
    mask = np.ones((8, 24), bool)
    valid = np.zeros_like(mask)
    valid[:, :5] = True
    masker = Bright()
    out, counts = tiled(masker, picture(mask), ["red"], 8, 1, valid)
    np.testing.assert_array_equal(out[0], valid)
    assert counts.objects == (1,)
    assert counts.valid_pixels == 40
    assert len(masker.calls) == 1


def test_objects_are_dropped_from_memory_when_no_later_tile_can_show_them():
    rng = np.random.default_rng(0)
    joiner = ObjectMerger(1, share=0.0)
    most = 0
    for tile in tiles_of(400, 24, 12, 2):
        joiner.add(tile, [[Region.of(rng.random((tile.read.height, tile.read.width)) < 0.5)]])
        most = max(most, len(joiner._open))
    assert most <= 2 * 3


def test_a_margin_of_zero_is_rejected():
    with pytest.raises(TilingError, match="must be at least 1"):
        list(tiles_of(10, 10, 5, 0))
