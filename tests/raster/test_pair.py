"""Two rasters on one grid, with GDAL's warp as oracle; values do not depend on the window."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform as warp_transform

from making import textured, write_raster
from wasnow.raster.grid import Grid
from wasnow.raster.pair import Pair, Reason
from wasnow.raster.source import probe
from wasnow.raster.tiles import Window

PLACES = {
    "another crs": ("EPSG:4326", None),
    "a sub-pixel offset": ("EPSG:32632", Affine(2, 0, 500_000.7, 0, -2, 5_500_001.3)),
    "coarser pixels": ("EPSG:32632", Affine(5, 0, 499_990, 0, -5, 5_500_010)),
    "finer pixels": ("EPSG:32632", Affine(0.7, 0, 500_000, 0, -0.7, 5_500_000)),
    "rotated": ("EPSG:32632", Affine.translation(500_050, 5_500_040) @ Affine.rotation(-25) @ Affine.scale(2, -2)),
    "south-up": ("EPSG:32632", Affine(2, 0, 500_000.5, 0, 2, 5_499_800.5)),
}


def make(tmp_path, place):
    before = write_raster(tmp_path / "before.tif", textured(0, 90, 110).astype(np.float32))
    crs, transform = PLACES[place]
    if transform is None:
        xs, ys = warp_transform("EPSG:32632", crs, [499_990, 500_230], [5_500_010, 5_499_810])
        transform = Affine((xs[1] - xs[0]) / 130, 0, xs[0], 0, (ys[1] - ys[0]) / 120, ys[0])
    after = write_raster(tmp_path / "after.tif", textured(1, 120, 130), crs=crs, transform=transform)
    source, other = probe(before), probe(after)
    return Pair.of(source, other, source.grid), after


@pytest.mark.parametrize("place", PLACES)
def test_after_on_the_grid_of_before_equals_the_warp_of_gdal(tmp_path, place):
    pair, after = make(tmp_path, place)
    with pair.open() as reader:
        seen = reader.read(Window(0, 0, *pair.working.shape))
    grid = pair.working
    with (
        rasterio.open(after) as raster,
        WarpedVRT(
            raster, crs=grid.crs, transform=grid.transform, width=grid.width, height=grid.height,
            resampling=Resampling.bilinear, tolerance=0.01, nodata=np.nan, src_nodata=np.nan,
            # By default GDAL takes the scale from bounding boxes, which blurs rotated rasters.
            XSCALE=1 / pair.after.placement.scale, YSCALE=1 / pair.after.placement.scale,
        ) as warped,
    ):  # fmt: skip
        expected = warped.read()
    both = np.isfinite(seen.after) & np.isfinite(expected)
    assert both.mean() > 0.15
    assert (np.isfinite(seen.after) != np.isfinite(expected)).mean() < 0.02
    assert np.abs(seen.after - expected)[both].max() < 2.0
    assert np.abs(seen.after - expected)[both].mean() < 0.05


@pytest.mark.parametrize("place", PLACES)
def test_values_do_not_depend_on_the_window(tmp_path, place):
    pair, _ = make(tmp_path, place)
    with pair.open() as reader:
        whole = reader.read(Window(0, 0, *pair.working.shape))
        for window in (Window(0, 0, 17, 23), Window(31, 40, 30, 40), Window(70, 90, 20, 20), Window(89, 0, 1, 110)):
            part = reader.read(window)
            cut = window.within(whole.window)
            np.testing.assert_allclose(part.before, whole.before[(slice(None), *cut)])
            np.testing.assert_allclose(part.after, whole.after[(slice(None), *cut)], atol=0.2)
            np.testing.assert_array_equal(part.reason, whole.reason[cut])


def test_a_linear_surface_keeps_its_position_through_every_transform(tmp_path):
    """Values are a linear function of the coordinates, so each pixel must have the value of its own coordinates."""

    def surface(xs, ys):
        return 0.3 * (xs - 500_000) - 0.7 * (ys - 5_500_000)

    def raster(name, transform, height, width):
        cols, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        xs, ys = (
            transform.a * cols + transform.b * rows + transform.c,
            transform.d * cols + transform.e * rows + transform.f,
        )
        return probe(write_raster(tmp_path / name, surface(xs, ys)[None].astype(np.float32), transform=transform))

    target = Affine.translation(500_060, 5_499_930) @ Affine.rotation(33) @ Affine.scale(1.5, -1.5)
    before = raster("before.tif", target, 50, 60)
    for place, (crs, transform) in PLACES.items():
        if crs != "EPSG:32632":
            continue
        after = raster(f"{place}.tif", transform, 260, 300)
        pair = Pair.of(before, after, before.grid)
        with pair.open() as reader:
            seen = reader.read(Window(0, 0, 50, 60))
        # The outermost pixel of a source is extrapolated, so only pixels inside are compared.
        inside = np.isfinite(seen.after[0])
        assert inside.sum() > 500, place
        assert np.quantile(np.abs(seen.after - seen.before)[0][inside], 0.97) < 0.05, place


@given(st.integers(-60, 60), st.integers(-60, 60))
def test_exactly_the_pixels_outside_after_are_flagged_as_outside_after(tmp_path_factory, rows, cols):
    folder = tmp_path_factory.mktemp("pair")
    values = textured(0, 40, 50).astype(np.uint8)
    before = probe(write_raster(folder / "before.tif", values))
    after = probe(
        write_raster(
            folder / "after.tif", values, transform=Affine(2, 0, 500_000 + 2 * cols, 0, -2, 5_500_000 - 2 * rows)
        )
    )
    with Pair.of(before, after, before.grid).open() as reader:
        seen = reader.read(Window(0, 0, 40, 50))
    expected = np.full((40, 50), Reason.OUTSIDE_AFTER, np.uint8)
    expected[max(0, rows) : max(0, 40 + min(0, rows)), max(0, cols) : max(0, 50 + min(0, cols))] = Reason.PROCESSED
    np.testing.assert_array_equal(seen.reason, expected)


def test_missing_pixels_of_each_date_have_their_own_reason(tmp_path):
    values = textured(0, 40, 50).astype(np.uint8)
    one, other = values.copy(), values.copy()
    one[:, :, :10] = 0
    other[:, :, 5:20] = 0
    before = probe(write_raster(tmp_path / "before.tif", one, nodata=0))
    after = probe(write_raster(tmp_path / "after.tif", other, nodata=0))
    with Pair.of(before, after, before.grid).open() as reader:
        seen = reader.read(Window(0, 0, 40, 50))
    assert set(np.unique(seen.reason[:, :10])) == {Reason.BEFORE_MISSING}
    assert set(np.unique(seen.reason[:, 10:20])) == {Reason.AFTER_MISSING}
    assert seen.valid[:, 20:].all()


def test_missing_pixels_do_not_change_their_neighbours(tmp_path):
    values = np.full((1, 40, 50), 100, np.float32)
    values[:, 10:20, 10:20] = -9999
    before = probe(write_raster(tmp_path / "before.tif", np.full((1, 40, 50), 100, np.float32)))
    after = probe(
        write_raster(
            tmp_path / "after.tif", values, nodata=-9999, transform=Affine(2, 0, 500_000.9, 0, -2, 5_499_999.1)
        )
    )
    with Pair.of(before, after, before.grid).open() as reader:
        seen = reader.read(Window(0, 0, 40, 50))
    assert np.nanmax(np.abs(seen.after - 100)) < 1e-3
    assert (~np.isfinite(seen.after)).sum() > 50


def test_longitudes_above_180_match_those_below_minus_180(tmp_path):
    values = textured(0, 40, 60).astype(np.float32)
    east = write_raster(tmp_path / "e.tif", values, crs="EPSG:4326", transform=Affine(0.01, 0, 179.7, 0, -0.01, 10))
    west = write_raster(tmp_path / "w.tif", values, crs="EPSG:4326", transform=Affine(0.01, 0, -180.3, 0, -0.01, 10))
    before, after = probe(east), probe(west)
    with Pair.of(before, after, before.grid).open() as reader:
        seen = reader.read(Window(0, 0, 40, 60))
    np.testing.assert_array_equal(seen.before, seen.after)


def test_a_projected_grid_across_the_antimeridian_reads_from_a_geographic_one(tmp_path):
    """UTM zone 60 extends beyond 180 degrees; the other raster has longitudes above 180."""
    xs, ys = warp_transform("EPSG:4326", "EPSG:32660", [179.9], [10.2])
    grid = Grid(rasterio.crs.CRS.from_epsg(32660), Affine(500, 0, xs[0], 0, -500, ys[0]), 60, 60)
    before = probe(write_raster(tmp_path / "utm.tif", textured(0, 60, 60), crs="EPSG:32660", transform=grid.transform))
    lons = np.broadcast_to(179.5 + 0.005 * (np.arange(300) + 0.5), (200, 300))[None].astype(np.float32)
    after = probe(
        write_raster(tmp_path / "deg.tif", lons, crs="EPSG:4326", transform=Affine(0.005, 0, 179.5, 0, -0.005, 10.5))
    )
    with Pair.of(before, after, before.grid).open() as reader:
        seen = reader.read(Window(0, 0, 60, 60))
    assert np.isfinite(seen.after).all()
    assert seen.after.max() > 180.05
    cols, rows = np.meshgrid(np.arange(60) + 0.5, np.arange(60) + 0.5)
    x, y = grid.to_world(cols.ravel(), rows.ravel())
    lon, _ = warp_transform("EPSG:32660", "EPSG:4326", x, y)
    expected = np.asarray(lon) % 360
    np.testing.assert_allclose(seen.after.ravel(), expected, atol=2e-3)


@pytest.mark.parametrize("column_zero", [0.0, -180.0])
def test_a_window_of_a_global_raster_is_read_from_one_with_other_longitudes(tmp_path, column_zero):
    """Values are the longitude modulo 360, so each pixel must have the value of its own longitude."""
    size, width, height = 1.0, 360, 40

    def world(name, start, offset):
        longitudes = (start + offset + (np.arange(width) + 0.5) * size) % 360
        values = np.broadcast_to(longitudes, (1, height, width)).astype(np.float32)
        transform = Affine(size, 0, start + offset, 0, -size, 20)
        return probe(write_raster(tmp_path / name, values, crs="EPSG:4326", transform=transform))

    target = world("target.tif", column_zero, 0.0)
    source = world("source.tif", -180.0 if column_zero == 0 else 0.0, 0.25)
    with Pair.of(target, source, target.grid).open() as reader:
        window = reader.read(Window(10, 0, 8, width))
    inside = window.valid[4]
    assert inside.mean() > 0.97
    difference = (window.before[0, 4] - window.after[0, 4] + 180) % 360 - 180
    near_jump = (np.abs(window.before[0, 4]) < 3) | (np.abs(window.before[0, 4] - 360) < 3)
    # The outermost pixel of the source is extrapolated by a quarter of a pixel at the seam.
    assert np.abs(difference[inside & ~near_jump]).max() < 0.26
