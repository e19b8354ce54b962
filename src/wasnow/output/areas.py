"""Area of pixels on the ellipsoid in square metres, and area of each transition.

Areas in the plane of a projection are wrong by its scale: by 0.08 % within a UTM zone, by a factor of 4 at 60° in Web
Mercator. Every pixel is therefore weighted by its area on the ellipsoid of the CRS.

    geographic grid    M N cos(lat) |det A|, integrated over the pixel with 2 x 2 Gauss points
    projected grid     |dP/dcol x dP/drow|, P the point on the ellipsoid in three dimensions, which has no
                       singularity at poles and antimeridian
                         o   o    o   o     evaluated at a few Chebyshev nodes and interpolated:
                         o   o    o   o     the density is analytic, so 17 x 17 nodes give ten digits
                         o   o    o   o     over a whole country

No file is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine
from numpy.polynomial import chebyshev
from numpy.typing import ArrayLike, NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from wasnow.vocabulary import Vocabulary

_LATTICES = (9, 17, 33, 65)
"""Chebyshev nodes per side, tried in this order until the error is below `_TOLERANCE`."""

_TOLERANCE = 1e-9
"""Largest allowed relative error of the interpolation, measured at points between the nodes."""

_STEP_M = 1000.0
"""Step of the difference quotients: large against the rounding of PROJ, small enough for the fourth order (1e-12)."""

_GAUSS = 0.5 / np.sqrt(3.0)
"""Distance of the two Gauss points from the centre of a unit interval."""

Density = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
"""Pixel coordinates ``rows, cols`` (broadcast together) to square metres per pixel."""


@dataclass(frozen=True, slots=True)
class PixelAreas:
    """Area of each pixel of a grid in square metres; made by `PixelAreas.of`, evaluated on demand.

    Attributes:
        height: rows of the grid.
        width: columns of the grid.
    """

    height: int
    width: int
    _density: Density
    _by_row: bool

    @classmethod
    def of(cls, crs: Any, transform: Affine, width: int, height: int) -> PixelAreas | None:
        """Return the pixel areas of a grid; None without a CRS, or with one that has no metres.

        Relative error: below 1e-9, and (pixel side / 20,000 km)² for the very large pixels of a projected world map.
        An engineering CRS (local axes of a site) counts as a plane. A pixel outside the Earth, such as a corner of a
        full-disk image, has area 0.

        Args:
            crs: anything that pyproj understands, such as a rasterio CRS; None for pixel coordinates.
            transform: (col, row) to CRS coordinates; may be rotated.
            width: columns.
            height: rows.
        """
        horizontal = _horizontal(crs)
        if horizontal is None:
            return None
        if horizontal.is_geographic and not horizontal.is_derived:
            return cls(height, width, _geographic_density(horizontal, transform), transform.b == transform.d == 0)
        if horizontal.is_projected or horizontal.is_geographic:
            density = _projected_density(horizontal, transform)
            return cls(height, width, _interpolated(density, height, width) or density, False)
        metres = _metres_per_unit(horizontal)
        if metres is None:
            return None
        area = abs(transform.determinant) * metres**2
        return cls(height, width, lambda rows, cols: np.full(np.broadcast_shapes(rows.shape, cols.shape), area), True)

    def at(self, rows: ArrayLike, cols: ArrayLike) -> NDArray[np.float64]:
        """Return the square metres of the pixels ``(rows[i], cols[i])``; 0-based integers, ``(n,)`` or scalars."""
        rows, cols = np.broadcast_arrays(np.atleast_1d(rows), np.atleast_1d(cols))
        return self._density(rows + 0.5, cols + 0.5)

    def window(self, row: int, col: int, height: int, width: int) -> NDArray[np.float64]:
        """Return the square metres of every pixel of a window: ``(height, width)``, possibly read-only.

        Args:
            row: first row.
            col: first column.
            height: rows.
            width: columns.
        """
        rows = np.arange(row, row + height, dtype=np.float64)[:, None] + 0.5
        cols = np.arange(col, col + width, dtype=np.float64)[None, :] + 0.5
        if self._by_row:
            return np.broadcast_to(self._density(rows, cols[:, :1]), (height, width))
        return self._density(rows, cols)

    def total(self, rows_at_once: int = 256) -> float:
        """Return the square metres of the whole grid; at most ``rows_at_once`` rows are in memory."""
        if self._by_row:
            return float(self.window(0, 0, self.height, 1).sum()) * self.width
        starts = range(0, self.height, rows_at_once)
        return float(
            sum(self.window(start, 0, min(rows_at_once, self.height - start), self.width).sum() for start in starts)
        )


class TransitionTable:
    """Pixels and square metres of every transition code, summed over windows.

    Attributes:
        pixels: ``(n_transitions + 1,)`` int64, by transition code; 0 is no change.
        area_m2: the same in square metres; 0 if windows were added without areas.
        not_processed: pixels that were not processed.
        not_processed_m2: the same in square metres.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._length = vocabulary.not_processed + 1
        self._codes = vocabulary.n_transitions + 1
        self._pixels = np.zeros(self._length, np.int64)
        self._area_m2 = np.zeros(self._length, np.float64)

    def add(self, codes: NDArray[np.unsignedinteger[Any]], areas_m2: NDArray[np.float64] | None = None) -> None:
        """Count one window.

        Args:
            codes: ``(h, w)`` transition codes, as in the third band of ``change.tif``.
            areas_m2: ``(h, w)`` from `PixelAreas.window`; None without georeference.
        """
        flat = codes.ravel()
        self._pixels += np.bincount(flat, minlength=self._length)
        if areas_m2 is not None:
            self._area_m2 += np.bincount(flat, areas_m2.ravel(), self._length)

    @property
    def pixels(self) -> NDArray[np.int64]:
        """Pixels by transition code, ``(n_transitions + 1,)``."""
        return self._pixels[: self._codes]

    @property
    def area_m2(self) -> NDArray[np.float64]:
        """Square metres by transition code, ``(n_transitions + 1,)``."""
        return self._area_m2[: self._codes]

    @property
    def not_processed(self) -> int:
        """Pixels that were not processed."""
        return int(self._pixels[-1])

    @property
    def not_processed_m2(self) -> float:
        """Square metres that were not processed."""
        return float(self._area_m2[-1])

    @property
    def occurring(self) -> list[int]:
        """The transition codes (1 and up) that at least one pixel has."""
        return [int(code) for code in np.flatnonzero(self.pixels) if code]


