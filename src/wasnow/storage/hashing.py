"""Digests of files."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

_PIECE_BYTES = 2**20


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hex; the file is read in pieces."""
    return file_digests(path, ("sha256",))["sha256"]


def file_digests(path: Path, algorithms: Collection[str]) -> dict[str, str]:
    """Return the digests of a file in hex, by algorithm (names of `hashlib`); the file is read once."""
    hashes = {name: hashlib.new(name) for name in sorted(algorithms)}
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            for each in hashes.values():
                each.update(piece)
    return {name: each.hexdigest() for name, each in hashes.items()}
