"""``wasnow demo``: the whole workflow on a rendered pair with ground truth, offline, in about a minute."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated

import typer

from wasnow._system import sigterm_as_interrupt
from wasnow.cli.console import DEBUG, QUIET, progress, verb
from wasnow.cli.detect import print_result
from wasnow.models.registry import DEFAULT

FROM_TO_ROWS = 6
"""Number of listed transitions, largest first."""


@verb
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the pair and the results.")] = Path(
        "demo-out"
    ),
    seed: Annotated[int, typer.Option(help="Seed of the scene.")] = 7,
    side: Annotated[int, typer.Option(help="Rows and columns of the scene.", min=64, max=8192)] = 1024,
    model: Annotated[str, typer.Option("--model", "-m", help="See wasnow models.")] = DEFAULT,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Render a synthetic aerial pair, detect change, and score the result against the ground truth."""
    from wasnow.evaluation.demo import render, score
    from wasnow.pipeline.api import detect
    from wasnow.synthetic import write_scene

    scene = render(seed, side)
    paths = write_scene(scene, output / "pair")
    with sigterm_as_interrupt(), progress(quiet) as report:
        result = detect(
            paths.before,
            paths.after,
            output=output / "result",
            model=model,
            overwrite=True,
            min_area=4.0,
            progress=report,
            command=("wasnow", *sys.argv[1:]),
        )
    if quiet:
        return
    print_result(result)
    scores = score(result, scene)
    binary = scores.binary
    typer.echo(
        f"\nThe scene is synthetic (rendered, seed {seed}, {side} x {side} px of {scene.gsd_m:g} m, two summers), "
        f"so its ground truth is known. {model} reaches precision {_formatted(binary.precision)}, "
        f"recall {_formatted(binary.recall)}, F1 {_formatted(binary.f1)} per pixel."
    )
    if scores.n_classes:
        rows = sorted(result.record.transitions, key=lambda row: -row.pixels)[:FROM_TO_ROWS]
        for row in rows:
            area = f"{row.area_m2:,.0f} m²" if row.area_m2 is not None else f"{row.pixels:,} px"
            typer.echo(f"  {f'{row.before} → {row.after}':<28}{area:>12} in {row.polygons} polygons")
        typer.echo(
            f"Transitions: Fscd {_formatted(scores.stacked.fscd)} and SeK "
            f"{_formatted(scores.stacked.sek)} for the classes of each date, "
            f"Fscd {_formatted(scores.from_to.fscd)} for transitions."
        )
    elif not result.vocabulary.words:
        typer.echo(
            f"{model} has no classes: it marks every unusual difference, including shadows and cars, "
            "which the ground truth does not count as change."
        )
    typer.echo("These scores do not apply to real images: try wasnow detect BEFORE AFTER -o OUT.")
    typer.echo(f"\nOpen {result.report.resolve().as_uri()} in a browser, and {result.geopackage} in QGIS.")


def _formatted(score: float) -> str:
    """Return two decimals, or ``undefined`` if nothing was predicted."""
    return "undefined" if math.isnan(score) else f"{score:.2f}"
