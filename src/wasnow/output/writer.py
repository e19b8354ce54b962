"""From finished blocks to the result folder, and the result folder as a Python object.

    blocks --gather--> change.tif, confidence.tif --polygonize--> changes.gpkg, changes.parquet
           |           landcover_before.tif, landcover_after.tif, where asked for
           --count---> transitions, areas --------> run.json --> styles, report.html, item.json --> SHA256SUMS

Everything is made in the workspace, written through to the disk, and renamed at the end; ``run.json`` comes last.
"""

from __future__ import annotations

import contextlib
import dataclasses
import html
import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

import wasnow
from wasnow.errors import InputError
from wasnow.output.areas import PixelAreas, TransitionTable
from wasnow.output.record import (
    RECORD_NAME,
    AreaRecord,
    BlockRecord,
    ExecutorRecord,
    FeaturesRecord,
    FileSum,
    GridRecord,
    InputRecord,
    LandcoverRecord,
    ModelRecord,
    PixelRecord,
    PriorsRecord,
    RunRecord,
    ShiftRecord,
    TransitionRecord,
)
from wasnow.pipeline.block import CONFIDENCE_MISSING
from wasnow.pipeline.plan import Plan
from wasnow.raster.grid import Grid
from wasnow.raster.pair import PlacedSource, read_around_damage
from wasnow.raster.radiometry import Stretch
from wasnow.raster.read import RasterReader, RasterSource
from wasnow.raster.survey import Shift
from wasnow.raster.tiles import Window
from wasnow.raster.write import RasterWriter, failures_named, reading_back, sha256, to_cog, writing
from wasnow.storage.journal import Workspace
from wasnow.vocabulary import Vocabulary

if TYPE_CHECKING:
    import pyarrow

CHANGE, CONFIDENCE = "change.tif", "confidence.tif"
GEOPACKAGE, GEOPARQUET = "changes.gpkg", "changes.parquet"
REPORT, ITEM, STYLE, ATTRIBUTES = "report.html", "item.json", "change.qml", "change.tif.aux.xml"
SUMS = "SHA256SUMS"
OUTPUTS = (CONFIDENCE, GEOPACKAGE, GEOPARQUET, ATTRIBUTES, STYLE, CHANGE, REPORT, ITEM, SUMS, RECORD_NAME)
"""Every file that a result folder always has, in the order in which they appear."""

LANDCOVER = ("landcover_before.tif", "landcover_after.tif")
LANDCOVER_OUTPUTS = (*(f"{name}.aux.xml" for name in LANDCOVER), *LANDCOVER)
"""What ``--landcover`` adds; these come before all others."""

CLASS_BANDS = ("landcover_before", "landcover_after")
PICTURE_SIDE = 1200

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Finding:
    """What the record says about a run besides its blocks."""

    plan: Plan
    stretches: tuple[Stretch, Stretch]
    threshold: float
    shift: Shift | None
    fit: dict[str, Any] | None
    inputs: tuple[tuple[FileSum, ...], tuple[FileSum, ...]]
    warnings: tuple[str, ...]
    fingerprint: str
    started: datetime
    command: tuple[str, ...]
    environment: dict[str, str]
    priors: PriorsRecord | None = None
    executor: ExecutorRecord | None = None


def finished(output: Path) -> RunRecord | None:
    """The record of a folder whose results are all there, with the sizes that it names; else None."""
    try:
        record = RunRecord.read(output)
    except InputError:
        return None
    paths = [(output / each.name, each.size) for each in record.outputs]
    whole = all(path.is_file() and path.stat().st_size == size for path, size in paths)
    return record if whole and (output / ITEM).is_file() and (output / SUMS).is_file() else None


def outputs_of(landcover: bool) -> tuple[str, ...]:
    """Every file of a result folder, in the order in which they appear."""
    return (*LANDCOVER_OUTPUTS, *OUTPUTS) if landcover else OUTPUTS


def remove(output: Path) -> None:
    """Delete the results of an earlier run, and nothing else."""
    for name in reversed((*LANDCOVER_OUTPUTS, *OUTPUTS)):
        (output / name).unlink(missing_ok=True)


