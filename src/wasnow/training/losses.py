"""Losses: functions of a model's answer and of what the labels say.

    ChangeLogits(change, before, after)  ─┐
                                          ├─> loss(answer, target) ──> one number with a gradient
    Target(change, valid, before, after) ─┘

    recipes   ding_loss   scannet_loss   changemask_loss   changemamba_loss
              change_loss   class_loss   joint_loss   ──> Loss(total, parts by name)

In the equations z is the change logit of a pixel and y its label (1 changed); s_t[c] are its class logits at date t,
p_t = softmax(s_t), and c_t its labelled class. V are the valid pixels, P and N the changed and unchanged ones of them,
L_t the pixels with a labelled class at date t; |.| counts them over the whole batch. Both dates weigh the same.

**The unchanged channel.** Most published models were trained with K + 1 class logits, channel 0 being "unchanged":
labels never name it, yet it stands in the denominator of the softmax. Such an answer says so itself
(`ChangeLogits.unchanged_channel`): class c of the labels is then channel c + 1, and otherwise channel c.

Every loss is finite, with a finite gradient, on any finite logits: where a set is empty, its term is 0 and still joined
to the graph (a gradient of zeros, as distributed training needs). Half precision is computed in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from wasnow.errors import UsageError
from wasnow.models.contract import ChangeLogits

NO_CLASS = -1
"""The class index of a pixel whose class is not labelled: unchanged in SECOND, or not annotated."""

SMOOTH = 1.0
"""Added above and below in Dice: keeps it defined on nothing, and forgives a few wrong pixels of a small object."""


# ----------------------------------------------------------------------------------------------------------- the values


@dataclass(frozen=True, slots=True)
class Target:
    """What the labels say of a batch, as losses need it.

    Attributes:
        change: ``(B, H, W)`` bool, True where the ground changed; anything where not valid.
        valid: ``(B, H, W)`` bool, True where the labels say whether it changed.
        before: ``(B, H, W)`` int64 class index 0..K-1 at the first date, `NO_CLASS` where not labelled; None for
            labels of change alone.
        after: the same for the second date; None exactly where ``before`` is None.

    Raises:
        ValueError: shapes or types are not these.
    """

    change: Tensor
    valid: Tensor
    before: Tensor | None = None
    after: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.before is None) != (self.after is None):
            raise ValueError("before and after classes come together or not at all")
        for name, wanted in (
            ("change", torch.bool),
            ("valid", torch.bool),
            ("before", torch.int64),
            ("after", torch.int64),
        ):
            tensor: Tensor | None = getattr(self, name)
            if tensor is None:
                continue
            if tensor.ndim != 3 or tensor.shape != self.change.shape or tensor.dtype != wanted:
                raise ValueError(
                    f"target {name} is {tuple(tensor.shape)} {tensor.dtype}, wanted (B, H, W) {wanted} "
                    f"like change {tuple(self.change.shape)}"
                )

    @classmethod
    def of_codes(cls, before: Tensor, after: Tensor, *, ignore: int = 255) -> Target:
        """From class codes as `Vocabulary.encode` writes them and datasets like SECOND store them.

        Args:
            before: ``(B, H, W)`` integers: 0 unchanged, 1..K the classes, ``ignore`` not labelled.
            after: the same for the second date. A pixel counts as changed where either date has a class, and as not
                labelled where either date is not.
            ignore: the code of pixels without a label.
        """
        valid = (before != ignore) & (after != ignore)
        first, second = (torch.where(valid, codes.long(), 0) for codes in (before, after))
        return cls((first > 0) | (second > 0), valid, first - 1, second - 1)

    @classmethod
    def of_change(cls, change: Tensor, *, ignore: int = 255) -> Target:
        """From ``(B, H, W)`` codes 0 unchanged, 1 changed, ``ignore`` not labelled; or bool."""
        if change.dtype == torch.bool:
            return cls(change, torch.ones_like(change))
        return cls(change == 1, change != ignore)

    def to(self, device: torch.device | str) -> Target:
        """The same on another device."""
        before, after = (None if one is None else one.to(device) for one in (self.before, self.after))
        return Target(self.change.to(device), self.valid.to(device), before, after)


@dataclass(frozen=True, slots=True)
class Loss:
    """A weighted sum of losses, and what it is made of.

    Attributes:
        total: the number to call ``backward`` on.
        parts: each term before its weight, by name, detached: for logging.
    """

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)


LossFunction = Callable[[ChangeLogits, Target], Loss]
"""What a training stage is given."""


def weighted(**terms: tuple[float, Tensor]) -> Loss:
    """``total = sum of weight * term``, with every term reported by its name.

    Example:
        ``weighted(change=(1.0, change_dice(answer, target)), classes=(0.5, class_dice(answer, target)))``

    Raises:
        ValueError: no terms are given.
    """
    if not terms:
        raise ValueError("a weighted sum of no losses; give at least one term")
    summands = [weight * term for weight, term in terms.values()]
    return Loss(torch.stack(summands).sum(), {name: term.detach() for name, (_, term) in terms.items()})


# ------------------------------------------------------------------------------------------------- changed or unchanged


def change_cross_entropy(answer: ChangeLogits, target: Target) -> Tensor:
    """Binary cross-entropy of the change logit.

        1/|V| sum_V [ log(1 + e^z) - y z ]

    It equals the two-class cross-entropy of the logits (0, z).
    """
    z, y = _change(answer, target)
    return _mean(functional.binary_cross_entropy_with_logits(z, y, reduction="none"))


def change_balanced_cross_entropy(
    answer: ChangeLogits, target: Target, *, positive: float = 0.25, negative: float = 0.75
) -> Tensor:
    """Binary cross-entropy averaged over the changed and over the unchanged pixels, then weighted.

        positive/|P| sum_P log(1 + e^-z) + negative/|N| sum_N log(1 + e^z)

    The two counts are of the whole batch. The changed pixels together get the smaller weight; each one still weighs
    more than an unchanged one while they are fewer than a quarter. An empty P or N leaves its term out.

    Source: the code of Ding et al., Bi-SRNet (2022), with these weights.
    """
    z, y = _change(answer, target)
    each = functional.binary_cross_entropy_with_logits(z, y, reduction="none")
    return positive * _ratio((each * y).sum(), y.sum()) + negative * _ratio((each * (1 - y)).sum(), (1 - y).sum())


def change_dice(answer: ChangeLogits, target: Target, *, smooth: float = SMOOTH) -> Tensor:
    """Soft Dice of the changed pixels, over the whole batch; with q = sigmoid(z).

        1 - (2 sum_V q y + smooth) / (sum_V q + sum_V y + smooth)                              0..1

    Source: Milletari et al., V-Net (2016), without their squares.
    """
    z, y = _change(answer, target)
    return _dice(z.sigmoid(), y, smooth)


def change_lovasz_hinge(answer: ChangeLogits, target: Target) -> Tensor:
    """The Lovasz hinge: a convex surrogate of 1 - IoU of the changed pixels, over the whole batch.

        errors m = 1 - z (2 y - 1), sorted downwards;   sum_i max(0, m_i) g_i                  0 or more

    with g the discrete gradient of 1 - IoU along that order (`_lovasz_gradient`). Where nothing is changed, it is the
    hinge of the single worst pixel.

    Source: Berman et al., "The Lovasz-Softmax loss" (CVPR 2018), section 3.1.
    """
    z, y = _change(answer, target)
    order = torch.argsort(1 - z * (2 * y - 1), descending=True, stable=True)
    z, y = z[order], y[order]
    return (functional.relu(1 - z * (2 * y - 1)) * _lovasz_gradient(y)).sum()


def change_lovasz_softmax(answer: ChangeLogits, target: Target) -> Tensor:
    """Lovasz-softmax over unchanged and changed, of the softmax of (0, z): see `class_lovasz_softmax`."""
    z, y = _change(answer, target)
    return _lovasz_softmax(torch.stack([(-z).sigmoid(), z.sigmoid()], 1), y.long())


# --------------------------------------------------------------------------------------------------- from what, to what


def class_cross_entropy(answer: ChangeLogits, target: Target) -> Tensor:
    """Cross-entropy of the classes, averaged over the labelled pixels of each date, then over the two dates.

        1/2 sum_t 1/|L_t| sum_{L_t} -log p_t[c_t]

    The softmax runs over all channels, so an unchanged channel takes part in it.
    """
    terms = []
    for logits, channels in _classes(answer, target):
        total = functional.cross_entropy(logits, channels, ignore_index=NO_CLASS, reduction="sum")
        terms.append(_ratio(total, (channels != NO_CLASS).sum()))
    return torch.stack(terms).mean()


def class_dice(answer: ChangeLogits, target: Target, *, smooth: float = SMOOTH) -> Tensor:
    """Soft Dice, averaged over the K classes and the two dates.

        1/(2K) sum_t sum_c 1 - (2 sum_{L_t} p_t[c] [c_t = c] + smooth) / (sum_{L_t} (p_t[c] + [c_t = c]) + smooth)

    0..1. A class that no label names still pays for the probability that it is given. An unchanged channel takes
    part in the softmax, but has no term of its own.
    """
    first = int(answer.unchanged_channel)
    terms = []
    for p, channels in _labelled(answer, target):
        terms += [_dice(p[:, c], (channels == c).to(p.dtype), smooth) for c in range(first, p.shape[1])]
    return torch.stack(terms).mean()


def class_lovasz_softmax(answer: ChangeLogits, target: Target) -> Tensor:
    """Lovasz-softmax: a surrogate of 1 - mean IoU, over the classes that the batch's labels name, then over the dates.

        1/2 sum_t mean_{c in labels of t} sum_i e_i g_i,      e = |[c_t = c] - p_t[c]| over L_t, sorted downwards

    with g as in `change_lovasz_hinge`. 0..1.

    Source: Berman et al. (CVPR 2018), section 3.2, with classes="present" and per_image=False of their code.
    """
    dates = _labelled(answer, target)
    return torch.stack([_lovasz_softmax(p, channels) for p, channels in dates]).mean()


# ----------------------------------------------------------------------------------------------- one date and the other


def cosine_consistency(answer: ChangeLogits, target: Target, *, margin: float = 0.0) -> Tensor:
    """Class answers alike where nothing changed, and unlike where something did.

        1/|V| [ sum_N (1 - cos(p_1, p_2)) + sum_P max(0, cos(p_1, p_2) - margin) ]             0..1

    Here p_t is the softmax over the K classes alone: an unchanged channel is cut off before it. Probabilities are never
    negative, so cos lies in 0..1.

    Source: "semantic consistency loss" of Ding et al., Bi-SRNet (2022; margin 0), and SCanNet (2024; margin 0.1).
    """
    first, second = (logits[:, int(answer.unchanged_channel) :].softmax(1) for logits in _both(answer, target))
    cosine = functional.cosine_similarity(first, second, dim=1)
    each = torch.where(target.change, functional.relu(cosine - margin), 1 - cosine)
    return _mean(each[target.valid])


def similarity_mse(answer: ChangeLogits, target: Target) -> Tensor:
    """Squared difference of the two dates' class probabilities on unchanged pixels.

        1/(C |V|) sum_N sum_c (p_1[c] - p_2[c])^2

    C are all channels, an unchanged one included. The mean is over all valid pixels and not over the unchanged ones:
    so it is in public code, and a batch that changed much weighs it less.

    Source: the code of Chen et al., ChangeMamba (2024).
    """
    first, second = (logits.softmax(1) for logits in _both(answer, target))
    each = (first - second).square().mean(1)
    return _ratio(each[target.valid & ~target.change].sum(), target.valid.sum())


def probability_agreement(answer: ChangeLogits, target: Target) -> Tensor:
    """Class probabilities that are the same where nothing changed, and differ where something did.

        1/(C |V|) [ sum_N sum_c (p_1[c] - p_2[c])^2 + sum_P sum_c 1 - (p_1[c] - p_2[c])^2 ]             0..1

    C are all channels, an unchanged one included. A sure change from one class to another still costs 1 - 2/C.

    Source: torchange (Zheng), beside the losses of ChangeMask.
    """
    first, second = (logits.softmax(1) for logits in _both(answer, target))
    square = (first - second).square().mean(1)
    return _mean(torch.where(target.change, 1 - square, square)[target.valid])


# -------------------------------------------------------------------------------------- what unchanged pixels could be

SUREST = 0.9
"""No class asks for more probability than this."""


@torch.no_grad()
def pseudo_classes(answer: ChangeLogits, target: Target, *, surest: float = SUREST) -> Tensor:
    """The class of unchanged pixels that both dates name and are sure of.

    At each date a pixel names its likeliest channel k, with probability q. It is sure where

        q >= min(surest, median of q over the valid pixels that name k at this date)

    so half of the pixels of every class are, however sure the network is as a whole. Where k is the same class at both
    dates, both are sure, and the labels say that nothing changed, k is the pseudo-label. The channel "unchanged", where
    there is one, takes part and is never a pseudo-label.

    Args:
        answer: of the network that is learning, or of a better one.
        target: what the labels say of change.
        surest: see above, 0..1.

    Returns:
        ``(B, H, W)`` int64 class index, `NO_CLASS` elsewhere.

    Source: Ding et al., SCanNet (2024), section III-C, and their code.
    """
    named, sure = [], []
    for logits in _both(answer, target):
        q, channel = logits.softmax(1).max(1)
        least = torch.full((logits.shape[1],), surest, dtype=q.dtype, device=q.device)
        for k in torch.unique(channel[target.valid]).tolist():
            # torch takes the lower of two middle values, as the authors' sorting does.
            least[k] = q[target.valid & (channel == k)].median().clamp(max=surest)
        named.append(channel - int(answer.unchanged_channel))
        sure.append(q >= least[channel])
    agreed = sure[0] & sure[1] & (named[0] == named[1]) & target.valid & ~target.change
    return torch.where(agreed, named[0], NO_CLASS)


def pseudo_class_cross_entropy(
    answer: ChangeLogits, target: Target, *, teacher: ChangeLogits | None = None, surest: float = SUREST
) -> Tensor:
    """`class_cross_entropy` of the unchanged pixels that have a pseudo-label, see `pseudo_classes`.

    Args:
        answer: what learns.
        target: what the labels say of change; their classes are not looked at.
        teacher: whose answer makes the pseudo-labels; None: ``answer`` itself, as it stands.
        surest: see `pseudo_classes`.
    """
    found = pseudo_classes(answer if teacher is None else teacher, target, surest=surest)
    return class_cross_entropy(answer, Target(target.change, target.valid, found, found))


# -------------------------------------------------------------------------------------------------------------- recipes


def ding_loss(answer: ChangeLogits, target: Target, *, margin: float = 0.0) -> Loss:
    """What SSCD-l, Bi-SRNet and TED were trained with; SCanNet too, see `scannet_loss`.

    class_cross_entropy + change_balanced_cross_entropy(0.25, 0.75) + cosine_consistency(margin)
    """
    return weighted(
        classes=(1.0, class_cross_entropy(answer, target)),
        change=(1.0, change_balanced_cross_entropy(answer, target)),
        consistency=(1.0, cosine_consistency(answer, target, margin=margin)),
    )


def scannet_loss(answer: ChangeLogits, target: Target) -> Loss:
    """What SCanNet was trained with: `ding_loss` with margin 0.1, and `pseudo_class_cross_entropy`.

    In the published code a copy of the network makes the pseudo-labels: the one that scored best so far, averaged over
    four flips. Here it is the network itself, as it stands.
    """
    known = ding_loss(answer, target, margin=0.1)
    pseudo = pseudo_class_cross_entropy(answer, target)
    return Loss(known.total + pseudo, {**known.parts, "pseudo": pseudo.detach()})


def changemask_loss(answer: ChangeLogits, target: Target) -> Loss:
    """What torchange trains ChangeMask with, every term weighing the same.

        CE_1 + Dice_1 + CE_2 + Dice_2 + CE_c + Dice_c + agreement

    The sums over the two dates are twice `class_cross_entropy` and `class_dice`; agreement is `probability_agreement`,
    which the paper did not have.
    """
    return weighted(
        classes=(2.0, class_cross_entropy(answer, target)),
        class_dice=(2.0, class_dice(answer, target)),
        change=(1.0, change_cross_entropy(answer, target)),
        change_dice=(1.0, change_dice(answer, target)),
        agreement=(1.0, probability_agreement(answer, target)),
    )


def changemamba_loss(answer: ChangeLogits, target: Target) -> Loss:
    """What MambaSCD was trained with.

        CE_c + 1/2 (CE_1 + CE_2 + 1/2 MSE) + 3/4 (Lov_c + 1/2 (Lov_1 + Lov_2))

    CE_c is `change_cross_entropy`, Lov_c `change_lovasz_softmax`; the halves over the dates are inside
    `class_cross_entropy` and `class_lovasz_softmax`; MSE is `similarity_mse`.
    """
    return weighted(
        change=(1.0, change_cross_entropy(answer, target)),
        classes=(1.0, class_cross_entropy(answer, target)),
        similarity=(0.25, similarity_mse(answer, target)),
        change_lovasz=(0.75, change_lovasz_softmax(answer, target)),
        class_lovasz=(0.75, class_lovasz_softmax(answer, target)),
    )


def change_loss(answer: ChangeLogits, target: Target) -> Loss:
    """Semantic-CD, first stage (eq. 6): pixel cross-entropy on change. Serves any model of change without classes."""
    return weighted(change=(1.0, change_cross_entropy(answer, target)))


def change_dice_loss(answer: ChangeLogits, target: Target) -> Loss:
    """Cross-entropy and Dice of change, weighing the same: for change that is a few pixels in a thousand."""
    return weighted(change=(1.0, change_cross_entropy(answer, target)), dice=(1.0, change_dice(answer, target)))


def class_loss(answer: ChangeLogits, target: Target) -> Loss:
    """Semantic-CD, second stage (eq. 6): cross-entropy over the land-cover classes of each date, the rest ignored."""
    return weighted(classes=(1.0, class_cross_entropy(answer, target)))


def joint_loss(answer: ChangeLogits, target: Target) -> Loss:
    """Both stages of Semantic-CD in one: `change_loss` + `class_loss`, weighing the same."""
    return weighted(
        change=(1.0, change_cross_entropy(answer, target)), classes=(1.0, class_cross_entropy(answer, target))
    )


# ---------------------------------------------------------------------------------------------------------------- parts


def _wide(logits: Tensor) -> Tensor:
    """Half precision as float32; the rest as it is."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _ratio(total: Tensor, count: Tensor) -> Tensor:
    """``total / count``; 0 (of an empty total) where the count is 0."""
    return total / count.clamp(min=1)


