"""What both pages share: an application with its static files, its HTML, and the tiles of both dates."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

from fastapi import FastAPI, Response
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

from wasnow.errors import InputError
from wasnow.review.security import protect
from wasnow.review.tiles import ImageTiles

LONGEST_NAME = 100


def page_app(name: str, images: Mapping[str, ImageTiles | None], token: str, port: int) -> FastAPI:
    """Return an application that serves one page and the tiles of both dates.

    Args:
        name: of the HTML file, without suffix.
        images: tiles by date; None for an image that cannot be shown.
        token: of this start.
        port: that the server listens on.
    """
    app = FastAPI(title=f"wasnow {name}", docs_url=None, redoc_url=None, openapi_url=None)
    protect(app, token, port)
    static = resources.files("wasnow.review").joinpath("static")
    app.mount("/static", StaticFiles(directory=str(static)), name="static")

    @app.get("/")
    def page() -> HTMLResponse:
        return HTMLResponse(static.joinpath(f"{name}.html").read_text(encoding="utf-8"))

    @app.get("/tiles/{date}/{zoom}/{x}/{y}.png")
    def tile(date: str, zoom: int, x: int, y: int) -> Response:
        image = images.get(date)
        coded = None if image is None else image.tile(zoom, x, y)
        return Response(status_code=204) if coded is None else Response(coded, media_type="image/png")

    return app


def person(name: str) -> str:
    """Return the name of a reviewer or interpreter on one line.

    Raises:
        InputError: it is empty.
    """
    plain = " ".join(name.split())
    if not plain:
        raise InputError("enter your name first; everything is recorded with it")
    return plain[:LONGEST_NAME]
