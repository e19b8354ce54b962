"""The class decoders of Semantic-CD (`wasnow.models.semantic_cd`): from features and a cost volume to class logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wasnow.nn.pyramid import LEVELS, LayerNorm2d, LevelHead, SimpleFPN

CLASSES_AT_ONCE = 8
"""Classes that the open decoder processes together without gradients: bounds the memory for long lists of words."""


class FixedDecoder(nn.Module):
    """Class logits as published (eqs. 4, 5): one channel per class, so for one list of words.

    Args:
        depth: channels of the features.
        width: channels of the pyramids.
        head_width: channels between pyramid and logits.
        classes: K.
        cost: whether there is a cost volume; False is the paper's baseline.
        pyramid: whether the cost volume gets a pyramid; otherwise it is joined at the stride of the tokens.
    """

    def __init__(self, depth: int, width: int, head_width: int, classes: int, *, cost: bool, pyramid: bool) -> None:
        super().__init__()
        self.features = SimpleFPN(depth, width)
        self.costs = (SimpleFPN(classes, width) if pyramid else nn.Conv2d(classes, width, 1)) if cost else None
        self.head = LevelHead(width, head_width, classes)

    def forward(self, features: Tensor, costs: Tensor | None) -> Tensor:
        """Return logits ``(B, K, 4h, 4w)`` from features ``(B, D, h, w)`` and costs ``(B, K, h, w)``."""
        levels = self.features(features)
        if self.costs is not None and costs is not None:
            levels = _joined(levels, self.costs(costs))
        logits: Tensor = self.head(levels)
        return logits


class OpenDecoder(nn.Module):
    """One logit per class from the cost map of the class, with weights that all classes share.

    Args:
        depth: channels of the features.
        width: channels of their pyramid.
        cost_width: channels per class.
        pyramid: whether cost maps get a pyramid; otherwise they are joined at the stride of the tokens.
    """

    def __init__(self, depth: int, width: int, cost_width: int, *, pyramid: bool) -> None:
        super().__init__()
        self.features = SimpleFPN(depth, width)
        self.narrow = nn.ModuleList(nn.Conv2d(width, cost_width, 1) for _ in range(LEVELS))
        self.embed = nn.Conv2d(1, cost_width, 3, padding=1)
        self.costs = SimpleFPN(cost_width, cost_width) if pyramid else nn.Identity()
        self.head = LevelHead(cost_width, cost_width, 1, norm=LayerNorm2d)

    def forward(self, features: Tensor, costs: Tensor | None) -> Tensor:
        """Return logits ``(B, K, 4h, 4w)`` from features ``(B, D, h, w)`` and costs ``(B, K, h, w)``.

        Raises:
            ValueError: there are no cost maps.
        """
        if costs is None:
            raise ValueError("an open vocabulary needs cost maps")
        shared = [narrow(level) for narrow, level in zip(self.narrow, self.features(features), strict=True)]
        many = costs.shape[1] if torch.is_grad_enabled() else CLASSES_AT_ONCE
        return torch.cat([self._some(shared, some) for some in torch.split(costs, many, dim=1)], dim=1)

    def _some(self, shared: list[Tensor], costs: Tensor) -> Tensor:
        batch, classes = costs.shape[:2]
        own = self.costs(self.embed(costs.flatten(0, 1)[:, None]))
        levels = _joined([each[:, None] for each in shared], _split(own, (batch, classes)))
        both = [each.expand(-1, classes, -1, -1, -1).flatten(0, 1) for each in levels]
        logits: Tensor = self.head(both)
        return logits.view(batch, classes, *logits.shape[-2:])


def _split(costs: list[Tensor] | Tensor, rows: tuple[int, int]) -> list[Tensor] | Tensor:
    """Split the first dimension of each tensor in two."""
    if isinstance(costs, Tensor):
        return costs.view(*rows, *costs.shape[1:])
    return [each.view(*rows, *each.shape[1:]) for each in costs]


def _joined(levels: list[Tensor], costs: list[Tensor] | Tensor) -> list[Tensor]:
    """Add costs to the levels of the features; without a pyramid, only to the third, that of the tokens."""
    if isinstance(costs, Tensor):
        return [level + costs if i == 2 else level for i, level in enumerate(levels)]
    return [level + cost for level, cost in zip(levels, costs, strict=True)]
