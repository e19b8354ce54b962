"""Tiles of an input image on the grid of a result, read from the file when they are asked for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wasnow.output.report.pictures import photo_png
from wasnow.raster.grid import Grid
from wasnow.raster.pair import PlacedSource, read_around_damage
from wasnow.raster.radiometry import Stretch
from wasnow.raster.reader import RasterReader
from wasnow.raster.source import RasterSource, probe
from wasnow.raster.tiles import Window
from wasnow.review.plane import TILE, Plane

KEPT_TILES = 512
SAMPLE_SIDE = 512
"""Longest side of the picture from which a stretch is estimated, in pixels."""


class ImageTiles:
    """One date of a pair as tiles. Threads may share it; the file is read by one of them at a time.

    Args:
        path: the image.
        grid: of the result.
        bands: 1-based bands for red, green, blue; one band is shown in grey.
        stretch: per band (low, high); None estimates it from the image.
        assume_crs: CRS of a file without one.
        allow_indirect: whether files that refer to other files may be opened.

    Raises:
        RasterUnreadable, RasterUnsuitable, BandsUnclear: the image cannot be shown.
    """

    def __init__(
        self,
        path: str | Path,
        grid: Grid,
        *,
        bands: tuple[int, ...],
        stretch: tuple[tuple[float, float], ...] | None = None,
        assume_crs: str | None = None,
        allow_indirect: bool = False,
    ) -> None:
        source = probe(path, assume_crs=assume_crs, allow_indirect=allow_indirect)
        self._source = source.with_bands(bands)
        self._grid = grid
        self.plane = Plane(grid.height, grid.width)
        self._lock = threading.Lock()
        self._readers: dict[int, tuple[RasterReader, PlacedSource]] = {}
        self._kept: OrderedDict[tuple[int, int, int], bytes] = OrderedDict()
        shown = len(self._source.bands) if self._source.palette is None else 3
        self._order = (0, 1, 2) if shown >= 3 else (0, 0, 0)
        if stretch is not None and len(stretch) >= shown:
            low, high = zip(*stretch[:shown], strict=True)
            self._stretch = Stretch(tuple(low), tuple(high))
        else:
            self._stretch = self._estimated()

    def tile(self, zoom: int, x: int, y: int) -> bytes | None:
        """Return a tile as PNG, transparent where the image has no data; None outside the grid."""
        window = self.plane.window(zoom, x, y)
        if window is None:
            return None
        key = (zoom, x, y)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            values = self._read(self.plane.factor(zoom), window)
        shown = np.zeros((TILE, TILE, 4), np.uint8)
        shown[: window.height, : window.width] = self._colours(values)
        coded = photo_png(shown)
        with self._lock:
            self._kept[key] = coded
            while len(self._kept) > KEPT_TILES:
                self._kept.popitem(last=False)
        return coded

    def picture(self, window: Window) -> NDArray[np.uint8]:
        """Return ``(h, w, 4)`` RGBA of a window of the grid at full resolution."""
        with self._lock:
            return self._colours(self._read(1, window))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            for reader, _ in self._readers.values():
                reader.close()
            self._readers.clear()

    def _read(self, factor: int, window: Window) -> NDArray[np.float32]:
        if factor not in self._readers:
            placed = _placed(self._source, self._grid.scaled(factor) if factor > 1 else self._grid)
            self._readers[factor] = (RasterReader(placed.source), placed)
        reader, placed = self._readers[factor]
        values, _, _ = read_around_damage(reader, placed.placement, window)
        return values[list(self._order)]

    def _colours(self, values: NDArray[np.float32]) -> NDArray[np.uint8]:
        valid = np.isfinite(values).all(axis=0)
        bands = self._stretch
        scaled = Stretch(tuple(bands.low[i] for i in self._order), tuple(bands.high[i] for i in self._order))
        rgb = np.where(valid, scaled.apply(values), 0)
        return np.dstack([*np.rint(rgb * 255).astype(np.uint8), np.where(valid, 255, 0).astype(np.uint8)])

    def _estimated(self) -> Stretch:
        factor = max(1, max(self._grid.shape) // SAMPLE_SIDE)
        small = self._grid.scaled(factor) if factor > 1 else self._grid
        placed = _placed(self._source, small)
        with RasterReader(placed.source) as reader:
            values, _, _ = read_around_damage(reader, placed.placement, Window(0, 0, *small.shape))
        valid = np.isfinite(values).all(axis=0)
        return Stretch.of_samples(values[:, valid].T, display=self._source.is_display_rgb)


def _placed(source: RasterSource, grid: Grid) -> PlacedSource:
    """Place a source on a reduced grid; it is decimated, not averaged, if it has no overviews."""
    full = PlacedSource.of(source, grid)
    thinned = full.source.thinned(int(full.placement.scale))
    return full if thinned is full.source else PlacedSource(thinned, PlacedSource.of(thinned, grid).placement)
