"""Paint a plan as a camera sees it from above at one date, or as the map of its classes.

    ground ─ water ─ roads ─ cars   albedo, in that order
              ×  shadows            one mask, cast along the sun's direction by everything that stands
    hedges ─ roofs ─ crowns         lit by the same sun
              →  tone, blur, noise  how this date's camera and air rendered it

Every shape is a signed distance in metres, every texture a smooth function of the world: a displaced camera is another
set of pixel centres, so the second date is drawn where it stands, not resampled. Edges are anti-aliased by
``clip(1/2 - distance / pixel, 0, 1)``; the class map takes ``distance < 0`` at pixel centres.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wasnow.data.synthetic_plan import Building, Ground, Line, Plan, Pond, River, Tree, When
from wasnow.data.synthetic_shapes import Field, Points, direction, half_planes, hull, rectangle, resample

BUILDING, ROAD, WATER, VEGETATION, BARE = 1, 2, 3, 4, 5
"""Class codes of the truth rasters."""

Window = tuple[slice, slice]
Places = Window | tuple[NDArray[np.intp], NDArray[np.intp]]
"""A block of pixels, or a list of them: whatever arrays can be indexed with."""

Image = NDArray[np.float32]
AnyReal = NDArray[np.floating] | np.floating | float
FAR = np.float32(1e6)


@dataclass(frozen=True)
class Light:
    """Season and sun: all that `paint` needs to know about the moment of a picture.

    Attributes:
        season: spring, summer or autumn.
        sun_azimuth: degrees clockwise from north, where the sun stands.
        sun_elevation: degrees above the horizon.
    """

    season: str
    sun_azimuth: float
    sun_elevation: float

    @property
    def towards_sun(self) -> NDArray[np.float64]:
        """The unit vector ``(2,)`` on the ground, x east and y south, that points to the sun."""
        azimuth = np.deg2rad(self.sun_azimuth)
        return np.array([np.sin(azimuth), -np.cos(azimuth)])

    @property
    def shadow_per_metre(self) -> float:
        """Metres of shadow cast by a metre of height."""
        return float(1 / np.tan(np.deg2rad(self.sun_elevation)))

    def on(self, x: AnyReal, y: AnyReal, z: AnyReal) -> Field:
        """Brightness of a surface with unit normal (x, y, z), 1 for level ground; ambient light included."""
        elevation = np.deg2rad(self.sun_elevation)
        sun = self.towards_sun * np.cos(elevation)
        lit = np.maximum(0, np.float32(sun[0]) * x + np.float32(sun[1]) * y + np.float32(np.sin(elevation)) * z)
        brightness: Field = np.asarray(0.45 + 0.55 * lit / np.float32(np.sin(elevation)), np.float32)
        return np.minimum(brightness, np.float32(1.32))


class Canvas:
    """Pixel centres of an image of the world, with the albedo, the shadow mask and the classes painted so far.

    Args:
        height: rows.
        width: columns.
        gsd_m: pixel side, metres.
        shift_px: (rows, cols) by which the world appears displaced in this image.
        plan: for its warp.
        noise_seed: the same for both dates: the ground keeps its texture.
        light: None paints classes only.
    """

    def __init__(
        self,
        height: int,
        width: int,
        *,
        gsd_m: float,
        shift_px: tuple[float, float],
        plan: Plan,
        noise_seed: int,
        light: Light | None,
    ) -> None:
        self.shape, self.gsd = (height, width), gsd_m
        self.x = ((np.arange(width) + 0.5 - shift_px[1]) * gsd_m).astype(np.float32)
        self.y = ((np.arange(height) + 0.5 - shift_px[0]) * gsd_m).astype(np.float32)
        self._first = (float(self.x[0]), float(self.y[0]))
        self.warp = plan.warp
        self.u, self.v = plan.warp.plan_of_grid(self.x, self.y)
        self._noise_seed = noise_seed
        self._noises: dict[float, Field] = {}
        self.light = light
        self.classes = np.full(self.shape, VEGETATION, np.uint8)
        self.rgb: Image = np.zeros((*self.shape, 3) if light else (0, 0, 3), np.float32)
        self.shadow: Field = np.zeros(self.shape if light else (0, 0), np.float32)

    @property
    def whole(self) -> Window:
        return slice(0, self.shape[0]), slice(0, self.shape[1])

    def window(self, points: Points, margin_m: float = 0.0) -> Window | None:
        """Rows and columns of the box around world points, grown by ``margin_m``; None when out of sight."""
        low, high = points.min(0) - margin_m - self.gsd, points.max(0) + margin_m + self.gsd
        (x0, y0), (rows, cols) = self._first, self.shape
        left, right = max(0, math.ceil((low[0] - x0) / self.gsd)), min(cols, math.ceil((high[0] - x0) / self.gsd))
        top, bottom = max(0, math.ceil((low[1] - y0) / self.gsd)), min(rows, math.ceil((high[1] - y0) / self.gsd))
        return (slice(top, bottom), slice(left, right)) if left < right and top < bottom else None

    @staticmethod
    def near(distance: Field, reach_m: float) -> Places:
        """The pixels where ``distance (H, W)`` is below ``reach_m``: thin things are painted on a list of pixels."""
        rows, cols = np.nonzero(distance < reach_m)
        return rows, cols

    def noise(self, scale_m: float) -> Field:
        """Smooth noise ``(H, W)`` of the world with features of about ``scale_m``; mean 0, deviation near 1."""
        scale_m = max(scale_m, 1.1 * self.gsd)
        if scale_m not in self._noises:
            self._noises[scale_m] = _smooth_noise(self.x, self.y, scale_m, self.gsd, self._noise_seed)
        return self._noises[scale_m]

    @functools.cached_property
    def mottle(self) -> tuple[Field, Field]:
        """Patches 0..1 of some tens of metres, and grain at four scales of deviation about 1; both ``(H, W)``."""
        patches = np.clip(0.45 + 0.2 * self.noise(61.0) + 0.22 * self.noise(23.0) + 0.2 * self.noise(6.0), 0, 1)
        grain = 0.3 * self.noise(61.0) + 0.3 * self.noise(6.0) + 0.4 * self.noise(1.9) + 0.7 * self.noise(0.55)
        return patches.astype(np.float32), grain.astype(np.float32)

    def cover(self, window: Places, distance: Field, code: int | None, color: Image | Field | None) -> None:
        """Lay ``color`` (``(3,)`` or ``(h, w, 3)``, 0..1) and class ``code`` where ``distance`` is negative."""
        if code is not None:
            self.classes[window] = np.where(distance < 0, np.uint8(code), self.classes[window])
        if self.light is not None and color is not None:
            share = np.clip(0.5 - distance / np.float32(self.gsd), 0, 1)[..., None]
            self.rgb[window] += share * (color - self.rgb[window])

    def convex(self, window: Window, polygon: Points, *, plan: bool = False) -> Field:
        """Signed distance ``(h, w)`` to a convex polygon, in the world or in the plan. Exact inside and along edges."""
        distance: Field | None = None
        for normal, offset in zip(*half_planes(polygon), strict=True):
            a, b, c = np.float32(normal[0]), np.float32(normal[1]), np.float32(offset)
            if plan:
                height = a * self.u[window] + b * self.v[window] - c
            else:
                height = (a * self.x[window[1]] - c)[None] + (b * self.y[window[0]])[:, None]
            distance = height if distance is None else np.maximum(distance, height)
        assert distance is not None
        return distance

    def local(self, window: Window, origin: NDArray[np.float64], angle: float = 0.0) -> tuple[Field, Field]:
        """World coordinates ``(h, w)`` along and across ``angle``, from ``origin``."""
        x = (self.x[window[1]] - np.float32(origin[0]))[None]
        y = (self.y[window[0]] - np.float32(origin[1]))[:, None]
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        return cos * x + sin * y, cos * y - sin * x

    def along(self, lines: list[tuple[Points, float]], reach_m: float) -> tuple[Field, Field]:
        """Distance to the edge of thick polylines, and the arc length there; both ``(H, W)``.

        Args:
            lines: world polylines with their half widths.
            reach_m: how far beyond the edge distances are wanted; FAR elsewhere.
        """
        distance = np.full(self.shape, FAR, np.float32)
        arc = np.zeros(self.shape, np.float32)
        for line, half_width in lines:
            start = 0.0
            for a, b in itertools.pairwise(line):
                length = float(np.hypot(*(b - a)))
                window = self.window(np.stack([a, b]), half_width + reach_m)
                if window is not None and length > 0:
                    s, t = self.local(window, a, float(np.arctan2(*(b - a)[::-1])))
                    on = np.clip(s, 0, np.float32(length))
                    here = np.sqrt((s - on) ** 2 + t * t) - np.float32(half_width)
                    nearer = here < distance[window]
                    distance[window] = np.where(nearer, here, distance[window])
                    arc[window] = np.where(nearer, on + np.float32(start), arc[window])
                start += length
        return distance, arc

    def shade(self, window: Window | None, distance: Field | None) -> None:
        """Put a shadow where ``distance`` is negative; overlapping shadows are no darker than one."""
        if window is not None and distance is not None:
            softness = np.float32(1.5 * self.gsd)
            self.shadow[window] = np.maximum(self.shadow[window], np.clip(0.5 - distance / softness, 0, 1))


def _smooth_noise(x: Field, y: Field, scale: float, gsd_m: float, seed: int) -> Field:
    """Random numbers on a lattice of ``scale`` metres, joined by uniform cubic B-splines.

    The lattice is fixed to the world and sized by the image, not by its shift: both dates read the same numbers.
    """
    reach = 12  # nodes beyond the image: the largest shift, and the spline's own four
    rows, cols = (math.ceil(len(axis) * gsd_m / scale) + 2 * reach for axis in (y, x))
    rng = np.random.Generator(np.random.PCG64([seed, round(scale * 1000)]))
    lattice = rng.standard_normal((rows, cols), dtype=np.float32)

    def taps(at: Field) -> Iterator[tuple[NDArray[np.intp], Field]]:
        place = at / np.float32(scale) + reach
        whole = np.floor(place)
        t = (place - whole).astype(np.float32)
        weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
        for step, weight in enumerate(weights):
            yield whole.astype(np.intp) - 1 + step, (weight / 6).astype(np.float32)

    down = np.zeros((len(y), cols), np.float32)
    for index, weight in taps(y):
        down += weight[:, None] * lattice[index]
    smooth = np.zeros((len(y), len(x)), np.float32)
    for index, weight in taps(x):
        smooth += weight[None] * down[:, index]
    # Over a cell the squared weights of the spline average 151/315 per axis: this restores unit deviation.
    smooth *= np.float32(315 / 151)
    return smooth


def _rgb(red: float, green: float, blue: float) -> Image:
    return np.array([red, green, blue], np.float32) / np.float32(255)


# Colour of each cover by season, and the second colour that shows through in patches.
_COVERS: dict[str, dict[str, tuple[Image, Image]]] = {
    cover: {season: (_rgb(*first), _rgb(*second)) for season, (first, second) in seasons.items()}
    for cover, seasons in {
        "wheat": {
            "spring": ((88, 118, 62), (112, 128, 78)),
            "summer": ((190, 168, 114), (170, 152, 98)),
            "autumn": ((164, 150, 108), (138, 138, 92)),
        },
        "barley": {
            "spring": ((104, 130, 74), (128, 140, 88)),
            "summer": ((178, 160, 112), (154, 146, 96)),
            "autumn": ((112, 124, 76), (136, 132, 92)),
        },
        "rapeseed": {
            "spring": ((182, 176, 62), (156, 160, 66)),
            "summer": ((146, 140, 94), (122, 126, 80)),
            "autumn": ((82, 110, 60), (108, 116, 76)),
        },
        "maize": {
            "spring": ((116, 124, 80), (132, 124, 90)),
            "summer": ((64, 94, 54), (82, 108, 62)),
            "autumn": ((136, 126, 82), (114, 112, 70)),
        },
        "beet": {
            "spring": ((110, 124, 78), (130, 124, 90)),
            "summer": ((74, 112, 58), (96, 120, 70)),
            "autumn": ((80, 110, 62), (106, 114, 76)),
        },
        "meadow": {
            "spring": ((96, 122, 70), (116, 132, 80)),
            "summer": ((118, 128, 82), (142, 140, 96)),
            "autumn": ((104, 116, 72), (126, 124, 84)),
        },
        "pasture": {
            "spring": ((92, 118, 68), (124, 132, 84)),
            "summer": ((110, 124, 78), (146, 140, 100)),
            "autumn": ((98, 112, 70), (130, 124, 88)),
        },
        "lawn": {
            "spring": ((98, 124, 72), (116, 130, 82)),
            "summer": ((116, 130, 84), (144, 140, 100)),
            "autumn": ((104, 118, 74), (122, 122, 84)),
        },
        "rough lawn": {
            "spring": ((96, 112, 68), (126, 126, 84)),
            "summer": ((128, 128, 90), (152, 140, 106)),
            "autumn": ((112, 112, 76), (128, 116, 84)),
        },
        "forest floor": {
            "spring": ((58, 72, 46), (82, 86, 58)),
            "summer": ((48, 62, 42), (66, 74, 50)),
            "autumn": ((82, 74, 50), (98, 84, 58)),
        },
    }.items()
}

# Covers that know no season: class, colour, second colour.
_GROUNDS: dict[str, tuple[int, Image, Image]] = {
    "site": (BARE, _rgb(188, 164, 132), _rgb(160, 134, 104)),
    "felled": (BARE, _rgb(146, 124, 98), _rgb(120, 102, 80)),
    "heap": (BARE, _rgb(204, 184, 150), _rgb(182, 158, 124)),
    "pit": (BARE, _rgb(140, 116, 90), _rgb(160, 136, 108)),
    "gravel": (BARE, _rgb(182, 172, 154), _rgb(164, 152, 134)),
    "rubble": (BARE, _rgb(178, 156, 130), _rgb(150, 128, 108)),
    "bed": (BARE, _rgb(124, 102, 80), _rgb(142, 120, 94)),
    "paving": (ROAD, _rgb(176, 168, 158), _rgb(162, 154, 146)),
    "car park": (ROAD, _rgb(122, 122, 124), _rgb(134, 132, 132)),
    "pool": (WATER, _rgb(92, 176, 196), _rgb(112, 190, 206)),
}

_CROWNS: dict[str, dict[str, tuple[Image, Image]]] = {
    "broadleaf": {
        "spring": (_rgb(80, 108, 56), _rgb(112, 130, 72)),
        "summer": (_rgb(60, 86, 48), _rgb(88, 110, 64)),
        "autumn": (_rgb(86, 98, 54), _rgb(140, 112, 60)),
    },
    "conifer": {season: (_rgb(44, 66, 48), _rgb(62, 82, 58)) for season in ("spring", "summer", "autumn")},
    "shrub": {
        "spring": (_rgb(84, 106, 62), _rgb(110, 122, 76)),
        "summer": (_rgb(74, 96, 58), _rgb(100, 112, 72)),
        "autumn": (_rgb(92, 98, 60), _rgb(126, 108, 68)),
    },
    "orchard": {
        "spring": (_rgb(118, 136, 92), _rgb(160, 160, 140)),
        "summer": (_rgb(76, 104, 58), _rgb(96, 116, 70)),
        "autumn": (_rgb(108, 108, 62), _rgb(140, 118, 66)),
    },
}

_CARS = tuple(
    _rgb(*color)
    for color in (
        (226, 226, 226), (198, 200, 204), (60, 62, 66), (38, 38, 42), (110, 112, 118),
        (150, 44, 40), (52, 76, 120), (170, 172, 176), (232, 230, 222), (84, 96, 88),
    )
)  # fmt: skip


def paint(canvas: Canvas, plan: Plan, date: When, rng: np.random.Generator) -> None:
    """Paint everything that is there at ``date``.

    Args:
        canvas: fresh; its classes are written, and its colours (linear albedo times light, 0..1) where it has a light.
        plan: what there is.
        date: `When.BEFORE` or `When.AFTER`.
        rng: for what is different every day: which parking places are taken.
    """
    if canvas.light is not None:
        canvas.rgb[:] = _background(canvas, canvas.whole)
    for ground in plan.grounds:
        if ground.when & date:
            _paint_ground(canvas, ground)
    for water in plan.waters:
        if water.when & date:
            _paint_water(canvas, water)
    _paint_roads(canvas, plan, date)
    lines = [line for line in plan.lines if line.when & date]
    _paint_marks(canvas, lines)
    hedges = [(line.line, line.half_width_m) for line in lines if line.kind == "hedge"]
    buildings = [building for building in plan.buildings if building.when & date]
    trees = sorted((tree for tree in plan.trees if tree.when & date), key=lambda tree: tree.height_m)
    if canvas.light is not None:
        _park_cars(canvas, plan, date, rng)
        _cast_shadows(canvas, canvas.light, buildings, trees, hedges)
    if hedges:
        _paint_hedges(canvas, hedges)
    for building in buildings:
        _paint_building(canvas, building)
    for tree in trees:
        _paint_tree(canvas, tree)


# ---- ground -----------------------------------------------------------------------------------------------------


def _background(canvas: Canvas, window: Places) -> Image:
    assert canvas.light is not None
    first, second = _COVERS["meadow"][canvas.light.season]
    return _mottled(canvas, window, first, second, 0.07)


def _mottled(canvas: Canvas, window: Places, first: Image, second: Image, strength: float) -> Image:
    """Two colours mixed in patches, with grain at three scales."""
    patches, grain = canvas.mottle
    mixed: Image = (first + patches[window][..., None] * (second - first)) * (1 + np.float32(strength) * grain[window])[
        ..., None
    ]
    return mixed


def _paint_ground(canvas: Canvas, ground: Ground) -> None:
    outline = resample(np.concatenate([ground.polygon, ground.polygon[:1]]), 20.0)
    window = canvas.window(canvas.warp.to_world(np.concatenate([outline, ground.polygon])), 3.0)
    if window is None:
        return
    distance = canvas.convex(window, ground.polygon, plan=True)
    if not (distance < canvas.gsd).any():
        return
    seasonal = ground.cover in _COVERS
    code = VEGETATION if seasonal else _GROUNDS[ground.cover][0]
    if not seasonal and ground.cover in ("site", "felled", "heap", "pit", "rubble", "gravel", "bed"):
        # Diggers leave no straight edges.
        ragged = min(1.0, 0.04 * float(np.sqrt(np.ptp(ground.polygon[:, 0]) * np.ptp(ground.polygon[:, 1]))))
        distance += np.float32(ragged) * (0.8 * canvas.noise(6.0)[window] + 0.4 * canvas.noise(1.9)[window])
    color: Image | None = None
    if canvas.light is not None:
        if seasonal:
            color = _crop_color(canvas, canvas.light, window, ground, distance)
        else:
            color = _bare_color(canvas, window, ground, distance)
    canvas.cover(window, distance, code, color)


def _crop_color(canvas: Canvas, light: Light, window: Window, ground: Ground, distance: Field) -> Image:
    """Rows along the field, along its edge on the headland; drill streaks; tramlines 21 m apart."""
    first, second = _COVERS[ground.cover][light.season]
    # Paler is drier and warmer, darker is lusher.
    tint = np.float32(ground.tone) ** np.array([1.3, 1.0, 0.9], np.float32)
    color = _mottled(canvas, window, first, second, 0.075) * tint
    if ground.cover in ("lawn", "rough lawn", "forest floor"):
        return color
    u, v = canvas.u[window], canvas.v[window]
    across = direction(ground.angle + np.pi / 2)
    rows = np.float32(across[0]) * u + np.float32(across[1]) * v
    if ground.cover in ("meadow", "pasture"):
        stripes = 0.035 if ground.cover == "meadow" and light.season != "spring" else 0.012
        color *= (1 + np.float32(stripes) * np.tanh(3 * np.sin(rows * np.float32(2 * np.pi / 11.0))))[..., None]
        return color
    headland = distance > -10
    rows = np.where(headland, distance, rows)
    wobbling = rows + 0.12 * canvas.noise(6.0)[window]
    visible = np.clip((ground.spacing_m / canvas.gsd - 2) / 2, 0, 1)
    ridges = np.float32(0.075 * visible) * np.sin(wobbling * np.float32(2 * np.pi / ground.spacing_m))
    streaks = np.float32(0.05) * _streaks(rows, 2.7) + np.float32(0.03) * _streaks(rows + 500, 9.0)
    color *= (1 + ridges + streaks)[..., None]
    if ground.cover in ("wheat", "barley", "rapeseed", "beet"):
        wheel = np.abs(np.abs((rows % 21.0) - 10.5) - 0.95) - 0.28
        track = np.clip(0.5 - wheel / np.float32(canvas.gsd), 0, 1) * (
            0.75 + 0.25 * np.clip(canvas.noise(6.0)[window], -1, 1)
        )
        soil = _rgb(138, 122, 92)
        color += (0.55 * track)[..., None] * (soil - color)
    return color


def _streaks(rows: Field, pitch_m: float) -> Field:
    """A random brightness per drill pass, smooth across the passes."""
    table = np.random.Generator(np.random.PCG64(11)).standard_normal(512).astype(np.float32)
    place = rows / np.float32(pitch_m)
    whole = np.floor(place)
    t = (place - whole).astype(np.float32)
    t = t * t * (3 - 2 * t)
    index = whole.astype(np.int32)
    streaks: Field = table[index & 511] * (1 - t) + table[(index + 1) & 511] * t
    return streaks


def _slopes(height: Field) -> tuple[Field, Field]:
    """Rise per pixel down the rows and along the columns; level where the window is one pixel wide."""
    down, right = (
        np.asarray(np.gradient(height, axis=axis), np.float32) if height.shape[axis] > 1 else np.zeros_like(height)
        for axis in (0, 1)
    )
    return down, right


def _bare_color(canvas: Canvas, window: Window, ground: Ground, distance: Field) -> Image:
    _, first, second = _GROUNDS[ground.cover]
    fine = {"car park": 0.025, "pool": 0.02, "paving": 0.045}.get(ground.cover, 0.08)
    color = _mottled(canvas, window, first, second, fine) * np.float32(ground.tone)
    if ground.cover in ("heap", "pit"):
        assert canvas.light is not None
        # A mound (or a hole): its slope from the edge inwards, lit by the sun.
        deep: Field = np.clip(-distance / np.float32(4), 0, 1).astype(np.float32)
        dy, dx = _slopes(deep)
        sign = 1.0 if ground.cover == "heap" else -1.0
        sun = canvas.light.towards_sun
        slope = -(dx * np.float32(sun[0]) + dy * np.float32(sun[1])) * np.float32(sign / canvas.gsd)
        color *= (1 + np.clip(1.1 * slope, -0.4, 0.3))[..., None]
    elif ground.cover in ("site", "felled"):
        u, v = canvas.u[window], canvas.v[window]
        along = direction(ground.angle + np.pi / 2)
        rows = np.float32(along[0]) * u + np.float32(along[1]) * v + 2.5 * canvas.noise(23.0)[window]
        color *= (1 + np.float32(0.05) * _streaks(rows, 1.6) + np.float32(0.04) * canvas.noise(6.0)[window])[..., None]
        if ground.cover == "felled":
            brush = np.clip(0.8 * canvas.noise(0.55)[window] + 0.5 * canvas.noise(6.0)[window] - 0.8, 0, 1)[..., None]
            color += brush * (_rgb(92, 92, 66) - color)
    elif ground.cover == "rubble":
        color *= (1 + 0.16 * np.clip(canvas.noise(1.9)[window], -1, 1.5))[..., None]
    elif ground.cover == "bed":
        across = direction(ground.angle + np.pi / 2)
        rows = np.float32(across[0]) * canvas.u[window] + np.float32(across[1]) * canvas.v[window]
        green = np.clip(np.sin(rows * np.float32(2 * np.pi / ground.spacing_m)), 0, 1)[..., None] * 0.5
        color += green * (_rgb(92, 112, 70) - color)
    return color


# ---- water ------------------------------------------------------------------------------------------------------


def _paint_water(canvas: Canvas, water: River | Pond) -> None:
    if isinstance(water, Pond):
        box = canvas.window(water.centre[None], water.radius_m * 1.6 + 8)
        if box is None:
            return
        window: Places = box
        x, y = canvas.local(box, water.centre)
        turn = np.arctan2(y, x)
        shore = np.ones_like(turn)
        for k, a, p in zip((2, 3, 4, 5), water.wobble, water.phase, strict=True):
            shore += np.float32(a) * np.sin(k * turn + np.float32(p))
        distance = np.hypot(x, y) - np.float32(water.radius_m) * shore
    else:
        full, _ = canvas.along([(water.line, water.half_width_m)], 14.0)
        window = canvas.near(full, 14.0)
        distance = full[window] + 1.3 * canvas.noise(23.0)[window]
    distance = distance + np.float32(0.35) * canvas.noise(6.0)[window]
    if not (distance < 8).any():
        return
    bed = isinstance(water, River) and water.bed
    rim = distance - np.float32(7) + 2 * canvas.noise(1.9)[window]
    if canvas.light is None:
        canvas.cover(window, rim, VEGETATION, None)
        canvas.cover(window, distance - np.float32(0.8), BARE, None)
        canvas.cover(window, distance, BARE if bed else WATER, None)
        return
    bank = _background(canvas, window)
    reeds = np.clip(1 - distance / 7, 0, 1)[..., None]
    bank *= 1 - 0.3 * reeds
    canvas.cover(window, rim, VEGETATION, bank)
    canvas.cover(
        window, distance - np.float32(0.8), BARE, _mottled(canvas, window, _rgb(150, 138, 112), _rgb(124, 114, 90), 0.1)
    )
    if bed:
        gravel = _mottled(canvas, window, _rgb(186, 176, 154), _rgb(158, 146, 122), 0.09)
        canvas.cover(window, distance, BARE, gravel)
        return
    depth = np.clip(-distance / 4.5, 0, 1)[..., None]
    color = _rgb(98, 104, 82) + depth * (_rgb(48, 66, 64) - _rgb(98, 104, 82))
    ripples = 0.035 * canvas.noise(1.9)[window] + 0.05 * canvas.noise(23.0)[window]
    canvas.cover(window, distance, WATER, color * (1 + ripples)[..., None])


# ---- roads ------------------------------------------------------------------------------------------------------


def _paint_roads(canvas: Canvas, plan: Plan, date: When) -> None:
    """Verges of all, then surfaces of all, then paint: junctions open into each other."""
    fields: dict[str, tuple[Field, Field]] = {}
    for kind in ("track", "path", "street", "main"):
        roads = [(road.line, road.half_width_m) for road in plan.roads if road.when & date and road.kind == kind]
        if roads:
            fields[kind] = canvas.along(roads, 6.0)
    lit = canvas.light is not None
    if "main" in fields:
        near = canvas.near(fields["main"][0], 4.0)
        verge = _background(canvas, near) * np.float32(0.95) if lit else None
        canvas.cover(near, fields["main"][0][near] - 2.6 + 0.3 * canvas.noise(6.0)[near], VEGETATION, verge)
    for kind in ("track", "path"):
        if kind in fields:
            near = canvas.near(fields[kind][0], 2.0)
            distance = fields[kind][0][near] + 0.18 * canvas.noise(1.9)[near] + 0.2 * canvas.noise(6.0)[near]
            soil: Image | None = None
            if lit:
                soil = _mottled(canvas, near, _rgb(184, 170, 144), _rgb(160, 142, 114), 0.07)
                if kind == "track":
                    # Grass between the wheels: a hint of colour, too thin to be a class of its own.
                    middle = np.clip(-distance - 1.0, 0, 0.5)[..., None]
                    soil = soil + middle * (_background(canvas, near) - soil)
            canvas.cover(near, distance, BARE, soil)
    if "street" in fields:
        near = canvas.near(fields["street"][0], 3.0)
        slabs = _mottled(canvas, near, _rgb(152, 148, 142), _rgb(140, 136, 131), 0.045) if lit else None
        canvas.cover(near, fields["street"][0][near] - 1.4, ROAD, slabs)
    for kind, tone in (("street", 110.0), ("main", 102.0)):
        if kind in fields:
            near = canvas.near(fields[kind][0], 1.5)
            distance = fields[kind][0][near]
            asphalt: Image | None = None
            if lit:
                asphalt = _mottled(
                    canvas, near, _rgb(tone, tone, tone + 2), _rgb(tone + 14, tone + 13, tone + 13), 0.022
                )
                # Wheels polish their lanes lighter.
                asphalt *= (1 + 0.05 * np.cos(np.clip(distance, -4, 0) * np.float32(2 * np.pi / 1.85)))[..., None]
            canvas.cover(near, distance, ROAD, asphalt)
    if lit and "main" in fields:
        near = canvas.near(fields["main"][0], 1.5)
        distance, arc = (each[near] for each in fields["main"])
        # Paint stops where a street opens into the road.
        clear = -fields["street"][0][near] - 1 if "street" in fields else -FAR
        dashes = np.maximum(np.abs(distance + 3.7) - 0.1, np.abs(arc % 9.0 - 1.6) - 1.5)
        edges = np.abs(distance + 0.35) - 0.07
        canvas.cover(near, np.maximum(np.minimum(dashes, edges), clear), None, _rgb(222, 222, 216))


def _paint_marks(canvas: Canvas, lines: list[Line]) -> None:
    if canvas.light is None:
        return
    for line in lines:
        window = canvas.window(line.line, 1.0) if line.kind == "paint" else None
        if window is not None:
            along = line.line[-1] - line.line[0]
            length, angle = float(np.hypot(*along)), float(np.arctan2(along[1], along[0]))
            box = rectangle(line.line.mean(0), angle, length, 2 * line.half_width_m)
            canvas.cover(window, canvas.convex(window, box), None, _rgb(216, 216, 212))


def _park_cars(canvas: Canvas, plan: Plan, date: When, rng: np.random.Generator) -> None:
    """Other cars every day, in the same places; and a few on the move."""
    assert canvas.light is not None
    spots = [(spot.centre, spot.angle, spot.share_taken) for spot in plan.parkings if spot.when & date]
    for road in plan.roads:
        if road.when & date and road.kind in ("main", "street"):
            steps = np.diff(road.line, axis=0)
            for point, step in zip(road.line[1:-1], steps[1:], strict=True):
                side = rng.choice([-1.0, 1.0]) * road.half_width_m * (0.5 if road.kind == "main" else 0.62)
                angle = float(np.arctan2(step[1], step[0]))
                spots.append((point + direction(angle + np.pi / 2) * side, angle, 0.07))
    for centre, angle, share in spots:
        taken, color, jitter = rng.random() < share, _CARS[rng.integers(len(_CARS))], rng.normal(0, 0.25, 2)
        window = canvas.window(centre[None], 4.5) if taken else None
        if window is None:
            continue
        at = centre + jitter
        length, width = 4.3, 1.8
        body = rectangle(at, angle, length, width)
        cast = body - canvas.light.towards_sun * canvas.light.shadow_per_metre * 1.3
        shadow = canvas.convex(window, hull(np.concatenate([body, cast])))
        canvas.cover(window, shadow, None, canvas.rgb[window] * np.float32(0.5))
        canvas.cover(window, canvas.convex(window, body) - 0.15, None, color)
        forward = direction(angle)
        for reach, long in ((0.75, 0.6), (-1.35, 0.5)):
            glass = rectangle(at + forward * reach, angle, long, width * 0.8)
            canvas.cover(window, canvas.convex(window, glass), None, _rgb(40, 46, 52))


# ---- shadows ----------------------------------------------------------------------------------------------------


def _cast_shadows(
    canvas: Canvas, light: Light, buildings: list[Building], trees: list[Tree], hedges: list[tuple[Points, float]]
) -> None:
    """Collect the shadows of everything that stands, then darken the ground under them, bluish as the sky."""
    away = -light.towards_sun * light.shadow_per_metre
    for building in buildings:
        foot = rectangle(building.centre, building.angle, building.length_m, building.width_m)
        outline = hull(np.concatenate([foot, foot + away * building.height_m]))
        if building.roof != "flat":
            ridge = foot.reshape(2, 2, 2).mean(1) if building.roof == "gable" else building.centre[None]
            peak = away * (building.height_m + _rise(building))
            outline = hull(np.concatenate([outline, ridge + peak]))
        window = canvas.window(outline)
        if window is not None:
            canvas.shade(window, canvas.convex(window, outline))
    for tree in trees:
        start, end = tree.centre, tree.centre + away * (tree.height_m - tree.radius_m)
        window = canvas.window(np.stack([start, end]), tree.radius_m + 1)
        if window is not None:
            length = float(np.hypot(*(end - start)))
            s, t = canvas.local(window, start, float(np.arctan2(*(end - start)[::-1])))
            # The crown's disc at the end of its shadow, a little ragged; the trunk and what hangs low on the way.
            ragged = np.float32(0.25 * tree.radius_m) * canvas.noise(1.9)[window] * 0.5
            crown = (
                np.hypot((s - length) / np.float32(max(1.0, 0.8 * light.shadow_per_metre)), t) - tree.radius_m * 0.95
            )
            low = np.hypot(s - np.clip(s, 0, length), t) - tree.radius_m * (0.8 if tree.kind == "conifer" else 0.55)
            if tree.kind == "conifer":
                low = np.hypot(s - np.clip(s, 0, length), t) - tree.radius_m * (
                    1 - 0.75 * np.clip(s / max(length, 0.1), 0, 1)
                )
                crown = low
            canvas.shade(window, np.minimum(crown, low) + ragged)
    if hedges:
        moved = [(line + away * 1.5 * share, half) for line, half in hedges for share in (0.5, 1.0)]
        distance, _ = canvas.along(moved, 1.0)
        canvas.shade(canvas.whole, distance)
    dark = np.array([0.36, 0.40, 0.47], np.float32)
    canvas.rgb *= 1 - canvas.shadow[..., None] * (1 - dark)


# ---- things that stand ------------------------------------------------------------------------------------------


def _rise(building: Building) -> float:
    """Height of the ridge above the eaves: 38 degrees, less on wide halls."""
    return min(0.39 * building.width_m, 4.5)


def _paint_hedges(canvas: Canvas, hedges: list[tuple[Points, float]]) -> None:
    full, _ = canvas.along(hedges, 1.5)
    near = canvas.near(full, 1.5)
    distance = full[near] + 0.2 * canvas.noise(1.9)[near]
    color: Image | None = None
    if canvas.light is not None:
        first, second = _CROWNS["shrub"][canvas.light.season]
        color = _mottled(canvas, near, first, second, 0.12)
        color *= (0.8 + 0.35 * np.clip(-distance, 0, 1))[..., None]
    canvas.cover(near, distance, VEGETATION, color)


def _paint_building(canvas: Canvas, building: Building) -> None:
    length, width = building.length_m, building.width_m
    outline = rectangle(building.centre, building.angle, length, width)
    window = canvas.window(outline, 1.0)
    if window is None:
        return
    distance = canvas.convex(window, outline)
    if canvas.light is None:
        canvas.cover(window, distance, BUILDING, None)
        return
    extras = np.random.Generator(np.random.PCG64(building.extras))
    light = canvas.light
    s, t = canvas.local(window, building.centre, building.angle)
    base = _rgb(*building.color) * np.float32(extras.uniform(0.92, 1.08))
    weather = 0.05 * canvas.noise(1.9)[window] + 0.06 * canvas.noise(0.55)[window] + 0.03 * canvas.noise(6.0)[window]
    along, across = direction(building.angle), direction(building.angle + np.pi / 2)
    if building.roof == "flat":
        color = (base * (1 + 0.6 * weather)[..., None]).astype(np.float32)
        rim = np.clip(0.5 - np.abs(distance + 0.35) / 0.35, 0, 1)[..., None]
        color += rim * (np.minimum(base * 1.2, 0.95) - color)
    else:
        slope = _rise(building) / (width / 2)
        down, up = slope / np.hypot(1, slope), 1 / np.hypot(1, slope)
        sides = [
            float(light.on(sign * axis[0] * down, sign * axis[1] * down, up))
            for axis in (across, along)
            for sign in (1, -1)
        ]
        face = np.where(t > 0, np.float32(sides[0]), np.float32(sides[1]))
        crease = np.abs(t)
        if building.roof == "hip":
            end = np.abs(s) - (length - width) / 2 > np.abs(t)
            face = np.where(end, np.where(s > 0, np.float32(sides[2]), np.float32(sides[3])), face)
            hip = np.abs(np.abs(s) - (length - width) / 2 - np.abs(t)) * np.float32(0.7)
            crease = np.where(np.abs(s) > (length - width) / 2, np.minimum(hip, FAR), crease)
        rows = 0.03 * np.sin(np.abs(t) * np.float32(2 * np.pi / max(1.1, 2.4 * canvas.gsd)))
        color = (base * (face * (1 + weather + rows))[..., None]).astype(np.float32)
        ridge = np.clip(0.5 - (crease - 0.12) / np.float32(canvas.gsd), 0, 1)[..., None]
        color += 0.3 * ridge * (np.minimum(base * 1.35, 0.95) - color)
    canvas.cover(window, distance, BUILDING, color)
    _furnish_roof(canvas, building, window, extras)


def _furnish_roof(canvas: Canvas, building: Building, window: Window, extras: np.random.Generator) -> None:
    """Chimneys, skylights and solar panels on pitched roofs; machines on flat ones. Each with its small shadow."""
    assert canvas.light is not None
    light, length, width = canvas.light, building.length_m, building.width_m
    if width < 5.4:
        return
    along, across = direction(building.angle), direction(building.angle + np.pi / 2)

    def box(s: float, t: float, size: tuple[float, float], color: Image, height: float) -> None:
        at = building.centre + along * s + across * t
        outline = rectangle(at, building.angle, *size)
        if height > 0:
            cast = hull(np.concatenate([outline, outline - light.towards_sun * light.shadow_per_metre * height]))
            canvas.cover(window, canvas.convex(window, cast), None, canvas.rgb[window] * np.float32(0.55))
        canvas.cover(window, canvas.convex(window, outline), None, color)

    if building.roof == "flat":
        for _ in range(int(length * width / 110)):
            s, t = extras.uniform(-0.4, 0.4) * length, extras.uniform(-0.36, 0.36) * width
            box(s, t, (extras.uniform(1, 3), extras.uniform(1, 2)), _rgb(190, 192, 194), 1.2)
        return
    sunny = 1.0 if float(across @ light.towards_sun) > 0 else -1.0
    south = 1.0 if across[1] > 0 else -1.0
    if extras.random() < 0.28:
        box(
            extras.uniform(-0.15, 0.15) * length, south * width * 0.25, (length * 0.5, width * 0.3), _rgb(44, 52, 74), 0
        )
    elif extras.random() < 0.5:
        for _ in range(extras.integers(1, 4)):
            box(extras.uniform(-0.35, 0.35) * length, -south * width * 0.24, (0.9, 1.2), _rgb(104, 116, 128), 0)
    if extras.random() < 0.75:
        box(extras.uniform(-0.38, 0.38) * length, sunny * 0.6, (0.9, 0.8), _rgb(140, 110, 96), 1.3)


def _paint_tree(canvas: Canvas, tree: Tree) -> None:
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
    if canvas.light is None:
        canvas.cover(window, distance, VEGETATION, None)
        return
    first, second = _CROWNS[tree.kind][canvas.light.season]
    base = first + np.float32(tree.hue**1.5) * (second - first)
    # A dome, its leaves in clumps: the normal leans outwards, and each clump has a lit and a dark side.
    share = np.clip(reach / np.float32(radius), 0, 1)
    lean = share * np.float32(1.25 if tree.kind == "conifer" else 0.95)
    up = np.sqrt(np.maximum(1 - np.minimum(lean, 0.98) ** 2, 0.04))
    sun = canvas.light.towards_sun
    lit = canvas.light.on(lean * x / np.maximum(reach, 0.1), lean * y / np.maximum(reach, 0.1), up)
    dy, dx = _slopes(clumps)
    relief = -(dx * np.float32(sun[0]) + dy * np.float32(sun[1])) / np.float32(canvas.gsd)
    leaves = 1 + 0.22 * np.clip(relief, -1.5, 1.5) + 0.12 * canvas.noise(0.55)[window]
    color = base * (np.float32(0.15) + 0.85 * lit * np.clip(leaves, 0.4, 1.6))[..., None]
    canvas.cover(window, distance, VEGETATION, color.astype(np.float32))


def blur(image: Image, sigma_px: float) -> Image:
    """The optics: a Gaussian of ``sigma_px`` on each band."""
    blurred: Image = ndimage.gaussian_filter(image, (sigma_px, sigma_px, 0), mode="nearest", truncate=3.0)
    return blurred
