"""Changes by people between the dates: fields are built over, houses are built and demolished.

            ┌──────── crop ────────┐             ┌─ trade ─┬──── crop ────┐
    before  │                      │      after  │  slice  │     rest     │
            └──────────────────────┘             └─────────┴──────────────┘

Each change spends square metres of the budget, until nothing is left.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from wasnow.synthetic.objects import Building, Ground, Pond, Presence
from wasnow.synthetic.plan.builder import ChangeBudget, PlanBuilder
from wasnow.synthetic.plan.cells import Cell, away_from_the_river
from wasnow.synthetic.plan.fields import clear_wood, make_pasture, open_site, plant_crop, plant_orchard, plant_wood
from wasnow.synthetic.plan.homes import new_homes
from wasnow.synthetic.plan.land import Land
from wasnow.synthetic.plan.yards import trade
from wasnow.synthetic.shapes import (
    Points,
    area,
    contains,
    direction,
    inset,
    keep_below,
    long_axis,
    rectangle,
    span,
)

BUILT_SHARE = 0.93
"""Approximate share of a converted slice whose class changes: lawns, hedges and crowns in it stay vegetation."""


def convert_fields(builder: PlanBuilder, cells: list[Cell], budget: ChangeBudget, *, keep_m2: float) -> None:
    """Convert slices of cells to a car park, houses or a building site, until ``keep_m2`` of the budget is left.

    Args:
        builder: of the plan.
        cells: may lose a slice.
        budget: the converted areas are spent.
        keep_m2: square metres of the budget to keep.
    """
    rng, land = builder.rng, builder.land
    usable = [
        cell
        for cell in cells
        if cell.use in ("crop", "pasture", "wood", "orchard", "park", "homes")
        and away_from_the_river(cell, land)
        and not _holds_water(cell, builder)
    ]
    rng.shuffle(usable)
    # Fields near the village come first, gaps between houses only if no field is in the image.
    usable.sort(key=lambda cell: 9 * cell.urban - land.urbanity(cell.polygon.mean(0)) + rng.uniform(0, 0.5))
    kinds = ["trade", "homes", "site"]
    rng.shuffle(kinds)
    count = 0
    for cell in usable:
        left = budget.left - keep_m2
        if left < 250:
            break
        if land.visible_m2(cell.polygon) < min(900, left):
            continue
        wanted = min(left, rng.uniform(0.45, 0.7) * max(budget.total, 2500), 14_000)
        piece, rest = _slice(cell.polygon, wanted / BUILT_SHARE, land, rng)
        visible_m2 = land.visible_m2(piece)
        if visible_m2 < 120:
            continue
        budget.spend(visible_m2 * BUILT_SHARE)
        _convert(builder, piece, cell.use, "site" if area(piece) < 900 else kinds[count % len(kinds)])
        count += 1
        cell.polygon = rest


def change_houses(builder: PlanBuilder, budget_m2: float) -> None:
    """Let houses appear or disappear until ``budget_m2`` is spent."""
    rng = builder.rng
    for index in rng.permutation(len(builder.buildings)):
        if budget_m2 < 90:
            return
        house = builder.buildings[index]
        if not _may_change(house, builder.land) or house.area_m2 > 1.6 * budget_m2:
            continue
        gone = rng.random() < 0.45
        builder.buildings[index] = replace(house, when=Presence.BEFORE if gone else Presence.AFTER)
        if gone:
            lot = rectangle(house.centre, house.angle, house.length_m + 3, house.width_m + 3)
            cover = str(rng.choice(["rubble", "lawn"], p=[0.6, 0.4]))
            builder.grounds.append(Ground(builder.warp.to_plan(lot), cover, Presence.AFTER, house.angle))
        budget_m2 -= house.area_m2 * (1.2 if gone else 1.0)


def _holds_water(cell: Cell, builder: PlanBuilder) -> bool:
    ponds = [water.centre for water in builder.waters if isinstance(water, Pond)]
    return any(contains(cell.polygon, builder.warp.plan_point(centre), -5) for centre in ponds)


def _slice(polygon: Points, wanted_m2: float, land: Land, rng: np.random.Generator) -> tuple[Points, Points]:
    """Return a slice of about ``wanted_m2`` visible area off one end of a cell, and the rest."""
    nothing = np.empty((0, 2))
    inner = inset(polygon, 4.5)
    if land.visible_m2(inner) <= wanted_m2 * 1.12:
        return inner, nothing
    normal = direction(long_axis(polygon)) * rng.choice([-1.0, 1.0])
    low, high = span(inner, normal)
    for _ in range(30):
        middle = (low + high) / 2
        if land.visible_m2(keep_below(inner, normal, middle)) < wanted_m2:
            low = middle
        else:
            high = middle
    rest = keep_below(polygon, -normal, -low - 3.0)
    return keep_below(inner, normal, low), rest if area(rest) > 800 else nothing


def _convert(builder: PlanBuilder, piece: Points, use: str, becomes: str) -> None:
    """Add the objects of a slice before and after its conversion; a wood becomes felled ground in any case."""
    if use == "wood":
        plant_wood(builder, piece, Presence.BEFORE)
    elif use == "orchard":
        plant_orchard(builder, piece, Presence.BEFORE)
    elif use == "crop":
        plant_crop(builder, piece, Presence.BEFORE)
    else:
        make_pasture(builder, piece, Presence.BEFORE)
    if use in ("wood", "orchard"):
        clear_wood(builder, piece, Presence.AFTER)
    elif becomes == "trade":
        trade(builder, piece, Presence.AFTER)
    elif becomes == "homes":
        new_homes(builder, piece)
    else:
        open_site(builder, piece, Presence.AFTER)


def _may_change(house: Building, land: Land) -> bool:
    """Return whether a house exists at both dates, is well inside the image, and is neither a shed nor a hall."""
    in_image = bool(((house.centre > 6) & (house.centre < land.size - 6)).all())
    return house.when == Presence.BOTH and in_image and house.length_m >= 8 and house.area_m2 <= 320
