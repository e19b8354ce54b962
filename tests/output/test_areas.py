"""Pixel areas against closed forms, PROJ's scale factors and geodesic polygons; the from-to table against counting."""

import math

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS, Geod, Proj, Transformer

from wasnow.output.areas import PixelAreas, TransitionTable
from wasnow.vocabulary import Vocabulary

A, F = 6378137.0, 1 / 298.257223563
E2 = F * (2 - F)
E = math.sqrt(E2)


def zone_m2(south: float, north: float, degrees: float) -> float:
    """Area between two parallels and two meridians of WGS 84: Snyder 1987, equation 3-12 (authalic latitude)."""

    def q(lat: float) -> float:
        s = math.sin(math.radians(lat))
        return (1 - E2) * (s / (1 - E2 * s * s) - math.log((1 - E * s) / (1 + E * s)) / (2 * E))

    return A * A * math.radians(degrees) * (q(north) - q(south)) / 2


def areas(crs, transform, width, height) -> PixelAreas:
    found = PixelAreas.of(crs, transform, width, height)
    assert found is not None
    return found


@given(st.floats(-89, 88), st.floats(-180, 179), st.sampled_from([1e-3, 0.01, 0.1, 1.0]))
def test_a_pixel_in_degrees_covers_the_zone_between_its_parallels(south, west, side):
    found = areas("EPSG:4326", Affine(side, 0, west, 0, -side, south + side), 1, 1).at(0, 0)[0]
    rounding = 2e-15 * A * A * math.radians(side)  # the closed form takes the difference of two nearly equal numbers
    assert found == pytest.approx(zone_m2(south, south + side, side), rel=1e-9, abs=rounding)


def test_a_world_of_degrees_adds_up_to_the_ellipsoid():
    world = areas("EPSG:4326", Affine(0.25, 0, -180, 0, -0.25, 90), 1440, 720)
    assert world.total() == pytest.approx(zone_m2(-90, 90, 360), rel=1e-9)
    assert world.total() == pytest.approx(510_065_621_724_000, rel=1e-9)


def test_nothing_lies_beyond_a_pole():
    overshooting = areas("EPSG:4326", Affine(1, 0, 0, 0, -1, 92), 1, 4)
    assert (overshooting.window(0, 0, 4, 1)[:, 0] > 0).tolist() == [False, False, True, True]


def test_turning_a_grid_of_degrees_by_a_right_angle_changes_no_area():
    upright = areas("EPSG:4326", Affine(0.5, 0, 10, 0, -0.5, 60), 20, 30).window(0, 0, 30, 20)
    turned = areas("EPSG:4326", Affine(0, 0.5, 10, -0.5, 0, 60), 30, 20).window(0, 0, 20, 30)
    np.testing.assert_allclose(turned, upright.T, rtol=1e-12)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32631", Affine(10, 0, 300_000, 0, -10, 5_500_000)),
        ("EPSG:32701", Affine(10, 0, 100_000, 0, -10, 8_000_000)),  # crosses the antimeridian
        ("EPSG:2263", Affine(1, 0, 980_000, 0, -1, 200_000)),  # US survey feet
        ("EPSG:27572", Affine(5, 0, 600_000, 0, -5, 2_400_000)),  # its base counts in grads from Paris
        ("EPSG:3413", Affine(500, 0, -1e6, 0, -500, 1e6)),  # the pole in the middle
        ("EPSG:32631", Affine(8, 3, 300_000, 2, -9, 5_500_000)),  # rotated and sheared
        ("EPSG:32631", Affine(10, 0, 300_000, 0, 10, 5_500_000)),  # south-up
    ],
)
def test_projected_pixels_agree_with_the_areal_scale_of_proj(crs, transform):
    found = areas(crs, transform, 4000, 4000)
    rows, cols = np.random.default_rng(0).integers(0, 4000, (2, 40))
    proj = Proj(crs)
    lon, lat = proj(*(transform @ (cols + 0.5, rows + 0.5)), inverse=True)
    metres = CRS(crs).axis_info[0].unit_conversion_factor
    planar = abs(transform.determinant) * metres**2
    np.testing.assert_allclose(found.at(rows, cols), planar / proj.get_factors(lon, lat).areal_scale, rtol=2e-9)


def test_web_mercator_is_four_times_too_large_at_sixty_degrees():
    x, y = Transformer.from_crs(4326, 3857, always_xy=True).transform(10, 60)
    pixel = areas("EPSG:3857", Affine(10, 0, x - 5, 0, -10, y + 5), 1, 1).at(0, 0)[0]
    sin2, cos2 = 0.75, 0.25
    # dx = A dlon and dy = A dlat / cos(lat) on the map; N cos(lat) dlon and M dlat on the ellipsoid
    assert pixel == pytest.approx(100 * cos2 * (1 - E2) / (1 - E2 * sin2) ** 2, rel=1e-9)


