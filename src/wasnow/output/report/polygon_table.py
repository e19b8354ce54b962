"""The table of the largest polygons, with their places on the picture and on the Earth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from wasnow.output.record import GridRecord, RunRecord
from wasnow.output.report.ground import to_lonlat
from wasnow.output.report.numbers import css_color, lat_lon, unit_for

POLYGON_ROWS = 25


@dataclass(frozen=True, slots=True)
class PolygonRow:
    """One row of the table; ``left`` and ``top`` are per cent of the picture, None outside it."""

    id: str
    before: str | None
    after: str
    color: str
    area: str
    probability: str
    place: str
    left: float | None
    top: float | None
    notes: str


def largest_polygons(path: Path, record: RunRecord, *, limit: int = POLYGON_ROWS) -> list[PolygonRow] | None:
    """Return the largest polygons of the layer ``changes``; None without such a file or layer.

    Args:
        path: ``changes.gpkg``.
        record: the record of the run.
        limit: number of polygons.
    """
    if not path.exists():
        return None
    query = f"SELECT * FROM changes ORDER BY COALESCE(area_m2, 0) DESC, n_px DESC LIMIT {limit:d}"
    try:
        meta, fids, shapes, columns = pyogrio.raw.read(path, sql=query, return_fids=True)
    except (DataSourceError, DataLayerError):
        return None
    fields = dict(zip(meta["fields"], columns, strict=True))
    if shapes is None or not len(shapes):
        return []
    colors = {(row.before, row.after): row.color for row in record.transitions}
    centres = shapely.centroid(shapely.from_wkb(shapes))
    points = np.column_stack([shapely.get_x(centres), shapely.get_y(centres)])
    spots, places = _spots(points, meta["crs"], record.grid), _places(points, meta["crs"])
    areas = [_number(value) for value in fields.get("area_m2", [None] * len(shapes))]
    unit = unit_for(max((area for area in areas if area is not None), default=None))

    def text(name: str, index: int) -> str | None:
        value = fields[name][index] if name in fields else None
        return None if value is None or value != value else str(value)

    rows = []
    for index in range(len(shapes)):
        before, after = text("from", index), text("to", index) or "changed"
        area, probability = areas[index], _number(fields["p_change"][index]) if "p_change" in fields else None
        edge = "at the edge" if text("edge", index) in ("1", "True", "true") else None
        status = text("review_status", index)
        notes = [note for note in (edge, text("flags", index), status) if note and note != "unreviewed"]
        left, top = spots[index]
        inside = 0 <= left <= 100 and 0 <= top <= 100
        rows.append(
            PolygonRow(
                id=text("id", index) or str(fids[index]),
                before=before,
                after=after,
                color=css_color(colors.get((before, after), (128, 128, 128))),
                area=f"{text('n_px', index) or '?'} px" if area is None else f"{unit.text(area)} {unit.name}",
                probability="" if probability is None else f"{probability:.2f}",
                place=places[index],
                left=round(left, 3) if inside else None,
                top=round(top, 3) if inside else None,
                notes=", ".join(notes),
            )
        )
    return rows


def _number(value: Any) -> float | None:
    return None if value is None or value != value else float(value)


def _spots(points: NDArray[np.float64], crs: str | None, grid: GridRecord) -> list[tuple[float, float]]:
    """Return the positions of points on the picture, in per cent from its left and top."""
    try:
        if crs and grid.crs and CRS.from_user_input(crs) != CRS.from_user_input(grid.crs):
            move = Transformer.from_crs(crs, CRS.from_user_input(grid.crs), always_xy=True)
            points = np.column_stack(move.transform(points[:, 0], points[:, 1]))
    except ProjError:
        return [(math.nan, math.nan)] * len(points)
    a, b, c, d, e, f = grid.transform
    pixels = np.linalg.solve(np.array([[a, b], [d, e]]), points.T - np.array([[c], [f]]))
    return [(100 * float(col) / grid.width, 100 * float(row) / grid.height) for col, row in pixels.T]


def _places(points: NDArray[np.float64], crs: str | None) -> list[str]:
    """Return points as text: latitude and longitude, or the plain coordinates without a CRS."""
    if crs:
        try:
            return [lat_lon(lat, lon) for lon, lat in to_lonlat(crs, points[:, 0], points[:, 1])]
        except ProjError:
            pass
    return [f"{x:.1f}, {y:.1f}" for x, y in points]
