"""GeoPackage and GeoParquet of the same polygons, read back by GDAL, SQLite and Arrow."""

import errno
import json
import sqlite3
import struct
from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow.parquet as pq
import pyogrio
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS

from making import REAL
from wasnow.errors import DiskFull, OutputError, VocabularyError
from wasnow.output.vector import PolygonBatch, polygonize, write_polygons
from wasnow.output.vector.qgis import qgis_style
from wasnow.vocabulary import CHANGED, CHANGED_COLOR, Vocabulary

COLUMNS = [
    *("id", "from", "to", "p_change", "p_from", "p_to", "area_m2", "n_px", "date_before", "date_after"),
    *("edge", "flags", "review_status", "review_reason", "reviewer"),
]
HOSTILE = Vocabulary(
    ('water\'s "edge"', "<script>alert(1)</script> & co", "مبنى ‏", "'; DROP TABLE changes;--", "🏠 ]]>")
)
ALBERS = "+proj=aea +lat_1=11 +lat_2=22 +lon_0=3 +datum=WGS84 +units=m"


def batch(first_id=1, count=4, codes=None, multi=False) -> PolygonBatch:
    ids = np.arange(first_id, first_id + count)
    geometry = shapely.box(ids * 10.0, 0.0, ids * 10.0 + 5, 7.0)
    return PolygonBatch(
        id=ids,
        code=np.ones(count, np.int64) if codes is None else np.asarray(codes, np.int64),
        p_change=ids / (first_id + count),
        p_from=np.full(count, np.nan),
        p_to=np.full(count, 0.25),
        area_m2=ids * 3.5,
        n_px=ids * 2,
        edge=ids % 2 == 0,
        flags=np.array(["touches_not_processed" if i % 3 == 0 else "" for i in ids], object),
        geometry=shapely.multipolygons(geometry[:, None]) if multi else geometry,
    )


def write(folder, batches, *, crs="EPSG:32631", vocabulary=HOSTILE, **more):
    gpkg, parquet = folder / "changes.gpkg", folder / "changes.parquet"
    counts = write_polygons(batches, gpkg=gpkg, parquet=parquet, crs=crs, vocabulary=vocabulary, **more)
    return gpkg, parquet, counts


def rows_of_gpkg(path):
    meta, _, geometry, columns = pyogrio.raw.read(path, layer="changes")
    rows = [
        {name: None if _is_null(value) else value for name, value in zip(meta["fields"], row, strict=True)}
        for row in zip(*(column.tolist() for column in columns), strict=True)
    ]
    return meta, rows, shapely.from_wkb(geometry)


def _is_null(value):
    return value is None or value != value


