"""The STAC item: valid by the core schemas, readable through pystac's extensions, true on the globe.

pystac bundles the core STAC 1.1 JSON schemas and those of GeoJSON, not those of the extensions: the extension fields
are therefore read back through pystac's accessor classes (projection, raster, classification, file), and those of the
processing extension, for which pystac has none, are checked against its specification by hand.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio.warp
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyproj import CRS, Geod

from wasnow.output.record import GridRecord
from wasnow.output.report.ground import bbox, footprint, geojson, ground_geometry
from wasnow.output.report.stac import interval, stac_item, write_item

pystac = pytest.importorskip("pystac", reason="pystac is a development dependency: pip install 'wasnow[dev]'")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a test of the STAC item reached for the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def grid(crs: str | None, transform: tuple[float, ...], width: int = 100, height: int = 80) -> GridRecord:
    return GridRecord(crs=crs, transform=transform, width=width, height=height, gsd_m=None)  # type: ignore[arg-type]


def core_errors(item: dict[str, Any]) -> list[str]:
    """What pystac's bundled core schemas have against an item."""
    from jsonschema import Draft7Validator
    from pystac.validation.local_validator import get_local_schema_cache
    from referencing import Registry, Resource

    cache = get_local_schema_cache()
    registry = Registry().with_resources([(name, Resource.from_contents(schema)) for name, schema in cache.items()])
    schema = cache["https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/item.json"]
    found = Draft7Validator(schema, registry=registry).iter_errors(json.loads(json.dumps(item)))
    return [f"{'/'.join(map(str, error.path))}: {error.message}" for error in found]


RUNS = {
    "georeferenced": {},
    "without words": {"words": ()},
    "without georeference": {"crs": None, "transform": (1, 0, 0, 0, 1, 0)},
    "without dates": {"dates": (None, None)},
    "with one date": {"dates": ("2009-07-14", None)},
    "with hostile words": {"words": ("<b>", "水", "a b", "A-B", "été")},
    "across the antimeridian": {"crs": "EPSG:32601", "transform": (1000.0, 0, 220_000.0, 0, -1000.0, 5_000_000.0)},
    "in a CRS without code": {"crs": CRS.from_proj4("+proj=laea +lat_0=10 +lon_0=20").to_wkt()},
}


@pytest.mark.parametrize("name", RUNS)
def test_the_item_satisfies_the_core_schemas(name: str, make_run: Any):
    assert core_errors(stac_item(make_run(**RUNS[name]))) == []


def test_the_check_itself_finds_faults(make_run: Any):
    item = stac_item(make_run())
    del item["bbox"]
    assert core_errors(item)


@pytest.mark.parametrize("name", RUNS)
def test_pystac_reads_the_item_and_writes_the_same(name: str, make_run: Any):
    item = stac_item(make_run(**RUNS[name]))
    again = pystac.Item.from_dict(item).to_dict(include_self_link=False, transform_hrefs=False)
    assert again["properties"] == item["properties"]
    assert again["assets"] == item["assets"]
    assert set(again["stac_extensions"]) == set(item["stac_extensions"])


def test_the_projection_fields_place_the_raster(make_run: Any, tmp_path: Path):
    from pystac.extensions.projection import ProjectionExtension

    item = pystac.Item.from_dict(stac_item(make_run()))
    projection = ProjectionExtension.ext(item)
    with rasterio.open(tmp_path / "change.tif") as source:
        assert projection.code == source.crs.to_string()
        assert projection.shape == list(source.shape)
        assert projection.transform == list(source.transform)[:6]
        assert projection.bbox == list(source.bounds)
        expected = rasterio.warp.transform_bounds(source.crs, "EPSG:4326", *source.bounds, densify_pts=33)
    assert item.bbox == pytest.approx(expected, abs=1e-6)


def test_a_crs_without_code_travels_as_wkt2(make_run: Any):
    properties = stac_item(make_run(**RUNS["in a CRS without code"]))["properties"]
    assert properties["proj:code"] is None
    assert CRS.from_wkt(properties["proj:wkt2"]) == CRS.from_user_input(RUNS["in a CRS without code"]["crs"])


def test_without_georeference_there_is_no_place(make_run: Any):
    item = stac_item(make_run(**RUNS["without georeference"]))
    assert item["geometry"] is None
    assert "bbox" not in item
    assert not [key for key in item["properties"] if key.startswith("proj:")]
    assert not [uri for uri in item["stac_extensions"] if "projection" in uri]


