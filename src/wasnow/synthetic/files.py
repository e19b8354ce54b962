"""Write a scene as four GeoTIFFs on one grid."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wasnow.storage.atomic import atomic_path
from wasnow.storage.ownership import claim
from wasnow.synthetic.camera import Acquisition
from wasnow.synthetic.classes import CLASSES
from wasnow.synthetic.scene import Scene
from wasnow.vocabulary import Vocabulary

CRS = "EPSG:25832"
"""UTM zone 32 north on ETRS89, the CRS of synthetic scenes."""

_ORIGIN = (600_000.0, 5_500_000.0)


@dataclass(frozen=True)
class ScenePaths:
    """Paths of the files written by `write_scene`."""

    before: Path
    after: Path
    truth_before: Path
    truth_after: Path


def write_scene(scene: Scene, folder: str | os.PathLike[str]) -> ScenePaths:
    """Write before.tif, after.tif, truth_before.tif and truth_after.tif, each by an atomic rename.

    All four are on the same grid in `CRS`, tiled and compressed with deflate. Images carry their date
    (TIFFTAG_DATETIME), reference data its colours and class names. The shift of ``after`` is not in its georeference:
    it simulates a registration error.

    Args:
        scene: from `render_scene`.
        folder: created if missing.

    Raises:
        OSError: the folder cannot be written.
        OutputError: it contains files of these names that were not written here.
    """
    folder = Path(folder)
    files = [f"{name}.tif" for name in ("before", "after", "truth_before", "truth_after")]
    claim(folder, files)
    paths = ScenePaths(*(folder / name for name in files))
    vocabulary = Vocabulary(CLASSES)
    colors = {code: (*vocabulary.color(code), 255) for code in range(1, len(CLASSES) + 1)}
    names = {f"class_{code}": word for code, word in enumerate(CLASSES, start=1)}
    before_look, after_look = scene.acquisitions
    _write(paths.before, scene.before, scene, before_look, {}, None)
    _write(paths.after, scene.after, scene, after_look, {}, None)
    _write(paths.truth_before, scene.before_classes[..., None], scene, before_look, names, colors)
    _write(paths.truth_after, scene.after_classes[..., None], scene, after_look, names, colors)
    return paths


def _write(
    path: Path,
    pixels: NDArray[np.uint8],
    scene: Scene,
    look: Acquisition,
    tags: dict[str, str],
    colors: dict[int, tuple[int, int, int, int]] | None,
) -> None:
    import rasterio
    from rasterio.enums import ColorInterp
    from rasterio.transform import from_origin

    height, width, bands = pixels.shape
    with (
        atomic_path(path) as temporary,
        rasterio.open(
            temporary,
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
        ) as raster,
    ):
        raster.write(np.moveaxis(pixels, -1, 0))
        if colors is None:
            raster.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        else:
            raster.write_colormap(1, colors)
            raster.set_band_description(1, "class")
        raster.update_tags(
            TIFFTAG_DATETIME=f"{look.date:%Y:%m:%d} 11:30:00",
            ACQUISITIONDATETIME=f"{look.date:%Y-%m-%d} 11:30:00",
            **tags,
        )