def test_the_whole_web_mercator_square_covers_the_globe_between_its_parallels():
    half = math.pi * A
    side = 2 * half / 2048
    lat = Transformer.from_crs(3857, 4326, always_xy=True).transform(0, half)[1]
    world = areas("EPSG:3857", Affine(side, 0, -half, 0, -side, half), 2048, 2048)
    assert world.total() == pytest.approx(zone_m2(-lat, lat, 360), rel=1e-6)


@pytest.mark.parametrize("crs", ["EPSG:2154", "EPSG:3035", "EPSG:32631"])
def test_a_country_adds_up_to_its_geodesic_polygon(crs):
    x, y = Transformer.from_crs(4326, crs, always_xy=True).transform(-2.0, 50.0)
    grid = Affine(1000, 0, x, 0, -1000, y)
    step = np.linspace(0, 1, 400)[:-1]
    zero, one = np.zeros_like(step), np.ones_like(step)
    cols, rows = np.concatenate([step, one, 1 - step, zero]) * 900, np.concatenate([zero, step, one, 1 - step]) * 800
    lon, lat = Transformer.from_crs(crs, 4326, always_xy=True).transform(*(grid @ (cols, rows)))
    expected = abs(Geod(ellps="WGS84").polygon_area_perimeter(lon, lat)[0])
    assert areas(crs, grid, 900, 800).total() == pytest.approx(expected, rel=2e-6)


def test_a_full_disk_has_no_ground_in_its_corners():
    disk = areas("+proj=geos +h=35785831 +lon_0=0", Affine(50_000, 0, -5.6e6, 0, -50_000, 5.6e6), 224, 224)
    window = disk.window(0, 0, 224, 224)
    assert window[0, 0] == 0
    assert window[112, 112] == pytest.approx(2.5e9, rel=2e-3)  # a perspective is true to scale at its nadir
    assert np.isfinite(window).all()


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["EPSG:4326", "EPSG:32633"]), st.integers(0, 60), st.integers(0, 60), st.integers(1, 9))
def test_a_window_holds_the_areas_of_its_pixels(crs, row, col, size):
    side = 0.01 if crs == "EPSG:4326" else 100
    grid = areas(crs, Affine(side, 0, 15, 0, -side, 50), 70, 70)
    rows, cols = np.mgrid[row : row + size, col : col + size]
    expected = grid.at(rows.ravel(), cols.ravel()).reshape(size, size)
    np.testing.assert_allclose(grid.window(row, col, size, size), expected, rtol=1e-13)


def test_heights_datum_shifts_and_rasterio_change_nothing():
    grid = Affine(10, 0, 300_000, 0, -10, 5_500_000), 100, 100
    plain = areas("EPSG:32631", *grid).at(5, 5)
    assert areas("EPSG:32631+5773", *grid).at(5, 5) == plain
    assert areas("+proj=utm +zone=31 +ellps=WGS84 +towgs84=1,2,3", *grid).at(5, 5) == pytest.approx(plain, rel=1e-12)
    assert areas(rasterio.CRS.from_epsg(32631), *grid).at(5, 5) == pytest.approx(plain, rel=1e-12)


def test_without_a_crs_no_ground_is_told():
    assert PixelAreas.of(None, Affine.identity(), 10, 10) is None
    assert PixelAreas.of("EPSG:5773", Affine.identity(), 10, 10) is None  # heights only


def test_a_building_site_counts_as_a_plane_where_its_unit_is_a_length():
    site = 'LOCAL_CS["site",UNIT["foot",0.3048]]'
    assert areas(site, Affine(2, 0, 0, 0, -2, 0), 5, 5).window(0, 0, 5, 5) == pytest.approx(np.full((5, 5), 0.37161216))
    assert PixelAreas.of('LOCAL_CS["site",UNIT["pixel",1]]', Affine(2, 0, 0, 0, -2, 0), 5, 5) is None


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 17), st.integers(1, 12), st.randoms(use_true_random=False))
def test_the_transition_table_counts_the_same_by_windows_as_at_once(n_words, step, random):
    vocabulary = Vocabulary(tuple(f"word {i}" for i in range(n_words)))
    generator = np.random.default_rng(random.randrange(2**32))
    codes = generator.integers(0, vocabulary.n_transitions + 1, (12, 10)).astype(vocabulary.dtype)
    codes[generator.random(codes.shape) < 0.1] = vocabulary.not_processed
    ground = generator.integers(1, 100, codes.shape).astype(float)
    table = TransitionTable(vocabulary)
    for row in range(0, 12, step):
        table.add(codes[row : row + step], ground[row : row + step])
    for code in range(vocabulary.n_transitions + 1):
        assert table.pixels[code] == (codes == code).sum()
        assert table.area_m2[code] == ground[codes == code].sum()
    assert table.not_processed == (codes == vocabulary.not_processed).sum()
    assert table.not_processed_m2 == ground[codes == vocabulary.not_processed].sum()
    assert table.occurring == sorted({int(c) for c in codes.ravel()} - {0, vocabulary.not_processed})
