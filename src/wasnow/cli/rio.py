"""``rio wasnow``: the same as ``wasnow detect``, as a plugin of rasterio's command line."""

from __future__ import annotations

from pathlib import Path

import click

from wasnow.models.registry import DEFAULT


@click.command("wasnow", short_help="Detect change between two rasters.")
@click.argument("before")
@click.argument("after")
@click.argument("output", type=click.Path(file_okay=False, path_type=Path))
@click.option("--model", default=DEFAULT, show_default=True, help="See wasnow models.")
@click.option("--classes", default=None, help="Class words, such as 'water, building'.")
@click.option("--priors", default=None, help="Prior folder (wasnow priors) for a model that wants masks; or none.")
@click.option("--masker", default=None, help="Or what finds masks on the way: grounded-sam, sam3, clipseg.")
@click.option("--align", default="before", show_default=True, help="before, after, finest, or a raster file.")
@click.option("--bands", default=None, help="Bands of both rasters, as 1,2,3.")
@click.option("--gsd", type=float, default=None, help="Working resolution in metres.")
@click.option("--tile", type=int, default=None, help="Tile side in pixels.")
@click.option("--margin", type=int, default=None, help="Pixels of each tile seen but not kept.")
@click.option("--threshold", type=float, default=None, help="Change probability from which a pixel counts.")
@click.option("--min-area", type=float, default=0.0, show_default=True, help="Smallest polygon in m².")
@click.option("--allow-indirect", is_flag=True, help="Also read rasters that point to other files, such as VRT.")
@click.option("--keep-going", is_flag=True, help="Flag what cannot be read, and finish.")
@click.option("--workers", type=int, default=None, help="Processes of this machine that share the work.")
@click.option("--scheduler", default=None, help="Or the address of a dask cluster, such as tcp://host:8786.")
@click.option("--overwrite", is_flag=True, help="Drop an earlier run in the output folder.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
def wasnow(
    before: str,
    after: str,
    output: Path,
    model: str,
    classes: str | None,
    priors: str | None,
    masker: str | None,
    align: str,
    bands: str | None,
    gsd: float | None,
    tile: int | None,
    margin: int | None,
    threshold: float | None,
    min_area: float,
    allow_indirect: bool,
    keep_going: bool,
    workers: int | None,
    scheduler: str | None,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Detect change between BEFORE and AFTER and write a result folder OUTPUT; see wasnow detect --help for more."""
    import sys

    import typer

    from wasnow.cli.console import verb
    from wasnow.cli.detect import carry_out
    from wasnow.pipeline.parsing import parse_bands

    @verb
    def detect() -> None:
        carry_out(
            before,
            after,
            output,
            model=model,
            classes=classes,
            overwrite=overwrite,
            options={
                "priors": priors,
                "masker": masker,
                "align": align,
                "bands": parse_bands(bands),
                "gsd": gsd,
                "tile": tile,
                "margin": margin,
                "threshold": threshold,
                "min_area": min_area,
                "allow_indirect": allow_indirect,
                "keep_going": keep_going,
                "workers": workers,
                "scheduler": scheduler,
            },
            quiet=quiet,
            as_json=False,
            command=("rio", *sys.argv[1:]),
        )

    try:
        detect()
    except typer.Exit as leave:
        raise SystemExit(leave.exit_code) from None
