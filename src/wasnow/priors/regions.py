"""Regions: what a masker finds in an image. Each is a mask cropped to its bounding window.

    image (H, W, 3), words ──Masker.find──> per word: Region, Region, ...    objects, where the masker detects objects,
                                            └─ union ─> (H, W) bool          else the connected parts of its mask

Boxes are (x0, y0, x1, y1) in pixels, x along columns; 0 is the left edge of the first pixel. Works without files and
without torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wasnow.raster.tiles import Window

Mask = NDArray[np.bool_]
Key = Mapping[str, Any]

_CORNERS_TOUCH = np.ones((3, 3), np.bool_)


@dataclass(frozen=True, eq=False)
class Region:
    """One object, or one connected part of a mask.

    Attributes:
        window: the smallest that contains it.
        mask: ``(window.height, window.width)`` bool.
        score: confidence, 0..1; 1 for maskers without scores.
    """

    window: Window
    mask: Mask
    score: float = 1.0

    @classmethod
    def of(cls, mask: Mask, score: float = 1.0) -> Region | None:
        """Return the region of a mask of the whole image, ``(H, W)``; None for an empty one."""
        rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return None
        window = Window(int(rows[0]), int(cols[0]), int(rows[-1] - rows[0] + 1), int(cols[-1] - cols[0] + 1))
        return cls(window, np.ascontiguousarray(mask[window_slices(window)]), float(score))

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return int(self.mask.sum())

    def moved(self, rows: int, cols: int) -> Region:
        """Return the region shifted down and to the right."""
        at = self.window
        return Region(Window(at.row + rows, at.col + cols, at.height, at.width), self.mask, self.score)

    def within(self, window: Window) -> Mask:
        """Return its mask on a window, ``(h, w)``."""
        mask = np.zeros((window.height, window.width), np.bool_)
        common = self.window.intersect(window)
        if common.size:
            mask[window_slices(common, window)] = self.mask[window_slices(common, self.window)]
        return mask

    def clipped(self, window: Window) -> Region | None:
        """Return its part inside a window; None if there is none."""
        common = self.window.intersect(window)
        if common == self.window:
            return self
        if not common.size:
            return None
        inside = Region.of(self.mask[window_slices(common, self.window)], self.score)
        return inside and inside.moved(common.row, common.col)


class Masker(Protocol):
    """Finds what words name in an image. Subclasses inherit `masks`."""

    @property
    def knows_objects(self) -> bool:
        """Whether its regions are objects, which may overlap; else they are the connected parts of a mask."""
        ...

    @property
    def key(self) -> Key:
        """Plain values that change whenever its results may: model, digest of the weights, thresholds."""
        ...

    def find(self, rgb: NDArray[np.uint8], words: Sequence[str]) -> tuple[tuple[Region, ...], ...]:
        """Return the regions of each word in an image ``(H, W, 3)`` uint8. The regions of one word do not depend on
        others.
        """
        ...

    def masks(self, rgb: NDArray[np.uint8], words: Sequence[str]) -> Mask:
        """Return the union of the regions of each word, ``(len(words), H, W)`` bool."""
        return union_masks(self.find(rgb, words), (rgb.shape[0], rgb.shape[1]))


def union_masks(found: Sequence[Iterable[Region]], shape: tuple[int, int]) -> Mask:
    """Return the union of the regions of each word, ``(len(found), H, W)`` bool, from the result of `Masker.find`."""
    masks = np.zeros((len(found), *shape), np.bool_)
    for mask, regions in zip(masks, found, strict=True):
        for region in regions:
            mask[window_slices(region.window)] |= region.mask
    return masks


def connected_regions(mask: Mask) -> tuple[Region, ...]:
    """Return the connected regions of a mask ``(H, W)``; pixels that touch at a corner are connected."""
    from scipy import ndimage  # slow to import, and most runs have no masks

    labels, count = ndimage.label(mask, _CORNERS_TOUCH)
    found = []
    for label, at in enumerate(ndimage.find_objects(labels, count), 1):
        rows, cols = at
        window = Window(rows.start, cols.start, rows.stop - rows.start, cols.stop - cols.start)
        found.append(Region(window, labels[at] == label))
    return tuple(found)


def suppress_boxes(boxes: NDArray[np.floating[Any]], scores: NDArray[np.floating[Any]], iou: float) -> list[int]:
    """Non-maximum suppression: return the indices of the boxes ``(N, 4)`` to keep, best score first.

    A box is removed if a kept one overlaps it by more than ``iou``. Equal scores keep their order.

    Args:
        boxes: ``(N, 4)``.
        scores: ``(N,)``.
        iou: intersection over union, 0..1.
    """
    x0, y0, x1, y1 = np.asarray(boxes, np.float64).reshape(-1, 4).T
    areas = np.maximum(x1 - x0, 0) * np.maximum(y1 - y0, 0)
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    kept: list[int] = []
    while len(order):
        best, order = int(order[0]), order[1:]
        kept.append(best)
        across = np.minimum(x1[best], x1[order]) - np.maximum(x0[best], x0[order])
        down = np.minimum(y1[best], y1[order]) - np.maximum(y0[best], y0[order])
        common = np.maximum(across, 0) * np.maximum(down, 0)
        # Multiplied out to avoid 0 / 0 for two boxes without area.
        order = order[common <= iou * (areas[best] + areas[order] - common)]
    return kept


def boxes_to_pixels(boxes: NDArray[np.floating[Any]], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Convert relative ``(cx, cy, w, h)`` in 0..1 to corners in pixels of an image ``(H, W)``, clipped to it; ``(N,
    4)``.
    """
    height, width = shape
    centre, half = np.asarray(boxes, np.float64)[:, :2], np.asarray(boxes, np.float64)[:, 2:] / 2
    both = np.concatenate([centre - half, centre + half], axis=1)
    pixels: NDArray[np.float32] = (np.clip(both, 0, 1) * [width, height, width, height]).astype(np.float32)
    return pixels


def window_slices(window: Window, inside: Window | None = None) -> tuple[slice, slice]:
    """Return the slices that index an array by a window; ``inside`` is the window that the array itself covers."""
    row, col = (window.row, window.col) if inside is None else (window.row - inside.row, window.col - inside.col)
    return slice(row, row + window.height), slice(col, col + window.width)
