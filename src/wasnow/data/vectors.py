"""Labels as polygons, rasterized on the pixel grid of their pair when they are read.

    changes.gpkg   ┐  polygons in any CRS    reprojected,       (H, W) class codes of the first date
    0001.geojson   ├─ columns from, to    ─> pixel centres  ─>  (H, W) class codes of the second date
    0001.json      ┘  (or none: change)      inside             0 outside all polygons

A pixel belongs to the polygon that contains its centre. Where polygons overlap, the later one in the file wins. A
polygon with an empty class is changed, without a class label at that date. Pixel coordinates (xBD's JSON) need no CRS.
Polygons without a CRS, such as a shapefile without its .prj, are in the CRS of the image if their coordinates fit it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError
from rasterio.features import rasterize

from wasnow.data.images import Header
from wasnow.errors import InputError
from wasnow.raster.tiles import Window
from wasnow.raster.trust import check_vector
from wasnow.vocabulary import NO_LABEL

VECTOR_SUFFIXES = frozenset({".geojson", ".gpkg", ".shp", ".fgb", ".parquet", ".json"})

_FROM_COLUMNS = ("from", "before", "class_before", "from_class", "before_class")
_TO_COLUMNS = ("to", "after", "class_after", "to_class", "after_class")
_LAYERS = ("changes",)
_POLYGONIZE = "Convert them to polygons first, such as with a buffer"


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns that name the classes of the two dates; None for polygons of binary change."""

    before: str | None = None
    after: str | None = None


@dataclass(frozen=True)
class Polygons:
    """The polygons of one file: shapes, class words of both dates (None where not given), and CRS."""

    shapes: NDArray[np.object_]
    before: tuple[str | None, ...]
    after: tuple[str | None, ...]
    crs: str | None
    has_classes: bool


def is_vector(path: Path) -> bool:
    """Whether a label file holds polygons, judged by its suffix."""
    return path.suffix.lower() in VECTOR_SUFFIXES


def words_in(paths: Sequence[Path], columns: Columns | None) -> tuple[str, ...]:
    """Return all class words of these files, sorted; empty for polygons of binary change."""
    found: set[str] = set()
    for path in paths:
        polygons = read_polygons(path, columns)
        found.update(word for word in (*polygons.before, *polygons.after) if word)
    return tuple(sorted(found))


def read_polygons(path: Path, columns: Columns | None = None) -> Polygons:
    """Read the polygons of a file. The last few files are cached, because one file often serves all pairs.

    Args:
        path: any format that OGR reads, or xBD's JSON.
        columns: None looks for ``from`` and ``to``, as ``wasnow detect`` writes them, and similar names.

    Raises:
        InputError: not readable, or a requested column does not exist.
    """
    try:
        return _read_polygons(path, columns, path.stat().st_mtime_ns)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


