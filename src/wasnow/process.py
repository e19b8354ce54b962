"""What the process asks of its C library and its threads, before numbers are crunched.

    malloc      large arrays come from the system, zeroed page by page, and go back when freed: for a network that makes
                and drops maps of 20 MB all the time, that is a third of the time. `kept_memory` keeps them at hand.
    OpenMP      threads that wait for the next piece of work spin by default: quick on a machine of one's own, and up to
                ten times slower than sleeping where another process wants the cores. `patient_threads` lets them sleep.

Both are wishes: where the library is another one (musl, macOS, Windows), nothing happens. What the user has set in the
environment stays as it is.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

# glibc's malloc.h
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_NEVER = -1
_LARGEST = 2**31 - 1


def patient_threads() -> None:
    """Let OpenMP's threads sleep while they wait; of any effect only before torch is imported for the first time."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@contextmanager
def kept_memory() -> Iterator[bool]:
    """Freed arrays stay with the process, for the next ones, until the block ends; yields whether that could be had.

    The peak is what it would be otherwise, plus the gaps between arrays; it does not grow with the length of the run.
    At the end everything free goes back to the system.
    """
    libc = _glibc()
    if libc is None or not _tuned(libc):
        yield False
        return
    try:
        yield True
    finally:
        libc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    """The C library of this process, if it is GNU's."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    # musl has some functions of the same names, and they do something else or nothing.
    return libc if hasattr(libc, "gnu_get_libc_version") else None


@cache
def _tuned(libc: ctypes.CDLL) -> bool:
    """Ask once: it is for the whole process, and cannot be taken back."""
    if any(name.startswith("MALLOC_") for name in os.environ) or "GLIBC_TUNABLES" in os.environ:
        return False
    return bool(libc.mallopt(_MMAP_THRESHOLD, _LARGEST) and libc.mallopt(_TRIM_THRESHOLD, _NEVER))
