"""The base class of the published networks that predict only the class words that they were trained with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from wasnow.models.contract import ModelCard, checked_classes, require_own_classes
from wasnow.models.network import Network
from wasnow.models.registry import MODELS
from wasnow.nn.normalise import Normalise


class FixedVocabularyNetwork(Network):
    """A `ChangeModel` for colour images; subclasses add the layers and ``forward``.

    Attributes:
        name: the name on the command line; subclasses set these three.
        source: where the method is published.
        stride: stride of the coarsest feature map.
        symmetric: see `ModelCard`.
        receptive_field: see `ModelCard`.

    Args:
        classes: the class words, in logit order.
        normalisation: of `NORMALISATIONS`.

    Raises:
        VocabularyError: no class words, or one is empty or occurs twice.
        UsageError: unknown normalisation.
    """

    name: str
    source: str
    stride: int
    symmetric: bool = False
    receptive_field: int | None = None

    def __init__(self, classes: Sequence[str], normalisation: str) -> None:
        super().__init__()
        self.classes = checked_classes(classes)
        self.normalise = Normalise(normalisation)

    @property
    def card(self) -> ModelCard:
        """Colour images at their own resolution."""
        return ModelCard(
            name=self.name,
            summary=MODELS[self.name].summary,
            source=self.source,
            classes=self.classes,
            stride=self.stride,
            parameters=self.parameter_count(),
            symmetric=self.symmetric,
            receptive_field=self.receptive_field,
            weights=self.weights_info,
        )

    def bind(self, classes: Sequence[str]) -> Self:
        """Return itself for the words that it was trained with.

        Raises:
            VocabularyError: these words are others.
        """
        require_own_classes(self.card, classes)
        return self

    def config(self) -> dict[str, Any]:
        """Return the arguments that build this network again, as JSON values."""
        return {"classes": list(self.classes), "normalisation": self.normalise.name}
