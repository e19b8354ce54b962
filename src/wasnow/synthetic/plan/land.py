"""The terrain: villages, the direction of the main road, and the river.

    ┌─── low ───────────────────────────┐
    │  ┌─ image: [0, size] ──────────┐  │
    │  │ ~~~~~~~~~~ river ~~~~~~~~~~ │  │      next to the village, roughly along the main road,
    │  │     ( village )── heading ▶ │  │      as in a valley
    │  └─────────────────────────────┘  │
    └────────────────────────── high ───┘

Laid out in plan coordinates, except the river, which is curved and is stored in world coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wasnow.synthetic.objects import River
from wasnow.synthetic.shapes import Point, Points, Warp, area, direction, distance_to_line, keep_below

PAD_M = 60.0
"""The plan extends this far beyond the image, so that no object ends, and no shadow starts, at the image edge."""

SMALLEST_PLAN_M = 320.0
"""A small image shows part of a plan of at least this side, so that objects keep their size."""


@dataclass(frozen=True, eq=False)
class Land:
    """The terrain before anything is built.

    Attributes:
        size: ``(2,)`` metres that the image covers: x in [0, size[0]], y in [0, size[1]] of the world.
        low: ``(2,)`` north-western corner of the plan.
        high: ``(2,)`` south-eastern corner of the plan.
        warp: from plan to world.
        villages: ``(N, 2)`` centres in the plan; the first is in the image.
        village_radius: metres.
        heading: direction of the main road and, roughly, of the river; radians.
        river: in the world, or None.
    """

    size: Point
    low: Point
    high: Point
    warp: Warp
    villages: Points
    village_radius: float
    heading: float
    river: River | None

    @classmethod
    def drawn(cls, rng: np.random.Generator, size: Point) -> Land:
        """Return a random terrain: one village per 700 m square, the first one in the image; a river with probability
        0.6.
        """
        reach = np.maximum(size / 2 + PAD_M, SMALLEST_PLAN_M / 2)
        low, high = size / 2 - reach, size / 2 + reach
        extent = high - low
        warp = Warp.drawn(rng)
        count = max(1, round(float(np.prod(extent)) / 700**2))
        village_radius = float(np.clip(0.26 * extent.min(), 85, 175))
        middle = size / 2 + rng.uniform(-0.27, 0.27, 2) * size
        villages = np.concatenate([middle[None], rng.uniform(low, high, (count - 1, 2))])
        heading = rng.uniform(0, np.pi)
        half_width = rng.uniform(5.5, 10.0)
        river: River | None = None
        if rng.random() < 0.6:
            side = rng.choice([-1.0, 1.0])
            angle = heading + rng.normal(0, 0.25)
            through = middle + side * direction(angle + np.pi / 2) * village_radius * rng.uniform(0.75, 1.0)
            river = River(_meanders(rng, through, angle, float(np.hypot(*extent))), half_width)
        return cls(size, low, high, warp, villages, village_radius, heading, river)

    def urbanity(self, plan: Point) -> float:
        """Return 1 at the centre of a village, 0 at its edge, negative outside."""
        return float(1 - np.hypot(*(self.villages - plan).T).min() / self.village_radius)

    def river_distance(self, world: Points) -> NDArray[np.float64]:
        """Return the distance to the river bank in metres, ``(N,)``; infinite without a river."""
        if self.river is None:
            return np.full(len(world), np.inf)
        return distance_to_line(world, self.river.line) - self.river.half_width_m

    def in_image(self, polygon: Points) -> Points:
        """Return the part of a plan polygon that is in the image, in the world; may be empty."""
        world = self.warp.to_world(polygon) if len(polygon) else polygon
        for axis in (0, 1):
            normal = np.eye(2)[axis]
            world = keep_below(keep_below(world, normal, float(self.size[axis])), -normal, 0.0)
        return world

    def visible_m2(self, polygon: Points) -> float:
        """Return the area of a plan polygon that is in the image, in square metres."""
        return area(self.in_image(polygon))


def _meanders(rng: np.random.Generator, through: Point, angle: float, reach: float) -> Points:
    """Return a meandering line through a point along ``angle``, ``reach`` metres in both directions."""
    along = np.linspace(-1, 1, 160) * reach
    wave, phase = rng.uniform(170, 260), rng.uniform(0, 2 * np.pi, 2)
    swing = 13 * np.sin(2 * np.pi * along / wave + phase[0]) + 8 * np.sin(5.3 * along / wave + phase[1])
    meanders: Points = through + np.outer(along, direction(angle)) + np.outer(swing, direction(angle + np.pi / 2))
    return meanders
