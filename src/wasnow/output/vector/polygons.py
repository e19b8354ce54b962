"""Polygons of change from the two rasters of a result folder, in batches.

    change.tif      band 3    transition codes; 0 = no change, the largest value = not processed
    confidence.tif  band 1    probability of change x 254; 255 = not processed
                    bands 2, 3 (only with classes)    probability x 254 of the predicted class before and after

A polygon is a set of connected pixels of one transition code. ``area_m2`` and ``n_px`` are those of its pixels, also
after simplification.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from wasnow.errors import GridMismatch, RasterUnreadable, RasterUnsuitable, UsageError
from wasnow.output.areas import PixelAreas
from wasnow.output.layout import CONFIDENCE_SCALE
from wasnow.output.vector.components import Components, Pixels, components
from wasnow.output.vector.outlines import polygons
from wasnow.raster.gdal import open_raster
from wasnow.vocabulary import Vocabulary

TOUCHES_NOT_PROCESSED = "touches_not_processed"
"""Flag of a polygon with a pixel beside one that was not processed; it may continue there."""

_CORNERS_AT_ONCE = 200_000
"""Corners that are joined to rings at once; limits the memory of one batch."""


@dataclass(frozen=True, slots=True)
class PolygonBatch:
    """Some polygons of change, as columns.

    Attributes:
        id: ``(N,)`` int64, 1 and up over all batches.
        code: ``(N,)`` int64 transition code.
        p_change: ``(N,)`` 0..1, mean over the pixels; NaN where unknown.
        p_from: ``(N,)`` the same for the predicted class before; NaN without classes.
        p_to: ``(N,)`` the same for the predicted class after; NaN without classes.
        area_m2: ``(N,)`` square metres on the ellipsoid; NaN without georeference.
        n_px: ``(N,)`` int64.
        edge: ``(N,)`` whether the polygon touches the border of the raster.
        flags: ``(N,)`` str, comma separated, empty for none.
        geometry: ``(N,)`` shapely Polygon (MultiPolygon with connectivity 8), in the CRS of the raster, exterior rings
            counter-clockwise.
    """

    id: NDArray[np.int64]
    code: NDArray[np.int64]
    p_change: NDArray[np.float64]
    p_from: NDArray[np.float64]
    p_to: NDArray[np.float64]
    area_m2: NDArray[np.float64]
    n_px: NDArray[np.int64]
    edge: NDArray[np.bool_]
    flags: NDArray[np.object_]
    geometry: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.id)


def polygonize(
    change: Path,
    confidence: Path,
    vocabulary: Vocabulary,
    *,
    min_area_m2: float = 0.0,
    min_pixels: int = 1,
    connectivity: Literal[4, 8] = 4,
    simplify_m: float | None = None,
    chunk: int = 2048,
) -> Iterator[PolygonBatch]:
    """Yield the polygons of a result folder in batches; memory does not grow with the raster.

    Ids count up in the order of the result: by the chunk that completes a polygon, then by its first pixel. They are
    the same in every run; the polygons themselves do not depend on ``chunk``.

    Simplification (`shapely.coverage_simplify`, Visvalingam-Whyatt) moves shared borders together, so that neighbours
    neither overlap nor leave gaps. It needs all polygons in memory: about 1 kB per polygon and 16 bytes per pixel of
    outline.

    Args:
        change: ``change.tif``.
        confidence: ``confidence.tif`` on the same grid.
        vocabulary: the class words of the codes.
        min_area_m2: smaller polygons are left out; in pixels without georeference.
        min_pixels: polygons of fewer pixels are left out.
        connectivity: 4: pixels are connected by sides; 8: also by corners, and polygons are multipolygons.
        simplify_m: tolerance in metres; in pixels without georeference. It is converted to pixels at the centre of the
            raster. Outlines may lose detours whose triangle is smaller than the tolerance squared.
        chunk: side of the square that is in memory, in pixels.

    Raises:
        RasterUnreadable: one of the files is missing or damaged.
        RasterUnsuitable: their bands are not those of a result folder with this vocabulary.
        GridMismatch: they differ in size.
        UsageError: an option is out of range.
    """
    _check_options(min_area_m2, min_pixels, connectivity, simplify_m, chunk)
    with ExitStack() as stack:
        codes, probabilities = (stack.enter_context(_opened(path)) for path in (change, confidence))
        _check_bands(change, codes, confidence, probabilities, vocabulary)
        areas = PixelAreas.of(codes.crs, codes.transform, codes.width, codes.height)
        found = (
            piece
            for whole in components(
                _reader(codes, probabilities, areas, vocabulary),
                codes.height,
                codes.width,
                not_processed=vocabulary.not_processed,
                connectivity=connectivity,
                chunk=chunk,
            )
            for piece in _portions(_large_enough(whole, areas, min_area_m2, min_pixels))
        )
        batches = _numbered(found, areas is not None, diagonal=connectivity == 8)
        if simplify_m:
            batches = _simplified(
                batches, simplify_m / _pixel_side(areas, codes.height, codes.width), diagonal=connectivity == 8
            )
        for batch in batches:
            yield replace(batch, geometry=_to_world(batch.geometry, codes.transform))


def _check_options(
    min_area_m2: float, min_pixels: int, connectivity: int, simplify_m: float | None, chunk: int
) -> None:
    if connectivity not in (4, 8):
        raise UsageError(f"connectivity is {connectivity}; give 4, or 8 to connect pixels by corners")
    if not (math.isfinite(min_area_m2) and min_area_m2 >= 0 and min_pixels >= 0):
        raise UsageError(f"the minimum area is {min_area_m2} m² or {min_pixels} px; give 0 or more")
    if simplify_m is not None and not (math.isfinite(simplify_m) and simplify_m >= 0):
        raise UsageError(f"the simplify tolerance is {simplify_m} m; give 0 or more")
    if chunk < 1:
        raise UsageError(f"the chunk side is {chunk} px; give 1 or more")


def _opened(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # such rasters are in pixel coordinates
            return open_raster(str(path))
    except RasterUnreadable as error:
        raise RasterUnreadable(path, f"cannot be read ({error.reason})", "Run wasnow detect again.") from None


def _check_bands(change: Path, codes: Any, confidence: Path, probabilities: Any, vocabulary: Vocabulary) -> None:
    if codes.count != 3 or codes.dtypes[2] != vocabulary.dtype.name:
        raise RasterUnsuitable(
            change,
            f"has {codes.count} bands of {codes.dtypes[-1]}, required are 3 of {vocabulary.dtype.name}",
            "Give the class words of the run that wrote it.",
        )
    if probabilities.count not in (1, 3) or probabilities.dtypes[0] != "uint8":
        raise RasterUnsuitable(
            confidence,
            f"has {probabilities.count} bands of {probabilities.dtypes[0]}, required are 1 or 3 of uint8",
            "Give the confidence.tif of a result folder.",
        )
    if codes.shape != probabilities.shape:
        raise GridMismatch(
            f"{change} has {codes.shape} pixels, {confidence} has {probabilities.shape}; take both from one folder"
        )


def _reader(codes: Any, probabilities: Any, areas: PixelAreas | None, vocabulary: Vocabulary) -> Any:
    """Return a function that reads one chunk of both rasters; see `components.ReadPixels`."""

    def read(row: int, col: int, height: int, width: int) -> Pixels:
        top, left = max(row - 1, 0), max(col - 1, 0)
        bottom, right = min(row + height + 1, codes.height), min(col + width + 1, codes.width)
        padded = np.zeros((height + 2, width + 2), vocabulary.dtype)
        try:
            padded[top - row + 1 : bottom - row + 1, left - col + 1 : right - col + 1] = codes.read(
                3, window=Window(left, top, right - left, bottom - top)
            )
            values = probabilities.read(window=Window(col, row, width, height))
        except RasterioError as error:
            raise RasterUnreadable(
                codes.name, f"cannot be read ({error.__cause__ or error})", "Run wasnow detect again."
            ) from None
        return Pixels(padded, values, areas.window(row, col, height, width) if areas else None)

    return read


def _large_enough(found: Components, areas: PixelAreas | None, min_area_m2: float, min_pixels: int) -> Components:
    size = found.area_m2 if areas else found.n_px
    keep = (size >= min_area_m2) & (found.n_px >= min_pixels)
    return found if keep.all() else found.take(np.flatnonzero(keep))


def _portions(found: Components) -> Iterator[Components]:
    """Split components, in order, so that no portion of more than one has too many corners."""
    load = np.cumsum(np.bincount(found.region, minlength=len(found))) // _CORNERS_AT_ONCE
    for portion in np.unique(load):
        chosen = np.flatnonzero(load == portion)
        yield found if len(chosen) == len(found) else found.take(chosen)


def _numbered(found: Iterator[Components], georeferenced: bool, *, diagonal: bool) -> Iterator[PolygonBatch]:
    """Turn components into batches with ids that count up; geometry is in pixel coordinates."""
    last = 0
    for part in found:
        count = len(part)
        with np.errstate(invalid="ignore"):
            mean = part.confidence / (float(CONFIDENCE_SCALE) * part.known)
        unknown = np.full(count, np.nan)
        flags = np.full(count, "", object)
        flags[part.beside_not_processed] = TOUCHES_NOT_PROCESSED
        yield PolygonBatch(
            id=np.arange(last + 1, last + count + 1, dtype=np.int64),
            code=part.code,
            p_change=mean[:, 0],
            p_from=mean[:, 1] if mean.shape[1] == 3 else unknown,
            p_to=mean[:, 2] if mean.shape[1] == 3 else unknown,
            area_m2=part.area_m2 if georeferenced else unknown,
            n_px=part.n_px,
            edge=part.edge,
            flags=flags,
            geometry=polygons(part.region, part.corners, count, diagonal=diagonal),
        )
        last += count


def _pixel_side(areas: PixelAreas | None, height: int, width: int) -> float:
    """Return the side of a square with the area of the centre pixel, in metres; 1 without metres."""
    side = math.sqrt(float(areas.at([height // 2], [width // 2])[0])) if areas else 1.0
    return side or 1.0


def _simplified(batches: Iterator[PolygonBatch], tolerance_px: float, *, diagonal: bool) -> Iterator[PolygonBatch]:
    """Simplify the outlines so that neighbours still share them.

    A coverage is valid only if neighbours have the same vertices along a shared border, so every pixel corner on an
    outline first becomes a vertex.
    """
    kept = list(batches)
    if not kept:
        return
    whole = np.concatenate([batch.geometry for batch in kept])
    dense = shapely.transform(shapely.segmentize(whole, 1.0), np.round)
    simple = shapely.coverage_simplify(dense, tolerance_px)
    start = 0
    for batch in kept:
        part = simple[start : start + len(batch)]
        if diagonal:  # GEOS returns a multipolygon of one part as a polygon
            part = np.array([one if one.geom_type == "MultiPolygon" else shapely.MultiPolygon([one]) for one in part])
        yield replace(batch, geometry=part)
        start += len(batch)


def _to_world(geometry: NDArray[np.object_], transform: Affine) -> NDArray[np.object_]:
    """Transform pixel to CRS coordinates; exterior rings are counter-clockwise there (OGC, GeoJSON)."""
    matrix = np.array([[transform.a, transform.b], [transform.d, transform.e]])
    offset = np.array([transform.c, transform.f])
    world = shapely.transform(geometry, lambda points: points @ matrix.T + offset)
    return np.asarray(shapely.orient_polygons(world, exterior_cw=False), object)
