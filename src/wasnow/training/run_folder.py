"""The folder of a training run; a kill at any moment leaves it usable.

    runs/a/
      run.json                configuration, data and selection; a resumed run must match
      best.safetensors        checkpoint of the last stage with the best validation score
      stage-1.safetensors     the same of an earlier stage
      last.safetensors        checkpoint of the last step
      states/00000120.safetensors   state after 120 steps, for a resume; the last two are kept
      features/               cached features of a frozen encoder during a stage (cache_features)
      log.csv                 a row every few steps           validations.csv    a row per validation
      pictures/               sample predictions              report.html        report page

Files are written under a temporary name, flushed and renamed. A truncated or damaged state is detected by its checksum,
and the previous state is used: training is a function of the step, so repeated steps give the same weights.
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
from wasnow.storage.ownership import STATE_FOLDER, check_claim, claim, is_record

STATE_FORMAT = 2
KEPT = 2
TENSORBOARD_NAME = "tensorboard"
RUN_NAME, LOG_NAME, VALIDATIONS_NAME, REPORT_NAME = "run.json", "log.csv", "validations.csv", "report.html"
FEATURES_NAME = "features"


@dataclass(frozen=True)
class TrainResult:
    """The result of a finished run.

    Attributes:
        folder: of the run.
        checkpoint: the best weights, or the last without selection.
        select: name of the selecting score.
        score: its value, 0..1; None without selection, or if it was never defined.
        step: completed steps of the checkpoint.
    """

    folder: Path
    checkpoint: Path
    select: str
    score: float | None
    step: int


@dataclass(frozen=True)
class State:
    """The state of a run.

    Attributes:
        step: completed steps.
        tensors: ``model/...``, ``average/...``, ``optimizer/...`` by name, without parameters that no stage trains.
        best: the best validation so far, as {score, step}; None before the first.
        seconds: training time so far, over all sessions.
        frozen: digest of the parameters that no stage trains, which a resumed run must match; None if all train.
    """

    step: int
    tensors: Mapping[str, Tensor]
    best: Mapping[str, float] | None
    seconds: float
    frozen: str | None = None

    def part(self, name: str) -> dict[str, Tensor]:
        """Return the tensors under ``name/``."""
        return {key.removeprefix(f"{name}/"): one for key, one in self.tensors.items() if key.startswith(f"{name}/")}


def stage_name(number: int) -> str:
    """Return the file name of the best checkpoint of a stage before the last, counted from 1."""
    return f"stage-{number}.safetensors"


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.states = path / "states"
        self.pictures = path / "pictures"
        self.features = path / FEATURES_NAME

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder against other runs; it is created if missing.

        Raises:
            OutputLocked: another run is writing to it.
            OutputError: the folder cannot be created, or contains files of these names that no training run made.
        """
        files = (RUN_NAME, BEST, LAST, LOG_NAME, VALIDATIONS_NAME, REPORT_NAME, TENSORBOARD_NAME)
        names = (*files, *(inner.name for inner in (self.states, self.pictures, self.features)))
        proven = names if is_record(self.path / RUN_NAME, "identity", "data_fingerprint") else ()
        check_claim(self.path, names, proven=proven)
        with locked_folder(self.path / STATE_FOLDER, self.path):
            claim(self.path, names, proven=proven)
            yield

    @property
    def record(self) -> dict[str, Any] | None:
        """Content of ``run.json``; None without a run.

        Raises:
            OutputError: ``run.json`` exists and cannot be read.
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
        """Return whether the folder holds a run to resume.

        Args:
            wanted: ``identity``, ``data_fingerprint`` and ``priors`` of the requested run.
            resume: whether resuming is allowed.

        Raises:
            OutputError: there is a run and ``resume`` is False.
            ResumeRefused: there is a different run; the message names every difference.
        """
        found = self.record
        if found is None:
            return False
        if not resume:
            raise OutputError(f"{self.path} holds a training run; add --resume to continue it, or choose another -o")
        known = {key: found.get(key) for key in wanted}
        if differing := differences(known, json.loads(json.dumps(wanted))):
            raise ResumeRefused(self.path, differing)
        return True

    def clear(self) -> None:
        """Delete the files of the run in this folder and nothing else."""
        for name in (RUN_NAME, BEST, LAST, LOG_NAME, VALIDATIONS_NAME, REPORT_NAME):
            (self.path / name).unlink(missing_ok=True)
        for path in self.path.glob("stage-*.safetensors"):
            if path.stem.removeprefix("stage-").isdigit():
                path.unlink()
        for inner in (self.states, self.pictures, self.features, self.path / TENSORBOARD_NAME):
            shutil.rmtree(inner, ignore_errors=True)

    def write_text(self, name: str, text: str) -> None:
        """Write a text file atomically."""
        self.write_bytes(name, text.encode("utf-8"))

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file atomically.

        Raises:
            OutputError: it cannot be written.
        """
        path = self.path / name
        with output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)

    def save(self, state: State) -> None:
        """Write a state and delete all but the last two."""
        header = {
            "format": STATE_FORMAT,
            "step": state.step,
            "best": state.best,
            "seconds": state.seconds,
            "still": state.frozen,
        }
        write_sealed(self.states / f"{state.step:08d}.safetensors", state.tensors, header)
        for old in self._written()[:-KEPT]:
            old.unlink(missing_ok=True)

    def latest(self) -> tuple[State | None, list[str]]:
        """Return the last intact state (None without one), and messages about damaged later ones."""
        faults: list[str] = []
        for path in reversed(self._written()):
            try:
                tensors, header = read_sealed(path)
                if header["format"] != STATE_FORMAT:
                    raise CheckpointError(path, f"state format {header['format']}, expected {STATE_FORMAT}")
                best, seconds, frozen = header["best"], float(header["seconds"]), header["still"]
                return State(int(header["step"]), tensors, best, seconds, frozen), faults
            except (CheckpointError, KeyError) as error:
                faults.append(f"{error}; the previous state is used")
        return None, faults

    def drop_states_after(self, step: int) -> None:
        """Delete damaged states, so that they do not count as kept."""
        for path in self._written():
            if int(path.stem) > step:
                path.unlink()

    def _written(self) -> list[Path]:
        """Return the state files, oldest first; partial files have another name."""
        return sorted(path for path in self.states.glob("*.safetensors") if path.stem.isdigit())


class CsvLog:
    """A CSV file with one row per logged step; new names in a row add columns.

    Args:
        folder: of the run.
        name: of the file.
        step: completed steps; rows of later steps are dropped.
    """

    def __init__(self, folder: RunFolder, name: str, step: int) -> None:
        self._folder, self._name = folder, name
        self.rows: list[dict[str, str]] = []
        path = folder.path / name
        if path.exists() and step:
            # An incomplete last line was being written when the run was killed; its step is repeated.
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            whole = (one for one in lines if one.endswith("\n"))
            self.rows = [row for row in csv.DictReader(whole) if int(row["step"]) <= step]
        self._write()

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row; None gives an empty cell."""
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
    """Return the differences of two JSON values by dotted name: ``optimizer.lr is 0.1, now 0.01``.

    Args:
        found: recorded value.
        wanted: requested value.
        at: dotted name of the values.
    """
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
