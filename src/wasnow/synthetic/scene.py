"""Render a scene: two images of one place, and the reference data about what changed between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wasnow.errors import UsageError
from wasnow.synthetic.camera import Acquisition, draw_acquisitions, expose
from wasnow.synthetic.objects import Presence
from wasnow.synthetic.paint import paint
from wasnow.synthetic.paint.canvas import Canvas
from wasnow.synthetic.paint.light import Illumination
from wasnow.synthetic.plan import make_plan

SHIFT_PX = (0.4, -0.3)
"""Default shift of the second date: rows, cols."""


@dataclass(frozen=True, eq=False)
class Scene:
    """Two images of one place, and the classes of both dates on the pixel grid of the first.

    Attributes:
        before: ``(H, W, 3)`` uint8 RGB.
        after: ``(H, W, 3)`` uint8 RGB, shifted by ``shift_px``.
        before_classes: ``(H, W)`` uint8, codes 1..5 of `CLASSES`.
        after_classes: the same for the second date, on the grid of ``before``: not shifted.
        gsd_m: pixel size, metres.
        shift_px: (rows, cols): the point at (r, c) in ``before`` is at (r + rows, c + cols) in ``after``.
        acquisitions: acquisition conditions of each date.
    """

    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    before_classes: NDArray[np.uint8]
    after_classes: NDArray[np.uint8]
    gsd_m: float
    shift_px: tuple[float, float]
    acquisitions: tuple[Acquisition, Acquisition]

    @property
    def changed(self) -> NDArray[np.bool_]:
        """``(H, W)`` bool: where the classes of the dates differ."""
        changed: NDArray[np.bool_] = self.before_classes != self.after_classes
        return changed


def render_scene(
    seed: int,
    *,
    height: int = 1024,
    width: int = 1024,
    gsd_m: float = 0.5,
    change_share: float = 0.08,
    shift_px: tuple[float, float] = SHIFT_PX,
    acquisitions: tuple[Acquisition, Acquisition] | None = None,
    identical: bool = False,
) -> Scene:
    """Render a random place at two dates. The same arguments give the same pixels.

    Args:
        seed: of the place; 0 or more.
        height: rows, 16 to 20,000.
        width: columns, 16 to 20,000.
        gsd_m: pixel size in metres, 0.1 to 5; textures and cars are visible at 0.2 to 1.
        change_share: target share of changed pixels, 0 to 0.4. Met to within half of itself for images of a few hundred
            metres; a small image may contain no ground that can change.
        shift_px: see `Scene`; at most 8 pixels in either direction.
        acquisitions: season, sun and camera of each date; None draws them from the seed, in different seasons.
        identical: nothing changes between the dates; acquisition conditions still differ.

    Raises:
        UsageError: an argument is outside its range.
    """
    _check("seed", seed, 0, 2**63)
    _check("height", height, 16, 20_000)
    _check("width", width, 16, 20_000)
    _check("gsd_m", gsd_m, 0.1, 5)
    _check("change_share", change_share, 0, 0.4)
    _check("shift_px", max(map(abs, shift_px)), 0, 8)
    # One random stream per purpose: another acquisition does not move a house.
    of_plan, of_looks, of_before, of_after = (np.random.Generator(np.random.PCG64([seed, key])) for key in range(4))
    plan = make_plan(
        of_plan, width_m=width * gsd_m, height_m=height * gsd_m, change_share=0.0 if identical else change_share
    )
    drawn = draw_acquisitions(of_looks)
    before_look, after_look = acquisitions or drawn

    def canvas(look: Acquisition | None, shift: tuple[float, float]) -> Canvas:
        light = None if look is None else Illumination(look.season, look.sun_azimuth, look.sun_elevation)
        return Canvas(height, width, gsd_m=gsd_m, shift_px=shift, warp=plan.warp, noise_seed=seed, light=light)

    def picture(
        look: Acquisition, shift: tuple[float, float], date: Presence, rng: np.random.Generator
    ) -> tuple[Canvas, NDArray[np.uint8]]:
        painted = canvas(look, shift)
        paint(painted, plan.at(date), rng)
        return painted, expose(painted.rgb, look, rng)

    painted, before = picture(before_look, (0.0, 0.0), Presence.BEFORE, of_before)
    before_classes = painted.classes
    painted, after = picture(after_look, shift_px, Presence.AFTER, of_after)
    after_classes = painted.classes
    if shift_px != (0.0, 0.0):
        del painted
        unmoved = canvas(None, (0.0, 0.0))
        paint(unmoved, plan.at(Presence.AFTER), of_after)
        after_classes = unmoved.classes
    return Scene(before, after, before_classes, after_classes, gsd_m, shift_px, (before_look, after_look))


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UsageError(f"{name} {value} must be {low} to {high}")
