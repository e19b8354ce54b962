"""``wasnow detect``: two rasters in, a result folder out."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wasnow.cli.console import (
    DEBUG,
    JSON,
    QUIET,
    fail,
    print_json,
    progress,
    terminated_like_interrupted,
    verb,
    warn,
)
from wasnow.errors import EXIT_PARTIAL, Interrupted, UsageError
from wasnow.models.registry import DEFAULT
from wasnow.pipeline.parsing import parse_bands, parse_thresholds

if TYPE_CHECKING:
    from wasnow.output.change_map import ChangeMap

EXAMPLES = (
    "[bold]Examples[/bold]\n\n"
    "  wasnow detect 2009.tif 2017.tif -o out/\n\n"
    "  wasnow detect before.tif after.tif -o out/ --classes 'house, lake, forest, asphalt' --min-area 50\n\n"
    "  wasnow detect before.tif after.tif -o out/ --model runs/sam-cd --priors priors/   # see wasnow priors\n\n"
    "  wasnow detect before.tif after.tif -o out/ --model irmad   # any bands, no classes\n\n"
    "  wasnow detect before.tif after.tif -o out/ --workers 8   # or a cluster: --scheduler tcp://head:8786\n\n"
    "  wasnow detect before.jpg after.jpg -o out/ --gsd 0.3   # images without CRS\n\n"
    "  wasnow detect --pairs list.csv -o outdir/   # many pairs, a result folder and a row of the summary for each\n\n"
    "Run the same command again to resume; open out/report.html when it is done."
)

GRID, MODEL, POLYGONS, RUN = "Where pixels lie", "How change is found", "Polygons", "The run"


@verb
def detect(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Result folder; made if need be, resumed if unfinished.")
    ],
    before: Annotated[
        str | None, typer.Argument(help="The earlier raster: anything GDAL opens.", show_default=False)
    ] = None,
    after: Annotated[
        str | None, typer.Argument(help="The later raster; its grid may differ.", show_default=False)
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            help="Instead of two rasters: a CSV file with the columns before and after, and a row for each pair.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="A name of wasnow models, a checkpoint, or a run folder.", rich_help_panel=MODEL
        ),
    ] = DEFAULT,
    classes: Annotated[
        str | None,
        typer.Option(
            help="Class words, any that you like, such as 'house, lake'; the model's own if left out.",
            rich_help_panel=MODEL,
            show_default=False,
        ),
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NUMBER | WORD=NUMBER",
            help="Change probability from which a pixel counts; the model's own if left out. "
            "Also per class, repeated: building=0.7.",
            rich_help_panel=MODEL,
            show_default=False,
        ),
    ] = None,
    landcover: Annotated[
        bool,
        typer.Option("--landcover", help="Also write the class maps of both dates, unmasked.", rich_help_panel=MODEL),
    ] = False,
    priors: Annotated[
        str | None,
        typer.Option(
            help="For a model that wants masks: the folder of wasnow priors; or none.",
            rich_help_panel=MODEL,
            show_default=False,
        ),
    ] = None,
    masker: Annotated[
        str | None,
        typer.Option(
            help="Or what finds them on the way: grounded-sam, sam3, clipseg.",
            rich_help_panel=MODEL,
            show_default=False,
        ),
    ] = None,
    masker_weights: Annotated[
        list[str] | None,
        typer.Option(help="Its weights, as wasnow priors --weights.", rich_help_panel=MODEL, show_default=False),
    ] = None,
    masks: Annotated[
        list[str] | None,
        typer.Option(
            help="Or masks of your own: a raster, polygons or a folder; twice for one per date.",
            rich_help_panel=MODEL,
            show_default=False,
        ),
    ] = None,
    bands: Annotated[
        str | None,
        typer.Option(help="Bands of both rasters, as 1,2,3; by colour if left out.", rich_help_panel=MODEL),
    ] = None,
    stretch: Annotated[
        str,
        typer.Option(help="auto, or LOW,HIGH: the numbers shown as black and white.", rich_help_panel=MODEL),
    ] = "auto",
    align: Annotated[
        str, typer.Option(help="Grid of the results: before, after, finest, or a raster file.", rich_help_panel=GRID)
    ] = "before",
    assume_crs: Annotated[
        str | None, typer.Option(help="CRS of a raster that does not say its own.", rich_help_panel=GRID)
    ] = None,
    gsd: Annotated[
        float | None,
        typer.Option(
            help="Working resolution in metres; for images without CRS the size of their pixels.",
            rich_help_panel=GRID,
        ),
    ] = None,
    grid: Annotated[
        str, typer.Option(help="Write results on the target or the working grid.", rich_help_panel=GRID)
    ] = "target",
    tile: Annotated[
        int | None, typer.Option(help="Tile side in pixels; the model's own if left out.", rich_help_panel=RUN)
    ] = None,
    margin: Annotated[
        int | None, typer.Option(help="Pixels of each tile seen but not kept.", rich_help_panel=RUN)
    ] = None,
    blend: Annotated[
        bool, typer.Option("--blend", help="Weigh overlapping tiles instead of cropping them.", rich_help_panel=RUN)
    ] = False,
    batch: Annotated[int, typer.Option(help="Tiles per call of the model.", rich_help_panel=RUN)] = 1,
    min_area: Annotated[
        float, typer.Option(help="Smallest polygon: m², or pixels without CRS.", rich_help_panel=POLYGONS)
    ] = 0.0,
    connectivity: Annotated[
        int, typer.Option(help="4, or 8 to join pixels that touch at a corner.", rich_help_panel=POLYGONS)
    ] = 4,
    simplify: Annotated[
        float | None,
        typer.Option(
            help="Tolerance of outlines: m, or pixels without CRS; shared borders stay shared.",
            rich_help_panel=POLYGONS,
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, openvino: where a network runs.", rich_help_panel=RUN)
    ] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            metavar="32|bf16",
            help="bf16: a network about twice as fast, with slightly other numbers.",
            rich_help_panel=RUN,
        ),
    ] = "32",
    keep_features: Annotated[
        Path | None,
        typer.Option(
            help="Folder for image features: other words are then answered without looking again.",
            rich_help_panel=RUN,
            show_default=False,
        ),
    ] = None,
    features_limit: Annotated[
        float, typer.Option(help="What that folder may take, in GB; the oldest go first.", rich_help_panel=RUN)
    ] = 20.0,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes of this machine that share the work; this one alone if left out.",
            rich_help_panel=RUN,
            show_default=False,
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS|local",
            help="Have the workers of a dask cluster share it: tcp://host:8786; local starts one with --workers.",
            rich_help_panel=RUN,
            show_default=False,
        ),
    ] = None,
    date_before: Annotated[
        str | None, typer.Option(help="YYYY, YYYY-MM or YYYY-MM-DD; the file's own if left out.", rich_help_panel=RUN)
    ] = None,
    date_after: Annotated[str | None, typer.Option(help="Likewise.", rich_help_panel=RUN)] = None,
    allow_indirect: Annotated[
        bool,
        typer.Option(
            "--allow-indirect",
            help="Also read rasters that point to other files or servers: VRT, WMS, product descriptions.",
            rich_help_panel=RUN,
        ),
    ] = False,
    keep_going: Annotated[
        bool,
        typer.Option("--keep-going", help="Flag what cannot be read, finish, and exit with 5.", rich_help_panel=RUN),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Drop an earlier run in the result folder.", rich_help_panel=RUN)
    ] = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="With --pairs: stop at the first that fails.", rich_help_panel=RUN)
    ] = False,
    quiet: bool = QUIET,
    as_json: bool = JSON,
    debug: bool = DEBUG,
) -> None:
    """Find where the ground changed between two rasters, of any CRS, size and band count."""
    check_what_is_given(before, after, pairs, fail_fast)
    common, of_class = parse_thresholds(threshold or ())
    options: dict[str, Any] = {
        "threshold": common,
        "class_thresholds": of_class,
        "landcover": landcover,
        "bands": parse_bands(bands),
        "stretch": stretch,
        "align": align,
        "assume_crs": assume_crs,
        "gsd": gsd,
        "grid": grid,
        "tile": tile,
        "margin": margin,
        "blend": blend,
        "batch": batch,
        "min_area": min_area,
        "connectivity": connectivity,
        "simplify": simplify,
        "date_before": date_before,
        "date_after": date_after,
        "allow_indirect": allow_indirect,
        "keep_going": keep_going,
        "device": device,
        "precision": precision,
        "keep_features": keep_features,
        "features_limit": features_limit,
        "priors": priors,
        "masker": masker,
        "masker_weights": tuple(masker_weights or ()) or None,
        "masks": tuple(masks or ()) or None,
        "workers": workers,
        "scheduler": scheduler,
    }
    if pairs is not None:
        from wasnow.cli.pairs import carry_out_pairs

        carry_out_pairs(
            pairs,
            output,
            model=model,
            classes=classes,
            overwrite=overwrite,
            fail_fast=fail_fast,
            options=options,
            quiet=quiet,
            as_json=as_json,
            command=("wasnow", *sys.argv[1:]),
        )
        return
    carry_out(
        str(before),
        str(after),
        output,
        model=model,
        classes=classes,
        overwrite=overwrite,
        options=options,
        quiet=quiet,
        as_json=as_json,
        command=("wasnow", *sys.argv[1:]),
    )


def carry_out(
    before: str,
    after: str,
    output: Path,
    *,
    model: str,
    classes: str | None,
    overwrite: bool,
    options: dict[str, Any],
    quiet: bool,
    as_json: bool,
    command: tuple[str, ...],
) -> None:
    """Run, show progress, say what came out; leaves with the exit code of a partial run."""
    from wasnow.pipeline import run

    with terminated_like_interrupted(), progress(quiet or as_json) as tell:
        try:
            result = run.detect(
                before,
                after,
                output=output,
                model=model,
                classes=classes,
                overwrite=overwrite,
                progress=tell,
                command=command,
                **options,
            )
        except Interrupted as error:
            raise Interrupted(f"{error}: {shlex.join(command)}") from None
    if as_json:
        print_json(as_facts(result))
    elif not quiet:
        tell_result(result)
    if not result.complete:
        fail(why_partial(result))
        raise typer.Exit(EXIT_PARTIAL)


def why_partial(result: ChangeMap) -> str:
    """What is flagged in a result that is not complete, and what to do about it."""
    from wasnow.raster.pair import Reason

    reasons = result.record.pixels.not_processed
    found = f"are flagged ({', '.join(sorted(reasons))}); see {result.report}"
    if Reason.UNREADABLE.text in reasons:
        return f"parts could not be read and {found}; repair the files, then run again with --overwrite"
    return f"parts {found}; run the same command again, with fewer --workers where memory is short, to try them anew"


def tell_result(result: ChangeMap) -> None:
    """For a person: warnings, the sum, where to look."""
    for warning in result.record.warnings:
        warn(warning)
    if result.reused:
        typer.echo("nothing to do: this folder holds the results of this very command", err=True)
    typer.echo(result.summary())
    typer.echo(f"report    {result.report}")
    typer.echo(f"map       {result.change}")
    typer.echo(f"polygons  {result.geopackage}")
    for name, path in zip(("before", "after"), result.landcover or (), strict=False):
        typer.echo(f"{name:<10}{path}")
    if (features := result.record.features) is not None:
        total = features.tiles_reused + features.tiles_encoded
        typer.echo(f"features  {features.tiles_reused} of {total} tiles answered from {features.folder}")


def as_facts(result: ChangeMap) -> dict[str, Any]:
    """For a program: the same."""
    record = result.record
    return {
        "folder": str(result.folder),
        "status": record.status,
        "reused": result.reused,
        "changed_share": None if result.changed_share != result.changed_share else result.changed_share,
        "changed_area_m2": result.changed_area_m2,
        "pixels": record.pixels.model_dump(),
        "polygons": record.polygons,
        "features": record.features.model_dump() if record.features is not None else None,
        "warnings": list(record.warnings),
        "files": {each.name: str(result.folder / each.name) for each in record.outputs},
    }


def check_what_is_given(before: str | None, after: str | None, pairs: Path | None, fail_fast: bool) -> None:
    """Two rasters, or a list of pairs, and not half of either.

    Raises:
        UsageError: anything else.
    """
    if pairs is not None and before is not None:
        raise UsageError(f"--pairs {pairs} and {before} are both given: give a list of pairs, or two rasters")
    if pairs is None and after is None:
        found = f"only {before} is given" if before is not None else "no raster is given"
        raise UsageError(f"{found}: write wasnow detect BEFORE AFTER -o OUT, or wasnow detect --pairs LIST.csv -o OUT")
    if fail_fast and pairs is None:
        raise UsageError("--fail-fast is for a list of pairs: leave it out, or give --pairs LIST.csv")
