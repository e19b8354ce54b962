"""``wasnow models``: what can be named with ``--model``."""

from __future__ import annotations

from dataclasses import asdict

from wasnow.cli.console import DEBUG, JSON, print_json, verb


@verb
def models(as_json: bool = JSON, debug: bool = DEBUG) -> None:
    """List the models."""
    from wasnow.models import MODELS

    if as_json:
        print_json({name: {k: v for k, v in asdict(entry).items() if k != "factory"} for name, entry in MODELS.items()})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("model", "answers", "weights", "what it is"):
        table.add_column(column, overflow="fold")
    for name, entry in MODELS.items():
        table.add_row(name, entry.answers, entry.weights, entry.summary)
    Console().print(table)
