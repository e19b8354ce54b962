"""Lay out an invented place at the edge of a village, and what became of it between two dates. No pixels here.

    1. land       villages, a river
    2. cells      the land is cut, and cut again; what is left are cells with a use
    3. waters     the river moves, a pond grows
       roads      along the cuts; one of them is new
       changes    cells lose a slice to a car park, houses or a building site
    4. fields     what is left of the cells is filled: crops, woods, parks, building sites;
       yards      farms, trade, flats;
       homes      blocks with plots, plots with a house that faces its street
    5. changes    houses come and go, until the area asked for is reached

The things placed are collected in a `Draft`. Cells, roads and plots are laid out in plan coordinates and bent gently on
their way to the world (see `wasnow.synthetic.shapes.Warp`).
"""

from __future__ import annotations

import numpy as np

from wasnow.synthetic.plan.cells import Cell, assign_uses, divide
from wasnow.synthetic.plan.changes import change_houses, convert_fields
from wasnow.synthetic.plan.draft import Draft, Ledger
from wasnow.synthetic.plan.fields import graze, lay_out_park, open_site, plant_orchard, plant_wood, sow
from wasnow.synthetic.plan.homes import homes
from wasnow.synthetic.plan.land import Land
from wasnow.synthetic.plan.roads import grow_hedgerows, lay_roads
from wasnow.synthetic.plan.waters import dig_ponds, grow_on_the_banks, let_the_river_run
from wasnow.synthetic.plan.yards import farm, flats, trade
from wasnow.synthetic.shapes import inset
from wasnow.synthetic.things import Plan


def make_plan(rng: np.random.Generator, *, width_m: float, height_m: float, change_share: float) -> Plan:
    """Lay out one place and its changes; the image covers x in [0, width_m], y in [0, height_m].

    Args:
        rng: where every decision is drawn from.
        width_m: west to east, metres.
        height_m: north to south, metres.
        change_share: share of the image whose class should change, roughly; 0 for none.
    """
    land = Land.drawn(rng, np.array([width_m, height_m]))
    cells, cuts = divide(land, rng)
    assign_uses(cells, land, rng)
    draft, ledger = Draft(land, rng), Ledger(change_share * width_m * height_m)
    for_houses_m2 = 0.14 * ledger.total
    let_the_river_run(draft, ledger)
    cuts = lay_roads(draft, cuts, ledger)
    dig_ponds(draft, cells, ledger)
    convert_fields(draft, cells, ledger, keep_m2=for_houses_m2)
    for cell in cells:
        _fill(draft, cell)
    grow_hedgerows(draft, cuts)
    grow_on_the_banks(draft)
    change_houses(draft, for_houses_m2)
    return draft.plan()


def _fill(draft: Draft, cell: Cell) -> None:
    """Put on a cell, a few metres off its cuts, what its use asks for."""
    inner = inset(cell.polygon, 4.6 if cell.urban else 1.4)
    if len(inner) == 0:
        return
    if cell.use == "pasture":
        graze(draft, inner)
        draft.scatter(inner, density=1 / 1500)
    else:
        fill = {
            "crop": sow,
            "wood": plant_wood,
            "orchard": plant_orchard,
            "site": open_site,
            "park": lay_out_park,
            "farm": farm,
            "trade": trade,
            "flats": flats,
            "homes": homes,
        }[cell.use]
        fill(draft, inner)
