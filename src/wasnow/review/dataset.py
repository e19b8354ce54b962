"""Training data from a review: crops around decided polygons, with labels only where somebody decided.

accepted    class before and class after
rejected    unchanged
elsewhere   no label, because the map may have missed change there; or unchanged, if asked for
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import rasterio.features
import shapely
import shapely.affinity
from numpy.typing import NDArray

from wasnow.data.samples import Sample
from wasnow.errors import InputError
from wasnow.raster.tiles import Window
from wasnow.review.polygons import Polygon
from wasnow.review.project import ReviewProject
from wasnow.vocabulary import NO_LABEL, Vocabulary

DECIDED = ("accepted", "rejected")


class ReviewedSamples:
    """Crops of a reviewed result as training samples.

    Args:
        project: the opened result.
        size: side of a crop in pixels of the result grid.
        outside_unchanged: label pixels outside all polygons as unchanged instead of leaving them out.

    Raises:
        InputError: no polygon was decided, the result has no classes, or an image cannot be shown.
    """

    def __init__(self, project: ReviewProject, *, size: int = 256, outside_unchanged: bool = False) -> None:
        if not project.result.vocabulary.words:
            raise InputError(f"{project.result.folder} has no classes; its polygons cannot label classes")
        for date, problem in project.problems.items():
            raise InputError(f"the image {date} cannot be read: {problem}")
        self._project = project
        self._size = size
        self._outside = 0 if outside_unchanged else NO_LABEL
        decided = [row for row in project.rows() if row.status in DECIDED]
        if not decided:
            raise InputError(f"no polygon of {project.result.folder} is accepted or rejected; run wasnow review first")
        self._rows = project.rows()
        self._decided = decided

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes of the result."""
        return self._project.result.vocabulary

    @property
    def names(self) -> Sequence[str]:
        """The names of all crops: row and column of their first pixel."""
        return [_name(window) for window in self._windows]

    @property
    def fingerprint(self) -> str:
        """Digest of the decisions and the map."""
        decisions = [(row.fid, row.status, row.before, row.after, row.bounds) for row in self._decided]
        digest = hashlib.sha256(repr((decisions, self._size, self._outside)).encode())
        digest.update(str(self._project.result.record.started).encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int) -> Sample:
        window = self._windows[index]
        before, after = (self._picture(date, window) for date in ("before", "after"))
        classes = np.full((2, window.height, window.width), self._outside, np.uint8)
        for row in self._rows:
            if row.fid in self._shapes and _meets(self._boxes[row.fid], window):
                self._burn(classes, row, window)
        missing = (before[..., 3] == 0) | (after[..., 3] == 0)
        classes[:, missing] = NO_LABEL
        return Sample(
            name=_name(window),
            before=before[..., :3],
            after=after[..., :3],
            before_classes=classes[0],
            after_classes=classes[1],
        )

    @cached_property
    def _shapes(self) -> dict[int, shapely.Geometry]:
        """Outlines of all polygons in pixel coordinates (col, row)."""
        found: dict[int, shapely.Geometry] = {}
        fids = [row.fid for row in self._rows]
        for start in range(0, len(fids), 500):
            found |= self._project.polygons.geometries(fids[start : start + 500])
        return {fid: self._project.to_pixels(shape) for fid, shape in found.items()}

    @cached_property
    def _boxes(self) -> dict[int, tuple[float, float, float, float]]:
        return {fid: shape.bounds for fid, shape in self._shapes.items()}

    @cached_property
    def _windows(self) -> list[Window]:
        """Crops on a regular grid that hold a part of a decided polygon."""
        places = set()
        for row in self._decided:
            left, top, right, bottom = self._boxes[row.fid]
            for down in range(int(top // self._size), int(max(top, bottom - 1e-6) // self._size) + 1):
                for across in range(int(left // self._size), int(max(left, right - 1e-6) // self._size) + 1):
                    places.add((down, across))
        windows = [Window(down * self._size, across * self._size, self._size, self._size) for down, across in places]
        return sorted(windows, key=lambda window: (window.row, window.col))

    def _burn(self, classes: NDArray[np.uint8], row: Polygon, window: Window) -> None:
        shape = shapely.affinity.translate(self._shapes[row.fid], -window.col, -window.row)
        inside = rasterio.features.rasterize([shape], out_shape=classes.shape[1:]).astype(bool)
        words = self.vocabulary.words
        if row.status == "accepted" and row.before in words and row.after in words:
            classes[0, inside], classes[1, inside] = words.index(row.before) + 1, words.index(row.after) + 1
        else:
            classes[:, inside] = 0 if row.status == "rejected" else NO_LABEL

    def _picture(self, date: str, window: Window) -> NDArray[np.uint8]:
        """``(h, w, 4)`` RGBA of a crop; transparent outside the grid."""
        image = self._project.images[date]
        if image is None:
            raise InputError(self._project.problems[date])
        whole = np.zeros((window.height, window.width, 4), np.uint8)
        part = window.clip(*self._project.grid.shape)
        whole[: part.height, : part.width] = image.picture(part)
        return whole


def _name(window: Window) -> str:
    return f"{window.row:06d}_{window.col:06d}"


def _meets(bounds: tuple[float, float, float, float], window: Window) -> bool:
    left, top, right, bottom = bounds
    return left < window.col_stop and right > window.col and top < window.row_stop and bottom > window.row


def export_review(folder: Path, output: Path, *, size: int = 256, outside_unchanged: bool = False) -> int:
    """Write the decided polygons of a result as a dataset in the layout of SECOND.

    Args:
        folder: the reviewed result folder.
        output: a new or empty folder.
        size: side of a crop in pixels.
        outside_unchanged: label pixels outside all polygons as unchanged.

    Returns:
        The number of crops.

    Raises:
        InputError: nothing was decided, or an image cannot be read.
        OutputError: the output folder is not empty, or cannot be written.
    """
    from wasnow.data.export import export_second

    project = ReviewProject(folder)
    try:
        samples = ReviewedSamples(project, size=size, outside_unchanged=outside_unchanged)
        export_second(
            {"train": samples},
            output,
            name=f"review of {folder.name}",
            provenance={"made by": "wasnow data from-review", "polygons": "accepted and rejected ones of changes.gpkg"},
        )
        return len(samples)
    finally:
        project.close()
