"""Numbers, areas, sizes and colours as text."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Unit:
    """The unit of all areas of a page, so that they can be compared."""

    name: str
    per_m2: float

    def text(self, value: float) -> str:
        """Return an area with about three significant digits, at most two decimals, and thin spaces at thousands."""
        amount = value * self.per_m2
        if 0 < amount < 0.01:
            return "< 0.01"
        decimals = 0 if amount == 0 or amount >= 100 or self.name == "px" else 1 if amount >= 10 else 2
        return thousands(f"{amount:,.{decimals}f}")


PIXELS = Unit("px", 1.0)
SQUARE_METRES = Unit("m²", 1.0)
HECTARES = Unit("ha", 1e-4)
SQUARE_KILOMETRES = Unit("km²", 1e-6)


def unit_for(largest_m2: float | None) -> Unit:
    """Return a unit that suits an area of this size; pixels if it is None."""
    if largest_m2 is None:
        return PIXELS
    if largest_m2 < 20_000:
        return SQUARE_METRES
    return HECTARES if largest_m2 < 20e6 else SQUARE_KILOMETRES


def thousands(text: str) -> str:
    """Replace the commas of a number by thin spaces."""
    return text.replace(",", "\u202f")


def percent(share: float) -> str:
    """Return a share 0..1 as per cent; a share above 0 is never shown as 0."""
    if share == 0:
        return "0 %"
    if share < 0.0001:
        return "< 0.01 %"
    return f"{100 * share:.2f} %" if share < 0.1 else f"{100 * share:.1f} %"


def file_size(size: int | None) -> str:
    """Return a number of bytes in kB, MB or GB; empty if unknown."""
    if size is None:
        return ""
    for name, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {name}"
    return f"{size} B"


def plain_text(value: Any) -> str:
    """Return an option or diagnostic as one line of text."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.6g}"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 400 else text[:399] + "…"


def css_color(color: tuple[int, int, int]) -> str:
    """Return ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def lat_lon(lat: float, lon: float, decimals: int = 5) -> str:
    """Return a position as text.

    Args:
        lat: degrees; positive north.
        lon: degrees; positive east.
        decimals: of both.
    """
    if not (math.isfinite(lat) and math.isfinite(lon)):
        return "unknown"
    return f"{abs(lat):.{decimals}f}° {'N' if lat >= 0 else 'S'}, {abs(lon):.{decimals}f}° {'E' if lon >= 0 else 'W'}"
