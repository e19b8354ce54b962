"""``wasnow review``: accept, reject and correct the polygons of a result, in a browser on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wasnow.cli.console import DEBUG, JSON, QUIET, print_json, verb
from wasnow.errors import UsageError

EXAMPLES = (
    "[bold]Examples[/bold]\n\n"
    "  wasnow review out/\n\n"
    "  wasnow review out/ --summary\n\n"
    "  wasnow review out/ --export accepted.gpkg\n\n"
    "  wasnow review out/ --before moved/2009.tif --after moved/2017.tif   # the images are elsewhere now"
)
PORT = typer.Option(0, "--port", min=0, max=65535, help="Port on this machine; 0 takes a free one.")
BROWSER = typer.Option(True, "--browser/--no-browser", help="Open the page in the default browser.")


@verb
def review(
    result: Annotated[Path, typer.Argument(help="Result folder of wasnow detect.", show_default=False)],
    before: Annotated[Path | None, typer.Option(help="Image of the first date.", show_default=False)] = None,
    after: Annotated[Path | None, typer.Option(help="Image of the second date.", show_default=False)] = None,
    export: Annotated[
        Path | None,
        typer.Option(help="Write the polygons with --status to this .gpkg, .geojson or .fgb file.", show_default=False),
    ] = None,
    status: Annotated[str, typer.Option(help="For --export: accepted, rejected, unsure or open.")] = "accepted",
    summary: Annotated[bool, typer.Option("--summary", help="Print what was decided so far, and leave.")] = False,
    port: int = PORT,
    browser: bool = BROWSER,
    quiet: bool = QUIET,
    as_json: bool = JSON,
    debug: bool = DEBUG,
) -> None:
    """Review the polygons of a result: accept, reject with a reason, correct classes and outlines.

    Every decision is saved in changes.gpkg at once and recorded in review.jsonl. Stop with Ctrl-C.
    """
    if export is not None:
        from wasnow.review.summary import export_layer

        written = export_layer(result, export, status=status)
        typer.echo(f"{written} {status} polygons in {export}")
        return
    if summary:
        _print_summary(result, as_json=as_json)
        return
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


def _print_summary(result: Path, *, as_json: bool) -> None:
    from dataclasses import asdict

    from wasnow.review.polygons import ReviewedPolygons
    from wasnow.review.summary import summarize

    polygons = ReviewedPolygons(result).all()
    rows = summarize(polygons)
    if as_json:
        print_json([{**asdict(row), "confirmed_share": row.confirmed_share} for row in rows])
        return
    metres = all(each.area_m2 is not None for each in polygons)
    unit, scale = ("ha", 1e-4) if metres else ("px", 1.0)
    typer.echo(f"{'candidates':>12} {'accepted':>12} {'rejected':>12} {'unsure':>12} {'open':>12}  {unit}")
    for row in rows:
        sizes = [sum(row.sizes.values()), *(row.sizes[each] for each in ("accepted", "rejected", "unsure", "open"))]
        typer.echo(" ".join(f"{size * scale:>12,.2f}" for size in sizes) + f"  {row.name}")
        for reason, count in sorted(row.reasons.items(), key=lambda item: -item[1]):
            typer.echo(f"{'':>67}  rejected, {reason}: {count}")


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
