"""Geometries as GeoPackage stores them (OGC 12-128r19, section 2.1.3), and the functions of its spatial index."""

from __future__ import annotations

import struct
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

_ENVELOPE_BYTES = (0, 32, 48, 48, 64, 0, 0, 0)


def geometry_of(blob: bytes) -> BaseGeometry:
    """Return the geometry of a blob."""
    return shapely.from_wkb(blob[8 + _ENVELOPE_BYTES[blob[3] >> 1 & 7] :])


def geometry_blob(geometry: BaseGeometry, srs: int) -> bytes:
    """Return a geometry as a blob with its envelope.

    Args:
        geometry: a polygon or multipolygon.
        srs: ``srs_id`` of the layer.
    """
    min_x, min_y, max_x, max_y = geometry.bounds
    head = struct.pack("<2sBBi4d", b"GP", 0, 0b00000011, srs, min_x, max_x, min_y, max_y)
    return head + bytes(shapely.to_wkb(geometry, byte_order=1))


def bounds_of(blob: bytes) -> tuple[float, float, float, float]:
    """Return (min x, min y, max x, max y) of a blob, from its envelope if it has one."""
    if blob[3] >> 1 & 7:
        min_x, max_x, min_y, max_y = struct.unpack_from("<4d" if blob[3] & 1 else ">4d", blob, 8)
        return min_x, min_y, max_x, max_y
    bounds: tuple[float, float, float, float] = geometry_of(blob).bounds
    return bounds


def _corner(place: int) -> Any:
    def value(blob: bytes | None) -> float | None:
        return None if blob is None else bounds_of(blob)[place]

    return value


SPATIAL_FUNCTIONS = {
    "ST_IsEmpty": lambda blob: None if blob is None else int(bool(blob[3] >> 4 & 1)),
    "ST_MinX": _corner(0),
    "ST_MinY": _corner(1),
    "ST_MaxX": _corner(2),
    "ST_MaxY": _corner(3),
}
"""Functions that the triggers of the spatial index call; GDAL and QGIS bring their own."""
