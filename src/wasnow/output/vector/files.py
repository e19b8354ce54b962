"""Write polygons of change to GeoPackage and GeoParquet 1.1 in one pass over the batches.

    batches ──> Arrow record batches ──> GDAL reads them into changes.gpkg, layer ``changes``
                                    └──> each is one row group of changes.parquet

Columns: id, from, to, p_change, p_from, p_to, area_m2, n_px, date_before, date_after, edge, flags, review_status,
review_reason, reviewer; the last three are for reviewers. The caller renames the files.
"""

from __future__ import annotations

import contextlib
import errno
import json
import sqlite3
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from pyogrio.raw import write_arrow
from pyproj import CRS

from wasnow.errors import OutputError
from wasnow.output.vector.polygons import PolygonBatch
from wasnow.output.vector.qgis import qgis_style
from wasnow.storage.atomic import as_output_error
from wasnow.vocabulary import Vocabulary

LAYER = "changes"

ATTRIBUTES = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        ("from", pa.string()),
        ("to", pa.string()),
        ("p_change", pa.float64()),
        ("p_from", pa.float64()),
        ("p_to", pa.float64()),
        ("area_m2", pa.float64()),
        ("n_px", pa.int64()),
        ("date_before", pa.string()),
        ("date_after", pa.string()),
        ("edge", pa.bool_()),
        ("flags", pa.string()),
        ("review_status", pa.string()),
        ("review_reason", pa.string()),
        ("reviewer", pa.string()),
    ]
)
"""The columns of both files, in order; the geometry follows."""

REVIEWED_AT = "reviewed_at"
"""Time of the last decision on a polygon; a review adds this column to the GeoPackage."""

_TIMESTAMP = "1970-01-01T00:00:00.000Z"
"""The modification time in every GeoPackage, so that equal polygons give equal bytes."""

_BBOX = pa.struct([(side, pa.float64()) for side in ("xmin", "ymin", "xmax", "ymax")])


def write_polygons(
    batches: Iterable[PolygonBatch],
    *,
    gpkg: Path,
    parquet: Path,
    crs: Any,
    vocabulary: Vocabulary,
    dates: tuple[str | None, str | None] = (None, None),
) -> dict[int, int]:
    """Write all polygons to both files; one batch at a time is in memory.

    The GeoPackage contains a default style for QGIS, which colours polygons by the class after. Without polygons both
    files are valid and have all columns.

    Args:
        batches: from `polygonize`.
        gpkg: GeoPackage to write; replaced if it exists.
        parquet: GeoParquet to write; replaced if it exists.
        crs: anything that pyproj understands, such as a rasterio CRS; None for pixel coordinates.
        vocabulary: the class words of the codes.
        dates: ISO dates of before and after.

    Returns:
        Number of polygons by transition code, in the order of codes; only codes that occur.

    Raises:
        OutputError: a file cannot be written.
    """
    reference = None if crs is None or crs == "" else CRS.from_user_input(crs)
    stream = iter(batches)
    head = list(_first(stream))
    geometry_type = "MultiPolygon" if any(shapely.get_type_id(b.geometry[:1]) == 6 for b in head) else "Polygon"
    counts: Counter[int] = Counter()
    failure: list[BaseException] = []
    for old in (gpkg, parquet):
        old.unlink(missing_ok=True)

    try:
        with _GeoParquet(parquet, reference, geometry_type) as rows:

            def tables() -> Iterator[pa.RecordBatch]:
                """Yield what GDAL reads; GDAL passes on only messages, so errors are kept."""
                try:
                    for batch in chain(head, stream):
                        counts.update(dict(zip(*_unique_counts(batch.code), strict=True)))
                        attributes = _attributes(batch, vocabulary, dates)
                        wkb = pa.array(shapely.to_wkb(batch.geometry), pa.binary())
                        rows.write(attributes, wkb, batch.geometry)
                        yield pa.RecordBatch.from_arrays(
                            [*attributes, wkb], schema=ATTRIBUTES.append(pa.field("geom", pa.binary()))
                        )
                except BaseException as error:
                    failure.append(error)
                    raise

            _write_geopackage(gpkg, tables(), reference, geometry_type)
            _write_style(gpkg, vocabulary)
    except Exception as error:
        cause = failure[0] if failure else error
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            raise as_output_error(parquet, cause) from error
        if isinstance(cause, DataSourceError | DataLayerError | sqlite3.Error | OSError):
            raise OutputError(
                f"{gpkg.parent} cannot be written ({cause}); check the folder and the free space"
            ) from error
        raise cause from None
    if failure:
        raise failure[0]
    return dict(sorted(counts.items()))


def _first(stream: Iterator[PolygonBatch]) -> Iterator[PolygonBatch]:
    """Yield the first batch that is not empty; it gives the geometry type of all."""
    for batch in stream:
        if len(batch):
            yield batch
            return


