"""``wasnow demo``: the whole road on a rendered pair with known truth, offline, in a minute."""

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
"""Kinds of change that are listed, the largest first."""


@verb
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the pair and the results.")] = Path(
        "demo-out"
    ),
    seed: Annotated[int, typer.Option(help="Another number, another village.")] = 7,
    side: Annotated[int, typer.Option(help="Rows and columns of the scene.", min=64, max=8192)] = 1024,
    model: Annotated[str, typer.Option("--model", "-m", help="See wasnow models.")] = DEFAULT,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Render a synthetic aerial pair, detect what changed, and score it against the truth."""
    from wasnow.evaluation.demo import render, score
    from wasnow.pipeline.api import detect
    from wasnow.synthetic import write_scene

    scene = render(seed, side)
    paths = write_scene(scene, output / "pair")
    with sigterm_as_interrupt(), progress(quiet) as tell:
        result = detect(
            paths.before,
            paths.after,
            output=output / "result",
            model=model,
            overwrite=True,
            min_area=4.0,
            progress=tell,
            command=("wasnow", *sys.argv[1:]),
        )
    if quiet:
        return
    print_result(result)
    scores = score(result, scene)
    binary = scores.binary
    typer.echo(
        f"\nThe scene is synthetic (rendered, seed {seed}, {side} x {side} px of {scene.gsd_m:g} m, two summers), "
        f"so its truth is known. Against it {model} reaches precision {_told(binary.precision)}, "
        f"recall {_told(binary.recall)}, F1 {_told(binary.f1)} per pixel."
    )
    if scores.n_classes:
        rows = sorted(result.record.transitions, key=lambda row: -row.pixels)[:FROM_TO_ROWS]
        for row in rows:
            area = f"{row.area_m2:,.0f} m²" if row.area_m2 is not None else f"{row.pixels:,} px"
            typer.echo(f"  {f'{row.before} → {row.after}':<28}{area:>12} in {row.polygons} polygons")
        typer.echo(
            f"From what to what, against the same truth: Fscd {_told(scores.stacked.fscd)} and SeK "
            f"{_told(scores.stacked.sek)} of each date's class, Fscd {_told(scores.from_to.fscd)} of the transition."
        )
    elif not result.vocabulary.words:
        typer.echo(
            f"{model} knows no classes: it marks whatever differs beyond the ordinary, "
            "moved shadows and cars included, which this truth does not count as change."
        )
    typer.echo("Of real pairs that says little: try wasnow detect BEFORE AFTER -o OUT.")
    typer.echo(f"\nOpen {result.report.resolve().as_uri()} in a browser, and {result.geopackage} in QGIS.")


def _told(score: float) -> str:
    """Two decimals, or why there are none: nothing was found."""
    return "undefined" if math.isnan(score) else f"{score:.2f}"
