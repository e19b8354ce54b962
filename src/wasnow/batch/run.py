"""A list of pairs, one after the other: what is done stays done, what fails is listed, and the rest goes on.

    list.csv ──> rows, all checked first ──> for each: run.detect ──> OUT/NAME/
                                                  └──> journal line ──> OUT/summary.json, summary.csv, index.html

    OUT/.wasnow/
      lock, holder.json   one run at a time works through the list
      pairs.jsonl         one line per pair that was done or failed, with what was asked

Whether a pair is done is not believed to the journal: its result folder answers at once where it holds that very run,
and notices inputs that changed since. The journal is for the summary, and says why something failed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from wasnow.batch.summary import PairOutcome, PairsSummary, Summaries
from wasnow.batch.table import PairRow, read_pairs
from wasnow.errors import DiskFull, Interrupted, OutputError, WasnowError, WorkersLost
from wasnow.models.contract import ChangeModel, SceneModel
from wasnow.models.registry import DEFAULT
from wasnow.output.change_map import ChangeMap
from wasnow.pipeline import run as engine
from wasnow.pipeline.plan import named_model
from wasnow.storage.atomic import append_line
from wasnow.storage.journal import Workspace, workspace

JOURNAL = "pairs.jsonl"
Model = str | ChangeModel | SceneModel

Progress = Callable[[str, int, int], None]
"""Called with (phase, done, total); the phase ``pairs`` counts the list, the others are those of `run.detect`."""


def detect_pairs(
    table: str | os.PathLike[str] | Iterable[Mapping[str, Any]],
    *,
    output: str | os.PathLike[str],
    model: Model = DEFAULT,
    classes: str | Sequence[str] | None = None,
    overwrite: bool = False,
    fail_fast: bool = False,
    progress: Progress | None = None,
    each: Callable[[PairOutcome], None] | None = None,
    command: Sequence[str] | None = None,
    **options: Any,
) -> PairsSummary:
    """Find what changed in each of many pairs; the same call again does what is left.

    One pair that fails does not stop the others; a full disk, lost workers and Ctrl-C do.

    Args:
        table: a CSV file with the columns before and after, and others: see `read_pairs`; or mappings like its rows.
        output: the folder for a result folder per pair, and for the summary.
        model: as for `run.detect`; a row may name another. Consecutive pairs with the same model load it once.
        classes: as for `run.detect`; a row may name others.
        overwrite: drop what earlier runs left of each pair.
        fail_fast: stop at the first pair that fails; the others wait.
        progress: called with (phase, done, total).
        each: called with the outcome of each pair, when it is known.
        command: what the user typed, for the records.
        **options: as for `run.detect`; a row may set others.

    Returns:
        The outcome of every row; failures are in there, and not raised.

    Raises:
        PairsError, InputError, UsageError: the list, or what is asked for all of it, cannot be meant; nothing is done.
        OutputError, DiskFull, WorkersLost, Interrupted: no pair could go on; what is done stays.
    """
    rows = read_pairs(table, common=options)
    folder = Path(output)
    tell = progress or (lambda phase, done, total: None)
    with workspace(folder) as space:
        _check_place(space, rows)
        run = _Run(space, rows, model, classes, dict(options), overwrite, tuple(command or ()), tell)
        return run.through(fail_fast, each or (lambda outcome: None))


def _check_place(space: Workspace, rows: Sequence[PairRow]) -> None:
    """Refuse a folder that is the result of a single pair, and names that lead out of it."""
    if space.plan is not None:
        raise OutputError(f"{space.output} is the result folder of one pair; choose another folder for a list of them")
    for row in rows:
        if (space.output / row.name).is_symlink():
            raise OutputError(f"{space.output / row.name} is a link and leads elsewhere; remove it, or rename the pair")


@dataclasses.dataclass
class _Run:
    """One way through the list."""

    space: Workspace
    rows: Sequence[PairRow]
    model: Model
    classes: str | Sequence[str] | None
    options: dict[str, Any]
    overwrite: bool
    command: tuple[str, ...]
    tell: Progress
    _loaded: tuple[tuple[str, str], Model] | None = None

    def through(self, fail_fast: bool, each: Callable[[PairOutcome], None]) -> PairsSummary:
        outcomes = self._remembered()
        summaries = Summaries(self.space.output)
        summaries.write(outcomes, now=True)
        try:
            self._check_model()
            for place, row in enumerate(self.rows):
                self.tell("pairs", place, len(self.rows))
                outcome = self._one(row)
                if outcome.reused and outcomes[place].seconds is not None:
                    outcome = dataclasses.replace(outcome, seconds=outcomes[place].seconds)
                outcomes[place] = outcome
                self._note(outcome)
                summaries.write(outcomes)
                each(outcome)
                if outcome.state == "failed" and fail_fast:
                    break
            else:
                self.tell("pairs", len(self.rows), len(self.rows))
        except KeyboardInterrupt:
            raise Interrupted("interrupted between two pairs; run the same command again to go on") from None
        finally:
            with suppress(OutputError):
                summaries.write(outcomes, now=True)
        return PairsSummary(self.space.output, tuple(outcomes))

    def _one(self, row: PairRow) -> PairOutcome:
        """Carry out one pair.

        Raises:
            Interrupted, DiskFull, WorkersLost: no other pair could do better.
        """
        started = time.perf_counter()
        outcome = _waiting(row)
        try:
            options = {**self.options, **row.options}
            result = engine.detect(
                row.before,
                row.after,
                output=self.space.output / row.name,
                model=self._model(row.model if row.model is not None else self.model, options),
                classes=row.classes if row.classes is not None else self.classes,
                overwrite=self.overwrite,
                progress=self.tell,
                command=self.command,
                **options,
            )
            return dataclasses.replace(_finished(outcome, result), seconds=round(time.perf_counter() - started, 3))
        except Interrupted as error:
            raise Interrupted(f"pair {row.name} (row {row.row}): {error}") from None
        except (DiskFull, WorkersLost):
            raise
        except Exception as error:
            kind, reason = type(error).__name__, str(error)
            if not isinstance(error, WasnowError):
                # A fault of ours with one pair is no reason to leave the others undone.
                reason = f"this is a bug in wasnow: {kind}: {error}; run it alone with --debug and report it"
                self._note_traceback(row, error)
            return dataclasses.replace(outcome, state="failed", reason=" ".join(reason.split()), error=kind)

    def _check_model(self) -> None:
        """What is wrong with the model of the whole list is no fault of each pair.

        Raises:
            UsageError, CheckpointError: there is no such model, or it cannot be loaded.
        """
        if isinstance(self.model, str) and any(row.model is None for row in self.rows):
            first = next(row for row in self.rows if row.model is None)
            self._model(self.model, {**self.options, **first.options})

    def _model(self, model: Model, options: Mapping[str, Any]) -> Model:
        """A model that is loaded once for all pairs in a row that want it; by name where workers load their own."""
        if not isinstance(model, str) or options.get("workers") or options.get("scheduler"):
            return model
        key = model, str(options.get("device", "auto"))
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None
            self._loaded = key, named_model(*key)
        return self._loaded[1]

    # --- the journal --------------------------------------------------------------------------------------------

    def _remembered(self) -> list[PairOutcome]:
        """What the journal says of each row, where the row still asks the same."""
        known: dict[tuple[str, str], PairOutcome] = {}
        fields = {field.name for field in dataclasses.fields(PairOutcome)}
        with suppress(FileNotFoundError), (self.space.folder / JOURNAL).open("rb") as journal:
            for line in journal:
                with suppress(ValueError, TypeError, AttributeError):
                    entry = PairOutcome(**{k: v for k, v in json.loads(line).items() if k in fields})
                    known[entry.name, entry.key] = entry
        outcomes = []
        for row in self.rows:
            found = known.get((row.name, row.key))
            there = found is not None and (found.state == "failed" or (self.space.output / row.name).is_dir())
            outcomes.append(dataclasses.replace(found, row=row.row) if found and there else _waiting(row))
        return outcomes

    def _note(self, outcome: PairOutcome) -> None:
        self._append({**dataclasses.asdict(outcome), "at": time.time()})

    def _note_traceback(self, row: PairRow, error: Exception) -> None:
        self._append({"bug": row.name, "traceback": "".join(traceback.format_exception(error))})

    def _append(self, entry: Mapping[str, Any]) -> None:
        append_line(self.space.folder / JOURNAL, json.dumps(entry).encode())


def _waiting(row: PairRow) -> PairOutcome:
    return PairOutcome(row.row, row.name, row.before, row.after, model=row.model, key=row.key)


def _finished(outcome: PairOutcome, result: ChangeMap) -> PairOutcome:
    pixels, share = result.record.pixels, result.changed_share
    flagged = ", ".join(sorted(pixels.not_processed))
    return dataclasses.replace(
        outcome,
        state="done" if result.complete else "partial",
        reason=None if result.complete else f"parts could not be read and are flagged ({flagged})",
        model=result.record.model.name,
        changed_area_m2=result.changed_area_m2,
        changed_share=None if share != share else share,
        changed_px=pixels.changed,
        not_processed_px=sum(pixels.not_processed.values()),
        polygons=result.record.polygons,
        reused=result.reused,
    )
