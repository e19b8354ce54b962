"""The grids of a run: that of the results, and the working grid of the model."""

from __future__ import annotations

from pathlib import Path

from wasnow.errors import InvalidOption
from wasnow.models.contract import ModelCard
from wasnow.raster.align import finest
from wasnow.raster.grid import Grid
from wasnow.raster.source import RasterSource, probe

SAME_GSD = 0.05
"""Relative difference up to which the working resolution equals the target grid: resampling would only blur."""

LARGEST_PX = 2**42
"""Working pixels of the largest accepted run: 4.4e12, about 2 million x 2 million."""
FINEST_FACTOR = 1 / 64
"""Smallest accepted ratio of working pixel to target pixel, in length."""
SMALLEST_SIDE = 8
"""Smallest accepted longer side of a reduced working grid, in pixels."""


def target_grid(align: str, before: RasterSource, after: RasterSource, allow_indirect: bool) -> Grid:
    """Return the grid of the results.

    Args:
        align: ``before``, ``after``, ``finest``, or the path of a raster.
        before: the earlier raster.
        after: the later raster.
        allow_indirect: also open rasters that refer to other files.

    Raises:
        InvalidOption: ``align`` is neither a name nor a file.
    """
    if align == "before":
        return before.grid
    if align == "after":
        return after.grid
    if align == "finest":
        return finest(before.grid, after.grid)
    if not Path(align).exists():
        raise InvalidOption(f"{{align}} must be before, after, finest or a raster file; {align!r} does not exist")
    return probe(align, allow_indirect=allow_indirect).grid


def working_grid(
    target: Grid, card: ModelCard, gsd: float | None, estimate: float | None = None
) -> tuple[Grid, list[str]]:
    """Return the grid on which the model runs, and warnings about its scale.

    Images finer than the range that a model was trained for are reduced to the fine end of that range, unless the user
    sets the working resolution: objects much larger than those of the training data are not recognised.

    Args:
        target: the target grid.
        card: of the model.
        gsd: of the options, in metres.
        estimate: pixel size of images that do not state it, in metres, as the model judges it.

    Raises:
        InvalidOption: the working grid would have an absurd size.
    """
    warnings = []
    here = target.gsd_m
    wanted = card.gsd_m if gsd is None else gsd
    if here is None:
        # Without a CRS, gsd is the size of the pixels, and the model's resolution is the working resolution.
        here, wanted = gsd, card.gsd_m
    trained = card.gsd_range_m
    if here is None and estimate is not None and trained is not None:
        warnings.append(
            f"the images do not state their pixel size; from what they show, {card.name} takes it to be about "
            f"{estimate:.2g} m. Pass --gsd METRES if you know it"
        )
        here = estimate
    if here is None and (card.gsd_m is not None or trained is not None):
        at = f"{card.gsd_m:g}" if trained is None else f"{trained[0]:g} to {trained[1]:g}"
        warnings.append(
            f"{card.name} works at {at} m per pixel, and the pixel size of these images is unknown: "
            "they are used without resampling; pass their pixel size with --gsd"
        )
    if wanted is None and here is not None and trained is not None and here < trained[0] / (1 + SAME_GSD):
        wanted = trained[0]
        alternative = f"; --gsd {here:.3g} keeps the full resolution" if target.gsd_m is not None else ""
        warnings.append(
            f"{card.name} runs on this pair at {wanted:g} m per pixel, the finest resolution that it was trained for, "
            f"not at {here:.3g} m{alternative}"
        )
    factor = wanted / here if wanted is not None and here is not None else 1.0
    if abs(factor - 1) <= SAME_GSD:
        factor = 1.0
    working_gsd = here * factor if here is not None else None
    if trained is not None and working_gsd is not None and here is not None:
        low, high = trained
        native = max(working_gsd, here)
        if not low / (1 + SAME_GSD) <= native <= high * (1 + SAME_GSD):
            advice = "compare imagery this coarse with --model irmad" if native > high else "leave --gsd out"
            warnings.append(
                f"{card.name} was evaluated at {low:g} to {high:g} m per pixel and runs here at {native:.3g} m: "
                f"expect lower accuracy, or {advice}"
            )
    check_scale(target, factor, gsd)
    return target.scaled(_snapped(factor, target, card.stride)), warnings


def _snapped(factor: float, target: Grid, stride: int) -> float:
    """A similar factor at which the longer side is a whole number of pixels, a multiple of the stride if possible.

    Pixel sizes on the ellipsoid are never round: 512 px of 0.2 m are 256.5 of 0.4 m, and the half pixel would be padded
    to a whole stride. The relative difference from the wanted working resolution is at most `SAME_GSD`.
    """
    if factor == 1:
        return factor
    length = max(target.shape)
    for step in (stride, 1):
        pixels = round(length / factor / step) * step
        if pixels and abs(length / pixels / factor - 1) <= SAME_GSD:
            return length / pixels
    return factor


def check_scale(target: Grid, factor: float, gsd: float | None) -> None:
    """Refuse working resolutions that make a grid of absurd size.

    Args:
        target: the target grid.
        factor: working pixel over target pixel, in length.
        gsd: of the options; named in the message.

    Raises:
        InvalidOption: there is one.
    """
    rows, cols = target.shape
    given = "the working resolution of the model" if gsd is None else f"{{gsd}} {gsd:g}"
    if factor < FINEST_FACTOR:
        raise InvalidOption(
            f"{given} divides each pixel into {1 / factor**2:.3g} pixels; choose a resolution at most "
            f"{1 / FINEST_FACTOR:.0f} times as fine as the rasters"
        )
    if rows * cols / factor**2 > LARGEST_PX:
        raise InvalidOption(
            f"{given} makes a working grid of {rows / factor:.3g} x {cols / factor:.3g} pixels; the largest run has "
            f"{LARGEST_PX:.2g} pixels: choose a coarser resolution, or divide the rasters"
        )
    if factor > 1 and max(rows, cols) / factor < min(SMALLEST_SIDE, max(rows, cols)):
        raise InvalidOption(
            f"{given} reduces {cols} x {rows} pixels to {max(1, round(cols / factor))} x "
            f"{max(1, round(rows / factor))}; choose a finer resolution"
        )
