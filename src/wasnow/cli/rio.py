"""``rio wasnow``: ``wasnow detect`` as a plugin of rasterio's command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from wasnow.cli.options import click_options, option_values
from wasnow.models.registry import DEFAULT


def detect_command(
    before: str,
    after: str,
    output: Path,
    model: str,
    classes: str | None,
    overwrite: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Detect change between BEFORE and AFTER and write a result folder OUTPUT; see wasnow detect --help for more."""
    import sys

    import typer

    from wasnow.cli.console import prepare_process, verb
    from wasnow.cli.detect import run_detect

    prepare_process()

    @verb
    def detect() -> None:
        run_detect(
            before,
            after,
            output,
            model=model,
            classes=classes,
            overwrite=overwrite,
            options=option_values(options),
            quiet=quiet,
            as_json=False,
            command=("rio", *sys.argv[1:]),
        )

    try:
        detect()
    except typer.Exit as leave:
        raise SystemExit(leave.exit_code) from None


_command: Any = click_options(detect_command)
for _decorate in (
    click.option("--quiet", is_flag=True, help="Print errors only."),
    click.option("--overwrite", is_flag=True, help="Remove the results of an earlier run in the output folder."),
    click.option("--classes", default=None, help="Class words, such as 'water, building'."),
    click.option("--model", default=DEFAULT, show_default=True, help="A name of wasnow models, or a checkpoint."),
    click.argument("output", type=click.Path(file_okay=False, path_type=Path)),
    click.argument("after"),
    click.argument("before"),
):
    _command = _decorate(_command)
wasnow = click.command("wasnow", short_help="Detect change between two rasters.")(_command)
"""The command that rasterio finds through the entry point ``rasterio.rio_plugins``."""