def check_geoparquet(path):
    """The rules of geoparquet.org/releases/v1.1.0, by hand; gives back the geo metadata."""
    file = pq.ParquetFile(path)
    geo = json.loads(file.metadata.metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    assert set(geo) == {"version", "primary_column", "columns"}
    column = geo["columns"][geo["primary_column"]]
    schema = file.schema_arrow
    assert column["encoding"] == "WKB"
    assert str(schema.field(geo["primary_column"]).type) == "binary"
    assert file.schema.column(schema.names.index(geo["primary_column"])).physical_type == "BYTE_ARRAY"
    assert set(column["geometry_types"]) <= {"Polygon", "MultiPolygon"}
    assert column["edges"] == "planar"
    assert column["orientation"] == "counterclockwise"
    assert column["crs"] is None or "$schema" in column["crs"]
    covering = column["covering"]["bbox"]
    assert list(covering) == ["xmin", "ymin", "xmax", "ymax"]
    for side, (struct_name, child) in covering.items():
        assert child == side
        assert str(schema.field(struct_name).type.field(child).type) == "double"
    table = file.read()
    outlines = shapely.from_wkb(table["geometry"].to_pylist())
    assert column["geometry_types"] == sorted({one.geom_type for one in outlines})
    if len(outlines):
        assert column["bbox"] == shapely.total_bounds(outlines).tolist()
        boxes = [[box[side] for side in covering] for box in table["bbox"].to_pylist()]
        np.testing.assert_array_equal(boxes, shapely.bounds(outlines))
        for ring in shapely.get_exterior_ring(shapely.get_parts(outlines)):
            assert ring.is_ccw
    else:
        assert "bbox" not in column
    return column, table


def test_both_files_hold_the_same_rows_in_the_promised_columns(tmp_path):
    gpkg, parquet, counts = write(tmp_path, [batch(1, 4), batch(5, 3, [2, 2, 25])], dates=("2001-02-03", None))
    meta, rows, outlines = rows_of_gpkg(gpkg)
    _, table = check_geoparquet(parquet)
    assert list(meta["fields"]) == COLUMNS
    assert table.column_names == [*COLUMNS, "geometry", "bbox"]
    assert counts == {1: 4, 2: 2, 25: 1}
    assert rows == table.select(COLUMNS).to_pylist()
    assert shapely.equals_exact(outlines, shapely.from_wkb(table["geometry"].to_pylist())).all()
    assert rows[5] == {
        **{"id": 6, "from": HOSTILE.words[0], "to": HOSTILE.words[1], "p_change": 6 / 8, "p_from": None, "p_to": 0.25},
        **{"area_m2": 21.0, "n_px": 12, "date_before": "2001-02-03", "date_after": None, "edge": True},
        **{"flags": "touches_not_processed", "review_status": "open", "review_reason": None, "reviewer": None},
    }


def test_each_batch_is_one_row_group_and_none_is_pulled_ahead(tmp_path):
    alive = []

    def batches():
        for number in range(5):
            alive.append(number)
            yield batch(number * 4 + 1)

    _, parquet, _ = write(tmp_path, batches())
    assert alive == list(range(5))
    assert [pq.ParquetFile(parquet).metadata.row_group(i).num_rows for i in range(5)] == [4] * 5


def test_hostile_words_come_out_as_they_went_in(tmp_path):
    codes = np.arange(1, 26)
    gpkg, parquet, _ = write(tmp_path, [batch(1, 25, codes)])
    words = [(HOSTILE.transition(code).before, HOSTILE.transition(code).after) for code in codes.tolist()]
    assert [(row["from"], row["to"]) for row in rows_of_gpkg(gpkg)[1]] == words
    assert [(row["from"], row["to"]) for row in pq.read_table(parquet).to_pylist()] == words


def test_255_words_fit(tmp_path):
    many = Vocabulary(tuple(f"class {number}" for number in range(255)))
    gpkg, _, counts = write(tmp_path, [batch(1, 2, [1, 255 * 255])], vocabulary=many)
    assert [(row["from"], row["to"]) for row in rows_of_gpkg(gpkg)[1]] == [
        ("class 0", "class 0"),
        ("class 254", "class 254"),
    ]
    assert counts == {1: 1, 65025: 1}


def test_without_classes_there_is_no_from(tmp_path):
    gpkg, parquet, _ = write(tmp_path, [batch()], vocabulary=Vocabulary())
    assert {(row["from"], row["to"]) for row in rows_of_gpkg(gpkg)[1]} == {(None, CHANGED)}
    assert set(pq.read_table(parquet)["from"].to_pylist()) == {None}


@pytest.mark.parametrize("batches", [[], [replace(batch(), **{n: getattr(batch(), n)[:0] for n in batch().__slots__})]])
def test_no_polygons_make_two_valid_empty_files(tmp_path, batches):
    gpkg, parquet, counts = write(tmp_path, batches)
    meta, rows, _ = rows_of_gpkg(gpkg)
    column, table = check_geoparquet(parquet)
    assert counts == {}
    assert rows == []
    assert list(meta["fields"]) == COLUMNS
    assert (meta["geometry_type"], CRS(meta["crs"]).to_epsg()) == ("Polygon", 32631)
    assert (len(table), column["geometry_types"]) == (0, [])


@pytest.mark.parametrize("crs", ["EPSG:32631", "EPSG:4326", "EPSG:3031", ALBERS, rasterio.CRS.from_epsg(2154)])
def test_the_crs_survives_with_and_without_an_epsg_code(tmp_path, crs):
    gpkg, parquet, _ = write(tmp_path, [batch()], crs=crs)
    wanted = CRS.from_user_input(crs)
    column, _ = check_geoparquet(parquet)
    assert CRS.from_json_dict(column["crs"]).equals(wanted)
    assert CRS(pyogrio.read_info(gpkg, layer="changes")["crs"]).equals(wanted, ignore_axis_order=True)


def test_without_a_crs_both_files_say_so(tmp_path):
    gpkg, parquet, _ = write(tmp_path, [batch()], crs=None)
    assert check_geoparquet(parquet)[0]["crs"] is None
    with sqlite3.connect(gpkg) as database:
        assert database.execute("SELECT srs_id FROM gpkg_geometry_columns").fetchall() == [(-1,)]


def test_multipolygons_make_a_layer_of_multipolygons(tmp_path):
    gpkg, parquet, _ = write(tmp_path, [batch(multi=True)])
    assert pyogrio.read_info(gpkg, layer="changes")["geometry_type"] == "MultiPolygon"
    assert check_geoparquet(parquet)[0]["geometry_types"] == ["MultiPolygon"]


def test_the_geopackage_is_sound_and_indexed(tmp_path):
    gpkg, _, _ = write(tmp_path, [batch(1, 50)])
    assert struct.unpack(">I", gpkg.read_bytes()[68:72])[0] == 0x47504B47  # application_id 'GPKG'
    with sqlite3.connect(gpkg) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        assert database.execute("SELECT count(*) FROM rtree_changes_geom").fetchone() == (50,)
    assert pyogrio.list_layers(gpkg)[0].tolist() == ["changes", "Polygon"]
    _, fids, _, _ = pyogrio.raw.read(gpkg, layer="changes", bbox=(101, 1, 102, 2), return_fids=True)
    assert len(fids) == 1


def test_qgis_finds_a_default_style_with_every_word_and_its_colour(tmp_path):
    gpkg, _, _ = write(tmp_path, [batch()])
    with sqlite3.connect(gpkg) as database:
        table, column, style, default = database.execute(
            "SELECT f_table_name, f_geometry_column, styleQML, useAsDefault FROM layer_styles"
        ).fetchone()
    assert (table, column, default) == ("changes", "geom", 1)
    renderer = ET.fromstring(style).find("renderer-v2")
    assert renderer.get("attr") == "to"
    assert [one.get("value") for one in renderer.iter("category")] == list(HOSTILE.words)
    fills = {
        symbol.get("name"): symbol.find(".//Option[@name='color']").get("value") for symbol in renderer.iter("symbol")
    }
    for code, one in enumerate(renderer.iter("category"), 1):
        assert fills[one.get("symbol")].startswith(",".join(map(str, HOSTILE.color(code))) + ",")


def test_without_classes_the_style_has_the_colour_of_change():
    (symbol,) = ET.fromstring(qgis_style(Vocabulary())).iter("symbol")
    assert symbol.find(".//Option[@name='color']").get("value") == ",".join(map(str, (*CHANGED_COLOR, 110)))


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=1))
def test_any_word_that_a_vocabulary_takes_makes_a_readable_style(word):
    try:
        vocabulary = Vocabulary((word,))
    except VocabularyError:
        return
    (category,) = ET.fromstring(qgis_style(vocabulary)).iter("category")
    assert category.get("value") == "".join(letter for letter in word if letter not in "\ufffe\uffff")


