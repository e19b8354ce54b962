"""The labelling page: one point after the other, both dates side by side, saved after every label."""

from __future__ import annotations

from importlib import resources
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict

from wasnow.areas.labels import Label
from wasnow.errors import InputError
from wasnow.review.label_project import LabelProject
from wasnow.review.security import protect


class GivenLabel(BaseModel):
    """One label from the page."""

    model_config = ConfigDict(extra="forbid")

    id: int
    before: str = ""
    after: str = ""
    confidence: str = ""
    note: str = ""
    skip_reason: str = ""
    interpreter: str
    seconds: float


def label_app(project: LabelProject, token: str, port: int) -> FastAPI:
    """Return the application of the labelling page.

    Args:
        project: the opened sample.
        token: of this start.
        port: that the server listens on.
    """
    app = FastAPI(title="wasnow label", docs_url=None, redoc_url=None, openapi_url=None)
    protect(app, token, port)
    static = resources.files("wasnow.review").joinpath("static")
    app.mount("/static", StaticFiles(directory=str(static)), name="static")

    @app.get("/")
    def page() -> HTMLResponse:
        return HTMLResponse(static.joinpath("label.html").read_text(encoding="utf-8"))

    @app.get("/api/project")
    def facts() -> dict[str, Any]:
        return project.facts()

    @app.get("/api/point/{number}")
    def point(number: int) -> dict[str, Any]:
        return project.point(number)

    @app.post("/api/label")
    def label(given: GivenLabel) -> dict[str, Any]:
        name = " ".join(given.interpreter.split())
        if not name:
            raise InputError("enter your name first; every label is recorded with it")
        values = given.model_dump() | {"interpreter": name[:100], "seconds": f"{given.seconds:.1f}"}
        project.save(Label(**values))
        return {"done": len(project.labels), "total": len(project.points)}

    @app.get("/tiles/{date}/{zoom}/{x}/{y}.png")
    def tile(date: str, zoom: int, x: int, y: int) -> Response:
        image = project.images.get(date)
        coded = None if image is None else image.tile(zoom, x, y)
        return Response(status_code=204) if coded is None else Response(coded, media_type="image/png")

    return app
