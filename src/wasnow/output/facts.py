"""What the pipeline tells the writer about a run besides its blocks, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from wasnow.output.record import ExecutorRecord, FileSum, ModelRecord, PriorsRecord
from wasnow.raster.grid import Grid
from wasnow.raster.pair import Pair
from wasnow.raster.radiometry import Stretch
from wasnow.raster.survey import Shift
from wasnow.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class OutlineOptions:
    """How polygons are made of changed pixels.

    Attributes:
        min_area: of the smallest polygon, in square metres (pixels without a CRS).
        connectivity: 4, or 8: pixels that touch at a corner belong to one polygon.
        simplify: tolerance in metres (pixels without a CRS); None keeps the edges of the pixels.
    """

    min_area: float = 0.0
    connectivity: int = 4
    simplify: float | None = None


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """Inputs, options, model and environment of a run.

    Attributes:
        vocabulary: the class words of the run.
        pair: both rasters, placed on the working grid.
        result: the grid of the result rasters.
        dates: of both rasters; None where unknown.
        blocks: number of blocks.
        landcover: whether the blocks also hold the class maps of both dates.
        outlines: how polygons are made.
        model: its entry in the record.
        options: as they are recorded, JSON values by name.
        feature_cache: folder and limit in GB of the cached image features; None where none are kept.
        stretches: display stretch of each date; None for a model that takes native values.
        shift: estimated displacement between the dates.
        inputs: the files of each date with their checksums.
        warnings: sentences for the user.
        started: when the command started.
        command: as the user typed it; empty for a call from Python.
        environment: versions and machine.
        priors: the prior masks, for a model that takes them.
        executor: which processes computed the blocks.
    """

    vocabulary: Vocabulary
    pair: Pair
    result: Grid
    dates: tuple[str | None, str | None]
    blocks: int
    landcover: bool
    outlines: OutlineOptions
    model: ModelRecord
    options: Mapping[str, Any]
    feature_cache: tuple[str, float] | None
    stretches: tuple[Stretch | None, Stretch | None]
    shift: Shift | None
    inputs: tuple[tuple[FileSum, ...], tuple[FileSum, ...]]
    warnings: tuple[str, ...]
    started: datetime
    command: tuple[str, ...]
    environment: Mapping[str, str]
    priors: PriorsRecord | None = None
    executor: ExecutorRecord | None = None
