"""Find masks in rasters larger than a network's input, tile by tile, and merge objects across tile borders.

    tile A   read  |--------------------|         an object that reaches into A's core is written by A: whole, unless
             core  |---------------|              A's edge cuts it; then A writes its part in the core, and B writes
                        |xxx object xx|           the rest
    tile B              |--------------------|    regions that both tiles show in their overlap are one object,
                            |----------------|    and are counted once

Cores partition the raster, so nothing is left out. A masker whose result at a pixel depends on a neighbourhood within
the margin gives exactly the result of the whole raster. Memory holds one tile, and the objects of one row of tiles as
bits; masks are written immediately.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wasnow.errors import TilingError
from wasnow.priors.regions import Mask, Masker, Region, union_masks, window_slices
from wasnow.raster.tiles import Tile, Window, spans

TILE, MARGIN = 1024, 128
SAME_OBJECT = 0.5
"""Two tiles show the same object if their regions share more than this part of the smaller one."""

Read = Callable[[Window], tuple[NDArray[np.uint8], Mask]]
Write = Callable[[Window, Mask], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class MaskCounts:
    """Number of objects per word, and number of valid pixels."""

    objects: tuple[int, ...]
    valid_pixels: int


def tiles_of(height: int, width: int, tile: int, margin: int) -> Iterator[Tile]:
    """Yield all tiles row by row; see `wasnow.raster.tiles.spans`.

    Args:
        height: of the raster.
        width: of the raster.
        tile: side, pixels.
        margin: overlap to each side, pixels.

    Raises:
        TilingError: no margin, so that tiles do not overlap; or as `spans`.
    """
    if margin < 1:
        raise TilingError(f"margin {margin} px must be at least 1, so that tiles overlap")
    for row in spans(height, tile, margin):
        for col in spans(width, tile, margin):
            read = Window(row.read_start, col.read_start, row.length, col.length).clip(height, width)
            size = row.core_stop - row.core_start, col.core_stop - col.core_start
            yield Tile(read, Window(row.core_start, col.core_start, *size))


def find_tiled(
    masker: Masker,
    read: Read,
    write: Write,
    shape: tuple[int, int],
    words: Sequence[str],
    *,
    tile: int = TILE,
    margin: int = MARGIN,
    progress: Progress = lambda done, total: None,
) -> MaskCounts:
    """Find what words name in a raster of any size.

    Args:
        masker: called for one tile at a time.
        read: returns ``(h, w, 3)`` uint8 and validity ``(h, w)`` bool of a window.
        write: is given windows with ``(len(words), h, w)`` bool, to be combined by OR with what was written before.
        shape: rows and columns of the raster.
        words: class words.
        tile: side, pixels.
        margin: overlap to each side, pixels.
        progress: called with tiles done and tiles in all.

    Returns:
        Counts of objects and valid pixels.
    """
    tiles = list(tiles_of(*shape, tile, margin))
    merger = ObjectMerger(len(words), share=SAME_OBJECT if masker.knows_objects else 0.0)
    valid_pixels = 0
    progress(0, len(tiles))
    for done, each in enumerate(tiles, 1):
        rgb, valid = read(each.read)
        # A tile without valid pixels needs no network.
        found = masker.find(rgb, words) if valid.any() else ((),) * len(words)
        to_write = merger.add(each, [_without_invalid(regions, valid) for regions in found])
        if any(to_write):
            write(
                each.read,
                union_masks([[p.moved(-each.read.row, -each.read.col) for p in one] for one in to_write], valid.shape),
            )
        valid_pixels += int(valid[window_slices(each.core, each.read)].sum())
        progress(done, len(tiles))
    return MaskCounts(tuple(merger.counts), valid_pixels)


@dataclass(frozen=True)
class _Open:
    """An object that a later tile may show too; its mask as bits."""

    word: int
    read: Window
    window: Window
    bits: NDArray[np.uint8]
    group: int

    def region(self) -> Region:
        size = self.window.height, self.window.width
        return Region(self.window, np.unpackbits(self.bits, count=size[0] * size[1]).astype(np.bool_).reshape(size))


class ObjectMerger:
    """Merges what several tiles show of the same object. Tiles must be added row by row.

    Args:
        words: number of words.
        share: two tiles show the same object if the common part of their regions, in the area that both see, exceeds
            this share of the smaller one. With 0 a single pixel is enough: right for connected parts of a mask, which
            overlap only if they are the same.

    Attributes:
        counts: objects so far, per word.
    """

    def __init__(self, words: int, *, share: float = SAME_OBJECT) -> None:
        self.counts = [0] * words
        self._share = share
        self._open: list[_Open] = []
        self._groups = 0

    def add(self, tile: Tile, found: Sequence[Sequence[Region]]) -> list[list[Region]]:
        """Add the regions of a tile, in its own coordinates; return those to write, in raster coordinates."""
        # Objects of tiles that end above this one cannot occur in later tiles.
        self._open = [each for each in self._open if each.read.row_stop > tile.read.row]
        to_write: list[list[Region]] = []
        for word, regions in enumerate(found):
            mine: list[Region] = []
            for own in regions:
                region = own.moved(tile.read.row, tile.read.col)
                inside = region.clipped(tile.core)
                if inside is None:
                    continue
                self._merge(word, tile.read, region)
                mine.append(inside if self._is_cut(region.window, tile) else region)
            to_write.append(mine)
        return to_write

    @staticmethod
    def _is_cut(window: Window, tile: Tile) -> bool:
        """Return whether an object touches an edge of the tile that is not an edge of the raster."""
        read, core = tile.read, tile.core
        return (
            (window.row == read.row < core.row)
            or (window.col == read.col < core.col)
            or (window.row_stop == read.row_stop > core.row_stop)
            or (window.col_stop == read.col_stop > core.col_stop)
        )

    def _merge(self, word: int, read: Window, region: Region) -> None:
        group, self._groups = self._groups, self._groups + 1
        same: set[int] = set()
        for other in self._open:
            if other.word != word or other.group in same or other.read == read:
                continue
            both_see = other.read.intersect(read)
            if both_see.intersect(other.window).intersect(region.window).size and self._same(
                other.region().within(both_see), region.within(both_see)
            ):
                same.add(other.group)
        # One more object, minus those that turned out to be the same.
        self.counts[word] += 1 - len(same)
        self._open = [replace(each, group=group) if each.group in same else each for each in self._open]
        self._open.append(_Open(word, read, region.window, np.packbits(region.mask), group))

    def _same(self, one: Mask, other: Mask) -> bool:
        common = int((one & other).sum())
        return common > self._share * min(int(one.sum()), int(other.sum()))


def _without_invalid(regions: Sequence[Region], valid: Mask) -> list[Region]:
    """Return regions without their invalid pixels."""
    if valid.all():
        return list(regions)
    kept = []
    for region in regions:
        at = region.window
        rest = Region.of(region.mask & valid[window_slices(at)], region.score)
        if rest is not None:
            kept.append(rest.moved(at.row, at.col))
    return kept
