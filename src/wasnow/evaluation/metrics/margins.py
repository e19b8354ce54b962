"""Margins of a confusion matrix, and the equations of all scores on them.

`Margins` holds what a score needs of one matrix. `Views` holds the margins of one set of pixels in each protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


def transition_codes(before: Counts, after: Counts, n_classes: int) -> Counts:
    """Return 0 for unchanged, ``(before - 1) K + after`` as in `Vocabulary`, then 2 K codes for one-date classes.

    Args:
        before: ``(M,)`` class codes 0..K at the first date.
        after: ``(M,)`` class codes 0..K at the second date.
        n_classes: K.
    """
    regular = (before - 1) * n_classes + after
    only_before = n_classes**2 + before
    only_after = n_classes**2 + n_classes + after
    code = np.where(after == 0, np.where(before == 0, 0, only_before), np.where(before == 0, only_after, regular))
    return code.astype(np.int64)


def transition_classes(code: int, n_classes: int) -> tuple[int, int]:
    """Return the classes before and after of a ``code`` of `transition_codes`."""
    if code <= n_classes**2:
        before, after = divmod(code - 1, n_classes)
        return before + 1, after + 1
    one = code - n_classes**2
    return (one, 0) if one <= n_classes else (0, one - n_classes)


@dataclass(frozen=True, slots=True)
class Margins:
    """Row sums, column sums and diagonal of a confusion matrix, ``(..., n)`` each. Leading axes are resamples.

    Every score depends on these alone. They are linear in the images, so resampling images is one matrix product, and
    a large vocabulary needs no matrix of transitions by transitions.
    """

    rows: Floats
    cols: Floats
    diagonal: Floats

    @classmethod
    def of_matrix(cls, matrix: NDArray[Any]) -> Margins:
        """Return the margins of a ``(n, n)`` matrix."""
        return cls(
            matrix.sum(1).astype(np.float64), matrix.sum(0).astype(np.float64), matrix.diagonal().astype(np.float64)
        )

    @classmethod
    def of_codes(cls, predicted: Counts, labelled: Counts, counts: Counts, n: int) -> Margins:
        """Return the margins of weighted code pairs.

        Args:
            predicted: ``(M,)`` codes 0..n-1.
            labelled: ``(M,)`` codes 0..n-1.
            counts: ``(M,)`` pixels of each pair.
            n: number of codes.
        """
        right = predicted == labelled
        return cls(
            np.bincount(predicted, counts, n).astype(np.float64),
            np.bincount(labelled, counts, n).astype(np.float64),
            np.bincount(predicted[right], counts[right], n).astype(np.float64),
        )

    def __add__(self, other: Margins) -> Margins:
        return Margins(self.rows + other.rows, self.cols + other.cols, self.diagonal + other.diagonal)


@dataclass(frozen=True, slots=True)
class Views:
    """The margins of one set of pixels in each view; ``classes`` is False if the maps hold no classes."""

    binary: Margins
    before: Margins
    after: Margins
    from_to: Margins
    classes: bool

    @property
    def stacked(self) -> Margins:
        """Both dates pooled."""
        return self.before + self.after

    @classmethod
    def of(cls, codes: tuple[Counts, Counts, Counts, Counts], counts: Counts, n_classes: int) -> Views:
        """Compute the margins.

        Args:
            codes: ``(M,)`` each: predicted before and after, labelled before and after.
            counts: ``(M,)`` pixels of each combination.
            n_classes: K; 0 for maps without classes, which hold one unnamed class.
        """
        held = max(1, n_classes)
        before, after, label_before, label_after = codes
        predicted, labelled = transition_codes(before, after, held), transition_codes(label_before, label_after, held)
        return cls(
            Margins.of_codes(np.minimum(predicted, 1), np.minimum(labelled, 1), counts, 2),
            Margins.of_codes(before, label_before, counts, held + 1),
            Margins.of_codes(after, label_after, counts, held + 1),
            Margins.of_codes(predicted, labelled, counts, (held + 1) ** 2),
            n_classes > 0,
        )

    def headline(self) -> dict[str, Floats]:
        """Return every headline score by dotted name; leading axes as in the margins."""
        views: dict[str, dict[str, Floats]] = {
            "binary": binary_equations(self.binary),
            "stacked": protocol_equations(self.stacked),
            "from_to": protocol_equations(self.from_to),
            "before": {"miou": mean_iou(self.before)},
            "after": {"miou": mean_iou(self.after)},
        }
        return {
            f"{view}.{name}": value if self.classes or view == "binary" else np.full_like(value, np.nan)
            for view, values in views.items()
            for name, value in values.items()
        }


def ratio(part: Floats, whole: Floats) -> Floats:
    """Return ``part / whole``; NaN without a warning where both are 0 (a part is never larger than its whole)."""
    with np.errstate(invalid="ignore"):
        return part / whole


def kappa_of(rows: Floats, cols: Floats, agreed: Floats) -> Floats:
    """Return Cohen's kappa from row sums, column sums and trace; NaN without counts or if chance agreement is 1."""
    total = rows.sum(-1)
    po = ratio(agreed, total)
    pe = ratio((rows * cols).sum(-1), total * total)
    return ratio(po - pe, 1 - pe)


