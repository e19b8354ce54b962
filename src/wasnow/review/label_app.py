"""The labelling page: one point after the other, both dates side by side, saved after every label."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict

from wasnow.areas.labels import Label
from wasnow.review.label_project import LabelProject
from wasnow.review.page import page_app, person


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
    app = page_app("label", project.images, token, port)

    @app.get("/api/project")
    def facts() -> dict[str, Any]:
        return project.facts()

    @app.get("/api/point/{number}")
    def point(number: int) -> dict[str, Any]:
        return project.point(number)

    @app.post("/api/label")
    def label(given: GivenLabel) -> dict[str, Any]:
        values = given.model_dump() | {"interpreter": person(given.interpreter), "seconds": f"{given.seconds:.1f}"}
        project.save(Label(**values))
        return {"done": len(project.labels), "total": len(project.points)}

    return app
