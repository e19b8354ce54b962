"""Tiles, spans and blocks: cores partition the raster for all sizes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasnow.errors import TilingError
from wasnow.raster.tiles import Tiling, Window, spans

LENGTHS = st.integers(1, 90)


@st.composite
def tilings(draw: st.DrawFn) -> dict[str, int]:
    stride = draw(st.sampled_from([1, 4, 8]))
    tile = stride * draw(st.integers(-(-6 // stride), 12))
    margin = draw(st.integers(0, max(0, (tile - 1) // 2)))
    return {"tile": tile, "margin": margin, "stride": stride}


@given(LENGTHS, LENGTHS, tilings(), st.integers(1, 120), st.booleans())
def test_every_pixel_lies_in_exactly_one_core(height, width, tiling, block_side, blend):
    plan = Tiling(height, width, **tiling, block_side=block_side, blend=blend)
    by_block = np.zeros((height, width), int)
    for block in plan:
        by_block[block.core.within(Window(0, 0, height, width))] += 1
    assert (by_block == 1).all()
    if not blend:
        by_tile = np.zeros((height, width), int)
        for block in plan:
            for tile in block.tiles:
                by_tile[tile.core.within(Window(0, 0, height, width))] += 1
        assert (by_tile == 1).all()


@given(LENGTHS, tilings())
def test_every_tile_has_its_margin_or_ends_at_the_edge_of_the_raster(length, tiling):
    for span in spans(length, **tiling):
        stop = span.read_start + span.length
        assert span.read_start == 0 or span.core_start - span.read_start >= tiling["margin"]
        assert stop >= length or stop - span.core_stop >= tiling["margin"]
        assert span.core_start < span.core_stop


@given(LENGTHS, tilings())
def test_tiles_extend_beyond_the_raster_only_if_it_is_smaller_than_a_tile(length, tiling):
    parts = spans(length, **tiling)
    assert all(span.length % tiling["stride"] == 0 for span in parts)
    if length >= tiling["tile"]:
        assert all(span.read_start >= 0 and span.read_start + span.length <= length for span in parts)
        assert len({span.length for span in parts}) == 1
        assert parts[0].length <= tiling["tile"]
    else:
        assert len(parts) == 1
        assert parts[0].length < length + tiling["stride"]


@given(LENGTHS, tilings())
def test_tiles_are_as_few_and_then_as_small_as_possible(length, tiling):
    tile, margin, stride = (tiling[name] for name in ("tile", "margin", "stride"))
    parts = spans(length, **tiling)
    if length <= tile:
        return
    smaller = parts[0].length - stride
    assert len(parts) * smaller - (len(parts) - 1) * 2 * margin < length
    fewer = len(parts) - 1
    assert fewer * tile - (fewer - 1) * 2 * margin < length


def test_a_raster_slightly_larger_than_a_tile_gets_two_smaller_tiles():
    assert [span.length for span in spans(1088, 1024, 64, 32)] == [608, 608]


@given(st.integers(1, 40), LENGTHS, tilings(), st.integers(15, 120))
def test_for_blending_a_block_has_every_tile_that_overlaps_its_core(height, width, tiling, block_side):
    plan = Tiling(height, width, **tiling, block_side=block_side, blend=True)
    every = {tile for block in plan for tile in block.tiles}
    for block in plan:
        assert set(block.tiles) == {tile for tile in every if tile.read.intersect(block.core).size}


def test_a_margin_of_half_the_tile_is_rejected_with_advice():
    with pytest.raises(TilingError, match="use a margin below 256"):
        spans(1000, 512, 256)


def test_a_tile_that_is_not_a_multiple_of_the_stride_is_rejected_with_the_nearest_multiple():
    with pytest.raises(TilingError, match="use --tile 512"):
        spans(1000, 500, 0, stride=32)


def test_the_tiling_of_a_continent_is_created_lazily():
    plan = Tiling(2_000_000, 3_000_000, tile=512, margin=64)
    assert plan[len(plan) - 1].core.row_stop == 2_000_000
    with pytest.raises(IndexError):
        plan[len(plan)]
