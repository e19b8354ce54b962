"""``wasnow weights``: list CLIP weights; ``wasnow weights get``: download or convert them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wasnow.cli.console import DEBUG, JSON, QUIET, print_json, verb, warn

app = typer.Typer(help="List CLIP weights, or get some.", invoke_without_command=True)

EXAMPLES = (
    "[bold]Examples[/bold]\n\n"
    "  wasnow weights get remoteclip-vit-l-14\n\n"
    "  wasnow weights get remoteclip-vit-l-14 --from RemoteCLIP-ViT-L-14.pt\n\n"
    "  wasnow weights get --from my-clip.pt --name mine --activation gelu"
)


@app.callback()
@verb
def weights(context: typer.Context, as_json: bool = JSON, debug: bool = DEBUG) -> None:
    """List the weights in the cache, and those that can be downloaded by name."""
    if context.invoked_subcommand is not None:
        return
    from wasnow.models.clip_weights.known import KNOWN
    from wasnow.models.clip_weights.store import cache, describe, stored

    here = stored()
    missing = [name for name in KNOWN if name not in {one.name for one in here}]
    if as_json:
        print_json({"cache": str(cache()), "here": [describe(one) for one in here], "can_be_fetched": missing})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("name", "size", "activation", "source"):
        table.add_column(column, overflow="fold")
    for one in here:
        checked = "" if one.verified else ", not verified"
        table.add_row(one.name, f"{one.size / 1e9:.2f} GB", one.config.activation, one.source + checked)
    for name in missing:
        source = KNOWN[name]
        table.add_row(name, "not here", source.activation or "unknown", f"{source.repo} {source.file}")
    console = Console()
    console.print(table)
    console.print(f"cache: {cache()}; download with wasnow weights get NAME", highlight=False, soft_wrap=True)


@app.command(epilog=EXAMPLES)
@verb
def get(
    name: Annotated[str | None, typer.Argument(help="A name that wasnow weights lists.")] = None,
    file: Annotated[
        Path | None,
        typer.Option("--from", help="A file, or a folder in Hugging Face layout, instead of a download."),
    ] = None,
    called: Annotated[
        str | None, typer.Option("--name", help="Name for the weights of --from. [default: the name of the file]")
    ] = None,
    activation: Annotated[
        str | None,
        typer.Option(help="gelu or quickgelu, as in training. [default: the known or described one]"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace weights of that name.")] = False,
    quiet: bool = QUIET,
    as_json: bool = JSON,
    debug: bool = DEBUG,
) -> None:
    """Download CLIP weights, or read them from a file; check them, convert them and keep them in the cache."""
    from wasnow.errors import UsageError
    from wasnow.models.clip_weights.download import get as get_weights
    from wasnow.models.clip_weights.store import describe

    if name is not None and called is not None:
        raise UsageError(f"both {name} and --name {called} are given; leave one out")
    if called is not None and file is None:
        raise UsageError("--name requires --from FILE; to download, give a known name without it")
    made = get_weights(name or called, file=file, activation=activation, overwrite=overwrite, quiet=quiet or as_json)
    if not made.verified and not quiet:
        warn(f"{made.name} has no known published digest; its sha256 is recorded: {made.sha256}")
    if as_json:
        print_json(describe(made))
    elif not quiet:
        sizes = made.config
        typer.echo(f"{made.name}: {made.path}")
        typer.echo(
            f"ViT {sizes.image_width} wide, {sizes.image_layers} blocks, patches of {sizes.patch} px, "
            f"images of {sizes.image_size} px; {sizes.activation}; from {made.source}"
        )
