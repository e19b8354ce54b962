"""Fields with rows and wheel tracks, lawns, and bare ground."""

from __future__ import annotations

import numpy as np

from wasnow.synthetic.classes import VEGETATION
from wasnow.synthetic.colors import COVERS, GROUNDS, Image, rgb
from wasnow.synthetic.objects import Ground
from wasnow.synthetic.paint.canvas import Canvas, Places, Window
from wasnow.synthetic.paint.light import Illumination
from wasnow.synthetic.paint.noise import streaks
from wasnow.synthetic.shapes import Field, resample


def meadow(canvas: Canvas, light: Illumination, window: Places) -> Image:
    """Return the colours of a meadow in the season, the default ground."""
    first, second = COVERS["meadow"][light.season]
    return canvas.mottled(window, first, second, 0.07)


def paint_ground(canvas: Canvas, ground: Ground) -> None:
    """Paint one patch of land cover."""
    outline = resample(np.concatenate([ground.polygon, ground.polygon[:1]]), 20.0)
    window = canvas.window(canvas.warp.to_world(np.concatenate([outline, ground.polygon])), 3.0)
    if window is None:
        return
    distance = canvas.convex_of_plan(window, ground.polygon)
    if not (distance < canvas.gsd).any():
        return
    light = canvas.light
    if ground.cover in COVERS:
        color = None if light is None else _crop_color(canvas, light, window, ground, distance)
        canvas.cover(window, distance, VEGETATION, color)
        return
    if ground.cover in ("site", "felled", "heap", "pit", "rubble", "gravel", "bed"):
        # Earthworks have no straight edges.
        ragged = min(1.0, 0.04 * float(np.sqrt(np.ptp(ground.polygon[:, 0]) * np.ptp(ground.polygon[:, 1]))))
        distance += np.float32(ragged) * (0.8 * canvas.noise(6.0)[window] + 0.4 * canvas.noise(1.9)[window])
    color = None if light is None else _bare_color(canvas, light, window, ground, distance)
    canvas.cover(window, distance, GROUNDS[ground.cover][0], color)


def _crop_color(canvas: Canvas, light: Illumination, window: Window, ground: Ground, distance: Field) -> Image:
    """Return the colours of a field: rows along the field, and along its edge on the headland; tramlines 21 m apart."""
    first, second = COVERS[ground.cover][light.season]
    # A paler tone is drier and warmer, a darker one lusher.
    tint = np.float32(ground.tone) ** np.array([1.3, 1.0, 0.9], np.float32)
    color = canvas.mottled(window, first, second, 0.075) * tint
    if ground.cover in ("lawn", "rough lawn", "forest floor"):
        return color
    rows = canvas.across_plan(window, ground.angle)
    if ground.cover in ("meadow", "pasture"):
        stripes = 0.035 if ground.cover == "meadow" and light.season != "spring" else 0.012
        color *= (1 + np.float32(stripes) * np.tanh(3 * np.sin(rows * np.float32(2 * np.pi / 11.0))))[..., None]
        return color
    headland = distance > -10
    rows = np.where(headland, distance, rows)
    wobbling = rows + 0.12 * canvas.noise(6.0)[window]
    visible = np.clip((ground.spacing_m / canvas.gsd - 2) / 2, 0, 1)
    ridges = np.float32(0.075 * visible) * np.sin(wobbling * np.float32(2 * np.pi / ground.spacing_m))
    drilled = np.float32(0.05) * streaks(rows, 2.7) + np.float32(0.03) * streaks(rows + 500, 9.0)
    color *= (1 + ridges + drilled)[..., None]
    if ground.cover in ("wheat", "barley", "rapeseed", "beet"):
        wheel = np.abs(np.abs((rows % 21.0) - 10.5) - 0.95) - 0.28
        track = np.clip(0.5 - wheel / np.float32(canvas.gsd), 0, 1) * (
            0.75 + 0.25 * np.clip(canvas.noise(6.0)[window], -1, 1)
        )
        soil = rgb(138, 122, 92)
        color += (0.55 * track)[..., None] * (soil - color)
    return color


def _bare_color(canvas: Canvas, light: Illumination, window: Window, ground: Ground, distance: Field) -> Image:
    """Return the colours of bare ground: mounds and holes lit by the sun, vehicle tracks, brushwood, rubble, beds."""
    _, first, second = GROUNDS[ground.cover]
    fine = {"car park": 0.025, "pool": 0.02, "paving": 0.045}.get(ground.cover, 0.08)
    color = canvas.mottled(window, first, second, fine) * np.float32(ground.tone)
    if ground.cover in ("heap", "pit"):
        # Its slope from the edge inwards.
        deep: Field = np.clip(-distance / np.float32(4), 0, 1).astype(np.float32)
        sign = 1.0 if ground.cover == "heap" else -1.0
        slope = light.sunward(deep) * np.float32(sign / canvas.gsd)
        color *= (1 + np.clip(1.1 * slope, -0.4, 0.3))[..., None]
    elif ground.cover in ("site", "felled"):
        rows = canvas.across_plan(window, ground.angle) + 2.5 * canvas.noise(23.0)[window]
        color *= (1 + np.float32(0.05) * streaks(rows, 1.6) + np.float32(0.04) * canvas.noise(6.0)[window])[..., None]
        if ground.cover == "felled":
            brush = np.clip(0.8 * canvas.noise(0.55)[window] + 0.5 * canvas.noise(6.0)[window] - 0.8, 0, 1)[..., None]
            color += brush * (rgb(92, 92, 66) - color)
    elif ground.cover == "rubble":
        color *= (1 + 0.16 * np.clip(canvas.noise(1.9)[window], -1, 1.5))[..., None]
    elif ground.cover == "bed":
        rows = canvas.across_plan(window, ground.angle)
        green = np.clip(np.sin(rows * np.float32(2 * np.pi / ground.spacing_m)), 0, 1)[..., None] * 0.5
        color += green * (rgb(92, 112, 70) - color)
    return color
