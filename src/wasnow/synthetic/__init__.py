"""Two aerial pictures of an invented place at two dates, and the truth about what changed between them.

    seed ─▶ plan ─▶ things ─▶ at a date ─▶ paint ─▶ light ─▶ camera ─▶ before, after
                                               └──▶ classes ─────────▶ before_classes, after_classes

    plan/      what stands where, and when: villages, cells, roads, houses, and what became of them
    paint/     the plan at one date as seen from above, on a canvas: ground, water, roads, roofs, crowns, shadows
    camera     season, sun, air and sensor of one date
    scene      both dates together: `render_scene`
    files      a scene as GeoTIFFs: `write_scene`
    things, shapes, colors, classes          what all of them speak of

Half a kilometre of village edge: streets and plots, crops in rows, a river or a pond, woods, a building site. Between
the dates houses come and go, fields become car parks, homes and building sites, woods are felled, ponds grow, the river
shifts, a road is built. Season, sun, haze, noise, parked cars and a shift of a fraction of a pixel differ as well, and
are no change. What counts as what is told in `wasnow.synthetic.classes`.
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
