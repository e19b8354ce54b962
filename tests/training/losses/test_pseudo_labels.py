"""Pseudo-labels of unchanged pixels, computed by hand, and the agreement of two dates against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from wasnow.models.contract import ChangeLogits
from wasnow.training.losses import (
    NO_CLASS,
    Target,
    class_cross_entropy,
    ding_loss,
    probability_agreement,
    pseudo_class_cross_entropy,
    pseudo_classes,
    scannet_loss,
)


def named(*pixels: tuple[int, float], classes: int = 3) -> Tensor:
    """Logits ``(1, classes, 1, n)`` of pixels with one class at a given probability and the others equal."""
    p = torch.full((classes, len(pixels)), 0.0, dtype=torch.float64)
    for column, (name, q) in enumerate(pixels):
        p[:, column] = (1 - q) / (classes - 1)
        p[name, column] = q
    return p.log()[None, :, None]


def output(before: Tensor, after: Tensor, *, unchanged_channel: bool = False) -> ChangeLogits:
    return ChangeLogits(torch.zeros_like(before[:, :1]), before, after, unchanged_channel=unchanged_channel)


def target(changed: list[int], *, valid: list[int] | None = None) -> Target:
    change = torch.tensor(changed).bool()[None, None]
    known = torch.ones_like(change) if valid is None else torch.tensor(valid).bool()[None, None]
    return Target(change, known)


def test_the_more_probable_half_of_a_class_gets_pseudo_labels_where_dates_agree():
    # Class 0 is named with .5 .6 .7 .8 at either date: the lower middle is .6, so the first pixel is not sure.
    both = named((0, 0.5), (0, 0.6), (0, 0.7), (0, 0.8))
    found = pseudo_classes(output(both, both), target([0, 0, 0, 0]))
    assert found.tolist() == [[[NO_CLASS, 0, 0, 0]]]


def test_one_unreliable_date_gives_no_pseudo_label():
    before = named((0, 0.5), (0, 0.6), (0, 0.7))  # sure from .6
    after = named((0, 0.7), (0, 0.6), (0, 0.5))
    assert pseudo_classes(output(before, after), target([0, 0, 0])).tolist() == [[[NO_CLASS, 0, NO_CLASS]]]


def test_different_classes_at_both_dates_give_no_pseudo_label():
    before, after = named((0, 0.9), (1, 0.9)), named((0, 0.9), (2, 0.9))
    assert pseudo_classes(output(before, after), target([0, 0])).tolist() == [[[0, NO_CLASS]]]


def test_every_class_has_its_own_threshold():
    # Class 0 is named with .95 .95 .95, class 1 with .4 .5: a class that is never sure is still heard.
    both = named((0, 0.95), (0, 0.95), (0, 0.95), (1, 0.4), (1, 0.5))
    assert pseudo_classes(output(both, both), target([0] * 5)).tolist() == [[[0, 0, 0, 1, 1]]]


def test_no_threshold_exceeds_nine_tenths():
    # The middle of .91 .96 .98 is .96, of which .9 is asked.
    both = named((0, 0.91), (0, 0.96), (0, 0.98))
    assert pseudo_classes(output(both, both), target([0, 0, 0])).tolist() == [[[0, 0, 0]]]
    assert pseudo_classes(output(both, both), target([0, 0, 0]), max_threshold=0.97).tolist() == [[[NO_CLASS, 0, 0]]]


def test_changed_pixels_count_for_the_threshold_and_get_no_pseudo_label():
    both = named((0, 0.5), (0, 0.6), (0, 0.7), (0, 0.4))
    found = pseudo_classes(output(both, both), target([0, 1, 1, 0], valid=[1, 1, 1, 0]))
    assert found.tolist() == [[[NO_CLASS, NO_CLASS, NO_CLASS, NO_CLASS]]]  # the middle of .5 .6 .7 is .6
    found = pseudo_classes(output(both, both), target([0, 0, 1, 0], valid=[1, 1, 1, 0]))
    assert found.tolist() == [[[NO_CLASS, 0, NO_CLASS, NO_CLASS]]]


def test_unchanged_is_a_channel_and_never_a_pseudo_class():
    both = named((0, 0.9), (1, 0.8), (2, 0.7))
    found = pseudo_classes(output(both, both, unchanged_channel=True), target([0, 0, 0]))
    assert found.tolist() == [[[NO_CLASS, 0, 1]]]


def test_the_loss_is_the_cross_entropy_of_the_pseudo_labels_at_both_dates():
    before, after = named((0, 0.5), (0, 0.6), (1, 0.7)), named((0, 0.5), (0, 0.8), (2, 0.7))
    both = output(before, after)
    # Of two that name a class the lower one is the middle, so both are sure; the third pixel is named differently.
    by_hand = (-(math.log(0.5) + math.log(0.6)) / 2 - (math.log(0.5) + math.log(0.8)) / 2) / 2
    assert pseudo_class_cross_entropy(both, target([0, 0, 0])).item() == pytest.approx(by_hand)


def test_pseudo_labels_can_come_from_another_network():
    learner = output(named((2, 0.5), (0, 0.5)), named((1, 0.5), (0, 0.5)))
    teacher = output(named((0, 0.9), (0, 0.9)), named((0, 0.9), (1, 0.9)))
    by_hand = -math.log(0.25)  # what is left to class 0 by a learner that gives half to another
    loss = pseudo_class_cross_entropy(learner, target([0, 0]), teacher=teacher)
    assert loss.item() == pytest.approx(by_hand)


def test_pseudo_labels_have_no_gradient():
    teacher = output(*(named((0, 0.9)).requires_grad_() for _ in range(2)))
    learner = output(*(named((1, 0.5)).requires_grad_() for _ in range(2)))
    pseudo_class_cross_entropy(learner, target([0]), teacher=teacher).backward()
    assert teacher.before.grad is None
    assert learner.before.grad.abs().sum() > 0


def test_scannet_learns_from_labels_and_pseudo_labels():
    draw = torch.Generator().manual_seed(0)
    change, before, noise = (torch.randn(2, n, 4, 5, generator=draw) for n in (1, 4, 4))
    it = ChangeLogits(change, before, before + 0.1 * noise, unchanged_channel=True)
    codes = torch.randint(1, 4, (2, 2, 4, 5), generator=draw)
    codes[:, :, 1:] = 0  # three rows of four did not change
    what = Target.of_codes(*codes)
    loss, known = scannet_loss(it, what), ding_loss(it, what, margin=0.1)
    assert loss.parts.keys() == {*known.parts, "pseudo"}
    found = pseudo_classes(it, what)
    assert (found != NO_CLASS).any()
    pseudo = class_cross_entropy(it, Target(what.change, what.valid, found, found))
    assert torch.allclose(loss.total, known.total + pseudo)


def test_agreement_is_its_equation():
    draw = np.random.default_rng(0)
    first, second = draw.standard_normal((2, 1, 3, 2, 4))
    changed, valid = draw.random((1, 2, 4)) < 0.5, draw.random((1, 2, 4)) < 0.8
    terms = []
    for row, col in zip(*np.nonzero(valid[0]), strict=True):
        p, q = (np.exp(one[0, :, row, col]) / np.exp(one[0, :, row, col]).sum() for one in (first, second))
        square = (p - q) ** 2
        terms.append(np.mean(1 - square if changed[0, row, col] else square))
    it = output(torch.from_numpy(first), torch.from_numpy(second))
    what = Target(torch.from_numpy(changed), torch.from_numpy(valid))
    assert probability_agreement(it, what).item() == pytest.approx(np.mean(terms))


def test_a_certain_change_of_class_costs_one_minus_two_over_the_channels():
    before, after = named((0, 1 - 1e-12), classes=4), named((1, 1 - 1e-12), classes=4)
    assert probability_agreement(output(before, after), target([1])).item() == pytest.approx(1 - 2 / 4)
    assert probability_agreement(output(before, before), target([0])).item() == pytest.approx(0)
