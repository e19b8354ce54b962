"""Scale bar, map of the blocks and convergence curves of a report, as plain values for the template."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wasnow.output.record import GridRecord
from wasnow.output.report.ground import GroundGeometry
from wasnow.storage.journal import BlockRecord


@dataclass(frozen=True, slots=True)
class Curve:
    """A series over iterations, as an SVG path in a box of 240 x 48."""

    name: str
    path: str
    first: str
    last: str
    steps: int


@dataclass(frozen=True, slots=True)
class ScaleBar:
    """A round length, and its share of the width of the picture in per cent."""

    label: str
    percent: float


def scale_bar(grid: GridRecord, ground: GroundGeometry | None) -> ScaleBar | None:
    """Return the largest of 1, 2, 5 x 10^n metres that takes at most a quarter of the width of the picture."""
    col_m = ground.col_m if ground is not None else grid.gsd_m
    if not col_m:
        return None
    width_m = col_m * grid.width
    power = 10.0 ** math.floor(math.log10(width_m / 4))
    length = max(step * power for step in (1, 2, 5) if step * power <= width_m / 4 * (1 + 1e-9))
    label = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m" if length >= 1 else f"{length * 100:g} cm"
    return ScaleBar(label, round(100 * length / width_m, 3))


def block_paths(blocks: Sequence[BlockRecord]) -> dict[str, str]:
    """Return an SVG path of the blocks of each outcome, in pixel coordinates; neighbours in a row are merged."""
    paths: dict[str, list[str]] = {"done": [], "empty": [], "failed": []}
    run: tuple[str, int, int, int, int] | None = None
    for block in [*sorted(blocks, key=lambda block: (block.row, block.col)), None]:
        if (
            block is not None
            and run is not None
            and (block.outcome, block.row, block.height) == (run[0], run[1], run[3])
            and block.col == run[2] + run[4]
        ):
            run = (*run[:4], run[4] + block.width)
            continue
        if run is not None:
            outcome, row, col, height, width = run
            paths[outcome].append(f"M{col} {row}h{width}v{height}h-{width}z")
        run = None if block is None else (block.outcome, block.row, block.col, block.height, block.width)
    return {outcome: "".join(pieces) for outcome, pieces in paths.items()}


def curves(fit: Mapping[str, Any]) -> list[Curve]:
    """Return every series over iterations in the diagnostics of a model: numbers, vectors, or records per iteration.

    A plain list of numbers counts as a series only if its name says so (iteration, history, trace, delta, steps);
    other lists usually have one number per band.
    """
    found: list[tuple[str, list[float]]] = []
    for key, value in fit.items():
        if not isinstance(value, list) or len(value) < 2:
            continue
        if all(_is_number(item) for item in value):
            if re.search(r"iter|hist|trace|converg|delta|per_step|steps", key):
                found.append((key, [float(item) for item in value]))
        elif all(isinstance(item, Mapping) for item in value):
            for name in value[0]:
                found += _columns(f"{key}.{name}", [item.get(name) for item in value])
        else:
            found += _columns(key, value)
    return [_curve(name, series) for name, series in found]


def _columns(name: str, rows: Sequence[Any]) -> list[tuple[str, list[float]]]:
    """Return one series per column of rows that are numbers or vectors of equal length; [] for other rows."""
    if all(_is_number(row) for row in rows):
        return [(name, [float(row) for row in rows])]
    if all(isinstance(row, list) and len(row) == len(rows[0]) and all(map(_is_number, row)) for row in rows):
        return [(f"{name} {i + 1}", [float(row[i]) for row in rows]) for i in range(len(rows[0]))]
    return []


def _curve(name: str, series: Sequence[float]) -> Curve:
    low, high = min(series), max(series)
    span = high - low or 1.0
    across = 236 / (len(series) - 1)
    points = [f"{2 + i * across:.1f},{44 - (value - low) / span * 40:.1f}" for i, value in enumerate(series)]
    return Curve(name, "M" + "L".join(points), f"{series[0]:.4g}", f"{series[-1]:.4g}", len(series))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
