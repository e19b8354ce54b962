"""Polygon labels: layers, geometry types, and polygons without a CRS."""

from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from wasnow.data.images import Header
from wasnow.data.vectors import burn, read_polygons
from wasnow.errors import InputError

UTM = Affine(2.0, 0, 500_000, 0, -2.0, 5_500_000)
DEGREES = Affine(1e-4, 0, 8.0, 0, -1e-4, 49.0)


def head(transform: Affine, crs: str) -> Header:
    return Header(20, 30, 3, "uint8", "GTiff", CRS.from_user_input(crs), transform)


def write(
    path: Path, shapes: list[object], *, crs: str | None, layer: str | None = None, kind: str = "Polygon"
) -> Path:
    options = {} if layer is None else {"layer": layer, "append": path.exists()}
    pyogrio.raw.write(path, shapely.to_wkb(np.array(shapes)), [], [], geometry_type=kind, crs=crs, **options)
    return path


def box(transform: Affine, left: int, top: int, right: int, bottom: int) -> object:
    (x0, y0), (x1, y1) = transform @ (left, top), transform @ (right, bottom)
    return shapely.box(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))


def expected() -> np.ndarray:
    mask = np.zeros((20, 30), np.uint8)
    mask[4:9, 3:12] = 1
    return mask


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
@pytest.mark.parametrize(("transform", "crs"), [(UTM, "EPSG:32632"), (DEGREES, "EPSG:4326")])
def test_a_shapefile_without_prj_is_in_the_crs_of_the_image(tmp_path: Path, transform: Affine, crs: str) -> None:
    path = write(tmp_path / "x.shp", [box(transform, 3, 4, 12, 9)], crs=None)
    assert not path.with_suffix(".prj").exists()
    np.testing.assert_array_equal(burn(read_polygons(path), head(transform, crs), {})[1], expected())


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_pixel_coordinates_without_a_crs_are_pixels(tmp_path: Path) -> None:
    path = write(tmp_path / "x.shp", [shapely.box(3, 4, 12, 9)], crs=None)
    np.testing.assert_array_equal(burn(read_polygons(path), head(UTM, "EPSG:32632"), {})[1], expected())


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
@pytest.mark.parametrize(
    ("shape", "transform", "crs"),
    [
        (shapely.box(8.001, 48.5, 8.002, 48.6), UTM, "EPSG:32632"),
        (shapely.box(500_010, 5_499_000, 500_020, 5_499_900), DEGREES, "EPSG:4326"),
    ],
)
def test_polygons_without_a_crs_that_do_not_fit_the_image_are_rejected(
    tmp_path: Path, shape: object, transform: Affine, crs: str
) -> None:
    polygons = read_polygons(write(tmp_path / "x.shp", [shape], crs=None))
    if crs == "EPSG:32632":  # degrees that are also within the pixels of a small image would be ambiguous
        transform, grid = UTM, Header(5, 5, 3, "uint8", "GTiff", CRS.from_user_input(crs), UTM)
    else:
        grid = head(transform, crs)
    with pytest.raises(InputError, match=r"no CRS .*\.prj.*Add the CRS"):
        burn(polygons, grid, {})


@pytest.mark.parametrize(
    ("kind", "shape"), [("LineString", shapely.LineString([(0, 0), (9, 9)])), ("Point", shapely.Point(1, 1))]
)
def test_lines_and_points_are_rejected_instead_of_rasterized(tmp_path: Path, kind: str, shape: object) -> None:
    path = write(tmp_path / "x.gpkg", [shape], crs="EPSG:32632", kind=kind)
    with pytest.raises(InputError, match=rf"{kind}, not polygons\. Convert them"):
        read_polygons(path)


def test_a_line_among_polygons_is_rejected(tmp_path: Path) -> None:
    shapes = [box(UTM, 3, 4, 12, 9), shapely.LineString([(500_000, 5_500_000), (500_020, 5_499_980)])]
    path = write(tmp_path / "x.geojson", shapes, crs="EPSG:32632", kind="Unknown")
    with pytest.raises(InputError, match="linestring"):
        read_polygons(path)


def test_the_layer_of_polygons_is_used_whatever_its_position(tmp_path: Path) -> None:
    path = tmp_path / "x.gpkg"
    write(path, [shapely.Point(1, 1)], crs="EPSG:32632", layer="stations", kind="Point")
    write(path, [box(UTM, 3, 4, 12, 9)], crs="EPSG:32632", layer="fields")
    np.testing.assert_array_equal(burn(read_polygons(path), head(UTM, "EPSG:32632"), {})[1], expected())


def test_several_layers_of_polygons_are_rejected_unless_one_is_named_changes(tmp_path: Path) -> None:
    path = tmp_path / "x.gpkg"
    write(path, [box(UTM, 0, 0, 30, 20)], crs="EPSG:32632", layer="parcels")
    write(path, [box(UTM, 3, 4, 12, 9)], crs="EPSG:32632", layer="fields")
    with pytest.raises(InputError, match=r"several layers of polygons \(parcels, fields\)"):
        read_polygons(path)
    write(path, [box(UTM, 3, 4, 12, 9)], crs="EPSG:32632", layer="changes")
    np.testing.assert_array_equal(burn(read_polygons(path), head(UTM, "EPSG:32632"), {})[1], expected())
