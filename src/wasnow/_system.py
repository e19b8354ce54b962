"""Settings of this process that depend on the operating system: the heap, threads, signals, memory use.

    heap       glibc returns large arrays to the system when they are freed and zeroes them page by page when they are
               allocated again. For a network that allocates maps of 20 MB all the time, this takes a third of the run
               time. `retained_heap` keeps freed memory in the process.
    OpenMP     threads that wait for work spin by default. That is fast on an idle machine, and up to ten times slower
               than sleeping where another process needs the cores. `passive_thread_waiting` lets them sleep.
    workers    `initialise_worker` does both in a worker process, leaves Ctrl-C to the parent process, and ends the
               worker when its parent ends.
    memory     `peak_memory_bytes` where the system reports it.
    output     `tolerate_unencodable_output` prints "?" for characters that the encoding of a terminal or pipe lacks.
    data       `ignore_foreign_data_paths` unsets PROJ_LIB, PROJ_DATA and GDAL_DATA of other programs: their databases
               have other versions than the GDAL of rasterio's wheel, which brings its own.

The first two are optimisations: with another C library (musl, macOS, Windows) they do nothing. Environment variables
that the user has set are respected.
"""

from __future__ import annotations

import ctypes
import io
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_DATA_PATHS = (
    ("PROJ_LIB", "proj_data", "proj.db"),
    ("PROJ_DATA", "proj_data", "proj.db"),
    ("GDAL_DATA", "gdal_data", "gdalvrt.xsd"),
)
"""Variables, the folder of rasterio's wheel with the same data, and a file in it."""

# glibc's malloc.h
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_NEVER = -1
_LARGEST = 2**31 - 1


def passive_thread_waiting() -> None:
    """Let OpenMP's threads sleep while they wait; effective only before torch is imported for the first time."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@contextmanager
def retained_heap() -> Iterator[bool]:
    """Keep freed arrays in the process until the block ends; yields whether the system supports it.

    The peak memory grows by the gaps between arrays, but not with the length of the run. At the end all free memory is
    returned to the system.
    """
    if not retain_heap():
        yield False
        return
    try:
        yield True
    finally:
        release_heap()


def retain_heap(ignoring: Collection[str] = ()) -> bool:
    """Keep freed arrays in the process from now on; returns False where the system does not support it.

    Args:
        ignoring: environment variables that were not set by the user, so that they do not prevent it.
    """
    libc = _glibc()
    return libc is not None and _set_thresholds(libc, frozenset(ignoring))


def release_heap() -> None:
    """Return all free memory to the system."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def initialise_worker() -> None:
    """Make this process a worker of the process that started it, for the rest of its life."""
    passive_thread_waiting()
    retain_heap()
    # A terminal sends Ctrl-C to all processes at once; the parent process decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is not None:

        def exit_with_parent() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=exit_with_parent, name="wasnow-parent", daemon=True).start()


@contextmanager
def blocked_interrupts() -> Iterator[None]:
    """Block SIGINT in processes that are started inside, so that Ctrl-C cannot reach them before they ignore it.

    Does nothing on systems without signal masks (Windows).
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM: batch systems send it before they kill a process.

    Does nothing outside the main thread, where the embedding program handles signals.
    """

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def peak_memory_bytes() -> int | None:
    """Return the largest resident memory of this process so far; None where the system does not report it."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024


def tolerate_unencodable_output() -> None:
    """Print "?" instead of failing for characters that the encoding of stdout or stderr lacks (cp1252, gbk, ascii)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


def ignore_foreign_data_paths() -> tuple[str, ...]:
    """Unset variables that point GDAL or PROJ to data of another installation; returns their names.

    Only effective before PROJ is first used. Without data inside the rasterio package (conda, system packages) the
    variables are left as they are, because that rasterio needs them.
    """
    spec = find_spec("rasterio")
    if spec is None or spec.origin is None:
        return ()
    package = Path(spec.origin).parent
    ignored = []
    for name, folder, needed in _DATA_PATHS:
        own = package / folder
        if name in os.environ and (own / needed).is_file() and Path(os.environ[name]).resolve() != own.resolve():
            del os.environ[name]
            ignored.append(name)
    return tuple(ignored)


@cache
def _glibc() -> ctypes.CDLL | None:
    """The C library of this process, if it is GNU's."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    # musl has some functions of the same names that behave differently.
    return libc if hasattr(libc, "gnu_get_libc_version") else None


@cache
def _set_thresholds(libc: ctypes.CDLL, ignoring: frozenset[str]) -> bool:
    """Cached, because the setting holds for the whole process and cannot be undone."""
    own = {name for name in os.environ if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"}
    if own - ignoring:
        return False
    return bool(libc.mallopt(_MMAP_THRESHOLD, _LARGEST) and libc.mallopt(_TRIM_THRESHOLD, _NEVER))
