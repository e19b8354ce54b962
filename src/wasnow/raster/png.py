"""Detect truncated PNG files from their chunks, without decoding pixels.

GDAL 3.10 reads the missing part of a truncated PNG as black pixels without an error, which would look like change.
"""

from __future__ import annotations

import os
from pathlib import Path

from wasnow.errors import RasterUnreadable

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNK_OVERHEAD = 12
"""Bytes of a chunk without its data: length, type, checksum."""


def check_png(path: str) -> None:
    """Check that a local PNG is complete; do nothing for other files.

    Raises:
        RasterUnreadable: the file ends before its last chunk.
    """
    local = Path(path)
    if not local.is_file():
        return
    with local.open("rb") as file:
        if file.read(8) != _SIGNATURE:
            return
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _CHUNK_OVERHEAD))
        if file.read()[4:8] == b"IEND":
            return
        # Other data may follow the last chunk, so walk the chunks: length, type, data, checksum.
        at = 8
        while at + 8 <= size:
            file.seek(at)
            head = file.read(8)
            if head[4:] == b"IEND":
                return
            at += _CHUNK_OVERHEAD + int.from_bytes(head[:4], "big")
    raise RasterUnreadable(
        path, f"is truncated: its {size} bytes do not contain the end of the image", "Copy or download it again"
    )
