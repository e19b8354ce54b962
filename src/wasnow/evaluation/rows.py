"""Rows of text of an evaluation, for tables on a terminal or page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from wasnow.evaluation.metrics import Interval, WordScores
from wasnow.evaluation.outcome import Evaluation

WORD_HEAD = ("F1", "IoU", "precision", "recall", "note")
"""Columns of `word_rows` and `synonym_rows` after the names."""

_NO_CLASS_PIXEL = "no pixel is labelled"


def summary_rows(evaluation: Evaluation, names: Sequence[str] = ()) -> list[tuple[str, str, str]]:
    """Return (score, value, interval) as text in per cent; undefined scores with their reason.

    Args:
        evaluation: the scores.
        names: of scores; empty: all.
    """
    headline = evaluation.scores.headline()
    rows = []
    for name in names or headline:
        value = headline[name]
        if math.isnan(value):
            rows.append((name, "undefined", evaluation.scores.undefined.get(name, "")))
            continue
        interval = evaluation.intervals.get(name)
        between = "" if interval is None or math.isnan(interval.low) else _between(interval)
        rows.append((name, f"{100 * value:.2f}", between))
    return rows


def word_rows(evaluation: Evaluation, rows: Sequence[WordScores]) -> list[tuple[str, ...]]:
    """Return (class, `WORD_HEAD`) as text in per cent, with the means of seen and unseen words if some are unseen."""
    table = [(evaluation.class_label(one.code), *_one_word(one)) for one in rows]
    if evaluation.unseen:
        for title, unseen in (("mean of words seen in training", False), ("mean of words not seen", True)):
            mean = evaluation.mean_f1(rows, unseen=unseen)
            table.append((title, "-" if math.isnan(mean) else f"{100 * mean:.2f}", "", "", "", ""))
    return table


def synonym_rows(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """Return (class, prompt, `WORD_HEAD`) as text: each class with its own word first, then with its synonyms."""
    table = []
    listed = set()
    for one in evaluation.synonyms:
        code = one.scores.code
        if code not in listed:
            own = evaluation.prompts[code - 1] if evaluation.prompts else one.word
            table.append((one.word, own, *_one_word(evaluation.words[code - 1])))
            listed.add(code)
        table.append((one.word, one.synonym, *_one_word(one.scores)))
    return table


def ece_rows(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """Return (output, ECE, calibration) as text in per cent."""
    found = evaluation.calibration
    rows = []
    for name, one, temperature in (
        ("change", evaluation.change_reliability, found and found.change_temperature),
        ("classes", evaluation.class_reliability, found and found.class_temperature),
    ):
        if one is None:
            continue
        how = f"temperature {temperature:.4g}, measured on {found.split}" if found and temperature else "not calibrated"
        rows.append((name, f"{100 * one.ece:.2f}", how) if one.pixels else (name, "undefined", _NO_CLASS_PIXEL))
    return rows


def _one_word(one: WordScores) -> tuple[str, ...]:
    values = (one.f1, one.iou, one.precision, one.recall)
    # The reason of an undefined F1 covers the other scores.
    why = one.undefined.get("f1") or "; ".join(one.undefined.values())
    return (*("-" if math.isnan(value) else f"{100 * value:.2f}" for value in values), why)


def _between(interval: Interval) -> str:
    return f"{100 * interval.low:.2f} to {100 * interval.high:.2f}"
