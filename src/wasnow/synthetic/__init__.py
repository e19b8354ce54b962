"""Synthetic aerial image pairs of invented places, with reference data about what changed between the dates.

    seed ─▶ plan ─▶ objects ─▶ at a date ─▶ paint ─▶ illumination ─▶ camera ─▶ before, after
                                                └──▶ classes ─────────────────▶ before_classes, after_classes

    plan/      where objects are, and at which dates: villages, cells, roads, houses, and their changes
    paint/     the plan at one date seen from above, on a canvas: ground, water, roads, roofs, crowns, shadows
    camera     season, sun, atmosphere and sensor of one date
    scene      both dates together: `render_scene`
    files      a scene as GeoTIFFs: `write_scene`
    objects, shapes, colors, classes         used by all of them

A scene shows half a kilometre at the edge of a village: streets and plots, crops in rows, a river or a pond, woods, a
building site. Between the dates houses are built and demolished, fields become car parks, homes and building sites,
woods are felled, ponds grow, the river moves, a road is built. Season, sun, haze, noise, parked cars and a shift of a
fraction of a pixel differ as well, and are not change. `wasnow.synthetic.classes` defines the classes.
"""

from wasnow.synthetic.camera import Acquisition, Season
from wasnow.synthetic.classes import CLASSES
from wasnow.synthetic.files import CRS, ScenePaths, write_scene
from wasnow.synthetic.scene import SHIFT_PX, Scene, render_scene

__all__ = [
    "CLASSES",
    "CRS",
    "SHIFT_PX",
    "Acquisition",
    "Scene",
    "ScenePaths",
    "Season",
    "render_scene",
    "write_scene",
]
