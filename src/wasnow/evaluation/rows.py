"""The scores of an evaluation as rows of text, for tables on a screen or a page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from wasnow.evaluation.metrics import Interval, WordScores
from wasnow.evaluation.outcome import Evaluation

WORD_HEAD = ("F1", "IoU", "precision", "recall", "note")
"""What `word_rows` and `synonym_rows` have after their names."""

_NO_CLASS_PIXEL = "no pixel is labelled"


def summary_rows(evaluation: Evaluation, names: Sequence[str] = ()) -> list[tuple[str, str, str]]:
    """(score, value, interval) as text in per cent, undefined ones with their reason; for a table."""
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
    """(class, `WORD_HEAD`) as text in per cent, with the means of seen and unseen words where some are unseen."""
    table = [(evaluation.called(one.code), *_one_word(one)) for one in rows]
    if evaluation.unseen:
        for title, unseen in (("mean of words seen in training", False), ("mean of words not seen", True)):
            mean = evaluation.mean_f1(rows, unseen=unseen)
            table.append((title, "-" if math.isnan(mean) else f"{100 * mean:.2f}", "", "", "", ""))
    return table


def synonym_rows(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """(class, asked as, `WORD_HEAD`) as text: each class in its own word first, then in every other."""
    table = []
    told = set()
    for one in evaluation.synonyms:
        code = one.scores.code
        if code not in told:
            own = evaluation.spoken[code - 1] if evaluation.spoken else one.word
            table.append((one.word, own, *_one_word(evaluation.words[code - 1])))
            told.add(code)
        table.append((one.word, one.synonym, *_one_word(one.scores)))
    return table


def ece_rows(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """(what, ECE, how it was calibrated) as text in per cent."""
    found = evaluation.calibration
    rows = []
    for name, one, heat in (
        ("change", evaluation.change_reliability, found and found.change_temperature),
        ("classes", evaluation.class_reliability, found and found.class_temperature),
    ):
        if one is None:
            continue
        how = f"temperature {heat:.4g}, measured on {found.split}" if found and heat else "not calibrated"
        rows.append((name, f"{100 * one.ece:.2f}", how) if one.pixels else (name, "undefined", _NO_CLASS_PIXEL))
    return rows


def _one_word(one: WordScores) -> tuple[str, ...]:
    values = (one.f1, one.iou, one.precision, one.recall)
    # A word that is nowhere needs no further reasons.
    why = one.undefined.get("f1") or "; ".join(one.undefined.values())
    return (*("-" if math.isnan(value) else f"{100 * value:.2f}" for value in values), why)


def _between(interval: Interval) -> str:
    return f"{100 * interval.low:.2f} to {100 * interval.high:.2f}"
