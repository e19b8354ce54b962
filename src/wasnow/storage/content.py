"""Describe files by their first bytes, and reject paths that are not regular files.

Used for messages: a raster or checkpoint that cannot be read is often a Git LFS pointer or a web page.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path

HEAD_BYTES = 4096

_KINDS: tuple[tuple[re.Pattern[bytes], str, str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), kind, advice)
    for pattern, kind, advice in (
        (
            rb"\Aversion https://git-lfs\.github\.com/spec",
            "a Git LFS pointer, not the file itself",
            "Fetch the file with git lfs pull",
        ),
        (
            rb"\A(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)?<(!doctype\s+html|html|head|body)\b",
            "an HTML page",
            "Download it again: the server sent a web page, often a login or error page",
        ),
        (
            rb"\A(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?<Error>\s*<Code>",
            "an error message of an object store in XML",
            "Download it again with access rights",
        ),
        (rb"\APK\x03\x04", "a zip archive", "Extract it, or name a file inside it as /vsizip/ARCHIVE.zip/FILE"),
        (rb"\A\x1f\x8b", "a gzip archive", "Extract it first"),
        (rb"\A(7z\xbc\xaf|Rar!)", "a 7z or RAR archive", "Extract it first"),
        (rb"\A\xfd7zXZ|\ABZh", "a compressed archive", "Extract it first"),
        (rb"\Amsid|\AmsiD", "a MrSID image", "Convert it to GeoTIFF with a GDAL that has the MrSID driver"),
    )
)


def describe_content(head: bytes) -> tuple[str, str] | None:
    """Return (kind, advice) for the first bytes of a file that is not what its name says; None if unknown."""
    return next(((kind, advice) for pattern, kind, advice in _KINDS if pattern.search(head)), None)


def read_head(path: str | Path, size: int = HEAD_BYTES) -> bytes:
    """Return the first bytes of a regular file; empty if it cannot be read or is not a regular file."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            return b""
        with Path(path).open("rb") as file:
            return file.read(size)
    except (OSError, ValueError):
        return b""


def special_file(path: str | Path) -> str | None:
    """Return what an existing path is if reading it could block or never end: a pipe, a device, a file of ``/proc``.

    None for regular files, folders and paths that do not exist.
    """
    try:
        mode = Path(path).stat().st_mode
        resolved = Path(path).resolve()
    except (OSError, ValueError, RuntimeError):
        return None
    if stat.S_ISREG(mode):
        return "a file of /proc" if resolved.parts[:2] == ("/", "proc") else None
    kinds = {
        stat.S_ISFIFO: "a named pipe",
        stat.S_ISCHR: "a device",
        stat.S_ISBLK: "a device",
        stat.S_ISSOCK: "a socket",
    }
    return next((kind for matches, kind in kinds.items() if matches(mode)), None)
