"""Plots along a street, each with a house that faces it, a drive and a garden.

    ──────── street ────────
       setback  │ drive
      ┌───────┐ │         ▲ out: towards the street
      │ house │ │         │
      └───────┘           └──▶ along
       terrace    garden

Houses of a village have gardens at both dates; those of a new development are on bare plots.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wasnow.synthetic.colors import FLATS, SLATES, TILES
from wasnow.synthetic.objects import Ground, Line, Parking, Presence, Rgb
from wasnow.synthetic.plan.builder import PlanBuilder
from wasnow.synthetic.shapes import (
    Point,
    Points,
    area,
    axes,
    contains,
    direction,
    following,
    inset,
    keep_below,
    long_axis,
    rectangle,
    resample,
    span,
)


@dataclass(frozen=True, eq=False)
class Plot:
    """Part of a row of plots: its street runs along ``angle``, on ``side`` 1 or -1 across it."""

    outline: Points
    angle: float
    side: float

    @property
    def along(self) -> Point:
        """Unit vector along the street."""
        return direction(self.angle)

    @property
    def out(self) -> Point:
        """Unit vector towards the street."""
        return direction(self.angle + np.pi / 2) * self.side

    @property
    def front(self) -> float:
        """Extent of the plot towards the street, metres along `out`."""
        return span(self.outline, self.out)[1]


@dataclass(frozen=True, eq=False)
class _House:
    """Position of a house on its plot.

    Attributes:
        centre: in the plan.
        world: centre in the world.
        heading: direction of the street there, in the world.
        length: metres along the street.
        depth: metres across the street direction.
        setback: metres between the front of the plot and the house.
        middle: position along the street, metres along `Plot.along`.
        gabled: whether the gable faces the street, if the house is short enough.
    """

    centre: Point
    world: Point
    heading: float
    length: float
    depth: float
    setback: float
    middle: float
    gabled: bool


def homes(builder: PlanBuilder, polygon: Points) -> None:
    """Add a block of plots with gardens: two rows back to back if there is space, else one."""
    angle = long_axis(polygon)
    across = direction(angle + np.pi / 2)
    low, high = span(polygon, across)
    builder.grounds.append(Ground(polygon, "lawn", angle=angle))
    if high - low > 40:
        middle = (low + high) / 2 + builder.rng.uniform(-3, 3)
        rows = [(keep_below(polygon, across, middle), -1.0), (keep_below(polygon, -across, -middle), 1.0)]
    else:
        rows = [(polygon, float(builder.rng.choice([-1.0, 1.0])))]
    for row, side in rows:
        for plot in _plots(builder.rng, row, angle, side):
            _build_plot(builder, plot, Presence.BOTH, garden=True)


def new_homes(builder: PlanBuilder, polygon: Points) -> None:
    """Add a development: a street in the middle, houses on bare plots on both sides, some plots still empty."""
    angle = long_axis(polygon)
    along, across = axes(angle)
    middle = float(np.mean(span(polygon, across)))
    builder.grounds.append(Ground(polygon, "site", Presence.AFTER, angle))
    reach = polygon @ along
    first, last = polygon[int(np.argmin(reach))], polygon[int(np.argmax(reach))]
    ends = np.stack([along * at + across * middle for at in (first @ along - 6, last @ along - 5)])
    builder.lay_road(builder.warp.to_world(resample(ends, 9.0)), "street", 2.6, Presence.AFTER)
    lower, upper = keep_below(polygon, across, middle - 2.6), keep_below(polygon, -across, -middle - 2.6)
    for row, side in ((lower, 1.0), (upper, -1.0)):
        for plot in _plots(builder.rng, row, angle, side):
            if builder.rng.random() < 0.85:
                _build_plot(builder, plot, Presence.AFTER, garden=False)


def _plots(rng: np.random.Generator, row: Points, angle: float, side: float) -> Iterator[Plot]:
    """Yield plots 17 to 27 m wide. Lazy: a house is drawn before the width of the next plot."""
    along = direction(angle)
    while area(row) > 150:
        low, high = span(row, along)
        width = rng.uniform(17, 27)
        if high - low < 1.6 * width:
            yield Plot(row, angle, side)
            return
        yield Plot(keep_below(row, along, low + width), angle, side)
        row = keep_below(row, -along, -low - width)


def _build_plot(builder: PlanBuilder, plot: Plot, when: Presence, *, garden: bool) -> None:
    """Add a house at its setback, a drive and a garden. Too small a plot stays empty."""
    rng = builder.rng
    width, depth = float(np.ptp(plot.outline @ plot.along)), float(np.ptp(plot.outline @ plot.out))
    if area(plot.outline) < 170 or width < 12 or depth < 13:
        return
    if garden:
        tone = float(np.clip(rng.normal(1.0, 0.07), 0.85, 1.15))
        cover = "lawn" if rng.random() < 0.82 else "rough lawn"
        builder.grounds.append(Ground(plot.outline, cover, angle=plot.angle, tone=tone))
    house = _find_place(builder, plot, width, depth)
    if house is None:
        return
    _pave_front(builder, plot, house, when)
    _build_house(builder, plot, house, when, room_for_wing=depth > house.depth + house.setback + 8)
    if garden:
        _plant_garden(builder, plot, house)


def _find_place(builder: PlanBuilder, plot: Plot, width: float, depth: float) -> _House | None:
    """Return the position of a house; None where it would leave the plot, be close to water or overlap another."""
    rng = builder.rng
    length = float(np.clip(width - rng.uniform(6, 9), 8, 15))
    house_depth = float(np.clip(rng.uniform(8, 10.5), 6, depth - 6))
    setback = min(rng.uniform(3.5, 8), depth - house_depth - 2.5)
    middle = sum(span(plot.outline, plot.along)) / 2 - 1.8
    centre = plot.along * middle + plot.out * (plot.front - setback - house_depth / 2)
    if not contains(plot.outline, centre, 3.5):
        return None
    world, heading = builder.warp.world_point(centre), builder.warp.heading(centre, plot.angle)
    dry = builder.land.river_distance(world[None])[0] >= 14
    if not (dry and builder.occupancy.box_free(world, heading, length, house_depth)):
        return None
    return _House(centre, world, heading, length, house_depth, setback, middle, gabled=rng.random() < 0.3)


def _pave_front(builder: PlanBuilder, plot: Plot, house: _House, when: Presence) -> None:
    """Add the drive next to the house, with a parking place, and the path to the door."""
    across = plot.angle + np.pi / 2
    length = house.setback + house.depth * 0.6 + 2.4
    drive = plot.along * (house.middle + house.length / 2 + 1.9) + plot.out * (
        plot.front - (house.setback + house.depth * 0.6) / 2 + 1.2
    )
    surface = str(builder.rng.choice(["paving", "car park", "gravel"], p=[0.6, 0.25, 0.15]))
    builder.grounds.append(Ground(rectangle(drive, across, length, 3.2), surface, when, plot.angle))
    door = plot.along * house.middle + plot.out * (plot.front - house.setback / 2)
    builder.grounds.append(Ground(rectangle(door, across, house.setback + 1.0, 1.4), "paving", when, plot.angle))
    world, heading = builder.warp.world_point(drive), house.heading + np.pi / 2
    builder.parkings.append(Parking(world, heading, 0.5, when))
    builder.occupancy.take_box(world, heading, length, 2.6)


def _build_house(builder: PlanBuilder, plot: Plot, house: _House, when: Presence, *, room_for_wing: bool) -> None:
    """Add the house, and a wing or a terrace behind it."""
    rng = builder.rng
    roof, color = _choose_roof(rng)
    height = rng.uniform(5.0, 7.5)
    across = house.heading + np.pi / 2
    if house.gabled and house.length < 1.2 * house.depth:
        ridge, size = across, (house.depth, house.length)
    else:
        ridge, size = house.heading, (house.length, house.depth)
    builder.build(house.world, ridge, size, height=height, roof=roof, color=color, when=when)
    if rng.random() < 0.3 and room_for_wing:
        wing = house.centre + plot.along * house.length * rng.choice([-0.25, 0.25]) - plot.out * (house.depth / 2 + 1.5)
        world, size = builder.warp.world_point(wing), (5.5, 5.5)
        builder.build(world, across, size, height=height - 1, roof="gable", color=color, when=when, spaced=False)
    elif rng.random() < 0.7:
        terrace = house.centre - plot.out * (house.depth / 2 + 1.8) + plot.along * rng.uniform(-2, 2)
        builder.grounds.append(Ground(rectangle(terrace, plot.angle, 6, 3.6), "paving", when, plot.angle))


def _choose_roof(rng: np.random.Generator) -> tuple[str, Rgb]:
    """Return a roof type and its colour."""
    pitched = TILES if rng.random() < 0.74 else SLATES
    color = pitched[rng.integers(len(pitched))]
    roof = str(rng.choice(["gable", "hip", "flat"], p=[0.72, 0.18, 0.10]))
    if roof == "flat":
        color = FLATS[rng.integers(len(FLATS))]
    return roof, color


def _plant_garden(builder: PlanBuilder, plot: Plot, house: _House) -> None:
    """Add a pool, a bed or a shed behind the house, trees, hedges around, and a shrub or a tree in front."""
    rng, outline, out = builder.rng, plot.outline, plot.out
    back = inset(keep_below(outline, out, float(house.centre @ out) - house.depth / 2 - 2), 2.0)
    if area(back) > 60:
        _furnish_back(builder, back, plot.angle)
    for corner, next_corner in zip(outline, following(outline), strict=True):
        # No hedge on the street side, because of the drive.
        towards_street = (corner + next_corner) @ out / 2 > plot.front - 2.5
        if rng.random() < 0.42 and not towards_street and np.hypot(*(next_corner - corner)) > 6:
            line = builder.warp.to_world(resample(np.stack([corner, next_corner]), 6.0))
            builder.lines.append(Line(line, "hedge", rng.uniform(0.5, 0.9)))
    front = outline.mean(0) + out * (np.ptp(outline @ out) / 2 - 2.5) + plot.along * rng.uniform(-8, 4)
    if rng.random() < 0.4 and contains(outline, front, 1):
        builder.plant(builder.warp.world_point(front), rng.uniform(1.0, 2.4), builder.species())


def _furnish_back(builder: PlanBuilder, back: Points, angle: float) -> None:
    """Add a pool, a vegetable bed, a shed or nothing, where it fits; then a few trees."""
    rng, warp = builder.rng, builder.warp
    low, high = back.min(0), back.max(0)
    chance = rng.random()
    at = low + (high - low) * rng.uniform(0.3, 0.7, 2)
    world = warp.world_point(at)
    if chance < 0.12 and contains(back, at, 4) and builder.occupancy.free(world, 4):
        builder.grounds.append(Ground(rectangle(at, angle, 9.4, 5.4), "paving", angle=angle))
        builder.grounds.append(Ground(rectangle(at, angle, 8, 4), "pool", angle=angle))
        builder.occupancy.take_box(world, warp.heading(at, angle), 9, 5)
    elif chance < 0.3 and contains(back, at, 3):
        builder.grounds.append(Ground(rectangle(at, angle, 7, 4.5), "bed", angle=angle, spacing_m=1.3))
    elif chance < 0.65 and contains(back, at, 2.5) and builder.occupancy.free(world, 3):
        builder.build(world, warp.heading(at, angle), (4.5, 3.2), height=2.4, roof="gable", color=(120, 100, 84))
    for _ in range(rng.integers(2, 8)):
        builder.plant(warp.world_point(rng.uniform(low, high)), rng.uniform(1.2, 4.2), builder.species())
