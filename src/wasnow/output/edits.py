"""Edits that people made to the polygons of a result folder after the run wrote them.

``changes.parquet`` holds the same polygons as ``changes.gpkg`` and no reviewer writes to it, so the two are compared.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from wasnow.output.layout import GEOPACKAGE, GEOPARQUET
from wasnow.output.vector.files import ATTRIBUTES, LAYER

REVIEW_COLUMNS = ("review_status", "review_reason", "reviewer")
_BATCH = 4096


@dataclass(frozen=True, slots=True)
class Edits:
    """Number of polygons that differ from what the run wrote.

    Attributes:
        reviewed: polygons whose review columns were filled.
        changed: polygons with another difference.
        added: polygons that the run did not write.
        removed: polygons of the run that are gone.
    """

    reviewed: int = 0
    changed: int = 0
    added: int = 0
    removed: int = 0

    def __bool__(self) -> bool:
        return any((self.reviewed, self.changed, self.added, self.removed))

    @property
    def only_reviewed(self) -> bool:
        """Whether polygons were reviewed, and none was changed, added or removed."""
        return bool(self.reviewed) and not (self.changed or self.added or self.removed)

    def __str__(self) -> str:
        counts = [(self.reviewed, "reviewed"), (self.changed, "changed")]
        counts += [(self.added, "added"), (self.removed, "removed")]
        return "polygons " + ", ".join(f"{name}: {count:,}" for count, name in counts if count)


def polygon_edits(folder: Path) -> Edits | None:
    """Compare the polygons of a result folder with those that the run wrote.

    Changes in a write-ahead log beside the GeoPackage are included. Nothing is written.

    Returns:
        The edits; None if one of the two files is missing or cannot be read.
    """
    if not (folder / GEOPACKAGE).is_file():
        return None
    try:
        written = dict(_written_rows(folder / GEOPARQUET))
        reviewed = changed = added = 0
        with contextlib.closing(_opened(folder / GEOPACKAGE)) as base:
            names = ", ".join(f'"{name}"' for name in ATTRIBUTES.names)
            for row in base.execute(f'SELECT {names}, geom FROM "{LAYER}"'):
                values, review, geometry = row[:-4], row[-4:-1], row[-1]
                original = written.pop(values[0], None)
                if original is None:
                    added += 1
                elif original != _digest(values, _wkb(geometry)):
                    changed += 1
                elif review != ("open", None, None):
                    reviewed += 1
        return Edits(reviewed, changed, added, len(written))
    except (sqlite3.Error, OSError, pa.ArrowException, ValueError, IndexError, TypeError):
        return None


def reviewed_polygons(path: Path) -> int:
    """Return the number of polygons of a GeoPackage with filled review columns; 0 if it cannot be read."""
    edited = " OR ".join(["review_status IS NOT 'open'", "review_reason IS NOT NULL", "reviewer IS NOT NULL"])
    try:
        with contextlib.closing(_opened(path)) as base:
            return int(base.execute(f'SELECT count(*) FROM "{LAYER}" WHERE {edited}').fetchone()[0])
    except sqlite3.Error:
        return 0


def _opened(path: Path) -> sqlite3.Connection:
    """Open a database for reading; without a write-ahead log nothing is created beside it."""
    log = path.with_name(f"{path.name}-wal")
    options = "mode=ro" if log.is_file() and log.stat().st_size else "mode=ro&immutable=1"
    return sqlite3.connect(f"{path.absolute().as_uri()}?{options}", uri=True)


def _written_rows(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield id and digest of the polygons in the GeoParquet file."""
    attributes = [name for name in ATTRIBUTES.names if name not in REVIEW_COLUMNS]
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH, columns=[*attributes, "geometry"]):
            columns = [batch[name].to_pylist() for name in attributes]
            for *values, geometry in zip(*columns, batch["geometry"].to_pylist(), strict=True):
                yield values[0], _digest(tuple(values), geometry)


def _digest(values: tuple[object, ...], wkb: bytes) -> bytes:
    plain = tuple(int(value) if isinstance(value, bool) else value for value in values)
    return hashlib.blake2b(repr(plain).encode() + wkb, digest_size=16).digest()


def _wkb(geometry: bytes) -> bytes:
    """Return the WKB of a GeoPackage geometry: without its header and envelope (GeoPackage 1.3, section 2.1.3)."""
    envelope = (0, 32, 48, 48, 64)[geometry[3] >> 1 & 7]
    return geometry[8 + envelope :]
