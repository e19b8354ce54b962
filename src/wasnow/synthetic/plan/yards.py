"""Large buildings with paved yards: farms, commercial areas, apartment blocks."""

from __future__ import annotations

import numpy as np

from wasnow.synthetic.colors import FLATS, TILES
from wasnow.synthetic.objects import Ground, Line, Parking, Presence
from wasnow.synthetic.plan.builder import PlanBuilder
from wasnow.synthetic.shapes import Points, axes, contains, inset, long_axis, rectangle, span


def farm(builder: PlanBuilder, polygon: Points) -> None:
    """Add two barns and a house around a yard, on the part of a meadow that is in the image."""
    rng, warp, angle = builder.rng, builder.warp, long_axis(polygon)
    builder.grounds.append(Ground(polygon, "meadow", angle=angle, tone=0.95))
    visible = warp.plan_point(builder.land.in_image(polygon).mean(0))
    centre = visible if contains(polygon, visible, 22) else polygon.mean(0)
    builder.grounds.append(Ground(rectangle(centre, angle, 46, 34), "gravel", angle=angle))
    builder.grounds.append(Ground(rectangle(centre, angle, 24, 14), "paving", angle=angle))
    along, across = axes(angle)
    for where, turn, size, color in (
        (-across * 15, 0.0, (34, 12), (150, 148, 146)),
        (across * 15, 0.0, (26, 11), TILES[rng.integers(len(TILES))]),
        (along * 21, np.pi / 2, (16, 10), TILES[rng.integers(len(TILES))]),
    ):
        heading = warp.heading(centre, angle + turn)
        builder.build(warp.world_point(centre + where), heading, size, height=6.0, roof="gable", color=color)
    builder.scatter(polygon, density=1 / 500)


def trade(builder: PlanBuilder, polygon: Points, when: Presence = Presence.BOTH) -> None:
    """Add a commercial hall at one end and a car park with painted bays at the other."""
    rng, warp, angle = builder.rng, builder.warp, long_axis(polygon)
    builder.grounds.append(Ground(polygon, "lawn" if when == Presence.BOTH else "car park", when, angle))
    inner = inset(polygon, 2.5)
    if len(inner) == 0:
        return
    builder.grounds.append(Ground(inner, "car park", when, angle))
    along, across = axes(angle)
    low, high = span(inner, along)
    near, far = span(inner, across)
    middle = (near + far) / 2
    length = float(np.clip(0.36 * (high - low), 8, 60))
    centre = along * (low + length / 2 + 6) + across * middle
    if contains(inner, centre, 5):
        size = (length, float(np.clip(far - near - 16, 7, 42)))
        color = FLATS[rng.integers(len(FLATS))]
        height = rng.uniform(6, 9)
        world, heading = warp.world_point(centre), warp.heading(centre, angle)
        builder.build(world, heading, size, height=height, roof="flat", color=color, when=when)
    _paint_bays(builder, inner, angle, low + length + 14, when)


def flats(builder: PlanBuilder, polygon: Points) -> None:
    """Add apartment blocks across a lawn, with a parking court between them."""
    rng, warp, angle = builder.rng, builder.warp, long_axis(polygon)
    builder.grounds.append(Ground(polygon, "lawn", angle=angle, tone=rng.uniform(0.95, 1.05)))
    along, across = axes(angle)
    low, high = span(polygon, along)
    middle = sum(span(polygon, across)) / 2
    color = FLATS[rng.integers(len(FLATS))]
    for a in np.arange(low + 16, high - 12, 34.0):
        centre = along * a + across * (middle - 7)
        if contains(polygon, centre, 10):
            heading = warp.heading(centre, angle + np.pi / 2)
            builder.build(warp.world_point(centre), heading, (24, 12), height=11.0, roof="flat", color=color)
        court = along * (a + 17) + across * middle
        if contains(polygon, court, 7):
            builder.grounds.append(Ground(rectangle(court, angle, 11, 24), "car park", angle=angle))
            for b in np.arange(-10, 10, 2.6):
                spot = court + across * b - along * 2.8
                world = warp.world_point(spot)
                builder.occupancy.take_box(world, 0, 5, 5)
                builder.parkings.append(Parking(world, warp.heading(spot, angle), 0.6))
    builder.scatter(polygon, density=1 / 220)


def _paint_bays(builder: PlanBuilder, polygon: Points, angle: float, start: float, when: Presence) -> None:
    """Add rows of parking bays beyond ``start`` metres along the car park, with a few trees in place of bays."""
    rng, warp = builder.rng, builder.warp
    along, across = axes(angle)
    _, high = span(polygon, along)
    near, far = span(polygon, across)
    middle, deep = (near + far) / 2, far - near
    for row, b in enumerate(np.arange(middle - deep / 2 + 4, middle + deep / 2 - 3, 8.2)):
        for a in np.arange(start, high - 3, 2.6):
            bay = along * a + across * b
            if not contains(polygon, bay, 4.0):
                continue
            world = warp.world_point(bay)
            if row % 2 and rng.random() < 0.04:
                builder.plant(world, rng.uniform(1.6, 2.4), "broadleaf", when, take=False)
                continue
            ends = warp.to_world(np.stack([bay - across * 2.4, bay + across * 2.4]) - along * 1.3)
            builder.lines.append(Line(ends, "paint", 0.09, when))
            builder.parkings.append(Parking(world, warp.heading(bay, angle + np.pi / 2), 0.45, when))
