"""One shadow mask, cast by all tall objects along the direction of the sun, then applied to the ground."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from wasnow.synthetic.objects import Building, Tree
from wasnow.synthetic.paint.canvas import Canvas, Ribbon
from wasnow.synthetic.paint.light import Illumination
from wasnow.synthetic.shapes import hull, rectangle

HEDGE_HEIGHT_M = 1.5


def cast_shadows(
    canvas: Canvas, light: Illumination, buildings: Iterable[Building], trees: Iterable[Tree], hedges: list[Ribbon]
) -> None:
    """Collect the shadows of all tall objects, then darken the ground under them, with a bluish tint from the sky.

    Args:
        canvas: ground colours are darkened.
        light: illumination.
        buildings: at this date.
        trees: at this date.
        hedges: polylines with half widths.
    """
    for building in buildings:
        _shade_building(canvas, light, building)
    for tree in trees:
        _shade_tree(canvas, light, tree)
    if hedges:
        moved = [(line + light.cast * HEDGE_HEIGHT_M * share, half) for line, half in hedges for share in (0.5, 1.0)]
        distance, _ = canvas.along(moved, 1.0)
        canvas.shade(canvas.whole, distance)
    dark = np.array([0.36, 0.40, 0.47], np.float32)
    canvas.rgb *= 1 - canvas.shadow[..., None] * (1 - dark)


def _shade_building(canvas: Canvas, light: Illumination, building: Building) -> None:
    """Add the hull of footprint, eaves and ridge, each shifted according to its height."""
    foot = rectangle(building.centre, building.angle, building.length_m, building.width_m)
    outline = hull(np.concatenate([foot, foot + light.cast * building.height_m]))
    if building.roof != "flat":
        ridge = foot.reshape(2, 2, 2).mean(1) if building.roof == "gable" else building.centre[None]
        peak = light.cast * (building.height_m + building.rise_m)
        outline = hull(np.concatenate([outline, ridge + peak]))
    window = canvas.window(outline)
    if window is not None:
        canvas.shade(window, canvas.convex(window, outline))


def _shade_tree(canvas: Canvas, light: Illumination, tree: Tree) -> None:
    """Add the crown's disc at the end of its shadow, with a ragged edge, and the trunk on the way."""
    start, end = tree.centre, tree.centre + light.cast * (tree.height_m - tree.radius_m)
    window = canvas.window(np.stack([start, end]), tree.radius_m + 1)
    if window is None:
        return
    length = float(np.hypot(*(end - start)))
    s, t = canvas.local(window, start, float(np.arctan2(*(end - start)[::-1])))
    ragged = np.float32(0.25 * tree.radius_m) * canvas.noise(1.9)[window] * 0.5
    from_axis = np.hypot(s - np.clip(s, 0, length), t)
    if tree.kind == "conifer":
        # A cone: the crown tapers to the end of its shadow.
        shadow = from_axis - tree.radius_m * (1 - 0.75 * np.clip(s / max(length, 0.1), 0, 1))
    else:
        crown = np.hypot((s - length) / np.float32(max(1.0, 0.8 * light.shadow_per_metre)), t) - tree.radius_m * 0.95
        shadow = np.minimum(crown, from_axis - tree.radius_m * 0.55)
    canvas.shade(window, shadow + ragged)
