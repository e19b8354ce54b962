"""Two aerial pictures of an invented place at two dates, and the truth about what changed between them.

    seed ─▶ plan (synthetic_plan) ─▶ paint (synthetic_paint) ─▶ camera ─▶ before, after
                                  └▶ classes ──────────────────────────▶ before_classes, after_classes

Half a kilometre of village edge: streets and plots, crops in rows, a river or a pond, woods, a building site. Between
the dates houses come and go, fields become car parks, homes and building sites, woods are felled, ponds grow, the river
shifts, a road is built. Season, sun, haze, noise, parked cars and a shift of a fraction of a pixel differ as well, and
are no change.

What counts as what:

    building      roofs, and the slab of a building under way
    road          everything paved: roads, pavements, drives, car parks, yards, terraces
    water         river, ponds, pools
    vegetation    crops in every season, grass, hedges, crowns (also where they hang over a road)
    bare ground   building sites, felled woods, gravel, unpaved tracks, vegetable beds, dry river beds

A ploughed field would be a change of cover, so seasons only recolour: green wheat ripens and becomes stubble, and stays
vegetation. A shadow takes the class of what it falls on.
"""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wasnow.data.synthetic_paint import Canvas, Light, blur, paint
from wasnow.data.synthetic_plan import When, make_plan
from wasnow.errors import UsageError
from wasnow.vocabulary import Vocabulary

Season = Literal["spring", "summer", "autumn"]

CLASSES: tuple[str, ...] = ("building", "road", "water", "vegetation", "bare ground")
"""The class of code ``k`` in the truth is ``CLASSES[k - 1]``."""

CRS = "EPSG:25832"
"""UTM zone 32 north on ETRS89, where the invented village lies."""

SHIFT_PX = (0.4, -0.3)
"""How far the second date appears displaced unless told otherwise: rows, cols."""

_ORIGIN = (600_000.0, 5_500_000.0)
_MONTHS: dict[Season, tuple[int, int]] = {"spring": (4, 5), "summer": (6, 7), "autumn": (9, 10)}
_ELEVATIONS: dict[Season, tuple[float, float]] = {"spring": (42, 54), "summer": (48, 60), "autumn": (30, 40)}


@dataclass(frozen=True)
class Look:
    """How one date is seen: everything that differs between two pictures of a place where nothing happened.

    Attributes:
        date: when the picture was taken; its month decides the season.
        sun_azimuth: where the sun stands, degrees clockwise from north.
        sun_elevation: degrees above the horizon, 10 to 85.
        gain: per band, around 1.
        gamma: exponent of the tone curve, around 1.
        haze: share of the light that is scattered air, 0 to 1.
        blur_px: Gaussian sigma of the optics.
        noise: standard deviation of the sensor's noise, in units of full scale.
    """

    date: datetime.date
    sun_azimuth: float = 155.0
    sun_elevation: float = 48.0
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    haze: float = 0.03
    blur_px: float = 0.55
    noise: float = 0.010

    def __post_init__(self) -> None:
        if not 10 <= self.sun_elevation <= 85:
            raise UsageError(f"the sun stands at {self.sun_elevation} degrees; give an elevation from 10 to 85")

    @property
    def season(self) -> Season:
        """Of the northern temperate year; the leafless months look like autumn."""
        month = self.date.month
        return "spring" if 3 <= month <= 5 else "summer" if 6 <= month <= 8 else "autumn"

    @classmethod
    def drawn(cls, rng: np.random.Generator, season: Season, year: int) -> Look:
        """A plausible survey flight in the given season: late morning to early afternoon, clear air."""
        month = int(rng.integers(*_MONTHS[season], endpoint=True))
        gain = rng.uniform(0.94, 1.10) * (1 + rng.normal(0, 0.015, 3))
        return cls(
            date=datetime.date(year, month, int(rng.integers(1, 28))),
            sun_azimuth=float(rng.uniform(135, 225)),
            sun_elevation=float(rng.uniform(*_ELEVATIONS[season])),
            gain=(float(gain[0]), float(gain[1]), float(gain[2])),
            gamma=float(rng.uniform(0.93, 1.08)),
            haze=float(rng.uniform(0.01, 0.07)),
            blur_px=float(rng.uniform(0.45, 0.65)),
            noise=float(rng.uniform(0.006, 0.012)),
        )


