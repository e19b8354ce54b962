"""Recognise red, green and blue in band names as users and agencies write them.

red, blue_median, Green (560 nm)       by colour word
B4, B04, SR_B4, band_4                 by number: Sentinel-2 and Landsat 8/9 (2, 3, 4), Landsat 4 to 7 (1, 2, 3)
"""

from __future__ import annotations

import re
from collections.abc import Sequence

COLORS = ("red", "green", "blue")
_NUMBERED = re.compile(r"^(?:.*[^a-z0-9])?(?:b|band)[ _]?0?(\d{1,2})a?$")
_NOT_VISIBLE = frozenset(("edge", "rededge", "nir", "swir", "aerosol", "coastal", "thermal", "infrared"))


def rgb_positions(names: Sequence[str]) -> tuple[int, int, int] | None:
    """Return the positions of red, green and blue in a list of band names; None if they are not all unambiguous."""
    found = _by_word(names) or _by_number(names)
    return None if found is None else (found[0], found[1], found[2])


def _by_word(names: Sequence[str]) -> list[int] | None:
    tokens = [re.split(r"[^a-z0-9]+", name.casefold()) for name in names]
    positions = []
    for color in COLORS:
        matching = [
            index
            for index, words in enumerate(tokens)
            if (color in words or words == [color[0]]) and not _NOT_VISIBLE & set(words)
        ]
        if len(matching) != 1:
            return None
        positions.append(matching[0])
    return positions


def _by_number(names: Sequence[str]) -> list[int] | None:
    matches = [_NUMBERED.match(name.strip().casefold()) for name in names]
    numbers = [int(match[1]) if match else 0 for match in matches]
    # "band 1" without a name is the position in the file, not the band of a sensor.
    if all(re.fullmatch(r"band \d+", name.strip().casefold()) for name in names):
        return None
    present = set(numbers)
    if {2, 3, 4} <= present and (1 not in present or present & {6, 8, 9, 10, 11, 12}):
        wanted = (4, 3, 2)
    elif {1, 2, 3, 4, 5, 7} <= present and 6 not in present:
        # Landsat 4 to 7 surface reflectance has no band 6.
        wanted = (3, 2, 1)
    else:
        return None
    return [numbers.index(number) for number in wanted] if all(numbers.count(n) == 1 for n in wanted) else None


def names_contradict_rgb(names: Sequence[str | None], bands: Sequence[int] = (1, 2, 3)) -> bool:
    """Return whether names show that these bands are not red, green and blue, in this order.

    Args:
        names: one per band; None for a band without a name.
        bands: taken for red, green and blue, counted from 1.
    """
    words = [set(re.split(r"[^a-z0-9]+", (names[band - 1] or "").casefold())) for band in bands]
    others = [{*COLORS, "nir", "swir"} - {color} for color in COLORS]
    return any(each & wrong for each, wrong in zip(words, others, strict=True))


def band_named(names: Sequence[str | None], wanted: str) -> int | None:
    """Return the band with a name, counted from 1; None where there is none, or several.

    ``B4`` also finds ``B04`` and ``SR_B4``; ``red`` also finds ``red_median``.
    """
    key = _key(wanted)
    exact = [i for i, name in enumerate(names, 1) if name and _key(name) == key]
    loose = [
        i
        for i, name in enumerate(names, 1)
        if name and (key in re.split(r"[^a-z0-9]+", name.casefold()) or _key(name).endswith(key))
    ]
    return next((found[0] for found in (exact, loose) if len(found) == 1), None)


def _key(name: str) -> str:
    return re.sub(r"(?<![0-9])0+(?=\d)", "", re.sub(r"[^a-z0-9]", "", name.casefold()))
