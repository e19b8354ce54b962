"""Recognise files that are not weights by their first bytes: Git LFS pointers, web pages, archives, text."""

from __future__ import annotations

from pathlib import Path

_FIRST = 512
"""Bytes that are read."""


def other_content(path: Path) -> tuple[str, str] | None:
    """Return what a file is instead of weights, and what to do; None where its first bytes do not tell.

    Args:
        path: an existing file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(_FIRST)
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not start:
        return "an empty file", "use another copy"
    if text.startswith(b"version https://git-lfs"):
        return (
            "a Git LFS pointer instead of the weights",
            "run 'git lfs pull' in its repository, or download the file itself",
        )
    if text[:200].lower().startswith((b"<!doctype html", b"<html")):
        return "an HTML page instead of weights", "the link led to a web page; download the file itself"
    if text.startswith((b"<?xml", b"<Error")):
        return "an XML document instead of weights", "the server reported an error; download the file again"
    if start.startswith(b"\x1f\x8b"):
        return "a gzip archive", "unpack it first"
    if start.startswith((b"7z\xbc\xaf", b"Rar!")):
        return "a compressed archive", "unpack it first"
    if _is_text(start):
        shown = start.decode("utf-8", "replace").split("\n")[0][:40]
        return f"text instead of weights, beginning with {shown!r}", "download the file itself"
    return None


def _is_text(start: bytes) -> bool:
    """Return whether all bytes are printable ASCII or white space."""
    return all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start)
