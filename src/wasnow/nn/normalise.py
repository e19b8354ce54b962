"""From display values 0..1 to what a network was trained on: minus a mean, over a deviation, per colour and date.

Weights are worth nothing with another normalisation than their own, so it is part of a network and of its checkpoint.
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
    """Mean and deviation of red, green and blue of one date, where 0..1 is black to white."""

    mean: Colour
    std: Colour

    @classmethod
    def of_bytes(cls, mean: Colour, std: Colour) -> Levels:
        """The same from numbers that were measured on 0..255."""
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
"""(before, after) by name. ``clip``: of OpenAI's training, kept by its followers. ``lite``: of TensorFlow's
EfficientNet-Lite. ``second`` and ``landsat-scd``: of those data sets, as in the code of Ding et al."""


class Normalise(nn.Module):
    """Display values of either date as the network wants them, on its device and in its number type.

    Args:
        name: of `NORMALISATIONS`.

    Raises:
        UsageError: there is none of that name.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        if name not in NORMALISATIONS:
            raise UsageError(
                f"no normalisation is called {name!r}; known are {', '.join(NORMALISATIONS)}"
                + did_you_mean(name, list(NORMALISATIONS))
            )
        self.name = name
        # Buffers move with the network; the name rebuilds them, so they are no part of its state.
        for date, levels in zip(("before", "after"), NORMALISATIONS[name], strict=True):
            self.register_buffer(f"{date}_mean", torch.tensor(levels.mean)[:, None, None], persistent=False)
            self.register_buffer(f"{date}_std", torch.tensor(levels.std)[:, None, None], persistent=False)

    def forward(self, images: Tensor, date: Date) -> Tensor:
        """``(B, 3, H, W)`` in 0..1 to the same shape, about 0 and of unit spread.

        Raises:
            InputError: there are not three bands.
        """
        mean, std = self.get_buffer(f"{date}_mean"), self.get_buffer(f"{date}_std")
        if images.ndim != 4 or images.shape[1] != 3:
            raise InputError(
                f"the {date} images are {tuple(images.shape)}, and this network takes (batch, 3, rows, cols); "
                "give red, green and blue"
            )
        return (images.to(mean) - mean) / std

    def extra_repr(self) -> str:
        """Its name, where a network is printed."""
        return repr(self.name)
