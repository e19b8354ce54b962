"""Names from users and lists that become names of folders, safe on every file system."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection

LONGEST_NAME_BYTES = 120
"""Of a name in UTF-8. File systems allow 255; suffixes, temporary names and the rest of the path need some of them."""

_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[/\\<>:"|?*]')
_INVISIBLE = frozenset("\u200b\u200e\u200f\u2028\u2029\u2060\ufeff\u00ad") | frozenset(
    chr(code) for start, stop in ((0x202A, 0x202F), (0x2066, 0x206A)) for code in range(start, stop)
)


def folder_name_fault(name: str, reserved: Collection[str] = ()) -> str | None:
    """Return why a name cannot be that of a folder inside the output folder, or None if it can.

    Args:
        name: the name as it was given.
        reserved: names that are in use there, as `folded` returns them.
    """
    if not name.strip() or name != name.strip():
        return "is empty, or begins or ends with a blank"
    if name in (".", "..") or _FORBIDDEN.search(name):
        return 'is not a plain name; use one without / \\ : * ? " < > |'
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Co", "Cn") or letter in _INVISIBLE for letter in name):
        return "contains invisible characters"
    if name.startswith(".") or name.endswith("."):
        return "begins or ends with a dot"
    if _RESERVED.fullmatch(name) or folded(name) in reserved:
        return "is reserved"
    if len(name.encode()) > LONGEST_NAME_BYTES:
        return f"has {len(name.encode())} bytes; use at most {LONGEST_NAME_BYTES}"
    return None


def folded(name: str) -> str:
    """Return the form in which a file system without case, and with one form of é, compares a name."""
    return unicodedata.normalize("NFKC", name).casefold()
