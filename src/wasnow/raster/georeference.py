"""The CRS and transform of an open raster, checked for use."""

from __future__ import annotations

import math
from typing import Any

from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

from wasnow.errors import RasterUnsuitable, UsageError
from wasnow.raster.grid import unusable_crs

MAX_COORDINATE = 1e12
"""Larger than any coordinate on Earth, in any unit."""


def georeference(path: str, raster: Any, assume_crs: str | None) -> tuple[CRS | None, Affine, bool]:
    """Return (CRS or None, transform, whether the file has a transform).

    Args:
        path: of the raster.
        raster: an open ``rasterio.DatasetReader``.
        assume_crs: the CRS of files that do not declare a usable one.

    Raises:
        RasterUnsuitable: only ground control points or RPCs, or a transform that no pixel can use.
        UsageError: PROJ does not recognise ``assume_crs``.
    """
    crs, transform = raster.crs, raster.transform
    has_transform = transform != Affine.identity()
    if crs is not None and assume_crs is not None and unusable_crs(crs) is not None:
        crs = None
    if crs is None and not has_transform:
        gcps, _ = raster.gcps
        if gcps or raster.rpcs is not None:
            what = "ground control points" if gcps else "rational polynomial coefficients (RPC)"
            raise RasterUnsuitable(
                path, f"is georeferenced only by {what}", "Rectify it first: gdalwarp -t_srs EPSG:32633 IN OUT"
            )
    if crs is None and assume_crs is not None:
        if not has_transform:
            raise RasterUnsuitable(
                path,
                f"has no transform, so --assume-crs {assume_crs} cannot apply",
                "Georeference it (gdal_translate -a_ullr), or omit --assume-crs to compare pixel by pixel",
            )
        crs = parse_crs(assume_crs)
    if crs is None or not has_transform:
        # Coordinates in an unknown CRS are treated as pixel coordinates.
        return None, Affine.identity(), has_transform
    if not all(map(math.isfinite, transform[:6])) or abs(transform.determinant) < 1e-300:
        raise RasterUnsuitable(
            path, "has a degenerate transform that maps all pixels onto a line", "Georeference it again"
        )
    corners = [transform @ corner for corner in ((0, 0), (raster.width, 0), (0, raster.height), raster.shape[::-1])]
    if not all(abs(number) < MAX_COORDINATE for corner in corners for number in corner):
        raise RasterUnsuitable(
            path,
            f"has coordinates outside the Earth ({transform.c:.6g}, {transform.f:.6g})",
            "Georeference it again",
        )
    return crs, transform, True


def parse_crs(text: str) -> CRS:
    """Parse ``EPSG:32633``, WKT or a PROJ string.

    Raises:
        UsageError: PROJ does not recognise it.
    """
    try:
        return CRS.from_user_input(text)
    except CRSError:
        raise UsageError(f"unknown CRS {text!r}; write it as EPSG:32633") from None
