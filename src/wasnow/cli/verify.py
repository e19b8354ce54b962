"""``wasnow verify``: is a result folder still what the run wrote?"""

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
    "  wasnow verify out/ --inputs   # are the rasters it was made from the same, too?\n\n"
    "  wasnow verify archive/*/ --json   # many folders, for a program\n\n"
    "Exit codes: 0 all is right, 6 something is missing, changed or not valid, 3 a folder is no result folder."
)


@verb
def verify(
    folders: Annotated[list[Path], typer.Argument(help="Result folders, or those of many pairs.", show_default=False)],
    inputs: Annotated[
        bool, typer.Option("--inputs", help="Also compare the input files, where they still are, with their checksums.")
    ] = False,
    quiet: bool = QUIET,
    as_json: bool = JSON,
    debug: bool = DEBUG,
) -> None:
    """Check a result folder: every file there, unchanged, readable, and in agreement with the others."""
    from wasnow.output import verify as checks

    verdicts: list[Verdict] = []
    strangers: list[str] = []
    with sigterm_as_interrupt(), progress(quiet or as_json) as tell:
        for folder in folders:
            try:
                verdicts.append(checks.verify(folder, inputs=inputs, progress=tell))
            except InputError as error:
                strangers.append(str(error))
    if as_json:
        print_json({"folders": [each.as_facts() for each in verdicts], "no_result_folders": strangers})
    else:
        for each in verdicts:
            tell_verdict(each, quiet)
    for stranger in strangers:
        fail(stranger)
    if strangers:
        raise typer.Exit(InputError.exit_code)
    if not all(each.sound for each in verdicts):
        raise typer.Exit(EXIT_UNSOUND)


def tell_verdict(verdict: Verdict, quiet: bool) -> None:
    """One line per finding, then the sum; only findings when quiet."""
    for finding in verdict.findings:
        typer.echo(" ".join(f"{verdict.folder}/{finding}".split()))
    for each in verdict.pairs:
        tell_verdict(each, quiet or each.sound)
    if quiet:
        return
    for note in verdict.notes:
        typer.echo(" ".join(f"{verdict.folder}: note: {note}".split()))
    typer.echo(f"{verdict.folder}: {_sum(verdict)}")


def _sum(verdict: Verdict) -> str:
    faults = len(verdict.findings)
    if verdict.pairs:
        wrong = sum(not each.sound for each in verdict.pairs)
        right = len(verdict.pairs) - wrong
        return f"{right:,} result folders are right, {wrong:,} are not, {faults:,} pairs have none"
    if not faults:
        return f"all {len(verdict.right)} files are right"
    return f"{len(verdict.right)} files are right, {faults} finding{'s' * (faults != 1)}"
