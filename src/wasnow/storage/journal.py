"""What a run has finished so far, safe against SIGKILL at any moment.

    OUT/.wasnow/
      lock, holder.json   one writer at a time: the system's lock; who holds it, with a sign of life now and then
      plan.json           what this run is: inputs, options, model; a resume must match it
      survey.json         the stretch and the fitted model, so a resumed run uses the very same
      blocks/000042.npz   one finished block, written aside and renamed
      journal.jsonl       one line per finished block, with the CRC of its file
      finals/             results under construction

A block counts only when its journal line is whole and its file has the CRC that the line names; anything else is
computed again. Nothing here knows what a block holds.
"""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import socket
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from pydantic import ValidationError

from wasnow.errors import OutputError, OutputLocked, ResumeRefused
from wasnow.output.record import BlockRecord
from wasnow.raster.write import failures_named

WORKSPACE = ".wasnow"
LOCK, HOLDER = "lock", "holder.json"
JOURNAL, TOTAL = "journal.jsonl", "total.json"

BEAT_S = 5.0
"""How often a writer shows that it lives."""
WATCHED_S = 12.0
"""How long a writer on another machine is watched before it counts as dead."""
LONG_DEAD_S = 120.0
"""One that showed nothing for so long is not watched at all."""

Arrays = dict[str, NDArray[Any]]


