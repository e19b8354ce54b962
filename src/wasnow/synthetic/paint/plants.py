"""Hedges and tree crowns, lit by the sun."""

from __future__ import annotations

import numpy as np

from wasnow.synthetic.classes import VEGETATION
from wasnow.synthetic.colors import CROWNS, Image
from wasnow.synthetic.objects import Tree
from wasnow.synthetic.paint.canvas import Canvas, Ribbon, Window
from wasnow.synthetic.paint.light import Illumination
from wasnow.synthetic.shapes import Field


def paint_hedges(canvas: Canvas, hedges: list[Ribbon]) -> None:
    """Paint all hedges at once, darker at their edges."""
    if not hedges:
        return
    edge, _ = canvas.along(hedges, 1.5)
    near = canvas.near(edge, 1.5)
    distance = edge[near] + 0.2 * canvas.noise(1.9)[near]
    color: Image | None = None
    if canvas.light is not None:
        first, second = CROWNS["shrub"][canvas.light.season]
        color = canvas.mottled(near, first, second, 0.12)
        color *= (0.8 + 0.35 * np.clip(-distance, 0, 1))[..., None]
    canvas.cover(near, distance, VEGETATION, color)


def paint_tree(canvas: Canvas, tree: Tree) -> None:
    """Paint one crown with a lobed, ragged edge."""
    radius = tree.radius_m
    window = canvas.window(tree.centre[None], radius * 1.35)
    if window is None:
        return
    x, y = canvas.local(window, tree.centre)
    reach = np.hypot(x, y)
    turn = np.arctan2(y, x)
    lobes = 0.09 * np.sin(5 * turn + np.float32(tree.hue * 40)) + 0.06 * np.sin(8 * turn + np.float32(tree.hue * 90))
    clumps = canvas.noise(max(1.0, radius * 0.42) if radius < 2 else 1.4)[window]
    distance = reach - np.float32(radius) * (1 + lobes) + np.float32(0.14 * radius) * clumps
    color = None if canvas.light is None else _leaves(canvas, canvas.light, tree, window, clumps)
    canvas.cover(window, distance, VEGETATION, color)


def _leaves(canvas: Canvas, light: Illumination, tree: Tree, window: Window, clumps: Field) -> Image:
    """Return the colours of a dome with clumps of leaves: normals lean outwards, and each clump has a lit and a dark
    side.
    """
    first, second = CROWNS[tree.kind][light.season]
    base = first + np.float32(tree.hue**1.5) * (second - first)
    x, y = canvas.local(window, tree.centre)
    reach = np.hypot(x, y)
    share = np.clip(reach / np.float32(tree.radius_m), 0, 1)
    lean = share * np.float32(1.25 if tree.kind == "conifer" else 0.95)
    up = np.sqrt(np.maximum(1 - np.minimum(lean, 0.98) ** 2, 0.04))
    lit = light.on(lean * x / np.maximum(reach, 0.1), lean * y / np.maximum(reach, 0.1), up)
    relief = light.sunward(clumps) / np.float32(canvas.gsd)
    leaves = 1 + 0.22 * np.clip(relief, -1.5, 1.5) + 0.12 * canvas.noise(0.55)[window]
    color: Image = base * (np.float32(0.15) + 0.85 * lit * np.clip(leaves, 0.4, 1.6))[..., None]
    return color.astype(np.float32)
