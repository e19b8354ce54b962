"""Small synthetic rasters and small models for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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
from wasnow.models.contract import ChangeLogits, ModelCard, WeightsInfo

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
REAL = ROOT.parent / "shared" / "data"
UTM = Affine(2.0, 0, 500_000, 0, -2.0, 5_500_000)


def needs_real(folder: str) -> Path:
    """Return a folder of the development imagery, or skip the test with the reason."""
    if not (REAL / folder).exists():
        pytest.skip(f"the development imagery ({folder}) is not on this machine; it is not part of the project")
    return REAL / folder


def write_raster(
    path: Path, values: NDArray[Any], *, crs: str | None = "EPSG:32632", transform: Affine | None = UTM, **profile: Any
) -> Path:
    """Write ``(bands, rows, cols)`` as a GeoTIFF, or with another driver."""
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
    """Return ``(bands, height, width)`` of smooth blobs with edges, 40..215: texture for filters and shifts."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    coarse = np.stack([gaussian_filter(rng.standard_normal((height, width)), 6) for _ in range(bands)])
    fine = np.stack([gaussian_filter(rng.standard_normal((height, width)), 1) for _ in range(bands)])
    both = coarse / coarse.std() + 0.4 * fine / fine.std()
    return np.clip(128 + 35 * both, 40, 215).astype(np.float32)


def pair(folder: Path, *, height: int = 96, width: int = 128, seed: int = 0, **profile: Any) -> tuple[Path, Path]:
    """Write two 8-bit RGB rasters; the second has an additional bright square and some noise."""
    rng = np.random.default_rng(seed + 1000)
    before = textured(seed, height, width)
    after = before + rng.normal(0, 2, before.shape)
    after[:, height // 4 : height // 2, width // 4 : width // 2] = 235
    paths = folder / "before.tif", folder / "after.tif"
    for path, values in zip(paths, (before, after), strict=True):
        write_raster(path, np.clip(values, 0, 255).astype(np.uint8), photometric="RGB", **profile)
    return paths


UNKNOWN, FINGERPRINTED = WeightsInfo(), WeightsInfo(fingerprint="toy 1")


@dataclass(frozen=True)
class Toy:
    """A tiny seeded convolutional model with classes and a known receptive field of ``radius`` pixels."""

    classes: tuple[str, ...] = ("water", "building", "field")
    gsd_m: float | None = None
    stride: int = 1
    radius: int = 4
    tile: int = 48
    seed: int = 0
    threshold: float = 0.5
    wants_priors: tuple[str, ...] = ()
    weights: WeightsInfo = UNKNOWN

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
            wants_priors=self.wants_priors,
            weights=self.weights,
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


TINY_SEMANTIC_CD: dict[str, Any] = {
    "clip": {
        "image_width": 32,
        "image_layers": 4,
        "image_heads": 2,
        "patch": 14,
        "image_size": 56,
        "image_mlp": 64,
        "text_width": 24,
        "text_layers": 2,
        "text_heads": 2,
        "text_mlp": 48,
        "text_positions": 77,
        "vocabulary": 49408,
        "embed": 16,
        "activation": "gelu",
    },
    "width": 16,
    "head_width": 12,
    "cost_width": 8,
    "context": 16,
    "filter_grid": (4, 4),
}
"""Options of a Semantic-CD that runs in milliseconds."""


@dataclass(frozen=True)
class ToyEncoding(Toy):
    """A `Toy` that is a `FeatureModel`; counts the encoded tiles."""

    weights: WeightsInfo = FINGERPRINTED
    seen: list[int] = field(default_factory=list, compare=False)
    encoder_parts: tuple[str, ...] = ("encoder",)

    def __call__(self, before: Tensor, after: Tensor, valid: Tensor) -> ChangeLogits:
        return self.answer(self.encode(before, after, valid), (before.shape[-2], before.shape[-1]))

    def encode(self, before: Tensor, after: Tensor, valid: Tensor | None = None) -> tuple[Tensor, ...]:
        assert torch.isfinite(before).all()
        self.seen.append(len(before))
        side = 2 * self.radius + 1
        smooth = torch.full((3, 1, side, side), 1 / side**2)
        means = [torch.nn.functional.conv2d(x, smooth, padding=self.radius, groups=3) for x in (before, after)]
        return *means, torch.full((len(before), 1), before.shape[-1])

    def answer(self, features: tuple[Tensor, ...], size: tuple[int, int]) -> ChangeLogits:
        first, second, width = features
        assert first.dtype == torch.float32
        assert set(width.ravel().tolist()) == {size[1]}
        change = 40 * (first - second).abs().mean(1, keepdim=True) - 2
        # The logits of a word do not depend on the other words.
        seeds = [np.random.default_rng(list(word.encode())) for word in self.classes]
        mix = torch.from_numpy(np.stack([rng.standard_normal((3, 1, 1)) for rng in seeds]).astype(np.float32)) * 8
        return ChangeLogits(change, *(torch.nn.functional.conv2d(each - 0.5, mix) for each in (first, second)))
