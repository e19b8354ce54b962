"""Check the text files of a result folder: XML, JSON and report can be parsed, agree with run.json, and have no
external references."""

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
from wasnow.output.report.style import aux_xml, landcover_aux_xml, landcover_counts, transition_counts
from wasnow.output.verify.finding import Finding
from wasnow.storage.sidecars import essential, essential_of
from wasnow.vocabulary import Vocabulary

LARGEST = 2**28
"""Largest text file that is read, in bytes; reports are under 3 MB."""


def check_texts(folder: Path, record: RunRecord, sums: Mapping[str, str]) -> list[Finding]:
    """Return the faults of the text files of a finished run; missing files are skipped.

    Args:
        folder: the result folder.
        record: its record.
        sums: SHA-256 by file name, as the run wrote them.
    """
    covers = [f"{name}.aux.xml" for name in LANDCOVER] if record.landcover else []
    findings = []
    for name in (ATTRIBUTES, *covers, STYLE, REPORT, ITEM):
        path = folder / name
        if not path.exists():
            continue
        try:
            if path.stat().st_size > LARGEST:
                raise ValueError(f"it has {path.stat().st_size:,} bytes, at most {LARGEST:,} are read")
            text = path.read_bytes().decode("utf-8")
            if name == REPORT:
                faults = _page_faults(text)
            elif name == ITEM:
                faults = _item_faults(folder, json.loads(text), sums)
            elif name == STYLE:
                faults = [] if ET.fromstring(text).tag == "qgis" else ["is not a QGIS style"]
            else:
                faults = _table_faults(ET.fromstring(text), record, name)
        except (ValueError, ET.ParseError, OSError, RecursionError) as error:
            faults = [f"cannot be read: {' '.join(str(error).split())}"]
        findings += [Finding(name, "not valid", fault) for fault in faults]
    return findings


def only_viewer_additions(path: Path, record: RunRecord) -> bool:
    """Whether a sidecar of the run differs from what the run wrote only by what viewers store in it.

    Args:
        path: ``change.tif.aux.xml``, or the sidecar of a class map.
        record: the record of the run.
    """
    vocabulary = Vocabulary(record.model.classes)
    if path.name == ATTRIBUTES:
        text = aux_xml(vocabulary, counts=transition_counts(record))
    else:
        text = landcover_aux_xml(vocabulary, landcover_counts(record, _date_of(path.name)))
    try:
        return essential_of(path) == essential(ET.fromstring(text))
    except ValueError:
        return False


def _date_of(sidecar: str) -> int:
    return [f"{each}.aux.xml" for each in LANDCOVER].index(sidecar)


def _table_faults(root: ET.Element, record: RunRecord, name: str) -> list[str]:
    """Return whether an attribute table has other counts than run.json, or a colour table other colours.

    Args:
        root: of the sidecar.
        record: the record of the run.
        name: of the sidecar.
    """
    vocabulary = Vocabulary(record.model.classes)
    band, skipped = "3", vocabulary.not_processed
    if name == ATTRIBUTES:
        wanted = {code: pixels for code, pixels in transition_counts(record).items() if pixels or code in (0, skipped)}
    else:
        band, wanted = "1", landcover_counts(record, _date_of(name))
    table = root.find(f"PAMRasterBand[@band='{band}']/GDALRasterAttributeTable")
    colors = root.findall("PAMRasterBand[@band='1']/ColorTable/Entry")
    if table is None or not colors:
        return ["has no attribute table or no colour table"]
    columns = [field.findtext("Name") for field in table.findall("FieldDefn")]
    if not {"Value", "Class", "Count"} <= set(columns):
        return [f"its attribute table has the columns {', '.join(map(str, columns))}; Value, Class, Count are required"]
    value, count = columns.index("Value"), columns.index("Count")
    rows = [[cell.text or "" for cell in row.findall("F")] for row in table.findall("Row")]
    faults = []
    if {int(row[value]): int(float(row[count])) for row in rows if len(row) == len(columns)} != wanted:
        faults.append("the counts in its attribute table differ from run.json")
    found = [tuple(int(entry.get(f"c{channel}", -1)) for channel in (1, 2, 3)) for entry in colors]
    if any(found[code : code + 1] != [vocabulary.color(code)] for code in range(1, len(vocabulary) + 1)):
        faults.append("its colours differ from those of the classes")
    return faults


def _item_faults(folder: Path, item: Any, sums: Mapping[str, str]) -> list[str]:
    """Return whether a STAC item is invalid, or names missing files or other checksums than the run wrote.

    Args:
        folder: the result folder.
        item: the parsed JSON.
        sums: SHA-256 by file name.
    """
    if not isinstance(item, dict) or item.get("type") != "Feature" or not isinstance(item.get("assets"), dict):
        return ["is not a STAC item"]
    faults = []
    for key, asset in item["assets"].items():
        href = asset.get("href") if isinstance(asset, dict) else None
        name = str(href).removeprefix("./")
        if not isinstance(href, str) or name != Path(name).name or not (folder / name).exists():
            faults.append(f"asset {str(key)[:60]!r} links to {str(href)[:80]!r}, which is not a file of this folder")
            continue
        checksum = asset.get("file:checksum")
        if checksum is not None and name in sums and checksum != f"1220{sums[name]}":
            faults.append(f"its checksum of {name} differs from that of the run")
    return faults


class _References(HTMLParser):
    """Collects the external references of a page."""

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
                self._find_urls(value or "")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "style":
            self._find_urls(data)

    def _find_urls(self, css: str) -> None:
        for url in re.findall(r"url\(\s*['\"]?([^'\")]{0,60})", css):
            if not url.startswith(("data:", "#")):
                self.outside.append(f"url({url})")
        self.outside += re.findall(r"@import[^;]{0,60}", css)


def _page_faults(text: str) -> list[str]:
    page = _References()
    page.feed(text)
    page.close()
    if not page.tags or "</html>" not in text[-200:]:
        return ["is not a complete page"]
    return [f"has an external reference: {each}" for each in page.outside[:5]]
