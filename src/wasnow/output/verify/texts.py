"""The texts of a result folder: XML, JSON and the page parse, agree with run.json, and ask nothing of any server."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from wasnow.output.layout import ATTRIBUTES, ITEM, LANDCOVER, REPORT, STYLE
from wasnow.output.record import RunRecord
from wasnow.output.report.style import transition_counts
from wasnow.output.verify.finding import Finding
from wasnow.vocabulary import Vocabulary

LARGEST = 2**28
"""Bytes of a text that are still read at once; the largest report is under 3 MB."""


def check_texts(folder: Path, record: RunRecord, sums: Mapping[str, str]) -> list[Finding]:
    """What is wrong with the texts of a finished run, files that are missing left out.

    Args:
        folder: the result folder.
        record: its record.
        sums: file name -> SHA-256, as the run wrote them.
    """
    covers = [f"{name}.aux.xml" for name in LANDCOVER] if record.landcover else []
    findings = []
    for name in (ATTRIBUTES, *covers, STYLE, REPORT, ITEM):
        path = folder / name
        if not path.exists():
            continue
        try:
            if path.stat().st_size > LARGEST:
                raise ValueError(f"{path.stat().st_size:,} bytes are too many for such a file")
            text = path.read_bytes().decode("utf-8")
            if name == REPORT:
                faults = _page_faults(text)
            elif name == ITEM:
                faults = _item_faults(folder, json.loads(text), sums)
            elif name == STYLE:
                faults = [] if ET.fromstring(text).tag == "qgis" else ["is no QGIS style"]
            else:
                faults = _table_faults(ET.fromstring(text), record, name)
        except (ValueError, ET.ParseError, OSError, RecursionError) as error:
            faults = [f"cannot be read: {' '.join(str(error).split())}"]
        findings += [Finding(name, "not valid", fault) for fault in faults]
    return findings


def _table_faults(root: ET.Element, record: RunRecord, name: str) -> list[str]:
    """Where an attribute table counts other pixels than run.json, or a colour table has other colours."""
    vocabulary = Vocabulary(record.model.classes)
    band, hidden = "3", vocabulary.not_processed
    if name == ATTRIBUTES:
        wanted = {code: pixels for code, pixels in transition_counts(record).items() if pixels or code in (0, hidden)}
    else:
        date, band = [f"{each}.aux.xml" for each in LANDCOVER].index(name), "1"
        wanted = {row.code: row.pixels[date] for row in record.landcover}
        wanted[hidden] = sum(record.pixels.not_processed.values())
    table = root.find(f"PAMRasterBand[@band='{band}']/GDALRasterAttributeTable")
    colors = root.findall("PAMRasterBand[@band='1']/ColorTable/Entry")
    if table is None or not colors:
        return ["has no attribute table or no colours"]
    columns = [field.findtext("Name") for field in table.findall("FieldDefn")]
    if not {"Value", "Class", "Count"} <= set(columns):
        return [f"its attribute table has the columns {', '.join(map(str, columns))}"]
    value, count = columns.index("Value"), columns.index("Count")
    rows = [[cell.text or "" for cell in row.findall("F")] for row in table.findall("Row")]
    faults = []
    if {int(row[value]): int(float(row[count])) for row in rows if len(row) == len(columns)} != wanted:
        faults.append("its attribute table counts other pixels than run.json")
    found = [tuple(int(entry.get(f"c{channel}", -1)) for channel in (1, 2, 3)) for entry in colors]
    if any(found[code : code + 1] != [vocabulary.color(code)] for code in range(1, len(vocabulary) + 1)):
        faults.append("its colours are not those of the classes")
    return faults


def _item_faults(folder: Path, item: Any, sums: Mapping[str, str]) -> list[str]:
    """Where a STAC item is none, names files that are not there, or other checksums than the run wrote."""
    if not isinstance(item, dict) or item.get("type") != "Feature" or not isinstance(item.get("assets"), dict):
        return ["is no STAC item"]
    faults = []
    for key, asset in item["assets"].items():
        href = asset.get("href") if isinstance(asset, dict) else None
        name = str(href).removeprefix("./")
        if not isinstance(href, str) or name != Path(name).name or not (folder / name).exists():
            faults.append(f"asset {str(key)[:60]!r} leads to {str(href)[:80]!r}, which is no file of this folder")
            continue
        checksum = asset.get("file:checksum")
        if checksum is not None and name in sums and checksum != f"1220{sums[name]}":
            faults.append(f"names another checksum of {name} than the run wrote")
    return faults


class _References(HTMLParser):
    """Whatever a page would fetch or lead to, other than itself and what it carries."""

    ATTRIBUTES = frozenset(
        ("src", "href", "srcset", "action", "formaction", "data", "poster", "background", "xlink:href")
    )

    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.tags = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags += 1
        for name, value in attrs:
            if name in self.ATTRIBUTES and value and not value.startswith(("#", "data:")):
                self.outside.append(f"<{tag} {name}={value[:60]!r}>")
            if name == "style":
                self._look_for_urls(value or "")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "style":
            self._look_for_urls(data)

    def _look_for_urls(self, css: str) -> None:
        for url in re.findall(r"url\(\s*['\"]?([^'\")]{0,60})", css):
            if not url.startswith(("data:", "#")):
                self.outside.append(f"url({url})")
        self.outside += re.findall(r"@import[^;]{0,60}", css)


def _page_faults(text: str) -> list[str]:
    page = _References()
    page.feed(text)
    page.close()
    if not page.tags or "</html>" not in text[-200:]:
        return ["is no whole page"]
    return [f"refers to something outside itself: {each}" for each in page.outside[:5]]
