"""Scores of predicted change against labelled change: counts first, every score from the counts, nothing in between.

    predicted (before, after) ─┐                              ┌─> binary    changed or not, once a pixel
    labelled  (before, after) ─┴─> Confusion ──(+ images)──> ─┼─> stacked   class codes, each date counted on its own
                                    one joint histogram       └─> from_to   one code a pixel for the whole transition

A map holds class codes as `Vocabulary.encode` writes them: 0 no change, 1..K the classes. Two protocols circulate in
the literature under one set of names, and differ by many points; both are always computed and never mixed:

    stacked   K + 1 codes, both dates put on one pile            SECOND's "7-class"   (SCanNet, Bi-SRNet, open-cd)
    from_to   K * K + 1 codes, (before - 1) * K + after          SECOND's "37-class"  (ChangeMamba, torchange)

**A pixel with a class at one date and 0 at the other** cannot come from `Vocabulary.encode`, but does come from models
that answer "unchanged" inside their own change mask. It counts as changed. ``stacked`` takes each date as it stands.
``from_to`` gives it a code of its own, after the K * K regular ones, where a formula would give it a negative or
another transition's code; so it is right only against the very same label. `Scores.incomplete` says how many there are.

**Counts are summed over images before any score is taken.** The mean of per-image scores is another quantity (SeK moves
by 3 to 7 points) and has no function here; `Confusion.scores` of one image serves per-image rows.

Scores are fractions, 0..1 or -1..1, not percent. What cannot be computed is NaN, and `Scores.undefined` says why.
Only numpy: no torch, no files.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wasnow.errors import InputError, UsageError
from wasnow.vocabulary import MAX_WORDS

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

IGNORE = 255
"""The code of a pixel without an answer or without a label, unless the caller names another."""

_BINS_AT_MOST = 1 << 20
"""Above this many possible cells a histogram of all of them costs more than sorting the pixels."""

_RESAMPLE_CELLS = 1 << 22
"""Bootstrap weights held at once: 32 MiB."""

_NO_CLASSES = "the maps say only where the ground changed, not from what to what"
_NO_PIXELS = "no pixel has both an answer and a label"


# ----------------------------------------------------------------------------------------------------- what is reported


@dataclass(frozen=True, slots=True)
class BinaryScores:
    """Changed or not, each pixel once. A pixel is changed where either date has a class.

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
    """The scores of semantic change detection under one protocol (`stacked` or `from_to`).

    H[i, j] counts what is predicted i and labelled j, code 0 being unchanged; row_i and col_j are its sums.
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
    ``fscd`` is computed as 2 TP / (predicted + labelled), which is the same number, and 0 where nothing at all was
    found of what is labelled (there the precision alone is undefined).
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
    """One class or one transition against everything else; equations as in `BinaryScores`.

    Attributes:
        before: class code 0..K at the first date; None for a class (not a transition).
        after: class code 0..K at the second date, or the class.
        predicted: how often it was predicted.
        labelled: how often it is labelled.
        correct: how often both.
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
    """One class word against the rest, where the labels name a class; both dates stacked. Made by `word_scores`.

    Unlike `CodeScores`, whose denominators hold all scored pixels, ground that is labelled unchanged plays no part, so
    the number says how well the *word* is understood, not how well change is found. Equations as in `BinaryScores`.

    Attributes:
        code: 1..K.
        predicted: how often it was predicted where the labels name any class.
        labelled: how often it is labelled.
        correct: how often both.
        undefined: for each score that is NaN, why, on the pixels whose labels name a class.
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
        """The same as plain JSON values; undefined scores are None."""
        plain: dict[str, Any] = _plain(self)
        return plain


@dataclass(frozen=True, slots=True)
class DateScores:
    """The class map of one date.

    Attributes:
        miou: mean IoU of the classes 1..K that occur at this date, predicted or labelled. "Unchanged" is not averaged
            in, but confusing a class with it counts against that class. 0..1.
        classes: every class 1..K of this date.
    """

    miou: float
    classes: tuple[CodeScores, ...]


@dataclass(frozen=True, slots=True)
class Scores:
    """Everything that can be said of predicted maps against labels.

    Attributes:
        n_classes: K; 0 where the maps hold no classes.
        pixels: pixels that were scored.
        ignored: pixels left out because they have no label.
        unanswered: labelled pixels left out because they have no answer; anything but 0 deserves a look.
        incomplete: scored pixels whose prediction or label has a class at one date only.
        binary: changed or not.
        stacked: protocol of K + 1 codes ("7-class"); counts every pixel twice, once a date.
        from_to: protocol of K * K + 1 codes ("37-class").
        before: the class map of the first date.
        after: the class map of the second date.
        classes: the classes 1..K, both dates stacked.
        transitions: the transitions that were predicted or labelled, the commonest label first.
        undefined: for each score that is NaN (``"from_to.sek"``), why. Single classes and transitions are not
            listed: theirs are NaN where their denominator (``predicted``, ``labelled``) is 0.
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
        """The same as plain JSON values; undefined scores are None."""
        plain: dict[str, Any] = _plain(self)
        return plain

    def headline(self) -> dict[str, float]:
        """The scores of whole maps by dotted name (``"from_to.sek"``): those that `bootstrap` gives intervals for."""
        flat = {
            f"{group}.{name}": float(value)
            for group in ("binary", "stacked", "from_to")
            for name, value in dataclasses.asdict(getattr(self, group)).items()
        }
        return flat | {"before.miou": self.before.miou, "after.miou": self.after.miou}


