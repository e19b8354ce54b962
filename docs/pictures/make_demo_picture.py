"""Make demo.jpg: the synthetic pair that `make demo` renders, and what the default model finds in it.

    python docs/pictures/make_demo_picture.py

    +--------+ +--------+ +---------+
    | before | | after  | | changes |      changes: the polygons of changes.parquet, in the colours of what
    +--------+ +--------+ +---------+               the ground became, over a pale picture of after

Everything is rendered from a seed: no picture of a real place is used. Prints the scores that docs quote.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.features import rasterize

from wasnow import ChangeMap, detect
from wasnow.evaluation.demo import render, score
from wasnow.synthetic import write_scene
from wasnow.vocabulary import CHANGED_COLOR

Picture = NDArray[np.float64]

SEED, SIDE, MIN_AREA_M2 = 7, 1024, 4.0
"""As in `wasnow demo`."""
SHRINK = 2
GAP_PX = 12
JPEG_QUALITY = 80
TARGET = Path(__file__).with_name("demo.jpg")


def shrunk(picture: Picture) -> Picture:
    """The mean of every ``SHRINK`` x ``SHRINK`` pixels, ``(C, h, w)`` to ``(C, h / SHRINK, w / SHRINK)``."""
    bands, height, width = picture.shape
    return picture.reshape(bands, height // SHRINK, SHRINK, width // SHRINK, SHRINK).mean(axis=(2, 4))


def marked(after: Picture, result: ChangeMap) -> Picture:
    """The polygons, filled, over a pale grey picture of the later date."""
    with rasterio.open(result.change) as raster:
        transform, shape = raster.transform, raster.shape
    table = result.polygons()
    polygons = shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False))
    words = result.vocabulary.words
    codes = [words.index(word) + 1 if word in words else 0 for word in table["to"].to_pylist()]
    colors = np.array([CHANGED_COLOR, *(result.vocabulary.color(k) for k in range(1, len(words) + 1))], np.float64)
    inside = rasterize(
        zip(polygons, [code + 1 for code in codes], strict=True), out_shape=shape, transform=transform, dtype=np.uint8
    )
    pale = np.repeat(255 - (255 - after.mean(axis=0, keepdims=True)) * 0.55, 3, axis=0)
    color = colors[np.maximum(inside, 1) - 1].transpose(2, 0, 1)
    return np.where(inside > 0, 0.2 * pale + 0.8 * color, pale)


def main() -> None:
    scene = render(SEED, SIDE)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_scene(scene, Path(folder) / "pair")
        result = detect(paths.before, paths.after, output=Path(folder) / "result", min_area=MIN_AREA_M2)
        scores = score(result, scene).binary
        photographs = []
        for path in (paths.before, paths.after):
            with rasterio.open(path) as raster:
                photographs.append(raster.read().astype(np.float64))
        panels = [*map(shrunk, photographs), shrunk(marked(photographs[1], result))]
    gap = np.full((3, SIDE // SHRINK, GAP_PX), 255.0)
    picture = np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=2).round().astype(np.uint8)
    profile = {"driver": "JPEG", "quality": JPEG_QUALITY, "dtype": "uint8", "count": 3}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(TARGET, "w", height=picture.shape[1], width=picture.shape[2], **profile) as image:
            image.write(picture)
    TARGET.with_name(f"{TARGET.name}.aux.xml").unlink(missing_ok=True)
    print(f"{TARGET.name}: {TARGET.stat().st_size / 1000:.0f} kB, {picture.shape[2]} x {picture.shape[1]} px")
    print(f"{result.summary()}")
    print(f"precision {scores.precision:.2f}, recall {scores.recall:.2f}, F1 {scores.f1:.2f} per pixel")


if __name__ == "__main__":
    main()
