"""Pages of an evaluation and of a calibration: self-contained HTML.

Evaluation ─> confusion.html
Calibrated ─> calibration.html
"""

from __future__ import annotations

import math

from wasnow.evaluation.calibrate import Calibrated
from wasnow.evaluation.diagram import reliability_diagram
from wasnow.evaluation.outcome import Evaluation
from wasnow.evaluation.rows import WORD_HEAD, summary_rows, synonym_rows, word_rows
from wasnow.output.report.charts import matrix
from wasnow.output.report.sheet import Sheet

PER_IMAGE_ROWS = 500


def confusion_page(evaluation: Evaluation) -> str:
    """Return a page with all scores, confusion matrices, reliability diagrams and a row per image."""
    confusion, scores = evaluation.confusion, evaluation.scores
    words = evaluation.vocabulary.words
    charts = [("Changed or not", "one count per pixel", matrix(confusion.binary(), ("unchanged", "changed")))]
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
    shown_rows = {name: (value, between) for name, value, between in rows}
    classes = [
        (words[one.after - 1], _percent(one.f1), _percent(one.iou), _percent(one.precision), _percent(one.recall))
        for one in scores.classes
    ]
    by_word: list[tuple[str, str, tuple[str, ...], list[tuple[str, ...]]]] = [
        (title, note, ("class", *WORD_HEAD), word_rows(evaluation, which))
        for title, note, which in (
            (
                "Words",
                "each class against the others, both dates, on pixels with a class label",
                evaluation.words,
            ),
            (
                "Words, land cover",
                "as above for the class maps before the change mask",
                evaluation.landcover or (),
            ),
        )
        if which
    ]
    if evaluation.synonyms:
        note = "one prompt replaced at a time"
        by_word.append(("Synonyms", note, ("class", "prompt", *WORD_HEAD), synonym_rows(evaluation)))
    left_out = len(evaluation.per_image) - len(per_image)
    return Sheet(
        title=f"{evaluation.model} on {evaluation.split}",
        kicker="evaluation",
        lede=f"{len(evaluation.per_image)} images, {scores.pixels:,} pixels scored, threshold {evaluation.threshold:g}",
        notices=evaluation.notes,
        figures=[(name, *shown_rows[name]) for name in shown],
        charts_title="Confusion",
        charts=charts,
        tables=[
            (
                "Scores",
                "In per cent, of all images together, with 95 % bootstrap intervals over images. "
                "stacked: K + 1 codes, both dates pooled. from_to: one code per transition.",
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
                f"{left_out} more in scores.csv" if left_out else "",
                ("image", *shown),
                per_image,
            ),
        ],
        footer="counts are summed over images before scores are computed",
    ).render()


def calibration_page(found: Calibrated) -> str:
    """Return a page with the temperatures and the reliability before and after scaling."""
    one = found.calibration
    kinds = [("Change", one.change_temperature, found.change, "stated P(change)", "observed frequency")]
    if found.classes is not None:
        kinds.append(("Classes", one.class_temperature, found.classes, "stated P(class)", "accuracy"))
    figures, charts, rows = [], [], []
    for name, temperature, (before, after), stated, observed in kinds:
        shown_rows = f"{100 * before.ece:.2f} % before, {100 * after.ece:.2f} % after"
        figures.append((f"Temperature, {name.lower()}", f"{temperature:.4g}", f"ECE {shown_rows}"))
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
        tables=[("Bins", "of equal width; in per cent", ("output", "bin", "pixels", "stated", "observed"), rows)],
        footer="dots on the diagonal: stated probability equals observed frequency; area: share of pixels",
    ).render()


def _reliabilities(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """Return the reliability diagrams of an evaluation."""
    name = "calibrated" if evaluation.calibration else "uncalibrated"
    drawn = [
        (
            "Reliability of change",
            "stated P(change) against observed frequency",
            reliability_diagram(
                {name: evaluation.change_reliability}, stated="stated P(change)", observed="observed frequency"
            ),
        )
    ]
    if evaluation.class_reliability is not None:
        chart = reliability_diagram({name: evaluation.class_reliability}, stated="stated P(class)", observed="accuracy")
        drawn.append(("Reliability of classes", "on pixels with a class label", chart))
    return drawn


def _percent(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{100 * value:.2f}"
