"""One writer for each folder: a lock of the operating system, and a file that says who holds it.

    FOLDER/lock          locked by the process that writes; the system releases it when that process ends
    FOLDER/holder.json   process id, host and start of the holder; touched every few seconds while it runs

Some network disks do not share locks between machines. A holder on another machine therefore counts as running while
its ``holder.json`` is still being touched.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from wasnow.errors import OutputError, OutputLocked
from wasnow.storage.atomic import write_atomically

LOCK, HOLDER = "lock", "holder.json"

HEARTBEAT_S = 5.0
"""Interval at which a holder touches its file."""
WATCH_S = 12.0
"""How long a holder on another machine is watched before it counts as ended."""
STALE_S = 120.0
"""A holder whose file is older than this counts as ended at once."""

_NO_LOCKS = frozenset(
    code for name in ("ENOSYS", "ENOLCK", "ENOTSUP", "EOPNOTSUPP") if (code := getattr(errno, name, None)) is not None
)


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds the lock of a folder, as it described itself."""

    pid: int
    host: str
    since: str

    @classmethod
    def of(cls, folder: Path) -> Holder | None:
        """Return the holder named in a lock folder; None if there is none, or its file cannot be read."""
        try:
            found = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
            return cls(int(found["pid"]), str(found["host"]), str(found["since"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"

    @property
    def here(self) -> bool:
        """Whether it runs, or ran, on this machine."""
        return self.host == socket.gethostname()

    @property
    def ended(self) -> bool:
        """Whether that process is known to have ended; False if this machine cannot know."""
        if not self.here or self.pid <= 0 or os.name == "nt":
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            return False
        return False


@contextmanager
def locked_folder(folder: Path, output: Path) -> Iterator[None]:
    """Create a lock folder if missing and hold its lock until the block ends.

    Args:
        folder: holds the lock and the name of its holder.
        output: the folder of the user that the lock protects; error messages name it.

    Raises:
        OutputLocked: another process holds the lock; names its pid and host.
        OutputError: the folder cannot be created or has no locks.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise OutputError(f"{output} is a file; choose a folder for the results") from None
    except OSError as error:
        raise OutputError(f"{output} cannot be created: {error.strerror}; choose another output folder") from None
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise OutputLocked(_explain_lock(folder, output, Holder.of(folder))) from None
    except OSError as error:
        if error.errno in _NO_LOCKS:
            reason = f"its file system has no locks ({error.strerror}), and two runs could overwrite each other"
            raise OutputError(f"{output}: {reason}; choose a folder on another file system") from None
        raise OutputError(f"{output} cannot be written ({error.strerror}); choose another output folder") from None
    try:
        # The system releases the lock of a killed process, so a name that is still there belongs to a dead process,
        # unless the lock of another machine is not visible here.
        if (left := Holder.of(folder)) is not None and not left.here:
            _refuse_if_running(folder, output, left)
        with _heartbeat(folder):
            yield
    finally:
        lock.release()


def current_holder(folder: Path) -> Holder | None:
    """Return who holds the lock of a folder now; None if no process does, or it is unknown. Changes nothing."""
    lock = folder / LOCK
    if not lock.is_file():
        return None
    holder = Holder.of(folder)
    if holder is None:
        return None
    try:
        with FileLock(lock).acquire(timeout=0):
            return None
    except Timeout:
        return holder
    except OSError:
        return None if holder.ended else holder


def _explain_lock(folder: Path, output: Path, holder: Holder | None) -> str:
    """Say what is known about the holder, and what to do."""
    if holder is None:
        return f"{output} is being written by another process; wait for it, or choose another output folder"
    if not holder.here:
        return (
            f"{output} is being written by {holder}, and this is {socket.gethostname()}: wait for it, stop it there, "
            "or choose another output folder"
        )
    if holder.ended:
        return (
            f"{output} is locked by {holder}, which has ended, but a process that it started still runs and holds the "
            f"lock: stop that one (fuser {folder / LOCK} names it), or choose another output folder"
        )
    return f"{output} is being written by {holder}; wait for it, stop it, or choose another output folder"


def _refuse_if_running(folder: Path, output: Path, left: Holder) -> None:
    """Watch whether a holder on another machine still touches its file.

    Args:
        folder: the lock folder.
        output: the folder that error messages name.
        left: the holder that ``holder.json`` names.

    Raises:
        OutputLocked: it does.
    """
    first = _touched_ns(folder / HOLDER)
    if first is None:
        return
    # Both times come from the machine that owns the disk, so the clocks of the two machines need not agree.
    with suppress(OSError):
        os.utime(folder / LOCK)
    now = _touched_ns(folder / LOCK)
    if now is not None and now - first > STALE_S * 1e9:
        return
    until = time.monotonic() + WATCH_S
    while time.monotonic() < until:
        time.sleep(min(0.5, WATCH_S / 4))
        touched = _touched_ns(folder / HOLDER)
        if touched is None:
            return
        if touched != first:
            raise OutputLocked(_explain_lock(folder, output, left))


def _touched_ns(path: Path) -> int | None:
    """Return the modification time of a file, opened first so that a network disk does not answer from a cache."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return None


@contextmanager
def _heartbeat(folder: Path) -> Iterator[None]:
    """Name this process as the holder and touch that file every `HEARTBEAT_S` seconds until the block ends."""
    path = folder / HOLDER
    now = datetime.now(UTC).isoformat(timespec="seconds")
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
    write_atomically(path, json.dumps(holder).encode())
    over = threading.Event()

    def touch() -> None:
        while not over.wait(HEARTBEAT_S):
            with suppress(OSError):
                os.utime(path)

    thread = threading.Thread(target=touch, name="wasnow-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with suppress(OSError):
            path.unlink(missing_ok=True)
