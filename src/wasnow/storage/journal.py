"""What a run has finished so far, safe against SIGKILL at any moment.

    OUT/.wasnow/
      lock, holder.json   one writer at a time, see `wasnow.storage.lock`
      plan.json           inputs, options and model of the run; a resumed run must have the same
      survey.json         the stretch and the fitted model; a resumed run uses them unchanged
      blocks/000042.npz   one finished block, written atomically
      journal.jsonl       one line per finished block, with the CRC of its file
      finals/             results under construction

A block counts as finished only if its journal line is complete and its file has the CRC of that line; all others are
computed again. This module does not know what the arrays of a block are.
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wasnow.errors import OutputError, ResumeRefused, redacted
from wasnow.storage.atomic import append_line, output_errors, sync_file, sync_folder, write_atomically
from wasnow.storage.lock import Holder, current_holder, locked_folder
from wasnow.storage.ownership import STATE_FOLDER

WORKSPACE = STATE_FOLDER
PLAN, SURVEY, JOURNAL, TOTAL = "plan.json", "survey.json", "journal.jsonl", "total.json"

Arrays = dict[str, NDArray[Any]]
BlockOutcome = Literal["done", "empty", "failed"]


class BlockRecord(BaseModel):
    """The outcome of one block of the result grid."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    block: int
    row: int
    col: int
    height: int
    width: int
    outcome: BlockOutcome
    seconds: float
    not_processed: dict[str, int] = Field(default_factory=dict, description="reason -> pixels")
    error: str | None = None
    tiles_reused: int = Field(default=0, description="tiles predicted from cached features")
    tiles_encoded: int = Field(default=0, description="tiles encoded while features were cached")


