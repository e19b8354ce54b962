"""The table: values from results, and the same values as JSON, CSV and LaTeX.

    result.json, cost.json of every trial ─> TableRow(values by column) ─┬─> table.json   everything
                                                                         ├─> table.csv    a row per method, fractions
                                                                         └─> table.tex    booktabs, per cent

A value is the mean over seeds. ``low`` and ``high`` are bounds over pairs (bootstrap; the mean of the bounds of the
seeds): the uncertainty of the test set. ``least`` and ``most`` are the range over seeds: the effect of random weights.
Undefined or missing values are None, never 0. No torch, no files.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from wasnow.benchmark.plan import Row
from wasnow.benchmark.published import PublishedTable
from wasnow.evaluation.metrics import Difference

Status = Literal["finished", "failed", "not run"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of numbers.

    Attributes:
        key: name in JSON and CSV; scores as in `wasnow.evaluation.metrics.Scores.headline`.
        group: protocol or kind, a heading over several columns.
        head: displayed heading.
        scale: factor of displayed numbers.
        digits: decimals of displayed numbers.
        more: whether more is better; None if neither.
    """

    key: str
    group: str
    head: str
    scale: float = 100.0
    digits: int = 2
    more: bool | None = True


SCORES: tuple[Column, ...] = (
    Column("binary.oa", "binary", "OA"),
    Column("binary.f1", "binary", "F1"),
    Column("binary.miou", "binary", "mIoU"),
    Column("stacked.oa", "stacked", "OA"),
    Column("stacked.fscd", "stacked", "Fscd"),
    Column("stacked.miou", "stacked", "mIoU"),
    Column("stacked.sek", "stacked", "SeK"),
    Column("from_to.oa", "from_to", "OA"),
    Column("from_to.fscd", "from_to", "Fscd"),
    Column("from_to.miou", "from_to", "mIoU"),
    Column("from_to.sek", "from_to", "SeK"),
)
COSTS: tuple[Column, ...] = (
    Column("parameters", "network", "parameters, M", 1e-6, 2, None),
    Column("gflops", "network", "GFLOPs", 1.0, 1, None),
    Column("train_steps", "training", "steps", 1.0, 0, None),
    Column("train_seconds", "training", "seconds", 1.0, 0, False),
    Column("train_memory_mb", "training", "memory, MB", 1.0, 0, False),
    Column("pairs_per_s", "evaluation_mode", "pairs/s", 1.0, 2, True),
    Column("memory_mb", "evaluation_mode", "memory, MB", 1.0, 0, False),
)
COLUMNS = (*SCORES, *COSTS)


