"""The interface of every model: what it takes, what it returns and what it states about itself.

    before (B, Cb, H, W) ─┐
    after  (B, Ca, H, W) ─┼─> ChangeModel ──> ChangeLogits(change (B, 1, H, W), before, after (B, K, H, W) or None)
    valid  (B, 1, H, W)  ─┘

Training, evaluation and the pipeline depend only on this module. There are three special kinds of model:

- `GuidedModel`: also takes prior masks.
- `FeatureModel`: computes image features once and can then predict for any class words.
- `SceneModel`: estimates its parameters from the scene (IR-MAD). The pipeline calls ``fit`` with the scene's pixels and
  continues with the returned `FittedSceneModel`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wasnow.errors import VocabularyError
from wasnow.models.calibration import Calibration
from wasnow.vocabulary import Vocabulary

PixelStream = Callable[[], Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]]
"""Starts one pass over the scene's valid pixels: chunks ``(N, Cb)`` and ``(N, Ca)``, always in the same order."""


@dataclass(frozen=True, slots=True)
class ChangeLogits:
    """The output of a model, before any threshold or softmax.

    Most published networks return K + 1 channels for K class words; channel 0 is "unchanged". Labels never use this
    channel, but it is part of the softmax of the training loss. Maps leave it out.

    Attributes:
        change: ``(B, 1, H, W)``, log-odds of change.
        before: ``(B, C, H, W)`` class logits at the first date, C = K or K + 1; None for a model without classes.
        after: the same at the second date; None exactly where ``before`` is None.
        unchanged_channel: whether channel 0 of ``before`` and ``after`` is "unchanged", so that C = K + 1.
    """

    change: Tensor
    before: Tensor | None = None
    after: Tensor | None = None
    unchanged_channel: bool = False

    def __post_init__(self) -> None:
        if (self.before is None) != (self.after is None):
            raise ValueError("before and after class logits must both be given or both be None")

    @property
    def land_cover(self) -> tuple[Tensor, Tensor] | None:
        """``(B, K, H, W)`` logits of the class words, before and after; None for a model without classes."""
        if self.before is None or self.after is None:
            return None
        first = int(self.unchanged_channel)
        return self.before[:, first:], self.after[:, first:]


@dataclass(frozen=True, slots=True)
class WeightsInfo:
    """What a checkpoint states about the weights of a network. All None for weights that no checkpoint brought.

    Attributes:
        fingerprint: digest of the checkpoint; two models with one fingerprint give the same predictions.
        calibration: the fitted temperatures.
        about: sentences for the user: what the weights were trained on and where they fall short.
        learned_priors: how the prior masks of the training data were made, as the recipe records it.
    """

    fingerprint: str | None = None
    calibration: Calibration | None = None
    about: str | None = None
    learned_priors: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ModelCard:
    """The facts about a model that the pipeline and the user need before it runs.

    Attributes:
        name: the name on the command line.
        summary: one line for the list of models.
        source: where the method is published.
        classes: the bound class words, in logit order; empty for change without classes.
        bands: ``"all"``: every band that both dates have; ``"rgb"``: red, green, blue in this order.
        scaling: ``"native"``: the numbers of the file; ``"display"``: 0..1, after one stretch per date and band.
        gsd_m: ground sampling distance in metres of the working grid; None keeps that of the images.
        gsd_range_m: ground sampling distances in metres at which the model was evaluated; others cause a warning.
        stride: height and width of every input must be multiples of this.
        threshold: default change probability, 0..1, above which a pixel counts as changed.
        tile: default tile side in pixels.
        margin: default overlap at each side of a tile, in pixels, cropped from the output; 0 for a per-pixel method.
        parameters: number of trainable parameters, without the running statistics of batch norms; 0 without weights.
        symmetric: whether swapped dates give the same change and swapped classes by construction.
        receptive_field: pixels at each side that can influence a pixel; 0 for a per-pixel method; None: everything in
            the tile, by attention, scans or means over it.
        other_words: the trained classes that the class "other" combines; empty without such a class.
        wants_priors: the class words whose prior masks the model takes, in their order; empty for most models.
        remarks: what the user should know about the bound words, such as replaced phrases.
        weights: what the checkpoint states about the weights.
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
    symmetric: bool = False
    receptive_field: int | None = None
    other_words: tuple[str, ...] = ()
    wants_priors: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    weights: WeightsInfo = WeightsInfo()


@runtime_checkable
class ChangeModel(Protocol):
    """A model that maps a pair of images to `ChangeLogits`."""

    @property
    def card(self) -> ModelCard:
        """What the model is and which input it requires."""
        ...

    def bind(self, classes: Sequence[str]) -> ChangeModel:
        """Return the same model for these class words.

        Raises:
            VocabularyError: the model's vocabulary is fixed and differs.
        """
        ...

    def __call__(self, before: Tensor, after: Tensor, valid: Tensor) -> ChangeLogits:
        """Predict a batch. On a CPU, networks (``nn.Module``) are called from two threads at the same time.

        Args:
            before: ``(B, Cb, H, W)`` float32, scaled as the card states, finite everywhere.
            after: ``(B, Ca, H, W)``, the same for the second date.
            valid: ``(B, 1, H, W)`` bool; where False, ``before`` and ``after`` hold neutral fill values.
        """
        ...


@runtime_checkable
class PixelSizeEstimator(Protocol):
    """A `ChangeModel` that can judge the pixel size of an image from what it shows."""

    def log2_gsd(self, image: Tensor) -> Tensor:
        """Return ``(B,)``: log2 of the pixel size in metres of ``(B, 3, H, W)`` images in 0..1."""
        ...


@runtime_checkable
class FeatureModel(Protocol):
    """A network that separates image features from class words, so that features can be cached and reused.

    ``forward(before, after, valid)`` equals ``answer(encode(before, after, valid), (H, W))``.
    """

    encoder_parts: tuple[str, ...]
    """Name prefixes of all parameters that `encode` uses."""

    def encode(self, before: Tensor, after: Tensor, valid: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return the features that depend on the images only, batch first; arguments as in `ChangeModel`."""
        ...

    def answer(self, features: tuple[Tensor, ...], size: tuple[int, int]) -> ChangeLogits:
        """Return the prediction for the bound words at (H, W), the size of the images given to `encode`."""
        ...


