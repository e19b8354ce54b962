"""Losses against plain loops over pixels, the published definitions, and gradients by finite differences."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from wasnow.errors import UsageError
from wasnow.models.contract import ChangeLogits
from wasnow.training.losses import (
    LOSSES,
    NO_CLASS,
    Target,
    change_balanced_cross_entropy,
    change_cross_entropy,
    change_dice,
    change_dice_loss,
    change_loss,
    change_lovasz_hinge,
    change_lovasz_softmax,
    changemamba_loss,
    changemask_loss,
    class_cross_entropy,
    class_dice,
    class_loss,
    class_lovasz_softmax,
    cosine_consistency,
    ding_loss,
    joint_loss,
    probability_agreement,
    pseudo_class_cross_entropy,
    scannet_loss,
    similarity_mse,
    weighted,
)

B, K, H, W = 2, 3, 4, 5

LossOf = Callable[[ChangeLogits, Target], Tensor]

CHANGE: dict[str, LossOf] = {
    "cross entropy": change_cross_entropy,
    "balanced cross entropy": change_balanced_cross_entropy,
    "dice": change_dice,
    "lovasz hinge": change_lovasz_hinge,
    "lovasz softmax": change_lovasz_softmax,
    "stage 1": lambda output, target: change_loss(output, target).total,
}
CLASSES: dict[str, LossOf] = {
    "class cross entropy": class_cross_entropy,
    "class dice": class_dice,
    "class lovasz": class_lovasz_softmax,
    "cosine": cosine_consistency,
    "cosine with margin": functools.partial(cosine_consistency, margin=0.1),
    "similarity": similarity_mse,
    "agreement": probability_agreement,
    "pseudo-labels": pseudo_class_cross_entropy,
    "stage 2": lambda output, target: class_loss(output, target).total,
    "ding": lambda output, target: ding_loss(output, target).total,
    "changemamba": lambda output, target: changemamba_loss(output, target).total,
    "changemask": lambda output, target: changemask_loss(output, target).total,
    "scannet": lambda output, target: scannet_loss(output, target).total,
}
# With one channel more, first of all.
UNCHANGED: dict[str, LossOf] = {f"{name}, K + 1": loss for name, loss in CLASSES.items()}
ALL = [(name, loss, K + (name in UNCHANGED)) for name, loss in (CHANGE | CLASSES | UNCHANGED).items()]
TERMS = [one for one in ALL if not one[0].startswith(("ding", "changem", "scannet", "stage"))]
"""Without the recipes, which are weighted sums of these."""
each_loss = pytest.mark.parametrize(("loss", "channels"), [pytest.param(f, c, id=name) for name, f, c in ALL])


def outputs(channels: int = K, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> ChangeLogits:
    """Random logits of two dates that ask for gradients."""
    draw = torch.Generator().manual_seed(seed)

    def logits(n: int) -> Tensor:
        return torch.randn(B, n, H, W, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()

    return output_of(logits(1), logits(channels), logits(channels))


def output_of(change: Tensor, before: Tensor, after: Tensor) -> ChangeLogits:
    """An output of K channels, or of K + 1 with "unchanged" first."""
    return ChangeLogits(change, before, after, unchanged_channel=before.shape[1] == K + 1)


def labels(seed: int = 1) -> Target:
    """A third changed, a class unlabelled now and then, a tenth without a label."""
    draw = np.random.default_rng(seed)
    changed = draw.random((B, H, W)) < 0.35
    before, after = (np.where(changed, draw.integers(1, K + 1, (B, H, W)), 0) for _ in range(2))
    before[draw.random((B, H, W)) < 0.1] = 255
    return Target.of_codes(torch.from_numpy(before), torch.from_numpy(after))


def leaves(output: ChangeLogits) -> list[Tensor]:
    assert output.before is not None
    assert output.after is not None
    return [output.change, output.before, output.after]


def softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    raised = np.exp(values - values.max())
    return raised / raised.sum()


class Pixels:
    """The same output and labels as lists of pixels, for loops."""

    def __init__(self, output: ChangeLogits, target: Target) -> None:
        assert output.before is not None
        assert output.after is not None
        assert target.before is not None
        assert target.after is not None
        self.z: list[float] = []
        self.y: list[int] = []
        self.logits: tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]] = ([], [])
        self.classes: tuple[list[int], list[int]] = ([], [])
        for b, h, w in np.ndindex(*target.change.shape):
            if target.valid[b, h, w]:
                self.z.append(output.change[b, 0, h, w].item())
                self.y.append(int(target.change[b, h, w]))
                for date, (s, c) in enumerate([(output.before, target.before), (output.after, target.after)]):
                    self.logits[date].append(s[b, :, h, w].detach().numpy())
                    self.classes[date].append(int(c[b, h, w]))

    def labelled(self, date: int) -> list[tuple[NDArray[np.float64], int]]:
        """Probabilities and class of each labelled pixel of one date."""
        both = zip(self.logits[date], self.classes[date], strict=True)
        return [(softmax(s), c) for s, c in both if c != NO_CLASS]


def one_minus_iou(wrong: set[int], positives: set[int]) -> float:
    """1 - IoU of a prediction that gets exactly ``wrong`` wrong."""
    union = positives | wrong
    return len(wrong) / len(union) if union else 0.0


def lovasz_extension(errors: list[float], positives: set[int]) -> float:
    """The Lovasz extension from its definition: grow the set of wrong pixels by falling error, weigh the increments."""
    order = sorted(range(len(errors)), key=lambda i: -errors[i])
    total, wrong = 0.0, set[int]()
    for i in order:
        total += errors[i] * (one_minus_iou(wrong | {i}, positives) - one_minus_iou(wrong, positives))
        wrong |= {i}
    return total


@pytest.fixture(params=[0, 1, 2])
def case(request):
    output, target = outputs(seed=request.param), labels(request.param + 10)
    return output, target, Pixels(output, target)


# -------------------------------------------------------------------------------------- against loops over the pixels


def test_change_cross_entropy_is_the_mean_log_loss_of_valid_pixels(case):
    output, target, px = case
    plain = np.mean([math.log1p(math.exp(z)) - y * z for z, y in zip(px.z, px.y, strict=True)])
    assert change_cross_entropy(output, target).item() == pytest.approx(plain)


def test_change_cross_entropy_equals_the_two_class_form(case):
    output, target, _ = case
    two = torch.cat([torch.zeros_like(output.change), output.change], 1)
    coded = torch.where(target.valid, target.change.long(), -100)
    assert torch.allclose(change_cross_entropy(output, target), functional.cross_entropy(two, coded))


def test_balanced_cross_entropy_averages_changed_and_unchanged_pixels_separately(case):
    output, target, px = case
    log_loss = [(y, math.log1p(math.exp(-z if y else z))) for z, y in zip(px.z, px.y, strict=True)]
    changed, unchanged = ([loss for y, loss in log_loss if y == side] for side in (1, 0))
    plain = 0.25 * np.mean(changed) + 0.75 * np.mean(unchanged)
    assert change_balanced_cross_entropy(output, target).item() == pytest.approx(plain)


def test_balanced_cross_entropy_is_independent_of_repeated_unchanged_pixels():
    output, target = outputs(), labels()
    quiet = Target.of_change(torch.zeros(B, H, W, dtype=torch.bool))
    once = change_balanced_cross_entropy(output, target, negative=0.0)
    twice = change_balanced_cross_entropy(
        ChangeLogits(torch.cat([output.change] * 2)),
        Target(torch.cat([target.change, quiet.change]), torch.cat([target.valid, quiet.valid])),
        negative=0.0,
    )
    assert torch.allclose(once, twice)


def test_change_dice_is_its_equation(case):
    output, target, px = case
    q = [1 / (1 + math.exp(-z)) for z in px.z]
    both = sum(a * b for a, b in zip(q, px.y, strict=True))
    assert change_dice(output, target).item() == pytest.approx(1 - (2 * both + 1) / (sum(q) + sum(px.y) + 1))


def test_lovasz_hinge_is_the_lovasz_extension_of_the_jaccard_loss(case):
    output, target, px = case
    hinge = [max(0.0, 1 - z * (2 * y - 1)) for z, y in zip(px.z, px.y, strict=True)]
    positives = {i for i, y in enumerate(px.y) if y}
    assert change_lovasz_hinge(output, target).item() == pytest.approx(lovasz_extension(hinge, positives))


def test_lovasz_softmax_of_change_is_the_mean_extension_of_both_classes(case):
    output, target, px = case
    q = [1 / (1 + math.exp(-z)) for z in px.z]
    errors = [abs(y - p) for y, p in zip(px.y, q, strict=True)]
    sides = [lovasz_extension(errors, {i for i, y in enumerate(px.y) if y == side}) for side in (0, 1)]
    assert change_lovasz_softmax(output, target).item() == pytest.approx(np.mean(sides))


def test_class_cross_entropy_averages_labelled_pixels_then_dates(case):
    output, target, px = case
    plain = [np.mean([-math.log(p[c]) for p, c in px.labelled(date)]) for date in (0, 1)]
    assert class_cross_entropy(output, target).item() == pytest.approx(np.mean(plain))


def test_class_dice_is_its_equation(case):
    output, target, px = case
    terms = []
    for date in (0, 1):
        them = px.labelled(date)
        for c in range(K):
            both = sum(p[c] for p, label in them if label == c)
            sizes = sum(p[c] for p, _ in them) + sum(label == c for _, label in them)
            terms.append(1 - (2 * both + 1) / (sizes + 1))
    assert class_dice(output, target).item() == pytest.approx(np.mean(terms))


def test_class_lovasz_is_the_mean_extension_over_the_classes_present(case):
    output, target, px = case
    dates = []
    for date in (0, 1):
        them = px.labelled(date)
        dates.append(
            np.mean(
                [
                    lovasz_extension(
                        [abs((label == c) - p[c]) for p, label in them],
                        {i for i, (_, label) in enumerate(them) if label == c},
                    )
                    for c in {label for _, label in them}
                ]
            )
        )
    assert class_lovasz_softmax(output, target).item() == pytest.approx(np.mean(dates))


@pytest.mark.parametrize("margin", [0.0, 0.1, 0.9])
def test_cosine_consistency_is_its_equation(case, margin):
    output, target, px = case
    terms = []
    for first, second, y in zip(*px.logits, px.y, strict=True):
        p, q = softmax(first), softmax(second)
        cosine = p @ q / math.sqrt((p @ p) * (q @ q))
        terms.append(max(0.0, cosine - margin) if y else 1 - cosine)
    assert cosine_consistency(output, target, margin=margin).item() == pytest.approx(np.mean(terms))


def test_cosine_consistency_equals_the_cosine_embedding_of_torch():
    output = outputs(K + 1)
    target = Target.of_change(labels().change)
    _, before, after = leaves(output)
    flat = [one[:, 1:].softmax(1).movedim(1, -1).reshape(-1, K) for one in (before, after)]
    sign = 1 - 2 * target.change.reshape(-1).to(torch.float64)
    theirs = functional.cosine_embedding_loss(*flat, sign)
    assert torch.allclose(cosine_consistency(output, target), theirs)


def test_similarity_is_the_mean_over_all_pixels_of_masked_squares():
    output, target = outputs(K + 1), Target.of_change(labels().change)
    _, before, after = leaves(output)
    mask = (~target.change)[:, None].to(torch.float64)
    theirs = functional.mse_loss(before.softmax(1) * mask, after.softmax(1) * mask)
    assert torch.allclose(similarity_mse(output, target), theirs)


def test_an_unchanged_channel_is_part_of_the_softmax_and_never_a_label():
    output, target = outputs(K + 1), labels()
    _, before, after = leaves(output)
    assert target.before is not None
    assert target.after is not None
    dates = ((before, target.before), (after, target.after))
    # Their way: codes 0..K, of which 0 is ignored.
    theirs = [
        functional.cross_entropy(logits, torch.where(target.valid, classes + 1, 0), ignore_index=0)
        for logits, classes in dates
    ]
    ours = class_cross_entropy(output, target)
    assert torch.allclose(ours, torch.stack(theirs).mean())
    cut = output_of(output.change, before[:, 1:], after[:, 1:])
    assert ours > class_cross_entropy(cut, target)
    shifted = output_of(
        output.change, torch.cat([before[:, :1] + 3, before[:, 1:]], 1), torch.cat([after[:, :1] - 2, after[:, 1:]], 1)
    )
    assert torch.allclose(cosine_consistency(output, target), cosine_consistency(shifted, target))


# ------------------------------------------------------------------------------------------------- recipes as published


def test_the_ding_recipe_is_the_sum_of_its_three_terms():
    output, target = outputs(K + 1), labels()
    loss = ding_loss(output, target, margin=0.1)
    assert loss.parts.keys() == {"classes", "change", "consistency"}
    assert torch.allclose(loss.total, torch.stack(list(loss.parts.values())).sum())
    assert torch.allclose(loss.parts["consistency"], cosine_consistency(output, target, margin=0.1))


def test_the_changemamba_recipe_is_its_published_sum():
    output, target = outputs(K + 1), labels()
    parts = changemamba_loss(output, target).parts
    ce, lovasz = 2 * parts["classes"], 2 * parts["class_lovasz"]  # the sums over the two dates
    published = (
        parts["change"] + 0.5 * (ce + 0.5 * parts["similarity"]) + 0.75 * (parts["change_lovasz"] + 0.5 * lovasz)
    )
    assert torch.allclose(changemamba_loss(output, target).total, published)


def test_a_weighted_sum_reports_unweighted_terms_without_gradients():
    x = torch.tensor(3.0, requires_grad=True)
    loss = weighted(straight=(2.0, x), squared=(0.5, x * x))
    loss.total.backward()
    assert loss.total.item() == 10.5
    assert {name: part.item() for name, part in loss.parts.items()} == {"straight": 3.0, "squared": 9.0}
    assert not any(part.requires_grad for part in loss.parts.values())
    assert x.grad is not None
    assert x.grad.item() == 5.0
    with pytest.raises(ValueError, match="at least one"):
        weighted()


# ------------------------------------------------------------------------------------------------ every loss, gradients


@pytest.mark.parametrize(("loss", "channels"), [pytest.param(f, c, id=name) for name, f, c in TERMS])
def test_gradients_agree_with_finite_differences(loss, channels):
    output, target = outputs(channels), labels()

    def of(change: Tensor, before: Tensor, after: Tensor) -> Tensor:
        return loss(output_of(change, before, after), target)

    assert torch.autograd.gradcheck(of, leaves(output), eps=1e-7, atol=1e-5, fast_mode=True)


@each_loss
def test_gradients_reach_the_logits_that_a_loss_reads_and_no_ignored_pixel(loss, channels):
    output, target = outputs(channels), labels()
    loss(output, target).backward()
    grads = [one.grad for one in leaves(output) if one.grad is not None]
    assert any(grad.abs().sum() > 0 for grad in grads)
    for grad in grads:
        assert grad.isfinite().all()
        assert (grad.movedim(1, -1)[~target.valid] == 0).all()


SPECIAL = {
    "nothing changed": Target.of_codes(*torch.zeros(2, B, H, W, dtype=torch.uint8)),
    "everything changed": Target.of_codes(*torch.full((2, B, H, W), 2, dtype=torch.uint8)),
    "nothing labelled": Target.of_codes(*torch.full((2, B, H, W), 255, dtype=torch.uint8)),
}


@each_loss
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("what", SPECIAL)
def test_empty_sets_leave_loss_and_gradient_finite(loss, channels, what, scale):
    output = outputs(channels)
    scaled = output_of(*(one * scale for one in leaves(output)))
    value = loss(scaled, SPECIAL[what])
    value.backward()
    grads = [one.grad for one in leaves(output) if one.grad is not None]
    assert value.shape == ()
    assert value.isfinite()
    assert grads
    assert all(grad.isfinite().all() for grad in grads)
    if what == "nothing labelled":
        assert value == 0
        assert all((grad == 0).all() for grad in grads)


@each_loss
def test_the_values_of_ignored_pixels_do_not_matter(loss, channels):
    output, target = outputs(channels), labels()
    hidden = (~target.valid)[:, None]
    other = output_of(*(torch.where(hidden, torch.full_like(one, 77.0), one) for one in leaves(output)))
    assert torch.equal(loss(output, target), loss(other, target))


@each_loss
def test_half_precision_is_computed_in_float32(loss, channels):
    output, target = outputs(channels, dtype=torch.bfloat16), labels()
    value = loss(output, target)
    value.backward()
    assert value.dtype == torch.float32
    wide = output_of(*(one.detach().float() for one in leaves(output)))
    assert torch.equal(value.detach(), loss(wide, target))
    assert all(one.grad.dtype == torch.bfloat16 for one in leaves(output) if one.grad is not None)


@each_loss
def test_the_order_of_pixels_and_of_dates_does_not_matter(loss, channels):
    output, target = outputs(channels), labels()
    order = torch.randperm(B * H * W, generator=torch.Generator().manual_seed(2))

    def shuffled(tensor: Tensor | None) -> Tensor:
        assert tensor is not None
        flat = tensor.movedim(1, -1).reshape(B * H * W, -1) if tensor.ndim == 4 else tensor.reshape(B * H * W)
        return flat[order].T.reshape(1, -1, B * H, W) if tensor.ndim == 4 else flat[order].reshape(1, B * H, W)

    swapped = output_of(shuffled(output.change), shuffled(output.after), shuffled(output.before))
    relabelled = Target(
        shuffled(target.change), shuffled(target.valid), shuffled(target.after), shuffled(target.before)
    )
    assert torch.allclose(loss(output, target), loss(swapped, relabelled))


SURE = 60.0
NEVER_ZERO = ("ding", "dice", "class dice", "agreement", "changemask", "scannet")
PERFECT_IS_ZERO = [one for one in ALL if one[0].removesuffix(", K + 1") not in NEVER_ZERO]


@pytest.mark.parametrize(("loss", "channels"), [pytest.param(f, c, id=name) for name, f, c in PERFECT_IS_ZERO])
def test_a_certain_and_correct_output_has_no_loss(loss, channels):
    codes = torch.tensor([[[0, 0, 1, 2, 3]]]), torch.tensor([[[0, 0, 2, 3, 1]]])
    target = Target.of_codes(*codes)
    logits = []
    for one in codes:
        # Unchanged pixels output class 1 at both dates: equal, as the loss requires.
        index = one.clamp(min=1) - 1 + (channels - K)
        logits.append(SURE * functional.one_hot(index, channels).movedim(-1, 1).double())
    output = output_of(SURE * (2.0 * target.change[:, None].double() - 1), *logits)
    assert loss(output, target).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("loss", [pytest.param(f, id=name) for name, f in CHANGE.items()])
def test_a_larger_error_has_a_larger_loss(loss):
    target = labels()
    sign = 2.0 * target.change[:, None].double() - 1
    costs = [loss(ChangeLogits(strength * sign), target).item() for strength in (2.0, 0.5, 0.0, -0.5, -2.0)]
    assert costs == sorted(costs)
    assert costs[0] < costs[-1]


# -------------------------------------------------------------------------------------------------------------- targets


def test_codes_become_class_indices_from_zero_and_unlabelled_pixels_are_ignored():
    before = torch.tensor([[[0, 1, 3, 255, 2, 1]]], dtype=torch.uint8)
    after = torch.tensor([[[0, 2, 3, 1, 0, 255]]], dtype=torch.uint8)
    target = Target.of_codes(before, after)
    assert target.before is not None
    assert target.after is not None
    assert target.change.tolist() == [[[False, True, True, False, True, False]]]
    assert target.valid.tolist() == [[[True, True, True, False, True, False]]]
    assert target.before.tolist() == [[[NO_CLASS, 0, 2, NO_CLASS, 1, NO_CLASS]]]
    assert target.after.tolist() == [[[NO_CLASS, 1, 2, NO_CLASS, NO_CLASS, NO_CLASS]]]


def test_change_masks_give_a_target_without_classes():
    target = Target.of_change(torch.tensor([[[0, 1, 255]]], dtype=torch.uint8))
    assert target.change.tolist() == [[[False, True, False]]]
    assert target.valid.tolist() == [[[True, True, False]]]
    assert target.before is None


def test_a_target_keeps_its_values_on_another_device():
    there = labels().to("meta")
    assert there.before is not None
    assert there.after is not None
    assert {one.device.type for one in (there.change, there.valid, there.before, there.after)} == {"meta"}
    assert Target.of_change(labels().change).to("meta").before is None


@pytest.mark.parametrize(
    ("change", "valid", "classes", "words"),
    [
        (torch.zeros(1, 2, 2), torch.ones(1, 2, 2).bool(), None, "wanted .* torch.bool"),
        (torch.zeros(1, 2, 2).bool(), torch.ones(2, 2).bool(), None, "valid is"),
        (torch.zeros(1, 2, 2).bool(), torch.ones(1, 2, 2).bool(), torch.zeros(1, 2, 2), "wanted .* torch.int64"),
    ],
)
def test_a_target_with_wrong_shape_or_type_is_rejected(change, valid, classes, words):
    with pytest.raises(ValueError, match=words):
        Target(change, valid, classes, classes)


def test_classes_of_one_date_only_are_rejected():
    with pytest.raises(ValueError, match="of both dates or of neither"):
        Target(torch.zeros(1, 1, 1).bool(), torch.ones(1, 1, 1).bool(), torch.zeros(1, 1, 1).long())


def test_the_joint_loss_is_the_sum_of_both_stages_and_reports_both():
    output, target = outputs(), labels()
    joint, change, classes = (loss(output, target) for loss in (joint_loss, change_loss, class_loss))
    assert torch.allclose(joint.total, change.total + classes.total)
    assert joint.parts == {**change.parts, **classes.parts}


def test_a_class_loss_rejects_outputs_and_labels_without_classes():
    output, target = outputs(), labels()
    with pytest.raises(UsageError, match="model predicts change only; use the loss change"):
        class_loss(ChangeLogits(output.change), target)
    with pytest.raises(UsageError, match="labels hold change only"):
        class_loss(output, Target.of_change(target.change))


def test_labels_beyond_the_channels_of_the_model_are_rejected():
    target = Target.of_codes(*torch.full((2, B, H, W), K, dtype=torch.uint8))
    with pytest.raises(UsageError, match=r"channel 3 and the model has 3 \(0..2\).*unchanged_channel=True"):
        class_loss(replace(outputs(K), unchanged_channel=True), target)


@each_loss
def test_logits_of_another_size_are_rejected(loss, channels):
    target = labels()
    small = output_of(*(one[..., ::2] for one in leaves(outputs(channels))))
    with pytest.raises(UsageError, match="resize the logits"):
        loss(small, target)


def test_the_dice_loss_of_change_adds_cross_entropy():
    torch.manual_seed(0)
    output = ChangeLogits(torch.randn(2, 1, 8, 8))
    target = Target.of_change(torch.randint(0, 2, (2, 8, 8), dtype=torch.uint8))
    both = change_dice_loss(output, target)
    expected = change_loss(output, target).total + change_dice(output, target)
    assert torch.allclose(both.total, expected)


def test_equation_6_divides_the_class_loss_by_all_pixels():
    output, target = outputs(), labels()
    assert target.before is not None
    assert target.after is not None
    twice = ChangeLogits(output.change, output.before, output.before)
    by_label = class_cross_entropy(twice, replace(target, after=target.before))
    by_pixel = class_cross_entropy(twice, replace(target, after=target.before), all_pixels=True)
    labelled = (target.valid & (target.before != NO_CLASS)).sum()
    assert 0 < labelled < target.valid.numel()
    assert by_pixel.item() == pytest.approx(by_label.item() * labelled.item() / target.valid.numel())
    assert LOSSES["classes-all-pixels"](output, target).total.item() < class_loss(output, target).total.item()
