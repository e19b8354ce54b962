"""Losses of the change logit."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from wasnow.models.contract import ChangeLogits
from wasnow.training.losses.pixels import (
    SMOOTH,
    change_pixels,
    dice,
    lovasz_gradient,
    lovasz_softmax,
    safe_mean,
    safe_ratio,
)
from wasnow.training.losses.target import Target


def change_cross_entropy(output: ChangeLogits, target: Target) -> Tensor:
    """Return the binary cross-entropy of the change logit.

        1/|V| sum_V [ log(1 + e^z) - y z ]

    Equal to the two-class cross-entropy of the logits (0, z).
    """
    z, y = change_pixels(output, target)
    return safe_mean(functional.binary_cross_entropy_with_logits(z, y, reduction="none"))


def change_balanced_cross_entropy(
    output: ChangeLogits, target: Target, *, positive: float = 0.25, negative: float = 0.75
) -> Tensor:
    """Return the binary cross-entropy, averaged separately over changed and unchanged pixels, then weighted.

        positive/|P| sum_P log(1 + e^-z) + negative/|N| sum_N log(1 + e^z)

    Counts are over the whole batch. The changed pixels together have the smaller weight, but each of them weighs more
    than an unchanged one as long as they are fewer than a quarter. The term of an empty P or N is 0.

    Args:
        output: of a model.
        target: the labels.
        positive: weight of the changed pixels.
        negative: weight of the unchanged pixels.

    Source: the code of Ding et al., Bi-SRNet (2022), with these weights.
    """
    z, y = change_pixels(output, target)
    each = functional.binary_cross_entropy_with_logits(z, y, reduction="none")
    return positive * safe_ratio((each * y).sum(), y.sum()) + negative * safe_ratio(
        (each * (1 - y)).sum(), (1 - y).sum()
    )


def change_dice(output: ChangeLogits, target: Target, *, smooth: float = SMOOTH) -> Tensor:
    """Return the soft Dice loss of the changed pixels over the whole batch; q = sigmoid(z).

        1 - (2 sum_V q y + smooth) / (sum_V q + sum_V y + smooth)                              0..1

    Source: Milletari et al., V-Net (2016), without squares in the denominator.
    """
    z, y = change_pixels(output, target)
    return dice(z.sigmoid(), y, smooth)


def change_lovasz_hinge(output: ChangeLogits, target: Target) -> Tensor:
    """Return the Lovasz hinge, a convex surrogate of 1 - IoU of the changed pixels over the whole batch.

        errors m = 1 - z (2 y - 1), in descending order;   sum_i max(0, m_i) g_i                  0 or more

    g is the discrete gradient of 1 - IoU in this order (`lovasz_gradient`). Without changed pixels it is the hinge of
    the pixel with the largest error.

    Source: Berman et al., "The Lovasz-Softmax loss" (CVPR 2018), section 3.1.
    """
    z, y = change_pixels(output, target)
    order = torch.argsort(1 - z * (2 * y - 1), descending=True, stable=True)
    z, y = z[order], y[order]
    return (functional.relu(1 - z * (2 * y - 1)) * lovasz_gradient(y)).sum()


def change_lovasz_softmax(output: ChangeLogits, target: Target) -> Tensor:
    """Return the Lovasz-softmax over unchanged and changed, of the softmax of (0, z): see `class_lovasz_softmax`."""
    z, y = change_pixels(output, target)
    return lovasz_softmax(torch.stack([(-z).sigmoid(), z.sigmoid()], 1), y.long())
