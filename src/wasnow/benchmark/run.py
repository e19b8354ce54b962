"""Run what is not finished, one row and seed after another, and keep the table up to date.

    for row, seed:   result.json of the same training, pairs and weights there?  ─ yes ─> nothing to do
                     else a process: train (or go on), score, picture            ─ fails ─> its reason, and the next row
                     cost.json there?  else a fresh process: measure
                     the table, with what is there so far

Another benchmark in the same folder is refused by name before anything runs. Several processes may share a folder, each
with rows of its own (``--only``): every file is written whole or not at all, and the last one writes the whole table.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wasnow import __version__
from wasnow.benchmark.job import (
    COST_FORMAT,
    COST_NAME,
    EXAMPLES_NAME,
    FAILURE_NAME,
    FORMAT,
    RESULT_NAME,
    Job,
    guided,
    maps_png,
    measure,
    spread,
    train_and_score,
    work,
)
from wasnow.benchmark.page import Example, Picture, benchmark_page
from wasnow.benchmark.pairs import Pairs
from wasnow.benchmark.plan import CHANGE_ALONE, COMMON, Plan, Row, Turn, step_counts
from wasnow.benchmark.published import SEMANTIC_CD
from wasnow.benchmark.table import Table, as_csv, as_json, as_tex, line
from wasnow.errors import CheckpointError, Interrupted, OutputError, ResumeRefused
from wasnow.evaluation import change_labels, labels
from wasnow.models import checkpoint
from wasnow.models.loading import resolve_device
from wasnow.models.registry import MODELS
from wasnow.output.report.codes import NO_LABEL_COLOR, SIDE, dates_png
from wasnow.output.report.pictures import data_uri, photo_jpeg
from wasnow.training.run_folder import RUN_NAME, RunFolder, differences
from wasnow.vocabulary import CHANGED, CHANGED_COLOR, NO_CHANGE_COLOR, Vocabulary

PAGE_NAME, CSV_NAME, TEX_NAME, JSON_NAME = "index.html", "table.csv", "table.tex", "table.json"
RUNS_NAME, PICTURES_NAME = "runs", "pictures"

_KILLED = 9
_THUMBNAIL_BYTES = 20_000


@dataclass(frozen=True)
class Outcome:
    """What a benchmark came to.

    Attributes:
        page: where the table is.
        table: the same.
        failed: what failed, with its reason.
    """

    page: Path
    table: Table
    failed: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Task:
    """One row and seed as it stands, for a dry run.

    Attributes:
        turn: which.
        steps: of each stage; empty where nothing is trained.
        state: ``finished``, ``to do``, ``goes on after step 40``, or why it cannot run.
    """

    turn: Turn
    steps: tuple[int, ...]
    state: str


class Benchmark:
    """One plan on one dataset in one folder.

    Args:
        plan: the rows.
        pairs: what they are trained on and scored by.
        output: folder of the table; made when something is written.
        device: for rows that are not trained.
        examples: pairs that are pictured.
        command: what the user typed, for the record.
        say: where a line about progress goes; None for silence.
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
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.plan = replace(plan, rows=tuple(_fitting(row, pairs) for row in plan.rows))
        self.pairs, self.output = pairs, Path(output)
        self._device, self._command, self._say = device, command, say
        self._places = spread(len(pairs.test), examples)
        self._identities = {turn.folder: self._identity(turn) for turn in self.plan.turns()}
        self._failed: dict[str, str] = {}

    # --- before ---------------------------------------------------------------------------------------------------

    def tasks(self, only: Sequence[str] = ()) -> list[Task]:
        """What `run` would do, in its order.

        Raises:
            UsageError: ``only`` names no row.
        """
        pairs = self._trained_on
        found = []
        for turn in self.plan.turns(only):
            steps = () if turn.config is None else step_counts(turn.config, pairs(turn))
            state = turn.row.problem or ("finished" if self._result(turn) is not None else self._under_way(turn))
            found.append(Task(turn, steps, state))
        return found

    def check(self) -> None:
        """Nothing, if what lies in the folder belongs to this benchmark.

        Raises:
            ResumeRefused: it holds runs of another; names the first and how it differs.
            OutputError: it is a file.
        """
        if self.output.exists() and not self.output.is_dir():
            raise OutputError(f"{self.output} is a file; choose a folder for the table with -o")
        for turn in self.plan.turns():
            folder = self._folder(turn)
            if turn.row.problem is not None:
                continue
            wanted = json.loads(json.dumps(self._identities[turn.folder]))
            known: Any = None
            if (record := _read(folder / RESULT_NAME)) is not None:
                known = record.get("identity")
            elif turn.config is not None and (record := _read(folder / RUN_NAME)) is not None:
                known, wanted = record.get("identity"), wanted["config"]
            if known is not None and (differing := differences(known, wanted)):
                raise ResumeRefused(folder, differing)

    def clear(self, only: Sequence[str] = ()) -> None:
        """Drop the runs of all rows, or of some."""
        for turn in self.plan.turns(only):
            shutil.rmtree(self._folder(turn), ignore_errors=True)

    # --- the whole ------------------------------------------------------------------------------------------------

    def run(self, only: Sequence[str] = (), *, overwrite: bool = False) -> Outcome:
        """Everything that is not finished, or of some rows alone; what fails is noted, and the rest goes on.

        Raises:
            UsageError: ``only`` names no row, or torch does not have the device.
            ResumeRefused: the folder holds runs of another benchmark.
            OutputError: the folder cannot be written.
            Interrupted: Ctrl-C or SIGTERM; run it again to go on.
        """
        turns = list(self.plan.turns(only))
        resolve_device(self._device)  # now, and not once in every row
        if overwrite:
            self.clear(only)
        self.check()
        table = self.write()
        for number, turn in enumerate(turns, 1):
            if turn.row.problem is not None:
                self._tell(f"{turn.name}: {turn.row.problem}")
                self._failed[turn.folder] = turn.row.problem
                continue
            if self._result(turn) is None:
                self._tell(f"{turn.name} ({number} of {len(turns)})")
                self._do(train_and_score, turn)
            if self._result(turn) is not None and self._cost(turn.row) is None:
                self._do(measure, turn)
            table = self.write()
        failed = tuple((turn.name, self._failed[turn.folder]) for turn in turns if turn.folder in self._failed)
        return Outcome(self.output / PAGE_NAME, table, failed)

    def write(self) -> Table:
        """The table of what is finished so far, in all its formats."""
        lines = []
        for row in self.plan.rows:
            turns = [turn for turn in self.plan.turns() if turn.row is row]
            results = [(turn.folder, one) for turn in turns if (one := self._result(turn)) is not None]
            failures = [
                f"seed {turn.seed}: {reason}" if len(turns) > 1 else reason
                for turn in turns
                if row.problem is None and (reason := self._reason(turn)) is not None
            ]
            lines.append(line(row, results, self._cost(row), failures))
        table = Table(tuple(lines), self._facts(), SEMANTIC_CD)
        folder = RunFolder(self.output)
        folder.write_text(JSON_NAME, as_json(table))
        folder.write_text(CSV_NAME, as_csv(table))
        folder.write_text(TEX_NAME, as_tex(table))
        folder.write_text(PAGE_NAME, benchmark_page(table, self._examples(table), self._legend()))
        return table

    # --- one row and seed -----------------------------------------------------------------------------------------

    def _do(self, task: Callable[[Job], None], turn: Turn) -> None:
        """A task in a process of its own; its failure is noted."""
        job = Job(
            turn,
            self.pairs,
            self.output.resolve(),
            self._device,
            self._identities[turn.folder],
            self._places,
            quiet=self._say is None,
        )
        problem, details = in_a_process(task, job)
        if problem is None:
            (job.folder / FAILURE_NAME).unlink(missing_ok=True)
        else:
            self._failed[turn.folder] = problem
            self._tell(f"{turn.name} failed: {problem}")
            RunFolder(job.folder).write_text(FAILURE_NAME, f"{problem}\n{details}")

    def _reason(self, turn: Turn) -> str | None:
        """Why a row and seed failed, in this sitting or the last; None if it did not."""
        try:
            return (self._folder(turn) / FAILURE_NAME).read_text(encoding="utf-8").partition("\n")[0]
        except OSError:
            return None

    def _identity(self, turn: Turn) -> dict[str, Any]:
        """Everything that a result depends on."""
        config, row = turn.config, turn.row
        weights = None if row.weights is None or row.problem else checkpoint.read_header(row.weights).digest
        return {
            "model": row.model,
            "config": None if config is None else config.identity(),
            "weights": weights,
            "pairs": self.pairs.identity(),
            "priors": self.pairs.masks.origin if guided(row.entry) else None,
        }

    def _folder(self, turn: Turn) -> Path:
        return self.output / RUNS_NAME / turn.folder

    def _result(self, turn: Turn) -> dict[str, Any] | None:
        """What is finished of a row and seed; None if it is not, or another."""
        found = _read(self._folder(turn) / RESULT_NAME)
        return found if self._is_of(found, turn, FORMAT) else None

    def _cost(self, row: Row) -> dict[str, Any] | None:
        """What one of its seeds, all alike in this, was measured to cost."""
        for turn in self.plan.turns():
            if turn.row is row and self._is_of(found := _read(self._folder(turn) / COST_NAME), turn, COST_FORMAT):
                return found
        return None

    def _is_of(self, found: dict[str, Any] | None, turn: Turn, wanted: int) -> bool:
        if found is None or found.get("format") != wanted:
            return False
        return bool(found.get("identity") == json.loads(json.dumps(self._identities[turn.folder])))

    def _under_way(self, turn: Turn) -> str:
        states = [int(one.stem) for one in (self._folder(turn) / "states").glob("*.safetensors") if one.stem.isdigit()]
        if not states:
            return "to do"
        return f"goes on after step {max(states)}"

    def _trained_on(self, turn: Turn) -> int:
        """How many pairs a row is trained on, those not counted that its training holds back."""
        config = turn.config
        whole = len(self.pairs.train)
        if config is None or config.holdback == 0 or len(self.pairs.training.get("val", ())):
            return whole
        return whole - min(whole - 1, max(1, round(config.holdback * whole)))

    def _tell(self, text: str) -> None:
        if self._say is not None:
            self._say(text)

    # --- the record and the pictures ------------------------------------------------------------------------------

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

    @cached_property
    def _truth(self) -> list[tuple[str, list[Picture]]]:
        """Name, photographs and labels of the examples: whole ones are written beside the page, small ones are kept."""
        folder = RunFolder(self.output / PICTURES_NAME)
        found = []
        for i in self._places:
            sample = self.pairs.test[i]
            both = labels(sample) if len(self.pairs.test.vocabulary) else None
            first, second = both if both is not None else (change_labels(sample), None)
            words = self.pairs.test.vocabulary if both is not None else Vocabulary()
            shown = []
            for name, photo in (("before", sample.before), ("after", sample.after)):
                folder.write_bytes(f"{i}-{name}.jpg", photo_jpeg(photo))
                every = -(-max(photo.shape[:2]) // SIDE)
                small = photo_jpeg(np.ascontiguousarray(photo[::every, ::every]), budget=_THUMBNAIL_BYTES)
                shown.append(Picture(name, f"{PICTURES_NAME}/{i}-{name}.jpg", data_uri(small)))
            folder.write_bytes(f"{i}-truth.png", maps_png(first, second, words))
            shown.append(Picture("truth", f"{PICTURES_NAME}/{i}-truth.png", data_uri(dates_png(first, second, words))))
            found.append((sample.name, shown))
        return found

    def _examples(self, table: Table) -> list[Example]:
        """The examples with what every finished row says of them, its first seed; whole maps are put beside."""
        beside = RunFolder(self.output / PICTURES_NAME)
        found = []
        for i, (name, truth) in zip(self._places, self._truth, strict=True):
            pictures = list(truth)
            for one in table.lines:
                if not one.folders:
                    continue
                drawn = self.output / RUNS_NAME / one.folders[0] / EXAMPLES_NAME
                whole, small = drawn / f"{i}.png", drawn / f"{i}-small.png"
                if not whole.exists() or not small.exists():
                    continue
                file = f"{i}-{one.folders[0]}.png"
                beside.write_bytes(file, whole.read_bytes())
                pictures.append(Picture(one.name, f"{PICTURES_NAME}/{file}", data_uri(small.read_bytes())))
            found.append(Example(name, tuple(pictures)))
        return found

    def _legend(self) -> list[tuple[str, str]]:
        vocabulary = self.pairs.test.vocabulary
        colors = [("no change", NO_CHANGE_COLOR)]
        colors += [(word, vocabulary.color(code)) for code, word in enumerate(vocabulary.words, 1)]
        colors += [(f"{CHANGED} (methods without classes)" if len(vocabulary) else CHANGED, CHANGED_COLOR)]
        colors += [("no label", NO_LABEL_COLOR)]
        return [(word, "#{:02x}{:02x}{:02x}".format(*color)) for word, color in colors]


def in_a_process(task: Callable[[Job], None], job: Job) -> tuple[str | None, str]:
    """Do a task of `wasnow.benchmark.job` in a process of its own.

    Returns:
        None or why it failed, in a line; and a traceback, where it was no error that wasnow raises on purpose.

    Raises:
        Interrupted: it was, or this process is; the child has saved its state.
    """
    forked = "forkserver" in get_all_start_methods()
    context: Any = get_context("forkserver" if forked else "spawn")
    if forked:
        # It imports torch once and computes nothing, so what is forked from it is fresh, and there at once.
        context.set_forkserver_preload(["wasnow.benchmark.job"])
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=partial(work, task), args=(job, sender))
    try:
        child.start()
        sender.close()
        try:
            answer = receiver.recv()
        except EOFError:
            answer = ("silent", "", "")
        child.join()
    except KeyboardInterrupt:
        if child.pid is not None:
            child.terminate()
            child.join()
        raise Interrupted("interrupted; what is finished is kept, and the same command goes on") from None
    kind, reason, details = answer
    if kind == "interrupted":
        raise Interrupted(f"{job.turn.name} is interrupted and its state kept; the same command goes on")
    if kind == "silent" and child.exitcode == -_KILLED:
        reason = "its process was killed, as happens when memory runs out; lower --set batch_size or --set crop"
    elif kind == "silent":
        reason = f"its process ended without a word (exit code {child.exitcode})"
    return (None if kind == "done" else reason), details


