"""What the published networks share that answer with the words that they were trained with, and with no others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from torch import nn

from wasnow.models.contract import ModelCard, keep_words, some_words
from wasnow.nn.normalise import Normalise


class FixedWords(nn.Module):
    """All of a `ChangeModel` for colour images but its layers and its ``forward``.

    Attributes:
        name: of its card, and so the others; a network sets all four.
        summary: what it is.
        source: where it is published.
        stride: of its coarsest map.

    Args:
        classes: the words that it answers with, in logit order.
        normalisation: of `NORMALISATIONS`.

    Raises:
        VocabularyError: there are no words, or one is empty or there twice.
        UsageError: no normalisation has that name.
    """

    name: str
    summary: str
    source: str
    stride: int

    def __init__(self, classes: Sequence[str], normalisation: str) -> None:
        super().__init__()
        self.classes = some_words(classes)
        self.normalise = Normalise(normalisation)

    @property
    def card(self) -> ModelCard:
        """Colour images, at the resolution that they have."""
        return ModelCard(
            name=self.name,
            summary=self.summary,
            source=self.source,
            classes=self.classes,
            stride=self.stride,
            parameters=sum(each.numel() for each in self.parameters()),
        )

    def bind(self, classes: Sequence[str]) -> Self:
        """Itself, for the words that it was trained with.

        Raises:
            VocabularyError: these are others.
        """
        keep_words(self.card, classes)
        return self

    def config(self) -> dict[str, Any]:
        """The arguments that build this network again, as plain JSON values."""
        return {"classes": list(self.classes), "normalisation": self.normalise.name}
