"""Detect change in all pairs of a list, one after the other. Finished pairs are kept, failures are listed.

    list.csv ──> rows, all checked first ──> for each: detect ──> OUT/NAME/
                                                  └──> journal line ──> OUT/summary.json, summary.csv, index.html

    OUT/.wasnow/
      lock, holder.json   one process at a time works on a list
      pairs.jsonl         one line per finished or failed pair

The result folder of a pair decides whether it is finished: detect returns it at once if it contains this run, and
notices changed inputs. The journal serves the summary, holds the reasons of failures, and the stamps of finished pairs
(`wasnow.batch.stamp`), so that unchanged pairs are not opened again.
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
from typing import Any, Unpack, cast

from wasnow.batch.stamp import Stamps
from wasnow.batch.summary import PAGE, SUMMARY, TABLE, PairOutcome, PairsSummary, SummaryWriter
from wasnow.batch.table import PairRow, read_pairs
from wasnow.errors import DiskFull, Interrupted, OutputError, WasnowError, WorkersLost, redacted
from wasnow.models import loading
from wasnow.models.contract import ChangeModel, SceneModel
from wasnow.models.registry import DEFAULT
from wasnow.output.change_map import ChangeMap
from wasnow.pipeline import api
from wasnow.pipeline.api import with_option_parameters
from wasnow.pipeline.options import OptionValues
from wasnow.pipeline.progress import Progress, no_progress
from wasnow.storage.atomic import append_line
from wasnow.storage.journal import Workspace, workspace
from wasnow.storage.ownership import STATE_FOLDER, check_claim, claim, is_record

JOURNAL = "pairs.jsonl"

Model = str | ChangeModel | SceneModel


@with_option_parameters
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
    **options: Unpack[OptionValues],
) -> PairsSummary:
    """Detect change in every pair of a list; the same call again continues with the rest.

    A pair that fails does not stop the others; a full disk, lost workers and Ctrl-C do.

    Args:
        table: a CSV file with the columns before and after and optional others, see `read_pairs`; or mappings like its
            rows.
        output: the folder for a result folder per pair and for the summary.
        model: as for `detect`, where a row names none. It is loaded once for consecutive pairs with the same model.
        classes: as for `detect`, where a row names none.
        overwrite: remove the results of earlier runs of each pair.
        fail_fast: stop at the first pair that fails.
        progress: called with (phase, done, total); the phase ``pairs`` counts the pairs.
        each: called with the outcome of each pair.
        command: what the user typed, for the records.
        **options: as for `detect`, where a row sets none.

    Returns:
        The outcome of every row, failures included.

    Raises:
        PairsError, InputError, UsageError: the list, or an option for all pairs, is not valid; nothing was done.
        OutputError, DiskFull, WorkersLost, Interrupted: no pair can continue; finished pairs are kept.
    """
    rows = read_pairs(table, common=cast("dict[str, Any]", options))
    folder = Path(output)
    summaries, listed = (SUMMARY, TABLE, PAGE), folder / STATE_FOLDER / JOURNAL
    proven = summaries if listed.is_file() or is_record(folder / SUMMARY, "format", "pairs") else ()
    check_claim(folder, summaries, proven=proven)
    with workspace(folder) as space:
        _check_folder(space, rows)
        claim(folder, summaries, proven=proven)
        run = _ListRun(space, rows, model, classes, options, overwrite, tuple(command or ()), progress or no_progress)
        return run.run(fail_fast, each or (lambda outcome: None))


def _check_folder(space: Workspace, rows: Sequence[PairRow]) -> None:
    """Refuse the result folder of a single pair, and links that lead out of the folder."""
    if space.plan is not None:
        raise OutputError(f"{space.output} is the result folder of one pair; choose another folder for a list of them")
    for row in rows:
        if (space.output / row.name).is_symlink():
            raise OutputError(f"{space.output / row.name} is a link to another folder; remove it, or rename the pair")


@dataclasses.dataclass
class _ListRun:
    """One run over the list."""

    space: Workspace
    rows: Sequence[PairRow]
    model: Model
    classes: str | Sequence[str] | None
    options: OptionValues
    overwrite: bool
    command: tuple[str, ...]
    progress: Progress
    _loaded: tuple[tuple[str, str], Model] | None = None
    _stamps: dict[tuple[str, str], str] = dataclasses.field(default_factory=dict)
    _stamper: Stamps = dataclasses.field(default_factory=Stamps)

    def run(self, fail_fast: bool, each: Callable[[PairOutcome], None]) -> PairsSummary:
        outcomes = self._from_journal()
        summaries = SummaryWriter(self.space.output)
        summaries.write(outcomes, now=True)
        try:
            self._check_model()
            for place, row in enumerate(self.rows):
                self.progress("pairs", place, len(self.rows))
                outcome = self._unchanged(row, outcomes[place])
                if outcome is None:
                    outcome = self._one(row)
                    if outcome.reused and outcomes[place].seconds is not None:
                        outcome = dataclasses.replace(outcome, seconds=outcomes[place].seconds)
                    self._note(outcome, self._stamp(row) if outcome.state == "done" else None)
                outcomes[place] = outcome
                summaries.write(outcomes)
                each(outcome)
                if outcome.state == "failed" and fail_fast:
                    break
            else:
                self.progress("pairs", len(self.rows), len(self.rows))
        except KeyboardInterrupt:
            raise Interrupted("interrupted between two pairs; run the same command again to continue") from None
        finally:
            with suppress(OutputError):
                summaries.write(outcomes, now=True)
        return PairsSummary(self.space.output, tuple(outcomes))

    def _unchanged(self, row: PairRow, earlier: PairOutcome) -> PairOutcome | None:
        """The earlier outcome of a finished pair whose files have not changed since; None for all others."""
        known = self._stamps.get((row.name, row.key))
        if self.overwrite or earlier.state != "done" or known is None or known != self._stamp(row):
            return None
        return dataclasses.replace(earlier, reused=True)

    def _stamp(self, row: PairRow) -> str | None:
        return self._stamper.of(
            row.before,
            row.after,
            self.space.output / row.name,
            model=row.model if row.model is not None else self.model,
            classes=row.classes if row.classes is not None else self.classes,
            options={**cast("dict[str, Any]", self.options), **row.options},
        )

    def _one(self, row: PairRow) -> PairOutcome:
        """Detect change in one pair.

        Raises:
            Interrupted, DiskFull, WorkersLost: the other pairs would fail too.
        """
        started = time.perf_counter()
        outcome = _waiting(row)
        try:
            options = cast("dict[str, Any]", {**self.options, **row.options})
            result = api.detect(
                row.before,
                row.after,
                output=self.space.output / row.name,
                model=self._model(row.model if row.model is not None else self.model, options),
                classes=row.classes if row.classes is not None else self.classes,
                overwrite=self.overwrite,
                progress=self.progress,
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
                # A bug that affects one pair must not stop the others.
                reason = f"this is a bug in wasnow: {kind}: {error}; run it alone with --debug and report it"
                self._note_traceback(row, error)
            return dataclasses.replace(outcome, state="failed", reason=redacted(" ".join(reason.split())), error=kind)

    def _check_model(self) -> None:
        """Report a problem with the model of the whole list once, not for each pair.

        Raises:
            UsageError, CheckpointError: it does not exist or cannot be loaded.
        """
        if isinstance(self.model, str) and any(row.model is None for row in self.rows):
            first = next(row for row in self.rows if row.model is None)
            self._model(self.model, {**cast("dict[str, Any]", self.options), **first.options})

    def _model(self, model: Model, options: Mapping[str, Any]) -> Model:
        """The model, loaded once for consecutive pairs; its name where workers load it themselves."""
        if not isinstance(model, str) or options.get("workers") or options.get("scheduler"):
            return model
        key = model, str(options.get("device", "auto"))
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None
            self._loaded = key, loading.load(model, device=key[1])
        return self._loaded[1]

    # --- the journal --------------------------------------------------------------------------------------------

    def _from_journal(self) -> list[PairOutcome]:
        """The outcome of each row in the journal, if the row is unchanged."""
        known: dict[tuple[str, str], PairOutcome] = {}
        fields = {field.name for field in dataclasses.fields(PairOutcome)}
        with suppress(FileNotFoundError), (self.space.folder / JOURNAL).open("rb") as journal:
            for line in journal:
                with suppress(ValueError, TypeError, AttributeError):
                    values = json.loads(line)
                    entry = PairOutcome(**{k: v for k, v in values.items() if k in fields})
                    known[entry.name, entry.key] = entry
                    self._stamps.pop((entry.name, entry.key), None)
                    if isinstance(stamp := values.get("stamp"), str):
                        self._stamps[entry.name, entry.key] = stamp
        outcomes = []
        for row in self.rows:
            found = known.get((row.name, row.key))
            there = found is not None and (found.state == "failed" or (self.space.output / row.name).is_dir())
            outcomes.append(dataclasses.replace(found, row=row.row) if found and there else _waiting(row))
        return outcomes

    def _note(self, outcome: PairOutcome, stamp: str | None) -> None:
        self._append({**dataclasses.asdict(outcome), "stamp": stamp, "at": time.time()})

    def _note_traceback(self, row: PairRow, error: Exception) -> None:
        self._append({"bug": row.name, "traceback": redacted("".join(traceback.format_exception(error)))})

    def _append(self, entry: Mapping[str, Any]) -> None:
        append_line(self.space.folder / JOURNAL, json.dumps(entry).encode(), durable=False)


def _waiting(row: PairRow) -> PairOutcome:
    return PairOutcome(row.row, row.name, redacted(row.before), redacted(row.after), model=row.model, key=row.key)


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
