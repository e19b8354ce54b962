"""Divide the land into cells, and assign a use to each.

    ┌────────┬───────────┐
    │  crop  │   wood    │
    ├─hedge──┤           │
    │  site  ├──track────┤
    ├═══════main═════════┤
    │ homes  │   homes   │
    └────────┴───────────┘

The land is divided recursively: first by roads, then in the village by streets, and outside by hedges, tracks and plain
field edges.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from wasnow.synthetic.plan.land import Land
from wasnow.synthetic.shapes import (
    Point,
    Points,
    area,
    direction,
    distance_to_line,
    keep_below,
    long_axis,
    resample,
)


@dataclass(eq=False)
class Cell:
    """A convex part of the plan between cuts, and its use. Changes take slices of it.

    Attributes:
        polygon: in plan coordinates; empty when nothing is left.
        urban: whether it belongs to a village.
        use: crop, pasture, wood, orchard, site, farm; in a village homes, flats, trade, park.
    """

    polygon: Points
    urban: bool
    use: str = ""


@dataclass(frozen=True, eq=False)
class Cut:
    """A straight line of the plan that divides a cell: ``kind`` is main, street, track, hedge or edge."""

    ends: Points
    kind: str


def divide(land: Land, rng: np.random.Generator) -> tuple[list[Cell], list[Cut]]:
    """Divide the plan into cells of about a hectare. Returns the cells and the cuts between them."""
    low, high = land.low, land.high
    cells, cuts = _divide(np.array([low, [high[0], low[1]], high, [low[0], high[1]]]), 0, land, rng)
    return cells, _connected(cuts)


def assign_uses(cells: list[Cell], land: Land, rng: np.random.Generator) -> None:
    """Assign a use to each cell: pasture along the river, a farm and a building site in the image."""
    for cell in cells:
        if cell.urban:
            cell.use = str(rng.choice(["homes", "flats", "trade", "park"], p=[0.74, 0.10, 0.09, 0.07]))
        else:
            cell.use = str(rng.choice(["crop", "wood", "orchard", "pasture"], p=[0.70, 0.13, 0.05, 0.12]))
    for cell in cells:
        if cell.use != "wood" and land.river_distance(land.warp.to_world(cell.polygon.mean(0)[None]))[0] < 12:
            cell.use = "pasture"
    # A farm is among the fields; a building site near the village exists at both dates.
    fields = [
        cell
        for cell in cells
        if not cell.urban
        and land.visible_m2(cell.polygon) > 1500
        and cell.use in ("crop", "pasture")
        and away_from_the_river(cell, land)
    ]
    fields.sort(key=lambda cell: -land.urbanity(cell.polygon.mean(0)))
    for cell, use in zip(fields, ("site", "farm"), strict=False):
        cell.use = use


def away_from_the_river(cell: Cell, land: Land) -> bool:
    """Return whether the whole outline of a cell is more than six metres from the bank."""
    return bool(land.river_distance(land.warp.to_world(resample(cell.polygon, 10))).min() > 6)


def _divide(polygon: Points, depth: int, land: Land, rng: np.random.Generator) -> tuple[list[Cell], list[Cut]]:
    urban = land.urbanity(polygon.mean(0)) > rng.normal(0, 0.06)
    angle = long_axis(polygon)
    if depth == 0:
        angle = land.heading + np.pi / 2
    elif depth == 1:
        angle = land.heading + rng.normal(0, 0.12)
    width = min(float(np.ptp(polygon @ direction(angle + turn))) for turn in (0.0, np.pi / 2))
    limit = rng.uniform(6_500, 11_000) if urban else rng.uniform(11_000, 26_000)
    if depth > 1 and (area(polygon) < limit or width < 34):
        return [Cell(polygon, urban)], []
    normal, offset = _where_to_cut(polygon, angle, depth, land, rng)
    parts = keep_below(polygon, normal, offset), keep_below(polygon, -normal, -offset)
    if min(map(area, parts)) < 1500:
        return [Cell(polygon, urban)], []
    on_line = parts[0][np.abs(parts[0] @ normal - offset) < 1e-6]
    reach = on_line @ direction(angle + np.pi / 2)
    ends = on_line[[int(np.argmin(reach)), int(np.argmax(reach))]]
    cut = Cut(ends, _kind_of_cut(ends, depth, land, rng))
    (cells, cuts), (more_cells, more_cuts) = (_divide(part, depth + 1, land, rng) for part in parts)
    return cells + more_cells, [cut, *cuts, *more_cuts]


def _where_to_cut(
    polygon: Points, angle: float, depth: int, land: Land, rng: np.random.Generator
) -> tuple[Point, float]:
    """Return normal and offset of a cut: the first two meet near the village, the others roughly halve a cell."""
    normal = direction(angle + (rng.normal(0, 0.05) if depth > 1 else 0))
    offsets = polygon @ normal
    share = rng.uniform(0.42, 0.58)
    if depth == 0:
        return normal, float(land.villages[0] @ normal) + rng.uniform(-25, 25)
    if depth == 1:
        # Side roads meet the main road at different places.
        return normal, float(land.villages[0] @ normal) + rng.uniform(-70, 70)
    return normal, float(offsets.min() + share * np.ptp(offsets))


def _kind_of_cut(ends: Points, depth: int, land: Land, rng: np.random.Generator) -> str:
    if depth < 2:
        return "main" if depth == 0 or rng.random() < 0.45 else "street"
    if land.urbanity(ends.mean(0)) > -0.05:
        return "street"
    return str(rng.choice(["hedge", "track", "edge", "street"], p=[0.34, 0.24, 0.34, 0.08]))


def _connected(cuts: list[Cut]) -> list[Cut]:
    """Turn a hedge or edge at which a road ends into a farm track, so that no road is a dead end."""
    dead_ends = [end for cut in cuts if cut.kind in ("main", "street") for end in cut.ends]

    def takes_over(cut: Cut) -> bool:
        return cut.kind in ("hedge", "edge") and any(
            distance_to_line(end[None], cut.ends)[0] < 0.5 for end in dead_ends
        )

    return [replace(cut, kind="track") if takes_over(cut) else cut for cut in cuts]
