"""``wasnow review``: accept, reject and correct the polygons of a result, in a browser on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wasnow.cli.console import DEBUG, QUIET, verb
from wasnow.errors import UsageError

EXAMPLES = (
    "[bold]Examples[/bold]\n\n"
    "  wasnow review out/\n\n"
    "  wasnow review out/ --before moved/2009.tif --after moved/2017.tif   # the images are elsewhere now"
)
PORT = typer.Option(0, "--port", min=0, max=65535, help="Port on this machine; 0 takes a free one.")
BROWSER = typer.Option(True, "--browser/--no-browser", help="Open the page in the default browser.")


@verb
def review(
    result: Annotated[Path, typer.Argument(help="Result folder of wasnow detect.", show_default=False)],
    before: Annotated[Path | None, typer.Option(help="Image of the first date.", show_default=False)] = None,
    after: Annotated[Path | None, typer.Option(help="Image of the second date.", show_default=False)] = None,
    port: int = PORT,
    browser: bool = BROWSER,
    quiet: bool = QUIET,
    debug: bool = DEBUG,
) -> None:
    """Review the polygons of a result: accept, reject with a reason, correct classes and outlines.

    Every decision is saved in changes.gpkg at once and recorded in review.jsonl. Stop with Ctrl-C.
    """
    check_extra()
    from wasnow.review.project import ReviewProject
    from wasnow.review.review_app import review_app
    from wasnow.review.serve import serve

    project = ReviewProject(result, before=before, after=after)
    try:
        serve(
            result,
            lambda token, number: review_app(project, token, number),
            port=port,
            ready=lambda address: announce(address, browser=browser, quiet=quiet),
        )
    finally:
        project.close()


def announce(address: str, *, browser: bool, quiet: bool) -> None:
    """Print the address of a page, and open it.

    Args:
        address: with its token.
        browser: whether to open it.
        quiet: print nothing but the address.
    """
    typer.echo(address if quiet else f"Open {address} (this machine only). Stop with Ctrl-C; everything is saved.")
    if browser:
        typer.launch(address)


def check_extra() -> None:
    """Fail in one line if the packages of the server are missing.

    Raises:
        UsageError: they are.
    """
    from importlib.util import find_spec

    missing = [name for name in ("fastapi", "uvicorn") if find_spec(name) is None]
    if missing:
        raise UsageError(f"the page needs {' and '.join(missing)}: pip install 'wasnow[review]'")
