"""What the labels of a pair say, as scores count them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wasnow.errors import InputError
from wasnow.evaluation.metrics import IGNORE

if TYPE_CHECKING:
    from wasnow.data.samples import Sample


def labels(sample: Sample) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    """Class codes of both dates as scores count them: 0 where unchanged, 255 where not labelled; None without classes.

    Land cover that is labelled everywhere (not only where it changed) is cut down by the change mask.
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
    """``(H, W)`` 0 unchanged, 1 changed, 255 not labelled.

    Raises:
        InputError: the sample has no labels.
    """
    if sample.change is not None:
        return sample.change
    both = labels(sample)
    if both is None:
        raise InputError(f"{sample.name} has no labels; leave it out, or add its label files")
    hidden = (both[0] == IGNORE) | (both[1] == IGNORE)
    change: NDArray[np.uint8] = np.where(hidden, IGNORE, (both[0] > 0) | (both[1] > 0)).astype(np.uint8)
    return change


def unlabelled(sample: Sample) -> bool:
    """Whether nothing is known of a pair: no change, and not the classes of both dates."""
    return sample.change is None and (sample.before_classes is None or sample.after_classes is None)