def _unique_counts(codes: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    values, counts = np.unique(codes, return_counts=True)
    return values.tolist(), counts.tolist()


def _attributes(batch: PolygonBatch, vocabulary: Vocabulary, dates: tuple[str | None, str | None]) -> list[pa.Array]:
    """Return the columns of `ATTRIBUTES`."""
    present, which = np.unique(batch.code, return_inverse=True)
    transitions = [vocabulary.transition(int(code)) for code in present]
    places = pa.array(which.astype(np.int32))

    def words(values: list[str | None]) -> pa.Array:
        return pa.array(values, pa.string()).take(places)

    def same(value: str | None) -> pa.Array:
        return pa.repeat(pa.scalar(value, pa.string()), len(batch))

    def numbers(values: NDArray[np.float64]) -> pa.Array:
        return pa.array(values, pa.float64(), from_pandas=True)  # NaN becomes null

    return [
        pa.array(batch.id, pa.int64()),
        words([transition.before for transition in transitions]),
        words([transition.after for transition in transitions]),
        numbers(batch.p_change),
        numbers(batch.p_from),
        numbers(batch.p_to),
        numbers(batch.area_m2),
        pa.array(batch.n_px, pa.int64()),
        same(dates[0]),
        same(dates[1]),
        pa.array(batch.edge, pa.bool_()),
        pa.array(batch.flags, pa.string()),
        same("open"),
        same(None),
        same(None),
    ]


def _write_geopackage(path: Path, tables: Iterator[pa.RecordBatch], crs: CRS | None, geometry_type: str) -> None:
    """Write one layer with an R-tree; SRS -1 (undefined) without a CRS, its WKT if it has no EPSG code."""
    options = {"GEOMETRY_NAME": "geom", "SPATIAL_INDEX": "YES"}
    if crs is None:
        options["SRID"] = "-1"
    with warnings.catch_warnings():
        # Temporary names and pixel coordinates are intended.
        warnings.filterwarnings("ignore", message="The filename extension should be")
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        write_arrow(
            pa.RecordBatchReader.from_batches(ATTRIBUTES.append(pa.field("geom", pa.binary())), tables),
            path,
            layer=LAYER,
            driver="GPKG",
            geometry_name="geom",
            geometry_type=geometry_type,
            crs=crs.to_wkt() if crs else None,
            layer_options=options,
        )


def _write_style(path: Path, vocabulary: Vocabulary) -> None:
    """Add the table in which QGIS stores the default style of a layer, and set the timestamps."""
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "CREATE TABLE layer_styles (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256), "
            "f_table_schema TEXT(256), f_table_name TEXT(256), f_geometry_column TEXT(256), styleName TEXT(30), "
            "styleQML TEXT, styleSLD TEXT, useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30), "
            "update_time DATETIME)"
        )
        database.execute(
            "INSERT INTO layer_styles VALUES (1, '', '', ?, 'geom', 'what it became', ?, '', 1, ?, '', NULL, ?)",
            (LAYER, qgis_style(vocabulary), "Polygons of change, coloured by the class of the second date", _TIMESTAMP),
        )
        database.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, description) "
            "VALUES ('layer_styles', 'attributes', 'layer_styles', '')"
        )
        database.execute("UPDATE gpkg_contents SET last_change = ?", (_TIMESTAMP,))


class _GeoParquet:
    """A GeoParquet 1.1.0 file, written by row groups; its ``geo`` metadata with the bounds is written last."""

    def __init__(self, path: Path, crs: CRS | None, geometry_type: str) -> None:
        self._crs = crs
        self._geometry_type = geometry_type
        self._schema = ATTRIBUTES.append(pa.field("geometry", pa.binary())).append(pa.field("bbox", _BBOX))
        self._bounds = [np.inf, np.inf, -np.inf, -np.inf]
        try:
            self._writer = pq.ParquetWriter(path, self._schema, compression="zstd", store_schema=False)
        except OSError as error:
            raise OutputError(f"{path} cannot be written ({error}); check the folder and the free space") from error

    def __enter__(self) -> _GeoParquet:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.add_key_value_metadata({"geo": json.dumps(self._geo())})
        self._writer.close()

    def write(self, attributes: list[pa.Array], wkb: pa.Array, geometry: NDArray[np.object_]) -> None:
        """Write one row group.

        Args:
            attributes: the columns of `ATTRIBUTES`.
            wkb: the geometries as WKB.
            geometry: the same as shapely objects.
        """
        bounds = shapely.bounds(geometry)
        sides = [pa.array(np.ascontiguousarray(side)) for side in bounds.T]
        bbox = pa.StructArray.from_arrays(sides, fields=list(_BBOX))
        self._writer.write_batch(
            pa.RecordBatch.from_arrays([*attributes, wkb, bbox], schema=self._schema), row_group_size=max(len(wkb), 1)
        )
        if len(bounds):
            low, high = bounds[:, :2].min(0), bounds[:, 2:].max(0)
            self._bounds = [
                *np.minimum(self._bounds[:2], low).tolist(),
                *np.maximum(self._bounds[2:], high).tolist(),
            ]

    def _geo(self) -> dict[str, Any]:
        """Return the file metadata (geoparquet.org/releases/v1.1.0)."""
        empty = not np.isfinite(self._bounds).all()
        column: dict[str, Any] = {
            "encoding": "WKB",
            "geometry_types": [] if empty else [self._geometry_type],
            "crs": self._crs.to_json_dict() if self._crs else None,
            "edges": "planar",
            "orientation": "counterclockwise",
            "covering": {"bbox": {side: ["bbox", side] for side in ("xmin", "ymin", "xmax", "ymax")}},
        }
        if not empty:
            column["bbox"] = self._bounds
        return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
