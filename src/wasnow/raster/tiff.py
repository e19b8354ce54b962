"""Detect truncated TIFF files from their directories, without reading pixels.

GDAL reports a truncated file only when it reaches the missing part, which may be hours into a run, and reads a block
without an entry in the offset table as empty. This module checks that the table is long enough and that every block
lies inside the file. A sparse block (offset and size both 0) is valid. Overviews and masks have directories of their
own, linked to each other; all of them are checked.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from wasnow.errors import RasterUnreadable

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_TYPES = {1: "u1", 3: "u2", 4: "u4", 16: "u8"}
_WIDTH, _LENGTH, _ROWS_PER_STRIP = 256, 257, 278
_STRIP_OFFSETS, _STRIP_SIZES, _TILE_OFFSETS, _TILE_SIZES = 273, 279, 324, 325
_SAMPLES, _PLANAR, _TILE_WIDTH, _TILE_LENGTH = 277, 284, 322, 323
_METADATA = 42112
_MAX_METADATA_BYTES = 2**26
"""Largest GDAL metadata tag, 64 MiB; GDAL reads it into memory as a whole."""
_MAX_DIRECTORIES = 256
"""Most directories to check; a raster has one for each overview and mask."""
_ADVICE = "Copy or download it again"

Entry = tuple[int, int, int]  # TIFF type, count, position of the values in the file


def check_tiff(path: str, *, allow_missing_blocks: bool = False) -> None:
    """Check that a local TIFF is complete; do nothing for other files.

    Args:
        path: of any file.
        allow_missing_blocks: accept blocks beyond the end of the file, which GDAL reports when it reads them.

    Raises:
        RasterUnreadable: the directory is truncated, lists too few blocks, or points beyond the end of the file.
    """
    local = Path(path)
    if not local.is_file():
        return
    size = local.stat().st_size
    with local.open("rb") as file:
        head = file.read(16)
        if len(head) < 8 or head[:2] not in (b"II", b"MM"):
            return
        order = "<" if head[:2] == b"II" else ">"
        version = struct.unpack(order + "H", head[2:4])[0]
        if version not in (42, 43):
            return
        try:
            _check(file, path, size, order, version == 43, head, allow_missing_blocks)
        except (struct.error, OverflowError):
            raise RasterUnreadable(
                path, f"is truncated inside its directory (file size {size} bytes)", _ADVICE
            ) from None


def _check(
    file: BinaryIO, path: str, size: int, order: str, big: bool, head: bytes, allow_missing_blocks: bool
) -> None:
    start = struct.unpack(order + ("Q" if big else "I"), head[8:16] if big else head[4:8])[0]
    seen: set[int] = set()
    while (start or not seen) and len(seen) < _MAX_DIRECTORIES:
        if not 0 < start < size:
            raise RasterUnreadable(path, f"is truncated: its directory starts at byte {start} of {size}", _ADVICE)
        if start in seen:
            raise RasterUnreadable(path, f"has directories linked in a loop (byte {start})", _ADVICE)
        seen.add(start)
        entries, start = _entries(file, order, big, start)
        _check_blocks(file, path, size, order, entries, allow_missing_blocks)


def _check_blocks(
    file: BinaryIO, path: str, size: int, order: str, entries: dict[int, Entry], allow_missing_blocks: bool
) -> None:
    """Check the blocks of one directory: the image, an overview, or a mask."""
    described = entries.get(_METADATA, (2, 0, 0))[1]
    if described > min(size, _MAX_METADATA_BYTES):
        raise RasterUnreadable(path, f"declares {described} bytes of metadata in a file of {size} bytes", _ADVICE)
    width, length = _one(file, order, entries, _WIDTH, 0), _one(file, order, entries, _LENGTH, 0)
    if width < 1 or length < 1:
        raise RasterUnreadable(path, f"declares {width} x {length} px", _ADVICE)
    tiled = _TILE_OFFSETS in entries
    if tiled:
        across = -(-width // max(1, _one(file, order, entries, _TILE_WIDTH, 1)))
        down = -(-length // max(1, _one(file, order, entries, _TILE_LENGTH, 1)))
    else:
        across, down = 1, -(-length // max(1, _one(file, order, entries, _ROWS_PER_STRIP, length)))
    planes = _one(file, order, entries, _SAMPLES, 1) if _one(file, order, entries, _PLANAR, 1) == 2 else 1
    required = across * down * planes
    tags = (_TILE_OFFSETS, _TILE_SIZES) if tiled else (_STRIP_OFFSETS, _STRIP_SIZES)
    kind = "tiles" if tiled else "strips"
    for tag in tags:
        found = entries.get(tag, (4, 0, 0))[1]
        if found < required:
            raise RasterUnreadable(
                path, f"declares {width} x {length} px, which are {required} {kind}, but lists only {found}", _ADVICE
            )
        _, count, position = entries[tag]
        if position + count * _SIZES.get(entries[tag][0], 1) > size:
            raise RasterUnreadable(path, f"is truncated inside its table of {kind} (file size {size} bytes)", _ADVICE)
    offsets, sizes = (_all(file, order, entries[tag], required) for tag in tags)
    ends = offsets + sizes
    beyond = np.flatnonzero((sizes > 0) & ((ends > size) | (ends < offsets)))
    if len(beyond) and not allow_missing_blocks:
        need = int(ends[beyond].max())
        raise RasterUnreadable(
            path,
            f"is truncated: {len(beyond)} of {required} {kind} lie beyond its {size} bytes ({need} required)",
            _ADVICE,
        )


def _entries(file: BinaryIO, order: str, big: bool, start: int) -> tuple[dict[int, Entry], int]:
    """Return the directory at a byte position, and the position of the next one; 0 after the last."""
    file.seek(start)
    count = struct.unpack(order + ("Q" if big else "H"), file.read(8 if big else 2))[0]
    if count > 65535:
        raise struct.error("too many directory entries")
    step, inline = (20, 8) if big else (12, 4)
    base = file.tell()
    table = file.read(count * step)
    entries: dict[int, Entry] = {}
    for i in range(count):
        tag, kind, values = struct.unpack_from(order + ("HHQ" if big else "HHI"), table, i * step)
        where = i * step + (12 if big else 8)
        position = base + where
        if _SIZES.get(kind, 1) * values > inline:
            position = struct.unpack_from(order + ("Q" if big else "I"), table, where)[0]
        entries[tag] = (kind, values, position)
    follows = file.read(8 if big else 4)
    # Some writers omit the final link if the file ends with its directory.
    return entries, struct.unpack(order + ("Q" if big else "I"), follows)[0] if follows else 0


def _all(file: BinaryIO, order: str, entry: Entry, at_most: int) -> NDArray[np.uint64]:
    """Return up to ``at_most`` values of an entry."""
    kind, count, position = entry
    if kind not in _TYPES:
        raise struct.error(f"type {kind} is not an integer type")
    dtype = np.dtype(order + _TYPES[kind])
    count = min(count, at_most)
    file.seek(position)
    data = file.read(count * dtype.itemsize)
    if len(data) < count * dtype.itemsize:
        raise struct.error("truncated")
    return np.frombuffer(data, dtype).astype(np.uint64)


def _one(file: BinaryIO, order: str, entries: dict[int, Entry], tag: int, default: int) -> int:
    """Return the first value of a tag."""
    if tag not in entries or entries[tag][1] < 1:
        return default
    return int(_all(file, order, entries[tag], 1)[0])
