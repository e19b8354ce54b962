"""Losses: functions of a model's output and of the labels.

    ChangeLogits(change, before, after)  ─┐
                                          ├─> loss(output, target) ──> one number with a gradient
    Target(change, valid, before, after) ─┘

    target        the labels of a batch, and the value of a loss
    change        losses of the change logit
    classes       losses of the class logits
    consistency   losses between the two dates, and pseudo-labels
    combined      sums of these, as methods were trained with them ──> Loss(total, parts by name)

In the equations z is the change logit of a pixel and y its label (1 changed); s_t[c] are its class logits at date t,
p_t = softmax(s_t), and c_t its labelled class. V are the valid pixels, P and N the changed and unchanged ones among
them, L_t the pixels with a labelled class at date t; |.| counts pixels over the whole batch. Both dates have the same
weight.

**The unchanged channel.** Most published models were trained with K + 1 class logits, where channel 0 is "unchanged".
Labels never name it, but it is part of the softmax denominator. Such an output sets `ChangeLogits.unchanged_channel`:
class c of the labels is then channel c + 1, otherwise channel c.

Every loss is finite, with a finite gradient, on any finite logits. The term of an empty set is 0 and remains part of
the graph (a gradient of zeros, as distributed training requires). Half precision is computed in float32.
"""

from __future__ import annotations

from wasnow.training.losses.change import (
    change_balanced_cross_entropy,
    change_cross_entropy,
    change_dice,
    change_lovasz_hinge,
    change_lovasz_softmax,
)
from wasnow.training.losses.classes import class_cross_entropy, class_dice, class_lovasz_softmax
from wasnow.training.losses.combined import (
    LOSSES,
    change_dice_loss,
    change_loss,
    changemamba_loss,
    changemask_loss,
    class_loss,
    ding_loss,
    joint_loss,
    scannet_loss,
)
from wasnow.training.losses.consistency import (
    cosine_consistency,
    probability_agreement,
    pseudo_class_cross_entropy,
    pseudo_classes,
    similarity_mse,
)
from wasnow.training.losses.target import NO_CLASS, Loss, LossFunction, Target, weighted

__all__ = [
    "LOSSES",
    "NO_CLASS",
    "Loss",
    "LossFunction",
    "Target",
    "change_balanced_cross_entropy",
    "change_cross_entropy",
    "change_dice",
    "change_dice_loss",
    "change_loss",
    "change_lovasz_hinge",
    "change_lovasz_softmax",
    "changemamba_loss",
    "changemask_loss",
    "class_cross_entropy",
    "class_dice",
    "class_loss",
    "class_lovasz_softmax",
    "cosine_consistency",
    "ding_loss",
    "joint_loss",
    "probability_agreement",
    "pseudo_class_cross_entropy",
    "pseudo_classes",
    "scannet_loss",
    "similarity_mse",
    "weighted",
]