@dataclass(frozen=True, slots=True)
class Interval:
    """A score with its confidence interval.

    Attributes:
        estimate: the score of all images, NaN where undefined.
        low: lower bound; NaN where the score is undefined in every resample.
        high: upper bound.
        level: how often such intervals hold the true value, 0..1.
        defined: resamples in which the score is defined; the bounds are quantiles of these alone.
    """

    estimate: float
    low: float
    high: float
    level: float
    defined: int


# ------------------------------------------------------------------------------------------------------------- counting


@dataclass(frozen=True, slots=True, eq=False)
class Confusion:
    """How often each (predicted before, predicted after, labelled before, labelled after) occurs, in one image or many.

    Only combinations that occur are stored, 16 bytes each, so at most 38 kB for six classes and most often a few: keep
    one per image where per-image rows or `bootstrap` are wanted, and add them up for the scores. Addition is exact, so
    the order of images never matters.

    Attributes:
        n_classes: K; 0 for maps of change without classes, which are held as one nameless class at both dates.
        cells: ``(M,)`` sorted; four digits to the base K + 1 in the order above (most significant first).
        counts: ``(M,)`` pixels in each cell, all above 0.
        ignored: pixels without a label.
        unanswered: labelled pixels without an answer.
    """

    n_classes: int
    cells: Counts
    counts: Counts
    ignored: int = 0
    unanswered: int = 0

    @classmethod
    def empty(cls, n_classes: int) -> Confusion:
        """No pixels: where a sum starts."""
        if not 0 <= n_classes <= MAX_WORDS:
            raise UsageError(f"{n_classes} classes cannot be scored; give 0 (no classes) to {MAX_WORDS}")
        return cls(n_classes, np.zeros(0, np.int64), np.zeros(0, np.int64))

    @classmethod
    def of_classes(
        cls,
        predicted: tuple[ArrayLike, ArrayLike],
        labelled: tuple[ArrayLike, ArrayLike],
        n_classes: int,
        *,
        ignore: int = IGNORE,
    ) -> Confusion:
        """Count one image (or any pile of pixels).

        Args:
            predicted: class codes before and after, integers of one shape, 0..K or ``ignore``.
            labelled: the same for the labels.
            n_classes: K, 1 or more.
            ignore: the code of pixels without a label or an answer, outside 0..K. A label left out at one date
                leaves the whole pixel out.

        Raises:
            InputError: shapes differ, or a map holds other codes.
            UsageError: K or ``ignore`` cannot be meant.
        """
        if n_classes < 1:
            raise UsageError(
                f"of_classes needs 1 class or more, not {n_classes}; use of_change for maps without classes"
            )
        return _count((*predicted, *labelled), n_classes, n_classes, ignore)

    @classmethod
    def of_change(cls, predicted: ArrayLike, labelled: ArrayLike, *, ignore: int = IGNORE) -> Confusion:
        """Count one image of change without classes.

        Args:
            predicted: 1 (or True) changed, 0 unchanged, ``ignore`` no answer. A 0/255 mask must be compared with 127
                first: 255 means no label here.
            labelled: the same for the labels.
            ignore: any code but 0 and 1.

        Raises:
            InputError: shapes differ, or a map holds other codes.
        """
        return _count((predicted, predicted, labelled, labelled), 0, 1, ignore)

    @classmethod
    def total(cls, confusions: Iterable[Confusion]) -> Confusion:
        """All of them together, in one pass.

        Raises:
            UsageError: there are none, or their class counts differ.
        """
        pile = list(confusions)
        if not pile:
            raise UsageError("no images to add up; give at least one")
        if len(kinds := {one.n_classes for one in pile}) > 1:
            raise UsageError(f"counts over {sorted(kinds)} classes cannot be added; score each vocabulary on its own")
        cells, where = np.unique(np.concatenate([one.cells for one in pile]), return_inverse=True)
        counts = np.zeros(len(cells), np.int64)
        np.add.at(counts, where, np.concatenate([one.counts for one in pile]))
        return cls(
            pile[0].n_classes, cells, counts, sum(one.ignored for one in pile), sum(one.unanswered for one in pile)
        )

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion.total((self, other))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Confusion):
            return NotImplemented
        return (
            (self.n_classes, self.ignored, self.unanswered) == (other.n_classes, other.ignored, other.unanswered)
            and np.array_equal(self.cells, other.cells)
            and np.array_equal(self.counts, other.counts)
        )

    __hash__ = None  # type: ignore[assignment]  # it compares by arrays

    @property
    def pixels(self) -> int:
        """How many pixels are counted."""
        return int(self.counts.sum())

    def digits(self) -> tuple[Counts, Counts, Counts, Counts]:
        """``cells`` taken apart: predicted before, predicted after, labelled before, labelled after."""
        base = self._held + 1
        predicted, labelled = np.divmod(self.cells, base * base)
        return (*np.divmod(predicted, base), *np.divmod(labelled, base))

    def date(self, *, after: bool) -> Counts:
        """``(K + 1, K + 1)`` of one date: rows predicted, columns labelled."""
        four = self.digits()
        return self._matrix(four[after], four[2 + after], self._held + 1)

    def stacked(self) -> Counts:
        """``(K + 1, K + 1)``, both dates added: rows predicted, columns labelled; sums to twice the pixels."""
        return self.date(after=False) + self.date(after=True)

    def from_to(self) -> Counts:
        """``(K * K + 1, K * K + 1)`` over transition codes as in `Vocabulary`: rows predicted, columns labelled.

        Where a pixel has a class at one date only, 2 K codes follow: (1, 0)..(K, 0), then (0, 1)..(0, K).
        A wide vocabulary makes this huge (K = 40: 20 MB); the scores never build it.
        """
        predicted, labelled = self._transitions()
        regular = self._held**2 + 1
        complete = max(predicted.max(initial=0), labelled.max(initial=0)) < regular
        return self._matrix(predicted, labelled, regular if complete else (self._held + 1) ** 2)

    def binary(self) -> Counts:
        """``(2, 2)``: rows predicted, columns labelled; 0 unchanged, 1 changed."""
        predicted, labelled = self._transitions()
        return self._matrix(np.minimum(predicted, 1), np.minimum(labelled, 1), 2)

    def words(self) -> tuple[WordScores, ...]:
        """Each class against the rest where the labels name one, as predicted: 0 counts as not the class."""
        return word_scores(self.stacked()) if self.n_classes else ()

    def scores(self) -> Scores:
        """Every score of these counts."""
        return _scores(self)

    @property
    def _held(self) -> int:
        """K as the cells hold it: change without classes is one nameless class."""
        return max(1, self.n_classes)

    def _transitions(self) -> tuple[Counts, Counts]:
        """``(M,)`` each: transition code predicted and labelled."""
        before, after, label_before, label_after = self.digits()
        return _transition(before, after, self._held), _transition(label_before, label_after, self._held)

    def _matrix(self, rows: Counts, cols: Counts, n: int) -> Counts:
        matrix = np.zeros((n, n), np.int64)
        np.add.at(matrix, (rows, cols), self.counts)
        return matrix


