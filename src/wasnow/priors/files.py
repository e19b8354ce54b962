"""Prior masks from existing files: footprints, land-cover rasters, PNGs of a labelled dataset.

    raster    one band per word, named after it; or bands in the order of the words; or one band of numbers 1..K in that
              order; with a single word, all non-zero pixels. Warped to the image's grid by nearest neighbour.
    vector    polygons, rasterized on the image's grid (pixel centres inside). A column names the word of each polygon;
              without one, all polygons belong to the single word
    folder    of a pair: before.* and after.*
              of a dataset: one file per image, with the same name, in a folder for each date (before, after; A, B;
              im1, im2; T1, T2; ...), with or without a folder for the split above

One file is used for both dates, two are one for each date. Only what a window needs is read, so a national layer of
footprints does not have to fit into memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform_bounds

from wasnow.data.images import Header, check_complete
from wasnow.data.layouts.names import date_of
from wasnow.data.vectors import Polygons, burn, check_polygons, geometries, is_vector, polygon_layer
from wasnow.errors import InputError, RasterUnsuitable, UsageError, WasnowError, did_you_mean
from wasnow.priors.manifest import DATES
from wasnow.priors.nearest import read_nearest
from wasnow.priors.regions import Mask
from wasnow.raster.gdal import open_raster
from wasnow.raster.grid import Grid
from wasnow.raster.tiles import Window
from wasnow.raster.trust import check_vector
from wasnow.storage.hashing import file_sha256
from wasnow.vocabulary import join_words

COLUMNS = ("class", "word", "label", "category", "type", "landcover", "name")
"""Columns of a vector layer that may name the words, if none is given."""
_SUFFIXES = frozenset({".tif", ".tiff", ".png", ".bmp", ".jp2", ".gpkg", ".geojson", ".shp", ".fgb", ".parquet"})


@dataclass(frozen=True)
class MaskFiles:
    """Masks of words from files.

    Attributes:
        words: in the order of the masks.
        sources: for each date a file, or the folder with the masks of a dataset's images.
        column: of a vector layer, with the words; None searches for one of `COLUMNS`.
    """

    words: tuple[str, ...]
    sources: tuple[Path, Path]
    column: str | None = None

    @classmethod
    def of_pair(cls, paths: Sequence[Path], words: Sequence[str], column: str | None = None) -> MaskFiles:
        """Return the masks of two rasters: one file, two files, or a folder of ``before.*`` and ``after.*``.

        Args:
            paths: one or two.
            words: class words.
            column: see `MaskFiles`.

        Raises:
            UsageError: more than two paths.
            InputError: a file does not exist.
        """
        if not 1 <= len(paths) <= 2:
            raise UsageError(f"{len(paths)} mask files are given. Give one for both dates, or one for each date")
        if len(paths) == 1 and paths[0].is_dir():
            paths = [_only(paths[0], date) for date in ("before", "after")]
        for path in paths:
            if not path.is_file():
                raise InputError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}. Give a mask file")
        return cls(tuple(words), (paths[0], paths[-1]), column)

    @classmethod
    def of_dataset(cls, paths: Sequence[Path], words: Sequence[str], column: str | None = None) -> MaskFiles:
        """Return the masks of a dataset: a folder of files named like its images, or georeferenced files.

        Args:
            paths: one or two.
            words: class words.
            column: see `MaskFiles`.

        Raises:
            UsageError: more than two paths.
            InputError: a path does not exist.
        """
        if not 1 <= len(paths) <= 2:
            raise UsageError(f"{len(paths)} mask sources are given. Give one for both dates, or one for each date")
        for path in paths:
            if not path.exists():
                raise InputError(f"{path}: no such file or folder. Give the masks of the dataset's images")
        return cls(tuple(words), (paths[0], paths[-1]), column)

    @property
    def key(self) -> dict[str, Any]:
        """What identifies these masks: names of the sources, and their digests where they are files."""
        sources = [
            {"name": path.name, "sha256": file_sha256(path) if path.is_file() else None} for path in self.sources
        ]
        return {"masker": "files", "sources": sources, "column": self.column}

    def file_of(self, date: int, split: str, names: Sequence[str]) -> Path:
        """Return the mask file of an image of a dataset.

        Args:
            date: 0 or 1.
            split: of the dataset.
            names: possible file names, without suffix.

        Raises:
            InputError: there is none; names an expected path.
        """
        source = self.sources[date]
        if source.is_file():
            return source
        for folder in _date_folders(source, date, split, own=self.sources[0] != self.sources[1]):
            for name in names:
                at = folder / name
                found = sorted(
                    path for path in _listed(at.parent) if path.stem == at.name and path.suffix.lower() in _SUFFIXES
                )
                if found:
                    return found[0]
        example = source / DATES[date] / f"{names[0]}.png"
        raise InputError(f"{source} has no mask for {names[0]} of {split}. Add one, such as {example}")

    def on(self, path: Path, grid: Grid, window: Window) -> Mask:
        """Return the masks of a file on a window of a grid, ``(len(words), h, w)`` bool.

        Args:
            path: of the file.
            grid: the image's grid.
            window: of the grid.

        Raises:
            InputError: the file cannot be read, or does not distinguish the words.
            GridMismatch: the file cannot be placed on the grid.
        """
        return self._rasterized(path, grid, window) if is_vector(path) else self._warped(path, grid, window)

    # --- rasters --------------------------------------------------------------------------------------------------

    def _warped(self, path: Path, grid: Grid, window: Window) -> Mask:
        check_complete(path)
        with open_raster(str(path)) as raster:
            bands, codes = self._bands(path, raster)
            values = read_nearest(raster, path, bands, grid, window)
        if codes:
            return np.stack([values[0] == code for code in range(1, len(self.words) + 1)])
        # NaN means that nothing is known there.
        return np.asarray((values != 0) & (values == values))

    def _bands(self, path: Path, raster: Any) -> tuple[list[int], bool]:
        """Return the bands that hold the words, and whether they are a single band of codes."""
        named = {str(name).casefold(): band for band, name in enumerate(raster.descriptions, 1) if name}
        if all(word.casefold() in named for word in self.words):
            return [named[word.casefold()] for word in self.words], False
        if raster.count == 1:
            return [1], len(self.words) > 1
        if raster.count == len(self.words):
            return list(range(1, raster.count + 1)), False
        raise RasterUnsuitable(
            path,
            f"has {raster.count} bands ({', '.join(named) or 'without names'}), but there are {len(self.words)} words",
            "Name the bands after the words, or give one band of numbers 1, 2, ... in the order of the words",
        )

    # --- vectors --------------------------------------------------------------------------------------------------

    def _rasterized(self, path: Path, grid: Grid, window: Window) -> Mask:
        layer, column, crs = self._layer(path)
        try:
            meta, _, shapes, fields = pyogrio.raw.read(
                path, layer=layer, columns=[] if column is None else [column], bbox=_bounds(grid, window, crs)
            )
        except (DataSourceError, DataLayerError, OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read as polygons: {' '.join(str(error).split())}") from None
        geometry = geometries(path, shapes)
        there = ~(shapely.is_missing(geometry) | shapely.is_empty(geometry))
        check_polygons(path, geometry[there])
        geometry = geometry[there]
        named = None if column is None else [str(value).casefold() for value in fields[0][there]]
        head = Header(grid.height, grid.width, 1, "uint8", "", grid.crs, grid.transform)
        masks = np.zeros((len(self.words), window.height, window.width), np.bool_)
        for mask, word in zip(masks, self.words, strict=True):
            mine = (
                np.ones(len(geometry), np.bool_)
                if named is None
                else np.array([name == word.casefold() for name in named], bool)
            )
            chosen: NDArray[np.object_] = geometry[mine]
            if len(chosen):
                nothing = (None,) * len(chosen)
                try:
                    mask |= burn(Polygons(chosen, nothing, nothing, meta["crs"], False), head, {}, window)[1] == 1
                except WasnowError as error:
                    raise InputError(f"{path}: {error}") from None
        return masks

    def _layer(self, path: Path) -> tuple[str, str | None, str | None]:
        """Return the layer, the column that names the words, and the CRS.

        Raises:
            InputError: not readable, no such column, or several words and no column that distinguishes them.
        """
        check_vector(path)
        try:
            layer = polygon_layer(path)
            info = pyogrio.read_info(path, layer=layer)
        except (DataSourceError, DataLayerError, OSError, ValueError, IndexError) as error:
            raise InputError(f"{path}: cannot be read as polygons: {' '.join(str(error).split())}") from None
        fields = [str(name) for name in info["fields"]]
        if self.column is not None:
            if self.column not in fields:
                raise InputError(
                    f"{path}: has no column {self.column!r}; its columns are {', '.join(fields) or 'none'}"
                    f"{did_you_mean(self.column, fields)}"
                )
            return layer, self.column, info["crs"]
        if len(self.words) == 1:
            # All polygons, whatever their attributes: footprints may be "house" or "shed" where the word is "building".
            return layer, None, info["crs"]
        lower = {name.casefold(): name for name in fields}
        column = next((lower[name] for name in COLUMNS if name in lower), None)
        if column is None:
            raise InputError(
                f"{path}: no column names the words {join_words(self.words)}. Pass the right one with --column "
                f"(columns: {', '.join(fields) or 'none'})"
            )
        return layer, column, info["crs"]


def _bounds(grid: Grid, window: Window, crs: str | None) -> tuple[float, float, float, float] | None:
    """Return the bounds of a window in the CRS of a layer; None where unknown, and then all polygons are read."""
    if crs is None or not grid.georeferenced:
        return None
    xs, ys = grid.crop(window).to_world(*grid.crop(window).outline())
    frame = float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max())
    try:
        left, bottom, right, top = transform_bounds(grid.crs, CRS.from_user_input(crs), *frame, densify_pts=21)
    except (CRSError, ValueError):
        return None
    if not np.isfinite([left, bottom, right, top]).all() or left > right:
        # Across the antimeridian, or outside the area of the projection.
        return None
    return left, bottom, right, top


def _only(folder: Path, stem: str) -> Path:
    found = [path for path in _listed(folder) if path.stem.lower() == stem and path.suffix.lower() in _SUFFIXES]
    if len(found) != 1:
        raise InputError(
            f"{folder} has {len(found)} mask files named {stem}; exactly one is required, such as {stem}.tif"
        )
    return found[0]


def _date_folders(source: Path, date: int, split: str, *, own: bool) -> list[Path]:
    """Return the folders that may hold the masks of a date; ``own``: the source belongs to that date only."""
    found = []
    for above in (source / split, source):
        found += [path for path in _listed(above) if date_of(path.name) == date and path.is_dir()]
        if own and above.is_dir():
            found.append(above)
    return found


def _listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
