"""The report of an assessment: one page, and the same figures as JSON, CSV and LaTeX.

areas.html          sentence, tables, chart, error matrix, design, response
areas.json          everything, for programs
areas.csv           one row per transition
error_matrix.csv    points and shares of the study area
areas.tex           the table of areas, for a paper
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wasnow.areas.assess import Assessment
from wasnow.areas.chart import area_chart
from wasnow.areas.design import UNCHANGED
from wasnow.areas.estimate import AreaEstimates, ClassEstimate
from wasnow.areas.estimators import Estimate
from wasnow.areas.intervals import Interval
from wasnow.output.report.sheet import Sheet
from wasnow.storage.atomic import write_atomically
from wasnow.storage.ownership import claim

HTML, JSON, CSV, MATRIX, TEX = "areas.html", "areas.json", "areas.csv", "error_matrix.csv", "areas.tex"
REPORT_FILES = (HTML, JSON, CSV, MATRIX, TEX)


def write_report(folder: Path, found: Assessment) -> None:
    """Write all files of a report.

    Args:
        folder: created if missing; files of an earlier report are replaced.
        found: what to report.

    Raises:
        DiskFull, OutputError: a file cannot be written, or no earlier report made a file of its name.
    """
    claim(folder, REPORT_FILES)
    writers: dict[str, Callable[[Assessment], str]] = {
        HTML: as_page, JSON: as_json, CSV: as_csv, MATRIX: matrix_csv, TEX: as_tex,
    }  # fmt: skip
    for name, write in writers.items():
        write_atomically(folder / name, write(found).encode())


def sentence(found: Assessment) -> str:
    """The result in one sentence: mapped and estimated change with its interval."""
    row = found.unions[0]
    first, second = found.design.dates
    between = f"Between {first} and {second}, " if first and second else "Between the two dates, "
    low, high = row.jeffreys.low, row.jeffreys.high
    return (
        f"{between}{_amount(row.share.value, found)} changed (95 % interval {_amount(low, found)} to "
        f"{_amount(high, found)}); the map shows {_amount(found.design.mapped_share(row.name), found)}."
    )


def as_json(found: Assessment) -> str:
    """Everything as JSON; NaN is null, areas are in square metres."""
    facts = {
        "sentence": sentence(found),
        "design": found.design.model_dump(mode="json"),
        "transitions": _facts(found.transitions),
        "unions": [asdict(row) for row in found.unions],
        "mapped_shares": {row.name: found.design.mapped_share(row.name) for row in _all(found)},
        "net_change": {word: asdict(each) for word, each in found.net.items()},
        "agreement": asdict(found.agreement),
        "interpreters": list(found.interpreters),
        "skipped": found.skipped,
        "unlabelled": found.unlabelled,
    }
    return json.dumps(_plain(facts), indent=1, ensure_ascii=False) + "\n"


def as_csv(found: Assessment) -> str:
    """One row per transition; areas in hectares where the map has a CRS, shares of the study area otherwise."""
    unit, scale = _unit(found)
    head = [
        "transition", f"mapped_{unit}", f"estimated_{unit}", f"standard_error_{unit}", f"wald_low_{unit}",
        f"wald_high_{unit}", f"jeffreys_low_{unit}", f"jeffreys_high_{unit}", "users_accuracy", "users_se",
        "producers_accuracy", "producers_se", "mapped_points", "reference_points", "right_points",
    ]  # fmt: skip
    rows = [
        [
            row.name,
            *(
                f"{value * scale:.6g}"
                for value in (
                    found.design.mapped_share(row.name), row.share.value, row.share.standard_error, row.interval.low,
                    row.interval.high, row.jeffreys.low, row.jeffreys.high,
                )
            ),
            *_ratio(row.users_accuracy),
            *_ratio(row.producers_accuracy),
            row.mapped_points,
            row.reference_points,
            row.right_points,
        ]
        for row in _all(found)
    ]  # fmt: skip
    return _table(head, rows)


def matrix_csv(found: Assessment) -> str:
    """The error matrix, map in rows and reference in columns: points, then shares of the study area."""
    names = found.transitions.labels
    head = ["what", "map", *names]
    rows: list[list[object]] = [
        ["points", name, *(int(each) for each in row)]
        for name, row in zip(names, found.transitions.counts, strict=True)
    ]
    rows += [
        ["share", name, *(f"{each:.6g}" for each in row)]
        for name, row in zip(names, found.transitions.matrix, strict=True)
    ]
    return _table(head, rows)


def as_tex(found: Assessment) -> str:
    """The table of areas as LaTeX (booktabs)."""
    unit, scale = _unit(found)
    lines = [
        r"\begin{tabular}{lrrrr}",
        r"\toprule",
        rf"Transition & Mapped ({_tex(unit)}) & Estimated ({_tex(unit)}) & User's (\%) & Producer's (\%) \\",
        r"\midrule",
    ]
    for row in found.transitions.classes:
        half = 1.96 * row.share.standard_error * scale
        cells = (
            _tex(row.name),
            f"{found.design.mapped_share(row.name) * scale:,.4g}",
            f"${row.share.value * scale:,.4g} \\pm {half:,.4g}$",
            _percent(row.users_accuracy),
            _percent(row.producers_accuracy),
        )
        lines.append(" & ".join(cells) + r" \\")
    overall = found.transitions.overall_accuracy
    lines += [
        r"\midrule",
        rf"\multicolumn{{5}}{{l}}{{Overall accuracy ${overall.value * 100:.1f} \pm "
        rf"{196 * overall.standard_error:.1f}$\,\%, {sum(found.transitions.sampled)} points}} \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def as_page(found: Assessment) -> str:
    """The page, self-contained."""
    overall = found.transitions.overall_accuracy
    unit, _ = _unit(found)
    missing = found.unlabelled + sum(found.skipped.values())
    return Sheet(
        title="Accuracy and areas of change",
        kicker="area estimates",
        lede=sentence(found),
        notices=[*found.transitions.warnings, *_coverage(found)],
        figures=[
            ("overall accuracy", f"{overall.value:.1%}", f"± {1.96 * overall.standard_error:.1%}, of the study area"),
            (
                "points",
                f"{sum(found.transitions.sampled):,}",
                f"{missing} without label",
            ),
            ("strata", str(len(found.design.strata)), f"seed {found.design.seed}"),
        ],
        charts_title="Mapped and estimated area",
        charts=[
            (
                "Area per transition",
                f"Bars: mapped. Points with lines: estimated, with 95 % Jeffreys intervals. In {unit}.",
                area_chart(_bars(found), unit),
            )
        ],
        tables=[*_area_tables(found), *_matrix_tables(found.transitions), *_design_tables(found)],
        footer=f"wasnow {found.design.wasnow} · sample of {found.design.created} · map {found.design.map_sha256[:12]}",
    ).render()


def _all(found: Assessment) -> tuple[ClassEstimate, ...]:
    """Every row of the tables: unions after transitions."""
    return (*found.transitions.classes, *found.unions)


def _area_tables(found: Assessment) -> Iterator[tuple[str, str, Sequence[str], Sequence[Sequence[str]]]]:
    head = (
        "transition", "mapped", "estimated", "± 1.96 SE", "95 % Jeffreys interval", "user's accuracy",
        "producer's accuracy", "points (map, reference, both)",
    )  # fmt: skip
    rows = [
        (
            row.name,
            _amount(found.design.mapped_share(row.name), found),
            _amount(row.share.value, found),
            _amount(1.96 * row.share.standard_error, found),
            f"{_amount(row.jeffreys.low, found)} to {_amount(row.jeffreys.high, found)}",
            _accuracy(row.users_accuracy, row.right_points, row.mapped_points, row.reliable_users_accuracy),
            _accuracy(row.producers_accuracy, row.right_points, row.reference_points, row.reliable_producers_accuracy),
            f"{row.mapped_points}, {row.reference_points}, {row.right_points}",
        )
        for row in _all(found)
    ]
    note = "Areas come from the reference labels. Quote the Jeffreys interval for rare transitions."
    yield "Areas and accuracies", note, head, rows
    if found.net:
        net = [
            (word, _amount(each.value, found, signed=True), _amount(1.96 * each.standard_error, found))
            for word, each in sorted(found.net.items(), key=lambda item: -abs(item[1].value))
        ]
        yield "Net change per class", "", ("class", "net change", "± 1.96 SE"), net
    if found.transitions.bounds is not None:
        bounds = [
            (name, f"{_amount(each.low, found)} to {_amount(each.high, found)}")
            for name, each in zip(found.transitions.labels, found.transitions.bounds, strict=True)
        ]
        note = "Estimate if all points without a label disagreed with the map, and if all agreed."
        yield "What points without a label could change", note, ("transition", "bounds"), bounds


def _matrix_tables(found: AreaEstimates) -> Iterator[tuple[str, str, Sequence[str], Sequence[Sequence[str]]]]:
    head = ("map \\ reference", *found.labels)
    counts = [(name, *(str(each) for each in row)) for name, row in zip(found.labels, found.counts, strict=True)]
    yield "Error matrix, points", "", head, counts
    shares = [(name, *(f"{each:.4f}" for each in row)) for name, row in zip(found.labels, found.matrix, strict=True)]
    yield "Error matrix, estimated shares of the study area", "", head, shares


def _design_tables(found: Assessment) -> Iterator[tuple[str, str, Sequence[str], Sequence[Sequence[str]]]]:
    design = found.design
    rows = [
        (
            row.name,
            f"{row.units:,}",
            "" if row.area_m2 is None else f"{row.area_m2 / 1e4:,.1f} ha",
            str(row.points),
            str(labelled),
        )
        for row, labelled in zip(design.strata, found.transitions.sampled, strict=True)
    ]
    head = ("stratum", "pixels", "area", "points", "labelled")
    note = (
        f"Stratified random sample of pixels, {design.probability}, without replacement; seed {design.seed}, "
        f"{design.allocation} allocation; buffer {design.buffer_px:g} pixels, evidence {design.evidence:g}."
    )
    yield "Design", note, head, rows
    agreed = found.agreement
    response = [
        ("interpreters", ", ".join(found.interpreters) or "not recorded"),
        ("labelled by two", f"{agreed.same} of {agreed.points} alike" if agreed.points else "no point"),
        *((f"no label: {reason}", str(count)) for reason, count in found.skipped.items()),
        ("not labelled yet", str(found.unlabelled)),
    ]
    yield "Response", "", (), response


def _coverage(found: Assessment) -> Iterator[str]:
    excluded = found.design.excluded_units
    if excluded:
        total = excluded + sum(row.units for row in found.design.strata)
        yield (
            f"{excluded:,} pixels ({excluded / total:.1%}) were not processed by the map; "
            "they are outside the study area and no estimate covers them."
        )


def _bars(found: Assessment) -> list[tuple[str, float, float, Interval]]:
    _, scale = _unit(found)
    return [
        (
            row.name,
            found.design.mapped_share(row.name) * scale,
            row.share.value * scale,
            Interval(row.jeffreys.low * scale, row.jeffreys.high * scale),
        )
        for row in found.transitions.classes
        if row.name != UNCHANGED
    ]


def _facts(found: AreaEstimates) -> dict[str, Any]:
    return {
        "overall_accuracy": asdict(found.overall_accuracy),
        "overall_interval": asdict(found.overall_interval),
        "classes": [asdict(row) for row in found.classes],
        "labels": list(found.labels),
        "counts": found.counts.tolist(),
        "matrix": found.matrix.tolist(),
        "labelled_points": list(found.sampled),
        "unlabelled": found.unlabelled,
        "warnings": list(found.warnings),
        "bounds": None if found.bounds is None else [asdict(each) for each in found.bounds],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _unit(found: Assessment) -> tuple[str, float]:
    total = found.transitions.strata.total_area_m2
    return ("share", 1.0) if total is None else ("ha", total / 1e4)


def _amount(share: float, found: Assessment, *, signed: bool = False) -> str:
    unit, scale = _unit(found)
    sign = "+" if signed else ""
    return f"{share:{sign}.2%}" if unit == "share" else f"{share * scale:{sign},.1f} ha"


def _accuracy(estimate: Estimate, right: int, points: int, reliable: bool) -> str:
    if not reliable or math.isnan(estimate.value):
        return f"{right} of {points} points"
    return f"{estimate.value:.1%} ± {1.96 * estimate.standard_error:.1%}"


def _ratio(estimate: Estimate) -> tuple[str, str]:
    if math.isnan(estimate.value):
        return "", ""
    return f"{estimate.value:.6g}", f"{estimate.standard_error:.6g}"


def _percent(estimate: Estimate) -> str:
    return "--" if math.isnan(estimate.value) else f"{100 * estimate.value:.1f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(head)
    table.writerows(rows)
    return text.getvalue()


def _tex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "→": r"$\to$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {each: "\\" + each for each in "&%$#_{}"}
    return "".join(special.get(each, each) for each in text)