def test_the_classes_of_each_band_are_the_codes_of_the_raster(make_run: Any, tmp_path: Path):
    from pystac.extensions.classification import Classification

    record = make_run(words=("<b>", "水", "a b", "A-B"))
    bands = stac_item(record)["assets"]["change"]["bands"]
    assert [band["name"] for band in bands] == ["before_class", "after_class", "transition"]
    with rasterio.open(tmp_path / "change.tif") as source:
        for band, values, dtype, nodata in zip(bands, source.read(), source.dtypes, source.nodatavals, strict=True):
            classes = [Classification(entry) for entry in band["classification:classes"]]
            assert set(np.unique(values).tolist()) <= {entry.value for entry in classes}
            assert (band["data_type"], band["nodata"]) == (dtype, nodata)
            assert [entry.value for entry in classes if entry.nodata] == [nodata]
            names = [entry.name for entry in classes]
            assert len(set(names)) == len(names)
            assert all(re.fullmatch(r"[0-9A-Za-z\-_]+", name or "") for name in names)
            assert all(re.fullmatch(r"[0-9A-F]{6}", entry.color_hint or "") for entry in classes)
    assert [entry["title"] for entry in bands[0]["classification:classes"]][1:-1] == ["<b>", "水", "a b", "A-B"]


def test_confidence_is_scaled_back_to_probability(make_run: Any):
    band = stac_item(make_run())["assets"]["confidence"]["bands"][0]
    assert 254 * band["raster:scale"] + band["raster:offset"] == pytest.approx(1)
    assert band["nodata"] == 255


def test_checksums_are_multihashes_of_the_files(make_run: Any, tmp_path: Path):
    from pystac.extensions.file import FileExtension

    record = make_run(outputs=())
    (tmp_path / "report.html").write_text("<p>", encoding="utf-8")
    item = pystac.Item.from_file(str(write_item(tmp_path, record)))
    assert set(item.assets) == {"change", "confidence", "polygons", "record", "report"}
    for asset in item.assets.values():
        data = (tmp_path / asset.href).read_bytes()
        assert FileExtension.ext(asset).checksum == "1220" + hashlib.sha256(data).hexdigest()
        assert FileExtension.ext(asset).size == len(data)


def test_every_asset_is_named_relative_to_the_item(make_run: Any):
    assets = stac_item(make_run())["assets"]
    assert {asset["href"] for asset in assets.values()} == {
        "./change.tif", "./confidence.tif", "./changes.gpkg", "./changes.parquet", "./run.json"
    }  # fmt: skip
    assert assets["polygons"]["type"] == "application/geopackage+sqlite3"
    assert assets["polygons_parquet"]["type"] == "application/vnd.apache.parquet"


def test_the_processing_fields_name_software_and_lineage(make_run: Any):
    properties = stac_item(make_run())["properties"]
    assert properties["processing:software"] == {
        "wasnow": "0.1.0", "python": "3.11.9", "numpy": "2.4.6", "gdal": "3.10.3"
    }  # fmt: skip
    assert "before.tif and after.tif by fake" in properties["processing:lineage"]


def test_two_known_dates_make_an_interval(make_run: Any):
    properties = stac_item(make_run(dates=("2009", "2017-06")))["properties"]
    assert properties["datetime"] is None
    assert properties["start_datetime"] == "2009-01-01T00:00:00Z"
    assert properties["end_datetime"] == "2017-06-30T23:59:59Z"


def test_dates_in_the_wrong_order_still_make_an_interval(make_run: Any):
    properties = stac_item(make_run(dates=("2017", "2009")))["properties"]
    assert properties["start_datetime"] < properties["end_datetime"]


@pytest.mark.parametrize("dates", [(None, None), ("2009", None), (None, "2017"), ("soon", "2017")])
def test_an_unknown_date_is_said_to_be_unknown(dates: tuple[str | None, str | None], make_run: Any):
    properties = stac_item(make_run(dates=dates))["properties"]
    assert properties["datetime"] == "2026-01-02T03:05:06Z"
    assert "start_datetime" not in properties
    assert properties["wasnow:datetime_is"].startswith("time of processing")
    unknown = {"before": dates[0] in (None, "soon"), "after": dates[1] is None}
    for name, missing in unknown.items():
        assert (name in properties["wasnow:datetime_is"]) == missing
        assert (f"wasnow:{name}_date" in properties) != missing


