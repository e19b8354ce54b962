"""Build the record (``run.json``) of a run from its facts, its blocks and the counted pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import wasnow
from wasnow.errors import redacted
from wasnow.output.areas import PixelAreas, TransitionTable
from wasnow.output.facts import RunFacts
from wasnow.output.record import (
    AreaRecord,
    FeaturesRecord,
    FileSum,
    GridRecord,
    InputRecord,
    LandcoverRecord,
    PixelRecord,
    RunRecord,
    ShiftRecord,
    TransitionRecord,
)
from wasnow.raster.grid import Grid
from wasnow.raster.pair import PlacedSource
from wasnow.raster.radiometry import Stretch
from wasnow.storage.hashing import file_sha256
from wasnow.storage.journal import BlockRecord
from wasnow.vocabulary import Vocabulary


@dataclass(frozen=True)
class CodeCounts:
    """Pixels and areas by code.

    Attributes:
        transitions: by transition code.
        landcover: by class code, of the unmasked class maps of both dates; None without such maps.
    """

    transitions: TransitionTable
    landcover: tuple[TransitionTable, TransitionTable] | None


def build_record(
    facts: RunFacts,
    blocks: Sequence[BlockRecord],
    counts: CodeCounts,
    polygons: Mapping[int, int],
    timings: Mapping[str, float],
    outputs: Sequence[FileSum],
) -> RunRecord:
    """Return the record of a run.

    Args:
        facts: what the pipeline says about the run.
        blocks: the outcome of every block, in order.
        counts: pixels and areas by code.
        polygons: number of polygons by transition code.
        timings: seconds by phase.
        outputs: the files written so far.
    """
    vocabulary, table, result = facts.vocabulary, counts.transitions, facts.result
    status: Literal["complete", "partial"] = "partial" if any(b.outcome == "failed" for b in blocks) else "complete"
    in_metres = PixelAreas.of(result.crs, result.transform, 1, 1) is not None
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
    return RunRecord(
        wasnow=wasnow.__version__,
        status=status,
        started=facts.started.isoformat(timespec="seconds"),
        finished=utc_now(),
        command=tuple(map(redacted, facts.command)),
        environment=dict(facts.environment),
        before=_input_record(facts.pair.before, facts.inputs[0], facts.dates[0], facts.stretches[0]),
        after=_input_record(facts.pair.after, facts.inputs[1], facts.dates[1], facts.stretches[1]),
        grid=_grid_record(result),
        working_grid=_grid_record(facts.pair.working),
        options={name: _redacted_value(value) for name, value in facts.options.items()},
        model=facts.model,
        shift=ShiftRecord(**dataclasses.asdict(facts.shift)) if facts.shift is not None else None,
        transitions=transitions,
        pixels=PixelRecord(
            total=result.width * result.height,
            changed=int(table.pixels[1:].sum()),
            unchanged=int(table.pixels[0]),
            not_processed=_pixels_by_reason(blocks),
        ),
        areas_m2=areas if in_metres else None,
        polygons=sum(polygons.values()),
        blocks=tuple(blocks),
        landcover=_landcover_records(*counts.landcover, vocabulary, in_metres) if counts.landcover else (),
        features=_features_record(facts.feature_cache, blocks),
        priors=facts.priors,
        executor=facts.executor,
        warnings=tuple(map(redacted, facts.warnings)),
        timings_s=rounded_timings(timings),
        outputs=tuple(outputs),
    )


def _redacted_value(value: Any) -> Any:
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, list | tuple):
        return type(value)(map(_redacted_value, value))
    return value


def file_sum(path: Path) -> FileSum:
    """Return name, size and SHA-256 of a file."""
    return FileSum(name=path.name, size=path.stat().st_size, sha256=file_sha256(path))


def rounded_timings(timings: Mapping[str, float]) -> dict[str, float]:
    """Return seconds by phase, rounded to milliseconds."""
    return {phase: round(seconds, 3) for phase, seconds in timings.items()}


def utc_now() -> str:
    """Return the current time in UTC as ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _landcover_records(
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


def _features_record(cache: tuple[str, float] | None, blocks: Sequence[BlockRecord]) -> FeaturesRecord | None:
    if cache is None:
        return None
    return FeaturesRecord(
        folder=cache[0],
        limit_gb=cache[1],
        tiles_reused=sum(block.tiles_reused for block in blocks),
        tiles_encoded=sum(block.tiles_encoded for block in blocks),
    )


def _pixels_by_reason(blocks: Sequence[BlockRecord]) -> dict[str, int]:
    total: dict[str, int] = {}
    for block in blocks:
        for reason, pixels in block.not_processed.items():
            total[reason] = total.get(reason, 0) + pixels
    return total


def _grid_record(grid: Grid) -> GridRecord:
    t = grid.transform
    return GridRecord(
        crs=grid.crs_name,
        transform=(t.a, t.b, t.c, t.d, t.e, t.f),
        width=grid.width,
        height=grid.height,
        gsd_m=grid.gsd_m,
    )


def _input_record(
    placed: PlacedSource, files: tuple[FileSum, ...], date: str | None, stretch: Stretch | None
) -> InputRecord:
    source = placed.source
    return InputRecord(
        path=redacted(source.path),
        files=files,
        driver=source.driver,
        grid=_grid_record(source.grid),
        dtype=source.dtype,
        bands=source.bands,
        band_names=source.band_names,
        nodata=source.nodata,
        mask=source.mask,
        date=date,
        date_doubt=source.date_doubt if date == source.date else None,
        alignment=placed.placement.describe(),
        overview=source.overview,
        stretch=stretch.pairs() if stretch is not None else None,
    )
