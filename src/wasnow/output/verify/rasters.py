"""Check the rasters of a result folder: every block is decoded, every pixel counted.

    change.tif ─────┐
    confidence.tif ─┼── window by window ──> codes valid? bands consistent? ──> counts as in run.json?
    landcover_*.tif ┘

One window of each raster is in memory. Overviews are decoded too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.windows import Window as RasterioWindow

from wasnow.output.areas import PixelAreas, TransitionTable
from wasnow.output.layout import CHANGE, CLASS_BANDS, CONFIDENCE, CONFIDENCE_MISSING, LANDCOVER
from wasnow.output.record import GridRecord, RunRecord
from wasnow.output.verify.finding import Finding
from wasnow.raster.tiles import Window
from wasnow.vocabulary import Vocabulary

SIDE = 1024
"""Side of a window in pixels: four blocks of a result raster."""

SAME_AREA = 1e-9
"""Relative tolerance of areas that are summed in another order."""

Progress = Callable[[str, int, int], None]
Codes = NDArray[np.unsignedinteger[Any]]


def check_rasters(folder: Path, record: RunRecord, progress: Progress) -> list[Finding]:
    """Return the faults of the rasters of a finished run; missing rasters are skipped.

    Args:
        folder: the result folder.
        record: its record.
        progress: called with ("blocks", done, total).
    """
    vocabulary = Vocabulary(record.model.classes)
    names = [
        name for name in (CHANGE, CONFIDENCE, *(LANDCOVER if record.landcover else ())) if (folder / name).exists()
    ]
    findings: list[Finding] = []
    sound = []
    for name in names:
        faults = _header_faults(folder / name, record, vocabulary)
        findings += [Finding(name, "not valid", fault) for fault in faults]
        if not faults:
            sound.append(name)
    if sound:
        findings += _pixel_faults(folder, sound, record, vocabulary, progress)
    for name in sound:
        findings += [Finding(name, "not valid", fault) for fault in _overview_faults(folder / name)]
    return findings


# --- headers ----------------------------------------------------------------------------------------------------


def _bands_of(name: str, vocabulary: Vocabulary) -> tuple[str, ...]:
    if name == CHANGE:
        return ("before_class", "after_class", "transition")
    if name == CONFIDENCE:
        names = ("change_probability", "before_class_probability", "after_class_probability")
        return names if len(vocabulary) else names[:1]
    return (CLASS_BANDS[LANDCOVER.index(name)],)


def _header_faults(path: Path, record: RunRecord, vocabulary: Vocabulary) -> list[str]:
    """Return how grid, bands, type, nodata value or layout differ from the record.

    Args:
        path: the raster.
        record: the record of the run.
        vocabulary: its class words.
    """
    bands = _bands_of(path.name, vocabulary)
    of_codes = path.name != CONFIDENCE
    dtype = vocabulary.dtype.name if of_codes else "uint8"
    nodata = vocabulary.not_processed if of_codes else CONFIDENCE_MISSING
    try:
        with rasterio.open(path) as raster:
            layout = raster.get_tag_item("LAYOUT", "IMAGE_STRUCTURE") or "plain"
            compared = [
                ("format", raster.driver, "GTiff"),
                ("layout", layout, "COG"),
                ("columns", raster.width, record.grid.width),
                ("rows", raster.height, record.grid.height),
                ("bands", ", ".join(name or "?" for name in raster.descriptions), ", ".join(bands)),
                ("type", ", ".join(sorted(set(raster.dtypes))), dtype),
                ("nodata", raster.nodata, nodata),
            ]
            faults = [
                f"{what} is {found}, run.json says {wanted}" for what, found, wanted in compared if found != wanted
            ]
            return faults + _place_faults(raster, record.grid)
    except RasterioError as error:
        return [f"cannot be opened: {_reason(error)}"]


def _place_faults(raster: Any, grid: GridRecord) -> list[str]:
    if grid.crs is None:
        return [] if raster.crs is None else [f"CRS is {raster.crs.to_string()}, run.json says none"]
    if raster.crs is None:
        return [f"has no CRS, run.json says {grid.crs[:60]}"]
    faults = []
    try:
        wanted = CRS.from_user_input(grid.crs)
        # A CRS without a code may be read back from a TIFF with another WKT.
        if wanted.to_authority() is not None and wanted != raster.crs:
            faults.append(f"CRS is {raster.crs.to_string()[:60]}, run.json says {grid.crs[:60]}")
    except CRSError:
        faults.append(f"run.json names a CRS that PROJ does not know: {grid.crs[:60]}")
    found = tuple(raster.transform)[:6]
    scale = max(map(abs, (*found, *grid.transform)), default=1.0)
    if any(abs(a - b) > 1e-12 * scale for a, b in zip(found, grid.transform, strict=True)):
        faults.append(f"transform is {found}, run.json says {grid.transform}")
    return faults


# --- pixels -----------------------------------------------------------------------------------------------------


def _pixel_faults(
    folder: Path, names: list[str], record: RunRecord, vocabulary: Vocabulary, progress: Progress
) -> list[Finding]:
    """Decode every block of the rasters and count the codes.

    Args:
        folder: the result folder.
        names: rasters with a valid header.
        record: the record of the run.
        vocabulary: its class words.
        progress: called with ("blocks", done, total).
    """
    faults = _Faults()
    table = TransitionTable(vocabulary)
    cover = {name: TransitionTable(vocabulary) for name in names if name in LANDCOVER}
    windows = list(_windows(record.grid.height, record.grid.width))
    with ExitStack() as stack:
        rasters = {name: stack.enter_context(rasterio.open(folder / name)) for name in names}
        first = rasters[names[0]]
        in_metres = record.areas_m2 is not None
        areas = PixelAreas.of(first.crs, first.transform, first.width, first.height) if in_metres else None
        for number, window in enumerate(windows):
            progress("blocks", number, len(windows))
            read: dict[str, Codes] = {}
            for name, raster in rasters.items():
                try:
                    read[name] = raster.read(window=RasterioWindow(window.col, window.row, window.width, window.height))
                except RasterioError as error:
                    faults.add(name, f"cannot be decoded ({_reason(error)})", window)
            here = areas.window(window.row, window.col, window.height, window.width) if areas is not None else None
            if (codes := read.get(CHANGE)) is not None:
                _check_codes(faults, window, codes, vocabulary)
                table.add(codes[2], here)
            if (confidence := read.get(CONFIDENCE)) is not None and codes is not None:
                missing = codes[2] == vocabulary.not_processed
                if ((confidence == CONFIDENCE_MISSING) != missing).any():
                    faults.add(CONFIDENCE, f"is not processed at other pixels than {CHANGE}", window)
            for date, name in enumerate(LANDCOVER):
                if (classes := read.get(name)) is None:
                    continue
                if name in cover:
                    _check_classes(faults, window, name, classes[0], None if codes is None else codes[date], vocabulary)
                    cover[name].add(classes[0], here)
    progress("blocks", len(windows), len(windows))
    found = faults.findings()
    undecoded = {each.file for each in found}
    if CHANGE in names and CHANGE not in undecoded:
        found += [Finding(CHANGE, "not valid", fault) for fault in _count_faults(table, record)]
    for date, name in enumerate(LANDCOVER):
        if name in cover and name not in undecoded:
            found += [Finding(name, "not valid", each) for each in _cover_faults(cover[name], record, date)]
    return found


def _windows(height: int, width: int) -> Iterator[Window]:
    for row in range(0, height, SIDE):
        for col in range(0, width, SIDE):
            yield Window(row, col, min(SIDE, height - row), min(SIDE, width - col))


class _Faults:
    """The first window of every kind of fault, and the number of windows with it: one line per kind, not per window."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, str], Window] = {}
        self._windows: dict[tuple[str, str], int] = {}

    def add(self, name: str, what: str, window: Window) -> None:
        key = name, what
        self._first.setdefault(key, window)
        self._windows[key] = self._windows.get(key, 0) + 1

    def findings(self) -> list[Finding]:
        return [
            Finding(
                name,
                "not valid",
                f"{what} within rows {at.row} to {at.row_stop - 1}, cols {at.col} to {at.col_stop - 1}"
                + (f", and in {self._windows[name, what] - 1} more windows" if self._windows[name, what] > 1 else ""),
            )
            for (name, what), at in self._first.items()
        ]


