"""The scores as values, and their computation from counts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wasnow.errors import InputError
from wasnow.evaluation.metrics.margins import (
    Counts,
    Floats,
    Margins,
    Views,
    protocol_equations,
    ratio,
    transition_classes,
)

_NO_CLASSES = "the maps hold change only, without classes"
_NO_PIXELS = "no pixel has both a prediction and a label"


@dataclass(frozen=True, slots=True)
class BinaryScores:
    """Changed or not, one count per pixel. A pixel is changed if either date has a class.

    With TP, FP, FN, TN in pixels and changed as positive:

    ============= =========================================== ========
    precision     TP / (TP + FP)                              0..1
    recall        TP / (TP + FN)                              0..1
    f1            2 TP / (2 TP + FP + FN)                     0..1
    iou_changed   TP / (TP + FP + FN)                         0..1
    iou_unchanged TN / (TN + FP + FN)                         0..1
    miou          (iou_changed + iou_unchanged) / 2           0..1
    oa            (TP + TN) / (TP + FP + FN + TN)             0..1
    kappa         (oa - pe) / (1 - pe), Cohen's, all pixels   -1..1
    ============= =========================================== ========
    """

    precision: float
    recall: float
    f1: float
    iou_changed: float
    iou_unchanged: float
    miou: float
    oa: float
    kappa: float


@dataclass(frozen=True, slots=True)
class ProtocolScores:
    """The scores of semantic change detection in one protocol (`stacked` or `from_to`).

    H[i, j] counts pixels predicted i and labelled j; code 0 is unchanged; row_i and col_j are the sums.
    H^ is H with H^[0, 0] := 0, po = tr H^ / sum H^, and pe = sum_i row^_i col^_i / (sum H^)^2.

    ============= =================================================== =========================
    oa            tr H / sum H                                        0..1
    binary_oa     (H[0, 0] + sum_{i,j>0} H) / sum H                   0..1
    iou_unchanged H[0, 0] / (row_0 + col_0 - H[0, 0])                 0..1
    iou_changed   sum_{i,j>0} H / (sum H - H[0, 0])                   0..1
    miou          (iou_unchanged + iou_changed) / 2                   0..1
    kappa         (po - pe) / (1 - pe)                                -1..1
    sek           kappa exp(iou_changed - 1)                          -1..1
    precision     sum_{i>0} H[i, i] / (sum H - row_0)                 0..1
    recall        sum_{i>0} H[i, i] / (sum H - col_0)                 0..1
    fscd          2 precision recall / (precision + recall)           0..1, "F1" in most tables
    score         0.3 miou + 0.7 sek                                  -0.7..1
    ============= =================================================== =========================

    Source: Yang et al., "Asymmetric Siamese networks for semantic change detection" (SECOND); Ding et al., Bi-SRNet.
    ``fscd`` is computed as 2 TP / (predicted + labelled). The value is the same, and it is 0 instead of undefined if
    changed pixels are labelled and none is predicted.
    """

    oa: float
    binary_oa: float
    iou_unchanged: float
    iou_changed: float
    miou: float
    kappa: float
    sek: float
    precision: float
    recall: float
    fscd: float
    score: float


@dataclass(frozen=True, slots=True)
class CodeScores:
    """One class or one transition against all others; equations as in `BinaryScores`.

    Attributes:
        before: class code 0..K at the first date; None for a class.
        after: class code 0..K at the second date, or the class.
        predicted: pixels that are predicted as this code.
        labelled: pixels that are labelled with it.
        correct: pixels that are both.
    """

    before: int | None
    after: int
    predicted: int
    labelled: int
    correct: int
    precision: float
    recall: float
    f1: float
    iou: float


@dataclass(frozen=True, slots=True)
class WordScores:
    """One class word against all others where the labels have a class; both dates stacked. See `word_scores`.

    The denominators of `CodeScores` contain all scored pixels; here pixels labelled unchanged are left out. The score
    measures the recognition of the *word*, not the detection of change. Equations as in `BinaryScores`.

    Attributes:
        code: 1..K.
        predicted: pixels that are predicted as the class where the labels have any class.
        labelled: pixels that are labelled with it.
        correct: pixels that are both.
        undefined: for each score that is NaN, the reason.
    """

    code: int
    predicted: int
    labelled: int
    correct: int
    precision: float
    recall: float
    f1: float
    iou: float
    undefined: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values; undefined scores are None."""
        plain: dict[str, Any] = _plain(self)
        return plain


