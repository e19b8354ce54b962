"""Align a raster with a target grid: the placement, decided once per run from geometry alone.

    same     identical lattice and extent          pixels are read unchanged
    shift    same lattice, other origin            another window is read; pixel values do not change
    warp     anything else                         bilinear resampling, sub-pixel offsets included

Pure geometry: this module opens no file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import Polygon

from wasnow.errors import GridMismatch, RasterUnsuitable
from wasnow.raster.grid import Grid, unusable_crs
from wasnow.raster.tiles import Window

KERNEL_PX = 2
"""Reach of bilinear resampling in source pixels, times the downscaling factor."""


@dataclass(frozen=True)
class Placement:
    """How the pixels of ``source`` are transferred to ``target``.

    Attributes:
        source: grid of the file, or of one of its overviews.
        target: the working grid.
        kind: see the module docstring.
        offset: for ``shift``: (row, col) of the target's upper left corner in the source.
        scale: source pixels per target pixel, in length, at the centre.
    """

    source: Grid
    target: Grid
    kind: Literal["same", "shift", "warp"]
    offset: tuple[int, int]
    scale: float

    @classmethod
    def of(cls, source: Grid, target: Grid) -> Placement:
        """Return the simplest exact placement of ``source`` on ``target``."""
        if not source.georeferenced and not target.georeferenced:
            # Pixel coordinates: the corners coincide; a scaled working grid differs only in pixel size.
            scale = math.sqrt(abs(target.transform.determinant))
            kind: Literal["same", "warp"] = "same" if source.shape == target.shape else "warp"
            return cls(source, target, kind, (0, 0), scale)
        if source.equals(target):
            return cls(source, target, "same", (0, 0), 1.0)
        offset = target.integer_offset_in(source)
        if offset is not None:
            return cls(source, target, "shift", offset, 1.0)
        return cls(source, target, "warp", (0, 0), target.scale_in(source))

    def source_window(self, window: Window) -> Window:
        """Return the source window that a target window needs, clipped to the source; empty if there is none."""
        if self.kind == "same":
            return window
        if self.kind == "shift":
            row, col = self.offset
            return Window(window.row + row, window.col + col, window.height, window.width).clip(*self.source.shape)
        cols, rows = self.target.crop(window).pixel_points(9)
        cols, rows = self.target.crop(window).pixels_in(self.source, cols, rows)
        known = np.isfinite(cols) & np.isfinite(rows)
        if not known.any():
            return Window(0, 0, 0, 0)
        pad = math.ceil(KERNEL_PX * max(1.0, self.scale)) + 1
        if not known.all():
            # Part of the window cannot be projected to the source's CRS: add a margin for it.
            pad += math.ceil(max(window.height, window.width) * self.scale / 8)
        bound = 2.0**31
        left, right = np.clip([cols[known].min() - pad, cols[known].max() + pad], -bound, bound)
        top, bottom = np.clip([rows[known].min() - pad, rows[known].max() + pad], -bound, bound)
        if self.source.crs is not None and self.source.crs.is_geographic and _wraps(cols.reshape(9, 9)):
            left, right = 0, self.source.width
        row, col = math.floor(top), math.floor(left)
        return Window(row, col, math.ceil(bottom) - row, math.ceil(right) - col).clip(*self.source.shape)

    def source_outline(self) -> Polygon:
        """Return the edge of the source in pixel coordinates of the target, where it can be projected."""
        cols, rows = self.source.outline()
        if self.source.georeferenced:
            cols, rows = self.source.pixels_in(self.target, cols, rows)
        else:
            cols, rows = cols / self.scale, rows / self.scale
        known = np.isfinite(cols) & np.isfinite(rows)
        if known.sum() < 3:
            return Polygon()
        outline = Polygon(np.column_stack([cols[known], rows[known]]))
        return outline if outline.is_valid else outline.buffer(0)

    def describe(self) -> str:
        """Describe the placement for ``run.json`` and ``wasnow info``."""
        if self.kind == "same":
            return "read unchanged"
        if self.kind == "shift":
            row, col = self.offset
            return f"same lattice, window shifted by {row:+d} rows, {col:+d} cols"
        if self.source.crs != self.target.crs:
            return f"warped from {_short(self.source)} to {_short(self.target)}, bilinear"
        if abs(self.scale - 1) > 1e-6:
            return f"resampled, bilinear, 1 px from {self.scale:.3g} x {self.scale:.3g} px of the file"
        cols, rows = self.target.pixels_in(self.source, np.array([0.0]), np.array([0.0]))
        return f"resampled, bilinear, for an offset of {rows[0]:+.2f} rows, {cols[0]:+.2f} cols"


def _wraps(cols: NDArray[np.float64]) -> bool:
    """Whether columns along a lattice of points run back: the window crosses the seam of the source's longitudes."""
    steps = np.diff(cols, axis=1)
    steps = steps[np.isfinite(steps)]
    return bool((steps > 0).any() and (steps < 0).any())


def _short(grid: Grid) -> str:
    name = grid.crs_name or "pixel coordinates"
    return name if len(name) < 40 else "a custom CRS"


