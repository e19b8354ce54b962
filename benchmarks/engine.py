"""Measure the time that a run takes beyond the model itself, and its peak memory for growing rasters.

    python benchmarks/engine.py overhead           time of a whole run over time of the model on the same tiles
    python benchmarks/engine.py memory 5000 20000  peak memory and speed for rasters of these sides

Rasters are generated in a temporary folder. The figures are in docs/benchmarks.md.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from affine import Affine
from torch import Tensor, nn

from wasnow.models.contract import ChangeLogits, ModelCard
from wasnow.pipeline.api import detect
from wasnow.raster.tiles import Tiling

PATTERN = 1024


class Convolutions(nn.Module):
    """A few plain convolutions, as slow as a small real network, without weights to load."""

    def __init__(self, width: int = 32, depth: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers: list[nn.Module] = [nn.Conv2d(6, width, 3, padding=1), nn.ReLU()]
        for _ in range(depth):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Conv2d(width, 1, 1)).eval()

    @property
    def card(self) -> ModelCard:
        """RGB input, change only."""
        return ModelCard(name="convolutions", summary="benchmark", source="benchmarks/engine.py", tile=512, margin=32)

    def bind(self, classes: Sequence[str]) -> Convolutions:
        """Ignore the class words."""
        return self

    def forward(self, before: Tensor, after: Tensor, valid: Tensor) -> ChangeLogits:
        """Concatenate the dates and convolve."""
        return ChangeLogits(self.body(torch.cat([before, after], dim=1)))


def make_raster(path: Path, side: int, seed: int, *, bands: int = 3) -> None:
    """Write a tiled, compressed raster with a repeated noisy pattern, window by window.

    Args:
        path: the GeoTIFF.
        side: rows and columns.
        seed: of the noise; any but 0 adds a bright rectangle to each repetition.
        bands: number of bands.
    """
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 190, (bands, PATTERN // 32, PATTERN // 32)).repeat(32, 1).repeat(32, 2)
    pattern = np.clip(coarse + np.random.default_rng(seed).normal(0, 6, coarse.shape), 0, 255).astype(np.uint8)
    if seed:
        pattern[:, 200:260, 300:380] = 250
    profile: dict[str, Any] = {
        "driver": "GTiff", "width": side, "height": side, "count": bands, "dtype": "uint8", "crs": "EPSG:32632",
        "transform": Affine(0.5, 0, 500_000, 0, -0.5, 5_500_000), "tiled": True, "blockxsize": 512, "blockysize": 512,
        "compress": "zstd", "zstd_level": 1, "photometric": "RGB", "BIGTIFF": "IF_SAFER",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as raster:
        for row in range(0, side, PATTERN):
            for col in range(0, side, PATTERN):
                height, width = min(PATTERN, side - row), min(PATTERN, side - col)
                window = rasterio.windows.Window(col, row, width, height)
                raster.write(pattern[:, :height, :width], window=window)


def overhead(side: int = 2048) -> None:
    """Print the time of a whole run over that of the model alone, in one process, after a warm-up."""
    torch.set_num_threads(torch.get_num_threads())
    model = Convolutions()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, seed in (("before.tif", 0), ("after.tif", 1)):
            make_raster(folder / file, side, seed)
        tiling = Tiling(side, side, model.card.tile, model.card.margin)
        tile = torch.rand(1, 3, model.card.tile, model.card.tile)
        valid = torch.ones(1, 1, model.card.tile, model.card.tile, dtype=torch.bool)
        rows = []
        for attempt in range(3):
            with torch.inference_mode():
                model(tile, tile, valid)
                at = time.perf_counter()
                for _ in range(tiling.n_tiles):
                    model(tile, tile, valid)
                bare = time.perf_counter() - at
            at = time.perf_counter()
            result = detect(
                folder / "before.tif",
                folder / "after.tif",
                output=folder / f"out{attempt}",
                model=model,
                tile=512,
                margin=32,
            )
            whole = time.perf_counter() - at
            timings = result.record.timings_s
            rows.append((bare, whole, whole / bare, timings["model"] / bare))
            print(
                f"{side} px, {tiling.n_tiles} tiles: bare model {bare:.1f} s, whole run {whole:.1f} s, "
                f"ratio {whole / bare:.3f}; phases {json.dumps(timings)}"
            )
        print(f"median ratio {sorted(row[2] for row in rows)[1]:.3f}")


def memory(sides: list[int], model: str = "irmad") -> None:
    """Print peak memory and speed, with a separate process for each side."""
    for side in sides:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for file, seed in (("before.tif", 0), ("after.tif", 1)):
                make_raster(folder / file, side, seed)
            stored = sum((folder / file).stat().st_size for file in ("before.tif", "after.tif"))
            subprocess.run([sys.executable, __file__, "one", name, str(side), str(stored), model], check=True)


def one(folder: Path, side: int, stored: int, model: str) -> None:
    """Run once in this process and print its time and peak memory.

    Args:
        folder: holds before.tif and after.tif.
        side: rows and columns of both.
        stored: size of both files in bytes.
        model: name of a model, or ``convolutions``.
    """
    at = time.perf_counter()
    chosen = Convolutions(8, 1) if model == "convolutions" else model
    result = detect(folder / "before.tif", folder / "after.tif", output=folder / "out", model=chosen)
    seconds = time.perf_counter() - at
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    read = 2 * 3 * side * side / 2**20
    written = sum(each.size or 0 for each in result.record.outputs) / 2**20
    timings = result.record.timings_s
    print(
        f"{model}, {side} x {side} px x 3 bands, two dates ({read:.0f} MB of pixels, {stored / 2**20:.0f} MB stored): "
        f"{seconds:.1f} s, {side * side / seconds / 1e6:.1f} Mpx/s, peak {peak:.0f} MB, "
        f"reader threads {read / max(timings['read'], 1e-9):.0f} MB/s each, results {written:.1f} MB, "
        f"{result.record.polygons} polygons; phases {json.dumps(timings)}",
        flush=True,
    )


if __name__ == "__main__":
    verb, *rest = sys.argv[1:] or ["overhead"]
    if verb == "overhead":
        overhead(*map(int, rest))
    elif verb == "memory":
        memory([int(side) for side in rest if side.isdigit()] or [5000, 20000], *[m for m in rest if not m.isdigit()])
    elif verb == "one":
        one(Path(rest[0]), int(rest[1]), int(rest[2]), rest[3])
    else:
        sys.exit(f"{verb}: unknown; use overhead or memory")
