"""A plan in the making.

    PlanBuilder       the things placed so far, in their order
    Occupancy   which square metres are taken: keeps trees off roads and houses out of each other
    ChangeBudget      how many square metres may still change

The steps of `make_plan` write into these, one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from wasnow.synthetic.objects import Building, Ground, Line, Parking, Plan, Pond, Presence, Rgb, River, Road, Tree
from wasnow.synthetic.plan.land import Land
from wasnow.synthetic.shapes import Point, Points, axes, contains, direction, resample


@dataclass(eq=False)
class ChangeBudget:
    """The change area still to be spent, in square metres."""

    total: float
    left: float = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.total

    def spend(self, area_m2: float) -> None:
        """Write off what a change takes; never below 0."""
        self.left = max(0.0, self.left - area_m2)


class Occupancy:
    """Which square metres of the world are taken.

    Args:
        low: ``(2,)`` the corner where the count begins.
        high: ``(2,)`` the opposite corner.
    """

    def __init__(self, low: Point, high: Point) -> None:
        self._low = low
        cols, rows = np.ceil(high - low).astype(int)
        self._taken = np.zeros((rows, cols), np.bool_)

    def free(self, centre: Point, radius_m: float) -> bool:
        """Whether a square around ``centre`` is free; ground outside the plan always is."""
        return not self._taken[self._window(centre - radius_m, centre + radius_m)].any()

    def box_free(self, centre: Point, angle: float, length: float, width: float) -> bool:
        """Whether a rectangle is free, tested at points a metre or two apart."""
        along, across = axes(angle)
        return all(
            self.free(centre + along * a * length / 2 + across * b * width / 2, 0.5)
            for a in np.linspace(-1, 1, 7)
            for b in np.linspace(-1, 1, 5)
        )

    def take(self, line: Points, half_width_m: float) -> None:
        """Take a polyline of the given half width."""
        for point in resample(line, 0.8 + half_width_m * 0.5):
            self._taken[self._window(point - half_width_m, point + half_width_m)] = True

    def take_box(self, centre: Point, angle: float, length: float, width: float) -> None:
        """Take a rectangle."""
        reach = direction(angle) * max(0.0, length - width) / 2
        self.take(np.stack([centre - reach, centre + reach]), width / 2)

    def _window(self, low: Point, high: Point) -> tuple[slice, slice]:
        (left, top) = np.maximum(np.floor(low - self._low), 0).astype(int)
        (right, bottom) = np.maximum(np.ceil(high - self._low), 0).astype(int)
        return slice(int(top), int(bottom)), slice(int(left), int(right))


class PlanBuilder:
    """The things of one plan, collected step by step.

    Args:
        land: where they are placed.
        rng: where every decision is drawn from; the steps share it, so their order is part of the result.
    """

    def __init__(self, land: Land, rng: np.random.Generator) -> None:
        self.land, self.warp, self.rng = land, land.warp, rng
        self.occupancy = Occupancy(land.low - 30, land.high + 30)
        self.grounds: list[Ground] = []
        self.waters: list[River | Pond] = []
        self.roads: list[Road] = []
        self.lines: list[Line] = []
        self.buildings: list[Building] = []
        self.trees: list[Tree] = []
        self.parkings: list[Parking] = []

    def plan(self) -> Plan:
        """What has been placed."""
        return Plan(
            self.warp,
            tuple(self.grounds),
            tuple(self.waters),
            tuple(self.roads),
            tuple(self.lines),
            tuple(self.buildings),
            tuple(self.trees),
            tuple(self.parkings),
        )

    def lay_road(self, line: Points, kind: str, half_width: float, when: Presence = Presence.BOTH) -> None:
        """A road along a world polyline; it takes its pavements too."""
        self.roads.append(Road(line, kind, half_width, when))
        self.occupancy.take(line, half_width + (1.8 if kind != "track" else 0.3))

    def build(
        self,
        centre: Point,
        angle: float,
        size: tuple[float, float],
        *,
        height: float,
        roof: str,
        color: Rgb,
        when: Presence = Presence.BOTH,
        spaced: bool = True,
    ) -> None:
        """Put a building up, unless the river runs there.

        Args:
            centre: in the world.
            angle: of its length, in the world.
            size: length and width, metres.
            height: of the eaves, metres.
            roof: gable, hip or flat.
            color: of the roof.
            when: see `Presence`.
            spaced: whether it takes its ground; a wing stands on ground that is taken.
        """
        length, width = size
        extras = int(self.rng.integers(1 << 30))
        if self.land.river_distance(centre[None])[0] < max(length, width) / 2 + 2:
            return
        if spaced:
            self.occupancy.take_box(centre, angle, length + 2, width + 2)
        self.buildings.append(Building(centre, angle, length, width, height, roof, color, extras, when))

    def plant(
        self, world: Point, radius: float, kind: str, when: Presence = Presence.BOTH, *, take: bool = True
    ) -> None:
        """A tree, unless a road, a house or water is in its way."""
        if not self.occupancy.free(world, radius * 0.55):
            return
        rng = self.rng
        height = radius * rng.uniform(1.9, 3.0) if kind != "shrub" else radius * 1.2
        self.trees.append(Tree(world, radius, height, kind, float(rng.random()), when))
        if take:
            self.occupancy.take_box(world, 0, radius, radius)

    def scatter(self, polygon: Points, *, density: float) -> None:
        """Trees here and there in a plan polygon, ``density`` of them per square metre of its bounding box."""
        low, high = polygon.min(0), polygon.max(0)
        for _ in range(self.rng.poisson(np.prod(high - low) * density)):
            point = self.rng.uniform(low, high)
            if contains(polygon, point, 3):
                self.plant(self.warp.world_point(point), self.rng.uniform(1.8, 4.8), self.species())

    def species(self) -> str:
        """What grows in gardens and parks."""
        return str(self.rng.choice(["broadleaf", "conifer", "shrub"], p=[0.62, 0.18, 0.2]))