class Workspace:
    """The hidden folder of a run inside its result folder; use `workspace` to open one."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output / WORKSPACE
        self.finals = self.folder / "finals"
        self._blocks = self.folder / "blocks"
        self._journal = self.folder / JOURNAL
        self.done: dict[int, BlockRecord] = {}
        self._sums: dict[int, int] = {}

    # --- the plan -----------------------------------------------------------------------------------------------

    @property
    def plan(self) -> dict[str, Any] | None:
        """What the run in this folder is, as it was begun; None in a fresh folder."""
        return self._read_json("plan.json")

    def begin(self, plan: Mapping[str, Any]) -> bool:
        """Start this plan or go on with it; True if anything of it was there already.

        Raises:
            ResumeRefused: the folder holds a run of another plan; names every difference.
        """
        wanted = json.loads(json.dumps(plan))
        found = self.plan
        if found is not None and found != wanted:
            raise ResumeRefused(self.output, differences(found, wanted))
        if found is None:
            self._write_json("plan.json", wanted)
            return False
        self._load_journal()
        return True

    def prepare(self) -> None:
        """Make room for blocks, and drop results that were under construction when an earlier run ended."""
        with failures_named(self.finals):
            self._blocks.mkdir(exist_ok=True)
            shutil.rmtree(self.finals, ignore_errors=True)
            self.finals.mkdir(exist_ok=True)

    def remember(self, name: str, value: Mapping[str, Any]) -> None:
        """Keep JSON values under a name, atomically."""
        self._write_json(f"{name}.json", value)

    def recall(self, name: str) -> dict[str, Any] | None:
        """What was remembered under a name, floats bit for bit; None if nothing (or nothing whole) is there."""
        return self._read_json(f"{name}.json")

    def _write_json(self, name: str, value: Mapping[str, Any]) -> None:
        write_atomically(self.folder / name, json.dumps(value, indent=1).encode())

    def _read_json(self, name: str) -> dict[str, Any] | None:
        try:
            value = json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def expect(self, blocks: int) -> None:
        """Say how many blocks the run has, for whoever wants to know how far it is."""
        self._write_json(TOTAL, {"blocks": blocks})

    # --- blocks -------------------------------------------------------------------------------------------------

    def add(self, record: BlockRecord, arrays: Arrays) -> None:
        """Make a finished block durable: its file first, then its journal line.

        Raises:
            DiskFull, OutputError: it cannot be written; what was finished before stays.
        """
        crc = 0
        if arrays:
            data = _packed(arrays)
            crc = zlib.crc32(data)
            write_atomically(self._block_path(record.block), data)
        line = json.dumps({"crc": crc, "record": record.model_dump()}) + "\n"
        with failures_named(self._journal), self._journal.open("ab") as journal:
            # A line torn by a kill has no end: start anew behind it, so that it spoils only itself.
            journal.write(line.encode() if self._ends_whole(journal.tell()) else b"\n" + line.encode())
            journal.flush()
            os.fsync(journal.fileno())
        self.done[record.block] = record
        self._sums[record.block] = crc

    def load(self, block: int) -> Arrays | None:
        """The arrays of a finished block; None for a block that has none (nothing to compare there).

        Raises:
            OutputError: the file changed since it was written.
        """
        if not self._sums[block]:
            return None
        path = self._block_path(block)
        data = path.read_bytes() if path.exists() else b""
        if zlib.crc32(data) != self._sums[block]:
            raise OutputError(f"{path} was changed since it was written; run the same command again to recompute it")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return dict(arrays)

    def _block_path(self, block: int) -> Path:
        return self._blocks / f"{block:06d}.npz"

    def _ends_whole(self, size: int) -> bool:
        if size == 0:
            return True
        with self._journal.open("rb") as journal:
            journal.seek(size - 1)
            return journal.read(1) == b"\n"

    def _load_journal(self) -> None:
        self.done, self._sums = {}, {}
        if not self._journal.exists():
            return
        for line in self._journal.read_bytes().splitlines():
            try:
                entry = json.loads(line)
                record, crc = BlockRecord.model_validate(entry["record"]), int(entry["crc"])
            except (ValueError, KeyError, TypeError, ValidationError):
                continue
            path = self._block_path(record.block)
            if crc and (not path.exists() or zlib.crc32(path.read_bytes()) != crc):
                continue
            self.done[record.block], self._sums[record.block] = record, crc

    def forget_failed(self) -> None:
        """Let blocks with damaged pixels be tried again."""
        for block in [block for block, record in self.done.items() if record.outcome == "failed"]:
            del self.done[block], self._sums[block]

    # --- the end ------------------------------------------------------------------------------------------------

    def publish(self, names: list[str]) -> None:
        """Rename finished files from `finals` into the result folder, in this order, once all are on the disk."""
        for name in names:
            with failures_named(self.output / name):
                sync_file(self.finals / name)
        for name in names:
            with failures_named(self.output / name):
                (self.finals / name).replace(self.output / name)
        with failures_named(self.output):
            sync_folder(self.output)

    def drop_blocks(self) -> None:
        """Remove what only an unfinished run needs."""
        shutil.rmtree(self._blocks, ignore_errors=True)
        shutil.rmtree(self.finals, ignore_errors=True)

    def clear(self) -> None:
        """Forget the run in this folder."""
        for path in (self._blocks, self.finals):
            shutil.rmtree(path, ignore_errors=True)
        for name in ("plan.json", "survey.json", JOURNAL, TOTAL):
            (self.folder / name).unlink(missing_ok=True)
        self.done, self._sums = {}, {}


@contextmanager
def workspace(output: Path) -> Iterator[Workspace]:
    """The workspace of a result folder, locked for this process.

    Raises:
        OutputLocked: another process is writing there; names its pid and host.
        OutputError: the folder cannot be made.
    """
    space = Workspace(output)
    try:
        space.folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise OutputError(f"{output} is a file; choose a folder for the results") from None
    except OSError as error:
        raise OutputError(f"{output} cannot be made: {error.strerror}; choose another output folder") from None
    lock = FileLock(space.folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise OutputLocked(_why_locked(output, Holder.of(space.folder))) from None
    except OSError as error:
        if error.errno in _NO_LOCKS:
            reason = f"its file system has no locks ({error.strerror}), and two runs could spoil each other's results"
            raise OutputError(f"{output}: {reason}; choose a folder on another file system") from None
        raise OutputError(f"{output} may not be written ({error.strerror}); choose another output folder") from None
    try:
        # The operating system drops the lock with the process that held it, so a killed run leaves none behind. A name
        # that it left is that of a dead process, unless the lock of another machine does not reach this one.
        if (left := Holder.of(space.folder)) is not None and left.host != socket.gethostname():
            _refuse_if_alive(output, left)
        with _signing(space.folder):
            yield space
    finally:
        lock.release()


@dataclass(frozen=True, slots=True)
class Holder:
    """Who writes to a result folder, as it said itself."""

    pid: int
    host: str
    since: str

    @classmethod
    def of(cls, folder: Path) -> Holder | None:
        """The one whose name lies in a workspace folder; None where there is none, or none that can be read."""
        try:
            found = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
            return cls(int(found["pid"]), str(found["host"]), str(found["since"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"

    @property
    def here(self) -> bool:
        """Whether it is, or was, a process of this machine."""
        return self.host == socket.gethostname()

    @property
    def ended(self) -> bool:
        """Whether that process is known to be gone; False where nobody here can tell."""
        if not self.here or self.pid <= 0 or os.name == "nt":
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            return False
        return False


_NO_LOCKS = frozenset(
    code for name in ("ENOSYS", "ENOLCK", "ENOTSUP", "EOPNOTSUPP") if (code := getattr(errno, name, None)) is not None
)


def how_far(output: Path) -> tuple[int, int | None]:
    """Blocks that the run in a folder has finished, and how many it has; None where it does not say. Reads only."""
    folder = output / WORKSPACE
    done: set[int] = set()
    with suppress(OSError), (folder / JOURNAL).open("rb") as journal:
        for line in journal:
            with suppress(ValueError, KeyError, TypeError):
                done.add(int(json.loads(line)["record"]["block"]))
    try:
        total = int(json.loads((folder / TOTAL).read_text(encoding="utf-8"))["blocks"])
    except (OSError, ValueError, KeyError, TypeError):
        return len(done), None
    return len(done), total


def _why_locked(output: Path, holder: Holder | None) -> str:
    """What is known of who holds the lock, and what to do about it."""
    if holder is None:
        return f"{output} is being written by another process; wait for it, or choose another output folder"
    if not holder.here:
        return (
            f"{output} is being written by {holder}, and this is {socket.gethostname()}: wait for it, stop it there, "
            "or choose another output folder"
        )
    if holder.ended:
        return (
            f"{output} is locked by {holder}, which has ended, but a process that it started lives on and keeps the "
            f"lock: end that one (fuser {output / WORKSPACE / LOCK} names it), or choose another output folder"
        )
    return f"{output} is being written by {holder}; wait for it, stop it, or choose another output folder"


def _refuse_if_alive(output: Path, left: Holder) -> None:
    """Watch whether a writer of another machine still signs; on many network disks its lock is not seen from here.

    Raises:
        OutputLocked: it does.
    """
    folder = output / WORKSPACE
    first = _signed_at(folder / HOLDER)
    if first is None:
        return
    # Both times are those of whoever keeps the disk, so clocks of two machines need not agree.
    with suppress(OSError):
        os.utime(folder / LOCK)
    now = _signed_at(folder / LOCK)
    if now is not None and now - first > LONG_DEAD_S * 1e9:
        return
    until = time.monotonic() + WATCHED_S
    while time.monotonic() < until:
        time.sleep(min(0.5, WATCHED_S / 4))
        signed = _signed_at(folder / HOLDER)
        if signed is None:
            return
        if signed != first:
            raise OutputLocked(_why_locked(output, left))


def _signed_at(path: Path) -> int | None:
    """When a file was last touched, in nanoseconds; opened first, so that a network disk looks anew."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return None


