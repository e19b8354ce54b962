"""Check the polygons of a result folder: valid outlines, known class words, and the area of the raster.

    changes.gpkg ────┐
                     ├── batch by batch ──> geometry, words, numbers ──> sums as in run.json?
    changes.parquet ─┘

One batch is in memory. Where possible, files are read by another library than the one that wrote them.
"""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from pyogrio.raw import open_arrow

from wasnow.output.layout import GEOPACKAGE, GEOPARQUET, REVIEW_JOURNAL
from wasnow.output.record import RunRecord
from wasnow.output.vector.files import ATTRIBUTES, LAYER, REVIEWED_AT
from wasnow.output.verify.finding import Finding
from wasnow.vocabulary import Vocabulary

BATCH = 4096
SAME_AREA = 1e-6
"""Relative tolerance of areas, in square metres by polygon and in units of the CRS by outline."""

_Words = tuple[str | None, str | None]


def check_polygons(folder: Path, record: RunRecord) -> list[Finding]:
    """Return the faults of the polygons of a finished run; missing files are skipped."""
    findings = []
    # Outlines and classes that were corrected in a review no longer add up to the record of the run.
    if (path := folder / GEOPACKAGE).exists() and not (folder / REVIEW_JOURNAL).is_file():
        findings += [Finding(GEOPACKAGE, "not valid", fault) for fault in _geopackage_faults(path, record)]
    if (path := folder / GEOPARQUET).exists():
        findings += [Finding(GEOPARQUET, "not valid", fault) for fault in _geoparquet_faults(path, record)]
    return findings


