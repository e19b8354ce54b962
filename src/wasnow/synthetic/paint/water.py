"""Ponds and the river, from the bank inwards.

    meadow │ reeds, 7 m │ mud, 0.8 m │ water

In a dry river bed, gravel replaces the water.
"""

from __future__ import annotations

import numpy as np

from wasnow.synthetic.classes import BARE, VEGETATION, WATER
from wasnow.synthetic.colors import rgb
from wasnow.synthetic.objects import Pond, River
from wasnow.synthetic.paint.canvas import Canvas, Places
from wasnow.synthetic.paint.ground import meadow
from wasnow.synthetic.shapes import Field


def paint_water(canvas: Canvas, water: River | Pond) -> None:
    """Paint one pond, or the river."""
    found = _from_pond(canvas, water) if isinstance(water, Pond) else _from_river(canvas, water)
    if found is None:
        return
    window, distance = found
    distance = distance + np.float32(0.35) * canvas.noise(6.0)[window]
    if not (distance < 8).any():
        return
    light = canvas.light
    dry = isinstance(water, River) and water.bed
    rim = distance - np.float32(7) + 2 * canvas.noise(1.9)[window]
    mud_edge = distance - np.float32(0.8)
    if light is None:
        canvas.cover(window, rim, VEGETATION, None)
        canvas.cover(window, mud_edge, BARE, None)
        canvas.cover(window, distance, BARE if dry else WATER, None)
        return
    bank = meadow(canvas, light, window)
    reeds = np.clip(1 - distance / 7, 0, 1)[..., None]
    bank *= 1 - 0.3 * reeds
    canvas.cover(window, rim, VEGETATION, bank)
    mud = canvas.mottled(window, rgb(150, 138, 112), rgb(124, 114, 90), 0.1)
    canvas.cover(window, mud_edge, BARE, mud)
    if dry:
        gravel = canvas.mottled(window, rgb(186, 176, 154), rgb(158, 146, 122), 0.09)
        canvas.cover(window, distance, BARE, gravel)
        return
    depth = np.clip(-distance / 4.5, 0, 1)[..., None]
    color = rgb(98, 104, 82) + depth * (rgb(48, 66, 64) - rgb(98, 104, 82))
    ripples = 0.035 * canvas.noise(1.9)[window] + 0.05 * canvas.noise(23.0)[window]
    canvas.cover(window, distance, WATER, color * (1 + ripples)[..., None])


def _from_pond(canvas: Canvas, pond: Pond) -> tuple[Places, Field] | None:
    """Return the pixels around a pond, and their distance from its shore."""
    window = canvas.window(pond.centre[None], pond.radius_m * 1.6 + 8)
    if window is None:
        return None
    x, y = canvas.local(window, pond.centre)
    turn = np.arctan2(y, x)
    shore = np.ones_like(turn)
    for k, wobble, phase in zip((2, 3, 4, 5), pond.wobble, pond.phase, strict=True):
        shore += np.float32(wobble) * np.sin(k * turn + np.float32(phase))
    return window, np.hypot(x, y) - np.float32(pond.radius_m) * shore


def _from_river(canvas: Canvas, river: River) -> tuple[Places, Field]:
    """Return the pixels along a river, and their distance from its irregular bank."""
    distance, _ = canvas.along([(river.line, river.half_width_m)], 14.0)
    near = canvas.near(distance, 14.0)
    return near, distance[near] + 1.3 * canvas.noise(23.0)[near]
