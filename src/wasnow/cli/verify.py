"""``wasnow verify``: check that a result folder is complete and unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wasnow._system import sigterm_as_interrupt
from wasnow.cli.console import DEBUG, JSON, QUIET, fail, print_json, progress, verb
from wasnow.errors import EXIT_UNSOUND, InputError

if TYPE_CHECKING:
    from wasnow.output.verify import Verdict

EXAMPLES = (
    "[bold]Examples[/bold]\n\n"
    "  wasnow verify out/\n\n"
    "  wasnow verify out/ --inputs   # also compare the input rasters\n\n"
    "  wasnow verify archive/*/ --json   # many folders, for a program\n\n"
    "Exit codes: 0 no faults, 6 something is missing, changed or not valid, 3 a folder is not a result folder."
)


@verb
def verify(
    folders: Annotated[list[Path], typer.Argument(help="Result folders, or folders of pairs.", show_default=False)],
    inputs: Annotated[
        bool, typer.Option("--inputs", help="Also compare the input files with their recorded checksums.")
    ] = False,
    quiet: bool = QUIET,
    as_json: bool = JSON,
    debug: bool = DEBUG,
) -> None:
    """Check a result folder: all files present, unchanged, readable and consistent."""
    from wasnow.output import verify as checks

    verdicts: list[Verdict] = []
    refused: list[str] = []
    with sigterm_as_interrupt(), progress(quiet or as_json) as report:
        for folder in folders:
            try:
                verdicts.append(checks.verify(folder, inputs=inputs, progress=report))
            except InputError as error:
                refused.append(str(error))
    if as_json:
        print_json({"folders": [each.as_facts() for each in verdicts], "no_result_folders": refused})
    else:
        for each in verdicts:
            print_verdict(each, quiet)
    for message in refused:
        fail(message)
    if refused:
        raise typer.Exit(InputError.exit_code)
    if not all(each.sound for each in verdicts):
        raise typer.Exit(EXIT_UNSOUND)


def print_verdict(verdict: Verdict, quiet: bool) -> None:
    """Print one line per finding and a summary; only findings if quiet."""
    for finding in verdict.findings:
        typer.echo(" ".join(f"{verdict.folder}/{finding}".split()))
    for each in verdict.pairs:
        print_verdict(each, quiet or each.sound)
    if quiet:
        return
    for note in verdict.notes:
        typer.echo(" ".join(f"{verdict.folder}: note: {note}".split()))
    typer.echo(f"{verdict.folder}: {_summary(verdict)}")


def _summary(verdict: Verdict) -> str:
    faults = len(verdict.findings)
    if verdict.pairs:
        wrong = sum(not each.sound for each in verdict.pairs)
        right = len(verdict.pairs) - wrong
        return f"{right:,} result folders are valid, {wrong:,} are not, {faults:,} pairs have none"
    if not faults:
        return f"all {len(verdict.right)} files are valid"
    return f"{len(verdict.right)} files are valid, {faults} finding{'s' * (faults != 1)}"
