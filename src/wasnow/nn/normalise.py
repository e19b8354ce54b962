"""Normalise display values 0..1 for a network: subtract a mean, divide by a deviation, per colour and date.

Weights are only valid with their own normalisation, so it is part of a network and of its checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from wasnow.errors import InputError, UsageError, did_you_mean

Date = Literal["before", "after"]
Colour = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Levels:
    """Mean and standard deviation of red, green and blue of one date, in units of 0..1."""

    mean: Colour
    std: Colour

    @classmethod
    def of_bytes(cls, mean: Colour, std: Colour) -> Levels:
        """Return the same from values in units of 0..255."""
        return cls(_over_255(mean), _over_255(std))


def _over_255(values: Colour) -> Colour:
    red, green, blue = values
    return red / 255, green / 255, blue / 255


_IMAGENET = Levels((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP = Levels((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_LITE = Levels.of_bytes((127.0, 127.0, 127.0), (128.0, 128.0, 128.0))
_AS_THEY_ARE = Levels((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

NORMALISATIONS: Mapping[str, tuple[Levels, Levels]] = {
    "imagenet": (_IMAGENET, _IMAGENET),
    "second": (
        Levels.of_bytes((113.40, 114.08, 116.45), (48.30, 46.27, 48.14)),
        Levels.of_bytes((111.07, 114.04, 118.18), (49.41, 47.01, 47.94)),
    ),
    "landsat-scd": (
        Levels.of_bytes((141.53, 139.20, 137.73), (81.99, 83.31, 83.89)),
        Levels.of_bytes((137.36, 136.50, 135.144), (85.97, 86.01, 86.81)),
    ),
    "clip": (_CLIP, _CLIP),
    "lite": (_LITE, _LITE),
    "none": (_AS_THEY_ARE, _AS_THEY_ARE),
}
"""(before, after) by name. ``clip``: OpenAI's training and its successors. ``lite``: TensorFlow's EfficientNet-Lite.
``second`` and ``landsat-scd``: these data sets, as in the code of Ding et al.
"""


class Normalise(nn.Module):
    """Normalisation of either date, on the device and in the number type of the network.

    Args:
        name: of `NORMALISATIONS`.

    Raises:
        UsageError: unknown name.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        if name not in NORMALISATIONS:
            raise UsageError(
                f"unknown normalisation {name!r}; use one of {', '.join(NORMALISATIONS)}"
                + did_you_mean(name, list(NORMALISATIONS))
            )
        self.name = name
        # Buffers move with the network; they follow from the name, so they are not part of its state.
        for date, levels in zip(("before", "after"), NORMALISATIONS[name], strict=True):
            self.register_buffer(f"{date}_mean", torch.tensor(levels.mean)[:, None, None], persistent=False)
            self.register_buffer(f"{date}_std", torch.tensor(levels.std)[:, None, None], persistent=False)

    def forward(self, images: Tensor, date: Date) -> Tensor:
        """Map ``(B, 3, H, W)`` in 0..1 to the same shape with zero mean and unit deviation.

        Raises:
            InputError: there are not three bands.
        """
        mean, std = self.get_buffer(f"{date}_mean"), self.get_buffer(f"{date}_std")
        if images.ndim != 4 or images.shape[1] != 3:
            raise InputError(
                f"the {date} images have shape {tuple(images.shape)} instead of (batch, 3, rows, cols); "
                "use red, green and blue"
            )
        return (images.to(mean) - mean) / std

    def extra_repr(self) -> str:
        """Return its name, for printed networks."""
        return repr(self.name)
