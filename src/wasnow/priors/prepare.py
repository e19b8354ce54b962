"""Prepare images as each network expects them, and map boxes and masks back to the image.

    longest     scaled to a longer side of 1024, zeros to the right and below               SAM
    exact       scaled to 1024 x 1024, 1008 x 1008, 352 x 352; sides separately             SAM 2, SAM 3, CLIPSeg
    shortest    shorter side 800, but the longer at most 1333; no padding                   Grounding DINO

Plain torch: the image processors of transformers need torchvision for some of these families, which wasnow does not
use. Sizes, means and standard deviations come from the ``preprocessor_config.json`` of the weights, else they are the
published ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate, pad

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STANDARD = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Preparation:
    """How an image becomes the input of a network.

    Attributes:
        fit: see the module docstring.
        size: sides in pixels: (longest,), (height, width), or (shortest, longest).
        mean: per channel, of values 0..1.
        std: per channel, of values 0..1.
    """

    fit: Literal["longest", "exact", "shortest"]
    size: tuple[int, ...]
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def configured_by(self, config: Mapping[str, Any]) -> Preparation:
        """Return the preparation with the values of a ``preprocessor_config.json`` (or its image part)."""
        config = config.get("image_processor", config)
        size = config.get("size")
        sides = self.size
        if isinstance(size, int) and self.fit == "exact":
            sides = (size, size)
        elif isinstance(size, Mapping):
            wanted = {
                "longest": ("longest_edge",),
                "exact": ("height", "width"),
                "shortest": ("shortest_edge", "longest_edge"),
            }
            names = wanted[self.fit]
            if all(name in size for name in names):
                sides = tuple(int(size[name]) for name in names)
        mean, std = config.get("image_mean") or self.mean, config.get("image_std") or self.std
        return Preparation(self.fit, sides, tuple(map(float, mean)), tuple(map(float, std)))

    def scaled_shape(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of an image after scaling, before padding."""
        if self.fit == "exact":
            return self.size[0], self.size[1]
        if self.fit == "longest":
            scale = self.size[0] / max(height, width)
            return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
        return _shortest(height, width, *self.size)

    def __call__(self, rgb: NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
        """Convert ``(H, W, 3)`` uint8 to ``(1, 3, h, w)`` float32, normalised, and padded for ``longest``.

        Args:
            rgb: the image.
            device: of torch.
        """
        values = torch.from_numpy(np.ascontiguousarray(rgb)).to(device).permute(2, 0, 1)[None].float()
        shape = self.scaled_shape(rgb.shape[0], rgb.shape[1])
        if shape != rgb.shape[:2]:
            # Rounded to whole grey levels, as in the 8-bit scaling used to train the networks.
            values = interpolate(values, shape, mode="bilinear", align_corners=False, antialias=True)
            values = values.round().clamp(0, 255)
        mean = torch.tensor(self.mean, device=device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=device).view(1, 3, 1, 1)
        values = (values / 255 - mean) / std
        if self.fit == "longest":
            values = pad(values, (0, self.size[0] - shape[1], 0, self.size[0] - shape[0]))
        return values

    def boxes(self, boxes: Tensor, height: int, width: int) -> Tensor:
        """Scale boxes ``(..., 4)`` from pixels of the image to pixels of the scaled image."""
        rows, cols = self.scaled_shape(height, width)
        return boxes * boxes.new_tensor([cols / width, rows / height] * 2)

    def masks(self, logits: Tensor, height: int, width: int) -> Tensor:
        """Resize masks ``(N, h, w)`` of the padded input, at any resolution, to ``(N, height, width)`` of the image."""
        if not len(logits):
            return logits.new_zeros((0, height, width))
        resized = logits[:, None].float()
        if self.fit == "longest":
            side = self.size[0]
            rows, cols = self.scaled_shape(height, width)
            resized = interpolate(resized, (side, side), mode="bilinear", align_corners=False)[..., :rows, :cols]
        return interpolate(resized, (height, width), mode="bilinear", align_corners=False)[:, 0]


SAM = Preparation("longest", (1024,))
SAM2 = Preparation("exact", (1024, 1024))
SAM3 = Preparation("exact", (1008, 1008), STANDARD, STANDARD)
CLIPSEG = Preparation("exact", (352, 352))
GROUNDING_DINO = Preparation("shortest", (800, 1333))


def _shortest(height: int, width: int, shortest: int, longest: int) -> tuple[int, int]:
    """The resize rule of DETR: the shorter side as given, unless the longer one would exceed ``longest``."""
    low, high = min(height, width), max(height, width)
    side = float(shortest)
    if high / low * shortest > longest:
        side = longest * low / high
        shortest = round(side)
    if low == shortest:
        return height, width
    if width < height:
        return max(1, int(side * height / width)), max(1, shortest)
    return max(1, shortest), max(1, int(side * width / height))
