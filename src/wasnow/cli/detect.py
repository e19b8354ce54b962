"""``wasnow detect``: two rasters in, a result folder out."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wasnow._system import sigterm_as_interrupt
from wasnow.cli.console import DEBUG, JSON, QUIET, fail, print_json, progress, verb, warn
from wasnow.cli.options import option_values, with_run_options
from wasnow.errors import EXIT_PARTIAL, Interrupted, UsageError
from wasnow.models.registry import DEFAULT
from wasnow.pipeline.options import MODEL, RUN

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
    "  wasnow detect --pairs list.csv -o outdir/   # many pairs: a result folder for each, and a summary\n\n"
    "Run the same command again to resume. Open out/report.html when it is finished."
)


@verb
@with_run_options()
def detect(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Result folder; created if missing, resumed if unfinished.")
    ],
    before: Annotated[
        str | None, typer.Argument(help="The earlier raster, in any format that GDAL opens.", show_default=False)
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
            help="Class words, such as 'house, lake'; any words with an open-vocabulary model. Default: the model's.",
            rich_help_panel=MODEL,
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Remove the results of an earlier run in the folder.", rich_help_panel=RUN),
    ] = False,
    fail_fast: Annotated[
        bool,
        typer.Option("--fail-fast", help="With --pairs: stop at the first pair that fails.", rich_help_panel=RUN),
    ] = False,
    quiet: bool = QUIET,
    as_json: bool = JSON,
    debug: bool = DEBUG,
    **options: Any,
) -> None:
    """Detect change between two rasters of any CRS, size and band count."""
    check_inputs(before, after, pairs, fail_fast)
    values = option_values(options)
    command = ("wasnow", *sys.argv[1:])
    if pairs is not None:
        from wasnow.cli.pairs import run_pairs

        run_pairs(
            pairs,
            output,
            model=model,
            classes=classes,
            overwrite=overwrite,
            fail_fast=fail_fast,
            options=values,
            quiet=quiet,
            as_json=as_json,
            command=command,
        )
        return
    run_detect(
        str(before),
        str(after),
        output,
        model=model,
        classes=classes,
        overwrite=overwrite,
        options=values,
        quiet=quiet,
        as_json=as_json,
        command=command,
    )


def run_detect(
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
    """Run detect with a progress bar and print its result; exits with 5 if the result is partial.

    Args:
        before: the earlier raster.
        after: the later raster.
        output: the result folder.
        model: name or path.
        classes: class words, separated by commas.
        overwrite: remove an earlier run.
        options: of the run.
        quiet: print errors only.
        as_json: print one JSON object.
        command: what the user typed.
    """
    from wasnow.pipeline.api import detect

    with sigterm_as_interrupt(), progress(quiet or as_json) as callback:
        try:
            result = detect(
                before,
                after,
                output=output,
                model=model,
                classes=classes,
                overwrite=overwrite,
                progress=callback,
                command=command,
                **options,
            )
        except Interrupted as error:
            raise Interrupted(f"{error}: {shlex.join(command)}") from None
    if as_json:
        print_json(as_facts(result))
    elif not quiet:
        print_result(result)
    if not result.complete:
        fail(partial_reason(result))
        raise typer.Exit(EXIT_PARTIAL)


def partial_reason(result: ChangeMap) -> str:
    """Return what is flagged in a partial result, and what to do about it."""
    from wasnow.raster.pair import Reason

    reasons = result.record.pixels.not_processed
    flagged = f"are flagged ({', '.join(sorted(reasons))}); see {result.report}"
    if Reason.UNREADABLE.text in reasons:
        return f"parts could not be read and {flagged}; repair the files, then run again with --overwrite"
    return f"parts {flagged}; run the same command again, with fewer --workers if memory is short"


def print_result(result: ChangeMap) -> None:
    """Print warnings, the changed area, and the paths of the results."""
    for warning in result.record.warnings:
        warn(warning)
    if result.reused:
        typer.echo("nothing to do: this folder contains the finished results of this command", err=True)
    typer.echo(result.summary())
    typer.echo(f"report    {result.report}")
    typer.echo(f"map       {result.change}")
    typer.echo(f"polygons  {result.geopackage}")
    for name, path in zip(("before", "after"), result.landcover or (), strict=False):
        typer.echo(f"{name:<10}{path}")
    if (features := result.record.features) is not None:
        total = features.tiles_reused + features.tiles_encoded
        typer.echo(f"features  {features.tiles_reused} of {total} tiles read from {features.folder}")


def as_facts(result: ChangeMap) -> dict[str, Any]:
    """Return the result as JSON values."""
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


def check_inputs(before: str | None, after: str | None, pairs: Path | None, fail_fast: bool) -> None:
    """Check that either two rasters or a list of pairs is given.

    Args:
        before: the earlier raster.
        after: the later raster.
        pairs: the list.
        fail_fast: an option for lists.

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
