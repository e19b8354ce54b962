"""Make the files of a result folder from the finished blocks.

    blocks ──gather──> change.tif, confidence.tif ──polygonize──> changes.gpkg, changes.parquet
           │           landcover_before.tif, landcover_after.tif (with --landcover)
           └─count───> transitions, areas ────────> run.json ──> styles, report.html, item.json ──> SHA256SUMS

All files are made in the workspace, flushed to the disk and renamed at the end; ``run.json`` is renamed last.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import wasnow
from wasnow.output.areas import PixelAreas, TransitionTable
from wasnow.output.build_record import CodeCounts, build_record, file_sum, rounded_timings, utc_now
from wasnow.output.facts import RunFacts
from wasnow.output.folder import claim_outputs
from wasnow.output.input_pictures import input_picture
from wasnow.output.layout import (
    ATTRIBUTES,
    CHANGE,
    CLASS_BANDS,
    CONFIDENCE,
    CONFIDENCE_MISSING,
    CONFIDENCE_SCALE,
    GEOPACKAGE,
    GEOPARQUET,
    ITEM,
    LANDCOVER,
    RECORD_NAME,
    REPORT,
    SUMS,
    output_names,
)
from wasnow.output.record import RunRecord
from wasnow.raster.tiles import Window
from wasnow.raster.write import RasterWriter, raster_output_errors, reading_back, to_cog, writing
from wasnow.storage.atomic import output_errors
from wasnow.storage.journal import Workspace

Progress = Callable[[str, int, int], None]


def write_results(facts: RunFacts, space: Workspace, progress: Progress, timings: dict[str, float]) -> RunRecord:
    """Make every file of the result folder from the finished blocks, and return the record.

    Args:
        facts: what the pipeline says about the run.
        space: the workspace with the blocks.
        progress: called with ("results", done, total).
        timings: seconds by phase so far; the phases of this function are added.

    Raises:
        DiskFull, OutputError: a file cannot be written; the blocks stay, and a resumed run uses them.
    """
    from wasnow.output.report.html import write_report
    from wasnow.output.report.stac import write_item
    from wasnow.output.report.style import write_landcover_styles, write_styles
    from wasnow.output.vector import polygonize, write_polygons

    outputs = output_names(landcover=facts.landcover)
    steps = iter(range(7))
    at = time.perf_counter()

    def step(phase: str | None = None) -> None:
        nonlocal at
        now = time.perf_counter()
        if phase is not None:
            timings[phase] = now - at
        at = now
        progress("results", next(steps), 6)

    step()
    counts = _gather(facts, space)
    step("gather")
    with ThreadPoolExecutor(1, thread_name_prefix="wasnow-results") as other_thread:
        # GDAL compresses and builds overviews on one core; the other rasters and the pictures are made meanwhile.
        others = other_thread.submit(_compress, space, [CONFIDENCE, *(LANDCOVER if facts.landcover else ())])
        pictures = other_thread.submit(
            lambda: [input_picture(placed.source, facts.result) for placed in (facts.pair.before, facts.pair.after)]
        )
        _compress(space, [CHANGE])
        others.result()
    step("cog")
    _check_rasters(facts, space)
    step("read back")
    in_metres, outlines = facts.result.gsd_m is not None, facts.outlines
    batches = polygonize(
        space.finals / CHANGE,
        space.finals / CONFIDENCE,
        facts.vocabulary,
        min_area_m2=outlines.min_area if in_metres else 0.0,
        min_pixels=1 if in_metres else max(1, math.ceil(outlines.min_area)),
        connectivity=8 if outlines.connectivity == 8 else 4,
        simplify_m=outlines.simplify,
    )
    polygons = write_polygons(
        batches,
        gpkg=space.finals / GEOPACKAGE,
        parquet=space.finals / GEOPARQUET,
        crs=facts.result.crs,
        vocabulary=facts.vocabulary,
        dates=facts.dates,
    )
    _check_polygons(space.finals, sum(polygons.values()))
    step("polygons")
    blocks = [space.done[index] for index in range(facts.blocks)]
    so_far = (*(LANDCOVER if facts.landcover else ()), CONFIDENCE, GEOPACKAGE, GEOPARQUET, CHANGE)
    sums = [file_sum(space.finals / name) for name in so_far]
    record = build_record(facts, blocks, counts, polygons, timings, sums)
    with raster_output_errors(space.finals / ATTRIBUTES):
        write_styles(space.finals, record)
        if facts.landcover:
            write_landcover_styles(space.finals, record)
    (before, before_valid), (after, after_valid) = pictures.result()
    with raster_output_errors(space.finals / REPORT):
        write_report(space.finals, record, before, after, before_valid=before_valid, after_valid=after_valid)
    step("report")
    made = [name for name in outputs if name not in (ITEM, SUMS, RECORD_NAME)]
    record = record.model_copy(
        update={
            "timings_s": rounded_timings(timings),
            "finished": utc_now(),
            "outputs": tuple(file_sum(space.finals / name) for name in made),
        }
    )
    with output_errors(space.finals / RECORD_NAME):
        record.write(space.finals / RECORD_NAME)
        write_item(space.finals, record)
        _write_sums(space.finals, record)
        claim_outputs(space.output, outputs)
        # While results are replaced, the folder must not have a record of the old ones.
        (space.output / RECORD_NAME).unlink(missing_ok=True)
    space.publish(list(outputs))
    step()
    return record


def _uncompressed(name: str) -> str:
    return f"{name.removesuffix('.tif')}.raw.tif"


def _gather(facts: RunFacts, space: Workspace) -> CodeCounts:
    """Write all rasters uncompressed from the blocks, and count codes on the way."""
    grid, vocabulary = facts.result, facts.vocabulary
    areas = PixelAreas.of(grid.crs, grid.transform, grid.width, grid.height) if grid.georeferenced else None
    table = TransitionTable(vocabulary)
    cover = (TransitionTable(vocabulary), TransitionTable(vocabulary)) if facts.landcover else None
    confidence_bands: tuple[str, ...] = ("change_probability",)
    if len(vocabulary):
        confidence_bands += ("before_class_probability", "after_class_probability")
    tags = {"TIFFTAG_SOFTWARE": f"wasnow {wasnow.__version__}", "wasnow_model": facts.model.name}
    with ExitStack() as stack:

        def code_raster(name: str, *bands: str) -> RasterWriter:
            path, nodata = space.finals / _uncompressed(name), vocabulary.not_processed
            return stack.enter_context(
                writing(path, grid, dtype=vocabulary.dtype, nodata=nodata, bands=bands, tags=tags)
            )

        change = code_raster(CHANGE, "before_class", "after_class", "transition")
        confidence = stack.enter_context(
            writing(
                space.finals / _uncompressed(CONFIDENCE),
                grid,
                dtype=np.uint8,
                nodata=CONFIDENCE_MISSING,
                bands=confidence_bands,
                tags={**tags, "scale": f"probability = value / {CONFIDENCE_SCALE}"},
            )
        )
        maps = [code_raster(name, band) for name, band in zip(LANDCOVER, CLASS_BANDS, strict=True)] if cover else []
        for window, arrays in _blocks(facts, space):
            change.write(window, arrays["codes"])
            confidence.write(window, arrays["confidence"])
            here = areas.window(window.row, window.col, window.height, window.width) if areas is not None else None
            table.add(arrays["codes"][2], here)
            for date, counted in enumerate(cover or ()):
                maps[date].write(window, arrays["landcover"][date : date + 1])
                counted.add(arrays["landcover"][date], here)
    return CodeCounts(table, cover)


def _blocks(facts: RunFacts, space: Workspace) -> Iterator[tuple[Window, dict[str, NDArray[Any]]]]:
    """Yield window and arrays of every finished block; blocks without arrays are filled with "not processed"."""
    vocabulary = facts.vocabulary
    for index in range(facts.blocks):
        record = space.done[index]
        window = Window(record.row, record.col, record.height, record.width)
        if window.size == 0:
            continue
        arrays = space.load(index)
        if arrays is None:
            shape, missing = (window.height, window.width), vocabulary.not_processed
            arrays = {
                "codes": np.full((3, *shape), missing, vocabulary.dtype),
                "confidence": np.full((3 if len(vocabulary) else 1, *shape), CONFIDENCE_MISSING, np.uint8),
                "landcover": np.full((2, *shape), missing, vocabulary.dtype),
            }
        yield window, arrays


def _compress(space: Workspace, names: Sequence[str]) -> None:
    """Rewrite uncompressed rasters as Cloud Optimized GeoTIFFs and delete them."""
    for name in names:
        probability = name == CONFIDENCE
        raw = space.finals / _uncompressed(name)
        to_cog(raw, space.finals / name, overviews="average" if probability else "mode", predictor=probability)
        raw.unlink()


def _check_rasters(facts: RunFacts, space: Workspace) -> None:
    """Compare every pixel of the finished rasters with its block; each block is loaded once.

    Raises:
        OutputError, DiskFull: a raster differs, or cannot be read.
    """
    with ExitStack() as stack:
        change, confidence, *maps = (
            stack.enter_context(reading_back(space.finals / name))
            for name in (CHANGE, CONFIDENCE, *(LANDCOVER if facts.landcover else ()))
        )
        for window, arrays in _blocks(facts, space):
            change(window, arrays["codes"])
            confidence(window, arrays["confidence"])
            for date, check in enumerate(maps):
                check(window, arrays["landcover"][date : date + 1])


def _check_polygons(folder: Path, polygons: int) -> None:
    """Count the polygons in both files: what a library buffers until it closes a file can still get lost.

    Raises:
        OutputError, DiskFull: the number differs, or a file is damaged.
    """
    import pyarrow.parquet

    from wasnow.output.vector.files import LAYER

    with output_errors(folder / GEOPACKAGE):
        try:
            with contextlib.closing(sqlite3.connect(folder / GEOPACKAGE)) as base:
                integrity = base.execute("PRAGMA integrity_check(1)").fetchone()[0]
                tables = (LAYER, f"rtree_{LAYER}_geom")
                counts = {int(base.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]) for name in tables}
                # GDAL returns this number without counting.
                counts |= {int(row[0]) for row in base.execute("SELECT feature_count FROM gpkg_ogr_contents")}
                (extent,) = base.execute("SELECT max_x FROM gpkg_contents WHERE table_name = ?", (LAYER,)).fetchone()
        except (sqlite3.Error, TypeError) as error:
            raise OSError(f"it is damaged after writing: {error}") from None
        if integrity != "ok" or counts != {polygons} or (extent is None) != (polygons == 0):
            raise OSError(
                f"it differs from what was written: {integrity}, {min(counts)} polygons instead of {polygons}"
            )
    with output_errors(folder / GEOPARQUET):
        found = pyarrow.parquet.read_metadata(folder / GEOPARQUET).num_rows
        if found != polygons:
            raise OSError(f"it differs from what was written: {found} polygons instead of {polygons}")


def _write_sums(folder: Path, record: RunRecord) -> None:
    """Write ``SHA256SUMS`` of every other file, in the format of ``sha256sum``."""
    files = (*record.outputs, *(file_sum(folder / name) for name in (ITEM, RECORD_NAME)))
    lines = [f"{each.sha256}  {each.name}\n" for each in sorted(files, key=lambda each: each.name)]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8", newline="\n")
