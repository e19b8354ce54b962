"""Placement of a source on the working grid, and which pairs are rejected."""

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from wasnow.errors import GridMismatch, RasterUnsuitable
from wasnow.raster.align import Placement, check_overlap, finest, overlap_share
from wasnow.raster.grid import Grid
from wasnow.raster.tiles import Window

UTM32, UTM33, WORLD = CRS.from_epsg(32632), CRS.from_epsg(32633), CRS.from_epsg(4326)
NAMES = ("b.tif", "a.tif")


def utm(x: float = 500_000, y: float = 5_500_000, size: float = 2.0, width: int = 100, height: int = 80) -> Grid:
    return Grid(UTM32, Affine(size, 0, x, 0, -size, y), width, height)


def test_equal_grids_are_read_unchanged():
    assert Placement.of(utm(), utm()).kind == "same"


def test_a_whole_pixel_offset_shifts_the_window_without_resampling():
    placement = Placement.of(utm(x=500_010, y=5_500_004), utm())
    assert placement.kind == "shift"
    assert placement.source_window(Window(2, 5, 10, 10)) == Window(4, 0, 10, 10)


def test_an_offset_of_a_tenth_of_a_pixel_is_resampled():
    placement = Placement.of(utm(x=500_000.2), utm())
    assert placement.kind == "warp"
    assert "-0.10 cols" in placement.describe()


def test_equal_coordinates_in_neighbouring_utm_zones_are_rejected():
    there = Grid(UTM33, utm().transform, 100, 80)
    with pytest.raises(GridMismatch, match="neighbouring UTM zones"):
        check_overlap(utm(), there, NAMES)


def test_the_same_place_in_neighbouring_utm_zones_is_accepted():
    from rasterio.warp import transform

    xs, ys = transform(UTM32, UTM33, [500_100], [5_499_920])
    there = Grid(UTM33, Affine(2, 0, xs[0] - 100, 0, -2, ys[0] + 80), 100, 80)
    check_overlap(utm(), there, NAMES)


def test_one_missing_crs_is_rejected_with_advice():
    with pytest.raises(RasterUnsuitable, match=r"a\.tif: no CRS .*--assume-crs EPSG:32632"):
        check_overlap(utm(), Grid(None, Affine.identity(), 100, 80), NAMES)


def test_two_rasters_without_a_crs_must_have_the_same_size():
    bare = Grid(None, Affine.identity(), 100, 80)
    assert "not georeferenced" in check_overlap(bare, bare, NAMES)[0]
    with pytest.raises(GridMismatch, match="100 x 80 and 90 x 80"):
        check_overlap(bare, Grid(None, Affine.identity(), 90, 80), NAMES)


def test_partial_overlap_is_reported_as_a_share():
    assert "after covers 50.0%" in check_overlap(utm(), utm(x=500_100), NAMES)[0]


def test_rasters_that_only_touch_do_not_overlap():
    with pytest.raises(GridMismatch, match="do not overlap"):
        check_overlap(utm(), utm(x=500_200), NAMES)


@pytest.mark.parametrize(("size", "warned"), [(2.0, False), (3.9, False), (4.5, True), (0.5, True)])
def test_a_resolution_ratio_above_two_is_warned_of(size, warned):
    other = utm(size=size, width=round(200 / size), height=round(160 / size))
    found = any("times finer" in warning for warning in check_overlap(utm(), other, NAMES))
    assert found == warned


def test_the_finest_grid_has_the_smaller_pixels():
    fine = utm(size=1.0, width=200, height=160)
    assert finest(utm(), fine) == fine
    assert finest(fine, utm()) == fine
    assert finest(utm(), utm(x=500_001)) == utm()