def _horizontal(crs: Any) -> CRS | None:
    """Return the horizontal part of a CRS, without vertical CRS and without bound datum shift."""
    if crs is None or crs == "":
        return None
    found = CRS.from_user_input(crs)
    while found.is_bound or found.is_compound:
        inner = found.source_crs if found.is_bound else found.sub_crs_list[0]
        if inner is None:
            return None
        found = inner
    return found


def _metres_per_unit(crs: CRS) -> float | None:
    """Return metres per unit of an engineering CRS whose first two axes have the same known unit of length; or None."""
    if crs.type_name != "Engineering CRS" or len(crs.axis_info) < 2:
        return None
    first, second = crs.axis_info[:2]
    lengths = ("metre", "meter", "foot", "feet", "yard", "chain", "link", "mile")
    if first.unit_name != second.unit_name or not any(word in first.unit_name.lower() for word in lengths):
        return None
    return float(first.unit_conversion_factor) or None


def _ellipsoid(crs: CRS) -> tuple[float, float]:
    """Return the semi-major axis in metres and the squared first eccentricity."""
    ellipsoid = crs.ellipsoid
    assert ellipsoid is not None  # geographic and projected CRSs always have one
    a, b = ellipsoid.semi_major_metre, ellipsoid.semi_minor_metre
    return a, (a * a - b * b) / (a * a)


def _geographic_density(crs: CRS, transform: Affine) -> Density:
    """Return square metres per pixel of a grid in longitude and latitude (in degrees, grads or the unit of the axes).

    The area element M N cos(lat), with the radii of curvature M and N (Snyder 1987, equations 4-18 to 4-20), averaged
    over the four Gauss points of the pixel: exact to 1e-10 for pixels of one degree. Beyond a pole it is 0.
    """
    a, e2 = _ellipsoid(crs)
    unit = crs.axis_info[0].unit_conversion_factor
    scale = a * a * (1 - e2) * unit * unit * abs(transform.determinant)

    def density(rows: NDArray[np.float64], cols: NDArray[np.float64]) -> NDArray[np.float64]:
        total: NDArray[np.float64] = np.zeros(np.broadcast_shapes(rows.shape, cols.shape))
        for dr in (-_GAUSS, _GAUSS):
            for dc in (-_GAUSS, _GAUSS):
                lat = (transform.d * (cols + dc) + transform.e * (rows + dr) + transform.f) * unit
                on_earth = np.abs(lat) <= np.pi / 2
                total += on_earth * np.cos(lat) / (1 - e2 * np.sin(lat) ** 2) ** 2
        return total * (scale / 4)

    return density


