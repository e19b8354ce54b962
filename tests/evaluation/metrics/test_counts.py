"""Counts: which pixels are left out, and which maps are rejected."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given

from evaluation.metrics.maps import LABELS, PREDICTED, SOME, both, same, scored
from wasnow.errors import InputError, UsageError
from wasnow.evaluation.metrics import Confusion, bootstrap, protocol_scores


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# ------------------------------------------------------------------------------------ left out and rejected pixels


def test_pixels_without_a_label_at_either_date_are_left_out_and_counted():
    labels = np.array([0, 255, 1, 1]), np.array([0, 1, 255, 2])
    s = scored((np.array([0, 3, 3, 1]), np.array([0, 3, 3, 2])), labels)
    assert (s.pixels, s.ignored, s.unanswered) == (2, 2, 0)
    assert s.from_to.oa == 1


def test_labelled_pixels_without_a_prediction_are_counted_separately_and_not_as_unchanged():
    predicted = np.array([0, 65535, 65535]), np.array([0, 65535, 65535])
    labels = np.array([0, 0, 65535]), np.array([0, 0, 65535])
    s = Confusion.of_classes(predicted, labels, 3, ignore=65535).scores()
    assert (s.pixels, s.ignored, s.unanswered) == (1, 1, 1)


def test_another_ignore_value_can_be_used():
    minus = [tuple(np.where(one == 3, -1, one) for one in pair) for pair in (PREDICTED, LABELS)]
    usual = [tuple(np.where(one == 3, 255, one) for one in pair) for pair in (PREDICTED, LABELS)]
    assert Confusion.of_classes(*minus, 6, ignore=-1) == Confusion.of_classes(*usual, 6)


def test_change_without_classes_has_binary_scores_and_reasons_for_the_others():
    predicted, labelled = np.array([True, True, False, False]), np.array([1, 0, 1, 255])
    s = Confusion.of_change(predicted, labelled).scores()
    assert (s.n_classes, s.pixels, s.ignored) == (0, 3, 1)
    assert s.binary.f1 == s.binary.precision == 0.5
    assert s.binary.iou_changed == pytest.approx(1 / 3)
    assert set(s.undefined) == {name for name in s.headline() if not name.startswith("binary")}
    assert all("without classes" in reason for reason in s.undefined.values())
    assert s.classes == s.transitions == s.before.classes == ()


@SOME
@given(both(n_classes=1, consistent=True))
def test_change_without_classes_scores_like_the_binary_view_of_classes(maps):
    (predicted, _), (labelled, _) = maps
    bare = Confusion.of_change(predicted > 0, labelled > 0).scores().headline()
    classed = Confusion.of_classes(*maps, 1).scores().headline()
    assert all(same(bare[name], classed[name]) for name in bare if name.startswith("binary"))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: scored(PREDICTED, LABELS, 5), "holds code 6, wanted 0..5 or 255"),
        (lambda: scored((PREDICTED[0][:5], PREDICTED[1]), LABELS, 6), r"\(20,\).*\(5,\).*one grid"),
        (lambda: scored((PREDICTED[0] - 1, PREDICTED[1]), LABELS, 6), "predicted before map holds code -1"),
        (lambda: scored((PREDICTED[0] / 2, PREDICTED[1]), LABELS, 6), "wanted integer class codes"),
        (lambda: Confusion.of_change(np.array([0, 7]), np.array([0, 1])), "holds code 7, wanted 0..1 or 255"),
        (lambda: protocol_scores(np.zeros((2, 3))), "square"),
        (lambda: protocol_scores([[1, -1], [0, 2]]), "counts of 0 or more"),
    ],
)
def test_an_invalid_map_is_rejected_with_what_was_found(wrong: Callable[[], object], words: str):
    with pytest.raises(InputError, match=words):
        wrong()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: Confusion.of_classes(PREDICTED, LABELS, 6, ignore=3), "choose a value outside"),
        (lambda: Confusion.of_classes(PREDICTED, LABELS, 0), "use of_change"),
        (lambda: Confusion.empty(256), "256 classes"),
        (lambda: Confusion.empty(2) + Confusion.empty(3), r"\[2, 3\] classes"),
        (lambda: Confusion.total([]), "at least one"),
        (lambda: bootstrap([Confusion.empty(2)]), "2 images or more"),
        (lambda: bootstrap([Confusion.empty(2)] * 2, level=1.0), "0 < level < 1"),
        (lambda: bootstrap([Confusion.empty(2)] * 2, n=0), "n >= 1"),
    ],
)
def test_an_invalid_argument_is_rejected_with_advice(wrong: Callable[[], object], words: str):
    with pytest.raises(UsageError, match=words):
        wrong()