def protocol_equations(m: Margins) -> dict[str, Floats]:
    """Return the scores of `ProtocolScores`, which gives the equations."""
    total, same = m.rows.sum(-1), m.diagonal[..., 0]
    row0, col0 = m.rows[..., 0], m.cols[..., 0]
    hit = m.diagonal[..., 1:].sum(-1)
    both_changed = total - row0 - col0 + same
    iou_unchanged = ratio(same, row0 + col0 - same)
    iou_changed = ratio(both_changed, total - same)
    # H^ differs from H only in element (0, 0), hence only in the first row and column sum and the trace.
    corner = np.zeros(m.rows.shape[-1])
    corner[0] = 1
    kappa = kappa_of(m.rows - same[..., None] * corner, m.cols - same[..., None] * corner, hit)
    miou = (iou_unchanged + iou_changed) / 2
    sek = kappa * np.exp(iou_changed - 1)
    return {
        "oa": ratio(same + hit, total),
        "binary_oa": ratio(same + both_changed, total),
        "iou_unchanged": iou_unchanged,
        "iou_changed": iou_changed,
        "miou": miou,
        "kappa": kappa,
        "sek": sek,
        "precision": ratio(hit, total - row0),
        "recall": ratio(hit, total - col0),
        "fscd": ratio(2 * hit, 2 * total - row0 - col0),
        "score": 0.3 * miou + 0.7 * sek,
    }


def binary_equations(m: Margins) -> dict[str, Floats]:
    """Return the scores of `BinaryScores`, which gives the equations."""
    (tn, tp), (_, predicted), (_, labelled) = (np.moveaxis(one, -1, 0) for one in (m.diagonal, m.rows, m.cols))
    total = m.rows.sum(-1)
    iou_changed, iou_unchanged = ratio(tp, predicted + labelled - tp), ratio(tn, total - tp)
    return {
        "precision": ratio(tp, predicted),
        "recall": ratio(tp, labelled),
        "f1": ratio(2 * tp, predicted + labelled),
        "iou_changed": iou_changed,
        "iou_unchanged": iou_unchanged,
        "miou": (iou_changed + iou_unchanged) / 2,
        "oa": ratio(tp + tn, total),
        "kappa": kappa_of(m.rows, m.cols, tp + tn),
    }


def mean_iou(m: Margins) -> Floats:
    """Return the mean IoU of the codes 1.. that occur."""
    iou = ratio(m.diagonal, m.rows + m.cols - m.diagonal)[..., 1:]
    occurs = ~np.isnan(iou)
    return ratio(np.where(occurs, iou, 0).sum(-1), occurs.sum(-1).astype(np.float64))
