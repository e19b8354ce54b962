"""Measure polygons per CPU second and peak memory of `wasnow.output.vector`, for rasters of the same density of change.

    python benchmarks/polygons.py [SIDE ...]

Each side runs in a separate process; memory is the peak of that process minus its memory after the imports. Peak memory
depends on the chunk (2048 px) and GDAL's block cache (64 MB): it grows from one chunk to several, while the cache
fills, and is then independent of the raster.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window
from scipy.ndimage import gaussian_filter

from wasnow.output.vector import polygonize, write_polygons
from wasnow.vocabulary import Vocabulary

SIDES = (2048, 8192)
PATCH = 1024
WORDS = Vocabulary(("water", "building", "road", "tree"))


def write_scene(folder: Path, side: int) -> None:
    """Write blobs of random transitions on about a fifth of the area; each patch has different blobs."""
    profile = {
        "driver": "GTiff",
        "height": side,
        "width": side,
        "dtype": "uint8",
        "crs": "EPSG:32631",
        "transform": rasterio.Affine(1, 0, 5e5, 0, -1, 5e6),
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "compress": "zstd",
        "interleave": "band",
    }
    random = np.random.default_rng(0)
    with (
        rasterio.open(folder / "change.tif", "w", count=3, **profile) as change,
        rasterio.open(folder / "confidence.tif", "w", count=3, **profile) as confidence,
    ):
        for top in range(0, side, PATCH):
            for left in range(0, side, PATCH):
                noise = gaussian_filter(random.normal(size=(PATCH, PATCH)).astype(np.float32), 3)
                kind = gaussian_filter(random.normal(size=(PATCH, PATCH)).astype(np.float32), 20)
                kind = 1 + np.clip((kind / kind.std() * 4 + 8).astype(np.int64), 0, 15)
                codes = np.where(noise > 0.85 * noise.std(), kind, 0).astype(np.uint8)
                window = Window(left, top, PATCH, PATCH)
                change.write(np.stack([codes] * 3), window=window)
                confidence.write(np.stack([codes + 100] * 3).astype(np.uint8), window=window)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(side: int, folder: Path) -> str:
    """One line of the table."""
    idle = peak_mb()
    with rasterio.Env(GDAL_CACHEMAX=64 * 2**20):
        start = time.process_time()
        traced = sum(len(batch) for batch in polygonize(folder / "change.tif", folder / "confidence.tif", WORDS))
        tracing = time.process_time() - start
        start = time.process_time()
        write_polygons(
            polygonize(folder / "change.tif", folder / "confidence.tif", WORDS),
            gpkg=folder / "changes.gpkg",
            parquet=folder / "changes.parquet",
            crs="EPSG:32631",
            vocabulary=WORDS,
        )
        both = time.process_time() - start
    return (
        f"{side:>6} px  {traced:>8} polygons  traced {traced / tracing:>8.0f}/s ({tracing:.1f} s)  "
        f"traced and written {traced / both:>7.0f}/s ({both:.1f} s)  "
        f"{side * side / tracing / 1e6:>5.1f} Mpx/s  peak +{peak_mb() - idle:.0f} MB"
    )


def main() -> None:
    if len(sys.argv) == 4 and sys.argv[1] == "--measure":
        print(measure(int(sys.argv[2]), Path(sys.argv[3])))
        return
    for side in [int(text) for text in sys.argv[1:]] or SIDES:
        if side % PATCH:
            sys.exit(f"{side}: the side must be a multiple of {PATCH}")
        with tempfile.TemporaryDirectory() as folder:
            write_scene(Path(folder), side)
            subprocess.run([sys.executable, __file__, "--measure", str(side), folder], check=True)


if __name__ == "__main__":
    main()
