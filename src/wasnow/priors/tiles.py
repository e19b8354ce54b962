"""Masks of rasters that no network sees whole: tile by tile, objects across borders made one.

    tile A   read  |--------------------|         an object that reaches into A's core is A's to tell; whole,
             core  |---------------|              unless A's edge cuts it: then the part in A's core, as B tells
                        |xxx object xx|           the rest
    tile B              |--------------------|    what both show where they overlap is one object: counted once
                            |----------------|

The cores partition the raster, so nothing is left out, and a masker whose answer at a pixel depends on the pixels near
by only gives, tile by tile, exactly what it would give for the whole raster. Memory holds one tile and the objects of
one row of tiles as bits; masks are handed on at once.
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
"""Two tiles show one object where they share this much of the smaller part."""

Read = Callable[[Window], tuple[NDArray[np.uint8], Mask]]
Write = Callable[[Window, Mask], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class MaskCounts:
    """Objects per word, and the pixels that show anything at all."""

    objects: tuple[int, ...]
    seen: int


def tiles_of(height: int, width: int, tile: int, margin: int) -> Iterator[Tile]:
    """All tiles row by row; see `wasnow.raster.tiles.spans`.

    Raises:
        TilingError: no margin, so that nobody could see what goes on beyond a border; or as `spans`.
    """
    if margin < 1:
        raise TilingError(f"a margin of {margin} px shows no object from both sides of a border; use at least 1")
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
        masker: asked about one tile at a time.
        read: a window to ``(h, w, 3)`` uint8 and ``(h, w)`` bool, where there is a picture.
        write: is given windows with ``(len(words), h, w)`` bool, to be united with what was written there before.
        shape: rows and columns of the raster.
        tile: side in pixels.
        margin: how far a tile looks beyond the part that it answers for.
        progress: called with tiles done and tiles in all.

    Returns:
        What was found, in numbers.
    """
    tiles = list(tiles_of(*shape, tile, margin))
    joiner = ObjectMerger(len(words), share=SAME_OBJECT if masker.knows_objects else 0.0)
    seen = 0
    progress(0, len(tiles))
    for done, each in enumerate(tiles, 1):
        rgb, valid = read(each.read)
        # A tile without a single pixel holds nothing, and is not worth a network's time.
        found = masker.find(rgb, words) if valid.any() else ((),) * len(words)
        told = joiner.add(each, [_seen(pieces, valid) for pieces in found])
        if any(told):
            write(
                each.read,
                union_masks([[p.moved(-each.read.row, -each.read.col) for p in one] for one in told], valid.shape),
            )
        seen += int(valid[window_slices(each.core, each.read)].sum())
        progress(done, len(tiles))
    return MaskCounts(tuple(joiner.counts), seen)


@dataclass(frozen=True)
class _Open:
    """An object that a later tile may show too; its mask as bits."""

    word: int
    read: Window
    window: Window
    bits: NDArray[np.uint8]
    group: int

    def piece(self) -> Region:
        size = self.window.height, self.window.width
        return Region(self.window, np.unpackbits(self.bits, count=size[0] * size[1]).astype(np.bool_).reshape(size))


class ObjectMerger:
    """Makes one of what several tiles show of the same object. Tiles come row by row.

    Args:
        words: how many.
        share: two tiles show the same object where the common part of what they show of it, in the area that both
            see, exceeds this share of the smaller one. 0 takes a single pixel: right for the connected parts of a
            mask, which do not overlap unless they are the same.

    Attributes:
        counts: objects so far, per word.
    """

    def __init__(self, words: int, *, share: float = SAME_OBJECT) -> None:
        self.counts = [0] * words
        self._share = share
        self._open: list[_Open] = []
        self._groups = 0

    def add(self, tile: Tile, found: Sequence[Sequence[Region]]) -> list[list[Region]]:
        """Take what was found in a tile, in its own coordinates; say what to write, in those of the raster."""
        # Rows of tiles above this one's reach can show nothing of what is still to come.
        self._open = [each for each in self._open if each.read.row_stop > tile.read.row]
        told: list[list[Region]] = []
        for word, pieces in enumerate(found):
            mine: list[Region] = []
            for own in pieces:
                piece = own.moved(tile.read.row, tile.read.col)
                inside = piece.clipped(tile.core)
                if inside is None:
                    continue
                self._join(word, tile.read, piece)
                mine.append(inside if self._is_cut(piece.window, tile) else piece)
            told.append(mine)
        return told

    @staticmethod
    def _is_cut(window: Window, tile: Tile) -> bool:
        """Whether an object touches an edge of the tile beyond which the raster goes on."""
        read, core = tile.read, tile.core
        return (
            (window.row == read.row < core.row)
            or (window.col == read.col < core.col)
            or (window.row_stop == read.row_stop > core.row_stop)
            or (window.col_stop == read.col_stop > core.col_stop)
        )

    def _join(self, word: int, read: Window, piece: Region) -> None:
        group, self._groups = self._groups, self._groups + 1
        same: set[int] = set()
        for other in self._open:
            if other.word != word or other.group in same or other.read == read:
                continue
            both_see = other.read.intersect(read)
            if both_see.intersect(other.window).intersect(piece.window).size and self._same(
                other.piece().within(both_see), piece.within(both_see)
            ):
                same.add(other.group)
        # One more object, but all those that it turned out to be are one with it.
        self.counts[word] += 1 - len(same)
        self._open = [replace(each, group=group) if each.group in same else each for each in self._open]
        self._open.append(_Open(word, read, piece.window, np.packbits(piece.mask), group))

    def _same(self, one: Mask, other: Mask) -> bool:
        common = int((one & other).sum())
        return common > self._share * min(int(one.sum()), int(other.sum()))


def _seen(pieces: Sequence[Region], valid: Mask) -> list[Region]:
    """Pieces without the pixels that show nothing."""
    if valid.all():
        return list(pieces)
    kept = []
    for piece in pieces:
        at = piece.window
        rest = Region.of(piece.mask & valid[window_slices(at)], piece.score)
        if rest is not None:
            kept.append(rest.moved(at.row, at.col))
    return kept
