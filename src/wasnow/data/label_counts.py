"""Pixel counts of the labels of some samples: changed, unchanged, without a label, and by transition."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wasnow.data.labels import Labels
from wasnow.vocabulary import NO_LABEL


@dataclass(frozen=True)
class LabelCounts:
    """Label statistics of some samples, in pixels. Counts of different samples can be added.

    Attributes:
        images: number of samples counted.
        changed: changed pixels.
        unchanged: unchanged pixels.
        no_label: pixels without a label.
        transitions: ``(K + 1, K + 1)`` int64: changed pixels by class before (rows) and after (columns). Index 0 is an
            unknown class.
    """

    images: int
    changed: int
    unchanged: int
    no_label: int
    transitions: NDArray[np.int64]

    @classmethod
    def of(cls, labels: Labels, classes: int) -> LabelCounts:
        """Count the labels of one sample; ``classes`` is the number of class words."""
        transitions = np.zeros((classes + 1, classes + 1), np.int64)
        if labels.change is None:
            return cls(1, 0, 0, 0, transitions)
        counts = np.bincount(labels.change.ravel(), minlength=256)
        if labels.before_classes is not None and labels.after_classes is not None:
            changed = labels.change == 1
            before = labels.before_classes[changed].astype(np.int64)
            after = labels.after_classes[changed].astype(np.int64)
            before[before == NO_LABEL] = 0
            after[after == NO_LABEL] = 0
            side = classes + 1
            transitions += np.bincount(before * side + after, minlength=side * side).reshape(side, side)
        return cls(1, int(counts[1]), int(counts[0]), int(counts[NO_LABEL]), transitions)

    def __add__(self, other: LabelCounts) -> LabelCounts:
        return LabelCounts(
            self.images + other.images,
            self.changed + other.changed,
            self.unchanged + other.unchanged,
            self.no_label + other.no_label,
            self.transitions + other.transitions,
        )

    @property
    def change_share(self) -> float:
        """Share of changed pixels among the labelled ones, 0..1; NaN without labelled pixels."""
        labelled = self.changed + self.unchanged
        return self.changed / labelled if labelled else float("nan")

    def class_shares(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the share of each class among the changed pixels before and after, ``(K,)`` each, 0..1."""
        before, after = self.transitions.sum(axis=1)[1:], self.transitions.sum(axis=0)[1:]
        return before / max(int(before.sum()), 1), after / max(int(after.sum()), 1)