def _check_codes(faults: _Faults, window: Window, codes: Codes, vocabulary: Vocabulary) -> None:
    """Check that the codes are valid and the three bands agree.

    Args:
        faults: faults are added.
        window: of the codes.
        codes: ``(3, h, w)``.
        vocabulary: the class words.
    """
    before, after, transition = (band.astype(np.int64) for band in codes)
    missing = transition == vocabulary.not_processed
    if ((transition > vocabulary.n_transitions) & ~missing).any():
        faults.add(CHANGE, "has invalid transition codes", window)
    size = len(vocabulary)
    if size:
        expected = np.where((before > 0) & (after > 0), (before - 1) * size + after, 0)
        within = (before <= size) & (after <= size) & ((before > 0) == (after > 0))
        agree = within & (expected == transition)
    else:
        agree = (before == 0) & (after == 0)
    skipped = (before == vocabulary.not_processed) & (after == vocabulary.not_processed)
    if not np.where(missing, skipped, agree).all():
        faults.add(CHANGE, "has bands that contradict each other", window)


def _check_classes(
    faults: _Faults, window: Window, name: str, classes: Codes, changed: Codes | None, vocabulary: Vocabulary
) -> None:
    """Check that every compared pixel has a class, and at changed pixels the class of ``change.tif``.

    Args:
        faults: faults are added.
        window: of the codes.
        name: of the class map.
        classes: ``(h, w)``.
        changed: ``(h, w)`` classes of that date in ``change.tif``; None if it cannot be read.
        vocabulary: the class words.
    """
    missing = classes == vocabulary.not_processed
    if (((classes < 1) | (classes > len(vocabulary))) & ~missing).any():
        faults.add(name, "has invalid class codes", window)
    if changed is None:
        return
    if (missing != (changed == vocabulary.not_processed)).any():
        faults.add(name, f"is not processed at other pixels than {CHANGE}", window)
    if ((classes != changed) & (changed != 0) & ~missing).any():
        faults.add(name, f"has another class than {CHANGE} at changed pixels", window)


