"""Pixel grids: a CRS, an affine transform, a shape.

    (col, row) of a pixel's upper left corner --transform--> (x, y) in the CRS      centre = corner + 0.5

Any affine transform is allowed: rotated, sheared, south-up. This module opens no file.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import transform as _rasterio_transform

from wasnow.errors import GridMismatch
from wasnow.raster.tiles import Window

Points = tuple[NDArray[np.float64], NDArray[np.float64]]


def project(source: CRS, target: CRS, xs: NDArray[np.float64], ys: NDArray[np.float64]) -> Points:
    """Transform coordinates between two CRS; inf where the projection is undefined.

    Args:
        source: CRS of the coordinates.
        target: CRS of the result.
        xs: eastings or longitudes.
        ys: northings or latitudes.
    """
    try:
        x_list, y_list = _rasterio_transform(source, target, xs, ys)
    except (RasterioError, CPLE_BaseError):
        # GDAL fails as a whole if some points lie outside the domain of the projection: transform one by one.
        if len(xs) == 1:
            return np.array([np.inf]), np.array([np.inf])
        half = len(xs) // 2
        parts = [project(source, target, xs[part], ys[part]) for part in (slice(0, half), slice(half, None))]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    return np.asarray(x_list, np.float64), np.asarray(y_list, np.float64)


@dataclass(frozen=True)
class Grid:
    """A regular grid of pixels; with ``crs`` None, coordinates are pixel coordinates."""

    crs: CRS | None
    transform: Affine
    width: int
    height: int

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols)."""
        return self.height, self.width

    @property
    def georeferenced(self) -> bool:
        """Whether the grid has a CRS."""
        return self.crs is not None

    def crop(self, window: Window) -> Grid:
        """Return the grid of a window of this grid."""
        return Grid(self.crs, self.transform @ Affine.translation(window.col, window.row), window.width, window.height)

    def scaled(self, factor: float) -> Grid:
        """Return a grid with the same upper left corner and extent and ``factor`` times longer pixels."""
        if factor == 1:
            return self
        return Grid(
            self.crs,
            self.transform @ Affine.scale(factor),
            max(1, math.ceil(self.width / factor - 1e-9)),
            max(1, math.ceil(self.height / factor - 1e-9)),
        )

    def pixel_points(self, points_per_side: int = 21) -> Points:
        """Return (cols, rows) of a lattice of points over the whole grid, edges included, in pixel coordinates."""
        cols, rows = np.meshgrid(
            np.linspace(0, self.width, points_per_side), np.linspace(0, self.height, points_per_side)
        )
        return cols.ravel(), rows.ravel()

    def outline(self, points_per_side: int = 21) -> Points:
        """Return (cols, rows) of points around the edge, closed, in pixel coordinates."""
        step = np.linspace(0, 1, points_per_side)
        zeros, ones = np.zeros_like(step), np.ones_like(step)
        cols = np.concatenate([step, ones, step[::-1], zeros]) * self.width
        rows = np.concatenate([zeros, step, ones, step[::-1]]) * self.height
        return cols, rows

    def to_world(self, cols: NDArray[np.float64], rows: NDArray[np.float64]) -> Points:
        """Convert pixel coordinates to CRS coordinates."""
        t = self.transform
        return t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f

    def to_pixels(self, xs: NDArray[np.float64], ys: NDArray[np.float64]) -> Points:
        """Convert CRS coordinates to pixel coordinates (cols, rows); inf for infinite coordinates."""
        inverse = ~self.transform
        known = np.isfinite(xs) & np.isfinite(ys)
        xs, ys = np.where(known, xs, 0.0), np.where(known, ys, 0.0)
        cols, rows = inverse.a * xs + inverse.b * ys + inverse.c, inverse.d * xs + inverse.e * ys + inverse.f
        return np.where(known, cols, np.inf), np.where(known, rows, np.inf)

    def pixels_in(self, other: Grid, cols: NDArray[np.float64], rows: NDArray[np.float64]) -> Points:
        """Convert pixel coordinates of this grid to those of another; inf where the projection is undefined.

        Longitudes are unwrapped around the centre of ``other``, so a grid that crosses the antimeridian stays whole.

        Args:
            other: the grid whose pixel coordinates are wanted.
            cols: in pixels of this grid.
            rows: in pixels of this grid.
        """
        xs, ys = self.to_world(cols, rows)
        if self.crs is not None and other.crs is not None and self.crs != other.crs:
            xs, ys = project(self.crs, other.crs, xs, ys)
        if other.crs is not None and other.crs.is_geographic:
            middle = other.to_world(np.array([other.width / 2]), np.array([other.height / 2]))[0][0]
            with np.errstate(invalid="ignore"):
                xs = np.where(np.isfinite(xs), middle + (xs - middle + 180.0) % 360.0 - 180.0, np.inf)
        return other.to_pixels(xs, ys)

    def scale_in(self, other: Grid) -> float:
        """Return how many pixels of ``other`` one pixel of this grid spans, in length, at this grid's centre.

        If the centre lies outside ``other``, at the centre of ``other``.

        Raises:
            GridMismatch: the centre cannot be projected to the CRS of ``other``.
        """
        col, row = self.width / 2, self.height / 2
        if self.crs != other.crs:
            col, row = self._common_place(other, col, row)
        half = np.array([col, col + 1, col])
        rows = np.array([row, row, row + 1])
        cols_there, rows_there = self.pixels_in(other, half, rows)
        if np.isfinite(cols_there).all() and np.ptp(cols_there) > other.width / 2:
            # The centre lies on the seam of the other grid's longitudes: measure a quarter of the width away.
            cols_there, rows_there = self.pixels_in(other, half - self.width / 4, rows)
        if not (np.isfinite(cols_there).all() and np.isfinite(rows_there).all()):
            raise GridMismatch(f"the centre of {self} cannot be projected to the CRS of {other}; check both CRS")
        across = (cols_there[1] - cols_there[0], rows_there[1] - rows_there[0])
        down = (cols_there[2] - cols_there[0], rows_there[2] - rows_there[0])
        return math.sqrt(abs(across[0] * down[1] - across[1] * down[0]))

    def _common_place(self, other: Grid, col: float, row: float) -> tuple[float, float]:
        """Return a pixel position, or that of the other grid's centre if only this lies inside both grids."""
        cols, rows = self.pixels_in(other, np.array([col]), np.array([row]))
        if 0 <= cols[0] <= other.width and 0 <= rows[0] <= other.height:
            return col, row
        cols, rows = other.pixels_in(self, np.array([other.width / 2]), np.array([other.height / 2]))
        if 0 <= cols[0] <= self.width and 0 <= rows[0] <= self.height:
            return float(cols[0]), float(rows[0])
        return col, row

    @property
    def gsd_m(self) -> float | None:
        """Ground sampling distance in m: the side of a square with the area of the centre pixel on the ellipsoid."""
        if self.crs is None:
            return None
        col, row = self.width / 2, self.height / 2
        xs, ys = self.to_world(np.array([col, col + 1, col + 1, col]), np.array([row, row, row + 1, row + 1]))
        lons, lats = project(self.crs, CRS.from_epsg(4326), xs, ys)
        if not np.isfinite(lons).all() or not np.isfinite(lats).all():
            return math.sqrt(abs(self.transform.determinant)) if self.crs.is_projected else None
        from pyproj import Geod

        area, _ = Geod(ellps="WGS84").polygon_area_perimeter(lons, lats)
        return math.sqrt(abs(area))

    def equals(self, other: Grid, tolerance_px: float = 1e-3) -> bool:
        """Whether CRS and shape are equal and all corners agree within ``tolerance_px``."""
        return self.shape == other.shape and self.integer_offset_in(other, tolerance_px) == (0, 0)

    def integer_offset_in(self, other: Grid, tolerance_px: float = 1e-3) -> tuple[int, int] | None:
        """Return (row, col) of this grid's upper left corner in ``other`` if the two lattices coincide; else None."""
        if (self.crs is None) != (other.crs is None) or (self.crs is not None and self.crs != other.crs):
            return None
        cols, rows = self.pixels_in(
            other, np.array([0.0, self.width, 0.0, self.width]), np.array([0.0, 0.0, self.height, self.height])
        )
        row, col = round(rows[0]), round(cols[0])
        off_cols = np.abs(cols - (col + np.array([0, self.width, 0, self.width])))
        off_rows = np.abs(rows - (row + np.array([0, 0, self.height, self.height])))
        return (row, col) if max(off_cols.max(), off_rows.max()) <= tolerance_px else None

    @property
    def crs_name(self) -> str | None:
        """``EPSG:25832`` if there is an authority code, else WKT."""
        if self.crs is None:
            return None
        authority = self.crs.to_authority(confidence_threshold=100)
        return ":".join(authority) if authority else str(self.crs.to_wkt())

    def __str__(self) -> str:
        if self.crs is None:
            return f"{self.width} x {self.height} px without a CRS"
        xs, ys = self.to_world(*self.outline(2))
        name = self.crs_name or ""
        name = name if len(name) < 40 else "a CRS without EPSG code"
        digits = 5 if self.crs.is_geographic else 1
        return (
            f"{self.width} x {self.height} px in {name}, "
            f"x {xs.min():.{digits}f} to {xs.max():.{digits}f}, y {ys.min():.{digits}f} to {ys.max():.{digits}f}"
        )


