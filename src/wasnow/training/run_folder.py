"""The folder of a training run, safe against SIGKILL at any moment.

    runs/a/
      run.json                what this run is: configuration, data, who selects; a resume must match it
      best.safetensors        checkpoint with the best validation score
      last.safetensors        checkpoint of the end (or of where a run was stopped)
      states/00000120.safetensors   everything a resume needs after 120 steps; the last two are kept
      features/               what a frozen encoder answered, while a stage runs (cache_features)
      log.csv                 a line every few steps          validations.csv    a line for each validation
      pictures/               sample predictions              report.html        all of it as a page

Files are written aside, flushed and renamed. A state that was cut short or damaged is told by its checksum, and the one
before it is used: training is a function of the step, so what is lost is done again and comes out the same.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from wasnow.errors import CheckpointError, OutputError, ResumeRefused
from wasnow.models.checkpoint import BEST, LAST
from wasnow.models.sealed import read_sealed, write_sealed
from wasnow.storage.atomic import output_errors, write_atomically
from wasnow.storage.lock import locked_folder

STATE_FORMAT = 2
KEPT = 2
RUN_NAME, LOG_NAME, VALIDATIONS_NAME, REPORT_NAME = "run.json", "log.csv", "validations.csv", "report.html"
FEATURES_NAME = "features"


@dataclass(frozen=True)
class State:
    """Where a run stands after ``step`` steps.

    Attributes:
        step: steps that are done.
        tensors: ``model/...``, ``average/...``, ``optimizer/...`` by name, without parameters that no stage trains.
        best: the best validation so far, as {score, step}; None before the first.
        seconds: spent in training so far, over all sittings.
        still: digest of the parameters that no stage trains, which a resume must find again; None where all train.
    """

    step: int
    tensors: Mapping[str, Tensor]
    best: Mapping[str, float] | None
    seconds: float
    still: str | None = None

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors under ``name/``."""
        return {key.removeprefix(f"{name}/"): one for key, one in self.tensors.items() if key.startswith(f"{name}/")}


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.states = path / "states"
        self.pictures = path / "pictures"
        self.features = path / FEATURES_NAME

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out of the folder, which is made if need be.

        Raises:
            OutputLocked: another run is writing there.
            OutputError: the folder cannot be made.
        """
        with locked_folder(self.path / ".wasnow", self.path):
            yield

    @property
    def record(self) -> dict[str, Any] | None:
        """What the run in this folder is; None in a fresh folder.

        Raises:
            OutputError: ``run.json`` is there and cannot be read.
        """
        try:
            return dict(json.loads((self.path / RUN_NAME).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, OSError, TypeError) as error:
            raise OutputError(f"{self.path / RUN_NAME} cannot be read ({error}); choose another folder") from None

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Write ``run.json``."""
        self.write_text(RUN_NAME, json.dumps(record, indent=1, ensure_ascii=False) + "\n")

    def check(self, wanted: Mapping[str, Any], *, resume: bool) -> bool:
        """Whether there is a run to go on with.

        Args:
            wanted: ``identity`` and ``data_fingerprint`` of the run that is asked for.
            resume: whether going on is asked for.

        Raises:
            OutputError: there is a run, and nobody asked to go on with it.
            ResumeRefused: there is another run; names every difference.
        """
        found = self.record
        if found is None:
            return False
        if not resume:
            raise OutputError(f"{self.path} holds a training run; add --resume to go on with it, or choose another -o")
        known = {key: found.get(key) for key in wanted}
        if differing := differences(known, json.loads(json.dumps(wanted))):
            raise ResumeRefused(self.path, differing)
        return True

    def clear(self) -> None:
        """Drop the run in this folder; files that are no part of one stay."""
        for name in (RUN_NAME, BEST, LAST, LOG_NAME, VALIDATIONS_NAME, REPORT_NAME):
            (self.path / name).unlink(missing_ok=True)
        for inner in (self.states, self.pictures, self.features, self.path / "tensorboard"):
            shutil.rmtree(inner, ignore_errors=True)

    def write_text(self, name: str, text: str) -> None:
        """Write a text file, whole or not at all."""
        self.write_bytes(name, text.encode("utf-8"))

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all."""
        path = self.path / name
        with output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)

    def save(self, state: State) -> None:
        """Write a state and drop all but the last two."""
        header = {
            "format": STATE_FORMAT,
            "step": state.step,
            "best": state.best,
            "seconds": state.seconds,
            "still": state.still,
        }
        write_sealed(self.states / f"{state.step:08d}.safetensors", state.tensors, header)
        for old in self._written()[:-KEPT]:
            old.unlink(missing_ok=True)

    def latest(self) -> tuple[State | None, list[str]]:
        """The last state that is whole (None where there is none), and why later ones are not."""
        faults: list[str] = []
        for path in reversed(self._written()):
            try:
                tensors, header = read_sealed(path)
                if header["format"] != STATE_FORMAT:
                    raise CheckpointError(path, f"a state of format {header['format']}, wanted {STATE_FORMAT}")
                best, seconds, still = header["best"], float(header["seconds"]), header["still"]
                return State(int(header["step"]), tensors, best, seconds, still), faults
            except (CheckpointError, KeyError) as error:
                faults.append(f"{error}; the state before it is used")
        return None, faults

    def drop_states_after(self, step: int) -> None:
        """Remove states that were found damaged, so that they are not counted as kept."""
        for path in self._written():
            if int(path.stem) > step:
                path.unlink()

    def _written(self) -> list[Path]:
        """State files, oldest first; half-written ones have another name."""
        return sorted(path for path in self.states.glob("*.safetensors") if path.stem.isdigit())


class Table:
    """A CSV of rows by step that grows, and gains columns when a row brings new ones.

    Args:
        folder: where.
        name: of the file; opened as it was after ``step`` steps, later rows dropped.
        step: where the run stands.
    """

    def __init__(self, folder: RunFolder, name: str, step: int) -> None:
        self._folder, self._name = folder, name
        self.rows: list[dict[str, str]] = []
        path = folder.path / name
        if path.exists() and step:
            # A line without its end was being written when the run was killed; that step will be done again.
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            whole = (one for one in lines if one.endswith("\n"))
            self.rows = [row for row in csv.DictReader(whole) if int(row["step"]) <= step]
        self._write()

    def add(self, row: Mapping[str, Any]) -> None:
        """One more row; None is left empty."""
        text = {name: "" if value is None else f"{value}" for name, value in row.items()}
        known = self._columns
        self.rows.append(text)
        if set(text) <= set(known):
            with (self._folder.path / self._name).open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, known, lineterminator="\n").writerow(text)
        else:
            self._write()

    @property
    def _columns(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def _write(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        if self.rows:
            writer.writeheader()
        writer.writerows(self.rows)
        self._folder.write_text(self._name, text.getvalue())


def differences(found: Any, wanted: Any, at: str = "") -> list[str]:
    """What differs between two JSON values, by dotted name: ``optimizer.lr is 0.1, now 0.01``."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = dict.fromkeys([*found, *wanted])
        return [
            line
            for key in keys
            for line in differences(found.get(key), wanted.get(key), f"{at}.{key}".removeprefix(".identity."))
        ]
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        pairs = enumerate(zip(found, wanted, strict=True))
        return [line for i, (one, other) in pairs for line in differences(one, other, f"{at}.{i}")]
    return [] if found == wanted else [f"{at.lstrip('.')} is {json.dumps(found)}, now {json.dumps(wanted)}"]
