"""Losses of the class logits at each date."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from wasnow.models.contract import ChangeLogits
from wasnow.training.losses.pixels import SMOOTH, class_targets, dice, labelled_pixels, lovasz_softmax, safe_ratio
from wasnow.training.losses.target import NO_CLASS, Target


def class_cross_entropy(output: ChangeLogits, target: Target, *, all_pixels: bool = False) -> Tensor:
    """Return the cross-entropy of the classes, averaged over the labelled pixels of each date, then over dates.

        1/2 sum_t 1/|L_t| sum_{L_t} -log p_t[c_t]

    The softmax is over all channels, including an unchanged channel.

    Args:
        output: of a model with classes.
        target: the labels.
        all_pixels: divide by the number N of all pixels of the batch instead of |L_t|. Eq. 6 of Semantic-CD is written
            so; where 1 % of the pixels are labelled, the loss is smaller by a factor of 100.
    """
    terms = []
    for logits, channels in class_targets(output, target):
        total = functional.cross_entropy(logits, channels, ignore_index=NO_CLASS, reduction="sum")
        count = channels.new_tensor(channels.numel()) if all_pixels else (channels != NO_CLASS).sum()
        terms.append(safe_ratio(total, count))
    return torch.stack(terms).mean()


def class_dice(output: ChangeLogits, target: Target, *, smooth: float = SMOOTH) -> Tensor:
    """Return the soft Dice loss, averaged over the K classes and the two dates.

        1/(2K) sum_t sum_c 1 - (2 sum_{L_t} p_t[c] [c_t = c] + smooth) / (sum_{L_t} (p_t[c] + [c_t = c]) + smooth)

    0..1. A class without labels is penalised for its predicted probability. An unchanged channel is part of the
    softmax and has no term of its own.
    """
    first = int(output.unchanged_channel)
    terms = []
    for p, channels in labelled_pixels(output, target):
        terms += [dice(p[:, c], (channels == c).to(p.dtype), smooth) for c in range(first, p.shape[1])]
    return torch.stack(terms).mean()


def class_lovasz_softmax(output: ChangeLogits, target: Target) -> Tensor:
    """Return the Lovasz-softmax, a surrogate of 1 - mean IoU over the labelled classes, averaged over the dates.

        1/2 sum_t mean_{c in labels of t} sum_i e_i g_i,      e = |[c_t = c] - p_t[c]| over L_t, descending

    with g as in `change_lovasz_hinge`. 0..1.

    Source: Berman et al. (CVPR 2018), section 3.2, with classes="present" and per_image=False of their code.
    """
    dates = labelled_pixels(output, target)
    return torch.stack([lovasz_softmax(p, channels) for p, channels in dates]).mean()
