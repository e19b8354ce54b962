"""Run the unfinished trials of a benchmark one after another, and update the table after each.

    for row, seed:   result.json with equal training, pairs and weights exists?  ─ yes ─> skip
                     else in a process: train or resume, score, write examples   ─ fails ─> record the reason, continue
                     cost.json exists?  else in a fresh process: measure
                     write the table with all finished trials

A folder with another benchmark is rejected before anything runs. Several processes may share a folder, each with other
rows (``--only``): files are written atomically, and the last process writes the complete table.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wasnow import __version__
from wasnow.benchmark.examples import PICTURES_NAME, RUNS_NAME, ExamplePairs
from wasnow.benchmark.job import (
    COST_FORMAT,
    COST_NAME,
    COUNTS_NAME,
    FAILURE_NAME,
    FORMAT,
    RESULT_NAME,
    Job,
    may_need_priors,
    measure,
    spread,
    train_and_score,
)
from wasnow.benchmark.latex import as_tex
from wasnow.benchmark.machine import machine
from wasnow.benchmark.page import benchmark_page
from wasnow.benchmark.pairs import Pairs
from wasnow.benchmark.plan import CHANGE_ALONE, COMMON, Plan, Row, Trial, step_counts
from wasnow.benchmark.process import run_in_process
from wasnow.benchmark.published import LATER, SEMANTIC_CD
from wasnow.benchmark.table import Table, TableRow, as_csv, as_json, table_row
from wasnow.errors import CheckpointError, OutputError, ResumeRefused
from wasnow.evaluation.metrics import Confusion, Difference, paired_bootstrap
from wasnow.models import checkpoint
from wasnow.models.loading import resolve_device
from wasnow.models.registry import MODELS
from wasnow.storage.ownership import claim, is_record
from wasnow.training.run_folder import RUN_NAME, RunFolder, differences

PAGE_NAME, CSV_NAME, TEX_NAME, JSON_NAME = "index.html", "table.csv", "table.tex", "table.json"


@dataclass(frozen=True)
class BenchmarkResult:
    """The result of a benchmark.

    Attributes:
        page: path of the page.
        table: the table.
        failed: failed trials with their reasons.
    """

    page: Path
    table: Table
    failed: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class PlannedTrial:
    """A trial and its state, for a dry run.

    Attributes:
        trial: the row and its seed.
        steps: of each stage; empty without training.
        state: ``finished``, ``to do``, ``resumes after step 40``, or why it cannot run.
    """

    trial: Trial
    steps: tuple[int, ...]
    state: str


class Benchmark:
    """A plan on a dataset in a folder.

    Args:
        plan: the rows.
        pairs: training and test pairs.
        output: folder of the table; created if missing.
        device: for rows that are not trained.
        examples: number of test pairs to show.
        command: command line, for the record.
        log: receives lines about progress; None: no output.
    """

    def __init__(
        self,
        plan: Plan,
        pairs: Pairs,
        output: str | os.PathLike[str],
        *,
        device: str = "auto",
        examples: int = 4,
        command: str = "",
        log: Callable[[str], None] | None = None,
    ) -> None:
        self.plan = replace(plan, rows=tuple(_adapted(row, pairs) for row in plan.rows))
        self.pairs, self.output = pairs, Path(output)
        self._device, self._command, self._log = device, command, log
        self._indices = spread(len(pairs.test), examples)
        self._examples = ExamplePairs(pairs, self._indices, self.output)
        self._identities = {trial.folder: self._identity(trial) for trial in self.plan.trials()}
        self._failed: dict[str, str] = {}

    # --- checks ---------------------------------------------------------------------------------------------------

    def tasks(self, only: Sequence[str] = ()) -> list[PlannedTrial]:
        """Return what `run` would do, in order.

        Raises:
            UsageError: ``only`` names no row.
        """
        pairs = self._trained_on
        found = []
        for trial in self.plan.trials(only):
            steps = () if trial.config is None else step_counts(trial.config, pairs(trial))
            state = trial.row.problem or ("finished" if self._result(trial) is not None else self._progress_of(trial))
            found.append(PlannedTrial(trial, steps, state))
        return found

    def check(self) -> None:
        """Check that the folder holds no other benchmark.

        Raises:
            ResumeRefused: it holds runs of another one; the message names the first difference.
            OutputError: it is a file.
        """
        if self.output.exists() and not self.output.is_dir():
            raise OutputError(f"{self.output} is a file; choose a folder for the table with -o")
        for trial in self.plan.trials():
            folder = self._folder(trial)
            if trial.row.problem is not None:
                continue
            wanted = json.loads(json.dumps(self._identities[trial.folder]))
            known: Any = None
            if (record := _read(folder / RESULT_NAME)) is not None:
                known = record.get("identity")
            elif trial.config is not None and (record := _read(folder / RUN_NAME)) is not None:
                known, wanted = record.get("identity"), wanted["config"]
            if known is not None and (differing := differences(known, wanted)):
                raise ResumeRefused(folder, differing)

    def clear(self, only: Sequence[str] = ()) -> None:
        """Delete the runs of all rows, or of some."""
        for trial in self.plan.trials(only):
            shutil.rmtree(self._folder(trial), ignore_errors=True)

    # --- the run --------------------------------------------------------------------------------------------------

    def run(self, only: Sequence[str] = (), *, overwrite: bool = False) -> BenchmarkResult:
        """Run all unfinished trials; failures are recorded and the others continue.

        Args:
            only: names of rows; empty: all.
            overwrite: delete finished runs first.

        Raises:
            UsageError: ``only`` names no row, or torch does not have the device.
            ResumeRefused: the folder holds runs of another benchmark.
            OutputError: the folder cannot be written.
            Interrupted: Ctrl-C or SIGTERM; run it again to continue.
        """
        trials = list(self.plan.trials(only))
        names = (PAGE_NAME, CSV_NAME, TEX_NAME, JSON_NAME, RUNS_NAME, PICTURES_NAME)
        earlier = is_record(self.output / JSON_NAME, "columns", "lines", "published")
        claim(self.output, names, proven=names if earlier else ())
        resolve_device(self._device)  # fail now rather than in every row
        if overwrite:
            self.clear(only)
        self.check()
        table = self.write()
        for number, trial in enumerate(trials, 1):
            if trial.row.problem is not None:
                self._message(f"{trial.name}: {trial.row.problem}")
                self._failed[trial.folder] = trial.row.problem
                continue
            if self._result(trial) is None:
                self._message(f"{trial.name} ({number} of {len(trials)})")
                self._do(train_and_score, trial)
            if self._result(trial) is not None and self._cost(trial.row) is None:
                self._do(measure, trial)
            table = self.write()
        failed = tuple((trial.name, self._failed[trial.folder]) for trial in trials if trial.folder in self._failed)
        return BenchmarkResult(self.output / PAGE_NAME, table, failed)

    def write(self) -> Table:
        """Write the table of the finished trials in all formats and return it."""
        lines = []
        for row in self.plan.rows:
            trials = [trial for trial in self.plan.trials() if trial.row is row]
            results = [(trial.folder, one) for trial in trials if (one := self._result(trial)) is not None]
            failures = [
                f"seed {trial.seed}: {reason}" if len(trials) > 1 else reason
                for trial in trials
                if row.problem is None and (reason := self._reason(trial)) is not None
            ]
            lines.append(table_row(row, results, self._cost(row), failures))
        table = Table(tuple(lines), self._facts(), SEMANTIC_CD, LATER, *self._differences(lines))
        folder = RunFolder(self.output)
        folder.write_text(JSON_NAME, as_json(table))
        folder.write_text(CSV_NAME, as_csv(table))
        folder.write_text(TEX_NAME, as_tex(table))
        folder.write_text(PAGE_NAME, benchmark_page(table, self._examples.examples(table), self._examples.legend()))
        return table

    def _differences(self, lines: Sequence[TableRow]) -> tuple[str, dict[str, dict[str, Difference]]]:
        """Return the name of the first finished row, and the differences of the others to it by name."""
        counts = {line.name: seeds for line in lines if (seeds := self._counts(line.folders))}
        found: dict[str, dict[str, Difference]] = {}
        reference = next(iter(counts), "")
        for name, others in counts.items():
            first = counts[reference]
            same = all([image for image, _ in one] == [image for image, _ in first[0]] for one in (*first, *others))
            if name != reference and same and len(first[0]) > 1:
                pair = ([[count for _, count in one] for one in method] for method in (first, others))
                found[name] = paired_bootstrap(*pair)
        return reference, found

    def _counts(self, folders: Sequence[str]) -> list[list[tuple[str, Confusion]]]:
        """Return name and counts of every image for each finished seed; empty if any seed has none."""
        seeds = []
        for folder in folders:
            try:
                text = (self.output / RUNS_NAME / folder / COUNTS_NAME).read_text(encoding="utf-8")
                seeds.append([(one["name"], Confusion.from_dict(one)) for one in json.loads(text)])
            except (OSError, ValueError, KeyError, TypeError):
                return []
        return seeds

    # --- one trial ------------------------------------------------------------------------------------------------

    def _do(self, task: Callable[[Job], None], trial: Trial) -> None:
        """Run a task in a separate process and record a failure."""
        job = Job(
            trial,
            self.pairs,
            self.output.resolve(),
            self._device,
            self._identities[trial.folder],
            self._indices,
            quiet=self._log is None,
        )
        problem, details = run_in_process(task, job)
        if problem is None:
            (job.folder / FAILURE_NAME).unlink(missing_ok=True)
        else:
            self._failed[trial.folder] = problem
            self._message(f"{trial.name} failed: {problem}")
            RunFolder(job.folder).write_text(FAILURE_NAME, f"{problem}\n{details}")

    def _reason(self, trial: Trial) -> str | None:
        """Return why a trial failed, in this session or an earlier one; None if it did not."""
        try:
            return (self._folder(trial) / FAILURE_NAME).read_text(encoding="utf-8").partition("\n")[0]
        except OSError:
            return None

    def _identity(self, trial: Trial) -> dict[str, Any]:
        """Return all that a result depends on."""
        config, row = trial.config, trial.row
        weights = None if row.weights is None or row.problem else checkpoint.read_header(row.weights).digest
        return {
            "model": row.model,
            "config": None if config is None else config.identity(),
            "weights": weights,
            "pairs": self.pairs.identity(),
            "priors": self.pairs.masks.origin if may_need_priors(row.entry) else None,
        }

    def _folder(self, trial: Trial) -> Path:
        return self.output / RUNS_NAME / trial.folder

    def _result(self, trial: Trial) -> dict[str, Any] | None:
        """Return the result of a finished trial; None if it is not finished or belongs to another benchmark."""
        found = _read(self._folder(trial) / RESULT_NAME)
        return found if self._is_of(found, trial, FORMAT) else None

    def _cost(self, row: Row) -> dict[str, Any] | None:
        """Return the measured cost of a row, which is equal for all seeds."""
        for trial in self.plan.trials():
            if trial.row is row and self._is_of(found := _read(self._folder(trial) / COST_NAME), trial, COST_FORMAT):
                return found
        return None

    def _is_of(self, found: dict[str, Any] | None, trial: Trial, wanted: int) -> bool:
        if found is None or found.get("format") != wanted:
            return False
        return bool(found.get("identity") == json.loads(json.dumps(self._identities[trial.folder])))

    def _progress_of(self, trial: Trial) -> str:
        states = [int(one.stem) for one in (self._folder(trial) / "states").glob("*.safetensors") if one.stem.isdigit()]
        if not states:
            return "to do"
        return f"resumes after step {max(states)}"

    def _trained_on(self, trial: Trial) -> int:
        """Return the number of training pairs of a row, without those held back for selection."""
        config = trial.config
        whole = len(self.pairs.train)
        if config is None or config.holdback == 0 or len(self.pairs.training.get("val", ())):
            return whole
        return whole - min(whole - 1, max(1, round(config.holdback * whole)))

    def _message(self, text: str) -> None:
        if self._log is not None:
            self._log(text)

    # --- the record ----------------------------------------------------------------------------------------------

    def _facts(self) -> dict[str, Any]:
        pairs = self.pairs
        found = _read(self.output / JSON_NAME) or {}
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return {
            "data": {
                "name": pairs.name,
                "classes": list(pairs.train.vocabulary.words),
                "splits": pairs.splits,
                "scored_on": pairs.scored_on,
                **pairs.identity(),
                "notes": list(pairs.notes),
            },
            "budget": self.plan.budget,
            "seeds": list(self.plan.seeds),
            "settings": list(self.plan.settings),
            "recipes": {
                row.name: row.config.model_dump(mode="json") for row in self.plan.rows if row.config is not None
            },
            "machine": machine(),
            "versions": {
                "wasnow": __version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "numpy": np.__version__,
            },
            "command": self._command,
            "started": found.get("started", now),
            "updated": now,
        }


def _adapted(row: Row, pairs: Pairs) -> Row:
    """Return the row adapted to its weights and to these labels.

    The model name is read from a checkpoint. Without class labels, classes are not trained; without class labels of
    unchanged pixels, those are not trained.
    """
    if row.weights is not None:
        try:
            name = checkpoint.read_header(row.weights).model.name
        except CheckpointError as error:
            return replace(row, problem=str(error))
        return replace(row, model=name, entry=MODELS.get(name))
    config, notes = row.config, row.notes
    if config is None:
        return row
    if config.dense and pairs.dense is None:
        config = config.model_copy(update={"dense": False})
        notes += ("its recipe also trains classes of unchanged pixels, which these labels do not have",)
    if config.name == COMMON and not len(pairs.train.vocabulary):
        stages = tuple(one.model_copy(update={"loss": CHANGE_ALONE[0]}) for one in config.stages)
        config = config.model_copy(update={"stages": stages})
    names_classes = row.entry is not None and "classes" in row.entry.answers and len(pairs.train.vocabulary) > 0
    if names_classes and all(one.loss in CHANGE_ALONE for one in config.stages):
        notes += ("its recipe trains change only: its classes are untrained",)
    return replace(row, config=config, notes=notes)


def _read(path: Path) -> dict[str, Any] | None:
    """Return a JSON object; None if the file is missing or not an object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
