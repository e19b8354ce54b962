"""Paint a plan as a camera sees it from above at one date, or as a map of its classes.

    ground ─ water ─ roads ─ cars   albedo, in that order
              ×  shadows            one mask, cast by all tall objects along the direction of the sun
    hedges ─ roofs ─ crowns         lit by the same sun

Every shape is a signed distance in metres and every texture a smooth function of world coordinates. A shifted camera
therefore has other pixel centres, and the second date is rendered there, not resampled (see `Canvas`).
"""

from __future__ import annotations

import numpy as np

from wasnow.synthetic.objects import Plan
from wasnow.synthetic.paint.buildings import paint_building
from wasnow.synthetic.paint.canvas import Canvas
from wasnow.synthetic.paint.cars import paint_cars
from wasnow.synthetic.paint.ground import meadow, paint_ground
from wasnow.synthetic.paint.plants import paint_hedges, paint_tree
from wasnow.synthetic.paint.roads import paint_bays, paint_roads
from wasnow.synthetic.paint.shadows import cast_shadows
from wasnow.synthetic.paint.water import paint_water


def paint(canvas: Canvas, plan: Plan, rng: np.random.Generator) -> None:
    """Paint all objects of a plan.

    Args:
        canvas: new; its classes are written, and its colours (linear albedo times light, 0..1) if it has a light.
        plan: the objects at the date of the image: ``plan.at(date)``.
        rng: source of what differs every day: which parking places are taken.
    """
    light = canvas.light
    if light is not None:
        canvas.rgb[:] = meadow(canvas, light, canvas.whole)
    for ground in plan.grounds:
        paint_ground(canvas, ground)
    for water in plan.waters:
        paint_water(canvas, water)
    paint_roads(canvas, plan.roads)
    paint_bays(canvas, plan.lines)
    hedges = [(line.line, line.half_width_m) for line in plan.lines if line.kind == "hedge"]
    trees = sorted(plan.trees, key=lambda tree: tree.height_m)
    if light is not None:
        paint_cars(canvas, light, plan, rng)
        cast_shadows(canvas, light, plan.buildings, trees, hedges)
    paint_hedges(canvas, hedges)
    for building in plan.buildings:
        paint_building(canvas, building)
    for tree in trees:
        paint_tree(canvas, tree)