def _count(maps: Sequence[ArrayLike], n_classes: int, held: int, ignore: int) -> Confusion:
    """One histogram over the fused digits of the four maps; digit 0 stands for ``ignore``, c + 1 for code c."""
    confusion = Confusion.empty(n_classes)
    if 0 <= ignore <= held:
        raise UsageError(f"ignore={ignore} is itself a code of 0..{held}; name a value outside")
    names = ("predicted before", "predicted after", "labelled before", "labelled after")
    arrays = [np.asarray(one) for one in maps]
    for name, array in zip(names, arrays, strict=True):
        if array.shape != arrays[0].shape:
            raise InputError(
                f"the {name} map is {array.shape} and the {names[0]} map {arrays[0].shape}; bring them onto one grid"
            )
    base = held + 2
    fused = np.zeros(arrays[0].shape, np.min_scalar_type(base**4))
    for name, array in zip(names, arrays, strict=True):
        fused *= fused.dtype.type(base)
        fused += _digit(array, held, ignore, name).astype(fused.dtype, copy=False)
    if base**4 <= _BINS_AT_MOST:
        histogram = np.bincount(fused.ravel(), minlength=base**4)
        codes = np.flatnonzero(histogram)
        counts = histogram[codes]
    else:
        codes, counts = np.unique(fused, return_counts=True)
    codes = codes.astype(np.int64)
    # Back to codes: c + 1 to c, and 0 to K + 1, which no code has.
    digits = np.stack([(codes // base**place - 1) % base for place in (3, 2, 1, 0)])
    no_answer, no_label = (digits[:2] > held).any(0), (digits[2:] > held).any(0)
    kept = ~(no_answer | no_label)
    cells = np.array([(held + 1) ** place for place in (3, 2, 1, 0)], np.int64) @ digits[:, kept]
    return dataclasses.replace(
        confusion,
        cells=cells,
        counts=counts[kept].astype(np.int64),
        ignored=int(counts[no_label].sum()),
        unanswered=int(counts[no_answer & ~no_label].sum()),
    )


def _digit(codes: NDArray[Any], held: int, ignore: int, name: str) -> NDArray[Any]:
    """Codes 0..K as 1..K + 1, ``ignore`` as 0; anything else is refused."""
    if codes.dtype == np.bool_:
        return codes.view(np.uint8) + np.uint8(1)
    if codes.dtype == np.uint8 and ignore == IGNORE:
        # The usual case, in two passes over bytes: 255 + 1 is 0 there.
        digits: NDArray[Any] = codes + np.uint8(1)
        if codes.size == 0 or digits.max() <= held + 1:
            return digits
    if not np.issubdtype(codes.dtype, np.integer):
        raise InputError(f"the {name} map holds {codes.dtype} numbers, wanted integer class codes; round or argmax it")
    answered = codes != ignore
    rest = codes * answered  # several times faster than np.where
    for strange in (int(rest.min(initial=0)), int(rest.max(initial=0))):
        if not 0 <= strange <= held:
            raise InputError(
                f"the {name} map holds code {strange}, wanted 0..{held} or {ignore} for no label; "
                "check the encoding and the number of classes"
            )
    wide: NDArray[Any] = (rest.astype(np.uint16) + np.uint16(1)) * answered
    return wide


def _transition(before: Counts, after: Counts, n_classes: int) -> Counts:
    """0 unchanged, ``(before - 1) K + after`` as in `Vocabulary`, then 2 K codes for a class at one date only."""
    regular = (before - 1) * n_classes + after
    only_before = n_classes**2 + before
    only_after = n_classes**2 + n_classes + after
    code = np.where(after == 0, np.where(before == 0, 0, only_before), np.where(before == 0, only_after, regular))
    return code.astype(np.int64)


def _transition_classes(code: int, n_classes: int) -> tuple[int, int]:
    """What `_transition` made ``code`` of."""
    if code <= n_classes**2:
        before, after = divmod(code - 1, n_classes)
        return before + 1, after + 1
    one = code - n_classes**2
    return (one, 0) if one <= n_classes else (0, one - n_classes)


# -------------------------------------------------------------------------------------------------------------- scoring


@dataclass(frozen=True, slots=True)
class _Margins:
    """All that a score needs of a confusion matrix: its sums by row and column, and its diagonal, ``(..., n)`` each.

    They are linear in the images, so resampled sets of images are one matrix product; and a vocabulary of any width
    needs no matrix of transitions by transitions. Leading axes are resamples.
    """

    rows: Floats
    cols: Floats
    diagonal: Floats

    @classmethod
    def of_matrix(cls, matrix: NDArray[Any]) -> _Margins:
        return cls(
            matrix.sum(1).astype(np.float64), matrix.sum(0).astype(np.float64), matrix.diagonal().astype(np.float64)
        )

    @classmethod
    def of_codes(cls, predicted: Counts, labelled: Counts, counts: Counts, n: int) -> _Margins:
        right = predicted == labelled
        return cls(
            np.bincount(predicted, counts, n).astype(np.float64),
            np.bincount(labelled, counts, n).astype(np.float64),
            np.bincount(predicted[right], counts[right], n).astype(np.float64),
        )

    def __add__(self, other: _Margins) -> _Margins:
        return _Margins(self.rows + other.rows, self.cols + other.cols, self.diagonal + other.diagonal)


@dataclass(frozen=True, slots=True)
class _Counted:
    """The margins of one Confusion in each view; ``classes`` is False where the class views mean nothing."""

    binary: _Margins
    before: _Margins
    after: _Margins
    from_to: _Margins
    classes: bool

    @property
    def stacked(self) -> _Margins:
        return self.before + self.after

    @classmethod
    def of(cls, confusion: Confusion) -> _Counted:
        held = max(1, confusion.n_classes)
        before, after, label_before, label_after = confusion.digits()
        predicted, labelled = _transition(before, after, held), _transition(label_before, label_after, held)
        counts = confusion.counts
        return cls(
            _Margins.of_codes(np.minimum(predicted, 1), np.minimum(labelled, 1), counts, 2),
            _Margins.of_codes(before, label_before, counts, held + 1),
            _Margins.of_codes(after, label_after, counts, held + 1),
            _Margins.of_codes(predicted, labelled, counts, (held + 1) ** 2),
            confusion.n_classes > 0,
        )

    def headline(self) -> dict[str, Floats]:
        """Every score of whole maps, by dotted name; leading axes as in the margins."""
        views: dict[str, dict[str, Floats]] = {
            "binary": _binary(self.binary),
            "stacked": _protocol(self.stacked),
            "from_to": _protocol(self.from_to),
            "before": {"miou": _mean_iou(self.before)},
            "after": {"miou": _mean_iou(self.after)},
        }
        return {
            f"{view}.{name}": value if self.classes or view == "binary" else np.full_like(value, np.nan)
            for view, values in views.items()
            for name, value in values.items()
        }


def protocol_scores(matrix: ArrayLike) -> ProtocolScores:
    """The scores of one confusion matrix of any protocol; NaN where undefined.

    Args:
        matrix: ``(n, n)`` counts, rows predicted, columns labelled, code 0 unchanged.

    Raises:
        InputError: it is not square, or holds a negative count.
    """
    return _as(ProtocolScores, _protocol(_Margins.of_matrix(_square(matrix))))


def word_scores(matrix: ArrayLike) -> tuple[WordScores, ...]:
    """Each class 1..K against the rest, on the pixels that are labelled with any of them.

    Args:
        matrix: ``(K + 1, K + 1)`` counts, rows predicted, columns labelled; what column 0 holds is not looked at.

    Raises:
        InputError: it is not square, or holds a negative count.
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
        raise InputError(f"a confusion matrix is square with counts of 0 or more, not {H.shape}; count the maps first")
    return H


def _ratio(part: Floats, whole: Floats) -> Floats:
    """``part / whole``; NaN, and no warning, where both are 0 (no part here is above its whole)."""
    with np.errstate(invalid="ignore"):
        return part / whole


def _kappa(rows: Floats, cols: Floats, agreed: Floats) -> Floats:
    """Cohen's kappa from sums by row and column and the trace; NaN without counts or where chance agrees surely."""
    total = rows.sum(-1)
    po = _ratio(agreed, total)
    pe = _ratio((rows * cols).sum(-1), total * total)
    return _ratio(po - pe, 1 - pe)


def _protocol(m: _Margins) -> dict[str, Floats]:
    """The equations of `ProtocolScores`."""
    total, same = m.rows.sum(-1), m.diagonal[..., 0]
    row0, col0 = m.rows[..., 0], m.cols[..., 0]
    hit = m.diagonal[..., 1:].sum(-1)
    both_changed = total - row0 - col0 + same
    iou_unchanged = _ratio(same, row0 + col0 - same)
    iou_changed = _ratio(both_changed, total - same)
    # H^ differs from H only in its corner, so only in the first sums and the trace.
    corner = np.zeros(m.rows.shape[-1])
    corner[0] = 1
    kappa = _kappa(m.rows - same[..., None] * corner, m.cols - same[..., None] * corner, hit)
    miou = (iou_unchanged + iou_changed) / 2
    sek = kappa * np.exp(iou_changed - 1)
    return {
        "oa": _ratio(same + hit, total),
        "binary_oa": _ratio(same + both_changed, total),
        "iou_unchanged": iou_unchanged,
        "iou_changed": iou_changed,
        "miou": miou,
        "kappa": kappa,
        "sek": sek,
        "precision": _ratio(hit, total - row0),
        "recall": _ratio(hit, total - col0),
        "fscd": _ratio(2 * hit, 2 * total - row0 - col0),
        "score": 0.3 * miou + 0.7 * sek,
    }


def _binary(m: _Margins) -> dict[str, Floats]:
    """The equations of `BinaryScores`."""
    (tn, tp), (_, predicted), (_, labelled) = (np.moveaxis(one, -1, 0) for one in (m.diagonal, m.rows, m.cols))
    total = m.rows.sum(-1)
    iou_changed, iou_unchanged = _ratio(tp, predicted + labelled - tp), _ratio(tn, total - tp)
    return {
        "precision": _ratio(tp, predicted),
        "recall": _ratio(tp, labelled),
        "f1": _ratio(2 * tp, predicted + labelled),
        "iou_changed": iou_changed,
        "iou_unchanged": iou_unchanged,
        "miou": (iou_changed + iou_unchanged) / 2,
        "oa": _ratio(tp + tn, total),
        "kappa": _kappa(m.rows, m.cols, tp + tn),
    }


def _mean_iou(m: _Margins) -> Floats:
    """Mean IoU of the codes 1.. that occur."""
    iou = _ratio(m.diagonal, m.rows + m.cols - m.diagonal)[..., 1:]
    there = ~np.isnan(iou)
    return _ratio(np.where(there, iou, 0).sum(-1), there.sum(-1).astype(np.float64))


def _code_scores(m: _Margins, codes: Iterable[int], n_classes: int | None) -> tuple[CodeScores, ...]:
    """One row for each of ``codes``; classes where ``n_classes`` is None, else transitions."""
    chosen = np.fromiter(codes, np.int64)
    rows, cols, right = m.rows[chosen], m.cols[chosen], m.diagonal[chosen]
    precision, recall = _ratio(right, rows), _ratio(right, cols)
    f1, iou = _ratio(2 * right, rows + cols), _ratio(right, rows + cols - right)
    found = []
    for i, code in enumerate(chosen.tolist()):
        before, after = (None, code) if n_classes is None else _transition_classes(code, n_classes)
        counts = (int(rows[i]), int(cols[i]), int(right[i]))
        found.append(
            CodeScores(before, after, *counts, float(precision[i]), float(recall[i]), float(f1[i]), float(iou[i]))
        )
    return tuple(found)


def _scores(confusion: Confusion) -> Scores:
    counted = _Counted.of(confusion)
    headline = counted.headline()
    K = confusion.n_classes
    stacked, from_to = counted.stacked, counted.from_to
    transitions: list[int] = []
    if counted.classes:
        occur = np.flatnonzero(from_to.rows + from_to.cols)
        transitions = [code for code in occur[np.argsort(-from_to.cols[occur], kind="stable")].tolist() if code]
    before, after, label_before, label_after = (digit > 0 for digit in confusion.digits())
    half = (before != after) | (label_before != label_after)
    return Scores(
        n_classes=K,
        pixels=confusion.pixels,
        ignored=confusion.ignored,
        unanswered=confusion.unanswered,
        incomplete=int(confusion.counts[half].sum()),
        binary=_as(BinaryScores, _view(headline, "binary")),
        stacked=_as(ProtocolScores, _view(headline, "stacked")),
        from_to=_as(ProtocolScores, _view(headline, "from_to")),
        before=DateScores(float(headline["before.miou"]), _code_scores(counted.before, range(1, K + 1), None)),
        after=DateScores(float(headline["after.miou"]), _code_scores(counted.after, range(1, K + 1), None)),
        classes=_code_scores(stacked, range(1, K + 1), None),
        transitions=_code_scores(from_to, transitions, K),
        undefined={name: _reason(name, counted) for name, value in headline.items() if np.isnan(value)},
    )


def _reason(name: str, counted: _Counted) -> str:
    """Why the score called ``name`` is NaN."""
    view, _, score = name.partition(".")
    if view != "binary" and not counted.classes:
        return _NO_CLASSES
    m: _Margins = getattr(counted, view)
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
    # What is left is kappa and what is made of it.
    return "prediction and labels hold one and the same class wherever anything changed: chance agrees surely (pe = 1)"


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


# ------------------------------------------------------------------------------------------------------------ intervals


def bootstrap(
    confusions: Sequence[Confusion], *, n: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, Interval]:
    """Confidence intervals of every headline score, by drawing images with replacement (percentile bootstrap).

    The image is the unit of sampling: neighbouring pixels repeat each other, and intervals over pixels would be far too
    narrow. Each resample draws as many images as there are, adds up their counts, and scores the sum. The same input
    and seed give the same numbers: counts in float64 add exactly, in any order and on any number of threads.

    Memory: 8 (N + n) * 3 c bytes for N images and c codes that occur, and at most 32 MiB of weights at a time.

    Args:
        confusions: one per image, 2 or more.
        n: resamples.
        seed: of the drawing.
        level: of the intervals, inside 0..1.

    Returns:
        By dotted name as in `Scores.headline`.

    Raises:
        UsageError: fewer than 2 images, fewer than 1 resample, a level outside 0..1, or unlike class counts.
    """
    if len(confusions) < 2:
        raise UsageError(f"{len(confusions)} image(s) cannot be resampled; give the counts of 2 images or more")
    if n < 1 or not 0 < level < 1:
        raise UsageError(f"bootstrap of {n} resamples at level {level} cannot be meant; use n >= 1 and 0 < level < 1")
    whole = _Counted.of(Confusion.total(confusions))
    views = ("binary", "before", "after", "from_to")
    # Code 0 leads every view; of the others only those that occur are carried along.
    occur = {view: _with_zero(np.flatnonzero(getattr(whole, view).rows + getattr(whole, view).cols)) for view in views}
    occur["before"] = occur["after"] = np.union1d(occur["before"], occur["after"])  # they are added to each other
    occur["binary"] = np.arange(2)
    table = np.stack([_as_row(_Counted.of(one), occur) for one in confusions])

    draw = np.random.default_rng(seed)
    images = len(confusions)
    chances = np.full(images, 1 / images)
    step = max(1, _RESAMPLE_CELLS // images)
    sums = np.concatenate(
        [
            draw.multinomial(images, chances, size=min(step, n - start)).astype(np.float64) @ table
            for start in range(0, n, step)
        ]
    )
    resampled = _from_rows(sums, occur, whole.classes).headline()
    estimates = whole.headline()
    return {name: _interval(float(estimates[name]), resampled[name], level) for name in estimates}


def _with_zero(codes: NDArray[np.intp]) -> NDArray[np.intp]:
    return np.union1d(np.zeros(1, np.intp), codes)


def _as_row(counted: _Counted, occur: Mapping[str, NDArray[np.intp]]) -> Floats:
    """The margins of every view, those of the codes that ``occur``, end to end."""
    margins = [(getattr(counted, view), codes) for view, codes in occur.items()]
    return np.concatenate([part[codes] for m, codes in margins for part in (m.rows, m.cols, m.diagonal)])


def _from_rows(table: Floats, occur: Mapping[str, NDArray[np.intp]], classes: bool) -> _Counted:
    """`_as_row` undone, for rows ``(n, ...)`` at once. Codes that never occur would add nothing to any score."""
    lengths = [len(codes) for codes in occur.values() for _ in range(3)]
    parts = iter(np.split(table, np.cumsum(lengths)[:-1], axis=1))
    margins = {view: _Margins(next(parts), next(parts), next(parts)) for view in occur}
    return _Counted(**margins, classes=classes)


def _interval(estimate: float, resampled: Floats, level: float) -> Interval:
    defined = resampled[~np.isnan(resampled)]
    if not len(defined):
        return Interval(estimate, math.nan, math.nan, level, 0)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), level, len(defined))
