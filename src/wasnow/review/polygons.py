"""The polygons of a result while they are reviewed. ``changes.gpkg`` is the truth; every decision is saved at once.

    changes.gpkg       review_status, review_reason, reviewer, reviewed_at of each polygon; edited outlines
    review.jsonl       one line per decision: time, reviewer, polygon, old and new values; nothing is ever removed

The file is read again before each decision, so edits made in QGIS or by another reviewer are noticed and kept.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from wasnow.errors import InputError, OutputError
from wasnow.output.layout import GEOPACKAGE, REVIEW_JOURNAL
from wasnow.output.vector.files import LAYER, REVIEWED_AT
from wasnow.review.geopackage import SPATIAL_FUNCTIONS, bounds_of, geometry_blob, geometry_of
from wasnow.storage.atomic import append_line, output_errors

STATUSES = ("open", "accepted", "rejected", "unsure")
REASONS = (
    "season or crop", "shadow", "cloud", "misregistration", "wrong class", "wrong outline", "not real", "other",
)  # fmt: skip
REVIEW_COLUMNS = ("review_status", "review_reason", "reviewer", REVIEWED_AT)


@dataclass(frozen=True)
class Polygon:
    """One polygon with everything that the page shows of it.

    Attributes:
        fid: its row in the GeoPackage.
        id: its number in the result.
        before: class at the first date; None for a model without classes.
        after: class at the second date.
        p_change: change probability, 0..1.
        area_m2: ground area; None without a CRS.
        n_px: pixels.
        bounds: (min x, min y, max x, max y) in the CRS of the result.
        status: one of `STATUSES`.
        reason: why it was rejected, or a remark.
        reviewer: who decided.
        reviewed_at: when, ISO 8601.
    """

    fid: int
    id: int
    before: str | None
    after: str | None
    p_change: float
    area_m2: float | None
    n_px: int
    bounds: tuple[float, float, float, float]
    status: str
    reason: str | None
    reviewer: str | None
    reviewed_at: str | None


class Conflict(OutputError):
    """A polygon was changed by somebody else since the page showed it."""


class ReviewedPolygons:
    """Reads and edits the GeoPackage of a result folder.

    Args:
        folder: the result folder.

    Raises:
        InputError: the folder has no readable GeoPackage.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / GEOPACKAGE
        if not self.path.is_file():
            raise InputError(f"{self.path}: no such file; give the result folder of a finished run")
        with self._opened() as base:
            names = {row[1] for row in base.execute(f'PRAGMA table_info("{LAYER}")')}
            if missing := {"fid", "id", "geom", "review_status"} - names:
                raise InputError(f"{self.path}: layer {LAYER} has no column {min(missing)!r}; restore the file")
            if REVIEWED_AT not in names:
                base.execute(f'ALTER TABLE "{LAYER}" ADD COLUMN "{REVIEWED_AT}" TEXT')

    def all(self) -> list[Polygon]:
        """Return every polygon, in the order of the file."""
        with self._opened() as base:
            return [_polygon(row) for row in base.execute(f'SELECT {_SELECTED} FROM "{LAYER}"')]

    def get(self, fid: int) -> Polygon:
        """Return one polygon as the file has it now.

        Raises:
            InputError: there is none of this number any more.
        """
        with self._opened() as base:
            return self._one(base, fid)

    def geometries(self, fids: Sequence[int]) -> dict[int, BaseGeometry]:
        """Return the outlines of some polygons, in the CRS of the result."""
        marks = ",".join("?" * len(fids))
        with self._opened() as base:
            rows = base.execute(f'SELECT fid, geom FROM "{LAYER}" WHERE fid IN ({marks})', list(fids)).fetchall()
        return {int(fid): geometry_of(blob) for fid, blob in rows}

    def version(self) -> tuple[int, int]:
        """Return a value that changes when the file does, whoever changes it."""
        stat = self.path.stat()
        return stat.st_mtime_ns, stat.st_size

    def decide(
        self,
        fid: int,
        *,
        reviewer: str,
        status: str,
        reason: str | None = None,
        before: str | None = None,
        after: str | None = None,
        seen: str | None = None,
    ) -> Polygon:
        """Save one decision.

        Args:
            fid: the polygon.
            reviewer: who decides.
            status: one of `STATUSES`.
            reason: why, for a rejection; free text is allowed.
            before: corrected class at the first date; None keeps it.
            after: corrected class at the second date; None keeps it.
            seen: ``reviewed_at`` as the page showed it.

        Raises:
            InputError: the status is unknown, or the polygon does not exist any more.
            Conflict: another reviewer decided since the page was loaded; nothing is changed.
            DiskFull, OutputError: the file cannot be written; nothing is changed.
        """
        if status not in STATUSES:
            raise InputError(f"status {status!r} is unknown; required is one of {', '.join(STATUSES)}")
        values = {
            "review_status": status,
            "review_reason": reason or None,
            "reviewer": None if status == "open" else reviewer,
            "reviewed_at": None if status == "open" else _now(),
        }
        values |= {name: word for name, word in (("from", before), ("to", after)) if word is not None}
        with self._editing() as base:
            found = self._one(base, fid)
            self._check_seen(found, seen)
            self._update(base, fid, values)
            self._log("decide", reviewer, fid, _old(found, values), values)
            return self._one(base, fid)

    def redraw(self, fid: int, geometry: BaseGeometry, *, reviewer: str, seen: str | None = None) -> Polygon:
        """Replace the outline of a polygon; its area follows in proportion.

        Args:
            fid: the polygon.
            geometry: new outline, in the CRS of the result.
            reviewer: who draws.
            seen: ``reviewed_at`` as the page showed it.

        Raises:
            InputError: the outline has no area, or crosses itself beyond repair.
            Conflict, OutputError: as for `decide`.
        """
        clean = _polygonal(geometry)
        with self._editing() as base:
            found = self._one(base, fid)
            self._check_seen(found, seen)
            old = self._geometry(base, fid)
            share = clean.area / old.area if old.area else 1.0
            values = _edited(found, share, reviewer) | {"geom": geometry_blob(clean, _srs(base))}
            self._update(base, fid, values)
            self._log("redraw", reviewer, fid, {"geom": old.wkt}, {"geom": clean.wkt})
            return self._one(base, fid)

    def split(self, fid: int, line: BaseGeometry, *, reviewer: str) -> list[Polygon]:
        """Cut a polygon along a line; the largest part keeps the number, the others get new ones.

        Args:
            fid: the polygon.
            line: in the CRS of the result; must cross the polygon.
            reviewer: who cuts.

        Raises:
            InputError: the line does not cut the polygon.
        """
        from shapely.ops import split

        with self._editing() as base:
            found, old = self._one(base, fid), self._geometry(base, fid)
            parts = sorted(
                (part for one in shapely.get_parts(old) for part in split(one, line).geoms), key=lambda part: -part.area
            )
            if len(parts) <= len(shapely.get_parts(old)):
                raise InputError("the line does not cut the polygon; draw it from edge to edge")
            fids = [fid]
            self._update(base, fid, self._part(base, found, parts[0], old, reviewer))
            for part in parts[1:]:
                values = self._part(base, found, part, old, reviewer)
                (number,) = base.execute(f'SELECT max(id) + 1 FROM "{LAYER}"').fetchone()
                fids.append(self._copy(base, fid, values | {"id": number}))
            self._log("split", reviewer, fid, {"geom": old.wkt}, {"fids": fids})
            return [self._one(base, each) for each in fids]

    def merge(self, fids: Sequence[int], *, reviewer: str) -> Polygon:
        """Join polygons of one transition; the first keeps its number, the others are removed from the layer.

        Args:
            fids: at least two polygons.
            reviewer: who joins.

        Raises:
            InputError: fewer than two polygons, or their classes differ.
        """
        if len(set(fids)) < 2:
            raise InputError("merging takes at least two polygons; select more")
        with self._editing() as base:
            found = [self._one(base, fid) for fid in dict.fromkeys(fids)]
            if len({(each.before, each.after) for each in found}) > 1:
                raise InputError("the polygons have different classes; correct the classes first")
            shapes = [self._geometry(base, each.fid) for each in found]
            whole = _polygonal(shapely.union_all(shapes))
            first = found[0]
            values: dict[str, Any] = {
                "geom": geometry_blob(whole, _srs(base)),
                "n_px": sum(each.n_px for each in found),
                "area_m2": None if first.area_m2 is None else sum(each.area_m2 or 0.0 for each in found),
                "reviewer": reviewer,
                "reviewed_at": _now(),
            }
            self._update(base, first.fid, values)
            gone = [each.fid for each in found[1:]]
            base.executemany(f'DELETE FROM "{LAYER}" WHERE fid = ?', [(each,) for each in gone])
            old = {"fids": [each.fid for each in found], "geoms": [each.wkt for each in shapes]}
            self._log("merge", reviewer, first.fid, old, {"geom": whole.wkt})
            return self._one(base, first.fid)

    # ------------------------------------------------------------------------------------------------- the database

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=5, isolation_level=None)) as base:
                base.execute("PRAGMA synchronous = FULL")
                for name, function in SPATIAL_FUNCTIONS.items():
                    base.create_function(name, 1, function, deterministic=True)
                yield base
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise OutputError(f"{self.path} is being edited by another program; save there and try again") from None
            raise OutputError(f"{self.path} cannot be edited: {error}") from None
        except sqlite3.DatabaseError as error:
            raise InputError(f"{self.path}: not a readable GeoPackage ({error}); restore the file") from None

    @contextlib.contextmanager
    def _editing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: everything in the block is saved, or nothing."""
        with output_errors(self.path), self._opened() as base:
            base.execute("BEGIN IMMEDIATE")
            try:
                yield base
            except BaseException:
                base.execute("ROLLBACK")
                raise
            base.execute("COMMIT")

    def _one(self, base: sqlite3.Connection, fid: int) -> Polygon:
        row = base.execute(f'SELECT {_SELECTED} FROM "{LAYER}" WHERE fid = ?', (fid,)).fetchone()
        if row is None:
            raise InputError(f"polygon {fid} is not in {self.path} any more; load the page again")
        return _polygon(row)

    def _geometry(self, base: sqlite3.Connection, fid: int) -> BaseGeometry:
        (blob,) = base.execute(f'SELECT geom FROM "{LAYER}" WHERE fid = ?', (fid,)).fetchone()
        return geometry_of(blob)

    @staticmethod
    def _check_seen(found: Polygon, seen: str | None) -> None:
        if seen is not None and (found.reviewed_at or "") != seen:
            raise Conflict(
                f"{found.reviewer or 'another program'} changed polygon {found.id} at {found.reviewed_at} "
                f"({found.status}); look at it again"
            )

    @staticmethod
    def _update(base: sqlite3.Connection, fid: int, values: Mapping[str, Any]) -> None:
        names = ", ".join(f'"{name}" = ?' for name in values)
        base.execute(f'UPDATE "{LAYER}" SET {names} WHERE fid = ?', [*values.values(), fid])
        base.execute("UPDATE gpkg_contents SET last_change = ? WHERE table_name = ?", (_now(), LAYER))

    @staticmethod
    def _copy(base: sqlite3.Connection, fid: int, values: Mapping[str, Any]) -> int:
        """Insert a copy of a row with other values; returns its fid."""
        names = [row[1] for row in base.execute(f'PRAGMA table_info("{LAYER}")') if row[1] != "fid"]
        row = base.execute(f'SELECT {_quoted(names)} FROM "{LAYER}" WHERE fid = ?', (fid,)).fetchone()
        copy = dict(zip(names, row, strict=True)) | dict(values)
        marks = ",".join("?" * len(names))
        done = base.execute(
            f'INSERT INTO "{LAYER}" ({_quoted(names)}) VALUES ({marks})', [copy[name] for name in names]
        )
        return int(done.lastrowid or 0)

    @staticmethod
    def _part(
        base: sqlite3.Connection, found: Polygon, part: BaseGeometry, whole: BaseGeometry, reviewer: str
    ) -> dict[str, Any]:
        return _edited(found, part.area / whole.area, reviewer) | {"geom": geometry_blob(part, _srs(base))}

    def _log(self, action: str, reviewer: str, fid: int, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        """Append to the journal; before the commit, so that no decision is saved without its line."""
        line = {"at": _now(), "action": action, "reviewer": reviewer, "fid": fid, "old": dict(old), "new": dict(new)}
        append_line(self.folder / REVIEW_JOURNAL, json.dumps(line, ensure_ascii=False).encode())


# --------------------------------------------------------------------------------------------------------- helpers


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


_SELECTED = _quoted(["fid", "id", "from", "to", "p_change", "area_m2", "n_px", "geom", *REVIEW_COLUMNS])


def _polygon(row: Sequence[Any]) -> Polygon:
    fid, number, before, after, p_change, area, pixels, blob, status, reason, reviewer, at = row
    return Polygon(
        fid=fid,
        id=number,
        before=before,
        after=after,
        p_change=float(p_change or 0.0),
        area_m2=area,
        n_px=int(pixels or 0),
        bounds=bounds_of(blob),
        status=status or "open",
        reason=reason,
        reviewer=reviewer,
        reviewed_at=at,
    )


def _polygonal(geometry: BaseGeometry) -> BaseGeometry:
    """Return the polygons of a drawn outline, repaired if it crosses itself.

    Raises:
        InputError: nothing with an area is left.
    """
    clean = geometry if geometry.is_valid else shapely.make_valid(geometry)
    parts = [part for part in shapely.get_parts(clean) if part.geom_type in ("Polygon", "MultiPolygon") and part.area]
    if not parts:
        raise InputError("the outline has no area; draw at least three corners")
    return parts[0] if len(parts) == 1 else shapely.union_all(parts)


def _edited(found: Polygon, share: float, reviewer: str) -> dict[str, Any]:
    return {
        "area_m2": None if found.area_m2 is None else found.area_m2 * share,
        "n_px": max(1, round(found.n_px * share)),
        "reviewer": reviewer,
        "reviewed_at": _now(),
    }


def _old(found: Polygon, values: Mapping[str, Any]) -> dict[str, Any]:
    now = {
        "review_status": found.status,
        "review_reason": found.reason,
        "reviewer": found.reviewer,
        "reviewed_at": found.reviewed_at,
        "from": found.before,
        "to": found.after,
    }
    return {name: now[name] for name in values}


def _srs(base: sqlite3.Connection) -> int:
    (number,) = base.execute("SELECT srs_id FROM gpkg_geometry_columns WHERE table_name = ?", (LAYER,)).fetchone()
    return int(number)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
