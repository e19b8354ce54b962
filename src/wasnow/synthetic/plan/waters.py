"""The river and its moving bed, ponds that grow, and the trees on their banks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from wasnow.synthetic.objects import Pond, Presence
from wasnow.synthetic.plan.builder import ChangeBudget, PlanBuilder
from wasnow.synthetic.plan.cells import Cell
from wasnow.synthetic.shapes import Point, Points, contains, direction, inset, resample


def place_river(builder: PlanBuilder, budget: ChangeBudget) -> None:
    """Add the river. If the budget allows, a meander moves sideways by more than the river width, leaving a dry bed."""
    river = builder.land.river
    if river is None:
        return
    builder.occupancy.take(river.line, river.half_width_m + 1.5)
    inside = ((river.line > 20) & (river.line < builder.land.size - 20)).all(1)
    if budget.total < 2500 or not inside.any():
        builder.waters.append(river)
        return
    at = river.line[builder.rng.choice(np.flatnonzero(inside))]
    along = np.hypot(*(river.line - at).T)
    reach = float(np.clip(0.15 * budget.total / river.half_width_m, 40, 70))
    bend = builder.rng.choice([-1, 1]) * 1.7 * river.half_width_m * np.exp(-((along / reach) ** 2) * 1.6)
    moved = replace(river, line=river.line + bend[:, None] * _sideways(river.line), when=Presence.AFTER)
    builder.occupancy.take(moved.line, moved.half_width_m + 1.5)
    builder.waters += [replace(river, when=Presence.BEFORE), replace(river, bed=True, when=Presence.AFTER), moved]
    step = np.hypot(*np.diff(river.line, axis=0).T).mean()
    budget.spend(float(2 * np.minimum(np.abs(bend), 2 * river.half_width_m)[inside].sum() * step))


def dig_ponds(builder: PlanBuilder, cells: list[Cell], budget: ChangeBudget) -> None:
    """Add ponds with trees in pastures and fields; the first one grows if the budget allows.

    Args:
        builder: of the plan.
        cells: that may hold a pond; they become pastures.
        budget: the area of the growth is spent.
    """
    rng, land = builder.rng, builder.land
    hosts = [cell for cell in cells if cell.use in ("pasture", "crop") and land.visible_m2(cell.polygon) > 2500]
    rng.shuffle(hosts)
    wanted = (1 if land.river is None else 0) + int(rng.random() < 0.5) + len(hosts) // 25
    for index, cell in enumerate(hosts[:wanted]):
        room = land.in_image(inset(cell.polygon, 16))
        centre = room.mean(0) if len(room) else land.in_image(cell.polygon).mean(0)
        if land.river_distance(centre[None])[0] < 40:
            continue
        cell.use = "pasture"
        radius = float(
            max(6.0, _room_around(builder.warp.plan_point(centre), cell.polygon) - 2) * rng.uniform(0.75, 1.0)
        )
        pond = Pond(centre, radius, rng.normal(0, (0.14, 0.08, 0.05, 0.03)), rng.uniform(0, 2 * np.pi, 4))
        small = radius * 0.6
        growth_m2 = np.pi * (radius**2 - small**2)
        if index == 0 and budget.left > 3 * growth_m2:
            builder.waters += [replace(pond, radius_m=small, when=Presence.BEFORE), replace(pond, when=Presence.AFTER)]
            budget.spend(growth_m2)
        else:
            builder.waters.append(pond)
        builder.occupancy.take(np.stack([centre, centre + 0.1]), radius * 1.15)
        for angle in rng.uniform(0, 2 * np.pi, 9):
            spot = centre + direction(angle) * radius * rng.uniform(1.3, 1.5)
            builder.plant(spot, rng.uniform(2.0, 4.2), "broadleaf")


def plant_riverbanks(builder: PlanBuilder) -> None:
    """Plant trees along both banks of the river."""
    rng, river = builder.rng, builder.land.river
    if river is None:
        return
    for point in resample(river.line, 7.0):
        if rng.random() < 0.55:
            away = direction(rng.uniform(0, 2 * np.pi)) * (river.half_width_m + rng.uniform(3, 8))
            if builder.land.river_distance((point + away)[None])[0] > 2.5:
                builder.plant(point + away, rng.uniform(2.2, 4.8), "broadleaf")


def _sideways(line: Points) -> Points:
    """Return the unit normals ``(N, 2)`` of a polyline."""
    tangent = np.gradient(line, axis=0)
    normals: Points = np.stack([-tangent[:, 1], tangent[:, 0]], 1) / np.hypot(*tangent.T)[:, None]
    return normals


def _room_around(point: Point, polygon: Points) -> float:
    """Return the largest radius, 8 to 34 m, of a pond with eight metres of shore that fits around a point."""
    return min((float(r) for r in np.arange(8.0, 34.0, 2.0) if not contains(polygon, point, r + 8)), default=34.0)