def _fitting(row: Row, pairs: Pairs) -> Row:
    """The row as its weights and these labels have it.

    What a checkpoint holds is looked up. Classes cannot be learned where the labels name none, nor those of unchanged
    ground where they name those of changed ground alone.
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
        notes += ("its recipe learns classes of unchanged ground too, which these labels do not name",)
    if config.name == COMMON and not len(pairs.train.vocabulary):
        stages = tuple(one.model_copy(update={"loss": CHANGE_ALONE[0]}) for one in config.stages)
        config = config.model_copy(update={"stages": stages})
    names_classes = row.entry is not None and "classes" in row.entry.answers and len(pairs.train.vocabulary) > 0
    if names_classes and all(one.loss in CHANGE_ALONE for one in config.stages):
        notes += ("its recipe teaches change alone: what it says of classes was never learned",)
    return replace(row, config=config, notes=notes)


def machine() -> dict[str, str | int | float | None]:
    """What it runs on, in words and numbers."""
    memory = None
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    cuda = resolve_device("auto") == "cuda"
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": memory,
        "gpu": torch.cuda.get_device_name(0) if cuda else None,
    }


def _processor() -> str:
    """Its name; platform knows it on few systems."""
    try:
        for text in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if text.startswith("model name"):
                return text.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def _read(path: Path) -> dict[str, Any] | None:
    """A JSON object of ours; None where it is not there, or not whole."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
