"""The grid in page coordinates, and tiles that show the pixels of the file."""

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.io import MemoryFile

from wasnow.review.plane import TILE, Plane
from wasnow.review.polygons import ReviewedPolygons
from wasnow.review.project import ReviewProject


@given(st.integers(1, 200_000), st.integers(1, 200_000), st.floats(0, 1), st.floats(0, 1))
def test_page_coordinates_return_to_the_same_pixel(height, width, down, across):
    plane = Plane(height, width)
    point = np.array([[across * width, down * height]])
    assert plane.pixels(plane.lnglat(point)) == pytest.approx(point, abs=1e-6 * plane.side)


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_tiles_of_every_zoom_cover_the_reduced_grid_once(height, width):
    plane = Plane(height, width)
    for zoom in range(plane.deepest + 1):
        factor = plane.factor(zoom)
        windows = [plane.window(zoom, x, y) for y in range(2**zoom) for x in range(2**zoom)]
        covered = sum(each.size for each in windows if each is not None)
        assert covered == -(-height // factor) * -(-width // factor)


def decoded(coded):
    with MemoryFile(coded) as memory, memory.open() as picture:
        return picture.read()


def test_a_tile_of_the_deepest_zoom_has_the_pixels_of_the_image(place):
    project = ReviewProject(place / "out")
    with rasterio.open(place / "before.tif") as file:
        expected = file.read()
    tile = decoded(project.images["before"].tile(project.plane.deepest, 0, 0))
    assert tile.shape == (4, TILE, TILE)
    assert np.abs(tile[:3].astype(int) - expected[:, :TILE, :TILE]).max() <= 1
    edge = decoded(project.images["before"].tile(project.plane.deepest, 1, 1))
    assert (edge[3, 300 - TILE :] == 0).all()
    assert (edge[3, : 300 - TILE, : 400 - TILE] == 255).all()


def test_tiles_outside_the_grid_do_not_exist(place):
    image = ReviewProject(place / "out").images["after"]
    assert image.tile(9, 0, 0) is None
    assert image.tile(1, 5, 0) is None
    assert image.tile(-1, 0, 0) is None


def test_images_that_were_moved_can_be_named_and_are_found_beside_the_result(place, tmp_path):
    (place / "before.tif").rename(tmp_path / "moved.tif")
    project = ReviewProject(place / "out", before=tmp_path / "moved.tif")
    assert project.images["before"] is not None
    assert project.images["after"] is not None
    missing = ReviewProject(place / "out", before=tmp_path / "nowhere.tif")
    assert missing.images["before"] is None
    assert "nowhere.tif" in missing.problems["before"]


def test_the_list_follows_own_decisions_and_edits_of_others(place):
    project = ReviewProject(place / "out")
    first, second = project.rows()[:2]
    project.decide(first.fid, reviewer="Ann", status="accepted")
    assert project.progress()["counts"]["accepted"] == 1
    ReviewedPolygons(place / "out").decide(second.fid, reviewer="Ben", status="rejected")
    assert project.progress()["counts"]["rejected"] == 1
    project.decide(second.fid, reviewer="Ann", status="accepted")
    assert {row.fid: row.status for row in project.rows()} == {
        row.fid: row.status for row in ReviewedPolygons(place / "out").all()
    }


def test_outlines_return_to_the_crs_of_the_result(place):
    project = ReviewProject(place / "out")
    for fid, shape in project.polygons.geometries([row.fid for row in project.rows()]).items():
        assert project.from_page(project.to_page(shape)).equals_exact(shape, 1e-3), fid