def _count_faults(table: TransitionTable, record: RunRecord) -> list[str]:
    """Return where pixels or areas in the raster differ from run.json."""
    rows = {row.code: row for row in record.transitions}
    compared: list[tuple[str, float, float]] = [
        ("pixels in all", int(table.pixels.sum()) + table.not_processed, record.pixels.total),
        ("changed pixels", int(table.pixels[1:].sum()), record.pixels.changed),
        ("unchanged pixels", int(table.pixels[0]), record.pixels.unchanged),
        ("pixels that were not processed", table.not_processed, sum(record.pixels.not_processed.values())),
        ("pixels of all blocks", record.pixels.total, sum(each.height * each.width for each in record.blocks)),
    ]
    compared += [
        (f"pixels of transition {code}", int(table.pixels[code]), rows[code].pixels if code in rows else 0)
        for code in sorted({*table.occurring, *(code for code in rows if 0 < code < len(table.pixels))})
    ]
    if (areas := record.areas_m2) is not None:
        compared += [
            ("changed square metres", float(table.area_m2[1:].sum()), areas.changed),
            ("unchanged square metres", float(table.area_m2[0]), areas.unchanged),
            ("square metres that were not processed", table.not_processed_m2, areas.not_processed),
        ]
        compared += [
            (f"square metres of transition {code}", float(table.area_m2[code]), row.area_m2 or 0.0)
            for code, row in rows.items()
            if 0 < code < len(table.area_m2)
        ]
    return _unequal(compared)


def _cover_faults(table: TransitionTable, record: RunRecord, date: int) -> list[str]:
    compared: list[tuple[str, float, float]] = []
    for row in record.landcover:
        if row.code < len(table.pixels):
            compared.append((f"pixels of {row.word!r}", int(table.pixels[row.code]), row.pixels[date]))
            if row.area_m2 is not None and record.areas_m2 is not None:
                wanted = row.area_m2[date]
                compared.append((f"square metres of {row.word!r}", float(table.area_m2[row.code]), wanted))
    return _unequal(compared)


def _unequal(compared: list[tuple[str, float, float]]) -> list[str]:
    return [
        f"{what}: {found:,} in the raster, {wanted:,} in run.json"
        for what, found, wanted in compared
        if not math.isclose(found, wanted, rel_tol=SAME_AREA, abs_tol=1e-6)
    ]


def _overview_faults(path: Path) -> list[str]:
    """Return the first overview that cannot be decoded."""
    with rasterio.open(path) as raster:
        levels = len(raster.overviews(1))
    for level in range(levels):
        with rasterio.open(path, overview_level=level) as small:
            for window in _windows(small.height, small.width):
                try:
                    small.read(window=RasterioWindow(window.col, window.row, window.width, window.height))
                except RasterioError as error:
                    return [f"overview {level + 1} of {levels} cannot be decoded: {_reason(error)}"]
    return []


def _reason(error: RasterioError) -> str:
    return " ".join(str(error.__cause__ or error).split())
