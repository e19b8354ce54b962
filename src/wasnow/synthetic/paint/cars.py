"""Cars: parked in the same places, different ones at every date, and a few on the roads. They have no class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from wasnow.synthetic.colors import CARS, Image, rgb
from wasnow.synthetic.objects import Parking, Plan, Road
from wasnow.synthetic.paint.canvas import Canvas
from wasnow.synthetic.paint.light import Illumination
from wasnow.synthetic.shapes import Point, direction, hull, rectangle

LENGTH_M, WIDTH_M, HEIGHT_M = 4.3, 1.8, 1.3


def paint_cars(canvas: Canvas, light: Illumination, plan: Plan, rng: np.random.Generator) -> None:
    """Paint a car on each parking place that is taken, and moving cars on the roads.

    Args:
        canvas: to paint on.
        light: illumination.
        plan: objects at this date.
        rng: source of all random numbers.
    """
    for spot in [*plan.parkings, *_on_the_move(plan.roads, rng)]:
        taken, color, jitter = rng.random() < spot.share_taken, CARS[rng.integers(len(CARS))], rng.normal(0, 0.25, 2)
        if taken:
            _paint_car(canvas, light, spot.centre, jitter, spot.angle, color)


def _on_the_move(roads: Iterable[Road], rng: np.random.Generator) -> Iterator[Parking]:
    """Yield places every few metres of a road, on either lane, where a car may be driving."""
    for road in roads:
        if road.kind in ("main", "street"):
            steps = np.diff(road.line, axis=0)
            for point, step in zip(road.line[1:-1], steps[1:], strict=True):
                side = rng.choice([-1.0, 1.0]) * road.half_width_m * (0.5 if road.kind == "main" else 0.62)
                angle = float(np.arctan2(step[1], step[0]))
                yield Parking(point + direction(angle + np.pi / 2) * side, angle, 0.07)


def _paint_car(canvas: Canvas, light: Illumination, centre: Point, jitter: Point, angle: float, color: Image) -> None:
    """Paint shadow, body, windscreen and rear window."""
    window = canvas.window(centre[None], 4.5)
    if window is None:
        return
    at = centre + jitter
    body = rectangle(at, angle, LENGTH_M, WIDTH_M)
    shadow = canvas.convex(window, hull(np.concatenate([body, body + light.cast * HEIGHT_M])))
    canvas.cover(window, shadow, None, canvas.rgb[window] * np.float32(0.5))
    canvas.cover(window, canvas.convex(window, body) - 0.15, None, color)
    for ahead, long in ((0.75, 0.6), (-1.35, 0.5)):
        glass = rectangle(at + direction(angle) * ahead, angle, long, WIDTH_M * 0.8)
        canvas.cover(window, canvas.convex(window, glass), None, rgb(40, 46, 52))