@pytest.mark.parametrize("angle", [0, 17, 90, 135, 180])
@pytest.mark.parametrize("south_up", [False, True])
def test_the_source_window_contains_every_pixel_that_a_rotated_target_needs(angle, south_up):
    turn = Affine.translation(500_100, 5_499_920) @ Affine.rotation(angle) @ Affine.scale(3, 3 if south_up else -3)
    target = Grid(UTM32, turn, 60, 50)
    placement = Placement.of(utm(), target)
    window = Window(10, 5, 20, 30)
    need = placement.source_window(window)
    rows, cols = np.mgrid[10:30, 5:35]
    there_cols, there_rows = target.pixels_in(utm(), cols.ravel() + 0.5, rows.ravel() + 0.5)
    inside = (there_cols > 0) & (there_cols < 100) & (there_rows > 0) & (there_rows < 80)
    assert (need.col <= np.maximum(there_cols[inside] - 1, 0)).all()
    assert (need.row <= np.maximum(there_rows[inside] - 1, 0)).all()
    assert (there_cols[inside] + 1 <= need.col_stop + 1).all()
    assert (there_rows[inside] + 1 <= need.row_stop + 1).all()


# --- global rasters and unusual CRS -----------------------------------------------------------------------------------

WORLD = Grid(CRS.from_epsg(4326), Affine(0.5, 0, -180, 0, -0.5, 90), 720, 360)
WORLD_0_360 = Grid(CRS.from_epsg(4326), Affine(0.5, 0, 0, 0, -0.5, 90), 720, 360)
WORLD_MERCATOR = Grid(CRS.from_epsg(3857), Affine(80_000, 0, -20_037_508, 0, -80_000, 20_037_508), 501, 501)
AFRICA = Grid(CRS.from_epsg(4326), Affine(0.1, 0, -20, 0, -0.1, 38), 750, 730)
SMALL = Grid(CRS.from_epsg(32633), Affine(100, 0, 500_000, 0, -100, 1_000_000), 200, 200)


@pytest.mark.parametrize(
    ("target", "other", "share"),
    [
        (WORLD, WORLD_0_360, 1.0),
        (WORLD_0_360, WORLD, 1.0),
        (WORLD_MERCATOR, WORLD, 1.0),
        (WORLD, WORLD_MERCATOR, 0.945),
        (SMALL, AFRICA, 1.0),
        (SMALL, WORLD_0_360, 1.0),
        (SMALL, WORLD_MERCATOR, 1.0),
    ],
)
def test_global_rasters_overlap(target, other, share):
    assert overlap_share(target, other) == pytest.approx(share, abs=0.03)
    check_overlap(target, other, NAMES)


@pytest.mark.parametrize("world", [WORLD, WORLD_0_360, WORLD_MERCATOR, AFRICA])
def test_a_small_raster_overlaps_a_continent_and_the_world(world):
    assert 0 < overlap_share(world, SMALL) < 0.01
    check_overlap(world, SMALL, NAMES)


def test_a_continent_does_not_overlap_a_utm_zone_elsewhere():
    pacific = Grid(CRS.from_epsg(32601), Affine(100, 0, 500_000, 0, -100, 1_000_000), 200, 200)
    with pytest.raises(GridMismatch, match="do not overlap"):
        check_overlap(AFRICA, pacific, NAMES)


@pytest.mark.parametrize(
    ("crs", "kind"),
    [
        ("EPSG:4978", "a geocentric CRS"),
        ("EPSG:5773", "a vertical CRS"),
        ("+proj=longlat +a=1737400 +b=1737400 +no_defs", "a CRS of another celestial body"),
        ('LOCAL_CS["site",UNIT["metre",1]]', "a local"),
    ],
)
def test_a_crs_without_position_on_the_earth_is_rejected_against_a_real_one(crs, kind):
    grid = Grid(CRS.from_user_input(crs), utm().transform, 100, 80)
    with pytest.raises(RasterUnsuitable, match=rf"{kind}.*--assume-crs"):
        check_overlap(utm(), grid, NAMES)
    check_overlap(grid, grid, NAMES)


def test_a_crs_without_a_transform_is_not_advised_to_assume_a_crs():
    bare = Grid(None, Affine.identity(), 100, 80)
    with pytest.raises(RasterUnsuitable, match=r"no transform.*gdal_translate -a_srs") as caught:
        check_overlap(utm(), bare, NAMES, (True, False))
    assert "--assume-crs" not in str(caught.value)
