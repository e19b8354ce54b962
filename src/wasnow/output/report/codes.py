"""Labels and predictions as small pictures: the class codes of both dates side by side, in the class colours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wasnow.output.report.pictures import paletted_png, photo_jpeg
from wasnow.vocabulary import CHANGED_COLOR, NO_CHANGE_COLOR, Vocabulary

SIDE = 256
"""Longest side of a picture, in pixels."""

GAP = 4
"""Pixels between the dates."""

NO_LABEL_COLOR = (128, 128, 134)


def dates_png(before: NDArray[Any], after: NDArray[Any] | None, vocabulary: Vocabulary) -> bytes:
    """Return the codes of both dates side by side as a small PNG.

    Args:
        before: ``(h, w)`` class codes before, or the one map of change; 255 is "no label".
        after: ``(h, w)`` class codes after; None for a map of change.
        vocabulary: gives the colours.
    """
    maps = [_small(one).astype(np.uint8) for one in (before, after) if one is not None]
    gap = np.full((maps[0].shape[0], GAP), 254, np.uint8)
    index = np.concatenate([maps[0], gap, maps[1]], 1) if len(maps) == 2 else maps[0]
    return paletted_png(index, palette(vocabulary))


def photos_jpeg(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> bytes:
    """Return both dates side by side as a small JPEG."""
    first, second = _small(before), _small(after)
    gap = np.full((first.shape[0], GAP, 3), 255, np.uint8)
    return photo_jpeg(np.concatenate([first, gap, second], 1), budget=40_000)


def palette(vocabulary: Vocabulary) -> list[tuple[int, int, int, int]]:
    """Return RGBA of codes 0..255: no change, the classes (or *changed*), transparent at 254, "no label" at 255."""
    words = [vocabulary.color(code) for code in range(1, len(vocabulary) + 1)] or [CHANGED_COLOR]
    known = [NO_CHANGE_COLOR, *words][:254]
    filled = [*known, *[(0, 0, 0)] * (254 - len(known))]
    return [*((*color, 255) for color in filled), (0, 0, 0, 0), (*NO_LABEL_COLOR, 255)]


def _small(picture: NDArray[Any]) -> NDArray[Any]:
    """Take every n-th pixel, so that codes are not mixed."""
    every = -(-max(picture.shape[:2]) // SIDE)
    return np.ascontiguousarray(picture[::every, ::every])
