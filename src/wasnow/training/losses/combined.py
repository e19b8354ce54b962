"""Weighted sums of losses, as methods were trained with them, by their name in a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from wasnow.models.contract import ChangeLogits
from wasnow.training.config import LossName
from wasnow.training.losses.change import (
    change_balanced_cross_entropy,
    change_cross_entropy,
    change_dice,
    change_lovasz_softmax,
)
from wasnow.training.losses.classes import class_cross_entropy, class_dice, class_lovasz_softmax
from wasnow.training.losses.consistency import (
    cosine_consistency,
    probability_agreement,
    pseudo_class_cross_entropy,
    similarity_mse,
)
from wasnow.training.losses.target import Loss, LossFunction, Target, weighted


def ding_loss(output: ChangeLogits, target: Target, *, margin: float = 0.0) -> Loss:
    """Return the loss of SSCD-l, Bi-SRNet and TED; `scannet_loss` extends it.

    class_cross_entropy + change_balanced_cross_entropy(0.25, 0.75) + cosine_consistency(margin)

    Args:
        output: of a model with classes.
        target: the labels.
        margin: of `cosine_consistency`.
    """
    return weighted(
        classes=(1.0, class_cross_entropy(output, target)),
        change=(1.0, change_balanced_cross_entropy(output, target)),
        consistency=(1.0, cosine_consistency(output, target, margin=margin)),
    )


def scannet_loss(output: ChangeLogits, target: Target) -> Loss:
    """Return the loss of SCanNet: `ding_loss` with margin 0.1, plus `pseudo_class_cross_entropy`.

    In the published code the pseudo-labels come from the best network so far, averaged over four flips. Here they come
    from the network in training.
    """
    known = ding_loss(output, target, margin=0.1)
    pseudo = pseudo_class_cross_entropy(output, target)
    return Loss(known.total + pseudo, {**known.parts, "pseudo": pseudo.detach()})


def changemask_loss(output: ChangeLogits, target: Target) -> Loss:
    """Return the loss of ChangeMask in torchange; all terms have the same weight.

        CE_1 + Dice_1 + CE_2 + Dice_2 + CE_c + Dice_c + agreement

    The sums over the two dates are twice `class_cross_entropy` and `class_dice`; agreement is `probability_agreement`,
    which is not in the paper.
    """
    return weighted(
        classes=(2.0, class_cross_entropy(output, target)),
        class_dice=(2.0, class_dice(output, target)),
        change=(1.0, change_cross_entropy(output, target)),
        change_dice=(1.0, change_dice(output, target)),
        agreement=(1.0, probability_agreement(output, target)),
    )


def changemamba_loss(output: ChangeLogits, target: Target) -> Loss:
    """Return the loss of MambaSCD.

        CE_c + 1/2 (CE_1 + CE_2 + 1/2 MSE) + 3/4 (Lov_c + 1/2 (Lov_1 + Lov_2))

    CE_c is `change_cross_entropy`, Lov_c `change_lovasz_softmax`; the halves over the dates are inside
    `class_cross_entropy` and `class_lovasz_softmax`; MSE is `similarity_mse`.
    """
    return weighted(
        change=(1.0, change_cross_entropy(output, target)),
        classes=(1.0, class_cross_entropy(output, target)),
        similarity=(0.25, similarity_mse(output, target)),
        change_lovasz=(0.75, change_lovasz_softmax(output, target)),
        class_lovasz=(0.75, class_lovasz_softmax(output, target)),
    )


def change_loss(output: ChangeLogits, target: Target) -> Loss:
    """Return the first-stage loss of Semantic-CD (eq. 6), pixel cross-entropy on change; for any change model."""
    return weighted(change=(1.0, change_cross_entropy(output, target)))


def change_dice_loss(output: ChangeLogits, target: Target) -> Loss:
    """Return cross-entropy plus Dice of change, for data where only a few pixels in a thousand changed."""
    return weighted(change=(1.0, change_cross_entropy(output, target)), dice=(1.0, change_dice(output, target)))


def class_loss(output: ChangeLogits, target: Target, *, all_pixels: bool = False) -> Loss:
    """Return the cross-entropy over the labelled classes of each date: the second stage of Semantic-CD.

    Args:
        output: of a model with classes.
        target: the labels.
        all_pixels: divide by the number of all pixels, as in eq. 6, instead of the labelled ones.
    """
    return weighted(classes=(1.0, class_cross_entropy(output, target, all_pixels=all_pixels)))


def joint_loss(output: ChangeLogits, target: Target) -> Loss:
    """Return both losses of Semantic-CD in one: `change_loss` + `class_loss`."""
    return weighted(
        change=(1.0, change_cross_entropy(output, target)), classes=(1.0, class_cross_entropy(output, target))
    )


LOSSES: Mapping[LossName, LossFunction] = {
    "ding": ding_loss,
    "scannet": partial(ding_loss, margin=0.1),
    "scannet-pseudo": scannet_loss,
    "changemask": changemask_loss,
    "changemamba": changemamba_loss,
    "change": change_loss,
    "change-dice": change_dice_loss,
    "classes": class_loss,
    "classes-all-pixels": partial(class_loss, all_pixels=True),
    "joint": joint_loss,
}
"""The loss of a training stage, by `Stage.loss`."""