@dataclass(frozen=True, slots=True)
class Value:
    """A value of the table, see the module; missing bounds are None."""

    mean: float
    low: float | None = None
    high: float | None = None
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True)
class TableRow:
    """One row of the table.

    Attributes:
        name: of the row.
        summary: description.
        recipe: of the training; None without training.
        status: ``finished`` if any seed is.
        reason: why the row or some of its seeds failed.
        seeds: finished seeds; empty without randomness.
        notes: remarks for the reader.
        values: defined values by `Column.key`.
        undefined: reasons of undefined values by key.
        device: of the measurement.
        results: ``result.json`` of every finished seed.
        cost: ``cost.json``; None if it was not measured.
        folder: of its runs, without ``-seedN``.
        folders: finished runs.
    """

    name: str
    summary: str
    recipe: str | None
    status: Status
    reason: str | None = None
    seeds: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    values: Mapping[str, Value] = field(default_factory=dict)
    undefined: Mapping[str, str] = field(default_factory=dict)
    device: str | None = None
    results: tuple[Mapping[str, Any], ...] = ()
    cost: Mapping[str, Any] | None = None
    folder: str = ""
    folders: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """The whole table.

    Attributes:
        lines: rows in the order of the plan.
        facts: data, budget, machine and versions as plain JSON values.
        published: figures of the main paper, shown separately.
        later: figures of later methods.
        reference: the row that the others are compared with.
        differences: paired differences of rows to the reference, by row and score.
    """

    lines: tuple[TableRow, ...]
    facts: Mapping[str, Any]
    published: PublishedTable
    later: PublishedTable
    reference: str = ""
    differences: Mapping[str, Mapping[str, Difference]] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Columns with a value in some row; all score columns are included."""
        there = {key for line in self.lines for key in line.values}
        return tuple(one for one in COLUMNS if one in SCORES or one.key in there)

    def groups(self) -> list[tuple[str, int]]:
        """Return the title and number of columns of each group, in order."""
        found: list[tuple[str, int]] = []
        for one in self.columns:
            title = self.title(one.group)
            if found and found[-1][0] == title:
                found[-1] = (title, found[-1][1] + 1)
            else:
                found.append((title, 1))
        return found

    def title(self, group: str) -> str:
        """Return the title of a group; protocols with their number of codes, as "7-class" and "37-class" of SECOND."""
        classes = len(self.facts["data"]["classes"])
        if group == "stacked":
            return f"stacked ({classes + 1} codes)" if classes else "stacked"
        if group == "from_to":
            return f"from-to ({classes**2 + 1} codes)" if classes else "from-to"
        return group


def table_row(
    row: Row,
    results: Sequence[tuple[str, Mapping[str, Any]]],
    cost: Mapping[str, Any] | None,
    failures: Sequence[str],
) -> TableRow:
    """Return the results of a row.

    Args:
        row: of the plan.
        results: folder and ``result.json`` of every finished seed.
        cost: ``cost.json``.
        failures: reasons of unfinished seeds.
    """
    found = [result for _, result in results]
    values = {one.key: value for one in SCORES if (value := _score(one.key, found)) is not None}
    training = [result["training"] for result in found if result.get("training")]
    for key, name in (("train_steps", "steps"), ("train_seconds", "seconds"), ("train_memory_mb", "memory_mb")):
        numbers = [float(one[name]) for one in training if one.get(name) is not None]
        if numbers:
            values[key] = _over_seeds(numbers)
    for key in ("parameters", "gflops", "pairs_per_s", "memory_mb"):
        if cost is not None and cost.get(key) is not None:
            values[key] = Value(float(cost[key]))
    reasons = [*failures, *([row.problem] if row.problem else [])]
    status: Status = "finished" if found else "failed" if reasons else "not run"
    return TableRow(
        name=row.name,
        summary=row.summary,
        recipe=None if row.config is None else row.config.name,
        status=status,
        reason="; ".join(reasons) or None,
        seeds=tuple(result["seed"] for result in found if result["seed"] is not None),
        notes=tuple(dict.fromkeys([*row.notes, *(note for result in found for note in result["notes"])])),
        values=values,
        undefined={name: why for result in found for name, why in result["undefined"].items() if name not in values},
        device=None if cost is None else cost["device"],
        results=tuple(found),
        cost=cost,
        folder=row.folder,
        folders=tuple(folder for folder, _ in results),
    )


def formatted(column: Column, value: Value | None) -> str:
    """Return a displayed number such as ``56.11``; a dash for None."""
    return "–" if value is None else f"{value.mean * column.scale:.{column.digits}f}"


def bounds(column: Column, low: float | None, high: float | None) -> str:
    """Return displayed bounds such as ``54.02 to 58.20``; empty without bounds.

    Args:
        column: of the value.
        low: lower bound.
        high: upper bound.
    """
    if low is None or high is None:
        return ""
    return f"{low * column.scale:.{column.digits}f} to {high * column.scale:.{column.digits}f}"


# -------------------------------------------------------------------------------------------------------------- formats


def as_json(table: Table) -> str:
    """Return the whole table with all results as JSON; scores are fractions."""
    lines = [asdict(one) for one in table.lines]
    columns = [asdict(one) for one in table.columns]
    whole = {"format": 1, **table.facts, "columns": columns, "lines": lines, "published": asdict(table.published)}
    whole["published_later"] = asdict(table.later)
    whole["reference"] = table.reference
    whole["differences"] = {
        row: {name: asdict(one) for name, one in found.items()} for row, found in table.differences.items()
    }
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(table: Table) -> str:
    """Return CSV with one row per method: values as in JSON, and bounds of scores."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    parts = [
        (one.key, part)
        for one in table.columns
        for part in ("mean", *(("low", "high", "least", "most") if one in SCORES else ()))
    ]
    heads = [key if part == "mean" else f"{key}.{part}" for key, part in parts]
    writer.writerow(["name", "recipe", "status", "seeds", *heads, "device", "reason", "notes"])
    for one in table.lines:
        numbers = [getattr(one.values[key], part) if key in one.values else None for key, part in parts]
        texts = (one.device or "", one.reason or "", "; ".join(one.notes))
        writer.writerow(
            [
                _cell(one.name),
                _cell(one.recipe or ""),
                one.status,
                " ".join(map(str, one.seeds)),
                *("" if number is None else number for number in numbers),
                *map(_cell, texts),
            ]
        )
    return text.getvalue()


def difference_columns(table: Table) -> tuple[Column, ...]:
    """Return the score columns of the table of differences."""
    keys = {key for found in table.differences.values() for key in found}
    return tuple(one for one in SCORES if one.key in keys and one.head != "OA")


def difference_cells(one: Difference) -> tuple[str, str, str]:
    """Return a difference in points of per cent, its interval and its p-value as text."""
    return f"{100 * one.estimate:+.2f}", f"{100 * one.low:+.2f} to {100 * one.high:+.2f}", f"{one.p:.3f}"


def caption(table: Table) -> str:
    """Return the caption: data, budget, seeds and units."""
    data, seeds = table.facts["data"], table.facts["seeds"]
    over = f"mean over seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]}"
    return (
        f"{data['name']}, scored on {data['scored_on']}. Budget: {table.facts['budget']}; {over}. "
        "Scores in per cent of all pairs together, with 95 % intervals over pairs."
    )


def _cell(text: str) -> str:
    """Return text that a spreadsheet does not parse as a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _score(key: str, results: Sequence[Mapping[str, Any]]) -> Value | None:
    """Return a score over seeds; None if undefined for any seed, as the mean of the others would be biased."""
    numbers = [result["scores"].get(key) for result in results]
    if not numbers or any(one is None for one in numbers):
        return None
    intervals = [result["intervals"].get(key) or {} for result in results]
    low, high = (_mean([one.get(bound) for one in intervals]) for bound in ("low", "high"))
    value = _over_seeds(numbers)
    return Value(value.mean, low, high, value.least, value.most)


def _over_seeds(numbers: Sequence[float]) -> Value:
    mean = sum(numbers) / len(numbers)
    return Value(mean, least=min(numbers), most=max(numbers)) if len(numbers) > 1 else Value(mean)


def _mean(numbers: Sequence[float | None]) -> float | None:
    there = [one for one in numbers if one is not None]
    return sum(there) / len(there) if there and len(there) == len(numbers) else None