class GuidedModel(Protocol):
    """A `ChangeModel` whose card has ``wants_priors``: it also takes prior masks of these words at each date."""

    def __call__(
        self, before: Tensor, after: Tensor, valid: Tensor | None = None, priors: Tensor | None = None
    ) -> ChangeLogits:
        """Predict a batch.

        Args:
            before: as in `ChangeModel`.
            after: as in `ChangeModel`.
            valid: as in `ChangeModel`.
            priors: ``(B, 2, words, H, W)`` masks of both dates: bool, or numbers 0..1; None means empty masks.
        """
        ...


@runtime_checkable
class Checkpointing(Protocol):
    """A network that can recompute activations in the backward pass to save memory (gradient checkpointing)."""

    checkpointing: bool


def infer(model: ChangeModel, before: Tensor, after: Tensor, valid: Tensor, priors: Tensor | None) -> ChangeLogits:
    """Call any model.

    Args:
        model: the model.
        before: as in `ChangeModel`.
        after: as in `ChangeModel`.
        valid: as in `ChangeModel`.
        priors: as in `GuidedModel`; None for every other model.
    """
    if priors is None:
        return model(before, after, valid)
    return cast(GuidedModel, model)(before, after, valid, priors)


def checked_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Return the class words of a network with classes.

    Raises:
        VocabularyError: there are none, or one is empty or occurs twice.
    """
    words = Vocabulary(tuple(classes)).words
    if not words:
        raise VocabularyError("this network predicts classes, and no class words were given; give at least one")
    return words


def phrasings_of(
    classes: Sequence[str], synonyms: Mapping[str, Sequence[str]] | None = None
) -> tuple[tuple[str, ...], ...]:
    """Return the name and all synonyms of each class: ``"building|house"`` gives ``("building", "house")``.

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


def require_own_classes(card: ModelCard, classes: Sequence[str]) -> None:
    """Check class words against a fixed vocabulary: the same words in the same order, in any case.

    Raises:
        VocabularyError: they differ; names the model's own.
    """
    wanted = [" ".join(word.split()).casefold() for word in classes]
    if wanted != [word.casefold() for word in card.classes]:
        raise VocabularyError(
            f"{card.name} was trained with the classes {', '.join(card.classes)} and cannot predict "
            f"{', '.join(classes) or 'none'}; leave the class words out, or choose a model with an open vocabulary"
        )


def require_no_classes(card: ModelCard, classes: Sequence[str]) -> None:
    """Check that a model without classes is given no class words.

    Raises:
        VocabularyError: there are some.
    """
    if len(classes):
        raise VocabularyError(
            f"{card.name} detects change without classes and cannot use the class words {', '.join(classes)}; "
            "leave them out, or choose a model with classes"
        )


@runtime_checkable
class SceneModel(Protocol):
    """A method that estimates its parameters from the scene: call `fit` first, then the returned model."""

    @property
    def card(self) -> ModelCard:
        """What the method is and which input it requires."""
        ...

    def bind(self, classes: Sequence[str]) -> SceneModel:
        """See `ChangeModel.bind`."""
        ...

    def fit(self, pixels: PixelStream) -> FittedSceneModel:
        """Estimate the parameters from the scene's valid pixels; may take several passes."""
        ...

    def restore(self, state: dict[str, Any]) -> FittedSceneModel:
        """Return the fitted model that `FittedSceneModel.state` described; a resumed run uses it."""
        ...


class FittedSceneModel(ChangeModel, Protocol):
    """A `SceneModel` fitted to a scene."""

    def state(self) -> dict[str, Any]:
        """Return what `SceneModel.restore` needs as JSON values; floats keep all their bits."""
        ...

    def diagnostics(self) -> dict[str, Any]:
        """Return facts about the fit (convergence, correlations) as JSON values."""
        ...
