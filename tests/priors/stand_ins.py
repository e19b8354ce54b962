"""Maskers without a network, whose results are known in advance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wasnow.priors.regions import Mask, Region, connected_regions, union_masks

CHANNELS = {"red": 0, "green": 1, "blue": 2}


@dataclass
class Bright:
    """Finds the bright pixels of a colour band: the words are red, green and blue."""

    threshold: int = 128
    calls: list[tuple[str, ...]] = field(default_factory=list)
    knows_objects: bool = False

    @property
    def key(self) -> dict[str, object]:
        return {"masker": "bright", "threshold": self.threshold}

    def find(self, rgb: NDArray[np.uint8], words: Sequence[str]) -> tuple[tuple[Region, ...], ...]:
        self.calls.append(tuple(words))
        return tuple(connected_regions(rgb[..., CHANNELS[word]] > self.threshold) for word in words)

    def masks(self, rgb: NDArray[np.uint8], words: Sequence[str]) -> Mask:
        return union_masks(self.find(rgb, words), rgb.shape[:2])