def assemble(found: Finding, space: Workspace, tell: Progress, timings: dict[str, float]) -> RunRecord:
    """Make every file of the result folder from the finished blocks.

    Raises:
        DiskFull, OutputError: something cannot be written; the blocks stay, and a resume goes on from them.
    """
    from wasnow.output.report.html import write_report
    from wasnow.output.report.stac import write_item
    from wasnow.output.report.style import write_landcover_styles, write_styles
    from wasnow.output.vector import polygonize, write_polygons

    plan, vocabulary, options = found.plan, found.plan.vocabulary, found.plan.options
    outputs = outputs_of(options.landcover)
    steps = iter(range(7))
    at = time.perf_counter()

    def step(phase: str | None = None) -> None:
        nonlocal at
        now = time.perf_counter()
        if phase is not None:
            timings[phase] = now - at
        at = now
        tell("results", next(steps), 6)

    step()
    counts = _gather(plan, space)
    step("gather")
    with ThreadPoolExecutor(1, thread_name_prefix="wasnow-results") as beside:
        # GDAL compresses and thins on one core: the other rasters and the pictures go on beside the change map.
        others = beside.submit(_finish, space, [CONFIDENCE, *(LANDCOVER if options.landcover else ())])
        pictures = beside.submit(_pictures, plan)
        _finish(space, [CHANGE])
        others.result()
    step("cog")
    _check_rasters(plan, space)
    step("read back")
    in_metres = plan.result.gsd_m is not None
    batches = polygonize(
        space.finals / CHANGE,
        space.finals / CONFIDENCE,
        vocabulary,
        min_area_m2=options.min_area if in_metres else 0.0,
        min_pixels=1 if in_metres else max(1, math.ceil(options.min_area)),
        connectivity=8 if options.connectivity == 8 else 4,
        simplify_m=options.simplify,
    )
    polygons = write_polygons(
        batches,
        gpkg=space.finals / GEOPACKAGE,
        parquet=space.finals / GEOPARQUET,
        crs=plan.result.crs,
        vocabulary=vocabulary,
        dates=plan.dates,
    )
    _check_polygons(space.finals, sum(polygons.values()))
    step("polygons")
    record = _record(found, space, counts, polygons, timings)
    with failures_named(space.finals / ATTRIBUTES):
        write_styles(space.finals, record)
        if options.landcover:
            write_landcover_styles(space.finals, record)
    (before, before_valid), (after, after_valid) = pictures.result()
    with failures_named(space.finals / REPORT):
        write_report(space.finals, record, before, after, before_valid=before_valid, after_valid=after_valid)
    step("report")
    made = [name for name in outputs if name not in (ITEM, SUMS, RECORD_NAME)]
    record = record.model_copy(
        update={
            "timings_s": _rounded(timings),
            "finished": _now(),
            "outputs": tuple(_sum(space.finals / name) for name in made),
        }
    )
    with failures_named(space.finals / RECORD_NAME):
        record.write(space.finals / RECORD_NAME)
        write_item(space.finals, record)
        _write_sums(space.finals, record)
        # A folder that is being replaced must not describe results that are no longer there.
        (space.output / RECORD_NAME).unlink(missing_ok=True)
    space.publish(list(outputs))
    step()
    return record


@dataclass(frozen=True)
class _Counts:
    """Pixels and areas of every code.

    Attributes:
        transitions: of the transition band.
        landcover: of the two unmasked class maps; None where there are none. A class code fits a table of transitions.
    """

    transitions: TransitionTable
    landcover: tuple[TransitionTable, TransitionTable] | None


def _raw(name: str) -> str:
    return f"{name.removesuffix('.tif')}.raw.tif"


