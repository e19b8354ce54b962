"""Find images that occur in two splits, equal or nearly equal, since scores on such images are too high.

    image ─┬─ digest of the pixels ──────────────────────────────> equal
           └─ 16 x 18 grey thumbnail ─ difference hash, 64 bits ─> nearly equal: at most 7 bits differ, and the
                                                                   thumbnails correlate above 0.98

The hash tolerates compression, noise and changes of brightness or contrast, but not mirroring, rotation or shifts.
Images with hardly any contrast have no hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_BITS = 7
"""Differing bits of 64 up to which two images may be nearly equal."""

_CORRELATION = 0.98
_LEAST_CONTRAST = 3.0
"""Smallest standard deviation of a thumbnail with a hash, in grey levels."""

_ROWS, _COLS = 16, 18


@dataclass(frozen=True, slots=True)
class ImagePrint:
    """What identifies an image.

    Attributes:
        name: of the image, for messages.
        digest: of its pixels.
        thumbnail: ``(16, 18)`` float32 grey levels; None for an image with hardly any contrast, or a small one.
    """

    name: str
    digest: bytes
    thumbnail: NDArray[np.float32] | None

    @classmethod
    def of(cls, name: str, rgb: NDArray[np.uint8]) -> ImagePrint:
        """Return the print of an image ``(H, W, 3)``."""
        digest = hashlib.blake2b(repr(rgb.shape).encode(), digest_size=16)
        digest.update(np.ascontiguousarray(rgb).data)
        thumbnail = None
        if rgb.shape[0] >= _ROWS and rgb.shape[1] >= _COLS:
            small = _thumbnail(rgb)
            if float(small.std()) >= _LEAST_CONTRAST:
                thumbnail = small
        return cls(name, digest.digest(), thumbnail)

    @property
    def hash(self) -> int | None:
        """64 bits: whether each value of the thumbnail, reduced to 8 x 9, exceeds its left neighbour."""
        if self.thumbnail is None:
            return None
        reduced = self.thumbnail.reshape(_ROWS // 2, 2, _COLS // 2, 2).mean(axis=(1, 3))
        return int.from_bytes(np.packbits(reduced[:, 1:] > reduced[:, :-1]).tobytes(), "big")


def find_leaks(prints: Mapping[str, Sequence[ImagePrint]]) -> list[str]:
    """Return a warning for each two splits that share images.

    Args:
        prints: split -> prints of all its images; each split is compared with those before it.
    """
    warnings: list[str] = []
    indexes: dict[str, _Index] = {}
    for split, images in prints.items():
        for other, index in indexes.items():
            equal = [(image.name, match) for image in images if (match := index.equal(image)) is not None]
            names = {name for name, _ in equal}
            near = [
                (image.name, match)
                for image in images
                if image.name not in names and (match := index.nearly_equal(image)) is not None
            ]
            for found, relation in ((equal, "equal to"), (near, "nearly equal to")):
                if found:
                    first, match = found[0]
                    warnings.append(
                        f"{len(found)} of {len(images)} images of {split} are {relation} images of {other} (first "
                        f"{first} and {match}): scores on {split} say little about new images"
                    )
        indexes[split] = _Index(images)
    return warnings


class _Index:
    """The images of one split, by digest and by hash."""

    def __init__(self, images: Sequence[ImagePrint]) -> None:
        self._by_digest = {image.digest: image.name for image in images}
        self._hashed = [image for image in images if image.thumbnail is not None]
        self._hashes = np.array([image.hash for image in self._hashed], np.uint64)

    def equal(self, image: ImagePrint) -> str | None:
        """Return the name of an equal image."""
        return self._by_digest.get(image.digest)

    def nearly_equal(self, image: ImagePrint) -> str | None:
        """Return the name of a nearly equal image."""
        if image.hash is None or not self._hashed:
            return None
        close = np.flatnonzero(np.bitwise_count(self._hashes ^ np.uint64(image.hash)) <= MOST_BITS)
        return next((self._hashed[i].name for i in close.tolist() if _correlate(image, self._hashed[i])), None)


def _correlate(one: ImagePrint, other: ImagePrint) -> bool:
    assert one.thumbnail is not None
    assert other.thumbnail is not None
    return bool(np.corrcoef(one.thumbnail.ravel(), other.thumbnail.ravel())[0, 1] > _CORRELATION)


def _thumbnail(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Average grey levels of 16 x 18 cells."""
    rows = np.arange(_ROWS) * rgb.shape[0] // _ROWS
    cols = np.arange(_COLS) * rgb.shape[1] // _COLS
    grey = rgb.sum(axis=2, dtype=np.uint16)
    sums = np.add.reduceat(np.add.reduceat(grey, rows, axis=0, dtype=np.uint64), cols, axis=1)
    heights = np.diff(np.append(rows, rgb.shape[0]))
    widths = np.diff(np.append(cols, rgb.shape[1]))
    means: NDArray[np.float32] = (sums / (3 * np.outer(heights, widths))).astype(np.float32)
    return means
