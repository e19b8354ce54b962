"""Roads and tracks along the cuts, a new road, and hedgerows with trees."""

from __future__ import annotations

import numpy as np

from wasnow.synthetic.objects import Presence
from wasnow.synthetic.plan.builder import ChangeBudget, PlanBuilder
from wasnow.synthetic.plan.cells import Cut
from wasnow.synthetic.shapes import axes, resample


def lay_roads(builder: PlanBuilder, cuts: list[Cut], budget: ChangeBudget) -> list[Cut]:
    """Lay every road and track. If the change budget allows, one field edge becomes a street.

    Args:
        builder: of the plan.
        cuts: of the cells.
        budget: the area of the new street is spent.

    Returns:
        The unchanged cuts, for `grow_hedgerows`.
    """
    rng = builder.rng
    becomes_a_road = _choose_new_road(builder, cuts, budget)
    for cut in cuts:
        line = builder.warp.to_world(resample(cut.ends, 9.0))
        if cut is becomes_a_road:
            if cut.kind == "track":
                builder.lay_road(line, "track", 1.9, Presence.BEFORE)
            builder.lay_road(line, "street", 3.2, Presence.AFTER)
        elif cut.kind == "main":
            builder.lay_road(line, "main", 3.7)
        elif cut.kind == "street":
            builder.lay_road(line, "street", rng.uniform(2.6, 3.1))
        elif cut.kind == "track":
            builder.lay_road(line, "track", rng.uniform(1.5, 1.9))
    return [cut for cut in cuts if cut is not becomes_a_road]


def grow_hedgerows(builder: PlanBuilder, cuts: list[Cut]) -> None:
    """Plant shrubs and trees: dense in hedges, sparse along main roads, tracks and field edges."""
    rng = builder.rng
    for cut in cuts:
        step = {"hedge": 1.9, "main": 15.0, "track": 16.0, "edge": 30.0}.get(cut.kind)
        if step is None or (cut.kind == "main" and rng.random() < 0.4):
            continue
        offset = {"main": 8.0, "track": 4.0}.get(cut.kind, 0.0)
        _, across = axes(float(np.arctan2(*(cut.ends[1] - cut.ends[0])[::-1])))
        for point in resample(cut.ends, step):
            if cut.kind == "hedge" and rng.random() < 0.12:
                continue
            at = point + across * (offset * rng.choice([-1, 1]) + rng.normal(0, 0.6))
            tall = rng.random() < (0.14 if cut.kind == "hedge" else 0.8)
            radius, kind = (rng.uniform(2.4, 4.4), "broadleaf") if tall else (rng.uniform(1.1, 1.9), "shrub")
            builder.plant(builder.warp.world_point(at), radius, kind, take=False)


def _choose_new_road(builder: PlanBuilder, cuts: list[Cut], budget: ChangeBudget) -> Cut | None:
    """Choose a visible hedge, edge or track away from the river that fits the budget, and spend its area."""
    candidates = [cut for cut in cuts if cut.kind in ("hedge", "edge", "track")]
    builder.rng.shuffle(candidates)
    for cut in candidates:
        line = builder.warp.to_world(resample(cut.ends, 10.0))
        shown_m2 = ((line > 0) & (line < builder.land.size)).all(1).sum() * 10.0 * 6.4
        if 500 < shown_m2 < 0.3 * budget.total and builder.land.river_distance(line).min() > 15:
            budget.spend(float(shown_m2))
            return cut
    return None
