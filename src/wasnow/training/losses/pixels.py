"""Pixels that enter a loss, and the building blocks that several losses share."""

from __future__ import annotations

import torch
from torch import Tensor

from wasnow.errors import UsageError
from wasnow.models.contract import ChangeLogits
from wasnow.training.losses.target import NO_CLASS, Target

SMOOTH = 1.0
"""Added to numerator and denominator of Dice: defined on empty sets, and tolerant of few pixels."""


def as_float(logits: Tensor) -> Tensor:
    """Return half precision as float32, other types unchanged."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def safe_ratio(total: Tensor, count: Tensor) -> Tensor:
    """Return ``total / count``; 0 for an empty set."""
    return total / count.clamp(min=1)


def safe_mean(each: Tensor) -> Tensor:
    """Return the mean; 0 for an empty tensor."""
    return each.sum() / max(1, each.numel())


def change_pixels(output: ChangeLogits, target: Target) -> tuple[Tensor, Tensor]:
    """Return change logits and labels of the valid pixels, ``(|V|,)`` floating point each.

    Ignored pixels are removed, not multiplied by 0: their values cannot reach loss or gradient.
    """
    z = as_float(output.change)
    check_shape(z, target)
    return z[:, 0][target.valid], target.change[target.valid].to(z.dtype)


def class_logits(output: ChangeLogits, target: Target) -> tuple[Tensor, Tensor]:
    """Return the class logits ``(B, C, H, W)`` of both dates.

    Raises:
        UsageError: the output has no classes.
    """
    if output.before is None or output.after is None:
        raise UsageError("this loss needs class logits and the model predicts change only; use the loss change")
    check_shape(output.before, target)
    check_shape(output.after, target)
    return as_float(output.before), as_float(output.after)


def class_targets(output: ChangeLogits, target: Target) -> list[tuple[Tensor, Tensor]]:
    """Return class logits ``(B, C, H, W)`` and labelled channels ``(B, H, W)`` or `NO_CLASS`, for each date.

    Raises:
        UsageError: the labels have no classes, or more than the output.
    """
    if target.before is None or target.after is None:
        raise UsageError("this loss needs class labels and the labels hold change only; use the loss change")
    dates = []
    for logits, classes in zip(class_logits(output, target), (target.before, target.after), strict=True):
        counts = target.valid & (classes != NO_CLASS)
        channels = torch.where(counts, classes + int(output.unchanged_channel), NO_CLASS)
        # An index out of range on a GPU ends the process without a usable message.
        if channels.numel() and (highest := int(channels.max())) >= logits.shape[1]:
            raise UsageError(
                f"the labels name channel {highest} and the model has {logits.shape[1]} (0..{logits.shape[1] - 1}); "
                f"check the number of classes and unchanged_channel={output.unchanged_channel}"
            )
        dates.append((logits, channels))
    return dates


def labelled_pixels(output: ChangeLogits, target: Target) -> list[tuple[Tensor, Tensor]]:
    """Return class probabilities ``(|L_t|, C)`` and channels ``(|L_t|,)`` of the labelled pixels of each date."""
    dates = []
    for logits, channels in class_targets(output, target):
        counts = channels != NO_CLASS
        dates.append((logits.movedim(1, -1)[counts].softmax(-1), channels[counts]))
    return dates


def check_shape(logits: Tensor, target: Target) -> None:
    """Check that logits and labels have the same pixels.

    Raises:
        UsageError: the shapes differ.
    """
    if logits.ndim != 4 or (logits.shape[0], *logits.shape[2:]) != tuple(target.change.shape):
        raise UsageError(
            f"the logits are {tuple(logits.shape)} and the labels {tuple(target.change.shape)}; "
            "resize the logits to (B, channels, H, W) of the labels"
        )


def dice(p: Tensor, y: Tensor, smooth: float) -> Tensor:
    """Return the soft Dice loss.

    Args:
        p: ``(n,)`` probabilities.
        y: ``(n,)`` labels 0 or 1.
        smooth: added to numerator and denominator.
    """
    return 1 - (2 * (p * y).sum() + smooth) / (p.sum() + y.sum() + smooth)


def lovasz_gradient(y: Tensor) -> Tensor:
    """Return the increments of 1 - IoU when the pixels become errors one after the other, in the given order.

    Args:
        y: ``(n,)`` labels 0 or 1, sorted by error, largest first.

    Returns:
        ``(n,)``, 0 or more, sum 1, without gradient. Algorithm 1 of Berman et al.
    """
    positive = y.long()  # integers: float32 is not exact above 16.7 million pixels
    total, missed, extra = positive.sum(), positive.cumsum(0), (1 - positive).cumsum(0)
    # The union is never 0: it contains every positive, and each negative from its own position on.
    jaccard = 1 - (total - missed).to(y.dtype) / (total + extra).to(y.dtype)
    return torch.diff(jaccard, prepend=jaccard.new_zeros(1))


def lovasz_softmax(p: Tensor, labels: Tensor) -> Tensor:
    """Return the mean over the present classes of the Lovasz extension of 1 - IoU; p is ``(n, C)``, labels ``(n,)``."""
    losses = []
    for c in torch.unique(labels).tolist():
        y = (labels == c).to(p.dtype)
        errors, order = torch.sort((y - p[:, c]).abs(), descending=True, stable=True)
        losses.append((errors * lovasz_gradient(y[order])).sum())
    return torch.stack(losses).mean() if losses else p.sum()