def _mean(each: Tensor) -> Tensor:
    """The mean, and 0 of nothing."""
    return each.sum() / max(1, each.numel())


def _change(answer: ChangeLogits, target: Target) -> tuple[Tensor, Tensor]:
    """Change logits and labels ``(|V|,)`` of the valid pixels, both floating.

    Ignored pixels are taken out, not multiplied by 0: whatever stands there cannot reach loss or gradient.
    """
    z = _wide(answer.change)
    _same_pixels(z, target)
    return z[:, 0][target.valid], target.change[target.valid].to(z.dtype)


def _both(answer: ChangeLogits, target: Target) -> tuple[Tensor, Tensor]:
    """Class logits ``(B, C, H, W)`` of both dates."""
    if answer.before is None or answer.after is None:
        raise UsageError("this loss needs class logits, and the model answers change alone; train it with change_loss")
    _same_pixels(answer.before, target)
    _same_pixels(answer.after, target)
    return _wide(answer.before), _wide(answer.after)


def _classes(answer: ChangeLogits, target: Target) -> list[tuple[Tensor, Tensor]]:
    """For each date class logits ``(B, C, H, W)`` and labelled channels ``(B, H, W)``, `NO_CLASS` where none counts."""
    if target.before is None or target.after is None:
        raise UsageError("this loss needs labelled classes, and the labels say change alone; train with change_loss")
    dates = []
    for logits, classes in zip(_both(answer, target), (target.before, target.after), strict=True):
        counts = target.valid & (classes != NO_CLASS)
        channels = torch.where(counts, classes + int(answer.unchanged_channel), NO_CLASS)
        # Checked here because an index too large ends a whole process on a GPU, without saying why.
        if channels.numel() and (highest := int(channels.max())) >= logits.shape[1]:
            raise UsageError(
                f"labels name channel {highest} and the model answers {logits.shape[1]} (0..{logits.shape[1] - 1}); "
                f"check the number of classes and unchanged_channel={answer.unchanged_channel}"
            )
        dates.append((logits, channels))
    return dates


