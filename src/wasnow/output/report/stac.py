"""``item.json``: the run as a STAC 1.1 Item for catalogues.

    RunRecord ──> geometry, bbox      outline in WGS 84
              ──> datetime            from the first day of before to the last day of after
              ──> proj:*              the result grid                        projection  v2.0
              ──> processing:*        software, lineage                      processing  v1.2
              ──> assets ──> bands    classes with value, name, colour       classification v2.0, raster v2.0
                         ──> file:*   size, checksum                         file        v2.1

A run without georeference has a null geometry and no ``proj:`` fields. STAC requires a time: if a date is unknown,
``datetime`` is the time of processing, and ``wasnow:datetime_is`` says so.
"""

from __future__ import annotations

import calendar
import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pyproj import CRS

from wasnow.output.build_record import file_sum
from wasnow.output.layout import (
    ATTRIBUTES,
    CHANGE,
    CONFIDENCE,
    CONFIDENCE_MISSING,
    CONFIDENCE_SCALE,
    GEOPACKAGE,
    GEOPARQUET,
    ITEM,
    LANDCOVER,
    RECORD_NAME,
    REPORT,
    STYLE,
)
from wasnow.output.record import FileSum, GridRecord, InputRecord, RunRecord
from wasnow.output.report.ground import bbox, footprint, geojson
from wasnow.output.report.style import NO_CHANGE, NOT_PROCESSED, NOT_PROCESSED_COLOR
from wasnow.vocabulary import NO_CHANGE_COLOR, Vocabulary

_EXTENSION = "https://stac-extensions.github.io/{}/schema.json"
PROJECTION = _EXTENSION.format("projection/v2.0.0")
RASTER = _EXTENSION.format("raster/v2.0.0")
CLASSIFICATION = _EXTENSION.format("classification/v2.0.0")
PROCESSING = _EXTENSION.format("processing/v1.2.0")
FILE = _EXTENSION.format("file/v2.1.0")

_COG = "image/tiff; application=geotiff; profile=cloud-optimized"

# name -> (asset key, media type, roles, title)
_ASSETS: dict[str, tuple[str, str, tuple[str, ...], str]] = {
    CHANGE: ("change", _COG, ("data",), "Class before, class after and transition"),
    CONFIDENCE: ("confidence", _COG, ("data", "confidence"), "Change probability and class probabilities"),
    GEOPACKAGE: ("polygons", "application/geopackage+sqlite3", ("data",), "Changed areas as polygons"),
    GEOPARQUET: ("polygons_parquet", "application/vnd.apache.parquet", ("data",), "The same as GeoParquet"),
    RECORD_NAME: ("record", "application/json", ("metadata",), "Inputs, options and outcome of the run"),
    REPORT: ("report", "text/html", ("overview",), "Report of the run"),
    STYLE: ("style", "application/xml", ("metadata",), "QGIS style of the change raster"),
    ATTRIBUTES: ("attributes", "application/xml", ("metadata",), "Raster attribute tables (GDAL)"),
    LANDCOVER[0]: ("landcover_before", _COG, ("data",), "Land cover before, not masked by change"),
    LANDCOVER[1]: ("landcover_after", _COG, ("data",), "Land cover after, not masked by change"),
    **{
        f"landcover_{date}.tif.aux.xml": (
            f"landcover_{date}_attributes",
            "application/xml",
            ("metadata",),
            f"Raster attribute table of the classes {date} (GDAL)",
        )
        for date in ("before", "after")
    },
}


def stac_item(record: RunRecord, *, item_id: str | None = None, files: Iterable[FileSum] = ()) -> dict[str, Any]:
    """Return the Item as JSON values.

    Args:
        record: the record of the finished run.
        item_id: the id within a catalogue; None makes one from the two file names and the time of the run.
        files: files of the folder in addition to ``record.outputs``, which cannot list ``run.json`` itself. Files
            that are not results of a run are ignored.
    """
    import pystac

    shape = footprint(record.grid)
    extensions = [PROCESSING, RASTER, CLASSIFICATION, FILE]
    properties: dict[str, Any] = {
        **_unknown_dates(record),
        "title": f"Change from {_name(record.before)} to {_name(record.after)}",
        "created": _stamp(_moment(record.finished)),
        "processing:lineage": _lineage(record),
        "processing:software": {"wasnow": record.wasnow, **_versions(record)},
        "wasnow:status": record.status,
        "wasnow:model": record.model.name,
        "wasnow:changed_pixels": record.pixels.changed,
    }
    if record.areas_m2 is not None:
        properties["wasnow:changed_area_m2"] = record.areas_m2.changed
    if record.grid.gsd_m is not None:
        properties["gsd"] = record.grid.gsd_m
    if record.grid.crs is not None:
        extensions.insert(0, PROJECTION)
        properties |= _projection(record.grid)
    moment, start, end = _when(record)
    item = pystac.Item(
        id=item_id or _item_id(record),
        geometry=None if shape is None else geojson(shape),
        bbox=None if shape is None else bbox(shape),
        datetime=moment,
        start_datetime=start,
        end_datetime=end,
        properties=properties,
        stac_extensions=extensions,
        assets={key: pystac.Asset.from_dict(asset) for key, asset in _assets(record, files).items()},
    )
    return item.to_dict(include_self_link=False, transform_hrefs=False)


