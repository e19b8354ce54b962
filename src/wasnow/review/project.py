"""A result folder opened for review: grid, images, polygons, and conversion between map and page coordinates."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from rasterio.crs import CRS
from shapely.geometry.base import BaseGeometry

from wasnow.errors import InputError, WasnowError
from wasnow.output.change_map import ChangeMap
from wasnow.output.record import GridRecord, InputRecord
from wasnow.raster.grid import Grid
from wasnow.review.plane import Plane
from wasnow.review.polygons import REASONS, STATUSES, Polygon, ReviewedPolygons
from wasnow.review.tiles import ImageTiles

SORTS = ("area", "probability", "uncertainty", "id")


class ReviewProject:
    """Everything that the review page needs of one result folder.

    Attributes:
        result: the result folder.
        plane: its grid in the page.
        polygons: its polygons.
        images: ``{"before": tiles, "after": tiles}``; None for an image that cannot be shown.
        problems: why an image cannot be shown, by date.

    Args:
        folder: the result folder.
        before: where the image of the first date is now; None takes the recorded path.
        after: the same for the second date.

    Raises:
        InputError: the folder is not a finished result.
    """

    def __init__(self, folder: Path, *, before: Path | None = None, after: Path | None = None) -> None:
        self.result = ChangeMap.open(folder)
        record = self.result.record
        self.grid = grid_of(record.grid)
        self.plane = Plane(self.grid.height, self.grid.width)
        self.polygons = ReviewedPolygons(folder)
        self.images: dict[str, ImageTiles | None] = {}
        self.problems: dict[str, str] = {}
        for date, given, image in (("before", before, record.before), ("after", after, record.after)):
            self.images[date] = self._image(date, given, image)
        self._rows: list[Polygon] = []
        self._version: tuple[int, int] | None = None

    def close(self) -> None:
        """Close the images."""
        for image in self.images.values():
            if image is not None:
                image.close()

    def facts(self) -> dict[str, Any]:
        """Return what the page shows before any polygon."""
        record = self.result.record
        vocabulary = self.result.vocabulary
        corners = self.plane.lnglat(np.array([[0.0, self.grid.height], [self.grid.width, 0.0]]))
        transitions = [
            {"from": row.before, "to": row.after, "color": "#{:02x}{:02x}{:02x}".format(*row.color), "n": row.polygons}
            for row in record.transitions
        ]
        return {
            "title": self.result.folder.resolve().name,
            "dates": [record.before.date, record.after.date],
            "classes": list(vocabulary.words),
            "transitions": transitions,
            "reasons": list(REASONS),
            "statuses": list(STATUSES),
            "bounds": corners.tolist(),
            "zoom": self.plane.deepest,
            "metres_per_pixel": record.grid.gsd_m,
            "images": {date: image is not None for date, image in self.images.items()},
            "problems": self.problems,
            "candidates": "Polygons are candidates: accept, reject or correct each of them.",
        }

    def rows(self) -> list[Polygon]:
        """Return all polygons; the file is read again only if it has changed."""
        version = self.polygons.version()
        if version != self._version:
            self._rows, self._version = self.polygons.all(), version
        return self._rows

    def decide(self, fid: int, **decision: Any) -> Polygon:
        """Save one decision; see `ReviewedPolygons.decide`. The list is kept without reading the whole file again."""
        current = self.polygons.version() == self._version
        row = self.polygons.decide(fid, **decision)
        place = next((place for place, each in enumerate(self._rows) if each.fid == fid), None)
        if current and place is not None:
            self._rows[place], self._version = row, self.polygons.version()
        return row

    def selected(
        self,
        *,
        status: str | None = None,
        before: str | None = None,
        after: str | None = None,
        min_area: float = 0.0,
        max_area: float = math.inf,
        sort: str = "area",
    ) -> list[Polygon]:
        """Return the polygons that match a filter, sorted for review.

        Args:
            status: one of `STATUSES`; None takes all.
            before: class at the first date; None takes all.
            after: class at the second date; None takes all.
            min_area: smallest area in square metres (pixels without a CRS).
            max_area: largest area.
            sort: ``area`` or ``probability``, largest first; ``uncertainty``: closest to 0.5 first; ``id``.

        Raises:
            InputError: the sort order is unknown.
        """
        if sort not in SORTS:
            raise InputError(f"sort order {sort!r} is unknown; required is one of {', '.join(SORTS)}")
        found = [
            row
            for row in self.rows()
            if (status is None or row.status == status)
            and (before is None or row.before == before)
            and (after is None or row.after == after)
            and min_area <= size_of(row) <= max_area
        ]
        keys = {
            "area": lambda row: -size_of(row),
            "probability": lambda row: -row.p_change,
            "uncertainty": lambda row: abs(row.p_change - 0.5),
            "id": lambda row: row.id,
        }
        return sorted(found, key=keys[sort])

    def progress(self) -> dict[str, Any]:
        """Return how many polygons, and how much area, have each status."""
        counts = dict.fromkeys(STATUSES, 0)
        areas = dict.fromkeys(STATUSES, 0.0)
        for row in self.rows():
            counts[row.status] = counts.get(row.status, 0) + 1
            areas[row.status] = areas.get(row.status, 0.0) + (row.area_m2 or 0.0)
        return {"counts": counts, "areas_m2": areas, "total": sum(counts.values())}

    def as_row(self, row: Polygon) -> dict[str, Any]:
        """Return a polygon for the page, with its frame in page coordinates."""
        min_x, min_y, max_x, max_y = row.bounds
        corners = np.array([[min_x, min_y], [min_x, max_y], [max_x, min_y], [max_x, max_y]])
        places = self.plane.lnglat(self._pixels(corners))
        return {
            "fid": row.fid,
            "id": row.id,
            "from": row.before,
            "to": row.after,
            "p": round(row.p_change, 4),
            "area": size_of(row),
            "status": row.status,
            "reason": row.reason,
            "reviewer": row.reviewer,
            "reviewed_at": row.reviewed_at,
            "frame": [*places.min(axis=0).tolist(), *places.max(axis=0).tolist()],
        }

    def outlines(self, fids: Iterable[int]) -> dict[str, Any]:
        """Return outlines as GeoJSON in page coordinates."""
        by_fid = {row.fid: row for row in self.rows()}
        features = []
        for fid, shape in self.polygons.geometries([each for each in fids if each in by_fid]).items():
            row = by_fid[fid]
            properties = {"fid": fid, "from": row.before, "to": row.after, "status": row.status}
            geometry = shapely.geometry.mapping(self.to_page(shape))
            features.append({"type": "Feature", "id": fid, "properties": properties, "geometry": geometry})
        return {"type": "FeatureCollection", "features": features}

    def within(self, west: float, south: float, east: float, north: float, most: int = 1500) -> list[int]:
        """Return the polygons whose frame meets a view, largest first.

        Args:
            west: of the view, in page coordinates.
            south: of the view.
            east: of the view.
            north: of the view.
            most: how many to return.
        """
        corners = np.array([[west, south], [west, north], [east, south], [east, north]])
        places = np.array([self.grid.transform @ tuple(each) for each in self.plane.pixels(corners).tolist()])
        low, high = places.min(axis=0), places.max(axis=0)
        found = [
            row
            for row in self.rows()
            if row.bounds[0] <= high[0]
            and row.bounds[2] >= low[0]
            and row.bounds[1] <= high[1]
            and row.bounds[3] >= low[1]
        ]
        found.sort(key=lambda row: -size_of(row))
        return [row.fid for row in found[:most]]

    def to_page(self, shape: BaseGeometry) -> BaseGeometry:
        """Return a geometry of the result's CRS in page coordinates."""
        return shapely.transform(shape, lambda points: self.plane.lnglat(self._pixels(points)))

    def to_pixels(self, shape: BaseGeometry) -> BaseGeometry:
        """Return a geometry of the result's CRS in pixel coordinates (col, row)."""
        return shapely.transform(shape, self._pixels)

    def from_page(self, shape: BaseGeometry) -> BaseGeometry:
        """Return a geometry of the page in the result's CRS."""
        t = self.grid.transform

        def world(points: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            col, row = self.plane.pixels(points).T
            return np.column_stack([t.a * col + t.b * row + t.c, t.d * col + t.e * row + t.f])

        return shapely.transform(shape, world)

    def _pixels(self, points: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        t = ~self.grid.transform
        x, y = points[:, 0], points[:, 1]
        return np.column_stack([t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f])

    def _image(self, date: str, given: Path | None, image: InputRecord) -> ImageTiles | None:
        path = str(given) if given is not None else found_again(image.path, self.result.folder)
        options = self.result.record.options
        names = [name.casefold() for name in image.band_names]
        bands = image.bands
        if all(colour in names for colour in ("red", "green", "blue")):
            bands = tuple(image.bands[names.index(colour)] for colour in ("red", "green", "blue"))
        order = tuple(image.bands.index(band) for band in bands)
        stretch = None if image.stretch is None else tuple(image.stretch[place] for place in order)
        try:
            return ImageTiles(
                path,
                self.grid,
                bands=bands[:3] if len(bands) >= 3 else bands[:1],
                stretch=stretch,
                assume_crs=options.get("assume_crs"),
                allow_indirect=bool(options.get("allow_indirect")),
            )
        except WasnowError as error:
            self.problems[date] = str(error)
            return None


def found_again(path: str, folder: Path) -> str:
    """Return the recorded path if it exists, else the file of that name beside or in the result folder."""
    if Path(path).exists():
        return path
    for place in (folder.parent / path, folder.parent / Path(path).name, folder / Path(path).name):
        if place.exists():
            return str(place)
    return path


def grid_of(record: GridRecord) -> Grid:
    """Return the grid that a record describes."""
    crs = None if record.crs is None else CRS.from_user_input(record.crs)
    return Grid(crs, Affine(*record.transform), record.width, record.height)


def size_of(row: Polygon) -> float:
    """Return the area in square metres, or in pixels without a CRS."""
    return row.area_m2 if row.area_m2 is not None else float(row.n_px)