@dataclass(frozen=True, slots=True)
class DateScores:
    """The class map of one date.

    Attributes:
        miou: mean IoU of the classes 1..K that are predicted or labelled at this date, 0..1. "Unchanged" is not part of
            the mean, but confusion with it counts as an error of the class.
        classes: every class 1..K at this date.
    """

    miou: float
    classes: tuple[CodeScores, ...]


@dataclass(frozen=True, slots=True)
class Scores:
    """All scores of predicted maps against labels.

    Attributes:
        n_classes: K; 0 if the maps hold no classes.
        pixels: pixels that were scored.
        ignored: pixels that were left out because they have no label.
        unanswered: labelled pixels that were left out because they have no prediction; should be 0.
        incomplete: scored pixels whose prediction or label has a class at one date only.
        binary: changed or not.
        stacked: protocol of K + 1 codes ("7-class"); counts every pixel twice, once per date.
        from_to: protocol of K * K + 1 codes ("37-class").
        before: the class map of the first date.
        after: the class map of the second date.
        classes: the classes 1..K, both dates stacked.
        transitions: the transitions that were predicted or labelled, sorted by labelled pixels, largest first.
        undefined: for each score that is NaN (``"from_to.sek"``), the reason. Single classes and transitions are not
            listed: their scores are NaN where the denominator (``predicted``, ``labelled``) is 0.
    """

    n_classes: int
    pixels: int
    ignored: int
    unanswered: int
    incomplete: int
    binary: BinaryScores
    stacked: ProtocolScores
    from_to: ProtocolScores
    before: DateScores
    after: DateScores
    classes: tuple[CodeScores, ...]
    transitions: tuple[CodeScores, ...]
    undefined: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values; undefined scores are None."""
        plain: dict[str, Any] = _plain(self)
        return plain

    def headline(self) -> dict[str, float]:
        """Return the scores of whole maps by dotted name (``"from_to.sek"``), as `bootstrap` does for intervals."""
        flat = {
            f"{group}.{name}": float(value)
            for group in ("binary", "stacked", "from_to")
            for name, value in dataclasses.asdict(getattr(self, group)).items()
        }
        return flat | {"before.miou": self.before.miou, "after.miou": self.after.miou}


def protocol_scores(matrix: ArrayLike) -> ProtocolScores:
    """Return the scores of one confusion matrix of either protocol; NaN where undefined.

    Args:
        matrix: ``(n, n)`` counts, rows predicted, columns labelled, code 0 unchanged.

    Raises:
        InputError: the matrix is not square, or a count is negative.
    """
    return _as(ProtocolScores, protocol_equations(Margins.of_matrix(_square(matrix))))


def word_scores(matrix: ArrayLike) -> tuple[WordScores, ...]:
    """Return the scores of each class 1..K against the others, on pixels labelled with any class.

    Args:
        matrix: ``(K + 1, K + 1)`` counts, rows predicted, columns labelled; column 0 is not used.

    Raises:
        InputError: the matrix is not square, or a count is negative.
    """
    H = _square(matrix)[:, 1:]
    rows, cols, right = H.sum(1)[1:], H.sum(0), H[1:].diagonal()
    found = []
    counts = zip(rows.tolist(), cols.tolist(), right.tolist(), strict=True)
    for code, (predicted, labelled, correct) in enumerate(counts, 1):
        undefined = {}
        if not predicted:
            undefined["precision"] = "never predicted"
        if not labelled:
            undefined["recall"] = "not labelled"
        if not predicted + labelled:
            undefined["f1"] = undefined["iou"] = "neither labelled nor predicted"
        found.append(
            WordScores(
                code,
                predicted,
                labelled,
                correct,
                precision=correct / predicted if predicted else math.nan,
                recall=correct / labelled if labelled else math.nan,
                f1=2 * correct / (predicted + labelled) if predicted + labelled else math.nan,
                iou=correct / (predicted + labelled - correct) if predicted + labelled else math.nan,
                undefined=undefined,
            )
        )
    return tuple(found)


def _square(matrix: ArrayLike) -> NDArray[Any]:
    H = np.asarray(matrix)
    if H.ndim != 2 or H.shape[0] != H.shape[1] or H.size == 0 or H.min() < 0:
        raise InputError(f"a confusion matrix is {H.shape}; it must be square, with counts of 0 or more")
    return H


def _code_scores(m: Margins, codes: Iterable[int], n_classes: int | None) -> tuple[CodeScores, ...]:
    """Return the scores of each of ``codes``: classes if ``n_classes`` is None, otherwise transitions."""
    chosen = np.fromiter(codes, np.int64)
    rows, cols, right = m.rows[chosen], m.cols[chosen], m.diagonal[chosen]
    precision, recall = ratio(right, rows), ratio(right, cols)
    f1, iou = ratio(2 * right, rows + cols), ratio(right, rows + cols - right)
    found = []
    for i, code in enumerate(chosen.tolist()):
        before, after = (None, code) if n_classes is None else transition_classes(code, n_classes)
        counts = (int(rows[i]), int(cols[i]), int(right[i]))
        found.append(
            CodeScores(before, after, *counts, float(precision[i]), float(recall[i]), float(f1[i]), float(iou[i]))
        )
    return tuple(found)


def scores_of(
    codes: tuple[Counts, Counts, Counts, Counts], counts: Counts, n_classes: int, *, ignored: int, unanswered: int
) -> Scores:
    """Return all scores of counted pixels.

    Args:
        codes: ``(M,)`` each: predicted before and after, labelled before and after.
        counts: ``(M,)`` pixels of each combination.
        n_classes: K; 0 for maps without classes.
        ignored: pixels without a label.
        unanswered: labelled pixels without a prediction.
    """
    counted = Views.of(codes, counts, n_classes)
    headline = counted.headline()
    stacked, from_to = counted.stacked, counted.from_to
    transitions: list[int] = []
    if counted.classes:
        occur = np.flatnonzero(from_to.rows + from_to.cols)
        transitions = [code for code in occur[np.argsort(-from_to.cols[occur], kind="stable")].tolist() if code]
    before, after, label_before, label_after = (code > 0 for code in codes)
    half = (before != after) | (label_before != label_after)
    return Scores(
        n_classes=n_classes,
        pixels=int(counts.sum()),
        ignored=ignored,
        unanswered=unanswered,
        incomplete=int(counts[half].sum()),
        binary=_as(BinaryScores, _view(headline, "binary")),
        stacked=_as(ProtocolScores, _view(headline, "stacked")),
        from_to=_as(ProtocolScores, _view(headline, "from_to")),
        before=DateScores(float(headline["before.miou"]), _code_scores(counted.before, range(1, n_classes + 1), None)),
        after=DateScores(float(headline["after.miou"]), _code_scores(counted.after, range(1, n_classes + 1), None)),
        classes=_code_scores(stacked, range(1, n_classes + 1), None),
        transitions=_code_scores(from_to, transitions, n_classes),
        undefined={name: _reason(name, counted) for name, value in headline.items() if np.isnan(value)},
    )


def _reason(name: str, counted: Views) -> str:
    """Return the reason why a score is NaN."""
    view, _, score = name.partition(".")
    if view != "binary" and not counted.classes:
        return _NO_CLASSES
    m: Margins = getattr(counted, view)
    total, same = float(m.rows.sum()), float(m.diagonal[0])
    if total == 0:
        return _NO_PIXELS
    if view in ("before", "after"):
        return f"no class is predicted or labelled in the {view} map"
    if score == "precision":
        return "nothing is predicted as changed"
    if score == "recall":
        return "nothing is labelled as changed"
    if total == same:
        return "nothing changed, neither in the prediction nor in the labels"
    no_unchanged = float(m.rows[0] + m.cols[0]) == 0
    if score in ("iou_unchanged", "miou") or (score == "score" and no_unchanged):
        return "everything changed, both in the prediction and in the labels"
    # Only kappa and the scores computed from it remain.
    return "prediction and labels hold a single class on all changed pixels: chance agreement is 1 (pe = 1)"


def _view(headline: Mapping[str, Floats], view: str) -> dict[str, Floats]:
    return {name.removeprefix(f"{view}."): value for name, value in headline.items() if name.startswith(f"{view}.")}


_S = TypeVar("_S", BinaryScores, ProtocolScores)


def _as(kind: type[_S], values: Mapping[str, Floats]) -> _S:
    return kind(**{name: float(value) for name, value in values.items()})


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: _plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return dict(value)
    return None if isinstance(value, float) and math.isnan(value) else value
