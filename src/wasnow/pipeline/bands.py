"""Choose the bands of both rasters that a model compares."""

from __future__ import annotations

import re

from wasnow.errors import BandsUnclear
from wasnow.models.contract import ModelCard
from wasnow.raster.band_names import rgb_positions
from wasnow.raster.source import RasterSource

ANY_BANDS = "use --model irmad, which compares any bands"
"""Advice for bands that an RGB model cannot use."""

RADAR_BANDS = frozenset(("vv", "vh", "hh", "hv", "sigma0", "gamma0", "beta0", "backscatter"))
"""Words in the names of radar bands."""

RGB = ("red", "green", "blue")


def choose_bands(
    before: RasterSource, after: RasterSource, bands: tuple[int, ...] | None, card: ModelCard
) -> tuple[tuple[RasterSource, RasterSource], list[str]]:
    """Return both rasters with the bands that the model gets, and warnings about doubtful choices.

    Args:
        before: the earlier raster.
        after: the later raster.
        bands: 1-based numbers for both; None chooses by colour interpretation and band names.
        card: of the model.

    Raises:
        BandsUnclear: the bands cannot be determined, or the model cannot use them; says what to do.
    """
    if bands is not None:
        if card.bands == "rgb" and len(bands) != 3:
            raise BandsUnclear(
                f"--bands names {len(bands)} band{'s' * (len(bands) != 1)}, and {card.name} takes red, green, blue; "
                f"name three, or {ANY_BANDS}"
            )
        return (before.with_bands(bands), after.with_bands(bands)), []
    if card.bands == "rgb":
        return _rgb_bands(before, after, card)
    if before.n_bands == after.n_bands:
        return (before, after), []
    colours = _find_rgb(before), _find_rgb(after)
    if colours[0][1] and colours[1][1]:
        warning = f"before has {before.n_bands} bands, after {after.n_bands}: red, green, blue of both are compared"
        return (before.with_bands(colours[0][0]), after.with_bands(colours[1][0])), [warning]
    raise BandsUnclear(
        f"before has {before.n_bands} bands, after {after.n_bands}; say which to compare, such as --bands 1,2,3"
    )


def _rgb_bands(
    before: RasterSource, after: RasterSource, card: ModelCard
) -> tuple[tuple[RasterSource, RasterSource], list[str]]:
    for source in (before, after):
        _check_optical(source, card.name)
    chosen = _find_rgb(before), _find_rgb(after)
    warnings = []
    for source, (_, declared) in zip((before, after), chosen, strict=True):
        if not declared:
            warnings.append(
                f"{source.path} does not declare its colours: bands 1, 2, 3 are taken as red, green, blue; "
                "if they are not, name the bands with --bands"
            )
        elif source.n_bands == 1 and source.palette is None:
            warnings.append(
                f"{source.path} has one band: {card.name} sees it as grey, and it was trained on colour; expect lower "
                f"accuracy, or {ANY_BANDS}"
            )
    return (before.with_bands(chosen[0][0]), after.with_bands(chosen[1][0])), warnings


def _check_optical(source: RasterSource, model: str) -> None:
    """Refuse rasters that an RGB model cannot use.

    Raises:
        BandsUnclear: two bands, or radar.
    """
    words = {word for each in source.band_names for word in re.split(r"[^a-z0-9]+", each.casefold())}
    if source.n_bands == 2:
        found = f"has 2 bands ({', '.join(source.band_names)})"
    elif RADAR_BANDS & words:
        found = f"is radar according to its band names ({', '.join(source.band_names[:4])})"
    else:
        return
    raise BandsUnclear(f"{source.path} {found}, and {model} takes red, green, blue; {ANY_BANDS}")


def _find_rgb(source: RasterSource) -> tuple[tuple[int, ...], bool]:
    """(bands of red, green, blue; whether the file declares them).

    Raises:
        BandsUnclear: two bands without colours.
    """
    if source.palette is not None:
        return source.bands, True
    # Names that a user wrote are more specific than the colour interpretation, which writers set by default.
    named = rgb_positions(source.band_names)
    if named is not None:
        return tuple(source.bands[position] for position in named), True
    if all(color in source.colors for color in RGB):
        return tuple(source.colors.index(color) + 1 for color in RGB), True
    # Four bands of bytes are an aerial image with near infrared last. Satellite products, which begin with blue, have
    # more bits or more bands: taking their first three would show blue as red.
    if source.n_bands == 3 or (source.n_bands == 4 and source.dtype == "uint8"):
        return source.bands[:3], False
    if source.n_bands > 3:
        raise BandsUnclear(
            f"{source.path} has {source.n_bands} bands ({', '.join(source.band_names[:4])}...) and does not declare "
            "which are red, green, blue; name them in this order, such as --bands 3,2,1"
        )
    if source.n_bands == 1:
        return source.bands * 3, True
    raise BandsUnclear(f"{source.path} has {source.n_bands} bands and declares no colours; name three with --bands")
