"""What the process asks of its C library and its threads, before numbers are crunched.

    malloc      large arrays come from the system, zeroed page by page, and go back when freed: for a network that makes
                and drops maps of 20 MB all the time, that is a third of the time. `kept_memory` keeps them at hand.
    OpenMP      threads that wait for the next piece of work spin by default: quick on a machine of one's own, and up to
                ten times slower than sleeping where another process wants the cores. `patient_threads` lets them sleep.
    workers     `become_worker` does both in a process that another one started to work for it, leaves Ctrl-C to that
                one, and sees to it that no worker outlives its master.

The first two are wishes: where the library is another one (musl, macOS, Windows), nothing happens. What the user has
set in the environment stays as it is.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Collection, Iterator
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
    if not keep_memory():
        yield False
        return
    try:
        yield True
    finally:
        release_memory()


def keep_memory(despite: Collection[str] = ()) -> bool:
    """Freed arrays stay with the process from now on; False where that cannot be had.

    Args:
        despite: variables of the environment that somebody else than the user has set; they hold nothing up.
    """
    libc = _glibc()
    return libc is not None and _tuned(libc, frozenset(despite))


def release_memory() -> None:
    """Give everything free back to the system."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def become_worker() -> None:
    """Make this process a worker of the one that started it, for all its life."""
    patient_threads()
    keep_memory()
    # A terminal sends Ctrl-C to all processes at once; what it means is for the master to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    master = multiprocessing.parent_process()
    if master is not None:

        def leave_with_the_master() -> None:
            master.join()
            os._exit(1)

        threading.Thread(target=leave_with_the_master, name="wasnow-master", daemon=True).start()


@cache
def _glibc() -> ctypes.CDLL | None:
    """The C library of this process, if it is GNU's."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    # musl has some functions of the same names, and they do something else or nothing.
    return libc if hasattr(libc, "gnu_get_libc_version") else None


@cache
def _tuned(libc: ctypes.CDLL, despite: frozenset[str]) -> bool:
    """Ask once: it is for the whole process, and cannot be taken back."""
    own = {name for name in os.environ if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"}
    if own - despite:
        return False
    return bool(libc.mallopt(_MMAP_THRESHOLD, _LARGEST) and libc.mallopt(_TRIM_THRESHOLD, _NEVER))
