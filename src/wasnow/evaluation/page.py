"""The pages of an evaluation and of a calibration: self-contained HTML.

Evaluation ─> confusion.html
Calibrated ─> calibration.html
"""

from __future__ import annotations

import math

from wasnow.evaluation.calibration import reliability_diagram
from wasnow.evaluation.outcome import Evaluation
from wasnow.evaluation.rows import WORD_HEAD, summary_rows, synonym_rows, word_rows
from wasnow.evaluation.temperatures import Calibrated
from wasnow.output.report.charts import matrix
from wasnow.output.report.sheet import Sheet

PER_IMAGE_ROWS = 500


def confusion_page(evaluation: Evaluation) -> str:
    """Scores in every protocol and word, confusion matrices, how far to believe it, and a row per image."""
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
    rows = summary_rows(evaluation)
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
    return Sheet(
        title=f"{evaluation.model} on {evaluation.split}",
        kicker="evaluation",
        lede=f"{len(evaluation.per_image)} images, {scores.pixels:,} pixels scored, threshold {evaluation.threshold:g}",
        notices=evaluation.notes,
        figures=[(name, *told[name]) for name in shown],
        charts_title="Confusion",
        charts=charts,
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
        footer="counts are added over images before any score is taken",
    ).render()


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
        charts.append((name, f"{before.pixels:,} pixels", drawn))
        for label, state in (("before", before), ("after", after)):
            for each in state.as_dict()["diagram"]:
                stated_, observed_ = (f"{100 * each[key]:.2f}" for key in ("stated", "observed"))
                rows.append((f"{name}, {label}", f"{each['bin'] + 1}", f"{each['pixels']}", stated_, observed_))
    return Sheet(
        title=f"Calibration of {found.model}",
        kicker="calibration",
        lede=f"on {one.split}: {one.pairs} pairs, {found.sampled:,} of {found.labelled:,} labelled pixels",
        figures=figures,
        charts_title="Reliability",
        charts=charts,
        tables=[("Bins", "of equal width; in per cent", ("what", "bin", "pixels", "stated", "observed"), rows)],
        footer="a dot on the diagonal is a probability that can be taken at its word; its area is the share of pixels",
    ).render()


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