def _projected_density(crs: CRS, transform: Affine) -> Density:
    """Return square metres per pixel of any other grid, from the derivatives of the point on the ellipsoid."""
    geodetic = crs.geodetic_crs
    assert geodetic is not None  # every projected or derived CRS has its base
    a, e2 = _ellipsoid(geodetic)
    unit = geodetic.axis_info[0].unit_conversion_factor
    to_lonlat = Transformer.from_crs(crs, geodetic, always_xy=True)

    def on_ellipsoid(rows: NDArray[np.float64], cols: NDArray[np.float64]) -> NDArray[np.float64]:
        x = transform.a * cols + transform.b * rows + transform.c
        y = transform.d * cols + transform.e * rows + transform.f
        lon, lat = (np.asarray(angle) * unit for angle in to_lonlat.transform(x, y))
        lon, lat = (np.where(np.isfinite(angle), angle, np.nan) for angle in (lon, lat))
        n = a / np.sqrt(1 - e2 * np.sin(lat) ** 2)
        across = n * np.cos(lat)
        return np.stack([across * np.cos(lon), across * np.sin(lon), n * (1 - e2) * np.sin(lat)])

    # Units differ between CRSs; these numbers of pixels are about _STEP_M on the ground.
    per_unit = crs.axis_info[0].unit_conversion_factor * (a if crs.is_geographic else 1.0)
    col_step = _STEP_M / (per_unit * np.hypot(transform.a, transform.d))
    row_step = _STEP_M / (per_unit * np.hypot(transform.b, transform.e))

    def density(rows: NDArray[np.float64], cols: NDArray[np.float64]) -> NDArray[np.float64]:
        rows, cols = (np.ascontiguousarray(axis) for axis in np.broadcast_arrays(rows, cols))

        def derivative(dr: float, dc: float) -> NDArray[np.float64]:
            near = on_ellipsoid(rows + dr, cols + dc) - on_ellipsoid(rows - dr, cols - dc)
            far = on_ellipsoid(rows + 2 * dr, cols + 2 * dc) - on_ellipsoid(rows - 2 * dr, cols - 2 * dc)
            return (8 * near - far) / (12 * (dr + dc))

        along, down = derivative(0, col_step), derivative(row_step, 0)
        area: NDArray[np.float64] = np.linalg.norm(np.cross(along, down, axis=0), axis=0)
        return np.nan_to_num(area, nan=0.0)

    return density


def _interpolated(density: Density, height: int, width: int) -> Density | None:
    """Return the density interpolated from as few Chebyshev nodes as possible; None if no number of nodes suffices.

    Args:
        density: square metres per pixel.
        height: rows of the grid.
        width: columns of the grid.
    """
    checks = np.linspace(0.02, 0.98, 23)
    check_rows, check_cols = checks[:, None] * height, checks[None, :] * width
    try:
        exact = density(check_rows, check_cols)
        for nodes in _LATTICES:
            points = chebyshev.chebpts1(nodes)
            values = density((points[:, None] + 1) / 2 * height, (points[None, :] + 1) / 2 * width)
            to_coefficients = np.linalg.inv(chebyshev.chebvander(points, nodes - 1))
            coefficients = to_coefficients @ values @ to_coefficients.T
            fitted = _Chebyshev(coefficients, height, width)
            if (np.abs(fitted(check_rows, check_cols) - exact) <= _TOLERANCE * exact).all():
                return fitted
    except ProjError:
        pass
    return None


@dataclass(frozen=True, slots=True)
class _Chebyshev:
    """A density as a Chebyshev series over the grid; ``coefficients[i, j]`` belongs to row order i, column order j."""

    coefficients: NDArray[np.float64]
    height: int
    width: int

    def __call__(self, rows: NDArray[np.float64], cols: NDArray[np.float64]) -> NDArray[np.float64]:
        order = len(self.coefficients) - 1
        by_row = chebyshev.chebvander(np.asarray(rows) * (2 / self.height) - 1, order)
        by_col = chebyshev.chebvander(np.asarray(cols) * (2 / self.width) - 1, order)
        if rows.ndim == cols.ndim == 2 and rows.shape[1] == cols.shape[0] == 1:
            return np.asarray(by_row[:, 0] @ self.coefficients @ by_col[0].T)
        return np.asarray(((by_row @ self.coefficients) * by_col).sum(-1))
