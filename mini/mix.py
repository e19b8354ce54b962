"""The data mix of semantic-cd-mini: which sources, how often each is drawn, at which scales, what is held out.

Everything that decides what the model learns from is in this file. `mini/sources.py` reads the folders named here,
`mini/crops.py` draws training pairs from them, `mini/train.py` trains. Whole places are held out: `mini/sources.py`
drops them on reading, so that no later step can see them.
"""

from __future__ import annotations

from dataclasses import dataclass

WORDS = ("building", "road", "water", "vegetation", "bare ground")
BUILDING, ROAD, WATER, VEGETATION, BARE = (1 << place for place in range(5))
"""A label is a set of words, as bits: `BUILDING` is a building, ``VEGETATION | BARE`` is one of the two."""

UNKNOWN = BUILDING | ROAD | WATER | VEGETATION | BARE
"""Nothing is known: every word is possible."""

FOR_TESTING = ("france-buildings", "levir-cd", "dsifn-cd", "beijing-construction")
"""Measured on and never trained on."""


@dataclass(frozen=True, slots=True)
class Source:
    """One source of training pictures.

    Attributes:
        folder: under DATA; empty for rendered scenes.
        share: how often it is drawn, relative to the others.
        gsd_m: range of pixel sizes (log-uniform) at which its crops are seen, metres.
        licence: licence or terms, and whom to attribute.
        labels: how its labels came about.
        held_out: which places never reach training.
        dates: whether its pictures are real pairs of dates.
    """

    folder: str
    share: float
    gsd_m: tuple[float, float]
    licence: str
    labels: str
    held_out: str
    dates: bool = False


SOURCES: dict[str, Source] = {
    "dubai": Source(
        "dubai-landcover", 0.24, (0.35, 2.5), "CC0, Humans in the Loop / MBRSC",
        "drawn by hand, loosely: no label within 4 px of the outline of a building", "Tile_6, Tile_7",
    ),
    "yinx": Source(
        "naip-yinx", 0.20, (0.3, 1.6), "imagery US public domain; masks without formal licence, by yinx111 (2025)",
        "drawn by hand, sharp; undrawn ground by NDVI", "the places east of easting 275 000 m",
    ),
    "yinx-coarse": Source(
        "naip-yinx", 0.06, (1.6, 5.0), "as yinx", "as yinx", "as yinx",
    ),
    "rio": Source(
        "spacenet1-rio", 0.07, (0.25, 1.2), "CC BY-SA 4.0, SpaceNet",
        "buildings; the rest is not building", "img50, img51, img52, img53",
    ),
    "banepa": Source(
        "oam-banepa", 0.06, (0.2, 1.0), "imagery CC BY 4.0, OpenAerialMap; ODbL, OpenStreetMap contributors",
        "buildings; the rest is not building", "the southern 512 rows",
    ),
    "chesapeake": Source(
        "chesapeake-wv", 0.02, (0.8, 2.5), "imagery US public domain; labels Chesapeake Conservancy",
        "land cover product; impervious is building or road", "none",
    ),
    "california": Source(
        "naip-california", 0.16, (0.4, 1.6), "imagery US public domain; CC BY 4.0, Ventura et al. (2024)",
        "unchanged but where NDVI moved; vegetation and not vegetation by NDVI", "Santa Monica", dates=True,
    ),
    "sentinel2": Source(
        "sentinel2-cities", 0.05, (7.0, 14.0), "contains modified Copernicus Sentinel data 2015-2018",
        "water and vegetation by MNDWI and NDVI", "beirut, montpellier, norcia, rio", dates=True,
    ),
    "dakota": Source(
        "naip-dakota", 0.06, (3.5, 11.0), "US public domain",
        "water, vegetation and bare ground by NDWI and NDVI", "columns from 562 on", dates=True,
    ),
    "pucallpa": Source(
        "landsat-pucallpa", 0.02, (25.0, 60.0), "public domain, USGS",
        "water and vegetation by MNDWI and NDVI", "none", dates=True,
    ),
    "synthetic": Source(
        "", 0.08, (0.3, 1.0), "this project", "exact", "seeds from 90 000 000 on", dates=True,
    ),
}  # fmt: skip

TRANSPLANT = 0.75
"""Share of the pairs into whose second date parts of another picture are set."""

REPAIRED = 0.08
"""Share of the pairs of labelled single dates whose second date is another place altogether."""

BAND_PX = 4
"""Dubai: no label within so many pixels of the outline of a building."""

TERM_LISTS: dict[str, tuple[str, ...]] = {
    "building": ("02", "03", "05"),
    "road": ("06",),
    "water": ("09", "10"),
    "vegetation": ("11", "12"),
    "bare ground": ("14",),
}
"""Lists of mini/terms whose terms are phrasings of a class in training, held-out phrasings left out."""
