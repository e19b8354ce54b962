"""The label maps of one pair, and how class labels and change labels are combined."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wasnow.data.encodings import UNCHANGED
from wasnow.vocabulary import NO_LABEL

Codes = NDArray[np.uint8]


@dataclass(frozen=True)
class Labels:
    """The reconciled label maps of one pair; see `wasnow.data.samples.Sample`."""

    before_classes: Codes | None
    after_classes: Codes | None
    change: Codes | None


def reconcile(before: Codes | None, after: Codes | None, change: Codes | None, *, dense: bool) -> Labels:
    """Combine up to three label maps into consistent labels.

    Args:
        before: ``(H, W)`` codes of the first date.
        after: ``(H, W)`` codes of the second date.
        change: ``(H, W)`` 0, 1, 255; None derives it from the classes.
        dense: the class maps name a class at every pixel, so that change is where they differ. Otherwise change is
            where either is not 0.
    """
    if before is None or after is None:
        return Labels(None, None, change)
    unlabelled = (before == NO_LABEL) | (after == NO_LABEL)
    if change is None:
        changed = before != after if dense else (before != UNCHANGED) | (after != UNCHANGED)
        change = np.where(unlabelled, np.uint8(NO_LABEL), changed.astype(np.uint8))
        outside = unlabelled
    else:
        outside = change == NO_LABEL
    # Where the change label says changed and a class map says unchanged, the class is unknown.
    maps = [
        np.where(codes == UNCHANGED, np.uint8(NO_LABEL), codes) if not dense else codes for codes in (before, after)
    ]
    changed = change == 1
    before, after = (
        np.where(changed, codes, np.where(outside, NO_LABEL, UNCHANGED)).astype(np.uint8) for codes in maps
    )
    return Labels(before, after, change)


def either_changed(before: Codes, after: Codes) -> Codes:
    """Combine two binary masks (appeared, disappeared) into one change map."""
    unlabelled = (before == NO_LABEL) | (after == NO_LABEL)
    return np.where(unlabelled, np.uint8(NO_LABEL), ((before == 1) | (after == 1)).astype(np.uint8))