@lru_cache(maxsize=8)
def _read_polygons(path: Path, columns: Columns | None, mtime_ns: int) -> Polygons:
    if path.suffix.lower() == ".json" and (xbd := _xbd(path)) is not None:
        return xbd
    check_vector(path)
    try:
        meta, _, shapes, fields = pyogrio.raw.read(path, layer=polygon_layer(path))
    except (DataSourceError, DataLayerError, OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as polygons: {' '.join(str(error).split())}") from None
    table = dict(zip(meta["fields"], fields, strict=True))
    if columns is None:
        lower = {name.casefold(): name for name in table}
        columns = Columns(
            next((lower[name] for name in _FROM_COLUMNS if name in lower), None),
            next((lower[name] for name in _TO_COLUMNS if name in lower), None),
        )
        if columns.after is None:
            columns = Columns()
    absent = [name for name in (columns.before, columns.after) if name is not None and name not in table]
    if absent:
        raise InputError(f"{path}: has no column {absent[0]!r}; its columns are {', '.join(table) or 'none'}")
    geometry = geometries(path, shapes)
    there = ~(shapely.is_missing(geometry) | shapely.is_empty(geometry))
    check_polygons(path, geometry[there])

    def words(name: str | None) -> tuple[str | None, ...]:
        if name is None:
            return (None,) * int(there.sum())
        return tuple(None if value is None or value != value else str(value) for value in table[name][there])

    return Polygons(
        geometry[there], words(columns.before), words(columns.after), meta["crs"], columns.after is not None
    )


def polygon_layer(path: Path) -> str:
    """Return the layer of polygons of a file: the one named ``changes``, else the only one.

    Raises:
        InputError: no polygons, or several layers of them.
        DataSourceError, OSError, ValueError: the file cannot be read.
    """
    layers = {str(name): str(kind) for name, kind in pyogrio.list_layers(path) if kind is not None}
    if not layers:
        raise InputError(f"{path}: has no layer with geometries. Give a file of polygons")
    named = next((name for name in _LAYERS if name in layers), None)
    areas = [name for name, kind in layers.items() if not any(word in kind for word in ("Line", "Point", "Curve"))]
    areas += [name for name, kind in layers.items() if "CurvePolygon" in kind]
    if named is not None and named in areas:
        return named
    if not areas:
        raise InputError(f"{path}: holds {', '.join(dict.fromkeys(layers.values()))}, not polygons. {_POLYGONIZE}")
    if len(areas) > 1:
        raise InputError(
            f"{path}: has several layers of polygons ({', '.join(areas)}). Keep one of them, or name it {_LAYERS[0]}"
        )
    return areas[0]


def check_polygons(path: Path, geometry: NDArray[Any]) -> None:
    """Reject lines and points, which would be rasterized as if they were areas.

    Raises:
        InputError: some geometries are not polygons.
    """
    kinds = shapely.get_type_id(geometry)
    others = sorted(
        {shapely.GeometryType(int(kind)).name.lower() for kind in np.unique(kinds) if kind not in (3, 6, -1)}
    )
    if others:
        raise InputError(f"{path}: holds geometries of type {', '.join(others)}, not only polygons. {_POLYGONIZE}")


def burn(
    polygons: Polygons, head: Header, codes: Mapping[str, int], window: Window | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], dict[str, int]]:
    """Rasterize polygons to class codes of both dates.

    Args:
        polygons: from `read_polygons`.
        head: the grid of the image.
        codes: class word, casefolded -> 1..K; empty for binary change, which becomes 1.
        window: part of the grid; None for all of it.

    Returns:
        Codes of the first and of the second date, ``(H, W)`` each, and the words that are not in ``codes`` with their
        number of polygons (rasterized as 255).

    Raises:
        InputError: the polygons cannot be transformed to the grid.
    """
    at = window or Window(0, 0, head.height, head.width)
    shapes = _on_grid(polygons, head)
    unknown: dict[str, int] = {}

    def code(word: str | None) -> int:
        if not codes:
            return 1
        if word is None:
            return NO_LABEL
        known = codes.get(word.casefold())
        if known is None:
            unknown[word] = unknown.get(word, 0) + 1
        return NO_LABEL if known is None else known

    corners = np.array([at.col, at.row, at.col_stop, at.row_stop], np.float64)
    near = [i for i, shape in enumerate(shapes) if shapely.box(*corners).intersects(shape)]

    def rasterized(words: Sequence[str | None]) -> NDArray[np.uint8]:
        values = [(shapes[i], code(words[i])) for i in near]
        if not values:
            return np.zeros((at.height, at.width), np.uint8)
        out: NDArray[np.uint8] = rasterize(
            values, out_shape=(at.height, at.width), transform=Affine.translation(at.col, at.row), dtype="uint8"
        )
        return out

    return rasterized(polygons.before), rasterized(polygons.after), unknown


