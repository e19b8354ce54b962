"""Is this PNG whole? Walks its chunks, never its pixels.

GDAL 3.10 answers a PNG that was cut off with black pixels and no error, which would look like change.
"""

from __future__ import annotations

import os
from pathlib import Path

from wasnow.errors import RasterUnreadable

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_AROUND = 12
"""Bytes of a chunk besides its data: length, type, checksum."""


def check_png(path: str) -> None:
    """Pass over a whole PNG, or over anything that is no local PNG, in silence.

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
        file.seek(max(0, size - _AROUND))
        if file.read()[4:8] == b"IEND":
            return
        # Something may follow the end, so walk the chunks: length, type, that many bytes, checksum.
        at = 8
        while at + 8 <= size:
            file.seek(at)
            head = file.read(8)
            if head[4:] == b"IEND":
                return
            at += _AROUND + int.from_bytes(head[:4], "big")
    raise RasterUnreadable(
        path, f"is cut off: its {size} bytes do not reach the end of the picture", "Copy or download it again"
    )
