"""``wasnow areas``: areas and accuracies with confidence intervals, from a labelled sample."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wasnow.cli.console import DEBUG, JSON, QUIET, print_json, verb, warn

EXAMPLES = (
    "[bold]Examples[/bold]\n\n"
    "  wasnow areas sample/ -o areas/\n\n"
    "  wasnow areas sample/ -o areas/ --map out/   # also check that the map is still the sampled one"
)


@verb
def areas(
    sample: Annotated[Path, typer.Argument(help="Sample folder with labels.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report; created if missing.")],
    map_folder: Annotated[
        Path | None,
        typer.Option("--map", help="Result folder that the sample was drawn from, to check it.", show_default=False),
    ] = None,
    quiet: bool = QUIET,
    as_json: bool = JSON,
    debug: bool = DEBUG,
) -> None:
    """Estimate areas of change and the accuracy of the map from reference labels.

    Writes areas.html, areas.json, areas.csv, error_matrix.csv and areas.tex.
    """
    import json

    from wasnow.areas.assess import assess
    from wasnow.areas.report import HTML, sentence, write_report
    from wasnow.areas.report import as_json as facts

    found = assess(sample, map_folder=map_folder)
    write_report(output, found)
    if as_json:
        print_json(json.loads(facts(found)))
        return
    for warning in found.transitions.warnings:
        warn(warning)
    if quiet:
        return
    overall = found.transitions.overall_accuracy
    typer.echo(sentence(found))
    typer.echo(f"overall accuracy {overall.value:.1%} ± {1.96 * overall.standard_error:.1%}")
    typer.echo(f"report    {output / HTML}")