def check_overlap(
    before: Grid, after: Grid, paths: tuple[str, str], has_transform: tuple[bool, bool] = (True, True)
) -> list[str]:
    """Reject a pair that cannot be compared; return warnings about one that can.

    Args:
        before: grid of the first date.
        after: grid of the second date.
        paths: of both files, for messages.
        has_transform: whether each file has a transform; without one, --assume-crs does not help.

    Returns:
        One text per warning.

    Raises:
        RasterUnsuitable: only one raster has a CRS.
        GridMismatch: no overlap, or neither has a CRS and the shapes differ.
    """
    if before.georeferenced != after.georeferenced:
        index, other = (0, after) if not before.georeferenced else (1, before)
        without = paths[index]
        if not has_transform[index]:
            raise RasterUnsuitable(
                without,
                f"no transform, so its pixels have no position (the other raster is in {_short(other)})",
                "Georeference it: gdal_translate -a_srs EPSG:CODE -a_ullr ULX ULY LRX LRY IN OUT.tif",
            )
        raise RasterUnsuitable(
            without,
            f"no CRS (the other raster is in {_short(other)})",
            f"If both use the same CRS, pass --assume-crs {_short(other) if ':' in _short(other) else 'EPSG:CODE'}",
        )
    if not before.georeferenced:
        if before.shape != after.shape:
            raise GridMismatch(
                f"neither raster has a CRS and their sizes differ ({before.width} x {before.height} and "
                f"{after.width} x {after.height} px): crop them to the same pixels, or georeference them"
            )
        return ["neither raster has a CRS: compared pixel by pixel, results are not georeferenced"]
    if before.crs != after.crs:
        for grid, path in zip((before, after), paths, strict=True):
            if grid.crs is not None and (kind := unusable_crs(grid.crs)) is not None:
                raise RasterUnsuitable(
                    path,
                    f"is in {kind}, which cannot be transformed to the CRS of the other raster",
                    "If its coordinates are in another CRS, pass --assume-crs EPSG:CODE",
                )
    overlap = overlap_share(before, after)
    if overlap == 0:
        raise GridMismatch(
            f"before ({before}) and after ({after}) do not overlap; check the CRS of each file with rio info: "
            "equal coordinates in neighbouring UTM zones are different places"
        )
    warnings = []
    if overlap < 0.999:
        warnings.append(f"after covers {overlap:.1%} of before; the rest is flagged as not processed")
    ratio = before.scale_in(after)
    if not 0.5 <= ratio <= 2:
        finer, coarser = ("after", "before") if ratio > 1 else ("before", "after")
        warnings.append(
            f"{finer} has {max(ratio, 1 / ratio):.2g} times finer pixels than {coarser}: "
            "detail that is visible at one date only can look like change"
        )
    return warnings


def overlap_share(target: Grid, other: Grid) -> float:
    """Return the share of ``target`` inside ``other``, 0..1.

    From their outlines, if a lattice of points confirms it. For global rasters, and where a projection is undefined,
    outlines collapse or have gaps; then from the points.
    """
    by_outline, by_points = _share_by_outline(target, other), _share_by_points(target, other)
    if abs(by_outline - by_points) <= 0.05 and (by_outline > 0 or by_points == 0):
        if by_outline > 0:
            return by_outline
        # A raster between the points of the lattice, whose outline cannot be projected as a whole.
        return 1e-6 if _share_by_points(other, target) > 0 and not _outline_is_known(target, other) else 0.0
    return by_points


def _outline_is_known(target: Grid, other: Grid) -> bool:
    cols, rows = other.pixels_in(target, *other.outline())
    return bool(np.isfinite(cols).all() and np.isfinite(rows).all())


def _share_by_points(target: Grid, other: Grid) -> float:
    """Return the share of a lattice of 64 x 64 cell centres of ``target`` that lie inside ``other``."""
    steps = (np.arange(64) + 0.5) / 64
    cols, rows = (axis.ravel() for axis in np.meshgrid(steps * target.width, steps * target.height))
    cols, rows = target.pixels_in(other, cols, rows)
    inside = (cols >= 0) & (cols <= other.width) & (rows >= 0) & (rows <= other.height)
    return float(inside.mean())


def _share_by_outline(target: Grid, other: Grid) -> float:
    frame = Polygon(np.column_stack(target.outline(2)))
    cols, rows = other.pixels_in(target, *other.outline())
    known = np.isfinite(cols) & np.isfinite(rows)
    if known.sum() < 3:
        return 0.0
    outline = Polygon(np.column_stack([cols[known], rows[known]]))
    outline = outline if outline.is_valid else outline.buffer(0)
    common = outline.intersection(frame).area / frame.area
    return float(min(1.0, common)) if common > 1e-9 else 0.0


def finest(before: Grid, after: Grid) -> Grid:
    """Return the grid with the smaller pixels; ``before`` if they are equal."""
    return before if not before.georeferenced or before.scale_in(after) <= 1 + 1e-6 else after
