"""Tiles see real pixels and their cores partition the raster, whatever the sizes."""

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
def test_every_tile_sees_its_margin_or_the_edge_of_the_raster(length, tiling):
    for span in spans(length, **tiling):
        stop = span.read_start + span.length
        assert span.read_start == 0 or span.core_start - span.read_start >= tiling["margin"]
        assert stop >= length or stop - span.core_stop >= tiling["margin"]
        assert span.core_start < span.core_stop


@given(LENGTHS, tilings())
def test_tiles_reach_beyond_the_raster_only_where_it_is_smaller_than_a_tile(length, tiling):
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
def test_no_smaller_tiles_of_that_number_would_do_and_no_fewer_of_the_largest(length, tiling):
    tile, margin, stride = (tiling[name] for name in ("tile", "margin", "stride"))
    parts = spans(length, **tiling)
    if length <= tile:
        return
    smaller = parts[0].length - stride
    assert len(parts) * smaller - (len(parts) - 1) * 2 * margin < length
    fewer = len(parts) - 1
    assert fewer * tile - (fewer - 1) * 2 * margin < length


def test_a_raster_a_little_larger_than_a_tile_is_not_looked_at_four_times():
    assert [span.length for span in spans(1088, 1024, 64, 32)] == [608, 608]


@given(st.integers(1, 40), LENGTHS, tilings(), st.integers(15, 120))
def test_blending_gives_a_block_every_tile_that_sees_its_core(height, width, tiling, block_side):
    plan = Tiling(height, width, **tiling, block_side=block_side, blend=True)
    every = {tile for block in plan for tile in block.tiles}
    for block in plan:
        assert set(block.tiles) == {tile for tile in every if tile.read.intersect(block.core).size}


def test_a_margin_that_eats_the_tile_is_refused_with_advice():
    with pytest.raises(TilingError, match="use a margin below 256"):
        spans(1000, 512, 256)


def test_a_tile_that_does_not_fit_the_stride_is_refused_with_the_nearest_that_does():
    with pytest.raises(TilingError, match="use --tile 512"):
        spans(1000, 500, 0, stride=32)


def test_a_plan_for_a_continent_costs_nothing():
    plan = Tiling(2_000_000, 3_000_000, tile=512, margin=64)
    assert plan[len(plan) - 1].core.row_stop == 2_000_000
    with pytest.raises(IndexError):
        plan[len(plan)]
