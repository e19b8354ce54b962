"""What a GIS reads from the sidecar files, asked of GDAL itself."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import rasterio

from wasnow.output.report.style import aux_xml, qml, transition_counts, write_styles
from wasnow.vocabulary import Vocabulary

HOSTILE = ('<b>&"bold"</b>', "]]> 'quoted'", "été → 水")


@pytest.fixture(scope="module")
def gdal() -> ctypes.CDLL:
    """The libgdal that rasterio's wheel brings; conda and system builds keep it elsewhere."""
    found = sorted(Path(rasterio.__file__).parent.parent.glob("rasterio.libs/libgdal-*.so*"))
    if not found:
        pytest.skip("no libgdal under rasterio.libs: rasterio is not a Linux wheel from PyPI")
    library = ctypes.CDLL(str(found[0]))
    pointer, integer, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    for name, result, arguments in (
        ("GDALOpen", pointer, [text, integer]),
        ("GDALClose", integer, [pointer]),
        ("GDALGetRasterBand", pointer, [pointer, integer]),
        ("GDALGetDefaultRAT", pointer, [pointer]),
        ("GDALRATGetRowCount", integer, [pointer]),
        ("GDALRATGetColumnCount", integer, [pointer]),
        ("GDALRATGetNameOfCol", text, [pointer, integer]),
        ("GDALRATGetUsageOfCol", integer, [pointer, integer]),
        ("GDALRATGetTableType", integer, [pointer]),
        ("GDALRATGetValueAsString", text, [pointer, integer, integer]),
        ("GDALRATGetRowOfValue", integer, [pointer, ctypes.c_double]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.GDALAllRegister()
    return library


def tables(gdal: ctypes.CDLL, path: Path) -> Iterator[list[dict[str, str]]]:
    """The raster attribute table of each of the three bands, as GDAL understands it."""
    dataset = gdal.GDALOpen(str(path).encode(), 0)
    assert dataset
    try:
        for band in (1, 2, 3):
            table = gdal.GDALGetDefaultRAT(gdal.GDALGetRasterBand(dataset, band))
            assert table, f"GDAL finds no attribute table on band {band}"
            assert gdal.GDALRATGetTableType(table) == 0  # thematic
            names = [gdal.GDALRATGetNameOfCol(table, i).decode() for i in range(gdal.GDALRATGetColumnCount(table))]
            rows = range(gdal.GDALRATGetRowCount(table))
            yield [
                {name: gdal.GDALRATGetValueAsString(table, row, i).decode() for i, name in enumerate(names)}
                for row in rows
            ]
    finally:
        gdal.GDALClose(dataset)


def test_gdal_reads_a_class_for_every_code(gdal: ctypes.CDLL, make_run: Any, tmp_path: Path):
    record = make_run()
    write_styles(tmp_path, record)
    before, after, transition = tables(gdal, tmp_path / "change.tif")
    words = ["no change", "water", "building", "field", "not processed"]
    assert [row["Class"] for row in before] == words == [row["Class"] for row in after]
    assert [row["Value"] for row in before] == ["0", "1", "2", "3", "255"]
    assert [(row["Value"], row["From"], row["To"]) for row in transition] == [
        ("0", "", ""),
        ("1", "water", "water"),
        ("9", "field", "field"),
        ("255", "", ""),
    ]
    assert (before[1]["Red"], before[1]["Green"], before[1]["Blue"]) == tuple(map(str, Vocabulary(("water",)).color(1)))


def test_the_counts_are_those_of_the_pixels(gdal: ctypes.CDLL, make_run: Any, tmp_path: Path):
    codes = np.random.default_rng(3).choice([0, 1, 2, 6, 7, 255], (40, 50)).astype(np.uint8)
    write_styles(tmp_path, make_run(codes))
    with rasterio.open(tmp_path / "change.tif") as source:
        bands = source.read()
    for band, table in zip(bands, tables(gdal, tmp_path / "change.tif"), strict=True):
        assert {int(row["Value"]): int(row["Count"]) for row in table if row["Count"] != "0"} == {
            int(value): int(count) for value, count in zip(*np.unique(band, return_counts=True), strict=True)
        }


def test_the_counts_are_those_of_the_pixels_without_words_too(gdal: ctypes.CDLL, make_run: Any, tmp_path: Path):
    write_styles(tmp_path, make_run(words=()))
    with rasterio.open(tmp_path / "change.tif") as source:
        bands = source.read()
    for band, table in zip(bands, tables(gdal, tmp_path / "change.tif"), strict=True):
        assert {int(row["Value"]): int(row["Count"]) for row in table} == {
            int(value): int(count) for value, count in zip(*np.unique(band, return_counts=True), strict=True)
        }


def test_hostile_words_arrive_unchanged(gdal: ctypes.CDLL, make_run: Any, tmp_path: Path):
    write_styles(tmp_path, make_run(words=HOSTILE))
    before, _, transition = tables(gdal, tmp_path / "change.tif")
    assert tuple(row["Class"] for row in before[1:-1]) == HOSTILE
    assert transition[1]["From"] == HOSTILE[0]


def test_band_one_has_the_colours_of_the_classes(make_run: Any, tmp_path: Path):
    record = make_run()
    write_styles(tmp_path, record)
    vocabulary = Vocabulary(record.model.classes)
    with rasterio.open(tmp_path / "change.tif") as source:
        colormap = source.colormap(1)
    for code in (1, 2, 3):
        assert colormap[code] == (*vocabulary.color(code), 255)
    assert colormap[255][3] == colormap[200][3] == 0


def test_sixteen_bit_codes_have_their_tables(gdal: ctypes.CDLL, make_run: Any, tmp_path: Path):
    record = make_run(words=[f"class {i}" for i in range(30)])
    write_styles(tmp_path, record)
    before, _, transition = tables(gdal, tmp_path / "change.tif")
    assert len(before) == 32
    assert [row["Value"] for row in transition] == ["0", "1", "900", "65535"]
    with rasterio.open(tmp_path / "change.tif") as source:
        assert source.colormap(1)[30] == (*Vocabulary(record.model.classes).color(30), 255)


def test_without_counts_every_transition_is_listed_and_no_column_claims_to_count():
    root = ET.fromstring(aux_xml(Vocabulary(("a", "b"))))
    table = root.findall("PAMRasterBand")[2].find("GDALRasterAttributeTable")
    assert table is not None
    assert [row.find("F").text for row in table.findall("Row")] == ["0", "1", "2", "3", "4", "255"]  # type: ignore[union-attr]
    assert "Count" not in [name.text for name in table.iter("Name")]


def test_counts_add_up_to_the_raster(make_run: Any):
    record = make_run()
    assert sum(transition_counts(record).values()) == record.pixels.total


def test_the_qgis_style_paints_band_three_with_what_occurs():
    vocabulary = Vocabulary(HOSTILE)
    text = qml(vocabulary, occurring=[9, 2, 2])
    renderer = ET.fromstring(text).find("pipe/rasterrenderer")
    assert renderer is not None
    assert renderer.get("type") == "paletted"
    assert renderer.get("band") == "3"
    entries = {entry.get("value"): entry for entry in renderer.iter("paletteEntry")}
    assert list(entries) == ["0", "2", "9", "255"]
    assert entries["2"].get("label") == vocabulary.transition(2).label
    assert entries["2"].get("color") == "#{:02x}{:02x}{:02x}".format(*vocabulary.transition(2).color)
    assert entries["0"].get("alpha") == "0"
    assert text.startswith("<!DOCTYPE qgis")


def test_the_same_run_gives_the_same_bytes(make_run: Any, tmp_path: Path):
    record = make_run()
    first = [path.read_bytes() for path in write_styles(tmp_path, record)]
    assert first == [path.read_bytes() for path in write_styles(tmp_path, record)]
