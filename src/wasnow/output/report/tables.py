"""The tables of a report: key figures, legend, matrix of transitions, land cover, pixels that were not processed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from wasnow.output.record import RunRecord, TransitionRecord
from wasnow.output.report.numbers import PIXELS, Unit, css_color, percent, thousands, unit_for
from wasnow.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class MatrixCell:
    """One cell of the matrix of transitions; ``intensity`` 0..1 is the square root of its share of the largest."""

    text: str
    intensity: float
    title: str


@dataclass(frozen=True, slots=True)
class Matrix:
    """The matrix of transitions of the classes that occur, in the order of the vocabulary, with its sums."""

    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, str, tuple[MatrixCell | None, ...], str], ...]
    column_sums: tuple[str, ...]
    total: str
    left_out: int


@dataclass(frozen=True, slots=True)
class CoverRow:
    """One class of the land cover table: its area before and after, and the difference."""

    word: str
    color: str
    before: str
    after: str
    difference: str


def matrix(record: RunRecord, unit: Unit) -> Matrix | None:
    """Return the matrix: a row per class before, a column per class after; None without classes or change."""
    if not record.model.classes or not record.transitions:
        return None
    vocabulary = Vocabulary(record.model.classes)
    cells = {(row.before, row.after): row for row in record.transitions}
    befores = [word for word in vocabulary.words if any(key[0] == word for key in cells)]
    afters = [word for word in vocabulary.words if any(key[1] == word for key in cells)]
    colors = {word: css_color(vocabulary.color(code)) for code, word in enumerate(vocabulary.words, start=1)}
    largest = max(_amount(row, unit) for row in record.transitions) or 1.0

    def total(rows: Iterable[TransitionRecord]) -> str:
        return unit.text(sum(_amount(row, unit) for row in rows))

    def cell(before: str, after: str) -> MatrixCell | None:
        row = cells.get((before, after))
        if row is None:
            return None
        amount = _amount(row, unit)
        title = f"{before} to {after}: {unit.text(amount)} {unit.name}, {row.pixels} pixels"
        return MatrixCell(unit.text(amount), round(math.sqrt(amount / largest), 3), title)

    return Matrix(
        columns=tuple((word, colors[word]) for word in afters),
        rows=tuple(
            (
                word,
                colors[word],
                tuple(cell(word, after) for after in afters),
                total(row for row in record.transitions if row.before == word),
            )
            for word in befores
        ),
        column_sums=tuple(total(row for row in record.transitions if row.after == word) for word in afters),
        total=total(record.transitions),
        left_out=sum(word not in befores and word not in afters for word in vocabulary.words),
    )


def cover_rows(record: RunRecord) -> list[CoverRow]:
    """Return the classes that occur in the unmasked class maps, in the order of the vocabulary; [] without maps."""
    amounts = [row.area_m2 if row.area_m2 is not None else row.pixels for row in record.landcover]
    unit = unit_for(max(map(max, amounts), default=0.0) if record.areas_m2 is not None else None)

    def text(value: float) -> str:
        return f"{unit.text(value)} {unit.name}"

    return [
        CoverRow(
            row.word,
            css_color(row.color),
            text(before),
            text(after),
            "±0" if after == before else f"{'+' if after > before else '−'}{text(abs(after - before))}",
        )
        for row, (before, after) in zip(record.landcover, amounts, strict=True)
        if before or after
    ]


def _pixels(row: TransitionRecord) -> int:
    return row.pixels


def _amount(row: TransitionRecord, unit: Unit) -> float:
    return float(row.pixels) if unit is PIXELS or row.area_m2 is None else row.area_m2


def legend_row(row: TransitionRecord, record: RunRecord, unit: Unit) -> dict[str, Any]:
    """Return one entry of the legend as values for the template.

    Args:
        row: the transition.
        record: the record of the run.
        unit: of the area.
    """
    share = row.pixels / record.pixels.changed if record.pixels.changed else 0.0
    return {
        "before": row.before,
        "after": row.after,
        "color": css_color(row.color),
        "amount": f"{unit.text(_amount(row, unit))} {unit.name}",
        "share": percent(share),
        "polygons": row.polygons,
    }


def key_figures(record: RunRecord, unit: Unit) -> list[tuple[str, str, str]]:
    """Return the key figures: name, value, explanation."""
    pixels, areas = record.pixels, record.areas_m2
    skipped = sum(pixels.not_processed.values())
    compared = pixels.changed + pixels.unchanged
    changed = f"{unit.text(pixels.changed if areas is None else areas.changed)} {unit.name}"
    whole = unit_for(None if areas is None else areas.total)
    total = f"{whole.text(pixels.total if areas is None else areas.total)} {whole.name}"
    kinds = len(record.transitions)
    return [
        ("Changed", changed, thousands(f"{pixels.changed:,} pixels") if areas else f"of {total}"),
        (
            "Share of compared area",
            percent(pixels.changed / compared) if compared else "nothing compared",
            f"scene of {total}",
        ),
        ("Polygons", thousands(f"{record.polygons:,}"), f"{kinds} kind{'' if kinds == 1 else 's'} of transition"),
        ("Not processed", percent(skipped / pixels.total), thousands(f"{skipped:,} pixels")),
    ]


def not_processed_rows(record: RunRecord) -> list[tuple[str, int, str, str]]:
    """Return reason, pixels, area (in proportion to the pixels) and share of the scene, in falling order."""
    reasons = sorted(record.pixels.not_processed.items(), key=lambda item: -item[1])
    skipped = sum(count for _, count in reasons) or 1
    about = "≈ " if len(reasons) > 1 else ""
    area = None if record.areas_m2 is None else record.areas_m2.not_processed
    unit = unit_for(area)
    return [
        (
            reason.replace("_", " "),
            count,
            "" if area is None else f"{about}{unit.text(area * count / skipped)} {unit.name}",
            percent(count / record.pixels.total if record.pixels.total else 0.0),
        )
        for reason, count in reasons
        if count
    ]


def timing_rows(timings: Mapping[str, float]) -> list[tuple[str, str, float]]:
    """Return phase, seconds, and per cent of the longest phase."""
    longest = max(timings.values(), default=0.0) or 1.0
    return [
        (name.replace("_", " "), f"{seconds:.1f} s", round(100 * seconds / longest, 1))
        for name, seconds in timings.items()
    ]
