"""Names of the files of a result folder, and the values in its rasters that more than one module writes or reads."""

from __future__ import annotations

RECORD_NAME = "run.json"
CHANGE, CONFIDENCE = "change.tif", "confidence.tif"
GEOPACKAGE, GEOPARQUET = "changes.gpkg", "changes.parquet"
REPORT, ITEM, STYLE, ATTRIBUTES = "report.html", "item.json", "change.qml", "change.tif.aux.xml"
SUMS = "SHA256SUMS"
OUTPUTS = (CONFIDENCE, GEOPACKAGE, GEOPARQUET, ATTRIBUTES, STYLE, CHANGE, REPORT, ITEM, SUMS, RECORD_NAME)
"""The files of every result folder, in the order in which they are renamed into it."""

LANDCOVER = ("landcover_before.tif", "landcover_after.tif")
LANDCOVER_OUTPUTS = (*(f"{name}.aux.xml" for name in LANDCOVER), *LANDCOVER)
"""The files that ``--landcover`` adds; they are renamed before all others."""

REVIEW_JOURNAL = "review.jsonl"
"""Every decision of a review, one per line."""

PAIRS_SUMMARY = "summary.json"
"""In a folder of many pairs: lists the result folders in it."""

CLASS_BANDS = ("landcover_before", "landcover_after")

CONFIDENCE_SCALE = 254
"""A probability p is stored as round(254 p)."""
CONFIDENCE_MISSING = 255
"""Stored where no probability is known."""


def output_names(*, landcover: bool) -> tuple[str, ...]:
    """Return the files of a result folder with or without class maps, in the order in which they are renamed."""
    return (*LANDCOVER_OUTPUTS, *OUTPUTS) if landcover else OUTPUTS
