"""The page of a training run: self-contained HTML, rewritten at each validation.

log.csv, validations.csv, run.json, pictures/ ──> report.html
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wasnow.output.report.charts import Series, curves
from wasnow.output.report.codes import NO_LABEL_COLOR
from wasnow.output.report.pictures import data_uri
from wasnow.output.report.sheet import Sheet
from wasnow.training.logging import duration
from wasnow.vocabulary import CHANGED, CHANGED_COLOR, NO_CHANGE_COLOR, Vocabulary

if TYPE_CHECKING:
    from wasnow.training.run_folder import RunFolder

SHOWN = 8
"""Validations whose predictions are pictured; the first, the last, and evenly between."""

_ORDINARY = ("step", "epoch", "stage", "loss", "rate", "gradient", "pairs_per_s", "waiting", "memory_mb")


def training_page(
    folder: RunFolder,
    record: Mapping[str, Any],
    log: Sequence[Mapping[str, str]],
    validations: Sequence[Mapping[str, str]],
    samples: Sequence[str],
) -> str:
    """The page of a run as it stands.

    Args:
        folder: holds the pictures.
        record: ``run.json``.
        log: rows of ``log.csv``.
        validations: rows of ``validations.csv``.
        samples: names of the pictured pairs, in the order of their numbers.
    """
    config, select = record["config"], record["select"]
    vocabulary = Vocabulary(tuple(record["classes"]))
    ends, marks = 0.0, []
    for stage in record["stages"][:-1]:
        ends += stage["steps"]
        marks.append(ends)
    parts = [name for name in _columns(log) if name not in _ORDINARY]
    scores = [name for name in _FAVOURITES if any(row.get(name) for row in validations)]
    charts = [
        ("Loss", "as trained, mean between lines of the log", _drawn(log, ["loss"], marks, log_scale=True)),
        ("Parts of the loss", "before their weights", _drawn(log, parts, marks, log_scale=True)),
        ("Validation scores", record["selected_on"], _drawn(validations, scores, marks)),
        ("Rate", "of the optimizer", _drawn(log, ["rate"], marks)),
        ("Gradient", "norm before clipping", _drawn(log, ["gradient"], marks, log_scale=True)),
        ("Pace", "pairs per second", _drawn(log, ["pairs_per_s"], marks)),
    ]
    best = record.get("best")
    done = int(log[-1]["step"]) if log else 0
    figures = [
        (
            "Best validation",
            "none yet" if best is None else f"{100 * best['score']:.2f}",
            select if best is None else f"{select}, after step {best['step']:.0f}",
        ),
        ("Steps", f"{done}", f"of {record['steps']}"),
        ("Loss", f"{float(log[-1]['loss']):.4g}" if log else "none yet", "last line of the log"),
        ("Time", duration(record.get("seconds", 0.0)), record["status"]),
    ]
    facts = [
        ("Trained on", record["trained_on"]),
        ("Best weights chosen on", record["selected_on"]),
        ("Not looked at", ", ".join(record["untouched"]) or "there is nothing else"),
        ("Data", f"{record['data'] or 'in memory'}, fingerprint {record['data_fingerprint'][:16]}"),
        ("Classes", ", ".join(vocabulary.words) or "none: change alone"),
        ("Model", f"{config['model']}, {record['parameters'] / 1e6:.2f} million numbers"),
        ("Seed", str(config["seed"])),
        ("Versions", ", ".join(f"{name} {value}" for name, value in record["versions"].items() if value)),
    ]
    settings = [(name, _text(value)) for name, value in config.items() if name not in ("summary", "source", "name")]
    legend = [("no change", _css(NO_CHANGE_COLOR))]
    legend += [(word, _css(vocabulary.color(code))) for code, word in enumerate(vocabulary.words, 1)]
    legend += [] if len(vocabulary) else [(CHANGED, _css(CHANGED_COLOR))]
    return Sheet(
        title=f"Training {config['name']}",
        kicker="training run",
        lede=config["summary"] or config["model"],
        notices=[record["problem"]] if record.get("problem") else [],
        figures=figures,
        charts_title="Curves",
        charts=charts,
        samples=_strips(folder, samples, [int(row["step"]) for row in validations]),
        legend=[*legend, ("no label", _css(NO_LABEL_COLOR))],
        tables=[
            ("What was used", "", (), facts),
            ("Validations", "in per cent", *_validation_table(validations, scores)),
            ("Settings", "", (), settings),
        ],
        footer=f"wasnow {record['versions'].get('wasnow', '')}",
    ).render()


_FAVOURITES = ("stacked.fscd", "stacked.sek", "stacked.miou", "stacked.score", "from_to.sek", "binary.f1")


def _columns(rows: Sequence[Mapping[str, str]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _drawn(
    rows: Sequence[Mapping[str, str]], names: Sequence[str], marks: Sequence[float], *, log_scale: bool = False
) -> str:
    series = []
    for name in names:
        y = [float(row[name]) if row.get(name) else math.nan for row in rows]
        series.append(Series(name, [float(row["step"]) for row in rows], y))
    return curves(series, marks=marks, log=log_scale)


def _validation_table(
    validations: Sequence[Mapping[str, str]], scores: Sequence[str]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    rows = [
        (row["step"], *(f"{100 * float(row[name]):.2f}" if row.get(name) else "undefined" for name in scores))
        for row in validations
    ]
    return ("step", *scores), rows[-60:]


def _strips(folder: RunFolder, samples: Sequence[str], steps: Sequence[int]) -> list[tuple[str, list[tuple[str, str]]]]:
    """For each pictured pair: the dates, the labels, and what was predicted at some of the validations."""
    spread = {round(i * (len(steps) - 1) / (SHOWN - 1)) for i in range(SHOWN)} if steps else set()
    chosen = [steps[i] for i in sorted(spread)]
    strips = []
    for i, name in enumerate(samples):
        files = [("before and after", f"{i}-photo.jpg"), ("labels", f"{i}-labels.png")]
        files += [(f"predicted after step {step}", f"{i}-{step:08d}.png") for step in chosen]
        pictures = [
            (caption, data_uri((folder.pictures / file).read_bytes()))
            for caption, file in files
            if (folder.pictures / file).exists()
        ]
        strips.append((name, pictures))
    return strips


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "none" if value is None else str(value)


def _css(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
