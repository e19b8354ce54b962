"""``wasnow detect --pairs``: a list of pairs, with a line for each and the failures at the end."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from wasnow._system import sigterm_as_interrupt
from wasnow.cli.console import fail, print_json, progress
from wasnow.errors import EXIT_PARTIAL, EXIT_SOME_FAILED, Interrupted

if TYPE_CHECKING:
    from wasnow.batch import PairOutcome, PairsSummary

FAILURES_SHOWN = 20


def run_pairs(
    table: Path,
    output: Path,
    *,
    model: str,
    classes: str | None,
    overwrite: bool,
    fail_fast: bool,
    options: dict[str, Any],
    quiet: bool,
    as_json: bool,
    command: tuple[str, ...],
) -> None:
    """Detect change in every pair of a list with progress, and list the failures; exits with 7, 5 or 0.

    Args:
        table: the CSV file.
        output: folder for a result folder per pair.
        model: name or path, where a row names none.
        classes: class words, where a row names none.
        overwrite: remove earlier runs.
        fail_fast: stop at the first pair that fails.
        options: of the run, where a row sets none.
        quiet: print errors only.
        as_json: print one JSON object.
        command: what the user typed.
    """
    from wasnow.batch import detect_pairs

    def print_outcome(outcome: PairOutcome) -> None:
        if not (quiet or as_json):
            typer.echo(" ".join(f"{outcome.name}: {_outcome_text(outcome)}".split()))

    with sigterm_as_interrupt(), progress(quiet or as_json) as callback:
        try:
            summary = detect_pairs(
                table,
                output=output,
                model=model,
                classes=classes,
                overwrite=overwrite,
                fail_fast=fail_fast,
                progress=callback if sys.stderr.isatty() else _one_phase_per_pair(callback),
                each=print_outcome,
                command=command,
                **options,
            )
        except Interrupted as error:
            raise Interrupted(f"{error}: {shlex.join(command)}") from None
    if as_json:
        print_json(_as_facts(summary))
    elif not quiet:
        typer.echo(summary.summary())
        typer.echo(f"summary   {summary.page}")
        typer.echo(f"table     {summary.table}")
    _exit(summary)


def _one_phase_per_pair(callback: Callable[[str, int, int], None]) -> Callable[[str, int, int], None]:
    """For a log: the number of the pair and its blocks, instead of five phases per pair."""
    pair = ""

    def progress_of_pair(phase: str, done: int, total: int) -> None:
        nonlocal pair
        if phase == "pairs":
            pair = f"pair {done + 1:,} of {total:,}"
        elif phase == "detect":
            callback(pair, done, total)

    return progress_of_pair


def _outcome_text(outcome: PairOutcome) -> str:
    if outcome.state == "failed":
        return f"failed: {outcome.reason}"
    area = outcome.changed_area_m2
    amount = f"{outcome.changed_px or 0:,} px" if area is None else f"{area / 1e4:,.2f} ha"
    reused = ", finished before" if outcome.reused else ""
    return f"{amount} changed in {outcome.polygons or 0:,} polygons{reused}" + (
        f"; {outcome.reason}" if outcome.reason else ""
    )


def _as_facts(summary: PairsSummary) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "folder": str(summary.folder),
        "complete": summary.complete,
        "pairs": [asdict(each) for each in summary.pairs],
        "files": {path.name: str(path) for path in (summary.page, summary.table)},
    }


def _exit(summary: PairsSummary) -> None:
    """Print what failed and raise the matching exit code; returns if all pairs are done."""
    failed, waiting, partial = summary.of("failed"), summary.of("waiting"), summary.of("partial")
    for each in failed[:FAILURES_SHOWN]:
        fail(f"pair {each.name} (row {each.row}): {each.reason}")
    if failed:
        more = f", {len(failed) - FAILURES_SHOWN:,} more are in {summary.table}" if len(failed) > FAILURES_SHOWN else ""
        rest = f", {len(waiting):,} were not started (--fail-fast)" if waiting else ""
        fail(f"{len(failed):,} of {len(summary.pairs):,} pairs failed{more}{rest}; the same command tries them again")
        raise typer.Exit(EXIT_SOME_FAILED)
    if partial:
        names = ", ".join(each.name for each in partial[:5]) + (", ..." if len(partial) > 5 else "")
        fail(f"{len(partial):,} pairs have parts that could not be read and are flagged: {names}; see {summary.page}")
        raise typer.Exit(EXIT_PARTIAL)
