"""Pieces kept on disk, so that no picture is asked about the same word twice.

    picture, word, Masker.key ──digest──> DIR/ab/abcdef....prior there?   yes: read it
                                                                          no:  find, keep it

One file per picture and word: another word later costs only that word. The file says what it is of, and its checksum is
looked at before anything else is believed; a damaged file is found anew.

    b"wasnow prior 1\\n" | blake2b-32 of the rest | zlib of: length, JSON (of what, windows, scores), masks as bits

Files appear whole or not at all (written aside, renamed), and what two processes write under one name is the same; so
they may share a folder.
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
"""No entry unpacks to more: a damaged or forged one must not fill the memory."""


def prior_cache() -> Path:
    """Where answers are kept unless somebody says otherwise: beside the weights."""
    return cache_folder("priors")


def picture_digest(rgb: NDArray[np.uint8]) -> str:
    """Of the pixels and shape of a picture; 40 hex digits."""
    digest = hashlib.blake2b(repr((rgb.shape, rgb.dtype.str)).encode(), digest_size=20)
    digest.update(np.ascontiguousarray(rgb).data)
    return digest.hexdigest()


class PriorCache:
    """A folder of pieces.

    Attributes:
        damaged: entries that were thrown away because their checksum did not fit.

    Raises:
        OutputError: the folder cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.damaged = 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in self.folder.glob("??/.*.part"):
                with suppress(FileNotFoundError):  # another process, at work, has just given it its name
                    if path.stat().st_mtime < time.time() - _ABANDONED_S:
                        path.unlink()
        except OSError as error:
            raise OutputError(
                f"the prior cache {folder} cannot be used ({error.strerror}); choose another folder with --cache"
            ) from None

    def path(self, picture: str, word: str, key: Key) -> Path:
        """Where an entry lies, whether it is there or not."""
        name = hashlib.blake2b(_canonical(picture, word, key), digest_size=20).hexdigest()
        return self.folder / name[:2] / f"{name}.prior"

    def get(self, picture: str, word: str, key: Key) -> tuple[Region, ...] | None:
        """What was kept; None where there is nothing whole.

        Args:
            picture: `picture_digest`.
            word: what was asked.
            key: of the masker.
        """
        path = self.path(picture, word, key)
        try:
            return _unpacked(path.read_bytes(), _canonical(picture, word, key))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, zlib.error, struct.error):
            self.damaged += 1
            # Left where it is, it would be thrown away again each time; and `put` replaces it anyway.
            with suppress(OSError):
                path.unlink()
            return None

    def put(self, picture: str, word: str, key: Key, pieces: Sequence[Region]) -> None:
        """Keep pieces.

        Raises:
            OutputError, DiskFull: they cannot be written.
        """
        path = self.path(picture, word, key)
        data = _packed(_canonical(picture, word, key), pieces)
        with output_errors(path):
            path.parent.mkdir(exist_ok=True)
        write_atomically(path, data, durable=False, shared=True)


class CachedMasker(Masker):
    """A masker that asks only about what the cache does not hold. ``asked`` and ``reused`` count words of pictures.

    Args:
        masker: is asked.
        cache: None keeps nothing.
    """

    def __init__(self, masker: Masker, cache: PriorCache | None) -> None:
        self.masker = masker
        self.cache = cache
        self.asked = 0
        self.reused = 0

    @property
    def knows_objects(self) -> bool:
        """Of the masker."""
        return self.masker.knows_objects

    @property
    def key(self) -> Key:
        """Of the masker."""
        return self.masker.key

    def find(self, rgb: NDArray[np.uint8], words: Sequence[str]) -> tuple[tuple[Region, ...], ...]:
        """See `Masker`; the missing words are asked about together, so that the picture is looked at once."""
        if self.cache is None:
            self.asked += len(words)
            return self.masker.find(rgb, words)
        picture, key = picture_digest(rgb), self.masker.key
        found = {word: self.cache.get(picture, word, key) for word in words}
        missing = [word for word, pieces in found.items() if pieces is None]
        if missing:
            for word, pieces in zip(missing, self.masker.find(rgb, missing), strict=True):
                self.cache.put(picture, word, key, pieces)
                found[word] = pieces
        self.asked += len(missing)
        self.reused += len(found) - len(missing)
        return tuple(found[word] or () for word in words)


def _canonical(picture: str, word: str, key: Key) -> bytes:
    return json.dumps({"key": dict(key), "picture": picture, "word": word}, sort_keys=True, ensure_ascii=False).encode()


def _packed(of: bytes, pieces: Sequence[Region]) -> bytes:
    about = json.dumps(
        {
            "of": of.decode(),
            "pieces": [[p.window.row, p.window.col, p.window.height, p.window.width, p.score] for p in pieces],
        }
    ).encode()
    bits = b"".join(np.packbits(piece.mask).tobytes() for piece in pieces)
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
        raise ValueError("of something else")
    at, pieces = 8 + length, []
    for row, col, height, width, score in about["pieces"]:
        size = height * width
        bits = np.frombuffer(plain, np.uint8, -(-size // 8), at)
        mask = np.unpackbits(bits, count=size).astype(np.bool_).reshape(height, width)
        pieces.append(Region(Window(row, col, height, width), mask, float(score)))
        at += len(bits)
    return tuple(pieces)
