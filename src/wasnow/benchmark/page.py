"""The table as a page: one self-contained HTML file with style, script and reduced images.

The script sorts rows. The order is part of the address (``index.html#stacked.sek``), so a view can be shared.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from wasnow.benchmark.table import (
    SCORES,
    Column,
    Table,
    TableRow,
    bounds,
    caption,
    difference_cells,
    difference_columns,
    formatted,
)

Facts = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Picture:
    """An image of an example: reduced in the page, full size in a file.

    Attributes:
        caption: description.
        file: path relative to the page.
        uri: the reduced image as ``data:`` URI.
    """

    caption: str
    file: str
    uri: str


@dataclass(frozen=True)
class Example:
    """One pair with the predictions of each row."""

    name: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Cell:
    """One cell of the page; ``value`` is the sort key, empty without a number."""

    text: str
    value: str
    between: str
    over_seeds: str
    why: str


def benchmark_page(table: Table, examples: Sequence[Example], legend: Sequence[tuple[str, str]]) -> str:
    """Return the page.

    Args:
        table: the table.
        examples: formatted pairs.
        legend: (word, CSS colour) of the maps in them.
    """
    script = _text("wasnow.benchmark", "table.js")
    finished = sum(one.status == "finished" for one in table.lines)
    return _template().render(
        title=f"Benchmark on {table.facts['data']['name']}",
        lede=caption(table),
        table=table,
        rows=[(one, [_cell(one, column) for column in table.columns], _runs(one)) for one in table.lines],
        count=len(table.columns),
        failed=[one for one in table.lines if one.reason],
        finished=finished,
        facts=_facts(table.facts),
        notes=_notes(table),
        examples=examples,
        legend=legend,
        published=(table.published, table.later),
        difference_heads=[f"{one.group} {one.head}" for one in difference_columns(table)],
        differences=_differences(table),
        style=Markup(_text("wasnow.output.report", "report.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        footer=f"wasnow {table.facts['versions'].get('wasnow', '')}",
    )


def _cell(line: TableRow, column: Column) -> Cell:
    value = line.values.get(column.key)
    if value is None:
        why = line.undefined.get(column.key, "") if line.status == "finished" else ""
        return Cell("–", "", "", "", why)
    return Cell(
        formatted(column, value),
        repr(value.mean),
        bounds(column, value.low, value.high),
        bounds(column, value.least, value.most) if column in SCORES else "",
        "",
    )


def _differences(table: Table) -> list[tuple[str, list[tuple[str, str, str] | None]]]:
    """Return name and cells of each row of the table of differences."""
    columns = difference_columns(table)
    return [
        (name, [difference_cells(found[one.key]) if one.key in found else None for one in columns])
        for name, found in table.differences.items()
    ]


def _runs(line: TableRow) -> list[tuple[str, str]]:
    """Return (text, link) of the pages of a row."""
    links = []
    for folder, result in zip(line.folders, line.results, strict=True):
        seed = "" if result["seed"] is None else f", seed {result['seed']}"
        if result.get("training"):
            links.append((f"training{seed}", f"runs/{folder}/report.html"))
        links.append((f"evaluation{seed}", f"runs/{folder}/evaluation/confusion.html"))
    return links


def _facts(facts: Mapping[str, Any]) -> Facts:
    data, machine = facts["data"], facts["machine"]
    return [
        ("Data", f"{data['name']}, fingerprint {data['fingerprint'][:16]}"),
        ("Pairs", ", ".join(f"{name}: {count}" for name, count in data["splits"].items())),
        ("Classes", ", ".join(data["classes"]) or "none: change only"),
        ("Budget", facts["budget"]),
        ("Seeds", ", ".join(map(str, facts["seeds"]))),
        ("Shared settings", ", ".join(facts["settings"]) or "none"),
        ("Machine", ", ".join(f"{name} {value}" for name, value in machine.items() if value)),
        ("Versions", ", ".join(f"{name} {value}" for name, value in facts["versions"].items() if value)),
        ("Command", facts["command"]),
        ("Written", facts["updated"]),
    ]


def _notes(table: Table) -> list[str]:
    sizes = {tuple(one.cost["size"]) for one in table.lines if one.cost is not None}
    at = " and ".join(f"{rows} x {cols} px" for rows, cols in sorted(sizes)) or "the size of the test pairs"
    return [
        *table.facts["data"]["notes"],
        "Counts are summed over pairs before scores are computed. The smaller figures are 95 % intervals over pairs "
        "(bootstrap; with several seeds, the mean of their bounds) and, in brackets, the range over seeds. All rows "
        "are scored on the same pairs and vary together, so overlapping intervals do not imply equal quality.",
        "binary: changed or not. stacked: both dates pooled. from-to: one code per transition. The literature uses "
        "the same names for the scores of both protocols, which differ by many points. Each has its own OA.",
        f"GFLOPs: one pair of {at}, as counted by torch: matrix products, convolutions and attention, with a "
        "multiplication and an addition counted as two. Sums, activations and scans are not counted.",
        "Pairs per second: inference on one pair at a time without reading files; the median. Memory of inference: "
        "peak of a fresh process including Python and torch (on a GPU: peak of torch on the GPU). "
        "Training: seconds and memory include validation.",
    ]


def _text(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(_text("wasnow.benchmark", "page.html.j2"))