def _on_grid(polygons: Polygons, head: Header) -> list[Any]:
    """Return the shapes in pixel coordinates: x is columns, y is rows."""
    if head.crs is None or not head.georeferenced:
        if polygons.crs is not None and not _looks_like_pixels(polygons, head):
            raise InputError("the polygons have a CRS and the images have none. Give georeferenced images")
        return list(polygons.shapes)
    if polygons.crs is None and (not len(polygons.shapes) or not _fit_image_crs(polygons, head)):
        return list(polygons.shapes)
    inverse, target = ~head.transform, head.crs.to_wkt()
    try:
        source = target if polygons.crs is None else polygons.crs
        same = CRS.from_user_input(source).equals(CRS.from_user_input(target), ignore_axis_order=True)
        to_crs = None if same else Transformer.from_crs(source, target, always_xy=True)
    except (CRSError, ProjError) as error:
        raise InputError(f"the CRS of the polygons cannot be used: {error}") from None

    def move(points: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = points[:, 0], points[:, 1]
        if to_crs is not None:
            x, y = to_crs.transform(x, y)
        return np.column_stack([inverse.a * x + inverse.b * y + inverse.c, inverse.d * x + inverse.e * y + inverse.f])

    return [shapely.transform(shape, move) for shape in polygons.shapes]


def _fit_image_crs(polygons: Polygons, head: Header) -> bool:
    """Whether coordinates without a CRS are in that of the image; False if they are pixels.

    Raises:
        InputError: they are neither.
    """
    left, bottom, right, top = shapely.total_bounds(polygons.shapes)
    corners = [
        head.transform @ corner for corner in ((0, 0), (head.width, 0), (0, head.height), (head.width, head.height))
    ]
    xs, ys = zip(*corners, strict=True)
    degrees = left >= -180 and right <= 180 and bottom >= -90 and top <= 90
    assert head.crs is not None
    if (head.crs.is_geographic and degrees) or (
        left < max(xs) and right > min(xs) and bottom < max(ys) and top > min(ys)
    ):
        return True
    if left >= 0 and bottom >= 0 and right <= head.width and top <= head.height:
        return False
    if head.crs.is_geographic or degrees:
        raise InputError(
            "the polygons have no CRS (a shapefile needs its .prj file), and their coordinates do not fit the image. "
            "Add the CRS"
        )
    return True


def _looks_like_pixels(polygons: Polygons, head: Header) -> bool:
    """Whether coordinates are pixels: they exceed any longitude, and GeoJSON without a CRS counts as WGS 84."""
    bounds = shapely.total_bounds(polygons.shapes)
    return bool(bounds[2] > 180 or bounds[3] > 90) and bool(bounds[2] <= head.width and bounds[3] <= head.height)


_XBD_WORDS: dict[str, tuple[str | None, str | None]] = {
    "minor-damage": ("building", "minor damage"),
    "major-damage": ("building", "major damage"),
    "destroyed": ("building", "destroyed"),
    "un-classified": (None, None),
}


def geometries(path: Path, shapes: NDArray[Any] | None) -> NDArray[Any]:
    """Decode the WKB that pyogrio read; rows without a geometry become None.

    Raises:
        InputError: a geometry is invalid, such as a ring of two points.
    """
    try:
        return np.asarray(shapely.from_wkb(shapes)) if shapes is not None else np.empty(0, object)
    except shapely.errors.GEOSException as error:
        raise InputError(f"{path}: holds an invalid geometry ({' '.join(str(error).split())}). Repair it") from None


def _xbd(path: Path) -> Polygons | None:
    """Read xBD's own JSON, WKT in pixel coordinates with a damage level; None for any other JSON."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from None
    if not (isinstance(content, dict) and isinstance(content.get("features"), dict) and "xy" in content["features"]):
        return None
    shapes, words = [], []
    for feature in content["features"]["xy"]:
        level = feature.get("properties", {}).get("subtype", "no-damage")
        if level in _XBD_WORDS:
            try:
                shapes.append(shapely.from_wkt(feature["wkt"]))
            except (KeyError, TypeError, shapely.errors.GEOSException) as error:
                reason = " ".join(str(error).split())
                raise InputError(f"{path}: holds invalid WKT ({reason}). Repair it") from None
            words.append(_XBD_WORDS[level])
        elif level != "no-damage":
            levels = ", ".join(["no-damage", *_XBD_WORDS])
            raise InputError(f"{path}: unknown damage level {level!r}; xBD has {levels}. Correct the file")
    array = np.empty(len(shapes), object)
    array[:] = shapes
    return Polygons(array, tuple(w[0] for w in words), tuple(w[1] for w in words), None, True)
