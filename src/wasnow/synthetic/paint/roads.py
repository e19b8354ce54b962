"""Roads and tracks, their verges, and the white paint on them and on car parks."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from wasnow.synthetic.classes import BARE, ROAD, VEGETATION
from wasnow.synthetic.colors import Image, rgb
from wasnow.synthetic.objects import Line, Road
from wasnow.synthetic.paint.canvas import FAR, Canvas
from wasnow.synthetic.paint.ground import meadow
from wasnow.synthetic.shapes import Field, rectangle


def paint_roads(canvas: Canvas, roads: Iterable[Road]) -> None:
    """Paint all verges, then all surfaces, then lane markings, so that junctions are open."""
    of_kind: dict[str, list[Road]] = {}
    for road in roads:
        of_kind.setdefault(road.kind, []).append(road)
    # Per kind of road: distance from the edge of the nearest one, and the arc length along it.
    edges = {
        kind: canvas.along([(road.line, road.half_width_m) for road in each], 6.0) for kind, each in of_kind.items()
    }
    if "main" in edges:
        _paint_verge(canvas, edges["main"][0])
    for kind in ("track", "path"):
        if kind in edges:
            _paint_soil(canvas, edges[kind][0], grassy=kind == "track")
    if "street" in edges:
        _paint_pavement(canvas, edges["street"][0])
    for kind, tone in (("street", 110.0), ("main", 102.0)):
        if kind in edges:
            _paint_asphalt(canvas, edges[kind][0], tone)
    if "main" in edges and canvas.light is not None:
        _paint_lanes(canvas, *edges["main"], street=edges["street"][0] if "street" in edges else None)


def paint_bays(canvas: Canvas, lines: Iterable[Line]) -> None:
    """Paint the lines of car parks; they have no class of their own."""
    if canvas.light is None:
        return
    for line in lines:
        window = canvas.window(line.line, 1.0) if line.kind == "paint" else None
        if window is not None:
            along = line.line[-1] - line.line[0]
            length, angle = float(np.hypot(*along)), float(np.arctan2(along[1], along[0]))
            box = rectangle(line.line.mean(0), angle, length, 2 * line.half_width_m)
            canvas.cover(window, canvas.convex(window, box), None, rgb(216, 216, 212))


def _paint_verge(canvas: Canvas, edge: Field) -> None:
    """Paint mown grass along a main road."""
    near = canvas.near(edge, 4.0)
    verge = None if canvas.light is None else meadow(canvas, canvas.light, near) * np.float32(0.95)
    canvas.cover(near, edge[near] - 2.6 + 0.3 * canvas.noise(6.0)[near], VEGETATION, verge)


def _paint_soil(canvas: Canvas, edge: Field, *, grassy: bool) -> None:
    """Paint a track or a path with worn edges."""
    near = canvas.near(edge, 2.0)
    distance = edge[near] + 0.18 * canvas.noise(1.9)[near] + 0.2 * canvas.noise(6.0)[near]
    soil: Image | None = None
    if canvas.light is not None:
        soil = canvas.mottled(near, rgb(184, 170, 144), rgb(160, 142, 114), 0.07)
        if grassy:
            # Grass between the wheel tracks changes the colour slightly; it is too thin for a class of its own.
            middle = np.clip(-distance - 1.0, 0, 0.5)[..., None]
            soil = soil + middle * (meadow(canvas, canvas.light, near) - soil)
    canvas.cover(near, distance, BARE, soil)


def _paint_pavement(canvas: Canvas, edge: Field) -> None:
    """Paint slabs on both sides of a street."""
    near = canvas.near(edge, 3.0)
    slabs = None if canvas.light is None else canvas.mottled(near, rgb(152, 148, 142), rgb(140, 136, 131), 0.045)
    canvas.cover(near, edge[near] - 1.4, ROAD, slabs)


def _paint_asphalt(canvas: Canvas, edge: Field, tone: float) -> None:
    near = canvas.near(edge, 1.5)
    distance = edge[near]
    asphalt: Image | None = None
    if canvas.light is not None:
        asphalt = canvas.mottled(near, rgb(tone, tone, tone + 2), rgb(tone + 14, tone + 13, tone + 13), 0.022)
        # Asphalt is lighter where wheels run.
        asphalt *= (1 + 0.05 * np.cos(np.clip(distance, -4, 0) * np.float32(2 * np.pi / 1.85)))[..., None]
    canvas.cover(near, distance, ROAD, asphalt)


def _paint_lanes(canvas: Canvas, edge: Field, arc: Field, *, street: Field | None) -> None:
    """Paint a dashed centre line and an edge line on a main road, 3.7 m apart."""
    near = canvas.near(edge, 1.5)
    distance = edge[near]
    # Markings stop at junctions.
    clear = -FAR if street is None else -street[near] - 1
    dashes = np.maximum(np.abs(distance + 3.7) - 0.1, np.abs(arc[near] % 9.0 - 1.6) - 1.5)
    margin = np.abs(distance + 0.35) - 0.07
    canvas.cover(near, np.maximum(np.minimum(dashes, margin), clear), None, rgb(222, 222, 216))