def _gather(plan: Plan, space: Workspace) -> _Counts:
    """All rasters, uncompressed, from the blocks; counts codes on the way."""
    grid, vocabulary = plan.result, plan.vocabulary
    areas = PixelAreas.of(grid.crs, grid.transform, grid.width, grid.height) if grid.georeferenced else None
    table = TransitionTable(vocabulary)
    cover = (TransitionTable(vocabulary), TransitionTable(vocabulary)) if plan.options.landcover else None
    confidence_bands: tuple[str, ...] = ("change_probability",)
    if len(vocabulary):
        confidence_bands += ("before_class_probability", "after_class_probability")
    tags = {"TIFFTAG_SOFTWARE": f"wasnow {wasnow.__version__}", "wasnow_model": plan.card.name}
    missing = vocabulary.not_processed
    with ExitStack() as stack:

        def codes(name: str, *bands: str) -> RasterWriter:
            path = space.finals / _raw(name)
            made = writing(path, grid, dtype=vocabulary.dtype, nodata=missing, bands=bands, tags=tags)
            return stack.enter_context(made)

        change = codes(CHANGE, "before_class", "after_class", "transition")
        confidence = stack.enter_context(
            writing(
                space.finals / _raw(CONFIDENCE),
                grid,
                dtype=np.uint8,
                nodata=CONFIDENCE_MISSING,
                bands=confidence_bands,
                tags={**tags, "scale": "probability = value / 254"},
            )
        )
        maps = [codes(name, band) for name, band in zip(LANDCOVER, CLASS_BANDS, strict=True)] if cover else []
        for window, arrays in _blocks(plan, space):
            change.write(window, arrays["codes"])
            confidence.write(window, arrays["confidence"])
            here = areas.window(window.row, window.col, window.height, window.width) if areas is not None else None
            table.add(arrays["codes"][2], here)
            for date, counted in enumerate(cover or ()):
                maps[date].write(window, arrays["landcover"][date : date + 1])
                counted.add(arrays["landcover"][date], here)
    return _Counts(table, cover)


def _blocks(plan: Plan, space: Workspace) -> Iterator[tuple[Window, dict[str, NDArray[Any]]]]:
    """The place and the arrays of every finished block, also of those where there was nothing to compare."""
    vocabulary = plan.vocabulary
    for index in range(len(plan.tiling)):
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


def _finish(space: Workspace, names: Sequence[str]) -> None:
    """Cloud-optimized rasters from the raw ones, which are deleted."""
    for name in names:
        probability = name == CONFIDENCE
        raw = space.finals / _raw(name)
        to_cog(raw, space.finals / name, overviews="average" if probability else "mode", predictor=probability)
        raw.unlink()


def _check_rasters(plan: Plan, space: Workspace) -> None:
    """Compare every pixel of the finished rasters with the blocks that it came from; each block is loaded once.

    Raises:
        OutputError, DiskFull: a raster holds something else, or cannot be read.
    """
    with ExitStack() as stack:
        change, confidence, *maps = (
            stack.enter_context(reading_back(space.finals / name))
            for name in (CHANGE, CONFIDENCE, *(LANDCOVER if plan.options.landcover else ()))
        )
        for window, arrays in _blocks(plan, space):
            change(window, arrays["codes"])
            confidence(window, arrays["confidence"])
            for date, check in enumerate(maps):
                check(window, arrays["landcover"][date : date + 1])


def _check_polygons(folder: Path, polygons: int) -> None:
    """Count the polygons that are in both files: what a library holds back until it closes a file can still be lost.

    Raises:
        OutputError, DiskFull: it is another number.
    """
    import pyarrow.parquet

    from wasnow.output.vector.files import LAYER

    with failures_named(folder / GEOPACKAGE):
        try:
            with contextlib.closing(sqlite3.connect(folder / GEOPACKAGE)) as base:
                told = base.execute("PRAGMA integrity_check(1)").fetchone()[0]
                tables = (LAYER, f"rtree_{LAYER}_geom")
                counts = {int(base.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]) for name in tables}
                # What GDAL believes without counting.
                counts |= {int(row[0]) for row in base.execute("SELECT feature_count FROM gpkg_ogr_contents")}
                (extent,) = base.execute("SELECT max_x FROM gpkg_contents WHERE table_name = ?", (LAYER,)).fetchone()
        except (sqlite3.Error, TypeError) as error:
            raise OSError(f"it reads back damaged: {error}") from None
        if told != "ok" or counts != {polygons} or (extent is None) != (polygons == 0):
            raise OSError(f"it reads back otherwise than it was written: {told}, {min(counts)} polygons of {polygons}")
    with failures_named(folder / GEOPARQUET):
        found = pyarrow.parquet.read_metadata(folder / GEOPARQUET).num_rows
        if found != polygons:
            raise OSError(f"it reads back otherwise than it was written: {found} polygons of {polygons}")