def _opened(path: Path) -> sqlite3.Connection:
    """Open a database for reading; nothing is written beside it."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)


def _geopackage_faults(path: Path, record: RunRecord) -> list[str]:
    try:
        with contextlib.closing(_opened(path)) as base:
            integrity = base.execute("PRAGMA integrity_check(1)").fetchone()[0]
            # -1 is the undefined Cartesian CRS of GeoPackage.
            srs = base.execute("SELECT srs_id FROM gpkg_geometry_columns WHERE table_name = ?", (LAYER,)).fetchone()
            counts = base.execute("SELECT feature_count FROM gpkg_ogr_contents").fetchall()
        if integrity != "ok":
            return [f"the database is damaged: {' '.join(str(integrity).split())}"]
        counted = counts[0][0] if counts else None
        if counted is not None and counted != record.polygons:
            return [f"has {counted:,} polygons, run.json {record.polygons:,}"]
        with warnings.catch_warnings():
            # Faults are reported as findings.
            warnings.simplefilter("ignore", RuntimeWarning)
            return _layer_faults(path, srs, record)
    except (sqlite3.Error, DataSourceError, DataLayerError, OSError, RuntimeError, pa.ArrowException) as error:
        return [f"cannot be read: {' '.join(str(error).split())}"]


def _layer_faults(path: Path, srs: tuple[int] | None, record: RunRecord) -> list[str]:
    with open_arrow(path, layer=LAYER, batch_size=BATCH, use_pyarrow=True) as (about, batches):
        same = srs is not None and (srs[0] == -1) == (record.grid.crs is None)
        faults = [] if same else ["its CRS differs from run.json"]
        geometry = about["geometry_name"] or "wkb_geometry"
        return faults + _faults_of(_without_id(batches, about), geometry, record)


def _without_id(batches: Iterator[pa.RecordBatch], about: dict[str, Any]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        names = [name for name in batch.schema.names if name not in (about.get("fid_column"), "fid", "OGC_FID")]
        yield batch.select(names)


def _geoparquet_faults(path: Path, record: RunRecord) -> list[str]:
    try:
        with pq.ParquetFile(path) as file:
            about = json.loads((file.schema_arrow.metadata or {}).get(b"geo", b"null"))
            if not isinstance(about, dict) or about.get("primary_column") != "geometry":
                return ["is not a GeoParquet file: its metadata names no geometry column"]
            crs = about.get("columns", {}).get("geometry", {}).get("crs")
            faults = [] if (crs is None) == (record.grid.crs is None) else ["its CRS differs from run.json"]
            batches = (batch.drop_columns(["bbox"]) for batch in file.iter_batches(batch_size=BATCH))
            return faults + _faults_of(batches, "geometry", record)
    except (OSError, ValueError, AttributeError, KeyError, pa.ArrowException) as error:
        return [f"cannot be read: {' '.join(str(error).split())}"]


class _Sums:
    """Sums over all polygons by transition code, and the faults of some of them."""

    def __init__(self) -> None:
        self.polygons: Counter[int] = Counter()
        self.pixels: Counter[int] = Counter()
        self.area_m2: dict[int, float] = {}
        self._faults: dict[str, list[int]] = {}

    def fault(self, what: str, ids: NDArray[np.int64]) -> None:
        if len(ids):
            self._faults.setdefault(what, []).extend(ids[: 2**16].tolist())

    def faults(self) -> list[str]:
        return [
            f"{what} ({len(ids)} of them, the first has id {ids[0]})" if len(ids) > 1 else f"{what} (id {ids[0]})"
            for what, ids in self._faults.items()
        ]


def _faults_of(batches: Iterator[pa.RecordBatch], geometry: str, record: RunRecord) -> list[str]:
    vocabulary = Vocabulary(record.model.classes)
    codes: dict[_Words, int] = {(each.before, each.after): each.code for each in vocabulary.transitions()}
    sums = _Sums()
    last = 0
    for batch in batches:
        # A review adds the time of each decision as a column.
        names = [name for name in batch.schema.names if name not in (geometry, REVIEWED_AT)]
        if names != ATTRIBUTES.names:
            return [f"has the columns {', '.join(names)}, not {', '.join(ATTRIBUTES.names)}"]
        last = _add(sums, batch, geometry, record, codes, last)
    return sums.faults() + _sum_faults(sums, record)


def _add(
    sums: _Sums,
    batch: pa.RecordBatch,
    geometry: str,
    record: RunRecord,
    codes: dict[_Words, int],
    last: int,
) -> int:
    """Add one batch and return its last id.

    Args:
        sums: are updated.
        batch: the polygons.
        geometry: name of the geometry column.
        record: the record of the run.
        codes: transition code by words before and after.
        last: the last id of the batch before.
    """
    ids = _numbers(batch, "id", 0).astype(np.int64)
    if not len(ids):
        return last
    sums.fault("ids that do not increase", ids[np.diff(ids, prepend=last) <= 0])
    pairs = list(zip(batch["from"].to_pylist(), batch["to"].to_pylist(), strict=True))
    kinds = np.array([codes.get(pair, 0) for pair in pairs])
    sums.fault("unknown class words", ids[kinds == 0])
    pixels, area = _numbers(batch, "n_px", 0), _numbers(batch, "area_m2", np.nan)
    sums.fault("fewer than one pixel", ids[pixels < 1])
    for name in ("p_change", "p_from", "p_to"):
        p = _numbers(batch, name, 0.5)
        sums.fault(f"{name} outside 0..1", ids[~((p >= 0) & (p <= 1))])
    if record.areas_m2 is not None:
        sums.fault("invalid areas", ids[~(area >= 0)])
    for code in np.unique(kinds):
        chosen = kinds == code
        sums.polygons[int(code)] += int(chosen.sum())
        sums.pixels[int(code)] += int(pixels[chosen].sum())
        sums.area_m2[int(code)] = sums.area_m2.get(int(code), 0.0) + float(np.nansum(area[chosen]))
    _check_outlines(sums, ids, pixels, shapely.from_wkb(batch[geometry].to_pylist(), on_invalid="ignore"), record)
    return int(ids[-1])


def _check_outlines(
    sums: _Sums,
    ids: NDArray[np.int64],
    pixels: NDArray[np.float64],
    outlines: NDArray[np.object_],
    record: RunRecord,
) -> None:
    present = ~shapely.is_missing(outlines)
    of_area = np.isin(shapely.get_type_id(outlines), (3, 6))
    good = present & of_area & shapely.is_valid(outlines) & ~shapely.is_empty(outlines)
    sums.fault("outlines that are not valid polygons", ids[~good])
    a, b, c, d, e, f = record.grid.transform
    corners = [
        (a * col + b * row + c, d * col + e * row + f)
        for col, row in (
            (0, 0),
            (record.grid.width, 0),
            (0, record.grid.height),
            (record.grid.width, record.grid.height),
        )
    ]
    # Simplification may move an outline by its tolerance.
    slack = 1e-6 * max(map(abs, (a, b, d, e))) + (math.inf if record.options.get("simplify") else 0.0)
    low, high = np.min(corners, axis=0) - slack, np.max(corners, axis=0) + slack
    bounds = shapely.bounds(outlines[good])
    outside = (bounds[:, :2] < low).any(axis=1) | (bounds[:, 2:] > high).any(axis=1)
    sums.fault("outlines that leave the raster", ids[good][outside])
    if not record.options.get("simplify"):
        drawn, counted = shapely.area(outlines[good]), pixels[good] * abs(a * e - b * d)
        sums.fault("outlines of another size than their pixels", ids[good][~np.isclose(drawn, counted, rtol=SAME_AREA)])


def _numbers(batch: pa.RecordBatch, name: str, absent: float) -> NDArray[np.float64]:
    """Return a column as floats; ``absent`` replaces null."""
    filled = batch[name].cast(pa.float64()).fill_null(absent)
    return np.asarray(filled.to_numpy(zero_copy_only=False), np.float64)


def _sum_faults(sums: _Sums, record: RunRecord) -> list[str]:
    """Return where sums over polygons differ from run.json; polygons below ``min_area`` are missing on purpose."""
    faults = []
    total = sum(sums.polygons.values())
    if total != record.polygons:
        faults.append(f"{total:,} polygons, {record.polygons:,} in run.json")
    whole = not record.options.get("min_area")
    for row in record.transitions:
        name = f"{row.before} → {row.after}" if row.before is not None else row.after
        if row.polygons is not None and sums.polygons[row.code] != row.polygons:
            faults.append(f"{sums.polygons[row.code]:,} polygons of {name}, {row.polygons:,} in run.json")
        compared = [("pixels", float(sums.pixels[row.code]), float(row.pixels))]
        if row.area_m2 is not None:
            compared.append(("square metres", sums.area_m2.get(row.code, 0.0), row.area_m2))
        for what, found, wanted in compared:
            same = math.isclose(found, wanted, rel_tol=SAME_AREA, abs_tol=1e-6)
            if not (same or (not whole and found < wanted)):
                faults.append(f"polygons of {name} cover {found:,} {what}, the raster {wanted:,}")
    return faults
