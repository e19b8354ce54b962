"""``wasnow models``: list the models; ``wasnow models show``: print the card of one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from wasnow.cli.console import DEBUG, JSON, print_json, verb

app = typer.Typer(help="List the models, or show the card of one.", invoke_without_command=True)


@app.callback()
@verb
def models(context: typer.Context, as_json: bool = JSON, debug: bool = DEBUG) -> None:
    """List the models, the default of detect first."""
    if context.invoked_subcommand is not None:
        return
    from wasnow.models.registry import DEFAULT, list_models

    entries = list_models()
    if as_json:
        hidden = ("factory", "network")
        print_json({name: {k: v for k, v in asdict(one).items() if k not in hidden} for name, one in entries.items()})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("model", "answers", "weights", "what it is"):
        table.add_column(column, overflow="fold")
    for name, entry in entries.items():
        weights = f"{entry.weights} (the default)" if name == DEFAULT else entry.weights
        table.add_row(name, entry.answers, weights, entry.summary)
    Console().print(table)


@app.command()
@verb
def show(
    path: Annotated[
        str,
        typer.Argument(
            help="A checkpoint, the folder of a training run, or a name that wasnow models lists.", show_default=False
        ),
    ],
    as_json: bool = JSON,
    debug: bool = DEBUG,
) -> None:
    """Print the card of a model: what it predicts, where its weights come from, its scores."""
    from wasnow.models.model_card import describe

    sections = describe(path)
    if as_json:
        print_json(sections)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for title, lines in sections.items():
        table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
        if any(lines):
            table.add_column()
        table.add_column(overflow="fold")
        for name, value in lines.items():
            table.add_row(*([Text(name, style="bold")] if any(lines) else []), Text(value))
        console.print(table)
