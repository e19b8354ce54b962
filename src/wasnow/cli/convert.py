"""``wasnow convert``: convert published weights to a checkpoint."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wasnow.cli.console import DEBUG, JSON, QUIET, print_json, verb

EXAMPLES = (
    "[bold]Examples[/bold]\n\n"
    "  wasnow convert BiSRNet_SECOND.pth --model bisrnet -o bisrnet.safetensors\n\n"
    "  wasnow convert landsat.pth --model sscd-l --classes 'farmland, desert, building, water' "
    "--normalisation landsat-scd -o landsat.safetensors\n\n"
    "  wasnow detect before.tif after.tif --model bisrnet.safetensors -o out/"
)


@verb
def convert(
    weights: Annotated[Path, typer.Argument(help="The published file: .pth or .safetensors.")],
    model: Annotated[str, typer.Option("--model", "-m", help="The network of the weights.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The checkpoint to write.", show_default=False)],
    classes: Annotated[
        str | None,
        typer.Option(help="Class words of the weights, in order: 'water, building'. [default: the published ones]"),
    ] = None,
    normalisation: Annotated[
        str | None,
        typer.Option(help="imagenet, second, landsat-scd or none. [default: the published one]"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    quiet: bool = QUIET,
    as_json: bool = JSON,
    debug: bool = DEBUG,
) -> None:
    """Convert published weights to a checkpoint. Tensors are renamed only; code in the file is never executed."""
    from wasnow.models.published.convert import convert as convert_weights
    from wasnow.vocabulary import Vocabulary

    words = None if classes is None else Vocabulary.parse(classes).words
    made = convert_weights(weights, model, output, classes=words, normalisation=normalisation, overwrite=overwrite)
    if as_json:
        print_json({**asdict(made), "path": str(made.path)})
    elif not quiet:
        typer.echo(f"{made.path}: {made.model}, {made.parameters / 1e6:.2f} million parameters")
        typer.echo(f"classes: {', '.join(made.classes)}; normalisation: {made.normalisation}")
