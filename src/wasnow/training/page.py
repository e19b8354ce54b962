"""The report page of a training run: self-contained HTML, rewritten after each validation.

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

MAX_PREDICTIONS = 8
"""Number of validations whose predictions are shown: the first, the last, and evenly spaced ones."""

_LOG_COLUMNS = ("step", "epoch", "stage", "loss", "rate", "gradient", "pairs_per_s", "waiting", "memory_mb")


def training_page(
    folder: RunFolder,
    record: Mapping[str, Any],
    log: Sequence[Mapping[str, str]],
    validations: Sequence[Mapping[str, str]],
    samples: Sequence[str],
) -> str:
    """Return the page of the current state of a run.

    Args:
        folder: contains the pictures.
        record: ``run.json``.
        log: rows of ``log.csv``.
        validations: rows of ``validations.csv``.
        samples: names of the pictured pairs, in order of their numbers.
    """
    config, select = record["config"], record["select"]
    vocabulary = Vocabulary(tuple(record["classes"]))
    ends, marks = 0.0, []
    for stage in record["stages"][:-1]:
        ends += stage["steps"]
        marks.append(ends)
    parts = [name for name in _columns(log) if name not in _LOG_COLUMNS]
    scores = [name for name in _SHOWN_SCORES if any(row.get(name) for row in validations)]
    charts = [
        ("Loss", "mean between rows of the log", _chart(log, ["loss"], marks, log_scale=True)),
        ("Terms of the loss", "unweighted", _chart(log, parts, marks, log_scale=True)),
        ("Validation scores", record["selected_on"], _chart(validations, scores, marks)),
        ("Learning rate", "", _chart(log, ["rate"], marks)),
        ("Gradient", "norm before clipping", _chart(log, ["gradient"], marks, log_scale=True)),
        ("Speed", "training pairs per second", _chart(log, ["pairs_per_s"], marks)),
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
        ("Loss", f"{float(log[-1]['loss']):.4g}" if log else "none yet", "last row of the log"),
        ("Time", duration(record.get("seconds", 0.0)), record["status"]),
    ]
    facts = [
        ("Trained on", record["trained_on"]),
        ("Best weights selected on", record["selected_on"]),
        ("Not used", ", ".join(record["untouched"]) or "none"),
        ("Data", f"{record['data'] or 'in memory'}, fingerprint {record['data_fingerprint'][:16]}"),
        ("Classes", ", ".join(vocabulary.words) or "none: change only"),
        ("Model", f"{config['model']}, {record['parameters'] / 1e6:.2f} million parameters"),
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
            ("Run", "", (), facts),
            ("Validations", "in per cent", *_validation_table(validations, scores)),
            ("Settings", "", (), settings),
        ],
        footer=f"wasnow {record['versions'].get('wasnow', '')}",
    ).render()


_SHOWN_SCORES = ("stacked.fscd", "stacked.sek", "stacked.miou", "stacked.score", "from_to.sek", "binary.f1")


def _columns(rows: Sequence[Mapping[str, str]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _chart(
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
    """Return for each pictured pair the images, the labels and the predictions of some validations."""
    spread = {round(i * (len(steps) - 1) / (MAX_PREDICTIONS - 1)) for i in range(MAX_PREDICTIONS)} if steps else set()
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
