"""Strata of a result folder: its mapped transitions, a buffer around them, and the rest.

    change      one stratum per mapped transition; small ones are merged into "other change"
    buffer      unchanged pixels near mapped change, or with a change probability just below the threshold
    no change   the rest

Omitted change lies mostly next to mapped change and where the evidence was almost sufficient. A buffer stratum collects
it, so that few points bound it well (Olofsson et al. 2020). Pixels that were not processed are in no stratum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow
from scipy.ndimage import distance_transform_edt

from wasnow.areas.strata import FloatArray, IntArray
from wasnow.errors import UsageError
from wasnow.output.areas import PixelAreas
from wasnow.output.change_map import ChangeMap
from wasnow.output.layout import CONFIDENCE_MISSING, CONFIDENCE_SCALE

ROWS_AT_ONCE = 512
SMALL_SHARE = 0.02
"""Transitions with less than this share of the mapped change are merged."""

MOST_TRANSITIONS = 12
"""Strata of mapped change, the merged ones not counted."""

OTHER_CHANGE, BUFFER, NO_CHANGE = "other change", "buffer", "no change"


@dataclass(frozen=True)
class MapStrata:
    """How pixels of a result are assigned to strata.

    Attributes:
        names: of the strata, in order: transitions, "other change", "buffer", "no change"; absent ones left out.
        codes: ``{transition code: position in names}``.
        buffer_px: reach of the buffer in pixels; 0 without one.
        evidence: change probability from which an unchanged pixel belongs to the buffer; 1 without.
        not_processed: transition code of pixels outside the study area.
    """

    names: tuple[str, ...]
    codes: dict[int, int]
    buffer_px: float
    evidence: float
    not_processed: int

    def of(self, transition: NDArray[np.integer], confidence: NDArray[np.uint8]) -> NDArray[np.int16]:
        """The stratum of each pixel.

        Args:
            transition: ``(h, w)`` transition codes, with at least ``ceil(buffer_px)`` pixels around what is used.
            confidence: ``(h, w)`` change probability x 254.

        Returns:
            ``(h, w)`` positions in ``names``; -1 where not processed.
        """
        strata = np.full(transition.shape, -1, np.int16)
        known = transition != self.not_processed
        strata[known] = self.names.index(NO_CHANGE) if NO_CHANGE in self.names else -1
        changed = known & (transition != 0)
        if self.buffer_px > 0:
            near = known & ~changed
            reached = confidence >= math.ceil(self.evidence * CONFIDENCE_SCALE)
            reached &= confidence != CONFIDENCE_MISSING
            if changed.any():
                reached |= distance_transform_edt(~changed) <= self.buffer_px
            strata[near & reached] = self.names.index(BUFFER)
        for code in np.unique(transition[changed]).tolist():
            strata[transition == code] = self.codes[int(code)]
        return strata


def strata_of_map(result: ChangeMap, *, buffer: float | None = None, evidence: float | None = None) -> MapStrata:
    """Choose the strata of a result from its record.

    Args:
        result: the result folder.
        buffer: reach of the buffer stratum in metres (pixels without a CRS); None takes 5 pixels, 0 leaves it out.
        evidence: change probability from which unchanged pixels belong to the buffer; None takes half the threshold.

    Raises:
        UsageError: a value is out of range, or the map has no change to stratify by.
    """
    record = result.record
    side = record.grid.gsd_m
    pixels = 5.0 if buffer is None else buffer if side is None else buffer / side
    if not (math.isfinite(pixels) and pixels >= 0):
        raise UsageError(f"buffer is {buffer}; it must be 0 or greater")
    if pixels > 256:
        raise UsageError(f"buffer reaches {pixels:,.0f} pixels; at most 256 are supported: give a smaller buffer")
    low = record.model.threshold / 2 if evidence is None else evidence
    if not 0 < low <= 1:
        raise UsageError(f"evidence is {low:g}; it must be a probability above 0")
    rows = sorted(record.transitions, key=lambda row: (-row.pixels, row.code))
    changed = sum(row.pixels for row in rows)
    if not changed:
        raise UsageError("the map shows no change: there is nothing to stratify by; sample it with another map")
    vocabulary = result.vocabulary
    own = [row for row in rows if row.pixels >= SMALL_SHARE * changed][:MOST_TRANSITIONS]
    rest = [row for row in rows if row not in own]
    names = [vocabulary.transition(row.code).label for row in own]
    codes = {row.code: place for place, row in enumerate(own)}
    if rest:
        codes |= {row.code: len(names) for row in rest}
        names.append(OTHER_CHANGE)
    if pixels > 0:
        names.append(BUFFER)
    if record.pixels.unchanged:
        names.append(NO_CHANGE)
    return MapStrata(tuple(names), codes, pixels, low, vocabulary.not_processed)


@dataclass(frozen=True)
class Strip:
    """Some rows of a result, with everything that a draw needs.

    Attributes:
        indices: ``(n,)`` linear index ``row * width + col`` of each pixel.
        strata: ``(n,)`` its stratum, -1 outside the study area.
        areas_m2: ``(n,)`` ground area; None without a CRS.
    """

    indices: IntArray
    strata: NDArray[np.int16]
    areas_m2: FloatArray | None


def strips(result: ChangeMap, rules: MapStrata) -> Iterator[Strip]:
    """The pixels of a result, some rows at a time; memory does not grow with the height of the raster.

    Args:
        result: the result folder.
        rules: its strata.
    """
    reach = math.ceil(rules.buffer_px)
    with rasterio.open(result.change) as change, rasterio.open(result.confidence) as confidence:
        height, width = change.height, change.width
        areas = PixelAreas.of(change.crs, change.transform, width, height) if change.crs is not None else None
        for row in range(0, height, ROWS_AT_ONCE):
            stop = min(row + ROWS_AT_ONCE, height)
            top, bottom = max(0, row - reach), min(height, stop + reach)
            window = RasterioWindow(0, top, width, bottom - top)
            around = rules.of(change.read(3, window=window), confidence.read(1, window=window))
            strata = around[row - top : stop - top]
            indices = np.arange(row * width, stop * width, dtype=np.int64)
            ground = None if areas is None else np.ascontiguousarray(areas.window(row, 0, stop - row, width)).ravel()
            yield Strip(indices, strata.ravel(), ground)