@given(st.dates(min_value=datetime(1000, 1, 1).date(), max_value=datetime(9998, 12, 31).date()))
def test_a_day_lies_within_its_month_within_its_year(day):
    year, month, exact = (interval(day.isoformat()[:length]) for length in (4, 7, 10))
    assert year[0] <= month[0] <= exact[0] < exact[1] <= month[1] <= year[1]
    assert exact[1] - exact[0] == timedelta(hours=24, seconds=-1)
    assert interval(month[1].date().isoformat())[1] == month[1]
    assert (month[1] + timedelta(seconds=1)).day == 1


def test_a_full_time_is_brought_to_utc():
    moment = datetime(2020, 5, 1, 10, 30, tzinfo=UTC)
    assert interval("2020-05-01T12:30:00+02:00") == (moment, moment)


def test_a_footprint_across_the_antimeridian_is_cut_there():
    shape = footprint(grid("EPSG:32601", (1000.0, 0, 220_000.0, 0, -1000.0, 5_000_000.0)))
    assert shape is not None
    assert geojson(shape)["type"] == "MultiPolygon"
    west, south, east, north = bbox(shape)
    assert west > 170 > -170 > east
    assert south < north
    assert all(-180 <= x <= 180 for part in shape.geoms for x, _ in part.exterior.coords)
    assert all(part.exterior.is_ccw for part in shape.geoms)


@given(
    st.floats(-179.9, 179.9), st.floats(-70, 70), st.floats(10, 20_000), st.floats(0, 360), st.integers(1, 200)
)  # fmt: skip
@example(0.0, -61.0, 15064.0, 290.0, 200)  # around the south pole
@settings(max_examples=60, deadline=None)
def test_a_footprint_has_the_area_of_its_grid(lon: float, lat: float, side: float, turn: float, count: int):
    """On an equal-area projection, whose cells have the same area anywhere: rotated, cut or not."""
    crs = CRS.from_proj4(f"+proj=laea +lat_0={lat} +lon_0={lon} +datum=WGS84").to_wkt()
    cos, sin = math.cos(math.radians(turn)) * side, math.sin(math.radians(turn)) * side
    shape = footprint(grid(crs, (cos, sin, 0.0, sin, -cos, 0.0), count, count))
    assert shape is not None
    parts = shape.geoms if shape.geom_type == "MultiPolygon" else [shape]
    area = sum(Geod(ellps="WGS84").geometry_area_perimeter(part)[0] for part in parts)
    if shape.bounds[1] > -85 and shape.bounds[3] < 85:
        assert area == pytest.approx((side * count) ** 2, rel=2e-3)
    west, south, east, north = bbox(shape)
    if south > -90 and north < 90:
        assert (west > east) == (shape.geom_type == "MultiPolygon")
    else:
        assert (west, east) == (-180, 180), "a grid around a pole leaves no longitude out"


def test_a_footprint_around_the_pole_reaches_it():
    shape = footprint(grid("EPSG:3413", (50_000.0, 0, -2_000_000.0, 0, -50_000.0, 2_000_000.0), 80, 80))
    assert shape is not None
    assert shape.is_valid
    assert shape.bounds[0] == -180
    assert shape.bounds[2:] == (180, 90)
    assert shape.contains(shapely.Point(123, 89))
    assert not shape.contains(shapely.Point(123, 60))


def test_the_whole_globe_is_one_footprint():
    shape = footprint(grid("EPSG:4326", (1.0, 0, -180.0, 0, -1.0, 90.0), 360, 180))
    assert shape is not None
    assert bbox(shape) == [-180, -90, 180, 90]


@pytest.mark.parametrize(
    ("transform", "north"),
    [
        ((10.0, 0, 5e5, 0, -10.0, 5e6), 0),  # north up
        ((10.0, 0, 5e5, 0, 10.0, 5e6), 180),  # south up
        ((0, -10.0, 5e5, -10.0, 0, 5e6), -90),  # east up
        ((7.0, 7.0, 5e5, 7.0, -7.0, 5e6), 45),  # up is the north-west
    ],
)
def test_north_is_where_the_transform_says(transform: tuple[float, ...], north: float):
    found = ground_geometry(grid("EPSG:32633", transform, 2, 2))
    assert found is not None
    assert (found.north_deg - north + 180) % 360 - 180 == pytest.approx(0, abs=0.01)
    assert found.col_m == pytest.approx(math.hypot(transform[0], transform[3]), rel=1e-3)


def test_a_degree_of_longitude_shrinks_with_latitude():
    found = ground_geometry(grid("EPSG:4326", (0.001, 0, 10.0, 0, -0.001, 60.04)))
    assert found is not None
    assert found.col_m / found.row_m == pytest.approx(math.cos(math.radians(60)), rel=5e-3)
