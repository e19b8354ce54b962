"""Footprint, true pixel size and direction of north of a recorded grid.

    footprint   edges densified -> longitude, latitude -> unwrapped -> cut at the antimeridian (RFC 7946, 3.1.9)

             170    180   -170
       -------|------|------|---          unwrapped: one ring from 175 to 185
                  [##|##]                 cut: MultiPolygon of 175..180 and -180..-175, bbox [175, s, -175, n]

Pure functions of `GridRecord`; no file is opened.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Geod, Transformer
from pyproj.exceptions import ProjError
from shapely import affinity
from shapely.geometry import MultiPolygon, Polygon, box

from wasnow.output.record import GridRecord

EDGE_POINTS = 33
"""Points per edge of a footprint, corners included."""

_DECIMALS = 7  # a centimetre


@dataclass(frozen=True, slots=True)
class GroundGeometry:
    """Pixel size, orientation and position of the centre of a grid.

    Attributes:
        col_m: metres from one column to the next.
        row_m: metres from one row to the next.
        north_deg: direction of north on a picture with rows downwards, in degrees clockwise from straight up.
        longitude: of the centre, degrees.
        latitude: of the centre, degrees.
    """

    col_m: float
    row_m: float
    north_deg: float
    longitude: float
    latitude: float


def to_lonlat(crs: str, xs: NDArray[np.float64], ys: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``(N, 2)`` longitudes and latitudes (WGS 84, degrees), not finite where a point has none.

    Args:
        crs: of the points.
        xs: ``(N,)``.
        ys: ``(N,)``.
    """
    lon, lat = Transformer.from_crs(CRS.from_user_input(crs), "EPSG:4326", always_xy=True).transform(xs, ys)
    return np.column_stack([np.asarray(lon, np.float64), np.asarray(lat, np.float64)])


def ground_geometry(grid: GridRecord) -> GroundGeometry | None:
    """Return the geometry of a grid from geodesics on the WGS 84 ellipsoid; None if it is not defined."""
    if grid.crs is None:
        return None
    cols = np.array([0.5, 1.0, 0.5]) + (grid.width - 1) / 2 - 0.5
    rows = np.array([0.5, 0.5, 1.0]) + (grid.height - 1) / 2 - 0.5
    a, b, c, d, e, f = grid.transform
    try:
        points = to_lonlat(grid.crs, a * cols + b * rows + c, d * cols + e * rows + f)
    except ProjError:
        return None
    if not np.isfinite(points).all():
        return None
    geod = Geod(ellps="WGS84")
    (lon, lat), half_col, half_row = points
    col_azimuth, _, col_half_m = geod.inv(lon, lat, *half_col)
    row_azimuth, _, row_half_m = geod.inv(lon, lat, *half_row)
    if not col_half_m or not row_half_m:
        return None
    azimuths = np.radians([col_azimuth, row_azimuth])
    east_north = np.stack([np.sin(azimuths), np.cos(azimuths)])  # columns: one step to the right, one step down
    if abs(np.linalg.det(east_north)) < 1e-6:
        return None
    right, down = np.linalg.solve(east_north, [0.0, 1.0])
    north = math.degrees(math.atan2(right, -down))
    return GroundGeometry(2 * col_half_m, 2 * row_half_m, north, (float(lon) + 180) % 360 - 180, float(lat))


def footprint(grid: GridRecord) -> Polygon | MultiPolygon | None:
    """Return the outline of the grid in longitude and latitude, counter-clockwise, cut at the antimeridian.

    The outline of a grid around a pole includes the pole. None without a CRS, or if too few points have a position.
    """
    if grid.crs is None:
        return None
    edge = np.linspace(0.0, 1.0, EDGE_POINTS)[:-1]
    zero, one = np.zeros_like(edge), np.ones_like(edge)
    cols = np.concatenate([edge, one, 1 - edge, zero]) * grid.width
    rows = np.concatenate([zero, edge, one, 1 - edge]) * grid.height
    a, b, c, d, e, f = grid.transform
    try:
        ring = to_lonlat(grid.crs, a * cols + b * rows + c, d * cols + e * rows + f)
    except ProjError:
        return None
    ring = ring[np.isfinite(ring).all(axis=1)]
    if len(ring) < 3:
        return None
    unwrapped = np.unwrap(np.append(ring[:, 0], ring[0, 0]), period=360.0)
    ring[:, 0] = unwrapped[:-1]
    if abs(unwrapped[-1] - unwrapped[0]) > 180:  # the ring goes around a pole: close it along the pole
        pole = math.copysign(90.0, float(ring[:, 1].mean()))
        ring = np.vstack([ring, [[unwrapped[-1], ring[0, 1]], [unwrapped[-1], pole], [unwrapped[0], pole]]])
    return _cut(shapely.make_valid(Polygon(ring)))


def bbox(shape: Polygon | MultiPolygon) -> list[float]:
    """Return ``[west, south, east, north]`` of a `footprint`; west > east if it crosses the antimeridian."""
    west, south, east, north = (float(bound) for bound in shape.bounds)
    if isinstance(shape, MultiPolygon) and west <= -180 and east >= 180:
        parts = [part.bounds for part in shape.geoms]
        # The box leaves out the widest gap between the parts around the globe.
        spans = sorted((part[0], part[2]) for part in parts)
        reach, gaps = spans[0][1], [(0.0, west, east)]
        for start, stop in spans[1:]:
            gaps.append((start - reach, start, reach))
            reach = max(reach, stop)
        _, west, east = max(gaps, key=lambda gap: gap[0])
    return [round(value, _DECIMALS) for value in (west, south, east, north)]


def geojson(shape: Polygon | MultiPolygon) -> dict[str, Any]:
    """Return a `footprint` as a GeoJSON geometry, rounded to a centimetre."""
    mapping: dict[str, Any] = shapely.geometry.mapping(shape)
    return {"type": mapping["type"], "coordinates": _rounded(mapping["coordinates"])}


def _cut(shape: Any) -> Polygon | MultiPolygon | None:
    """Shift longitudes of any size to -180..180, in as many parts as necessary."""
    west, _, east, _ = shape.bounds
    parts: list[Polygon] = []
    for turn in range(math.floor((west + 180) / 360), math.ceil((east + 180) / 360)):
        middle = 360.0 * turn
        piece = affinity.translate(shape.intersection(box(middle - 180, -90, middle + 180, 90)), -middle)
        parts += [part for part in shapely.get_parts(piece) if part.geom_type == "Polygon" and part.area > 1e-15]
    parts = [shapely.geometry.polygon.orient(part) for part in parts]
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else MultiPolygon(parts)


def _rounded(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_rounded(item) for item in value]
    return round(value, _DECIMALS)
