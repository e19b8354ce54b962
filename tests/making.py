"""Small rasters and small models for tests: made here, never taken from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from numpy.typing import NDArray
from torch import Tensor

from wasnow.errors import VocabularyError
from wasnow.models.contract import ChangeLogits, ModelCard

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"
UTM = Affine(2.0, 0, 500_000, 0, -2.0, 5_500_000)


def needs_real(folder: str) -> Path:
    """The development imagery, or a skip that says why."""
    if not (REAL / folder).exists():
        pytest.skip(f"the development imagery ({folder}) is not on this machine; it is not part of the project")
    return REAL / folder


def write_raster(
    path: Path, values: NDArray[Any], *, crs: str | None = "EPSG:32632", transform: Affine | None = UTM, **profile: Any
) -> Path:
    """A GeoTIFF (or another driver) holding ``(bands, rows, cols)``."""
    options = {"driver": "GTiff", **profile}
    if crs is not None:
        options["crs"] = crs
    if transform is not None and crs is not None:
        options["transform"] = transform
    with rasterio.open(
        path, "w", count=values.shape[0], height=values.shape[1], width=values.shape[2], dtype=values.dtype, **options
    ) as raster:
        raster.write(values)
    return path


def textured(seed: int, height: int, width: int, bands: int = 3) -> NDArray[np.float32]:
    """Smooth blobs with edges, 40..215: enough structure for filters, shifts and statistics."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    coarse = np.stack([gaussian_filter(rng.standard_normal((height, width)), 6) for _ in range(bands)])
    fine = np.stack([gaussian_filter(rng.standard_normal((height, width)), 1) for _ in range(bands)])
    both = coarse / coarse.std() + 0.4 * fine / fine.std()
    return np.clip(128 + 35 * both, 40, 215).astype(np.float32)


def pair(folder: Path, *, height: int = 96, width: int = 128, seed: int = 0, **profile: Any) -> tuple[Path, Path]:
    """Two 8-bit RGB rasters; the second has a bright square that the first has not, and a little noise."""
    rng = np.random.default_rng(seed + 1000)
    before = textured(seed, height, width)
    after = before + rng.normal(0, 2, before.shape)
    after[:, height // 4 : height // 2, width // 4 : width // 2] = 235
    paths = folder / "before.tif", folder / "after.tif"
    for path, values in zip(paths, (before, after), strict=True):
        write_raster(path, np.clip(values, 0, 255).astype(np.uint8), photometric="RGB", **profile)
    return paths


@dataclass(frozen=True)
class Toy:
    """A convolutional model with classes: seeded, tiny, with a known receptive field of ``radius`` pixels."""

    classes: tuple[str, ...] = ("water", "building", "field")
    gsd_m: float | None = None
    stride: int = 1
    radius: int = 4
    tile: int = 48
    seed: int = 0
    threshold: float = 0.5

    @property
    def card(self) -> ModelCard:
        return ModelCard(
            name="toy",
            summary="a test model",
            source="tests",
            classes=self.classes,
            gsd_m=self.gsd_m,
            stride=self.stride,
            tile=self.tile,
            margin=self.radius + (-self.radius) % self.stride,
            threshold=self.threshold,
        )

    def bind(self, classes: Sequence[str]) -> Toy:
        if "dragon" in classes:
            raise VocabularyError("toy does not know 'dragon'")
        return replace(self, classes=tuple(classes))

    def __call__(self, before: Tensor, after: Tensor, valid: Tensor) -> ChangeLogits:
        assert torch.isfinite(before).all()
        assert torch.isfinite(after).all()
        assert before.shape[-1] % self.stride == 0
        rng = np.random.default_rng(self.seed)
        k = len(self.classes)
        side = 2 * self.radius + 1
        smooth = torch.full((3, 1, side, side), 1 / side**2)
        means = [torch.nn.functional.conv2d(x, smooth, padding=self.radius, groups=3) for x in (before, after)]
        change = 40 * (means[0] - means[1]).abs().mean(1, keepdim=True) - 2
        if k == 0:
            return ChangeLogits(change)
        mix = torch.from_numpy(rng.standard_normal((k, 3, 1, 1)).astype(np.float32)) * 8
        logits = [torch.nn.functional.conv2d(m - 0.5, mix) for m in means]
        return ChangeLogits(change, *logits)
