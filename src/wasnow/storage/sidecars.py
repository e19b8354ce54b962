"""GDAL's ``.aux.xml`` sidecars without what viewers add to them.

Opening a raster in QGIS, ArcGIS or with GDAL can create its ``.aux.xml``, or rewrite an existing one, to store
statistics, histograms and band descriptions. None of these change the pixels or the grid of the raster.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from xml.etree import ElementTree as ET

SUFFIX = ".aux.xml"
MAX_BYTES = 2**24
"""Larger sidecars are not parsed."""

_VIEWER_TAGS = frozenset(("Histograms", "Description"))
_VIEWER_DOMAINS = frozenset(("Esri", "xml:ESRI"))

Node = tuple[str, tuple[tuple[str, str], ...], str, tuple["Node", ...]]
"""Tag, attributes, text and children of an element."""


def essential(root: ET.Element) -> Node | None:
    """Return an element without statistics, histograms, descriptions and white space; None if nothing remains."""
    if root.tag in _VIEWER_TAGS or (root.tag == "Metadata" and root.get("domain") in _VIEWER_DOMAINS):
        return None
    if root.tag == "MDI" and (root.get("key") or "").startswith("STATISTICS_"):
        return None
    children = tuple(child for each in root if (child := essential(each)) is not None)
    if root.tag in ("PAMDataset", "PAMRasterBand", "Metadata") and not children:
        return None
    return root.tag, tuple(sorted(root.attrib.items())), _number((root.text or "").strip()), children


def essential_of(path: Path) -> Node | None:
    """Return the essential content of a sidecar; None if it has only what viewers add.

    Raises:
        ValueError: it is not a sidecar that can be parsed.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path.name} has {path.stat().st_size} bytes, at most {MAX_BYTES} are read")
        return essential(ET.fromstring(path.read_bytes()))
    except (ET.ParseError, OSError, RecursionError) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from None


def essential_sha256(path: Path) -> str | None:
    """Return the SHA-256 of the essential content; None if the sidecar has only what viewers add."""
    try:
        content = essential_of(path)
    except ValueError:
        content = ("damaged", (), path.read_bytes().hex(), ())
    return None if content is None else hashlib.sha256(repr(content).encode()).hexdigest()


def _number(text: str) -> str:
    """Return equal text for equal numbers: GDAL rewrites 12.0 as 12."""
    try:
        return repr(float(text))
    except ValueError:
        return text
