"""The pages of training and evaluation: self-contained HTML, rewritten at each validation.

log.csv, validations.csv, run.json, pictures/ ──> report.html
Evaluation                                    ──> confusion.html
Calibrated                                    ──> calibration.html
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from wasnow.calibration import reliability_diagram
from wasnow.report.pictures import data_uri, paletted_png, photo_jpeg
from wasnow.training.charts import Series, curves, matrix
from wasnow.training.watch import duration
from wasnow.vocabulary import CHANGED, CHANGED_COLOR, NO_CHANGE_COLOR, Vocabulary

if TYPE_CHECKING:
    from wasnow.evaluation import Calibrated, Evaluation
    from wasnow.training.folder import RunFolder

SIDE = 256
"""Longest side of a sample picture, in pixels."""

SHOWN = 8
"""Validations whose predictions are pictured; the first, the last, and evenly between."""

GAP = 4
NO_LABEL_COLOR = (128, 128, 134)
PER_IMAGE_ROWS = 500

_ORDINARY = ("step", "epoch", "stage", "loss", "rate", "gradient", "pairs_per_s", "waiting", "memory_mb")


# ------------------------------------------------------------------------------------------------------------- pictures


def dates_png(before: NDArray[Any], after: NDArray[Any] | None, vocabulary: Vocabulary) -> bytes:
    """Codes of both dates side by side (or one map of change) as a small PNG; 255 is no label."""
    maps = [_small(one).astype(np.uint8) for one in (before, after) if one is not None]
    gap = np.full((maps[0].shape[0], GAP), 254, np.uint8)
    index = np.concatenate([maps[0], gap, maps[1]], 1) if len(maps) == 2 else maps[0]
    return paletted_png(index, palette(vocabulary))


def photos_jpeg(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> bytes:
    """Both dates side by side as a small JPEG."""
    first, second = _small(before), _small(after)
    gap = np.full((first.shape[0], GAP, 3), 255, np.uint8)
    return photo_jpeg(np.concatenate([first, gap, second], 1), budget=40_000)


def palette(vocabulary: Vocabulary) -> list[tuple[int, int, int, int]]:
    """Colours of codes 0..255: no change, the classes (or *changed*), a clear gap at 254, no label at 255."""
    words = [vocabulary.color(code) for code in range(1, len(vocabulary) + 1)] or [CHANGED_COLOR]
    known = [NO_CHANGE_COLOR, *words][:254]
    filled = [*known, *[(0, 0, 0)] * (254 - len(known))]
    return [*((*color, 255) for color in filled), (0, 0, 0, 0), (*NO_LABEL_COLOR, 255)]


def _small(picture: NDArray[Any]) -> NDArray[Any]:
    """Every n-th pixel, so that no code is mixed with another."""
    every = -(-max(picture.shape[:2]) // SIDE)
    return np.ascontiguousarray(picture[::every, ::every])


# ------------------------------------------------------------------------------------------------------------- training


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
    return _template().render(
        title=f"Training {config['name']}",
        kicker="training run",
        lede=config["summary"] or config["model"],
        notices=[record["problem"]] if record.get("problem") else [],
        figures=figures,
        charts_title="Curves",
        charts=[(name, note, Markup(svg)) for name, note, svg in charts],
        samples=_strips(folder, samples, [int(row["step"]) for row in validations]),
        legend=[*legend, ("no label", _css(NO_LABEL_COLOR))],
        tables=[
            ("What was used", "", (), facts),
            ("Validations", "in per cent", *_validation_table(validations, scores)),
            ("Settings", "", (), settings),
        ],
        style=_style(),
        footer=f"wasnow {record['versions'].get('wasnow', '')}",
    )


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


# ----------------------------------------------------------------------------------------------------------- evaluation


def confusion_page(evaluation: Evaluation) -> str:
    """Scores in every protocol and word, confusion matrices, how far to believe it, and a row per image."""
    from wasnow.evaluation import WORD_HEAD, synonym_rows, word_rows

    confusion, scores = evaluation.confusion, evaluation.scores
    words = evaluation.vocabulary.words
    charts = [("Changed or not", "each pixel once", matrix(confusion.binary(), ("unchanged", "changed")))]
    if words:
        codes = ("unchanged", *words)
        charts += [
            ("Classes, both dates", 'protocol "stacked" (K + 1 codes)', matrix(confusion.stacked(), codes)),
            ("First date", "", matrix(confusion.date(after=False), codes)),
            ("Second date", "", matrix(confusion.date(after=True), codes)),
        ]
        table = confusion.from_to() if len(words) <= 16 else None
        if table is not None:
            names = ["unchanged", *(one.label for one in evaluation.vocabulary.transitions())]
            names += [f"{word} → nothing" for word in words] + [f"nothing → {word}" for word in words]
            charts.append(("Transitions", 'protocol "from_to" (K K + 1 codes)', matrix(table, names[: len(table)])))
    charts += _reliabilities(evaluation)
    headline = scores.headline()
    rows = []
    for name, value in headline.items():
        interval = evaluation.intervals.get(name)
        if math.isnan(value):
            rows.append((name, "undefined", scores.undefined.get(name, "")))
        else:
            known = interval is not None and not math.isnan(interval.low)
            between = f"{100 * interval.low:.2f} to {100 * interval.high:.2f}" if known and interval else ""
            rows.append((name, f"{100 * value:.2f}", between))
    shown = ("binary.f1", "binary.iou_changed", *(("stacked.fscd", "stacked.sek", "from_to.sek") if words else ()))
    per_image = []
    for image in evaluation.per_image[:PER_IMAGE_ROWS]:
        values = image.confusion.scores().headline()
        per_image.append((image.name, *("" if math.isnan(values[n]) else f"{100 * values[n]:.2f}" for n in shown)))
    told = {name: (value, between) for name, value, between in rows}
    classes = [
        (words[one.after - 1], _percent(one.f1), _percent(one.iou), _percent(one.precision), _percent(one.recall))
        for one in scores.classes
    ]
    by_word: list[tuple[str, str, tuple[str, ...], list[tuple[str, ...]]]] = [
        (title, note, ("class", *WORD_HEAD), word_rows(evaluation, which))
        for title, note, which in (
            (
                "Words",
                "each against the rest, both dates, where the labels name a class; as predicted",
                evaluation.words,
            ),
            (
                "Words, land cover",
                "the same wherever a class is labelled, whether the model says that it changed or not",
                evaluation.landcover or (),
            ),
        )
        if which
    ]
    if evaluation.synonyms:
        note = "one class at a time asked for by another word, all else as before"
        by_word.append(("Synonyms", note, ("class", "asked as", *WORD_HEAD), synonym_rows(evaluation)))
    left_out = len(evaluation.per_image) - len(per_image)
    return _template().render(
        title=f"{evaluation.model} on {evaluation.split}",
        kicker="evaluation",
        lede=f"{len(evaluation.per_image)} images, {scores.pixels:,} pixels scored, threshold {evaluation.threshold:g}",
        notices=evaluation.notes,
        figures=[(name, *told[name]) for name in shown],
        charts_title="Confusion",
        charts=[(name, note, Markup(svg)) for name, note, svg in charts],
        samples=[],
        legend=[],
        tables=[
            (
                "Scores",
                "In per cent, of all images together; the interval holds the true value 95 times in 100, images being "
                "drawn anew. stacked: K + 1 codes, both dates on one pile. from_to: one code for each transition.",
                ("score", "value", "interval"),
                rows,
            ),
            *(
                [("Classes", "both dates stacked", ("class", "F1", "IoU", "precision", "recall"), classes)]
                if words
                else []
            ),
            *by_word,
            (
                "Images",
                f"{left_out} more are in scores.csv" if left_out else "",
                ("image", *shown),
                per_image,
            ),
        ],
        style=_style(),
        footer="counts are added over images before any score is taken",
    )


def calibration_page(found: Calibrated) -> str:
    """Reliability before and after the temperatures, and the temperatures."""
    one = found.calibration
    kinds = [("Change", one.change_temperature, found.change, "stated P(change)", "share that changed")]
    if found.classes is not None:
        kinds.append(("Classes", one.class_temperature, found.classes, "stated P(class)", "share that is right"))
    figures, charts, rows = [], [], []
    for name, heat, (before, after), stated, observed in kinds:
        told = f"{100 * before.ece:.2f} % before, {100 * after.ece:.2f} % after"
        figures.append((f"Temperature, {name.lower()}", f"{heat:.4g}", f"ECE {told}"))
        drawn = reliability_diagram({"before": before, "after": after}, stated=stated, observed=observed)
        charts.append((name, f"{before.pixels:,} pixels", Markup(drawn)))
        for label, state in (("before", before), ("after", after)):
            for each in state.as_dict()["diagram"]:
                stated_, observed_ = (f"{100 * each[key]:.2f}" for key in ("stated", "observed"))
                rows.append((f"{name}, {label}", f"{each['bin'] + 1}", f"{each['pixels']}", stated_, observed_))
    return _template().render(
        title=f"Calibration of {found.model}",
        kicker="calibration",
        lede=f"on {one.split}: {one.pairs} pairs, {found.sampled:,} of {found.labelled:,} labelled pixels",
        notices=[],
        figures=figures,
        charts_title="Reliability",
        charts=charts,
        samples=[],
        legend=[],
        tables=[("Bins", "of equal width; in per cent", ("what", "bin", "pixels", "stated", "observed"), rows)],
        style=_style(),
        footer="a dot on the diagonal is a probability that can be taken at its word; its area is the share of pixels",
    )


def _reliabilities(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """Charts of stated against observed, for the page of an evaluation."""
    name = "calibrated" if evaluation.calibration else "as trained"
    drawn = [
        (
            "Belief in change",
            "P(change) against how often it changed",
            reliability_diagram(
                {name: evaluation.change_reliability}, stated="stated P(change)", observed="share that changed"
            ),
        )
    ]
    if evaluation.class_reliability is not None:
        chart = reliability_diagram(
            {name: evaluation.class_reliability}, stated="stated P(class)", observed="share that is right"
        )
        drawn.append(("Belief in classes", "where the labels name a class", chart))
    return drawn


def _percent(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{100 * value:.2f}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "none" if value is None else str(value)


def _css(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _style() -> Markup:
    return Markup(resources.files("wasnow.report").joinpath("report.css").read_text(encoding="utf-8"))


@cache
def _template() -> jinja2.Template:
    text = resources.files("wasnow.training").joinpath("page.html.j2").read_text(encoding="utf-8")
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True).from_string(text)
