"""Losses that compare the class predictions of the two dates, and pseudo-labels of unchanged pixels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from wasnow.models.contract import ChangeLogits
from wasnow.training.losses.classes import class_cross_entropy
from wasnow.training.losses.pixels import class_logits, safe_mean, safe_ratio
from wasnow.training.losses.target import NO_CLASS, Target

MAX_THRESHOLD = 0.9
"""The largest probability that a pseudo-label requires."""


def cosine_consistency(output: ChangeLogits, target: Target, *, margin: float = 0.0) -> Tensor:
    """Return a loss that is low for equal classes on unchanged and different classes on changed pixels.

        1/|V| [ sum_N (1 - cos(p_1, p_2)) + sum_P max(0, cos(p_1, p_2) - margin) ]             0..1

    p_t is the softmax over the K classes, without an unchanged channel. Probabilities are not negative, so cos is in
    0..1.

    Args:
        output: of a model with classes.
        target: the labels.
        margin: cosine on changed pixels up to which the loss is 0.

    Source: "semantic consistency loss" of Ding et al., Bi-SRNet (2022; margin 0), and SCanNet (2024; margin 0.1).
    """
    first, second = (logits[:, int(output.unchanged_channel) :].softmax(1) for logits in class_logits(output, target))
    cosine = functional.cosine_similarity(first, second, dim=1)
    each = torch.where(target.change, functional.relu(cosine - margin), 1 - cosine)
    return safe_mean(each[target.valid])


def similarity_mse(output: ChangeLogits, target: Target) -> Tensor:
    """Return the mean squared difference of the class probabilities of the two dates on unchanged pixels.

        1/(C |V|) sum_N sum_c (p_1[c] - p_2[c])^2

    C counts all channels, including an unchanged one. As in the public code, the mean is over all valid pixels, so a
    batch with more change has a smaller loss.

    Source: the code of Chen et al., ChangeMamba (2024).
    """
    first, second = (logits.softmax(1) for logits in class_logits(output, target))
    each = (first - second).square().mean(1)
    return safe_ratio(each[target.valid & ~target.change].sum(), target.valid.sum())


def probability_agreement(output: ChangeLogits, target: Target) -> Tensor:
    """Return a loss on class probabilities: equal on unchanged pixels, different on changed ones.

        1/(C |V|) [ sum_N sum_c (p_1[c] - p_2[c])^2 + sum_P sum_c 1 - (p_1[c] - p_2[c])^2 ]             0..1

    C counts all channels, including an unchanged one. A certain change from one class to another costs 1 - 2/C.

    Source: torchange (Zheng), with the losses of ChangeMask.
    """
    first, second = (logits.softmax(1) for logits in class_logits(output, target))
    square = (first - second).square().mean(1)
    return safe_mean(torch.where(target.change, 1 - square, square)[target.valid])


@torch.no_grad()
def pseudo_classes(output: ChangeLogits, target: Target, *, max_threshold: float = MAX_THRESHOLD) -> Tensor:
    """Return pseudo-labels: the class that both dates predict with high probability on unchanged pixels.

    At each date, k is the most probable channel of a pixel and q its probability. The pixel is reliable if

        q >= min(max_threshold, median of q over the valid pixels with channel k at this date)

    so at least half of the pixels of every class are reliable. If k is the same class at both dates, both dates are
    reliable and the pixel is labelled unchanged, k is the pseudo-label. An "unchanged" channel competes for k and is
    never a pseudo-label.

    Args:
        output: of the network in training, or of a better one.
        target: the change labels.
        max_threshold: largest required probability, 0..1.

    Returns:
        ``(B, H, W)`` int64 class index, `NO_CLASS` elsewhere.

    Source: Ding et al., SCanNet (2024), section III-C, and their code.
    """
    predicted, reliable = [], []
    for logits in class_logits(output, target):
        q, channel = logits.softmax(1).max(1)
        least = torch.full((logits.shape[1],), max_threshold, dtype=q.dtype, device=q.device)
        for k in torch.unique(channel[target.valid]).tolist():
            # torch returns the lower of two middle values, as the authors' sorting does.
            least[k] = q[target.valid & (channel == k)].median().clamp(max=max_threshold)
        predicted.append(channel - int(output.unchanged_channel))
        reliable.append(q >= least[channel])
    agreed = reliable[0] & reliable[1] & (predicted[0] == predicted[1]) & target.valid & ~target.change
    return torch.where(agreed, predicted[0], NO_CLASS)


def pseudo_class_cross_entropy(
    output: ChangeLogits, target: Target, *, teacher: ChangeLogits | None = None, max_threshold: float = MAX_THRESHOLD
) -> Tensor:
    """Return `class_cross_entropy` on the unchanged pixels that have a pseudo-label, see `pseudo_classes`.

    Args:
        output: of the network in training.
        target: the change labels; class labels are not used.
        teacher: output that gives the pseudo-labels; None: ``output`` itself.
        max_threshold: see `pseudo_classes`.
    """
    found = pseudo_classes(output if teacher is None else teacher, target, max_threshold=max_threshold)
    return class_cross_entropy(output, Target(target.change, target.valid, found, found))
