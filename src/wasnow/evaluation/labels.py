"""Labels of a pair in the form that scores use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wasnow.errors import InputError
from wasnow.evaluation.metrics import IGNORE

if TYPE_CHECKING:
    from wasnow.data.samples import Sample


def labels(sample: Sample) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    """Return class codes of both dates: 0 unchanged, 255 not labelled; None without class labels.

    If land cover is labelled on all pixels, the change mask sets unchanged pixels to 0.
    """
    if sample.before_classes is None or sample.after_classes is None:
        return None
    dates = []
    for codes in (sample.before_classes, sample.after_classes):
        if sample.change is not None:
            codes = np.where(sample.change == 0, 0, np.where(sample.change == IGNORE, IGNORE, codes)).astype(np.uint8)
        dates.append(codes)
    return dates[0], dates[1]


def change_labels(sample: Sample) -> NDArray[np.uint8]:
    """Return change labels ``(H, W)``: 0 unchanged, 1 changed, 255 not labelled.

    Raises:
        InputError: the sample has no labels.
    """
    if sample.change is not None:
        return sample.change
    both = labels(sample)
    if both is None:
        raise InputError(f"{sample.name} has no labels; remove it or add its label files")
    hidden = (both[0] == IGNORE) | (both[1] == IGNORE)
    change: NDArray[np.uint8] = np.where(hidden, IGNORE, (both[0] > 0) | (both[1] > 0)).astype(np.uint8)
    return change


def unlabelled(sample: Sample) -> bool:
    """Return whether a pair has neither change labels nor class labels of both dates."""
    return sample.change is None and (sample.before_classes is None or sample.after_classes is None)
