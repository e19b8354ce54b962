"""Mutations of valid inputs, reproducible from a seed.

flip a bit | bytes of an awkward number | cut | leave out | repeat | insert or overwrite a word | splice two seeds
"""

from __future__ import annotations

import random
from collections.abc import Sequence

AWKWARD = (
    *(0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF),
    *(2**40, 2**63 - 1, 2**64 - 1),
)

WORDS = (
    b"{", b"}", b"[", b"]", b'"', b"'", b":", b",", b"\n", b"\r", b"\0", b"\\", b"<", b"&", b"null", b"true", b"NaN",
    b"-1", b"1e999", b"99999999999999999999", b"../", b"/dev/zero", b"\\u0000", b"\\ud800", b"\xff\xfe",
    b"\xef\xbb\xbf",
    "\u202e".encode(), "😀".encode(), b"!!python/object/apply:os.system [id]", b"&a [*a, *a]", b"- ", b"? ",
    b"*a", b"format", b"record", b"block", b"crc", b"wasnow", b"digest", b"dtype", b"shape",
    b"data_offsets", b"__metadata__", b"F32", b"BOOL", b"extends", b"stages", b"epochs", b"OVERVIEW_FILE",
    b"<VRTDataset>", b"=1+1",
    b"[" * 500, b"{" * 500,
)  # fmt: skip
"""Fragments that parsers often handle wrongly."""


def mutated(seeds: Sequence[bytes], rng: random.Random) -> bytes:
    """Return one seed input with one to eight changes."""
    content = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5, 8))):
        content = _changed(content, seeds, rng)
    return bytes(content)


def _changed(content: bytearray, seeds: Sequence[bytes], rng: random.Random) -> bytearray:
    size = len(content)
    # Half of all changes are in the first 600 bytes, because headers matter most.
    at = rng.randrange(min(size, 600) if rng.random() < 0.5 else size) if size else 0
    kind = rng.randrange(9)
    if kind == 0 and size:
        content[at] ^= 1 << rng.randrange(8)
    elif kind == 1 and size:
        content[at] = rng.randrange(256)
    elif kind == 2 and size:
        width = rng.choice((1, 2, 4, 8))
        number = rng.choice(AWKWARD) % 256**width
        content[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))
    elif kind == 3:
        del content[at:]
    elif kind == 4:
        del content[at : at + rng.randrange(1, 64)]
    elif kind == 5:
        piece = content[at : at + rng.randrange(1, 256)]
        content[at:at] = piece * rng.choice((1, 2, 50))
    elif kind == 6:
        content[at:at] = rng.choice(WORDS)
    elif kind == 7:
        word = rng.choice(WORDS)
        content[at : at + len(word)] = word
    else:
        other = rng.choice(seeds)
        cut = rng.randrange(len(other) + 1)
        content[at:] = other[cut:]
    return content
