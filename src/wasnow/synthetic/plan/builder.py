"""State of a plan under construction.

    PlanBuilder    the objects placed so far, in order
    Occupancy      which square metres are taken: keeps trees off roads and houses apart
    ChangeBudget   the change area that is left, in square metres

The steps of `make_plan` modify these, one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from wasnow.synthetic.objects import Building, Ground, Line, Parking, Plan, Pond, Presence, Rgb, River, Road, Tree
from wasnow.synthetic.plan.land import Land
from wasnow.synthetic.shapes import Point, Points, axes, contains, direction, resample


@dataclass(eq=False)
class ChangeBudget:
    """The change area that is left to spend, in square metres."""

    total: float
    left: float = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.total

    def spend(self, area_m2: float) -> None:
        """Subtract the area of a change; never below 0."""
        self.left = max(0.0, self.left - area_m2)


class Occupancy:
    """The square metres of the world that are taken.

    Args:
        low: ``(2,)`` north-western corner.
        high: ``(2,)`` south-eastern corner.
    """

    def __init__(self, low: Point, high: Point) -> None:
        self._low = low
        cols, rows = np.ceil(high - low).astype(int)
        self._taken = np.zeros((rows, cols), np.bool_)

    def free(self, centre: Point, radius_m: float) -> bool:
        """Return whether a square around ``centre`` is free; ground outside the plan always is."""
        return not self._taken[self._window(centre - radius_m, centre + radius_m)].any()

    def box_free(self, centre: Point, angle: float, length: float, width: float) -> bool:
        """Return whether a rectangle is free, tested at points one or two metres apart.

        Args:
            centre: ``(2,)``.
            angle: direction of ``length``, radians.
            length: metres.
            width: metres.
        """
        along, across = axes(angle)
        return all(
            self.free(centre + along * a * length / 2 + across * b * width / 2, 0.5)
            for a in np.linspace(-1, 1, 7)
            for b in np.linspace(-1, 1, 5)
        )

    def take(self, line: Points, half_width_m: float) -> None:
        """Mark a polyline of a half width as taken."""
        for point in resample(line, 0.8 + half_width_m * 0.5):
            self._taken[self._window(point - half_width_m, point + half_width_m)] = True

    def take_box(self, centre: Point, angle: float, length: float, width: float) -> None:
        """Mark a rectangle as taken.

        Args:
            centre: ``(2,)``.
            angle: direction of ``length``, radians.
            length: metres.
            width: metres.
        """
        reach = direction(angle) * max(0.0, length - width) / 2
        self.take(np.stack([centre - reach, centre + reach]), width / 2)

    def _window(self, low: Point, high: Point) -> tuple[slice, slice]:
        (left, top) = np.maximum(np.floor(low - self._low), 0).astype(int)
        (right, bottom) = np.maximum(np.ceil(high - self._low), 0).astype(int)
        return slice(int(top), int(bottom)), slice(int(left), int(right))


class PlanBuilder:
    """The objects of one plan, collected step by step.

    Args:
        land: where they are placed.
        rng: source of all random numbers; the steps share it, so their order is part of the result.
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
        """Return the plan of the objects placed so far."""
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
        """Add a road along a world polyline, and mark it and its pavements as taken.

        Args:
            line: world polyline.
            kind: see `Road`.
            half_width: metres.
            when: see `Presence`.
        """
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
        """Add a building, unless the river is there.

        Args:
            centre: in the world.
            angle: direction of its length, in the world.
            size: length and width, metres.
            height: of the eaves, metres.
            roof: gable, hip or flat.
            color: of the roof.
            when: see `Presence`.
            spaced: whether it marks its ground as taken; a wing is on ground that is already taken.
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
        """Add a tree, unless a road, a house or water is in its place.

        Args:
            world: position.
            radius: of the crown, metres.
            kind: see `wasnow.synthetic.colors.CROWNS`.
            when: see `Presence`.
            take: whether it marks its ground as taken.
        """
        if not self.occupancy.free(world, radius * 0.55):
            return
        rng = self.rng
        height = radius * rng.uniform(1.9, 3.0) if kind != "shrub" else radius * 1.2
        self.trees.append(Tree(world, radius, height, kind, float(rng.random()), when))
        if take:
            self.occupancy.take_box(world, 0, radius, radius)

    def scatter(self, polygon: Points, *, density: float) -> None:
        """Add random trees in a plan polygon, ``density`` per square metre of its bounding box."""
        low, high = polygon.min(0), polygon.max(0)
        for _ in range(self.rng.poisson(np.prod(high - low) * density)):
            point = self.rng.uniform(low, high)
            if contains(polygon, point, 3):
                self.plant(self.warp.world_point(point), self.rng.uniform(1.8, 4.8), self.species())

    def species(self) -> str:
        """Return a random tree type of gardens and parks."""
        return str(self.rng.choice(["broadleaf", "conifer", "shrub"], p=[0.62, 0.18, 0.2]))