def write_item(folder: Path, record: RunRecord, *, item_id: str | None = None) -> Path:
    """Write ``item.json`` for the files that are now in the folder, and return its path; call it last.

    Args:
        folder: the result folder.
        record: the record of the finished run.
        item_id: see `stac_item`.
    """
    known = {output.name for output in record.outputs}
    files = [file_sum(folder / name) for name in _ASSETS if name not in known and (folder / name).is_file()]
    path = folder / ITEM
    text = json.dumps(stac_item(record, item_id=item_id, files=files), indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def interval(date: str) -> tuple[datetime, datetime]:
    """Return the first and last second of ``2019``, ``2019-06``, ``2019-06-30`` or an ISO 8601 time (UTC by default).

    Raises:
        ValueError: the text has another format.
    """
    parts = re.fullmatch(r"(\d{4})(?:-(\d{2}))?(?:-(\d{2}))?", date.strip())
    if parts is None:
        moment = _moment(date)
        return moment, moment
    year, month, day = (int(part) if part else None for part in parts.groups())
    first = datetime(year or 1, month or 1, day or 1, tzinfo=UTC)
    last_month = month or 12
    last_day = day or calendar.monthrange(first.year, last_month)[1]
    last = datetime(first.year, last_month, last_day, tzinfo=UTC) + timedelta(days=1, seconds=-1)
    return first, last


def _spans(record: RunRecord) -> list[tuple[datetime, datetime] | None]:
    return [_interval_or_none(source.date) for source in (record.before, record.after)]


def _when(record: RunRecord) -> tuple[datetime | None, datetime | None, datetime | None]:
    """Return datetime, start and end of the item."""
    known = [span for span in _spans(record) if span is not None]
    if len(known) == 2:
        return None, min(first for first, _ in known), max(last for _, last in known)
    return _moment(record.finished), None, None


def _unknown_dates(record: RunRecord) -> dict[str, Any]:
    """Return remarks on dates that are unknown or doubtful, and the date that is known."""
    spans = _spans(record)
    doubts = {
        f"wasnow:{name}_date_doubt": source.date_doubt
        for name, source in (("before", record.before), ("after", record.after))
        if source.date_doubt is not None
    }
    unknown = " and ".join(name for name, span in zip(("before", "after"), spans, strict=True) if span is None)
    if not unknown:
        return doubts
    found: dict[str, Any] = {
        **doubts,
        "wasnow:datetime_is": f"time of processing: the date of {unknown} is not known",
    }
    for name, source, span in zip(("before", "after"), (record.before, record.after), spans, strict=True):
        if span is not None:
            found[f"wasnow:{name}_date"] = source.date
    return found


def _interval_or_none(date: str | None) -> tuple[datetime, datetime] | None:
    try:
        return None if date is None else interval(date)
    except ValueError:
        return None


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text.strip())
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _projection(grid: GridRecord) -> dict[str, Any]:
    crs = CRS.from_user_input(grid.crs)
    a, b, c, d, e, f = grid.transform
    corners = [(0, 0), (grid.width, 0), (0, grid.height), (grid.width, grid.height)]
    xs = [a * col + b * row + c for col, row in corners]
    ys = [d * col + e * row + f for col, row in corners]
    found: dict[str, Any] = {
        "proj:code": grid.crs if re.fullmatch(r"[A-Za-z]+:\w+", grid.crs or "") else None,
        "proj:shape": [grid.height, grid.width],
        "proj:transform": [a, b, c, d, e, f],
        "proj:bbox": [min(xs), min(ys), max(xs), max(ys)],
    }
    if found["proj:code"] is None:
        found["proj:wkt2"] = crs.to_wkt("WKT2_2019")
    return found


def _assets(record: RunRecord, files: Iterable[FileSum]) -> dict[str, dict[str, Any]]:
    present = {file.name: file for file in (FileSum(name=RECORD_NAME, size=None, sha256=None), *record.outputs, *files)}
    assets: dict[str, dict[str, Any]] = {}
    for name, (key, media_type, roles, title) in _ASSETS.items():
        if name not in present:
            continue
        asset: dict[str, Any] = {"href": f"./{name}", "type": media_type, "title": title, "roles": list(roles)}
        if present[name].size is not None:
            asset["file:size"] = present[name].size
        if present[name].sha256 is not None:
            asset["file:checksum"] = f"1220{present[name].sha256}"  # multihash: 0x12 is SHA-256, 0x20 its length
        if name == CHANGE:
            asset["bands"] = _change_bands(record)
        elif name == CONFIDENCE:
            asset["bands"] = _confidence_bands(record)
        elif key in ("landcover_before", "landcover_after"):
            asset["bands"] = [
                _code_band(record, key, title, [(row.code, row.word, row.color) for row in record.landcover])
            ]
        assets[key] = asset
    return assets


