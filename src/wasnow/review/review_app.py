"""The review page: list, filter, look, decide, correct."""

from __future__ import annotations

import math
from typing import Any

import shapely
from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict

from wasnow.errors import InputError
from wasnow.review.page import page_app, person
from wasnow.review.polygons import Polygon
from wasnow.review.project import ReviewProject

PAGE = 200
"""Rows of the list that one request returns."""


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reviewer: str


class Decision(_Request):
    """One decision on one polygon."""

    fid: int
    status: str
    reason: str | None = None
    before: str | None = None
    after: str | None = None
    seen: str | None = None


class Outline(_Request):
    """A drawn outline or line, in page coordinates."""

    fid: int
    points: list[tuple[float, float]]
    seen: str | None = None


class Selection(_Request):
    """Several polygons."""

    fids: list[int]


def review_app(project: ReviewProject, token: str, port: int) -> FastAPI:
    """Return the application of the review page.

    Args:
        project: the opened result.
        token: of this start.
        port: that the server listens on.
    """
    app = page_app("review", project.images, token, port)

    @app.get("/api/project")
    def facts() -> dict[str, Any]:
        return project.facts() | {"progress": project.progress()}

    @app.get("/api/polygons")
    def polygons(request: Request) -> dict[str, Any]:
        given = request.query_params
        found = project.selected(
            status=given.get("status") or None,
            before=given.get("from") or None,
            after=given.get("to") or None,
            min_area=_number(given.get("min_area"), 0.0),
            max_area=_number(given.get("max_area"), math.inf),
            sort=given.get("sort") or "area",
        )
        start = int(_number(given.get("offset"), 0))
        rows = [project.as_row(row) for row in found[start : start + PAGE]]
        return {"total": len(found), "offset": start, "rows": rows, "progress": project.progress()}

    @app.get("/api/outlines")
    def outlines(west: float, south: float, east: float, north: float) -> dict[str, Any]:
        return project.outlines(project.within(west, south, east, north))

    @app.get("/api/polygon/{fid}")
    def polygon(fid: int) -> dict[str, Any]:
        return answer(project.polygons.get(fid))

    @app.post("/api/decide")
    def decide(given: Decision) -> dict[str, Any]:
        _check_words(project, given.before, given.after)
        row = project.decide(
            given.fid,
            reviewer=person(given.reviewer),
            status=given.status,
            reason=given.reason,
            before=given.before,
            after=given.after,
            seen=given.seen,
        )
        return answer(row)

    @app.post("/api/redraw")
    def redraw(given: Outline) -> dict[str, Any]:
        if len(given.points) < 3:
            raise InputError("an outline needs at least three corners")
        shape = project.from_page(shapely.Polygon(given.points))
        return answer(project.polygons.redraw(given.fid, shape, reviewer=person(given.reviewer), seen=given.seen))

    @app.post("/api/split")
    def split(given: Outline) -> dict[str, Any]:
        if len(given.points) < 2:
            raise InputError("a line needs at least two points")
        line = project.from_page(shapely.LineString(given.points))
        found = project.polygons.split(given.fid, line, reviewer=person(given.reviewer))
        return {"rows": [project.as_row(row) for row in found], "progress": project.progress()}

    @app.post("/api/merge")
    def merge(given: Selection) -> dict[str, Any]:
        return answer(project.polygons.merge(given.fids, reviewer=person(given.reviewer)))

    def answer(row: Polygon) -> dict[str, Any]:
        return {"row": project.as_row(row), "progress": project.progress()}

    return app


def _number(text: str | None, default: float) -> float:
    try:
        return default if not text else float(text)
    except ValueError:
        raise InputError(f"{text!r} is not a number") from None


def _check_words(project: ReviewProject, *words: str | None) -> None:
    known = project.result.vocabulary.words
    for word in words:
        if word is not None and word not in known:
            raise InputError(f"class {word!r} is not a class of this result: {', '.join(known)}")