def test_equal_polygons_make_equal_bytes(tmp_path):
    files = []
    for name in "ab":
        (tmp_path / name).mkdir()
        files.append([path.read_bytes() for path in write(tmp_path / name, [batch(1, 30), batch(31, 5)])[:2]])
    assert files[0] == files[1]


def test_files_that_are_already_there_are_replaced(tmp_path):
    write(tmp_path, [batch(1, 9)])
    gpkg, parquet, _ = write(tmp_path, [batch(1, 2)])
    assert len(rows_of_gpkg(gpkg)[1]) == len(pq.read_table(parquet)) == 2


@pytest.mark.filterwarnings("error")
def test_a_temporary_name_is_no_reason_to_warn(tmp_path):
    part, other = tmp_path / "changes.gpkg.part", tmp_path / "changes.parquet.part"
    write_polygons([batch()], gpkg=part, parquet=other, crs=None, vocabulary=HOSTILE)
    assert len(rows_of_gpkg(part.rename(tmp_path / "changes.gpkg"))[1]) == 4


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(OutputError, match="absent"):
        write(tmp_path / "absent", [batch()])


class Trouble(Exception):
    """Not one that the writers know."""


@pytest.mark.parametrize(
    ("raised", "comes_out"),
    [
        (Trouble("mid-stream"), Trouble),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(errno.ENOSPC, "No space left on device"), DiskFull),
    ],
)
def test_an_error_in_the_middle_of_the_stream_comes_out_as_what_it_was(tmp_path, raised, comes_out):
    def batches():
        yield batch()
        raise raised

    with pytest.raises(comes_out):
        write(tmp_path, batches())


@pytest.mark.real
def test_a_real_label_map_goes_through_whole_and_in_chunks(tmp_path):
    source = REAL / "levir-cd/label"
    labels = sorted(source.glob("*.png")) if source.is_dir() else []
    if not labels:
        pytest.skip("needs the development imagery in ../shared/data")
    with rasterio.open(labels[0]) as image:
        codes = (image.read(1) > 127).astype(np.uint8)
    profile = {"driver": "GTiff", "height": codes.shape[0], "width": codes.shape[1], "dtype": "uint8"}
    profile |= {"crs": "EPSG:32614", "transform": rasterio.Affine(0.5, 0, 6e5, 0, -0.5, 3.3e6)}
    for name, count in (("change.tif", 3), ("confidence.tif", 1)):
        with rasterio.open(tmp_path / name, "w", count=count, **profile) as out:
            out.write(np.stack([codes] * count))
    outlines = []
    for chunk in (50, 2048):
        batches = polygonize(tmp_path / "change.tif", tmp_path / "confidence.tif", Vocabulary(), chunk=chunk)
        gpkg, _, counts = write(tmp_path, batches, crs="EPSG:32614", vocabulary=Vocabulary())
        _, rows, geometry = rows_of_gpkg(gpkg)
        assert sum(row["n_px"] for row in rows) == codes.sum()
        assert counts == ({1: len(rows)} if rows else {})
        outlines.append(sorted(shapely.to_wkb(geometry)))
    assert outlines[0] == outlines[1]
