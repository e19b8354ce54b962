"""Random class maps, published worked cases and short forms, for the tests of scores."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wasnow.evaluation.metrics import Confusion, Scores

Pair = tuple[NDArray[np.integer], NDArray[np.integer]]

SOME = settings(deadline=None, max_examples=40)
"""No deadline: test machines are shared."""

# fmt: off
SMALL = [[70, 4, 2], [5, 8, 1], [3, 1, 6]]
SEVEN = [
    [8000, 10, 150, 90, 30, 120, 5], [12, 40, 4, 3, 1, 2, 0], [210, 5, 420, 80, 10, 60, 4],
    [130, 3, 70, 260, 40, 12, 1], [40, 1, 6, 50, 70, 4, 0], [150, 2, 55, 10, 5, 480, 3], [8, 0, 3, 1, 0, 4, 12],
]
LABELS = (np.array([0] * 10 + [1, 1, 2, 2, 3, 3, 4, 5, 5, 6]), np.array([0] * 10 + [2, 5, 5, 3, 5, 2, 5, 2, 2, 5]))
PREDICTED = (
    np.array([0] * 8 + [2, 5, 1, 2, 2, 2, 0, 3, 3, 5, 5, 6]), np.array([0] * 8 + [5, 2, 2, 5, 5, 2, 0, 2, 5, 2, 3, 5]),
)
# fmt: on


def codes(n_classes: int, size: int, *, consistent: bool, ignore: bool = False) -> st.SearchStrategy[Pair]:
    """Codes of both dates; ``consistent`` maps have a class at both dates or at none."""
    values = list(itertools.product(range(n_classes + 1), repeat=2))
    if consistent:
        values = [(a, b) for a, b in values if (a > 0) == (b > 0)]
    if ignore:
        values += [(255, 255), (255, 0)]
    # Half of the drawn pixels are unchanged, as in real labels.
    pixel = st.one_of(st.just((0, 0)), st.sampled_from(values))
    return st.lists(pixel, min_size=size, max_size=size).map(lambda them: tuple(np.array(them, np.int64).T))  # type: ignore[arg-type,return-value]


def both(n_classes: int = 3, size: int = 24, **how: bool) -> st.SearchStrategy[tuple[Pair, Pair]]:
    return st.tuples(codes(n_classes, size, **how), codes(n_classes, size, **how))  # type: ignore[arg-type]


def scored(predicted: Pair, labelled: Pair, n_classes: int = 3) -> Scores:
    return Confusion.of_classes(predicted, labelled, n_classes).scores()


def same(one: float, other: float) -> bool:
    return one == pytest.approx(other, rel=1e-12, abs=1e-12, nan_ok=True)