class Workspace:
    """The hidden folder of a run inside its result folder; `workspace` opens one.

    Attributes:
        output: the result folder.
        folder: the hidden folder.
        finals: where results are made before they are renamed.
        done: the finished blocks, by number.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output / WORKSPACE
        self.finals = self.folder / "finals"
        self._blocks = self.folder / "blocks"
        self._journal = self.folder / JOURNAL
        self.done: dict[int, BlockRecord] = {}
        self._crcs: dict[int, int] = {}

    # --- the plan -----------------------------------------------------------------------------------------------

    @property
    def plan(self) -> dict[str, Any] | None:
        """The identity of the run in this folder; None in a fresh folder."""
        return self._read_json(PLAN)

    def begin(self, plan: Mapping[str, Any]) -> bool:
        """Start a run or resume it; return True if it is resumed.

        Args:
            plan: the identity of the run, as JSON values.

        Raises:
            ResumeRefused: the folder holds a run with another identity; names every difference.
        """
        wanted = json.loads(json.dumps(plan))
        found = self.plan
        if found is not None and found != wanted:
            raise ResumeRefused(self.output, differences(found, wanted))
        if found is None:
            self._write_json(PLAN, wanted)
            return False
        self._load_journal()
        return True

    def prepare(self) -> None:
        """Create the folders for blocks and results; delete results that an earlier run did not complete."""
        with output_errors(self.finals):
            self._blocks.mkdir(exist_ok=True)
            shutil.rmtree(self.finals, ignore_errors=True)
            self.finals.mkdir(exist_ok=True)

    def remember(self, name: str, value: Mapping[str, Any]) -> None:
        """Store JSON values under a name, atomically."""
        self._write_json(f"{name}.json", value)

    def recall(self, name: str) -> dict[str, Any] | None:
        """Return the values stored under a name, floats bit for bit; None if there are none, or the file is damaged."""
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
        """Store how many blocks the run has, so that other processes can report its progress."""
        self._write_json(TOTAL, {"blocks": blocks})

    # --- blocks -------------------------------------------------------------------------------------------------

    def add(self, record: BlockRecord, arrays: Arrays) -> None:
        """Make a finished block durable: its file first, then its journal line.

        Args:
            record: the outcome of the block.
            arrays: its arrays by name; empty for a block without pixels to compare.

        Raises:
            DiskFull, OutputError: it cannot be written; blocks finished before stay.
        """
        if record.error is not None:
            record = record.model_copy(update={"error": redacted(record.error)})
        crc = 0
        if arrays:
            data = _packed(arrays)
            crc = zlib.crc32(data)
            write_atomically(self._block_path(record.block), data)
        append_line(self._journal, json.dumps({"crc": crc, "record": record.model_dump()}).encode())
        self.done[record.block] = record
        self._crcs[record.block] = crc

    def load(self, block: int) -> Arrays | None:
        """Return the arrays of a finished block; None for a block without arrays (nothing to compare there).

        Raises:
            OutputError: the file changed since it was written.
        """
        if not self._crcs[block]:
            return None
        path = self._block_path(block)
        data = path.read_bytes() if path.exists() else b""
        if zlib.crc32(data) != self._crcs[block]:
            raise OutputError(f"{path} was changed since it was written; run the same command again to recompute it")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return dict(arrays)

    def _block_path(self, block: int) -> Path:
        return self._blocks / f"{block:06d}.npz"

    def _load_journal(self) -> None:
        self.done, self._crcs = {}, {}
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
            self.done[record.block], self._crcs[record.block] = record, crc

    def forget_failed(self) -> None:
        """Mark blocks that could not be read as not finished, so that they are tried again."""
        for block in [block for block, record in self.done.items() if record.outcome == "failed"]:
            del self.done[block], self._crcs[block]

    # --- the end ------------------------------------------------------------------------------------------------

    def publish(self, names: list[str]) -> None:
        """Flush finished files in `finals` to the disk, then rename them into the result folder in this order."""
        for name in names:
            with output_errors(self.output / name):
                sync_file(self.finals / name)
        for name in names:
            with output_errors(self.output / name):
                (self.finals / name).replace(self.output / name)
        with output_errors(self.output):
            sync_folder(self.output)

    def drop_blocks(self) -> None:
        """Delete what only an unfinished run needs."""
        shutil.rmtree(self._blocks, ignore_errors=True)
        shutil.rmtree(self.finals, ignore_errors=True)

    def clear(self) -> None:
        """Delete the state of the run in this folder."""
        for path in (self._blocks, self.finals):
            shutil.rmtree(path, ignore_errors=True)
        for name in (PLAN, SURVEY, JOURNAL, TOTAL):
            (self.folder / name).unlink(missing_ok=True)
        self.done, self._crcs = {}, {}


@contextmanager
def workspace(output: Path) -> Iterator[Workspace]:
    """Open the workspace of a result folder, locked for this process; both folders are created if missing.

    Raises:
        OutputLocked: another process is writing there; names its pid and host.
        OutputError: the folder cannot be created.
    """
    space = Workspace(output)
    with locked_folder(space.folder, output):
        yield space


def current_writer(output: Path) -> Holder | None:
    """Return the process that writes to a result folder now; None if none does. Changes nothing."""
    return current_holder(output / WORKSPACE)


def finished_blocks(output: Path) -> tuple[int, int | None]:
    """Return how many blocks the run in a folder has finished, and of how many (None if unknown). Reads only."""
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


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List every value in which two plans differ: ``tile was 512, is now 256``.

    Args:
        found: the plan on the disk.
        wanted: the plan of this run.
        prefix: put before each name.
    """
    result = []
    for key in sorted({*found, *wanted}):
        old, new = found.get(key), wanted.get(key)
        name = f"{prefix}{key}"
        if isinstance(old, dict) and isinstance(new, dict):
            result += differences(old, new, f"{name} ")
        elif old != new:
            result.append(f"{name} was {_short(old)}, is now {_short(new)}")
    return result


UNCOMPRESSED = frozenset({"confidence"})
"""Arrays that are stored without compression: compressing probabilities by half took a tenth of a network's time."""


def _packed(arrays: Arrays) -> bytes:
    """Return an ``.npz``, equal for equal arrays; fast rather than small, because it is kept for one run only."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            method = zipfile.ZIP_STORED if name in UNCOMPRESSED else zipfile.ZIP_DEFLATED
            archive.writestr(info, member.getvalue(), method, compresslevel=1)
    return buffer.getvalue()


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:24]}...{text[-8:]}"