@dataclass(frozen=True, eq=False)
class Scene:
    """Two pictures of one place, and the classes of both dates on the pixel grid of the first.

    Attributes:
        before: ``(H, W, 3)`` uint8 RGB.
        after: ``(H, W, 3)`` uint8 RGB; the world appears displaced in it by ``shift_px``.
        before_classes: ``(H, W)`` uint8, codes 1..5 of `CLASSES`.
        after_classes: the same for the second date, on the grid of ``before``: not displaced.
        gsd_m: pixel side, metres.
        shift_px: (rows, cols): what lies at (r, c) in ``before`` lies at (r + rows, c + cols) in ``after``.
        looks: how each date was seen.
    """

    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    before_classes: NDArray[np.uint8]
    after_classes: NDArray[np.uint8]
    gsd_m: float
    shift_px: tuple[float, float]
    looks: tuple[Look, Look]

    @property
    def changed(self) -> NDArray[np.bool_]:
        """``(H, W)``: where the class is another one."""
        changed: NDArray[np.bool_] = self.before_classes != self.after_classes
        return changed


@dataclass(frozen=True)
class ScenePaths:
    """The files that `write_scene` wrote."""

    before: Path
    after: Path
    truth_before: Path
    truth_after: Path


def render_scene(
    seed: int,
    *,
    height: int = 1024,
    width: int = 1024,
    gsd_m: float = 0.5,
    change_share: float = 0.08,
    shift_px: tuple[float, float] = SHIFT_PX,
    looks: tuple[Look, Look] | None = None,
    identical: bool = False,
) -> Scene:
    """Invent a place and photograph it twice. The same arguments give the same pixels.

    Args:
        seed: which place; 0 or more.
        height: rows, 16 or more.
        width: columns, 16 or more.
        gsd_m: pixel side in metres, 0.1 to 5; textures and cars need 0.2 to 1 to be seen.
        change_share: share of the pixels whose class should change, 0 to 0.4. Met to within half of
            itself for images of a few hundred metres; a small image may show no ground that could change.
        shift_px: see `Scene`; at most 8 pixels either way.
        looks: season, sun and camera of each date; drawn from the seed, in different seasons, when None.
        identical: nothing happens between the dates; everything that is no change still differs.

    Raises:
        UsageError: an argument lies outside its range.
    """
    _check("seed", seed, 0, 2**63)
    _check("height", height, 16, 20_000)
    _check("width", width, 16, 20_000)
    _check("gsd_m", gsd_m, 0.1, 5)
    _check("change_share", change_share, 0, 0.4)
    _check("shift_px", max(map(abs, shift_px)), 0, 8)
    # One stream per purpose: asking for another look never moves a house.
    of_plan, of_looks, of_before, of_after = (np.random.Generator(np.random.PCG64([seed, key])) for key in range(4))
    plan = make_plan(
        of_plan, width_m=width * gsd_m, height_m=height * gsd_m, change_share=0.0 if identical else change_share
    )
    drawn = _draw_looks(of_looks)
    before_look, after_look = looks or drawn

    def canvas(look: Look | None, shift: tuple[float, float]) -> Canvas:
        light = None if look is None else Light(look.season, look.sun_azimuth, look.sun_elevation)
        return Canvas(height, width, gsd_m=gsd_m, shift_px=shift, plan=plan, noise_seed=seed, light=light)

    def picture(
        look: Look, shift: tuple[float, float], date: When, rng: np.random.Generator
    ) -> tuple[Canvas, NDArray[np.uint8]]:
        painted = canvas(look, shift)
        paint(painted, plan, date, rng)
        return painted, _expose(painted.rgb, look, rng)

    painted, before = picture(before_look, (0.0, 0.0), When.BEFORE, of_before)
    before_classes = painted.classes
    painted, after = picture(after_look, shift_px, When.AFTER, of_after)
    after_classes = painted.classes
    if shift_px != (0.0, 0.0):
        del painted
        unmoved = canvas(None, (0.0, 0.0))
        paint(unmoved, plan, When.AFTER, of_after)
        after_classes = unmoved.classes
    return Scene(before, after, before_classes, after_classes, gsd_m, shift_px, (before_look, after_look))


