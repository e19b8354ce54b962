"""Lay out a synthetic place at the edge of a village, and its changes between two dates. Works without pixels.

    1. land       villages, a river
    2. cells      the land is divided recursively into cells, each with a use
    3. waters     the river moves, a pond grows
       roads      along the cuts; one of them is new
       changes    cells lose a slice to a car park, houses or a building site
    4. fields     the rest of the cells is filled: crops, woods, parks, building sites;
       yards      farms, commercial areas, apartment blocks;
       homes      blocks of plots, each plot with a house that faces its street
    5. changes    houses are built and demolished until the change area is reached

Objects are collected in a `PlanBuilder`. Cells, roads and plots are laid out in plan coordinates and bent on their way
to the world (see `wasnow.synthetic.shapes.Warp`).
"""

from __future__ import annotations

import numpy as np

from wasnow.synthetic.objects import Plan
from wasnow.synthetic.plan.builder import ChangeBudget, PlanBuilder
from wasnow.synthetic.plan.cells import Cell, assign_uses, divide
from wasnow.synthetic.plan.changes import change_houses, convert_fields
from wasnow.synthetic.plan.fields import lay_out_park, make_pasture, open_site, plant_crop, plant_orchard, plant_wood
from wasnow.synthetic.plan.homes import homes
from wasnow.synthetic.plan.land import Land
from wasnow.synthetic.plan.roads import grow_hedgerows, lay_roads
from wasnow.synthetic.plan.waters import dig_ponds, place_river, plant_riverbanks
from wasnow.synthetic.plan.yards import farm, flats, trade
from wasnow.synthetic.shapes import inset


def make_plan(rng: np.random.Generator, *, width_m: float, height_m: float, change_share: float) -> Plan:
    """Lay out one place and its changes; the image covers x in [0, width_m], y in [0, height_m].

    Args:
        rng: source of all random numbers.
        width_m: west to east, metres.
        height_m: north to south, metres.
        change_share: approximate share of the image whose class changes; 0 for none.
    """
    land = Land.drawn(rng, np.array([width_m, height_m]))
    cells, cuts = divide(land, rng)
    assign_uses(cells, land, rng)
    builder, budget = PlanBuilder(land, rng), ChangeBudget(change_share * width_m * height_m)
    for_houses_m2 = 0.14 * budget.total
    place_river(builder, budget)
    cuts = lay_roads(builder, cuts, budget)
    dig_ponds(builder, cells, budget)
    convert_fields(builder, cells, budget, keep_m2=for_houses_m2)
    for cell in cells:
        _fill(builder, cell)
    grow_hedgerows(builder, cuts)
    plant_riverbanks(builder)
    change_houses(builder, for_houses_m2)
    return builder.plan()


def _fill(builder: PlanBuilder, cell: Cell) -> None:
    """Fill a cell, a few metres off its cuts, according to its use."""
    inner = inset(cell.polygon, 4.6 if cell.urban else 1.4)
    if len(inner) == 0:
        return
    if cell.use == "pasture":
        make_pasture(builder, inner)
        builder.scatter(inner, density=1 / 1500)
    else:
        fill = {
            "crop": plant_crop,
            "wood": plant_wood,
            "orchard": plant_orchard,
            "site": open_site,
            "park": lay_out_park,
            "farm": farm,
            "trade": trade,
            "flats": flats,
            "homes": homes,
        }[cell.use]
        fill(builder, inner)
