"""A model made symmetric in time: the mean of the predictions for both orders of the dates.

    f(a, b) = (c1, k1, l1)        change (c1 + c2) / 2, before (k1 + l2) / 2, after (l1 + k2) / 2
    f(b, a) = (c2, k2, l2)        c: log-odds of change; k, l: class logits of the first and second argument

Swapped dates then give the same change and swapped classes, whatever f is, at twice the cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from torch import Tensor, nn

from wasnow.models.contract import ChangeLogits, ChangeModel, ModelCard, SceneModel, infer

Model = TypeVar("Model", bound="ChangeModel | SceneModel")


class Symmetric(nn.Module):
    """A `ChangeModel` that averages another one over both orders of the dates.

    Args:
        model: the other one.
    """

    def __init__(self, model: ChangeModel) -> None:
        super().__init__()
        self.model = model

    @property
    def card(self) -> ModelCard:
        """The card of the model, marked as symmetric."""
        return replace(self.model.card, symmetric=True)

    def bind(self, classes: Sequence[str]) -> Symmetric:
        """See `ChangeModel.bind`."""
        return Symmetric(self.model.bind(classes))

    def forward(self, before: Tensor, after: Tensor, valid: Tensor, priors: Tensor | None = None) -> ChangeLogits:
        """See `ChangeModel`, and `GuidedModel` for a model with prior masks."""
        forth = infer(self.model, before, after, valid, priors)
        back = infer(self.model, after, before, valid, None if priors is None else priors.flip(1))
        return ChangeLogits(
            (forth.change + back.change) / 2,
            _mean(forth.before, back.after),
            _mean(forth.after, back.before),
            unchanged_channel=forth.unchanged_channel,
        )


def _mean(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return None if one is None or other is None else (one + other) / 2


def symmetric(model: Model) -> Model | Symmetric:
    """Return a model that is symmetric in time: itself where it is so by construction.

    Methods that are fitted to the scene are returned unchanged: those of wasnow are symmetric.
    """
    if isinstance(model, SceneModel) or model.card.symmetric:
        return model
    return Symmetric(model).eval()