# --- the record -------------------------------------------------------------------------------------------------


def _record(
    found: Finding, space: Workspace, counts: _Counts, polygons: dict[int, int], timings: dict[str, float]
) -> RunRecord:
    plan, vocabulary, table = found.plan, found.plan.vocabulary, counts.transitions
    blocks = tuple(space.done[index] for index in range(len(plan.tiling)))
    status: Literal["complete", "partial"] = "partial" if any(b.outcome == "failed" for b in blocks) else "complete"
    in_metres = PixelAreas.of(plan.result.crs, plan.result.transform, 1, 1) is not None
    transitions = tuple(
        TransitionRecord(
            code=code,
            before=vocabulary.transition(code).before,
            after=vocabulary.transition(code).after,
            color=vocabulary.transition(code).color,
            pixels=int(table.pixels[code]),
            area_m2=float(table.area_m2[code]) if in_metres else None,
            polygons=polygons.get(code, 0),
        )
        for code in table.occurring
    )
    changed_m2 = float(table.area_m2[1:].sum())
    unchanged_m2 = float(table.area_m2[0])
    areas = AreaRecord(
        total=changed_m2 + unchanged_m2 + table.not_processed_m2,
        changed=changed_m2,
        unchanged=unchanged_m2,
        not_processed=table.not_processed_m2,
    )
    card = plan.card
    return RunRecord(
        wasnow=wasnow.__version__,
        status=status,
        started=found.started.isoformat(timespec="seconds"),
        finished=_now(),
        command=found.command,
        environment=found.environment,
        before=_input(plan.pair.before, found.inputs[0], plan.dates[0], found.stretches[0], card.scaling),
        after=_input(plan.pair.after, found.inputs[1], plan.dates[1], found.stretches[1], card.scaling),
        grid=_grid(plan.result),
        working_grid=_grid(plan.pair.working),
        options={
            **dataclasses.asdict(plan.options),
            "classes": list(plan.words),
            "class_thresholds": dict(plan.class_thresholds),
            "tile": plan.tiling.tile,
            "margin": plan.tiling.margin,
        },
        model=ModelRecord(
            name=card.name,
            summary=card.summary,
            source=card.source,
            fingerprint=found.fingerprint,
            classes=card.classes,
            threshold=found.threshold,
            threshold_from=_threshold_from(plan),
            class_thresholds=dict(plan.class_thresholds),
            calibration=plan.calibration,
            about=plan.about,
            gsd_range_m=card.gsd_range_m,
            other_words=plan.other_words,
            fit=found.fit,
        ),
        shift=ShiftRecord(**dataclasses.asdict(found.shift)) if found.shift is not None else None,
        transitions=transitions,
        pixels=PixelRecord(
            total=plan.result.width * plan.result.height,
            changed=int(table.pixels[1:].sum()),
            unchanged=int(table.pixels[0]),
            not_processed=_reasons(blocks),
        ),
        areas_m2=areas if in_metres else None,
        polygons=sum(polygons.values()),
        blocks=blocks,
        landcover=_landcover(*counts.landcover, vocabulary, in_metres) if counts.landcover else (),
        features=_features(plan, blocks),
        priors=found.priors,
        executor=found.executor,
        warnings=found.warnings,
        timings_s=_rounded(timings),
        outputs=tuple(
            _sum(space.finals / name)
            for name in (*(LANDCOVER if counts.landcover else ()), CONFIDENCE, GEOPACKAGE, GEOPARQUET, CHANGE)
        ),
    )


def _threshold_from(plan: Plan) -> str:
    if plan.threshold is not None:
        return "option"
    return "model default, calibrated" if plan.calibration is not None else "model default"


def _landcover(
    before: TransitionTable, after: TransitionTable, vocabulary: Vocabulary, in_metres: bool
) -> tuple[LandcoverRecord, ...]:
    return tuple(
        LandcoverRecord(
            code=code,
            word=word,
            color=vocabulary.color(code),
            pixels=(int(before.pixels[code]), int(after.pixels[code])),
            area_m2=(float(before.area_m2[code]), float(after.area_m2[code])) if in_metres else None,
        )
        for code, word in enumerate(vocabulary.words, start=1)
    )


