"""``wasnow sample``: draw points from a result folder, to be labelled as reference data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wasnow._system import sigterm_as_interrupt
from wasnow.cli.console import DEBUG, JSON, QUIET, print_json, progress, verb, warn
from wasnow.errors import UsageError

EXAMPLES = (
    "[bold]Examples[/bold]\n\n"
    "  wasnow sample out/ -o sample/ --points 400\n\n"
    "  wasnow sample out/ -o sample/ --target building:20%   # as many as the area of new buildings needs\n\n"
    "  wasnow sample out/ -o sample/ --points 500 --buffer 10 --allocation neyman"
)


@verb
def sample(
    result: Annotated[Path, typer.Argument(help="Result folder of wasnow detect.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Sample folder; created if missing.")],
    points: Annotated[
        int | None, typer.Option(min=2, help="Number of points. Default: what the targets need.", show_default=False)
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="Wanted margin of an area, as CLASS:PERCENT or 'FROM → TO:PERCENT'. Repeatable.", show_default=False
        ),
    ] = None,
    buffer: Annotated[
        float | None,
        typer.Option(
            help="Reach of the buffer around mapped change, in metres (pixels without a CRS). Default: 5 pixels.",
            show_default=False,
        ),
    ] = None,
    evidence: Annotated[
        float | None,
        typer.Option(
            help="Change probability from which unchanged pixels belong to the buffer. Default: half the threshold.",
            show_default=False,
        ),
    ] = None,
    allocation: Annotated[str, typer.Option(help="proportional, equal, neyman or balanced.")] = "balanced",
    floor: Annotated[int, typer.Option(min=2, help="Fewest points per stratum.")] = 30,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw; the same seed draws the same points.")] = 0,
    quiet: bool = QUIET,
    as_json: bool = JSON,
    debug: bool = DEBUG,
) -> None:
    """Draw a stratified random sample of a result, for labelling.

    Prints the precision to expect before anybody labels. Points and strata are written to separate files, so that
    labelling is blind.
    """
    from wasnow.areas.allocation import ALLOCATIONS
    from wasnow.areas.sample import draw_sample
    from wasnow.output.change_map import ChangeMap

    method = next((each for each in ALLOCATIONS if each == allocation), None)
    if method is None:
        raise UsageError(f"--allocation {allocation!r} is unknown; choose one of {', '.join(ALLOCATIONS)}")
    with sigterm_as_interrupt(), progress(quiet or as_json) as report:
        made = draw_sample(
            ChangeMap.open(result),
            output,
            points=points,
            targets=parse_targets(target or []),
            buffer=buffer,
            evidence=evidence,
            allocation=method,
            floor=floor,
            seed=seed,
            progress=report,
        )
    if as_json:
        print_json(made.design.model_dump(mode="json"))
        return
    for row in made.design.strata:
        if row.points < 30:
            warn(f"stratum {row.name!r} has {row.points} points; below 30 its estimates are unstable")
    if quiet:
        return
    total = sum(row.points for row in made.design.strata)
    typer.echo(f"{total} points in {len(made.design.strata)} strata")
    for row in made.design.strata:
        ground = f"{row.area_m2 / 1e4:>12,.1f} ha" if row.area_m2 is not None else f"{row.units:>12,} px"
        typer.echo(f"  {row.points:>5}  {ground}  {row.name}")
    typer.echo("expected margin of the area (95 %), if the usual shares of errors hold:")
    for name, each in made.margins:
        typer.echo(f"  ± {each.margin:>5.0%}  {name} ({each.hits:.0f} points expected)")
    typer.echo(f"label {output / 'points.gpkg'} or run wasnow label {output}; then wasnow areas {output} -o areas/")


def parse_targets(texts: list[str]) -> dict[str, float]:
    """``["building:20%"]`` to ``{"building": 0.2}``.

    Raises:
        UsageError: a text has another form.
    """
    found = {}
    for text in texts:
        name, _, number = text.rpartition(":")
        try:
            found[name.strip()] = float(number.strip().removesuffix("%")) / 100
        except ValueError:
            name = ""
        if not name:
            raise UsageError(f"--target {text!r} is invalid; write CLASS:PERCENT, such as building:20%")
    return found
