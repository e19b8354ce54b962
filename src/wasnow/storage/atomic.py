"""Write files so that they are complete or absent, and report failed writes in one line.

atomic_path(path)      yields a temporary path beside it; flushed and renamed when the block succeeds
write_atomically       the same for bytes that are already in memory
append_line            one durable line at the end of a journal
output_errors(path)    turns OSError (and the errors of a library) into DiskFull or OutputError
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wasnow.errors import DiskFull, OutputError

NEARLY_FULL_BYTES = 2**24
"""A write that failed without a reason is blamed on the disk if it has less free space than this."""


@contextmanager
def atomic_path(path: Path, *, durable: bool = True, shared: bool = False) -> Iterator[Path]:
    """Yield a temporary path in the same folder and rename it to ``path`` when the block ends without an error.

    After an error the temporary file is removed and ``path`` is unchanged.

    Args:
        path: the file to create or replace; its folder must exist.
        durable: flush the file to the disk before the rename. Caches that check a digest on reading do without.
        shared: other processes or threads may write the same path at the same time, so the temporary name is random.
            Otherwise it is always the same, and the next writer replaces what a killed one left.
    """
    unique = f".{secrets.token_hex(6)}" if shared else ""
    temporary = path.with_name(f".{path.name}{unique}.part")
    try:
        yield temporary
        if durable:
            sync_file(temporary)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, data: bytes, *, durable: bool = True, shared: bool = False) -> None:
    """Write a file so that it is complete or absent.

    Args:
        path: the file to create or replace; its folder must exist.
        data: its content.
        durable: see `atomic_path`.
        shared: see `atomic_path`.

    Raises:
        DiskFull, OutputError: it cannot be written; ``path`` is unchanged.
    """
    with output_errors(path), atomic_path(path, durable=durable, shared=shared) as temporary:
        temporary.write_bytes(data)


def append_line(path: Path, line: bytes, *, durable: bool = True) -> None:
    """Append a line to a journal.

    A line that a killed process left incomplete stays alone on its line, so readers can skip it.

    Args:
        path: the journal; created if missing.
        line: without its line end.
        durable: flush it to the disk; a journal whose loss costs only time does without.

    Raises:
        DiskFull, OutputError: it cannot be written.
    """
    with output_errors(path), path.open("ab") as journal:
        size = journal.tell()
        separator = b"" if size == 0 or _last_byte(path, size) == b"\n" else b"\n"
        journal.write(separator + line + b"\n")
        journal.flush()
        if durable:
            os.fsync(journal.fileno())


def _last_byte(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(size - 1)
        return file.read(1)


def sync_file(path: Path) -> None:
    """Flush a file to the disk, whichever library wrote it."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable, on systems that can open folders."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def output_errors(path: Path, *also: type[BaseException]) -> Iterator[None]:
    """Turn a failed write into `DiskFull` or `OutputError` that names the file.

    Args:
        path: the file that is being written.
        also: error classes of a library, converted like OSError.
    """
    kinds: tuple[type[BaseException], ...] = (OSError, *also)
    try:
        yield
    except kinds as error:
        raise as_output_error(path, error) from error


def as_output_error(path: Path, error: BaseException) -> OutputError:
    """Return `DiskFull` if the disk is full, else `OutputError`, with the advice that helps."""
    text = " ".join(str(error.__cause__ or error).split())
    # GDAL's own errors also have an attribute errno, with another meaning.
    number = error.errno if isinstance(error, OSError) else None
    full = number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text
    if not full and number is None:
        with suppress(OSError):
            # GDAL does not say why a write failed; little free space is the likeliest reason.
            full = shutil.disk_usage(path.parent).free < NEARLY_FULL_BYTES
    if full:
        return DiskFull(f"{path}: no space left on the disk; free some and run the same command again to go on")
    if isinstance(error, PermissionError):
        return OutputError(f"{path}: permission denied; choose another output folder")
    return OutputError(f"{path}: cannot be written: {text}")