_UNUSABLE_CRS = {
    "GEOCCS": "a geocentric CRS",
    "GEODCRS_CARTESIAN": "a geocentric CRS",
    "VERT_CS": "a vertical CRS",
    "VERTCRS": "a vertical CRS",
    "LOCAL_CS": "a local (engineering) CRS",
    "ENGCRS": "a local (engineering) CRS",
    "ENGINEERINGCRS": "a local (engineering) CRS",
}


def unusable_crs(crs: CRS) -> str | None:
    """Describe a CRS whose coordinates cannot be projected to the Earth's surface; None for usable ones."""
    try:
        wkt = crs.to_wkt(version="WKT2_2019")
    except CRSError:
        wkt = crs.to_wkt()
    keyword = wkt.partition("[")[0].strip().upper()
    if keyword == "GEODCRS" and "CS[Cartesian" in wkt:
        keyword = "GEODCRS_CARTESIAN"
    if keyword in _UNUSABLE_CRS:
        return _UNUSABLE_CRS[keyword]
    # Semi-axis of the reference ellipsoid in m: the Earth's is 6356 to 6400 km on every ellipsoid in use.
    axis = re.search(r'(?:ELLIPSOID|SPHEROID)\["[^"]*",\s*([0-9.eE+]+)', wkt)
    if axis is not None and not 6.3e6 < float(axis[1]) < 6.45e6:
        return "a CRS of another celestial body"
    return None