def _change_bands(record: RunRecord) -> list[dict[str, Any]]:
    vocabulary = Vocabulary(record.model.classes)
    classes = [(code, word, vocabulary.color(code)) for code, word in enumerate(vocabulary.words, start=1)]
    transitions = [(row.code, vocabulary.transition(row.code).label, row.color) for row in record.transitions]
    bands = [
        ("before_class", "Class of changed pixels before", classes),
        ("after_class", "Class of changed pixels after", classes),
        ("transition", "Transition; those that occur are listed", transitions),
    ]
    zero = (0, NO_CHANGE, NO_CHANGE_COLOR)
    return [_code_band(record, name, description, [zero, *rows]) for name, description, rows in bands]


_Class = tuple[int, str, tuple[int, int, int]]


def _code_band(record: RunRecord, name: str, description: str, rows: list[_Class]) -> dict[str, Any]:
    """Return a band of codes.

    Args:
        record: the record of the run.
        name: of the band.
        description: of the band.
        rows: value, title and colour of each code.
    """
    vocabulary = Vocabulary(record.model.classes)
    return {
        "name": name,
        "description": description,
        "data_type": vocabulary.dtype.name,
        "nodata": vocabulary.not_processed,
        **({"raster:spatial_resolution": record.grid.gsd_m} if record.grid.gsd_m else {}),
        "raster:sampling": "area",
        "classification:classes": _classes(vocabulary, rows),
    }


def _classes(vocabulary: Vocabulary, rows: list[_Class]) -> list[dict[str, Any]]:
    def entry(value: int, name: str, title: str, color: tuple[int, int, int]) -> dict[str, Any]:
        return {"value": value, "name": name, "title": title, "color_hint": "{:02X}{:02X}{:02X}".format(*color)}

    # A class word may also be "no change"; names must be unique within a band.
    taken = {"no-change", "not-processed"}
    entries = [
        entry(code, "no-change" if code == 0 else _slug(title, code, taken), title, color)
        for code, title, color in rows
    ]
    last = entry(vocabulary.not_processed, "not-processed", NOT_PROCESSED, NOT_PROCESSED_COLOR)
    return [*entries, last | {"nodata": True}]


def _confidence_bands(record: RunRecord) -> list[dict[str, Any]]:
    names = [("change_probability", "Change probability")]
    if record.model.classes:
        names += [
            ("before_probability", "Probability of the class before"),
            ("after_probability", "Probability of the class after"),
        ]
    return [
        {
            "name": name,
            "description": description,
            "data_type": "uint8",
            "nodata": CONFIDENCE_MISSING,
            "raster:scale": 1 / CONFIDENCE_SCALE,
            "raster:offset": 0,
            "raster:sampling": "area",
        }
        for name, description in names
    ]


def _slug(title: str, code: int, taken: set[str]) -> str:
    """Return a name of letters, digits, ``-`` and ``_``, as the classification extension requires, unique in a band."""
    plain = re.sub(r"[^0-9A-Za-z_]+", "-", title.replace("→", " to ")).strip("-").lower()
    name = plain if plain and plain not in taken else f"{plain or 'class'}-{code}"
    taken.add(name)
    return name


def _lineage(record: RunRecord) -> str:
    classes = f" with the classes {', '.join(record.model.classes)}" if record.model.classes else ""
    own = "".join(f", {word} {value:g}" for word, value in record.model.class_thresholds.items())
    return (
        f"Changes between {_name(record.before)} and {_name(record.after)} by {record.model.name}{classes}; "
        f"threshold {record.model.threshold:g} ({record.model.threshold_from}){own}. "
        f"Before: {record.before.alignment}. After: {record.after.alignment}."
    )


def _versions(record: RunRecord) -> dict[str, str]:
    """Return the versions of libraries, without the description of the machine."""
    return {
        name: value
        for name, value in record.environment.items()
        if name != "wasnow" and re.match(r"v?\d+(\.\d+)", value)
    }


def _name(source: InputRecord) -> str:
    return re.split(r"[/\\]", source.path)[-1] or source.path


def _item_id(record: RunRecord) -> str:
    stems = "-to-".join(re.sub(r"\.[^.]*$", "", _name(source)) for source in (record.before, record.after))
    safe = re.sub(r"[^0-9A-Za-z_-]+", "-", stems).strip("-")
    return f"{safe or 'pair'}-{_moment(record.finished):%Y%m%dT%H%M%SZ}"
