"""Malicious class words: those that files cannot store are rejected; all others are text in every output.

One whole run with such words, and each of its files read back by a reader that is not ours.
"""

from __future__ import annotations

import html.parser
import json
import re
import shutil
import sqlite3
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow.parquet as pq
import pyogrio
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

import wasnow
from making import Toy, pair
from wasnow.errors import VocabularyError
from wasnow.output.change_map import ChangeMap
from wasnow.output.report.style import aux_xml, qml
from wasnow.output.vector.qgis import qgis_style
from wasnow.vocabulary import MAX_WORD_CHARACTERS, Vocabulary

WORDS = (
    "<script>document.title='ran'</script>",
    "\"><img src=x onerror=\"document.title='ran'\">",
    "</style></script><svg onload=document.title='ran'>",
    "]]><!-- & &amp; &#60; --> '\"",
    "=HYPERLINK(\"http://evil.example\")",
    "+1+1", "-2", "@SUM(A1)",
    "Robert'); DROP TABLE changes;--",
    "{{ 7 * 7 }} {% raw %} ${7*7} %s%n",
    "../../outside", "C:\\windows\\x", "a, b; c|d",
    "javascript:document.title='ran'",
    "غابة كثيفة", "שדה", "水田", "été", "e\u0301te\u0301 2", "👩‍🌾 farm", "\u200fmark",
    "w" * MAX_WORD_CHARACTERS,
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> ChangeMap:
    """A result folder with all of these words, in which half of the image has changed."""
    folder = tmp_path_factory.mktemp("words")
    before, after = pair(folder, height=64, width=64)
    with rasterio.open(after, "r+") as raster:
        values = raster.read()
        values[:, :, 32:] = np.random.default_rng(0).integers(0, 255, (3, 8, 4)).repeat(8, 1).repeat(8, 2)
        raster.write(values.astype(np.uint8))
    found = wasnow.detect(
        before, after, output=folder / "out", model=Toy(tile=64, radius=2), classes=WORDS, landcover=True
    )
    assert found.record.polygons > 3
    return found


def words_of(run: ChangeMap) -> set[tuple[str | None, str]]:
    return {(row.before, row.after) for row in run.record.transitions}


def test_the_record_lists_the_words(run: ChangeMap) -> None:
    record = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    assert tuple(record["model"]["classes"]) == WORDS


def test_polygon_attributes_are_the_words(run: ChangeMap) -> None:
    expected = words_of(run)
    meta, _, _, columns = pyogrio.raw.read(run.geopackage, layer="changes")
    table = dict(zip(meta["fields"], columns, strict=True))
    assert set(zip(table["from"], table["to"], strict=True)) == expected
    rows = pq.read_table(run.geoparquet)
    assert set(zip(rows["from"].to_pylist(), rows["to"].to_pylist(), strict=True)) == expected
    assert run.polygons().num_rows == rows.num_rows


def test_the_geopackage_keeps_all_its_tables(run: ChangeMap) -> None:
    with sqlite3.connect(run.geopackage) as base:
        assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert base.execute("SELECT count(*) FROM changes").fetchone() == (run.record.polygons,)
        style = base.execute("SELECT styleQML FROM layer_styles").fetchone()[0]
    values = [each.attrib["value"] for each in ET.fromstring(style.split("\n", 1)[1]).iter("category")]
    assert tuple(values) == WORDS


def test_converted_polygons_keep_the_words(run: ChangeMap, tmp_path: Path) -> None:
    meta, _, shapes, columns = pyogrio.raw.read(run.geopackage, layer="changes", columns=["from", "to"])
    for driver, suffix in (("GeoJSON", "geojson"), ("FlatGeobuf", "fgb")):
        pyogrio.raw.write(tmp_path / f"p.{suffix}", shapes, columns, meta["fields"], driver=driver, crs=meta["crs"],
                          geometry_type="Polygon")  # fmt: skip
        _, _, _, again = pyogrio.raw.read(tmp_path / f"p.{suffix}")
        assert set(zip(*again, strict=True)) == words_of(run)


def test_attribute_tables_contain_the_words(run: ChangeMap) -> None:
    root = ET.parse(run.folder / "change.tif.aux.xml").getroot()
    for band in root.iter("PAMRasterBand"):
        names = [each.findtext("Name") for each in band.iter("FieldDefn")]
        column = names.index("Class")
        rows = [row.findall("F")[column].text for row in band.iter("Row")]
        if band.attrib["band"] in ("1", "2"):
            assert tuple(rows[1:-1]) == WORDS
        else:
            assert set(rows[1:-1]) == {f"{before} → {after}" for before, after in words_of(run)}
    with rasterio.open(run.change) as raster:
        assert raster.tags()["wasnow_model"] == "toy"
    for path in run.landcover or ():
        root = ET.parse(f"{path}.aux.xml").getroot()
        assert {each.text for each in root.iter("F")} >= set(WORDS)


def test_the_style_contains_the_words(run: ChangeMap) -> None:
    root = ET.fromstring((run.folder / "change.qml").read_text(encoding="utf-8").split("\n", 1)[1])
    labels = {entry.attrib["label"] for entry in root.iter("paletteEntry")}
    assert labels >= {f"{before} → {after}" for before, after in words_of(run)}


def test_the_stac_item_contains_the_words_with_portable_names(run: ChangeMap) -> None:
    item = json.loads(run.item.read_text(encoding="utf-8"))
    for band in item["assets"]["change"]["bands"]:
        classes = band["classification:classes"]
        assert len({each["name"] for each in classes}) == len(classes)
        assert all(re.fullmatch(r"[0-9A-Za-z_-]+", each["name"]) for each in classes)
    assert (
        tuple(each["title"] for each in item["assets"]["change"]["bands"][0]["classification:classes"][1:-1]) == WORDS
    )


class Tags(html.parser.HTMLParser):
    """Collects the tags of a page with their attributes, and its text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside not in ("script", "style"):
            self.text.append(data)


def test_the_report_shows_the_words_as_text_only(run: ChangeMap) -> None:
    page = Tags(run.report.read_text(encoding="utf-8"))
    text = "".join(page.text)
    shown = {word for pair_ in words_of(run) for word in pair_ if word}
    assert all(word in text for word in shown)
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    links = [each.get(name) or "" for _, each in page.tags for name in ("href", "src", "action")]
    assert not any(link.strip().startswith("javascript:") for link in links)
    own = Tags(re.sub("|".join(map(re.escape, WORDS)), "", run.report.read_text(encoding="utf-8")))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in own.tags]


def test_the_notebook_representation_escapes_the_words(run: ChangeMap) -> None:
    page = Tags(run._repr_html_())
    assert {tag for tag, _ in page.tags} <= {"div", "b", "table", "tr", "td", "a"}


def test_no_word_runs_as_a_script_in_a_browser(run: ChangeMap, tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no chromium on PATH")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
             "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND"]  # fmt: skip

    def dom(page: Path) -> str:
        command = [browser, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr[-1000:]
        return done.stdout

    assert "<title>ran</title>" not in dom(run.report)
    bare = tmp_path / "bare.html"
    bare.write_text(f"<html><head><title>safe</title></head><body>{WORDS[0]}</body></html>", encoding="utf-8")
    assert "<title>ran</title>" in dom(bare), "the check cannot detect a script"


# --- rejected words ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("two\nlines", "control character"),
        ("nul\0", "control character"),
        ("\x1b[31mred", "control character"),
        ("half \ud800", r"U\+D800"),
        ("no \uffff character", r"U\+FFFF"),
        ("field\u202efdp.exe", r"U\+202E"),
        ("isolated \u2066x", r"U\+2066"),
        ("w" * (MAX_WORD_CHARACTERS + 1), "has 201 characters"),
        (" ", "is empty"),
    ],
)
def test_a_word_that_files_cannot_store_is_rejected_in_one_line(word: str, message: str) -> None:
    with pytest.raises(VocabularyError, match=message) as caught:
        Vocabulary(("water", word))
    message_text = str(caught.value)
    assert "\n" not in message_text
    assert len(message_text) < 300
    assert message_text.isprintable()
    message_text.encode()


def test_500_words_are_rejected_with_the_limit() -> None:
    with pytest.raises(VocabularyError, match="500 class words, but 16-bit transition codes hold at most 255"):
        Vocabulary(tuple(f"class {number}" for number in range(500)))


@given(st.text(min_size=1, max_size=40))
def test_every_accepted_word_survives_the_xml_outputs(word: str) -> None:
    try:
        words = Vocabulary.parse([word])
    except VocabularyError:
        return
    (taken,) = words.words
    table = ET.fromstring(aux_xml(words, counts={0: 1, 1: 1}).encode())
    assert taken in {each.text for each in table.iter("F")}
    label = f"{taken} → {taken}"
    assert label in {each.attrib["label"] for each in ET.fromstring(qml(words).encode()).iter("paletteEntry")}
    style = ET.fromstring(qgis_style(words).split("\n", 1)[1].encode())
    assert [each.attrib["value"] for each in style.iter("category")] == [taken]
