"""Pixel counts of predicted maps against labels, in one image or in many."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wasnow.errors import InputError, UsageError
from wasnow.evaluation.metrics.margins import Counts, transition_codes
from wasnow.evaluation.metrics.scores import Scores, WordScores, scores_of, word_scores
from wasnow.vocabulary import MAX_WORDS

IGNORE = 255
"""The code of a pixel without a prediction or a label, unless the caller names another."""

_BINS_AT_MOST = 1 << 20
"""With more possible cells than this, sorting the pixels is cheaper than a histogram."""


@dataclass(frozen=True, slots=True, eq=False)
class Confusion:
    """Counts of each combination (predicted before, predicted after, labelled before, labelled after).

    Only combinations that occur are stored, 16 bytes each: at most 38 kB for six classes, usually far less. Keep one
    per image for per-image rows or `bootstrap`, and add them up for the scores. Addition is exact, so the order of
    images does not matter.

    Attributes:
        n_classes: K; 0 for maps of change without classes, which are stored as one unnamed class at both dates.
        cells: ``(M,)`` sorted; four digits to the base K + 1 in the order above (most significant first).
        counts: ``(M,)`` pixels in each cell, 1 or more.
        ignored: pixels without a label.
        unanswered: labelled pixels without a prediction.
    """

    n_classes: int
    cells: Counts
    counts: Counts
    ignored: int = 0
    unanswered: int = 0

    @classmethod
    def empty(cls, n_classes: int) -> Confusion:
        """Return counts of no pixels, the start of a sum.

        Raises:
            UsageError: the number of classes is out of range.
        """
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
        """Count the pixels of one image.

        Args:
            predicted: class codes before and after, integers of one shape, 0..K or ``ignore``.
            labelled: the same for the labels.
            n_classes: K, 1 or more.
            ignore: the code of pixels without a label or a prediction, outside 0..K. A pixel without a label at one
                date is left out at both.

        Raises:
            InputError: shapes differ, or a map holds other codes.
            UsageError: K is below 1, or ``ignore`` is a class code.
        """
        if n_classes < 1:
            raise UsageError(
                f"of_classes needs 1 class or more, not {n_classes}; use of_change for maps without classes"
            )
        return _count((*predicted, *labelled), n_classes, n_classes, ignore)

    @classmethod
    def of_change(cls, predicted: ArrayLike, labelled: ArrayLike, *, ignore: int = IGNORE) -> Confusion:
        """Count the pixels of one image of change without classes.

        Args:
            predicted: 1 (or True) changed, 0 unchanged, ``ignore`` no prediction. Compare a 0/255 mask with 127 first,
                because 255 means "no label" here.
            labelled: the same for the labels.
            ignore: any code except 0 and 1.

        Raises:
            InputError: shapes differ, or a map holds other codes.
        """
        return _count((predicted, predicted, labelled, labelled), 0, 1, ignore)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values for `from_dict`."""
        plain = {name: getattr(self, name) for name in ("n_classes", "ignored", "unanswered")}
        return plain | {"cells": self.cells.tolist(), "counts": self.counts.tolist()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Confusion:
        """Return the counts that `as_dict` has written."""
        cells, counts = (np.array(values[name], np.int64) for name in ("cells", "counts"))
        return cls(values["n_classes"], cells, counts, values["ignored"], values["unanswered"])

    @classmethod
    def total(cls, confusions: Iterable[Confusion]) -> Confusion:
        """Return the sum of counts, in one pass.

        Raises:
            UsageError: the sequence is empty, or the numbers of classes differ.
        """
        summands = list(confusions)
        if not summands:
            raise UsageError("no images to add up; give at least one")
        if len(kinds := {one.n_classes for one in summands}) > 1:
            raise UsageError(f"counts over {sorted(kinds)} classes cannot be added; score each vocabulary on its own")
        cells, where = np.unique(np.concatenate([one.cells for one in summands]), return_inverse=True)
        counts = np.zeros(len(cells), np.int64)
        np.add.at(counts, where, np.concatenate([one.counts for one in summands]))
        return cls(
            summands[0].n_classes,
            cells,
            counts,
            sum(one.ignored for one in summands),
            sum(one.unanswered for one in summands),
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
        """Number of counted pixels."""
        return int(self.counts.sum())

    def digits(self) -> tuple[Counts, Counts, Counts, Counts]:
        """Return ``cells`` as four codes: predicted before, predicted after, labelled before, labelled after."""
        base = self._held + 1
        predicted, labelled = np.divmod(self.cells, base * base)
        return (*np.divmod(predicted, base), *np.divmod(labelled, base))

    def date(self, *, after: bool) -> Counts:
        """Return the ``(K + 1, K + 1)`` matrix of one date: rows predicted, columns labelled."""
        four = self.digits()
        return self._matrix(four[after], four[2 + after], self._held + 1)

    def stacked(self) -> Counts:
        """Return the ``(K + 1, K + 1)`` matrix of both dates: rows predicted, columns labelled."""
        return self.date(after=False) + self.date(after=True)

    def from_to(self) -> Counts:
        """Return the ``(K * K + 1, K * K + 1)`` matrix of transition codes: rows predicted, columns labelled.

        Codes are those of `Vocabulary`. If a pixel has a class at one date only, 2 K codes follow: (1, 0)..(K, 0), then
        (0, 1)..(0, K). The matrix of a large vocabulary is large (K = 40: 20 MB); the scores do not need it.
        """
        predicted, labelled = self._transitions()
        regular = self._held**2 + 1
        complete = max(predicted.max(initial=0), labelled.max(initial=0)) < regular
        return self._matrix(predicted, labelled, regular if complete else (self._held + 1) ** 2)

    def binary(self) -> Counts:
        """Return the ``(2, 2)`` matrix of unchanged (0) and changed (1): rows predicted, columns labelled."""
        predicted, labelled = self._transitions()
        return self._matrix(np.minimum(predicted, 1), np.minimum(labelled, 1), 2)

    def words(self) -> tuple[WordScores, ...]:
        """Return the scores of each class word where the labels have a class; a predicted 0 counts as another class."""
        return word_scores(self.stacked()) if self.n_classes else ()

    def scores(self) -> Scores:
        """Return all scores of these counts."""
        return scores_of(self.digits(), self.counts, self.n_classes, ignored=self.ignored, unanswered=self.unanswered)

    @property
    def _held(self) -> int:
        """K as stored: change without classes is one unnamed class."""
        return max(1, self.n_classes)

    def _transitions(self) -> tuple[Counts, Counts]:
        """Return the predicted and the labelled transition codes, ``(M,)`` each."""
        before, after, label_before, label_after = self.digits()
        return transition_codes(before, after, self._held), transition_codes(label_before, label_after, self._held)

    def _matrix(self, rows: Counts, cols: Counts, n: int) -> Counts:
        matrix = np.zeros((n, n), np.int64)
        np.add.at(matrix, (rows, cols), self.counts)
        return matrix


def _count(maps: Sequence[ArrayLike], n_classes: int, held: int, ignore: int) -> Confusion:
    """Count one histogram over the combined digits of the four maps; digit 0 means ``ignore``, c + 1 means code c."""
    confusion = Confusion.empty(n_classes)
    if 0 <= ignore <= held:
        raise UsageError(f"ignore={ignore} is a class code (0..{held}); choose a value outside this range")
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
    # Back to codes: c + 1 becomes c, and 0 becomes K + 1, which is not a code.
    digits = np.stack([(codes // base**place - 1) % base for place in (3, 2, 1, 0)])
    no_prediction, no_label = (digits[:2] > held).any(0), (digits[2:] > held).any(0)
    kept = ~(no_prediction | no_label)
    cells = np.array([(held + 1) ** place for place in (3, 2, 1, 0)], np.int64) @ digits[:, kept]
    return dataclasses.replace(
        confusion,
        cells=cells,
        counts=counts[kept].astype(np.int64),
        ignored=int(counts[no_label].sum()),
        unanswered=int(counts[no_prediction & ~no_label].sum()),
    )


def _digit(codes: NDArray[Any], held: int, ignore: int, name: str) -> NDArray[Any]:
    """Return codes 0..K as 1..K + 1 and ``ignore`` as 0; reject other values."""
    if codes.dtype == np.bool_:
        return codes.view(np.uint8) + np.uint8(1)
    if codes.dtype == np.uint8 and ignore == IGNORE:
        # The usual case takes two passes over bytes: 255 + 1 wraps to 0.
        digits: NDArray[Any] = codes + np.uint8(1)
        if codes.size == 0 or digits.max() <= held + 1:
            return digits
    if not np.issubdtype(codes.dtype, np.integer):
        raise InputError(f"the {name} map holds {codes.dtype} numbers, wanted integer class codes; round or argmax it")
    used = codes != ignore
    rest = codes * used  # several times faster than np.where
    for strange in (int(rest.min(initial=0)), int(rest.max(initial=0))):
        if not 0 <= strange <= held:
            raise InputError(
                f"the {name} map holds code {strange}, wanted 0..{held} or {ignore} for no label; "
                "check the encoding and the number of classes"
            )
    wide: NDArray[Any] = (rest.astype(np.uint16) + np.uint16(1)) * used
    return wide
