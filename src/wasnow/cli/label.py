"""``wasnow label``: label the points of a sample, in a browser on this machine or by importing a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wasnow.cli.console import DEBUG, QUIET, verb
from wasnow.cli.review import BROWSER, PORT, announce, check_extra
from wasnow.errors import UsageError

EXAMPLES = (
    "[bold]Examples[/bold]\n\n"
    "  wasnow label sample/\n\n"
    "  wasnow label sample/ --class orchard   # a class that the map does not have\n\n"
    "  wasnow label sample/ --import sample/points.gpkg   # labels made in QGIS\n\n"
    "  wasnow label sample/ --import ceo.csv --question-before 'Cover 2009' --question-after 'Cover 2017'"
)


@verb
def label(
    sample: Annotated[Path, typer.Argument(help="Sample folder of wasnow sample.", show_default=False)],
    before: Annotated[Path | None, typer.Option(help="Image of the first date.", show_default=False)] = None,
    after: Annotated[Path | None, typer.Option(help="Image of the second date.", show_default=False)] = None,
    more: Annotated[
        list[str] | None, typer.Option("--class", help="A further class. Repeatable.", show_default=False)
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option("--import", help="Add the labels of a CSV, vector file or CEO export.", show_default=False),
    ] = None,
    question_before: Annotated[
        str | None, typer.Option(help="CEO's question about the first date.", show_default=False)
    ] = None,
    question_after: Annotated[
        str | None, typer.Option(help="CEO's question about the second date.", show_default=False)
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--column", help="Column of the table, as FIELD=COLUMN, such as before=lc_2009.", show_default=False
        ),
    ] = None,
    port: int = PORT,
    browser: bool = BROWSER,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Label the points of a sample without seeing the map.

    Every label is saved at once; the next start goes on with the unlabelled points. Stop with Ctrl-C.
    """
    if table is not None:
        _import(sample, table, question_before, question_after, columns or [], quiet=quiet)
        return
    check_extra()
    from wasnow.review.label_app import label_app
    from wasnow.review.label_project import LabelProject
    from wasnow.review.serve import serve

    project = LabelProject(sample, before=before, after=after, classes=tuple(more or ()))
    try:
        serve(
            sample,
            lambda token, number: label_app(project, token, number),
            port=port,
            ready=lambda address: announce(address, browser=browser, quiet=quiet),
        )
    finally:
        project.close()


def _import(
    sample: Path,
    table: Path,
    question_before: str | None,
    question_after: str | None,
    columns: list[str],
    *,
    quiet: bool,
) -> None:
    from wasnow.areas.design import Design
    from wasnow.areas.labels import add_label, labels_of_ceo, labels_of_table

    Design.read(sample)
    if (question_before is None) != (question_after is None):
        raise UsageError("give both --question-before and --question-after, or neither")
    if question_before is not None and question_after is not None:
        found = labels_of_ceo(table, before=question_before, after=question_after)
    else:
        pairs = [each.partition("=") for each in columns]
        if wrong := [name for name, sign, column in pairs if not (name and sign and column)]:
            raise UsageError(f"--column {wrong[0]!r} is invalid; write FIELD=COLUMN, such as before=lc_2009")
        found = labels_of_table(table, columns={name: column for name, _, column in pairs})
    for each in found:
        add_label(sample, each)
    if not quiet:
        typer.echo(f"{len(found)} labels added to {sample / 'labels.csv'}")
