"""Regions, unions of regions, boxes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from wasnow.priors.regions import Region, boxes_to_pixels, connected_regions, suppress_boxes, union_masks
from wasnow.raster.tiles import Window

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))


@given(MASKS)
def test_regions_of_a_mask_are_its_connected_components_and_their_union_is_the_mask(mask):
    found = connected_regions(mask)
    np.testing.assert_array_equal(union_masks([found], mask.shape)[0], mask)
    assert len(found) == ndimage.label(mask, np.ones((3, 3)))[1]
    assert sum(region.pixels for region in found) == mask.sum()


@given(MASKS)
def test_a_region_has_the_smallest_window_and_an_empty_mask_has_none(mask):
    region = Region.of(mask)
    if region is None:
        assert not mask.any()
        return
    assert region.mask[:, [0, -1]].any(axis=0).all()
    assert region.mask[[0, -1]].any(axis=1).all()
    np.testing.assert_array_equal(region.within(Window(0, 0, *mask.shape)), mask)


@given(MASKS, st.tuples(st.integers(-3, 9), st.integers(-3, 9), st.integers(1, 9), st.integers(1, 9)))
def test_clipping_keeps_exactly_the_pixels_in_the_window(mask, at):
    whole, window = Window(0, 0, *mask.shape), Window(*at)
    inside = np.zeros(mask.shape, bool)
    common = window.clip(*mask.shape)
    inside[common.row : common.row_stop, common.col : common.col_stop] = True
    region = Region.of(mask)
    clipped = region and region.clipped(window)
    expected = mask & inside
    np.testing.assert_array_equal(clipped.within(whole) if clipped else np.zeros_like(mask), expected)


def test_words_without_regions_give_empty_masks_and_no_words_give_no_masks():
    assert not union_masks([(), ()], (4, 5)).any()
    assert union_masks([], (4, 5)).shape == (0, 4, 5)


def test_relative_boxes_become_pixels_clipped_to_the_image():
    found = boxes_to_pixels(np.array([[0.5, 0.25, 0.5, 0.5], [1.0, 1.0, 0.4, 0.4]]), (100, 200))
    np.testing.assert_allclose(found, [[50, 0, 150, 50], [160, 80, 200, 100]], rtol=1e-6)


def test_of_boxes_around_the_same_object_the_one_with_the_best_score_is_kept():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9.5], [20, 20, 30, 30], [0, 0, 5, 5]], float)
    assert suppress_boxes(boxes, np.array([0.4, 0.9, 0.5, 0.3]), 0.8) == [1, 2, 3]


@given(arrays(np.float64, (6, 4), elements=st.floats(0, 10)), arrays(np.float64, 6, elements=st.floats(0, 1)))
def test_kept_boxes_do_not_overlap_by_more_than_allowed(raw, scores):
    boxes = np.concatenate([np.minimum(raw[:, :2], raw[:, 2:]), np.maximum(raw[:, :2], raw[:, 2:])], axis=1)
    kept = suppress_boxes(boxes, scores, 0.5)

    def overlap(one, other):
        common = np.prod(np.maximum(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0))
        union = np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - common
        return common / union if union else 0.0

    assert all(overlap(boxes[a], boxes[b]) <= 0.5 + 1e-9 for a in kept for b in kept if a != b)
    # Whatever went overlaps one that stayed and is at least as sure.
    for gone in set(range(6)) - set(kept):
        assert any(overlap(boxes[gone], boxes[a]) > 0.5 - 1e-9 and scores[a] >= scores[gone] for a in kept)
