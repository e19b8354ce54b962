"""Grids, with rasterio and PROJ as oracles."""

import numpy as np
import pytest
import rasterio.transform
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.warp import transform as warp_transform

from wasnow.raster.grid import Grid
from wasnow.raster.tiles import Window

UTM = CRS.from_epsg(32632)


def rotated(angle: float, size: float = 2.0, south_up: bool = False) -> Affine:
    return (
        Affine.translation(500_000, 5_500_000)
        @ Affine.rotation(angle)
        @ Affine.scale(size, size if south_up else -size)
    )


TRANSFORMS = st.builds(rotated, st.floats(-180, 180), st.floats(0.1, 50), st.booleans())


@given(TRANSFORMS, st.integers(0, 300), st.integers(0, 300))
def test_pixel_to_crs_coordinates_match_rasterio(transform, row, col):
    grid = Grid(UTM, transform, 400, 400)
    xs, ys = grid.to_world(np.array([col + 0.5]), np.array([row + 0.5]))
    expected = rasterio.transform.xy(transform, row, col)
    np.testing.assert_allclose((xs[0], ys[0]), expected, rtol=1e-9)
    back = grid.to_pixels(xs, ys)
    np.testing.assert_allclose((back[0][0], back[1][0]), (col + 0.5, row + 0.5), atol=1e-5)


@given(TRANSFORMS, st.integers(0, 200), st.integers(0, 200))
def test_a_crop_keeps_its_coordinates(transform, row, col):
    grid = Grid(UTM, transform, 400, 400)
    cropped = grid.crop(Window(row, col, 10, 20))
    assert cropped.shape == (10, 20)
    assert cropped.integer_offset_in(grid) == (row, col)


@given(TRANSFORMS, st.floats(0.001, 0.499), st.sampled_from(["rows", "cols"]))
def test_a_sub_pixel_offset_is_not_ignored(transform, offset, axis):
    grid = Grid(UTM, transform, 400, 400)
    shift = Affine.translation(0, offset + 0.001) if axis == "rows" else Affine.translation(offset + 0.001, 0)
    assert not grid.equals(Grid(UTM, transform @ shift, 400, 400))


def test_pixel_sizes_that_differ_slightly_make_another_grid():
    grid = Grid(UTM, Affine(2, 0, 0, 0, -2, 0), 4000, 4000)
    assert not grid.equals(Grid(UTM, Affine(2.00001, 0, 0, 0, -2, 0), 4000, 4000))


@pytest.mark.parametrize(
    ("crs", "lat", "expected"),
    [("EPSG:4326", 60.0, 0.7085), ("EPSG:3857", 60.0, 0.5)],
)
def test_the_ground_sampling_distance_is_measured_on_the_ellipsoid(crs, lat, expected):
    """At 60 degrees north a degree of longitude, and a Web Mercator metre, are half as long as at the equator."""
    if crs == "EPSG:4326":
        size = 1 / 111_320
        grid = Grid(CRS.from_string(crs), Affine(size, 0, 10, 0, -size, lat), 2, 2)
    else:
        xs, ys = warp_transform("EPSG:4326", crs, [10], [lat])
        grid = Grid(CRS.from_string(crs), Affine(1, 0, xs[0], 0, -1, ys[0]), 2, 2)
    assert grid.gsd_m == pytest.approx(expected, rel=0.01)


def test_a_scaled_grid_has_the_same_extent():
    grid = Grid(UTM, rotated(30), 401, 203)
    scaled = grid.scaled(2.5)
    assert scaled.width * 2.5 >= 401
    assert scaled.height * 2.5 >= 203
    np.testing.assert_allclose(scaled.to_world(np.zeros(1), np.zeros(1)), grid.to_world(np.zeros(1), np.zeros(1)))
    assert scaled.gsd_m == pytest.approx(grid.gsd_m * 2.5, rel=1e-3)


def test_a_grid_across_the_antimeridian_stays_whole():
    world = CRS.from_epsg(4326)
    east = Grid(world, Affine(0.01, 0, 179, 0, -0.01, 10), 200, 100)
    west = Grid(world, Affine(0.01, 0, -181, 0, -0.01, 10), 200, 100)
    cols, _ = east.pixels_in(west, *east.outline())
    assert cols.min() == pytest.approx(0, abs=1e-6)
    assert cols.max() == pytest.approx(200, abs=1e-6)


def test_the_text_of_a_grid_names_size_crs_and_extent():
    assert "EPSG:32632" in str(Grid(UTM, Affine(2, 0, 500_000, 0, -2, 5_500_000), 10, 20))
    assert "10 x 20" in str(Grid(None, Affine.identity(), 10, 20))
