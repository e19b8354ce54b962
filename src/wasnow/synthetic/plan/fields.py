"""Open ground: crops in rows, woods and orchards, parks, and the bare ground of building sites and felled woods."""

from __future__ import annotations

import numpy as np

from wasnow.synthetic.objects import Ground, Presence
from wasnow.synthetic.plan.builder import PlanBuilder
from wasnow.synthetic.shapes import Points, area, axes, contains, inset, long_axis, rectangle, resample

CROPS = ("wheat", "barley", "rapeseed", "maize", "beet", "meadow", "pasture")


def plant_crop(builder: PlanBuilder, polygon: Points, when: Presence = Presence.BOTH) -> None:
    """Add a field of one crop, its rows along the field."""
    _field(builder, polygon, str(builder.rng.choice(CROPS, p=[0.24, 0.13, 0.13, 0.17, 0.09, 0.16, 0.08])), when)


def make_pasture(builder: PlanBuilder, polygon: Points, when: Presence = Presence.BOTH) -> None:
    """Add a pasture."""
    _field(builder, polygon, "pasture", when)


def plant_wood(builder: PlanBuilder, polygon: Points, when: Presence = Presence.BOTH) -> None:
    """Add a closed canopy over a dark floor: conifers or broadleaf trees, with a few of the other type."""
    angle = long_axis(polygon)
    builder.grounds.append(Ground(polygon, "forest floor", when, angle))
    kind = "conifer" if builder.rng.random() < 0.3 else "broadleaf"
    _plant_rows(builder, polygon, kind, when, pitch=(5.0, 5.0), jitter=1.5, radii=(2.3, 4.3))


def plant_orchard(builder: PlanBuilder, polygon: Points, when: Presence = Presence.BOTH) -> None:
    """Add small crowns in rows on a meadow."""
    builder.grounds.append(Ground(polygon, "meadow", when, long_axis(polygon), 5.5, 0.97))
    _plant_rows(builder, polygon, "orchard", when, pitch=(5.6, 4.6), jitter=0.25, radii=(1.4, 1.9))


def open_site(builder: PlanBuilder, polygon: Points, when: Presence = Presence.BOTH) -> None:
    """Add a building site with heaps and pits, and with a slab if it is large."""
    rng, angle = builder.rng, long_axis(polygon)
    builder.grounds.append(Ground(polygon, "site", when, angle))
    inner = inset(polygon, 9.0)
    if len(inner) == 0:
        return
    centre = inner.mean(0)
    for _ in range(int(area(polygon) / 700) + 1):
        at = centre + (inner[rng.integers(len(inner))] - centre) * rng.uniform(0.2, 1)
        tilt = angle + rng.normal(0, 0.5)
        patch = rectangle(at, tilt, rng.uniform(6, 16), rng.uniform(5, 10))
        builder.grounds.append(Ground(patch, str(rng.choice(["heap", "pit", "gravel"])), when, tilt))
    if area(polygon) > 2200:
        world, heading = builder.warp.world_point(centre), builder.warp.heading(centre, angle)
        builder.build(world, heading, (18, 11), height=2.5, roof="flat", color=(184, 180, 172), when=when)


def clear_wood(builder: PlanBuilder, polygon: Points, when: Presence) -> None:
    """Add the ground of a felled wood."""
    builder.grounds.append(Ground(polygon, "felled", when, long_axis(polygon)))


def lay_out_park(builder: PlanBuilder, polygon: Points) -> None:
    """Add a lawn with trees, and a path from corner to corner."""
    rng = builder.rng
    builder.grounds.append(Ground(polygon, "lawn", angle=rng.uniform(0, np.pi), tone=rng.uniform(0.95, 1.05)))
    start, end = polygon[[0, len(polygon) // 2]]
    middle = polygon.mean(0) + rng.normal(0, 6, 2)
    builder.lay_road(builder.warp.to_world(resample(np.stack([start, middle, end]), 6.0)), "path", 0.9)
    builder.scatter(polygon, density=1 / 160)


def _field(builder: PlanBuilder, polygon: Points, cover: str, when: Presence) -> None:
    spacing = {"maize": 1.7, "beet": 1.5}.get(cover, 2.1) * builder.rng.uniform(0.9, 1.2)
    tone = builder.rng.uniform(0.9, 1.1)
    builder.grounds.append(Ground(polygon, cover, when, long_axis(polygon), spacing, tone))


def _plant_rows(
    builder: PlanBuilder,
    polygon: Points,
    kind: str,
    when: Presence,
    *,
    pitch: tuple[float, float],
    jitter: float,
    radii: tuple[float, float],
) -> None:
    """Plant trees on a grid of ``pitch`` metres with random offsets of ``jitter``, crown radii within ``radii``."""
    rng = builder.rng
    along, across = axes(long_axis(polygon))
    rows, cols = (
        np.arange((polygon @ axis).min(), (polygon @ axis).max(), gap)
        for axis, gap in zip((along, across), pitch, strict=True)
    )
    inner = inset(polygon, 2.0)
    if len(inner) == 0:
        return
    for a in rows:
        for b in cols:
            point = along * (a + rng.normal(0, jitter)) + across * (b + rng.normal(0, jitter))
            if contains(inner, point):
                of_kind = kind if rng.random() < 0.9 else "broadleaf"
                builder.plant(builder.warp.world_point(point), rng.uniform(*radii), of_kind, when, take=False)
