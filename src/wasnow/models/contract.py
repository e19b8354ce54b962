"""What every model of wasnow takes and answers, whatever is inside it.

    before (B, Cb, H, W) ─┐
    after  (B, Ca, H, W) ─┼─> ChangeModel ──> ChangeLogits(change (B, 1, H, W), before, after (B, K, H, W) or None)
    valid  (B, 1, H, W)  ─┘

Training, scoring and the engine know only this, and two kinds of model besides. One that is told beforehand where
things are is `Guided`. One whose parameters come from the scene itself (IR-MAD) is a `SceneModel`: the engine shows it
the scene's pixels once, and goes on with the fitted model that it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wasnow.errors import VocabularyError
from wasnow.vocabulary import Vocabulary

PixelStream = Callable[[], Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]]
"""Starts one pass over the scene's valid pixels: chunks ``(N, Cb)`` and ``(N, Ca)``, always in the same order."""


@dataclass(frozen=True, slots=True)
class ChangeLogits:
    """A model's answer, before any threshold or softmax.

    Most published networks answer K + 1 channels for K words, channel 0 being "unchanged": labels never name it, yet it
    stands in the denominator of the softmax that they were trained with. Losses need it; a map never shows it.

    Attributes:
        change: ``(B, 1, H, W)``, log-odds that the ground changed.
        before: ``(B, C, H, W)`` class logits of the first date, C = K or K + 1; None for a model without classes.
        after: the same for the second date; None exactly where ``before`` is None.
        unchanged_channel: whether channel 0 of ``before`` and ``after`` is "unchanged", so that C = K + 1.
    """

    change: Tensor
    before: Tensor | None = None
    after: Tensor | None = None
    unchanged_channel: bool = False

    def __post_init__(self) -> None:
        if (self.before is None) != (self.after is None):
            raise ValueError("before and after class logits come together or not at all")

    @property
    def land_cover(self) -> tuple[Tensor, Tensor] | None:
        """``(B, K, H, W)`` logits of the words alone, before and after; None for a model without classes."""
        if self.before is None or self.after is None:
            return None
        first = int(self.unchanged_channel)
        return self.before[:, first:], self.after[:, first:]


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What the engine and the user must know of a model before it runs.

    Attributes:
        name: the name on the command line.
        summary: one line for the list of models.
        source: where the method is published.
        classes: the class words that it answers with, in logit order; empty for change without classes.
        bands: ``"all"``: every band that both dates have; ``"rgb"``: red, green, blue in this order.
        scaling: ``"native"``: the numbers of the file; ``"display"``: 0..1, after one stretch per date and band.
        gsd_m: the ground sampling distance in metres at which the model sees the scene; None takes it as it is.
        gsd_range_m: the distances that the model was measured to serve, for a warning outside them.
        stride: height and width of every input must be multiples of this.
        threshold: the change probability above which a pixel counts as changed, unless the user says otherwise.
        tile: default tile side in pixels.
        margin: pixels at each side of a tile that inform the answer but are not kept; 0 for a per-pixel method.
        parameters: how many numbers it learns, running means of batch norms not counted; 0 without weights.
    """

    name: str
    summary: str
    source: str
    classes: tuple[str, ...] = ()
    bands: Literal["all", "rgb"] = "rgb"
    scaling: Literal["native", "display"] = "display"
    gsd_m: float | None = None
    gsd_range_m: tuple[float, float] | None = None
    stride: int = 1
    threshold: float = 0.5
    tile: int = 512
    margin: int = 64
    parameters: int = 0


@runtime_checkable
class ChangeModel(Protocol):
    """Anything that answers a pair of images with `ChangeLogits`."""

    @property
    def card(self) -> ModelCard:
        """What this model is and how it wants to be fed."""
        ...

    def bind(self, classes: Sequence[str]) -> ChangeModel:
        """The same model, answering with these class words.

        Raises:
            VocabularyError: the model's vocabulary is fixed and is another.
        """
        ...

    def __call__(self, before: Tensor, after: Tensor, valid: Tensor) -> ChangeLogits:
        """Answer a batch. On a processor, networks (``nn.Module``) are called by two threads at the same time.

        Args:
            before: ``(B, Cb, H, W)`` float32, scaled as the card says, finite everywhere.
            after: ``(B, Ca, H, W)`` likewise.
            valid: ``(B, 1, H, W)`` bool; where False, ``before`` and ``after`` are filled with neutral numbers.
        """
        ...


@runtime_checkable
class Encoding(Protocol):
    """A network that looks at the images once and can then answer with any words: an open vocabulary, made fast.

    ``forward(before, after, valid)`` equals ``answer(encode(before, after, valid), (H, W))``.
    """

    encoder_parts: tuple[str, ...]
    """Beginnings of the names of all parameters that `encode` uses."""

    def encode(self, before: Tensor, after: Tensor, valid: Tensor | None = None) -> tuple[Tensor, ...]:
        """Everything that depends on the images and not on the words, batch first; arguments as in `ChangeModel`."""
        ...

    def answer(self, features: tuple[Tensor, ...], size: tuple[int, int]) -> ChangeLogits:
        """The answer at (H, W), the size of the images that `encode` saw, for the words that are bound."""
        ...


@runtime_checkable
class Guided(Protocol):
    """A `ChangeModel` that is told where the things that some words name are at each date: priors."""

    @property
    def wants_priors(self) -> tuple[str, ...]:
        """The words whose masks it takes, in their order; empty where it was made to do without."""
        ...

    def __call__(
        self, before: Tensor, after: Tensor, valid: Tensor | None = None, priors: Tensor | None = None
    ) -> ChangeLogits:
        """Answer a batch.

        Args:
            before: as in `ChangeModel`.
            after: likewise.
            valid: likewise.
            priors: ``(B, 2, words, H, W)`` of both dates: bool, or numbers 0..1; None: as if nothing were anywhere.
        """
        ...


def wanted_priors(model: object) -> tuple[str, ...]:
    """The words whose masks a model takes; empty for one that takes none."""
    return tuple(getattr(model, "wants_priors", ()))


def ask(model: ChangeModel, before: Tensor, after: Tensor, valid: Tensor, priors: Tensor | None) -> ChangeLogits:
    """The answer of any model; ``priors``, where there are some, are for a `Guided` one alone."""
    if priors is None:
        return model(before, after, valid)
    return cast(Guided, model)(before, after, valid, priors)


def some_words(classes: Sequence[str]) -> tuple[str, ...]:
    """The words of a network that answers with classes.

    Raises:
        VocabularyError: there are none, or one is empty or there twice.
    """
    words = Vocabulary(tuple(classes)).words
    if not words:
        raise VocabularyError("this network answers with classes and is given no words; name at least one")
    return words


def phrasings_of(
    classes: Sequence[str], synonyms: Mapping[str, Sequence[str]] | None = None
) -> tuple[tuple[str, ...], ...]:
    """For each class its name and all other phrasings of it: ``"building|house"`` is ``("building", "house")``.

    Args:
        classes: as the user writes them.
        synonyms: further phrasings by name.

    Raises:
        VocabularyError: a phrasing is empty.
    """
    phrases = []
    for word in classes:
        name, *rest = (" ".join(part.split()) for part in word.split("|"))
        phrases.append(tuple(dict.fromkeys((name, *rest, *(synonyms or {}).get(name, ())))))
    if any(not phrase for each in phrases for phrase in each):
        raise VocabularyError("a phrasing between two '|' is empty; write 'building|house'")
    return tuple(phrases)


def keep_words(card: ModelCard, classes: Sequence[str]) -> None:
    """Nothing, if these are the words of a fixed vocabulary, in its order and in any case.

    Raises:
        VocabularyError: they are not; names the model's own.
    """
    wanted = [" ".join(word.split()).casefold() for word in classes]
    if wanted != [word.casefold() for word in card.classes]:
        raise VocabularyError(
            f"{card.name} was trained with the classes {', '.join(card.classes)} and cannot answer with "
            f"{', '.join(classes) or 'none'}; leave the class words out, or choose a model with an open vocabulary"
        )


@runtime_checkable
class SceneModel(Protocol):
    """A method that takes its parameters from the scene: fit first, then call what comes back."""

    @property
    def card(self) -> ModelCard:
        """What this method is and how it wants to be fed."""
        ...

    def bind(self, classes: Sequence[str]) -> SceneModel:
        """See `ChangeModel.bind`."""
        ...

    def fit(self, pixels: PixelStream) -> FittedSceneModel:
        """Learn from the scene's valid pixels; may take several passes."""
        ...

    def restore(self, state: dict[str, Any]) -> FittedSceneModel:
        """The fitted model that `FittedSceneModel.state` described: what a resumed run goes on with."""
        ...


class FittedSceneModel(ChangeModel, Protocol):
    """A `SceneModel` after it has seen the scene."""

    def state(self) -> dict[str, Any]:
        """Everything needed to rebuild this exact model, as plain JSON values (floats survive bit for bit)."""
        ...

    def diagnostics(self) -> dict[str, Any]:
        """What a person should know of the fit (convergence, correlations), as plain JSON values."""
        ...
