"""``wasnow detect --pairs``: a list of pairs, with a line for each and the failures at the end."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from wasnow.cli.console import fail, print_json, progress, terminated_like_interrupted
from wasnow.errors import EXIT_PARTIAL, EXIT_SOME_FAILED, Interrupted

if TYPE_CHECKING:
    from wasnow.batch import PairOutcome, PairsSummary

FAILURES_SHOWN = 20


def carry_out_pairs(
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
    """Work through the list, show progress, list the failures; leaves with the exit code of what became of it."""
    from wasnow.batch import detect_pairs

    def tell_pair(outcome: PairOutcome) -> None:
        if not (quiet or as_json):
            typer.echo(" ".join(f"{outcome.name}: {_amount(outcome)}".split()))

    with terminated_like_interrupted(), progress(quiet or as_json) as tell:
        try:
            summary = detect_pairs(
                table,
                output=output,
                model=model,
                classes=classes,
                overwrite=overwrite,
                fail_fast=fail_fast,
                progress=tell if sys.stderr.isatty() else _one_phase_a_pair(tell),
                each=tell_pair,
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
    _leave(summary)


def _one_phase_a_pair(tell: Callable[[str, int, int], None]) -> Callable[[str, int, int], None]:
    """For a log: which pair it is, and how far its blocks are, instead of five phases of each."""
    pair = ""

    def told(phase: str, done: int, total: int) -> None:
        nonlocal pair
        if phase == "pairs":
            pair = f"pair {done + 1:,} of {total:,}"
        elif phase == "detect":
            tell(pair, done, total)

    return told


def _amount(outcome: PairOutcome) -> str:
    if outcome.state == "failed":
        return f"failed: {outcome.reason}"
    area = outcome.changed_area_m2
    amount = f"{outcome.changed_px or 0:,} px" if area is None else f"{area / 1e4:,.2f} ha"
    known = ", as it was" if outcome.reused else ""
    return f"{amount} changed in {outcome.polygons or 0:,} polygons{known}" + (
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


def _leave(summary: PairsSummary) -> None:
    """Say what failed, and raise the exit code that says so too."""
    failed, waiting, partial = summary.of("failed"), summary.of("waiting"), summary.of("partial")
    for each in failed[:FAILURES_SHOWN]:
        fail(f"pair {each.name} (row {each.row}): {each.reason}")
    if failed:
        more = f", {len(failed) - FAILURES_SHOWN:,} more are in {summary.table}" if len(failed) > FAILURES_SHOWN else ""
        rest = f", {len(waiting):,} were not begun (--fail-fast)" if waiting else ""
        fail(f"{len(failed):,} of {len(summary.pairs):,} pairs failed{more}{rest}; the same command tries them again")
        raise typer.Exit(EXIT_SOME_FAILED)
    if partial:
        names = ", ".join(each.name for each in partial[:5]) + (", ..." if len(partial) > 5 else "")
        fail(f"{len(partial):,} pairs have parts that could not be read and are flagged: {names}; see {summary.page}")
        raise typer.Exit(EXIT_PARTIAL)