def write_scene(scene: Scene, folder: str | os.PathLike[str]) -> ScenePaths:
    """Write before.tif, after.tif, truth_before.tif and truth_after.tif, each whole or not at all.

    All four lie on the same grid in `CRS`, tiled and deflated. The pictures carry their date (TIFFTAG_DATETIME), the
    truth its colours and class names. The displacement of ``after`` is not in its georeference: it is the error of
    registration that a change detector has to live with.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = ScenePaths(*(folder / f"{name}.tif" for name in ("before", "after", "truth_before", "truth_after")))
    vocabulary = Vocabulary(CLASSES)
    colors = {code: (*vocabulary.color(code), 255) for code in range(1, len(CLASSES) + 1)}
    names = {f"class_{code}": word for code, word in enumerate(CLASSES, start=1)}
    before_look, after_look = scene.looks
    _write(paths.before, scene.before, scene, before_look, {}, None)
    _write(paths.after, scene.after, scene, after_look, {}, None)
    _write(paths.truth_before, scene.before_classes[..., None], scene, before_look, names, colors)
    _write(paths.truth_after, scene.after_classes[..., None], scene, after_look, names, colors)
    return paths


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UsageError(f"{name} is {value}; give a number from {low} to {high}")


def _draw_looks(rng: np.random.Generator) -> tuple[Look, Look]:
    """Two flights some years apart, in different seasons."""
    seasons: list[Season] = ["spring", "summer", "autumn"]
    first, second = (seasons[index] for index in rng.permutation(3)[:2])
    year = int(rng.integers(2015, 2019))
    return Look.drawn(rng, first, year), Look.drawn(rng, second, year + int(rng.integers(2, 6)))


def _expose(albedo: NDArray[np.float32], look: Look, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Haze, optics, gain, tone curve and noise: from light to ``(H, W, 3)`` uint8."""
    air = np.array([0.66, 0.70, 0.76], np.float32)
    light = blur(albedo, look.blur_px)
    light *= np.float32(1 - look.haze)
    light += np.float32(look.haze) * air
    light *= np.array(look.gain, np.float32)
    tones: NDArray[np.float32] = np.clip(light, 0, 1) ** np.float32(look.gamma)
    grain = rng.standard_normal(tones.shape, dtype=np.float32)
    # Part of the noise is common to the bands, as demosaicing leaves it.
    grain = np.float32(0.6) * grain + np.float32(0.8) * grain[..., :1]
    tones += np.float32(look.noise) * grain
    return np.round(np.clip(tones, 0, 1) * 255).astype(np.uint8)


def _write(
    path: Path,
    pixels: NDArray[np.uint8],
    scene: Scene,
    look: Look,
    tags: dict[str, str],
    colors: dict[int, tuple[int, int, int, int]] | None,
) -> None:
    import rasterio
    from rasterio.enums import ColorInterp
    from rasterio.transform import from_origin

    height, width, bands = pixels.shape
    partial = path.with_name(f".{path.name}.partial")
    try:
        with rasterio.open(
            partial,
            "w",
            driver="GTiff",
            height=height,
            width=width,
            count=bands,
            dtype="uint8",
            crs=CRS,
            transform=from_origin(*_ORIGIN, scene.gsd_m, scene.gsd_m),
            tiled=True,
            blockxsize=256,
            blockysize=256,
            compress="deflate",
            predictor=2 if bands == 3 else 1,
            photometric="RGB" if bands == 3 else "MINISBLACK",
            interleave="pixel",
        ) as raster:
            raster.write(np.moveaxis(pixels, -1, 0))
            if colors is None:
                raster.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
            else:
                raster.write_colormap(1, colors)
                raster.set_band_description(1, "class")
            raster.update_tags(TIFFTAG_DATETIME=f"{look.date:%Y:%m:%d} 11:30:00", **tags)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
