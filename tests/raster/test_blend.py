"""Centre crop, blending and change of resolution preserve constants and partitions."""

from itertools import pairwise

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from wasnow.raster.blend import Blender, edge_weights, halo, scale_matrix, scaled_range
from wasnow.raster.tiles import Tiling, Window

FACTORS = st.floats(0.2, 6.0)


@given(st.integers(1, 60), st.integers(6, 40), st.data())
def test_blending_tiles_of_one_field_returns_the_field(length, tile, data):
    margin = data.draw(st.integers(0, (tile - 1) // 2))
    plan = Tiling(length, length + 7, tile=tile, margin=margin, block_side=30, blend=True)
    field = np.random.default_rng(0).random((2, length + tile, length + 7 + tile)).astype(np.float32)
    for block in plan:
        blender = Blender(2, block.core)
        for each in block.tiles:
            rows, cols = each.read.within(Window(0, 0, *field.shape[1:]))
            blender.add(field[:, rows, cols], each.read)
        np.testing.assert_allclose(
            blender.result(), field[(slice(None), *block.core.within(Window(0, 0, *field.shape[1:])))], rtol=1e-5
        )


def test_weights_decrease_towards_the_edge_and_stay_positive():
    weights = edge_weights(9, 6)
    assert weights.min() > 0
    assert weights[4, 3] == weights.max()
    np.testing.assert_allclose(weights, weights[::-1, ::-1], rtol=1e-5)


@given(FACTORS, st.integers(1, 200), st.lists(st.integers(0, 200), max_size=6))
def test_adjacent_cores_stay_adjacent_at_another_resolution(factor, length, cuts):
    edges = sorted({0, *[cut for cut in cuts if cut < length], length})
    result = max(1, round(length * factor))
    working = int(np.ceil(result / factor - 1e-9))
    edges[-1] = working
    edges = sorted({min(edge, working) for edge in edges})
    ranges = [scaled_range(a, b, factor, result) for a, b in pairwise(edges)]
    covered = [pixel for start, stop in ranges for pixel in range(start, stop)]
    assert covered == list(range(result))


@given(FACTORS, st.integers(1, 60), st.integers(0, 10))
def test_interpolation_weights_sum_to_one_and_preserve_a_ramp(factor, length, start):
    out = int(length * factor)
    if out < 1:
        return
    matrix = scale_matrix(0, out, start, start + length, factor)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-5)
    assert matrix.min() >= 0


def test_interpolation_equals_torch_bilinear():
    image = torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    for factor in (2, 3, 4):
        expected = torch.nn.functional.interpolate(image, scale_factor=factor, mode="bilinear")[0, 0].numpy()
        matrix = scale_matrix(0, 12 * factor, 0, 12, factor)
        np.testing.assert_allclose(matrix @ image[0, 0].numpy() @ matrix.T, expected, atol=1e-5)


def test_shrinking_equals_torch_antialiased_bilinear_inside():
    image = torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.interpolate(image, size=(8, 8), mode="bilinear", antialias=True)[0, 0].numpy()
    matrix = scale_matrix(0, 8, 0, 24, 1 / 3)
    np.testing.assert_allclose((matrix @ image[0, 0].numpy() @ matrix.T)[1:-1, 1:-1], expected[1:-1, 1:-1], atol=1e-5)


@given(FACTORS, st.integers(20, 60), st.data())
def test_the_halo_covers_the_reach_of_interpolation(factor, length, data):
    start = data.draw(st.integers(0, length - 1))
    stop = data.draw(st.integers(start + 1, length))
    result = max(1, int(length * factor))
    out = scaled_range(start, stop, factor, result)
    low, high = max(0, start - halo(factor)), min(length, stop + halo(factor))
    if out[0] >= out[1]:
        return
    whole = scale_matrix(*out, 0, length, factor)
    assert whole[:, :low].sum() + whole[:, high:].sum() < 1e-6
    np.testing.assert_allclose(scale_matrix(*out, low, high, factor), whole[:, low:high], atol=1e-6)
