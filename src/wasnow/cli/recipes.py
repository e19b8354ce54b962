"""``wasnow recipes``: the included training recipes."""

from __future__ import annotations

from typing import Annotated

import typer

from wasnow.cli.console import DEBUG, JSON, print_json, verb

EXAMPLES = (
    "[bold]Examples[/bold]\n\n  wasnow recipes\n\n  wasnow recipes sscd-l > my-recipe.yaml   # all settings, to edit"
)


@verb
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe as YAML.", show_default=False)] = None,
    as_json: bool = JSON,
    debug: bool = DEBUG,
) -> None:
    """List the recipes, or print one with all settings."""
    from wasnow.training.recipes import RECIPES, recipe
    from wasnow.training.settings import to_yaml

    if name is not None:
        config = recipe(name)
        if as_json:
            print_json(config.model_dump(mode="json"))
        else:
            typer.echo(to_yaml(config), nl=False)
        return
    found = {one: make() for one, make in RECIPES.items()}
    if as_json:
        print_json({one: config.model_dump(mode="json") for one, config in found.items()})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("recipe", "model", "summary", "source"):
        table.add_column(column, overflow="fold")
    for one, config in found.items():
        table.add_row(one, config.model, config.summary, config.source)
    Console().print(table)
