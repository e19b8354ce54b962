"""Connected components of pixels with equal code, found chunk by chunk; memory does not grow with the raster.

    +-------+-------+      A and B do not cross a seam between chunks: they are returned at once.
    | AA    |   B   |      C crosses seams: its pieces are joined by union-find and returned with the last chunk
    |    CCC|C      |      that it reaches.
    +----CC-+-------+
    |     C |       |      Kept in memory: an id per column, and the corners of unfinished components.
    +-------+-------+

Pure numpy; the caller passes the function that reads pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label as label_equal

from wasnow.output.vector.outlines import Corners, corners_of_labels

Codes = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True, slots=True)
class Pixels:
    """One chunk of the raster.

    Attributes:
        codes: ``(h + 2, w + 2)`` transition codes with a border of one pixel; 0 outside the raster.
        confidence: ``(B, h, w)`` uint8, 255 = unknown.
        areas_m2: ``(h, w)`` or None.
    """

    codes: Codes
    confidence: NDArray[np.uint8]
    areas_m2: NDArray[np.float64] | None


ReadPixels = Callable[[int, int, int, int], Pixels]
"""``read(row, col, height, width)``."""


@dataclass(frozen=True, slots=True)
class Components:
    """Finished components, in the order of their first pixel (topmost row, then leftmost column).

    Attributes:
        first: ``(N,)`` row * width + col of the first pixel.
        code: ``(N,)`` transition code.
        n_px: ``(N,)`` pixels.
        area_m2: ``(N,)``; 0 without areas.
        confidence: ``(N, B)`` sum of the known confidence values.
        known: ``(N, B)`` number of pixels with a known value.
        edge: ``(N,)`` whether it touches the border of the raster.
        beside_not_processed: ``(N,)`` whether one of its pixels shares a side with a pixel that was not processed.
        region: ``(M,)`` 0..N-1, the component of each corner.
        corners: ``(M, 3)`` of all components, see `outlines`; in pixel coordinates of the raster.
    """

    first: NDArray[np.int64]
    code: NDArray[np.int64]
    n_px: NDArray[np.int64]
    area_m2: NDArray[np.float64]
    confidence: NDArray[np.int64]
    known: NDArray[np.int64]
    edge: NDArray[np.bool_]
    beside_not_processed: NDArray[np.bool_]
    region: NDArray[np.int64]
    corners: Corners

    def __len__(self) -> int:
        return len(self.first)

    def take(self, chosen: NDArray[np.integer[Any]]) -> Components:
        """Return the chosen components, in the given order."""
        place = np.full(len(self), -1, np.int64)
        place[chosen] = np.arange(len(chosen))
        region = place[self.region]
        kept = region >= 0
        return Components(**self.columns(chosen), region=region[kept], corners=self.corners[kept])

    def columns(self, chosen: NDArray[np.integer[Any]]) -> dict[str, Any]:
        """Return copies of all columns except the corners, for the chosen components."""
        return {name: getattr(self, name)[chosen] for name in _COLUMNS}

    @classmethod
    def joined(cls, parts: list[Components]) -> Components:
        """Return the components of several batches, in the order of their first pixel."""
        offsets = np.cumsum([0] + [len(part) for part in parts])
        region = np.concatenate([part.region + offset for part, offset in zip(parts, offsets, strict=False)])
        corners = np.concatenate([part.corners for part in parts])
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS}
        together = cls(**columns, region=region, corners=corners)
        return together.take(np.argsort(together.first))


_COLUMNS = ("first", "code", "n_px", "area_m2", "confidence", "known", "edge", "beside_not_processed")


@dataclass(slots=True, eq=False)
class _Unfinished:
    """A component that continues in a later chunk; ``last_chunk`` is the number of the last of these."""

    last_chunk: int
    pieces: list[Components] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)

    def finished(self) -> Components:
        """Return its pieces as one component."""
        pieces = Components.joined(self.pieces)
        return Components(
            first=pieces.first[:1],
            code=pieces.code[:1],
            n_px=pieces.n_px.sum(keepdims=True),
            area_m2=pieces.area_m2.sum(keepdims=True),
            confidence=pieces.confidence.sum(0, keepdims=True),
            known=pieces.known.sum(0, keepdims=True),
            edge=np.array([pieces.edge.any()]),
            beside_not_processed=np.array([pieces.beside_not_processed.any()]),
            region=np.zeros(len(pieces.region), np.int64),
            corners=pieces.corners,
        )


def components(
    read: ReadPixels,
    height: int,
    width: int,
    *,
    not_processed: int,
    connectivity: Literal[4, 8] = 4,
    chunk: int = 2048,
) -> Iterator[Components]:
    """Yield all components of a raster, each as soon as it is complete; chunks are read row by row.

    The components are the same for every ``chunk``; only their order depends on it. A component is returned with the
    chunk that completes it; within that chunk, components are ordered by first pixel.

    Args:
        read: reads one chunk.
        height: rows of the raster.
        width: columns of the raster.
        not_processed: the code of pixels that were not processed.
        connectivity: 4 or 8.
        chunk: side of a chunk in pixels.
    """
    across = -(-width // chunk)
    unfinished = _UnfinishedComponents(width, across, connectivity)
    for top in range(0, height, chunk):
        for left in range(0, width, chunk):
            h, w = min(chunk, height - top), min(chunk, width - left)
            number = (top // chunk) * across + left // chunk
            # No variable keeps a chunk or its components while the next one is read: that would double the memory.
            yield from _in_order(
                unfinished.add(
                    number,
                    top,
                    left,
                    *_label(read(top, left, h, w), top, left, height, width, connectivity, not_processed),
                )
            )


def _in_order(done: list[Components]) -> list[Components]:
    """Return them as one batch, or [] if there are none."""
    found = [Components.joined(done)] if done else []
    return [batch for batch in found if len(batch)]


def _label(
    pixels: Pixels, top: int, left: int, height: int, width: int, connectivity: int, not_processed: int
) -> tuple[Codes, NDArray[np.integer[Any]], Components]:
    """Return the change codes with a border of one pixel, labels 1..N, and the N components within this chunk."""
    codes = np.where(pixels.codes == not_processed, 0, pixels.codes)
    h, w = codes.shape[0] - 2, codes.shape[1] - 2
    bands = len(pixels.confidence)
    labels = label_equal(codes[1:-1, 1:-1], background=0, connectivity=1 if connectivity == 4 else 2)  # type: ignore[no-untyped-call]
    changed = labels > 0
    flat = np.flatnonzero(changed)
    of_pixel = labels[changed]
    count = int(of_pixel.max(initial=0))
    length = count + 1

    first = np.zeros(length, np.int64)
    first[of_pixel[::-1]] = flat[::-1]  # in reverse order, so that the first pixel is assigned last
    first = first[1:]
    rows, cols = first // w, first % w

    confidence, known = np.zeros((count, bands), np.int64), np.zeros((count, bands), np.int64)
    for band, values in enumerate(pixels.confidence):
        value = values[changed]
        is_known = value != 255
        known[:, band] = np.bincount(of_pixel[is_known], minlength=length)[1:]
        confidence[:, band] = np.bincount(of_pixel[is_known], value[is_known], length)[1:]
    area = np.zeros(count, np.float64)
    if pixels.areas_m2 is not None:
        area[:] = np.bincount(of_pixel, pixels.areas_m2[changed], length)[1:]

    missing = pixels.codes == not_processed
    beside = missing[:-2, 1:-1] | missing[2:, 1:-1] | missing[1:-1, :-2] | missing[1:-1, 2:]
    touches = np.zeros(length, bool)
    touches[labels[beside]] = True
    edge = np.zeros(length, bool)
    for at_border, line in (
        (top == 0, labels[0]),
        (top + h == height, labels[-1]),
        (left == 0, labels[:, 0]),
        (left + w == width, labels[:, -1]),
    ):
        if at_border:
            edge[line] = True

    corner_labels, corners = corners_of_labels(labels)
    corners += np.array([top, left, 0], np.int32)
    return (
        codes,
        labels,
        Components(
            first=(rows + top) * width + cols + left,
            code=codes[1:-1, 1:-1][rows, cols].astype(np.int64),
            n_px=np.bincount(of_pixel, minlength=length)[1:],
            area_m2=area,
            confidence=confidence,
            known=known,
            edge=edge[1:],
            beside_not_processed=touches[1:],
            region=corner_labels - 1,
            corners=corners,
        ),
    )


class _UnfinishedComponents:
    """Components that cross a seam into a later chunk, and the component id of each pixel along the seams.

    Id 0 means none. ``above`` holds the ids along the last row of the chunks above, ``below`` those along the last row
    of the current chunks, ``before`` those along the last column of the chunk to the left.
    """

    def __init__(self, width: int, across: int, connectivity: int) -> None:
        self._across = across
        sides, diagonals = [(0, 1), (1, 0), (0, -1), (-1, 0)], [(1, 1), (1, -1), (-1, 1), (-1, -1)]
        self._offsets = sides + diagonals if connectivity == 8 else sides
        self._above = np.zeros(width + 2, np.int64)
        self._below = np.zeros(width + 2, np.int64)
        self._before = np.zeros(0, np.int64)
        self._parent: dict[int, int] = {}
        self._open: dict[int, _Unfinished] = {}
        self._last_id = 0

    def add(
        self, number: int, top: int, left: int, codes: Codes, labels: NDArray[np.integer[Any]], found: Components
    ) -> list[Components]:
        """Add one chunk and return the components that are complete now.

        Args:
            number: of the chunk.
            top: its first row.
            left: its first column.
            codes: ``(h + 2, w + 2)`` change codes.
            labels: ``(h, w)`` labels 1..N.
            found: its N components.
        """
        h, w = labels.shape
        if left == 0:
            self._above, self._below = self._below, np.zeros_like(self._below)
            self._before = np.zeros(h, np.int64)
        inner, owner, outer_id = self._links(number, left, codes, labels)

        id_of_label = np.zeros(len(found) + 1, np.int64)
        crossing = np.unique(inner)
        id_of_label[crossing] = self._last_id + 1 + np.arange(len(crossing))
        last_chunk = np.full(len(found) + 1, number)
        np.maximum.at(last_chunk, inner, owner)
        for label in crossing.tolist():
            self._last_id += 1
            self._parent[self._last_id] = self._last_id
            self._open[self._last_id] = _Unfinished(int(last_chunk[label]), [], [self._last_id])
        self._hand_over(found, crossing, id_of_label)

        earlier = owner < number
        pairs = np.unique(np.column_stack([id_of_label[inner[earlier]], outer_id[earlier]]), axis=0)
        for mine, other in pairs.tolist():
            self._unite(mine, other)

        self._below[left + 1 : left + w + 1] = id_of_label[labels[-1]]
        self._before = id_of_label[labels[:, -1]]
        at_once = np.flatnonzero(id_of_label[1:] == 0)
        return [found.take(at_once), *self._completed(number)] if len(at_once) else self._completed(number)

    def _links(
        self, number: int, left: int, codes: Codes, labels: NDArray[np.integer[Any]]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return all pairs of neighbours of equal code across a seam: label inside, chunk and id outside (0: later)."""
        h, w = labels.shape
        ring_rows = np.concatenate([np.zeros(w + 2), np.full(w + 2, h + 1), np.arange(1, h + 1), np.arange(1, h + 1)])
        ring_cols = np.concatenate([np.arange(w + 2), np.arange(w + 2), np.zeros(h), np.full(h, w + 1)])
        ids = np.zeros(len(ring_rows), np.int64)
        ids[: w + 2] = self._above[left : left + w + 2]
        ids[2 * (w + 2) : 2 * (w + 2) + h] = self._before
        rows, cols = ring_rows.astype(np.int64), ring_cols.astype(np.int64)
        down = (rows == h + 1).astype(np.int64) - (rows == 0)
        right = (cols == w + 1).astype(np.int64) - (cols == 0)
        owners = number + down * self._across + right
        outer = codes[rows, cols]
        inner_labels, inner_owners, inner_ids = [], [], []
        for dr, dc in self._offsets:
            r, c = rows + dr, cols + dc
            inside = (outer != 0) & (r >= 1) & (r <= h) & (c >= 1) & (c <= w)
            linked = np.flatnonzero(inside)
            linked = linked[codes[r[linked], c[linked]] == outer[linked]]
            inner_labels.append(labels[r[linked] - 1, c[linked] - 1].astype(np.int64))
            inner_owners.append(owners[linked])
            inner_ids.append(ids[linked])
        return np.concatenate(inner_labels), np.concatenate(inner_owners), np.concatenate(inner_ids)

    def _hand_over(self, found: Components, crossing: NDArray[np.int64], ids: NDArray[np.int64]) -> None:
        """Add to each crossing component its piece of this chunk."""
        starts = np.searchsorted(found.region, crossing - 1, side="left").tolist()
        ends = np.searchsorted(found.region, crossing - 1, side="right").tolist()
        for label, start, end in zip(crossing.tolist(), starts, ends, strict=True):
            piece = Components(
                **found.columns(np.array([label - 1])),
                region=np.zeros(end - start, np.int64),
                corners=found.corners[start:end].copy(),  # a view would keep all corners of the chunk
            )
            self._open[int(ids[label])].pieces.append(piece)

    def _root(self, one: int) -> int:
        while self._parent[one] != one:
            self._parent[one] = self._parent[self._parent[one]]
            one = self._parent[one]
        return one

    def _unite(self, one: int, other: int) -> None:
        one, other = self._root(one), self._root(other)
        if one == other:
            return
        if len(self._open[one].pieces) < len(self._open[other].pieces):
            one, other = other, one
        kept, gone = self._open[one], self._open.pop(other)
        self._parent[other] = one
        kept.last_chunk = max(kept.last_chunk, gone.last_chunk)
        kept.pieces += gone.pieces
        kept.ids += gone.ids

    def _completed(self, number: int) -> list[Components]:
        """Remove and return the components that do not continue in a later chunk."""
        done = [key for key, one in self._open.items() if one.last_chunk <= number]
        complete = []
        for key in done:
            one = self._open.pop(key)
            for member in one.ids:
                del self._parent[member]
            complete.append(one.finished())
        return complete