@contextmanager
def _signing(folder: Path) -> Iterator[None]:
    """This process named as the holder, with a sign of life every `BEAT_S` seconds, until the block ends."""
    path = folder / HOLDER
    now = datetime.now(UTC).isoformat(timespec="seconds")
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
    write_atomically(path, json.dumps(holder).encode())
    over = threading.Event()

    def sign() -> None:
        while not over.wait(BEAT_S):
            with suppress(OSError):
                os.utime(path)

    signing = threading.Thread(target=sign, name="wasnow-sign-of-life", daemon=True)
    signing.start()
    try:
        yield
    finally:
        over.set()
        signing.join()
        with suppress(OSError):
            path.unlink(missing_ok=True)


def under_way(output: Path) -> Holder | None:
    """Who writes to a result folder right now; None where nobody does, or nobody can tell. Changes nothing."""
    lock = output / WORKSPACE / LOCK
    if not lock.is_file():
        return None
    holder = Holder.of(output / WORKSPACE)
    if holder is None:
        return None
    try:
        with FileLock(lock).acquire(timeout=0):
            return None
    except Timeout:
        return holder
    except OSError:
        return None if holder.ended else holder


def write_atomically(path: Path, data: bytes) -> None:
    """Write aside, flush to disk, rename: the file is there whole or not at all.

    Raises:
        DiskFull, OutputError: it cannot be written; nothing half-written stays.
    """
    aside = path.with_name(f".{path.name}.part")
    with failures_named(path):
        try:
            with aside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except OSError:
            aside.unlink(missing_ok=True)
            raise


def sync_file(path: Path) -> None:
    """Make what was written to a file durable, whoever wrote it."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Every value in which two plans differ: ``tile was 512, is now 256``."""
    result = []
    for key in sorted({*found, *wanted}):
        old, new = found.get(key), wanted.get(key)
        name = f"{prefix}{key}"
        if isinstance(old, dict) and isinstance(new, dict):
            result += differences(old, new, f"{name} ")
        elif old != new:
            result.append(f"{name} was {_short(old)}, is now {_short(new)}")
    return result


HARDLY_SMALLER = frozenset({"confidence"})
"""Arrays that are kept as they are: to halve probabilities took a tenth of a network's time."""


def _packed(arrays: Arrays) -> bytes:
    """The bytes of an ``.npz``, the same for the same arrays; quick rather than small, since it lives for one run."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            how = zipfile.ZIP_STORED if name in HARDLY_SMALLER else zipfile.ZIP_DEFLATED
            archive.writestr(info, member.getvalue(), how, compresslevel=1)
    return buffer.getvalue()


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:24]}...{text[-8:]}"