def _features(plan: Plan, blocks: tuple[BlockRecord, ...]) -> FeaturesRecord | None:
    if plan.options.keep_features is None:
        return None
    return FeaturesRecord(
        folder=str(plan.options.keep_features),
        limit_gb=plan.options.features_limit,
        tiles_reused=sum(block.tiles_reused for block in blocks),
        tiles_encoded=sum(block.tiles_encoded for block in blocks),
    )


def _reasons(blocks: tuple[BlockRecord, ...]) -> dict[str, int]:
    total: dict[str, int] = {}
    for block in blocks:
        for reason, pixels in block.not_processed.items():
            total[reason] = total.get(reason, 0) + pixels
    return total


def _grid(grid: Grid) -> GridRecord:
    t = grid.transform
    return GridRecord(
        crs=grid.crs_name,
        transform=(t.a, t.b, t.c, t.d, t.e, t.f),
        width=grid.width,
        height=grid.height,
        gsd_m=grid.gsd_m,
    )


def _input(
    placed: PlacedSource, files: tuple[FileSum, ...], date: str | None, stretch: Stretch, scaling: str
) -> InputRecord:
    source = placed.source
    return InputRecord(
        path=source.path,
        files=files,
        driver=source.driver,
        grid=_grid(source.grid),
        dtype=source.dtype,
        bands=source.bands,
        band_names=source.band_names,
        nodata=source.nodata,
        mask=source.mask,
        date=date,
        alignment=placed.placement.describe(),
        overview=source.overview,
        stretch=stretch.pairs() if scaling == "display" else None,
    )


def _sum(path: Path) -> FileSum:
    return FileSum(name=path.name, size=path.stat().st_size, sha256=sha256(path))


def _write_sums(folder: Path, record: RunRecord) -> None:
    """``SHA256SUMS`` of every other file, as ``sha256sum`` writes and reads it."""
    files = (*record.outputs, *(_sum(folder / name) for name in (ITEM, RECORD_NAME)))
    lines = [f"{each.sha256}  {each.name}\n" for each in sorted(files, key=lambda each: each.name)]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8", newline="\n")


