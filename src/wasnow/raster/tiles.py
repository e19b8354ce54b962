"""Split a raster into overlapping tiles whose cores partition it, and group tiles into blocks.

    read  |----------------|                 input of the model
    core      |--------|                     part of the prediction that is kept
                  |----------------|
                       |--------|

All tiles along an axis have the same side: the smallest possible for their number, so that the overlap is small. The
last tile is moved back inside the raster, so tiles contain padding only in rasters smaller than a tile. A block is a
rectangle of neighbouring tiles: the unit of work, of storage and of resuming.

Works on integers only: no files, no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from wasnow.errors import TilingError


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A rectangle of pixels: rows ``[row, row + height)``, cols ``[col, col + width)``."""

    row: int
    col: int
    height: int
    width: int

    @property
    def row_stop(self) -> int:
        """One past the last row."""
        return self.row + self.height

    @property
    def col_stop(self) -> int:
        """One past the last column."""
        return self.col + self.width

    @property
    def size(self) -> int:
        """Number of pixels; 0 for an empty window."""
        return max(0, self.height) * max(0, self.width)

    def clip(self, height: int, width: int) -> Window:
        """Return the part inside a raster of this shape; empty (size 0) if there is none."""
        return self.intersect(Window(0, 0, height, width))

    def intersect(self, other: Window) -> Window:
        """Return the common part; empty (size 0) if there is none."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        return Window(
            row,
            col,
            max(0, min(self.row_stop, other.row_stop) - row),
            max(0, min(self.col_stop, other.col_stop) - col),
        )

    def halves(self, axis: int, grain: int = 1) -> tuple[Window, Window]:
        """Split into two windows along the rows (axis 0) or columns (axis 1), at a multiple of ``grain`` pixels."""
        start, length = (self.row, self.height) if axis == 0 else (self.col, self.width)
        cut = round((start + length / 2) / grain) * grain - start
        if not 0 < cut < length:
            cut = length // 2
        if axis == 0:
            return (
                Window(self.row, self.col, cut, self.width),
                Window(self.row + cut, self.col, self.height - cut, self.width),
            )
        return (
            Window(self.row, self.col, self.height, cut),
            Window(self.row, self.col + cut, self.height, self.width - cut),
        )

    def within(self, outer: Window) -> tuple[slice, slice]:
        """Return the slices of this window in an array that covers ``outer``."""
        row, col = self.row - outer.row, self.col - outer.col
        return slice(row, row + self.height), slice(col, col + self.width)


@dataclass(frozen=True, slots=True)
class Tile:
    """The window to read and the part of it whose prediction is kept (``core``)."""

    read: Window
    core: Window


@dataclass(frozen=True, slots=True)
class Span:
    """A tile along one axis: ``[read_start, read_start + length)`` and ``[core_start, core_stop)``."""

    read_start: int
    length: int
    core_start: int
    core_stop: int


def spans(length: int, tile: int, margin: int, stride: int = 1) -> list[Span]:
    """Split ``[0, length)`` into tiles of equal size whose cores partition it.

    Args:
        length: pixels along the axis, at least 1.
        tile: the largest tile side in pixels. Tiles are as small as their number allows, in steps of ``stride``. A
            shorter axis gets one tile, rounded up to ``stride``; it may extend beyond the raster, and the reader pads
            it.
        margin: overlap in pixels at each inner side of a tile, cropped from the prediction.
        stride: the tile side is a multiple of this.

    Raises:
        TilingError: the margins leave no core, or the tile is not a multiple of the stride.
    """
    if tile < 1 or margin < 0 or length < 1:
        raise TilingError(
            f"invalid tile {tile} or margin {margin} for {length} pixels: tile must be at least 1, margin at least 0"
        )
    if tile % stride:
        near = max(stride, round(tile / stride) * stride)
        raise TilingError(
            f"a tile of {tile} px is not a multiple of {stride}, which the model requires; use --tile {near}"
        )
    if 2 * margin >= tile:
        raise TilingError(
            f"a margin of {margin} px on both sides leaves no core of a {tile} px tile; use a margin below {tile // 2}"
        )
    if length <= tile:
        return [Span(0, -(-length // stride) * stride, 0, length)]
    number = 1 + -(-(length - tile) // (tile - 2 * margin))
    tile = -(-(length + 2 * margin * (number - 1)) // (number * stride)) * stride
    step = tile - 2 * margin
    starts = [*range(0, length - tile, step), length - tile]
    result = []
    core_start = 0
    for start in starts:
        stop = length if start == length - tile else start + tile - margin
        result.append(Span(start, tile, core_start, stop))
        core_start = stop
    return result


@dataclass(frozen=True, slots=True)
class Block:
    """A rectangle of neighbouring tiles, computed and stored as one.

    Attributes:
        index: position in row-major order.
        core: the pixels of the raster that this block computes; the cores of all blocks partition the raster.
        tiles: the tiles to predict. With centre crop their cores partition ``core``; for blending they are all tiles
            that contain a pixel of ``core``.
        read: the smallest window that contains all tiles; may extend beyond the raster.
    """

    index: int
    core: Window
    tiles: tuple[Tile, ...]
    read: Window


@dataclass(frozen=True)
class Tiling:
    """All blocks of a raster, created on demand, so that the tiling of a national mosaic takes no memory.

    Raises:
        TilingError: see `spans`.
    """

    height: int
    width: int
    tile: int
    margin: int
    stride: int = 1
    block_side: int = 1024
    blend: bool = False

    def __post_init__(self) -> None:
        _ = self._rows, self._cols

    @cached_property
    def _rows(self) -> list[Span]:
        return spans(self.height, self.tile, self.margin, self.stride)

    @cached_property
    def _cols(self) -> list[Span]:
        return spans(self.width, self.tile, self.margin, self.stride)

    @property
    def _tiles_per_block(self) -> int:
        return max(1, self.block_side // (self.tile - 2 * self.margin))

    @property
    def _blocks_down(self) -> int:
        return -(-len(self._rows) // self._tiles_per_block)

    @property
    def _blocks_across(self) -> int:
        return -(-len(self._cols) // self._tiles_per_block)

    @property
    def n_tiles(self) -> int:
        """Number of tiles in the whole raster."""
        return len(self._rows) * len(self._cols)

    def __len__(self) -> int:
        return self._blocks_down * self._blocks_across

    def __iter__(self) -> Iterator[Block]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Block:
        if not 0 <= index < len(self):
            raise IndexError(index)
        down, across = divmod(index, self._blocks_across)
        rows = self._rows[down * self._tiles_per_block : (down + 1) * self._tiles_per_block]
        cols = self._cols[across * self._tiles_per_block : (across + 1) * self._tiles_per_block]
        core = Window(
            rows[0].core_start,
            cols[0].core_start,
            rows[-1].core_stop - rows[0].core_start,
            cols[-1].core_stop - cols[0].core_start,
        )
        if self.blend:
            rows = [s for s in self._rows if s.read_start < core.row_stop and s.read_start + s.length > core.row]
            cols = [s for s in self._cols if s.read_start < core.col_stop and s.read_start + s.length > core.col]
        tiles = tuple(
            Tile(
                Window(r.read_start, c.read_start, r.length, c.length),
                Window(r.core_start, c.core_start, r.core_stop - r.core_start, c.core_stop - c.core_start),
            )
            for r in rows
            for c in cols
        )
        top, left = rows[0].read_start, cols[0].read_start
        read = Window(
            top, left, rows[-1].read_start + rows[-1].length - top, cols[-1].read_start + cols[-1].length - left
        )
        return Block(index, core, tiles, read)
