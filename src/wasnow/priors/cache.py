"""Regions cached on disk, so that a word is searched in an image only once.

    image, word, Masker.key ──digest──> DIR/ab/abcdef....prior exists?   yes: read it
                                                                         no:  find the regions, store them

One file per image and word: a further word later costs only that word. The file states what it belongs to, and its
checksum is verified before anything else; a damaged file is ignored and written again.

    b"wasnow prior 1\n" | blake2b-32 of the rest | zlib of: length, JSON (identity, windows, scores), masks as bits

Files appear by atomic rename, and two processes that write the same entry write the same bytes, so they may share a
folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wasnow.errors import OutputError
from wasnow.priors.regions import Key, Masker, Region
from wasnow.raster.tiles import Window
from wasnow.storage.atomic import output_errors, write_atomically
from wasnow.storage.cache import cache_folder

MAGIC = b"wasnow prior 1\n"
_SUM_BYTES = 32
_ABANDONED_S = 3600
_MAX_BYTES = 2**31
"""Largest uncompressed size of an entry: a damaged or forged one must not fill the memory."""


def prior_cache() -> Path:
    """Return the default cache folder, next to the weights."""
    return cache_folder("priors")


def picture_digest(rgb: NDArray[np.uint8]) -> str:
    """Return a digest of the pixels and shape of an image; 40 hex digits."""
    digest = hashlib.blake2b(repr((rgb.shape, rgb.dtype.str)).encode(), digest_size=20)
    digest.update(np.ascontiguousarray(rgb).data)
    return digest.hexdigest()


class PriorCache:
    """A folder of cached regions.

    Attributes:
        damaged: number of entries that were discarded because of a wrong checksum.

    Raises:
        OutputError: the folder cannot be created.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.damaged = 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in self.folder.glob("??/.*.part"):
                with suppress(FileNotFoundError):  # another process has just renamed it
                    if path.stat().st_mtime < time.time() - _ABANDONED_S:
                        path.unlink()
        except OSError as error:
            raise OutputError(
                f"the prior cache {folder} cannot be used ({error.strerror}). Choose another folder with --cache"
            ) from None

    def path(self, picture: str, word: str, key: Key) -> Path:
        """Return the path of an entry, whether or not it exists."""
        name = hashlib.blake2b(_canonical(picture, word, key), digest_size=20).hexdigest()
        return self.folder / name[:2] / f"{name}.prior"

    def get(self, picture: str, word: str, key: Key) -> tuple[Region, ...] | None:
        """Return cached regions; None if there is no intact entry.

        Args:
            picture: `picture_digest` of the image.
            word: class word.
            key: of the masker.
        """
        path = self.path(picture, word, key)
        try:
            return _unpacked(path.read_bytes(), _canonical(picture, word, key))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, zlib.error, struct.error):
            self.damaged += 1
            # `put` will replace it; removing it avoids checking it again until then.
            with suppress(OSError):
                path.unlink()
            return None

    def put(self, picture: str, word: str, key: Key, regions: Sequence[Region]) -> None:
        """Store regions.

        Args:
            picture: `picture_digest` of the image.
            word: class word.
            key: of the masker.
            regions: the regions.

        Raises:
            OutputError, DiskFull: they cannot be written.
        """
        path = self.path(picture, word, key)
        data = _packed(_canonical(picture, word, key), regions)
        with output_errors(path):
            path.parent.mkdir(exist_ok=True)
        write_atomically(path, data, durable=False, shared=True)


class CachedMasker(Masker):
    """A masker that searches only what is not cached. ``asked`` and ``reused`` count words of images.

    Args:
        masker: the masker to call.
        cache: None for no cache.
    """

    def __init__(self, masker: Masker, cache: PriorCache | None) -> None:
        self.masker = masker
        self.cache = cache
        self.asked = 0
        self.reused = 0

    @property
    def knows_objects(self) -> bool:
        """That of the masker."""
        return self.masker.knows_objects

    @property
    def key(self) -> Key:
        """That of the masker."""
        return self.masker.key

    def find(self, rgb: NDArray[np.uint8], words: Sequence[str]) -> tuple[tuple[Region, ...], ...]:
        """See `Masker`. Missing words are searched together, so that the image is encoded once."""
        if self.cache is None:
            self.asked += len(words)
            return self.masker.find(rgb, words)
        picture, key = picture_digest(rgb), self.masker.key
        found = {word: self.cache.get(picture, word, key) for word in words}
        missing = [word for word, regions in found.items() if regions is None]
        if missing:
            for word, regions in zip(missing, self.masker.find(rgb, missing), strict=True):
                self.cache.put(picture, word, key, regions)
                found[word] = regions
        self.asked += len(missing)
        self.reused += len(found) - len(missing)
        return tuple(found[word] or () for word in words)


def _canonical(picture: str, word: str, key: Key) -> bytes:
    return json.dumps({"key": dict(key), "picture": picture, "word": word}, sort_keys=True, ensure_ascii=False).encode()


def _packed(of: bytes, regions: Sequence[Region]) -> bytes:
    about = json.dumps(
        {
            "of": of.decode(),
            "pieces": [[p.window.row, p.window.col, p.window.height, p.window.width, p.score] for p in regions],
        }
    ).encode()
    bits = b"".join(np.packbits(piece.mask).tobytes() for piece in regions)
    body = zlib.compress(struct.pack("<Q", len(about)) + about + bits, 6)
    return MAGIC + hashlib.blake2b(body, digest_size=_SUM_BYTES).digest() + body


def _unpacked(data: bytes, of: bytes) -> tuple[Region, ...]:
    head = len(MAGIC) + _SUM_BYTES
    body = data[head:]
    if data[: len(MAGIC)] != MAGIC or hashlib.blake2b(body, digest_size=_SUM_BYTES).digest() != data[len(MAGIC) : head]:
        raise ValueError("checksum")
    inflate = zlib.decompressobj()
    plain = inflate.decompress(body, _MAX_BYTES)
    if not inflate.eof:
        raise ValueError("too large")
    length = struct.unpack_from("<Q", plain)[0]
    about: dict[str, Any] = json.loads(plain[8 : 8 + length])
    if about["of"] != of.decode():
        raise ValueError("belongs to another image, word or masker")
    at, regions = 8 + length, []
    for row, col, height, width, score in about["pieces"]:
        size = height * width
        bits = np.frombuffer(plain, np.uint8, -(-size // 8), at)
        mask = np.unpackbits(bits, count=size).astype(np.bool_).reshape(height, width)
        regions.append(Region(Window(row, col, height, width), mask, float(score)))
        at += len(bits)
    return tuple(regions)