def _rounded(timings: dict[str, float]) -> dict[str, float]:
    return {phase: round(seconds, 3) for phase, seconds in timings.items()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# --- pictures ---------------------------------------------------------------------------------------------------


Picture = tuple[NDArray[np.uint8], NDArray[np.bool_]]
"""``(h, w, 3)`` for the eye, and ``(h, w)`` validity."""


def _pictures(plan: Plan) -> tuple[Picture, Picture]:
    """Both dates over the extent of the result."""
    return picture(plan.pair.before.source, plan.result), picture(plan.pair.after.source, plan.result)


def picture(source: RasterSource, grid: Grid, side: int = PICTURE_SIDE) -> Picture:
    """A small picture of one date over the extent of a grid.

    Returns:
        ``(h, w, 3)`` uint8 stretched for the eye, and ``(h, w)`` validity; no side longer than ``side``.
    """
    small = grid.scaled(max(1.0, max(grid.shape) / side))
    full = PlacedSource.of(source, small)
    # Thinned beyond what is needed and enlarged again: plain interpolation is several times faster than shrinking.
    thinned = full.source.thinned(math.ceil(full.placement.scale - 0.01))
    placed = PlacedSource(thinned, PlacedSource.of(thinned, small).placement)
    with RasterReader(placed.source) as reader:
        values, _, _ = read_around_damage(reader, placed.placement, Window(0, 0, *small.shape))
    values = values[list(_shown_bands(source))]
    valid = np.asarray(np.isfinite(values).all(axis=0))
    stretch = Stretch.of_samples(values[:, valid].T, as_it_is=source.is_display_rgb)
    shown = np.where(valid, stretch.apply(values), 0)
    return np.moveaxis(np.rint(shown * 255).astype(np.uint8), 0, -1), valid


def _shown_bands(source: RasterSource) -> tuple[int, int, int]:
    """Positions of the bands that a person sees as red, green, blue."""
    names = [name.casefold() for name in source.band_names]
    if all(color in names for color in ("red", "green", "blue")):
        return names.index("red"), names.index("green"), names.index("blue")
    return (0, 1, 2) if source.n_bands >= 3 else (0, 0, 0)


# --- the folder as an object ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChangeMap:
    """A finished result folder: where its files are and what they say. In a notebook it shows itself.

    Attributes:
        folder: the result folder.
        record: everything that run.json says.
        reused: the folder held this very run already, and nothing was computed.
    """

    folder: Path
    record: RunRecord
    reused: bool = False

    @classmethod
    def open(cls, folder: str | Path) -> ChangeMap:
        """A result folder made earlier.

        Raises:
            InputError: it is none.
        """
        return cls(Path(folder), RunRecord.read(Path(folder)))

    @property
    def change(self) -> Path:
        """Raster of before_class, after_class, transition."""
        return self.folder / CHANGE

    @property
    def confidence(self) -> Path:
        """Raster of probabilities x 254."""
        return self.folder / CONFIDENCE

    @property
    def landcover(self) -> tuple[Path, Path] | None:
        """Rasters of the classes before and after, changed or not; None for a run without ``landcover``."""
        if not self.record.landcover:
            return None
        return self.folder / LANDCOVER[0], self.folder / LANDCOVER[1]

    @property
    def geopackage(self) -> Path:
        """Polygons for GIS."""
        return self.folder / GEOPACKAGE

    @property
    def geoparquet(self) -> Path:
        """Polygons for data frames."""
        return self.folder / GEOPARQUET

    @property
    def report(self) -> Path:
        """The page to read."""
        return self.folder / REPORT

    @property
    def item(self) -> Path:
        """STAC item."""
        return self.folder / ITEM

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The class words of the run."""
        return Vocabulary(self.record.model.classes)

    @property
    def complete(self) -> bool:
        """Whether nothing had to be flagged as unreadable."""
        return self.record.status == "complete"

    @property
    def changed_share(self) -> float:
        """Changed pixels over processed pixels, 0..1; NaN where nothing was processed."""
        pixels = self.record.pixels
        processed = pixels.changed + pixels.unchanged
        return pixels.changed / processed if processed else math.nan

    @property
    def changed_area_m2(self) -> float | None:
        """Square metres on the ellipsoid; None without georeference."""
        return self.record.areas_m2.changed if self.record.areas_m2 is not None else None

    def polygons(self) -> pyarrow.Table:
        """The polygons as an Arrow table (``geometry`` is WKB); ``geopandas.read_parquet`` reads the file itself."""
        import pyarrow.parquet

        return pyarrow.parquet.read_table(self.geoparquet)

    def summary(self) -> str:
        """One line: what changed and what could not be told."""
        pixels = self.record.pixels
        area = self.changed_area_m2
        amount = f"{pixels.changed:,} px" if area is None else f"{area / 1e4:,.2f} ha"
        share = f" ({self.changed_share:.2%} of what was compared)" if not math.isnan(self.changed_share) else ""
        missing = sum(pixels.not_processed.values())
        rest = f"; {missing / pixels.total:.1%} not processed" if missing else ""
        return f"{amount} changed{share} in {self.record.polygons:,} polygons{rest}"

    def __repr__(self) -> str:
        return f"ChangeMap({str(self.folder)!r}: {self.summary()})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td style='background:rgb{row.color};width:1em'></td>"
            f"<td>{html.escape(row.before + ' → ' if row.before else '')}{html.escape(row.after)}</td>"
            f"<td style='text-align:right'>{row.pixels:,} px</td>"
            f"<td style='text-align:right'>{'' if row.area_m2 is None else f'{row.area_m2 / 1e4:,.2f} ha'}</td></tr>"
            for row in sorted(self.record.transitions, key=lambda row: -row.pixels)[:12]
        )
        files = " · ".join(
            f"<a href='{html.escape((self.folder / name).as_posix())}'>{name}</a>"
            for name in (REPORT, CHANGE, CONFIDENCE, GEOPACKAGE, GEOPARQUET)
        )
        return f"<div><b>{html.escape(self.summary())}</b><table>{rows}</table>{files}</div>"
