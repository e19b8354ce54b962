"""Bi-SRNet: SSCD-l with attention between all places of each date, and then between the dates.

L. Ding et al., "Bi-temporal semantic reasoning for the semantic change detection in HR remote sensing images", IEEE
Transactions on Geoscience and Remote Sensing 60, 2022.

    before ─ encoder ─ attention ─┬─────────────────┬─ cross ─> 1x1 ─> 1 + K  classes before
                                  ├─ change branch ─│────────────────> 1      change
    after  ─ encoder ─ attention ─┴─────────────────┴─ cross ─> 1x1 ─> 1 + K  classes after

With N = h w places of d = 128 channels, and 1x1 convolutions for Q, K (d/8 channels) and V (d):

    attention     Y  = X  + γ  softmax(Q K') V
    cross         Y1 = X1 + γ1 softmax(Q1 K2') V2          Y2 = X2 + γ2 softmax(Q2 K1') V1

All γ are initialised with 0, so a new network equals SSCD-l. The scores are not divided by √d, as published.

The paper shares the attention within a date between both dates. The authors' later code (SCanNet) has one per date, and
so has this network. Published weights of either kind fit: shared weights are loaded twice. The network is not symmetric
in time, see `sscd_l`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wasnow.models.contract import ChangeLogits
from wasnow.models.fixed_vocabulary import FixedVocabularyNetwork
from wasnow.models.sscd_l import SECOND_WORDS
from wasnow.nn.layers import resize
from wasnow.nn.resnet import initialise
from wasnow.nn.three_branches import STRIDE, WIDTH, ChangeBranch, Encoder, class_head

SCORES_AT_ONCE = 1 << 20
"""Attention scores computed together, per image: 4 MB, which fits the cache. A 512 x 512 px image has 16 times as many.
Computing all at once takes about twice as long on two cores; torch's fused attention, which requires queries as wide as
values, is slower still.
"""


class Projections(nn.Module):
    """Queries, keys and values of every place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(width, width // 8, 1)
        self.key = nn.Conv2d(width, width // 8, 1)
        self.value = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(B, d, h, w)`` to ``(B, N, d/8)``, ``(B, N, d/8)`` and ``(B, N, d)``."""
        query, key, value = (part(x).flatten(2).transpose(1, 2) for part in (self.query, self.key, self.value))
        return query, key, value


def attend(query: Tensor, key: Tensor, value: Tensor, *, at_once: int = SCORES_AT_ONCE) -> Tensor:
    """Return ``softmax(Q K') V``.

    Rows of the softmax are independent, so computing some at a time is exact and bounds the memory.

    Args:
        query: ``(B, N, d)``.
        key: ``(B, M, d)``.
        value: ``(B, M, D)``.
        at_once: number of scores computed together, per image.

    Returns:
        ``(B, N, D)``.
    """
    parts = torch.split(query, max(1, at_once // key.shape[1]), dim=1)
    return torch.cat([torch.softmax(some @ key.mT, dim=-1) @ value for some in parts], dim=1)


class SpatialReasoning(nn.Module):
    """Attention within one date, added with the learned weight γ."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = Projections(width)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, d, h, w)`` to the same."""
        found = attend(*self.project(x))
        return x + self.gamma * found.transpose(1, 2).reshape(x.shape)


class CrossReasoning(nn.Module):
    """Attention from each date to the other, added with the learned weights γ1 and γ2."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project_before = Projections(width)
        self.project_after = Projections(width)
        self.gamma_before = nn.Parameter(torch.zeros(1))
        self.gamma_after = nn.Parameter(torch.zeros(1))

    def forward(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, d, h, w)`` of both dates to the same."""
        query1, key1, value1 = self.project_before(before)
        query2, key2, value2 = self.project_after(after)
        seen_before = attend(query1, key2, value2).transpose(1, 2).reshape(before.shape)
        seen_after = attend(query2, key1, value1).transpose(1, 2).reshape(after.shape)
        return before + self.gamma_before * seen_before, after + self.gamma_after * seen_after


class BiSRNet(FixedVocabularyNetwork):
    """The network, with random weights until a checkpoint or `convert` provides others: a `ChangeModel`.

    Args:
        classes: the class words, in logit order.
        normalisation: of `NORMALISATIONS`; ``imagenet`` for training from ImageNet weights or from scratch, ``second``
            for the published weights.

    Raises:
        VocabularyError: no class words, or one is empty or occurs twice.
        UsageError: unknown normalisation.
    """

    name = "bisrnet"
    source = "Ding et al. 2022, IEEE TGRS 60, doi:10.1109/TGRS.2022.3154390"
    stride = STRIDE

    def __init__(self, classes: Sequence[str] = SECOND_WORDS, *, normalisation: str = "imagenet") -> None:
        super().__init__(classes, normalisation)
        self.encoder = Encoder()
        self.reason_before = SpatialReasoning(WIDTH)
        self.reason_after = SpatialReasoning(WIDTH)
        self.reason_across = CrossReasoning(WIDTH)
        self.change = ChangeBranch()
        self.classes_before = class_head(len(self.classes))
        self.classes_after = class_head(len(self.classes))
        for reason in (self.reason_before, self.reason_after, self.reason_across):
            initialise(reason)

    def forward(self, before: Tensor, after: Tensor, valid: Tensor | None = None) -> ChangeLogits:
        """Predict a batch of any height and width; tensors are moved to the device of the weights.

        Args:
            before: ``(B, 3, H, W)``, red, green and blue in 0..1.
            after: ``(B, 3, H, W)``, the second date.
            valid: ignored.
        """
        first = self.reason_before(self.encoder(self.normalise(before, "before")))
        second = self.reason_after(self.encoder(self.normalise(after, "after")))
        change = self.change(first, second)
        first, second = self.reason_across(first, second)
        return ChangeLogits(
            change=resize(change, before.shape[-2:]),
            before=resize(self.classes_before(first), before.shape[-2:]),
            after=resize(self.classes_after(second), after.shape[-2:]),
            unchanged_channel=True,
        )
