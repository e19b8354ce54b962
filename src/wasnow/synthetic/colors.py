"""Colours of a synthetic scene: roofs, land cover and crowns by season, cars.

A pair of colours is a main colour and a second one that is mixed in in patches.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wasnow.synthetic.classes import BARE, ROAD, WATER
from wasnow.synthetic.objects import Rgb

Image = NDArray[np.float32]
"""Red, green and blue, 0..1, in the last axis: one colour ``(3,)`` or an image ``(h, w, 3)``."""


def rgb(red: float, green: float, blue: float) -> Image:
    """Return a colour ``(3,)``, 0..1, from three numbers 0 to 255."""
    return np.array([red, green, blue], np.float32) / np.float32(255)


TILES: tuple[Rgb, ...] = (
    (156, 92, 68), (172, 106, 82), (142, 84, 62), (124, 86, 70), (184, 124, 98), (104, 84, 76),
)  # fmt: skip
"""Clay tiles, on gable and hip roofs."""

SLATES: tuple[Rgb, ...] = ((96, 97, 104), (76, 76, 82), (112, 108, 106), (88, 92, 98))
"""Slate, on gable and hip roofs."""

FLATS: tuple[Rgb, ...] = ((176, 174, 168), (150, 152, 154), (206, 204, 198), (128, 126, 124), (188, 178, 162))
"""Felt and gravel, on flat roofs."""

COVERS: dict[str, dict[str, tuple[Image, Image]]] = {
    cover: {season: (rgb(*first), rgb(*second)) for season, (first, second) in seasons.items()}
    for cover, seasons in {
        "wheat": {
            "spring": ((88, 118, 62), (112, 128, 78)),
            "summer": ((190, 168, 114), (170, 152, 98)),
            "autumn": ((164, 150, 108), (138, 138, 92)),
        },
        "barley": {
            "spring": ((104, 130, 74), (128, 140, 88)),
            "summer": ((178, 160, 112), (154, 146, 96)),
            "autumn": ((112, 124, 76), (136, 132, 92)),
        },
        "rapeseed": {
            "spring": ((182, 176, 62), (156, 160, 66)),
            "summer": ((146, 140, 94), (122, 126, 80)),
            "autumn": ((82, 110, 60), (108, 116, 76)),
        },
        "maize": {
            "spring": ((116, 124, 80), (132, 124, 90)),
            "summer": ((64, 94, 54), (82, 108, 62)),
            "autumn": ((136, 126, 82), (114, 112, 70)),
        },
        "beet": {
            "spring": ((110, 124, 78), (130, 124, 90)),
            "summer": ((74, 112, 58), (96, 120, 70)),
            "autumn": ((80, 110, 62), (106, 114, 76)),
        },
        "meadow": {
            "spring": ((96, 122, 70), (116, 132, 80)),
            "summer": ((118, 128, 82), (142, 140, 96)),
            "autumn": ((104, 116, 72), (126, 124, 84)),
        },
        "pasture": {
            "spring": ((92, 118, 68), (124, 132, 84)),
            "summer": ((110, 124, 78), (146, 140, 100)),
            "autumn": ((98, 112, 70), (130, 124, 88)),
        },
        "lawn": {
            "spring": ((98, 124, 72), (116, 130, 82)),
            "summer": ((116, 130, 84), (144, 140, 100)),
            "autumn": ((104, 118, 74), (122, 122, 84)),
        },
        "rough lawn": {
            "spring": ((96, 112, 68), (126, 126, 84)),
            "summer": ((128, 128, 90), (152, 140, 106)),
            "autumn": ((112, 112, 76), (128, 116, 84)),
        },
        "forest floor": {
            "spring": ((58, 72, 46), (82, 86, 58)),
            "summer": ((48, 62, 42), (66, 74, 50)),
            "autumn": ((82, 74, 50), (98, 84, 58)),
        },
    }.items()
}
"""Vegetation, by cover and season."""

GROUNDS: dict[str, tuple[int, Image, Image]] = {
    "site": (BARE, rgb(188, 164, 132), rgb(160, 134, 104)),
    "felled": (BARE, rgb(146, 124, 98), rgb(120, 102, 80)),
    "heap": (BARE, rgb(204, 184, 150), rgb(182, 158, 124)),
    "pit": (BARE, rgb(140, 116, 90), rgb(160, 136, 108)),
    "gravel": (BARE, rgb(182, 172, 154), rgb(164, 152, 134)),
    "rubble": (BARE, rgb(178, 156, 130), rgb(150, 128, 108)),
    "bed": (BARE, rgb(124, 102, 80), rgb(142, 120, 94)),
    "paving": (ROAD, rgb(176, 168, 158), rgb(162, 154, 146)),
    "car park": (ROAD, rgb(122, 122, 124), rgb(134, 132, 132)),
    "pool": (WATER, rgb(92, 176, 196), rgb(112, 190, 206)),
}
"""Covers that do not change with the season: class, colour, second colour."""

CROWNS: dict[str, dict[str, tuple[Image, Image]]] = {
    "broadleaf": {
        "spring": (rgb(80, 108, 56), rgb(112, 130, 72)),
        "summer": (rgb(60, 86, 48), rgb(88, 110, 64)),
        "autumn": (rgb(86, 98, 54), rgb(140, 112, 60)),
    },
    "conifer": {season: (rgb(44, 66, 48), rgb(62, 82, 58)) for season in ("spring", "summer", "autumn")},
    "shrub": {
        "spring": (rgb(84, 106, 62), rgb(110, 122, 76)),
        "summer": (rgb(74, 96, 58), rgb(100, 112, 72)),
        "autumn": (rgb(92, 98, 60), rgb(126, 108, 68)),
    },
    "orchard": {
        "spring": (rgb(118, 136, 92), rgb(160, 160, 140)),
        "summer": (rgb(76, 104, 58), rgb(96, 116, 70)),
        "autumn": (rgb(108, 108, 62), rgb(140, 118, 66)),
    },
}
"""Leaves, by tree type and season."""

CARS = tuple(
    rgb(*color)
    for color in (
        (226, 226, 226), (198, 200, 204), (60, 62, 66), (38, 38, 42), (110, 112, 118),
        (150, 44, 40), (52, 76, 120), (170, 172, 176), (232, 230, 222), (84, 96, 88),
    )
)  # fmt: skip
"""Car paint."""
