"""``wasnow demo``: the whole road on a rendered pair with known truth, offline, in a minute."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from wasnow.cli.console import DEBUG, QUIET, progress, terminated_like_interrupted, verb
from wasnow.cli.detect import tell_result


@verb
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the pair and the results.")] = Path(
        "demo-out"
    ),
    seed: Annotated[int, typer.Option(help="Another number, another village.")] = 7,
    side: Annotated[int, typer.Option(help="Rows and columns of the scene.", min=64, max=8192)] = 1024,
    model: Annotated[str, typer.Option("--model", "-m", help="See wasnow models.")] = "irmad",
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Render a synthetic aerial pair, detect what changed, and score it against the truth."""
    from wasnow import engine
    from wasnow.data.synthetic import write_scene
    from wasnow.demo import render, score

    scene = render(seed, side)
    paths = write_scene(scene, output / "pair")
    with terminated_like_interrupted(), progress(quiet) as tell:
        result = engine.detect(
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
    tell_result(result)
    binary = score(result, scene)
    typer.echo(
        f"\nThe scene is synthetic (rendered, seed {seed}, {side} x {side} px of {scene.gsd_m:g} m, two summers), "
        f"so its truth is known. Against it {model} reaches precision {binary.precision:.2f}, "
        f"recall {binary.recall:.2f}, F1 {binary.f1:.2f} per pixel. A real pair is another matter: "
        "try wasnow detect BEFORE AFTER -o OUT."
    )
    if model in ("irmad", "cva"):
        typer.echo(
            f"{model} knows no classes: it marks whatever differs beyond the ordinary, "
            "moved shadows and cars included, which this truth does not count as change."
        )
    typer.echo(f"\nOpen {result.report.resolve().as_uri()} in a browser, and {result.geopackage} in QGIS.")
