"""Roofs, lit face by face, and the details on them.

       gable          hip           flat
    ┌─────────┐    ┌─────────┐    ┌─────────┐
    │         │    │╲       ╱│    │┌───────┐│
    ├─────────┤    │ ╲─────╱ │    ││       ││
    │         │    │╱       ╲│    │└───────┘│
    └─────────┘    └─────────┘    └─────────┘

On a roof, ``s`` runs along the ridge and ``t`` across it, in metres from the centre.
"""

from __future__ import annotations

import numpy as np

from wasnow.synthetic.classes import BUILDING
from wasnow.synthetic.colors import Image, rgb
from wasnow.synthetic.objects import Building
from wasnow.synthetic.paint.canvas import FAR, Canvas, Window
from wasnow.synthetic.paint.light import Illumination
from wasnow.synthetic.shapes import Field, axes, hull, rectangle


def paint_building(canvas: Canvas, building: Building) -> None:
    """Paint one roof."""
    outline = rectangle(building.centre, building.angle, building.length_m, building.width_m)
    window = canvas.window(outline, 1.0)
    if window is None:
        return
    distance = canvas.convex(window, outline)
    light = canvas.light
    if light is None:
        canvas.cover(window, distance, BUILDING, None)
        return
    extras = np.random.Generator(np.random.PCG64(building.extras))
    base = rgb(*building.color) * np.float32(extras.uniform(0.92, 1.08))
    weather = 0.05 * canvas.noise(1.9)[window] + 0.06 * canvas.noise(0.55)[window] + 0.03 * canvas.noise(6.0)[window]
    if building.roof == "flat":
        color = _flat_color(base, weather, distance)
    else:
        color = _pitched_color(canvas, light, building, window, base, weather)
    canvas.cover(window, distance, BUILDING, color)
    if building.width_m >= 5.4:
        furnish = _furnish_flat if building.roof == "flat" else _furnish_pitched
        furnish(canvas, light, building, window, extras)


def _flat_color(base: Image, weather: Field, distance: Field) -> Image:
    """Return the colours of felt with a lighter parapet."""
    color: Image = (base * (1 + 0.6 * weather)[..., None]).astype(np.float32)
    rim = np.clip(0.5 - np.abs(distance + 0.35) / 0.35, 0, 1)[..., None]
    color += rim * (np.minimum(base * 1.2, 0.95) - color)
    return color


def _pitched_color(
    canvas: Canvas, light: Illumination, building: Building, window: Window, base: Image, weather: Field
) -> Image:
    """Return the colours of two faces (four on a hip roof) lit by the sun, with rows of tiles and lighter ridges."""
    s, t = canvas.local(window, building.centre, building.angle)
    along, across = axes(building.angle)
    slope = building.rise_m / (building.width_m / 2)
    down, up = slope / np.hypot(1, slope), 1 / np.hypot(1, slope)
    normals = [sign * axis * down for axis in (across, along) for sign in (1, -1)]
    sides = [float(light.on(x, y, up)) for x, y in normals]
    face = np.where(t > 0, np.float32(sides[0]), np.float32(sides[1]))
    crease = np.abs(t)
    if building.roof == "hip":
        half_ridge = (building.length_m - building.width_m) / 2
        end = np.abs(s) - half_ridge > np.abs(t)
        face = np.where(end, np.where(s > 0, np.float32(sides[2]), np.float32(sides[3])), face)
        hip = np.abs(np.abs(s) - half_ridge - np.abs(t)) * np.float32(0.7)
        crease = np.where(np.abs(s) > half_ridge, np.minimum(hip, FAR), crease)
    rows = 0.03 * np.sin(np.abs(t) * np.float32(2 * np.pi / max(1.1, 2.4 * canvas.gsd)))
    color: Image = (base * (face * (1 + weather + rows))[..., None]).astype(np.float32)
    ridge = np.clip(0.5 - (crease - 0.12) / np.float32(canvas.gsd), 0, 1)[..., None]
    color += 0.3 * ridge * (np.minimum(base * 1.35, 0.95) - color)
    return color


def _furnish_flat(
    canvas: Canvas, light: Illumination, building: Building, window: Window, extras: np.random.Generator
) -> None:
    """Paint machines, one per 110 square metres."""
    length, width = building.length_m, building.width_m
    for _ in range(int(length * width / 110)):
        place = extras.uniform(-0.4, 0.4) * length, extras.uniform(-0.36, 0.36) * width
        size = extras.uniform(1, 3), extras.uniform(1, 2)
        _paint_box(canvas, light, building, window, place, size, rgb(190, 192, 194), 1.2)


def _furnish_pitched(
    canvas: Canvas, light: Illumination, building: Building, window: Window, extras: np.random.Generator
) -> None:
    """Paint solar panels on the southern face or skylights on the northern one, and a chimney."""
    length, width = building.length_m, building.width_m
    _, across = axes(building.angle)
    sunny = 1.0 if float(across @ light.towards_sun) > 0 else -1.0
    south = 1.0 if across[1] > 0 else -1.0
    if extras.random() < 0.28:
        place = extras.uniform(-0.15, 0.15) * length, south * width * 0.25
        _paint_box(canvas, light, building, window, place, (length * 0.5, width * 0.3), rgb(44, 52, 74), 0)
    elif extras.random() < 0.5:
        for _ in range(extras.integers(1, 4)):
            place = extras.uniform(-0.35, 0.35) * length, -south * width * 0.24
            _paint_box(canvas, light, building, window, place, (0.9, 1.2), rgb(104, 116, 128), 0)
    if extras.random() < 0.75:
        place = extras.uniform(-0.38, 0.38) * length, sunny * 0.6
        _paint_box(canvas, light, building, window, place, (0.9, 0.8), rgb(140, 110, 96), 1.3)


def _paint_box(
    canvas: Canvas,
    light: Illumination,
    building: Building,
    window: Window,
    place: tuple[float, float],
    size: tuple[float, float],
    color: Image,
    height_m: float,
) -> None:
    """Paint a box on a roof, ``place`` metres along and across from the centre, with a shadow if it has a height."""
    along, across = axes(building.angle)
    outline = rectangle(building.centre + along * place[0] + across * place[1], building.angle, *size)
    if height_m > 0:
        cast = hull(np.concatenate([outline, outline + light.cast * height_m]))
        canvas.cover(window, canvas.convex(window, cast), None, canvas.rgb[window] * np.float32(0.55))
    canvas.cover(window, canvas.convex(window, outline), None, color)