def _labelled(answer: ChangeLogits, target: Target) -> list[tuple[Tensor, Tensor]]:
    """For each date class probabilities ``(|L_t|, C)`` and channels ``(|L_t|,)`` of the labelled pixels."""
    dates = []
    for logits, channels in _classes(answer, target):
        counts = channels != NO_CLASS
        dates.append((logits.movedim(1, -1)[counts].softmax(-1), channels[counts]))
    return dates


def _same_pixels(logits: Tensor, target: Target) -> None:
    if logits.ndim != 4 or (logits.shape[0], *logits.shape[2:]) != tuple(target.change.shape):
        raise UsageError(
            f"the answer is {tuple(logits.shape)} and the labels are {tuple(target.change.shape)}; "
            "resize the logits to (B, channels, H, W) of the labels"
        )


def _dice(p: Tensor, y: Tensor, smooth: float) -> Tensor:
    return 1 - (2 * (p * y).sum() + smooth) / (p.sum() + y.sum() + smooth)


def _lovasz_gradient(y: Tensor) -> Tensor:
    """How 1 - IoU grows when the pixels are got wrong one after the other, in the order given.

    Args:
        y: ``(n,)`` labels 0 or 1, the largest error first.

    Returns:
        ``(n,)``, 0 or more, summing to 1; no gradient flows through it. Algorithm 1 of Berman et al.
    """
    positive = y.long()  # whole numbers: float32 stops counting at 16.7 million pixels
    total, missed, extra = positive.sum(), positive.cumsum(0), (1 - positive).cumsum(0)
    # The union is never 0: a positive is in it from the start, a negative from its own place on.
    jaccard = 1 - (total - missed).to(y.dtype) / (total + extra).to(y.dtype)
    return torch.diff(jaccard, prepend=jaccard.new_zeros(1))


def _lovasz_softmax(p: Tensor, labels: Tensor) -> Tensor:
    """Mean over the classes present of the Lovasz extension of 1 - IoU; p is ``(n, C)``, labels ``(n,)``."""
    losses = []
    for c in torch.unique(labels).tolist():
        y = (labels == c).to(p.dtype)
        errors, order = torch.sort((y - p[:, c]).abs(), descending=True, stable=True)
        losses.append((errors * _lovasz_gradient(y[order])).sum())
    return torch.stack(losses).mean() if losses else p.sum()
