"""What a run has finished so far, safe against SIGKILL at any moment.

    OUT/.wasnow/
      lock, holder.json   one writer at a time
      plan.json           what this run is: inputs, options, model; a resume must match it
      survey.json         the stretch and the fitted model, so a resumed run uses the very same
      blocks/000042.npz   one finished block, written aside and renamed
      journal.jsonl       one line per finished block, with the CRC of its file
      finals/             results under construction

A block counts only when its journal line is whole and its file has the CRC that the line names; anything else is
computed again. Nothing here knows what a block holds.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from pydantic import ValidationError

from wasnow.errors import OutputError, OutputLocked, ResumeRefused
from wasnow.raster.write import failures_named
from wasnow.record import BlockRecord

WORKSPACE = ".wasnow"
Arrays = dict[str, NDArray[Any]]


class Workspace:
    """The hidden folder of a run inside its result folder; use `workspace` to open one."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output / WORKSPACE
        self.finals = self.folder / "finals"
        self._blocks = self.folder / "blocks"
        self._journal = self.folder / "journal.jsonl"
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
        self._blocks.mkdir(exist_ok=True)
        shutil.rmtree(self.finals, ignore_errors=True)
        self.finals.mkdir()

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
        """Rename finished files from `finals` into the result folder, in this order."""
        for name in names:
            with failures_named(self.output / name):
                (self.finals / name).replace(self.output / name)
        sync_folder(self.output)

    def drop_blocks(self) -> None:
        """Remove what only an unfinished run needs."""
        shutil.rmtree(self._blocks, ignore_errors=True)
        shutil.rmtree(self.finals, ignore_errors=True)

    def clear(self) -> None:
        """Forget the run in this folder."""
        for path in (self._blocks, self.finals):
            shutil.rmtree(path, ignore_errors=True)
        for name in ("plan.json", "survey.json", "journal.jsonl"):
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
    lock = FileLock(space.folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise OutputLocked(f"{output} is being written by {_holder(space.folder)}; wait, or choose another") from None
    except OSError as error:
        raise OutputError(f"{output} may not be written ({error.strerror}); choose another output folder") from None
    try:
        # The operating system drops the lock with the process that held it, so a killed run leaves none behind.
        now = datetime.now(UTC).isoformat(timespec="seconds")
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
        with failures_named(space.folder / "holder.json"):
            write_atomically(space.folder / "holder.json", json.dumps(holder).encode())
        yield space
        (space.folder / "holder.json").unlink(missing_ok=True)
    finally:
        lock.release()


def _holder(folder: Path) -> str:
    try:
        holder = json.loads((folder / "holder.json").read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError):
        return "another process"


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


def _packed(arrays: Arrays) -> bytes:
    """The bytes of an ``.npz``, the same for the same arrays; quick rather than small, since it lives for one run."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(info, member.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=1)
    return buffer.getvalue()


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:24]}...{text[-8:]}"
