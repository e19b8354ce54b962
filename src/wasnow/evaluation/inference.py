"""What a model says of one pair, whole and at its own size.

Sample ─> pad by reflection to the model's stride ─> model, in each wording ─> crop back ─> logits ─> codes
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wasnow.errors import UsageError
from wasnow.evaluation.metrics import IGNORE
from wasnow.models.contract import ChangeLogits, FeatureModel, infer
from wasnow.vocabulary import join_words

if TYPE_CHECKING:
    from wasnow.data.samples import Sample
    from wasnow.models.contract import ChangeModel

Dates = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Class codes of both dates."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of one pair.

    Attributes:
        change: ``(H, W)`` uint8, 1 changed.
        before: ``(H, W)`` class codes, 0 where unchanged; all 0 for a model without classes.
        after: the same for the second date.
    """

    change: NDArray[np.uint8]
    before: NDArray[np.unsignedinteger]
    after: NDArray[np.unsignedinteger]


def bound_to(model: ChangeModel, words: tuple[str, ...]) -> ChangeModel:
    """The model for these words; for none, as it is."""
    return model if not words or tuple(model.card.classes) == words else model.bind(words)


class answering(AbstractContextManager[None]):  # noqa: N801
    """A network as it is when it answers: no gradients, normalisation from its statistics; as it was, afterwards."""

    def __init__(self, model: ChangeModel, *, bf16: bool = False) -> None:
        self._module = model if isinstance(model, nn.Module) else None
        self._modes = {} if self._module is None else {one: one.training for one in self._module.modules()}
        parameter = None if self._module is None else next(self._module.parameters(), None)
        kind = "cpu" if parameter is None else parameter.device.type
        self._contexts: list[AbstractContextManager[Any]] = [
            torch.inference_mode(),
            torch.autocast(kind, torch.bfloat16) if bf16 else nullcontext(),
        ]

    def __enter__(self) -> None:
        if self._module is not None:
            self._module.eval()
        for context in self._contexts:
            context.__enter__()

    def __exit__(self, *error: Any) -> None:
        for context in reversed(self._contexts):
            context.__exit__(*error)
        for module, training in self._modes.items():
            module.training = training


def predict(model: ChangeModel, sample: Sample, threshold: float) -> Prediction:
    """What the model says of one pair at its own size; call it inside `answering`.

    Args:
        model: bound.
        sample: labels do not matter.
        threshold: change probability as the model itself states it, uncalibrated.
    """
    answer = next(answers([model], sample))
    return read_off(answer, threshold, likeliest(answer))


def answers(models: Sequence[ChangeModel], sample: Sample) -> Iterator[ChangeLogits]:
    """What one model, bound to several lists of words, says of a pair; one answer ``(1, C, H, W)`` after another.

    The pair is padded below and at the right, by reflection, up to the model's stride, and the answers cropped back. A
    model that is an `FeatureModel` looks at the pair once. Call it inside `answering`.

    Raises:
        UsageError: the model wants masks, and the sample comes without.
    """
    first = models[0]
    height, width = sample.before.shape[:2]
    stride = first.card.stride
    margins = [(0, 0), (0, -height % stride), (0, -width % stride)]
    images = []
    for rgb in (sample.before, sample.after):
        scaled = np.moveaxis(rgb, 2, 0).astype(np.float32) / np.float32(255)
        images.append(torch.from_numpy(np.pad(scaled, margins, mode="reflect"))[None])
    before, after = images
    padded = (before.shape[2], before.shape[3])
    valid = torch.zeros(1, 1, *padded, dtype=torch.bool)
    valid[..., :height, :width] = True
    masks = _masks(first, sample, padded)
    once = len(models) > 1 and isinstance(first, FeatureModel) and masks is None
    seen = first.encode(before, after, valid) if once and isinstance(first, FeatureModel) else None
    for model in models:
        if seen is not None and isinstance(model, FeatureModel):
            answer = model.answer(seen, padded)
        else:
            answer = infer(model, before, after, valid, masks)
        dates = [None if one is None else one[..., :height, :width] for one in (answer.before, answer.after)]
        yield ChangeLogits(
            answer.change[..., :height, :width], dates[0], dates[1], unchanged_channel=answer.unchanged_channel
        )


def _masks(model: ChangeModel, sample: Sample, padded: tuple[int, int]) -> Tensor | None:
    """``(1, 2, W, H, Wd)`` bool, empty where the pair was padded; None for a model that takes no masks."""
    wanted = model.card.wants_priors
    if not wanted:
        return None
    if sample.priors is None:
        raise UsageError(
            f"{model.card.name} wants masks of {join_words(wanted)} and {sample.name} comes without any; "
            "give it samples with priors (wasnow priors DATASET)"
        )
    height, width = sample.priors.shape[-2:]
    margins = ((0, 0), (0, 0), (0, padded[0] - height), (0, padded[1] - width))
    return torch.from_numpy(np.pad(sample.priors, margins) > 0)[None]


def likeliest(answer: ChangeLogits) -> Dates | None:
    """``(H, W)`` codes 1..K of both dates, changed or not; None for a model without classes."""
    if answer.land_cover is None:
        return None
    # The same as argmax, which takes five times as long along the first axis.
    first, second = (logits[0].max(0).indices.cpu().numpy() + 1 for logits in answer.land_cover)
    return first, second


def read_off(answer: ChangeLogits, limit: float, cover: Dates | None) -> Prediction:
    """The map of an answer and its likeliest classes: changed where the uncalibrated probability is above ``limit``."""
    changed = (answer.change[0, 0].float().sigmoid() > limit).cpu().numpy()
    if cover is None:
        nothing: NDArray[np.unsignedinteger] = np.zeros(changed.shape, np.uint8)
        return Prediction(changed.astype(np.uint8), nothing, nothing)
    kind = np.uint8 if max(one.max(initial=0) for one in cover) < IGNORE else np.uint16
    before, after = (one.astype(kind) * changed for one in cover)
    return Prediction(changed.astype(np.uint8), before, after)
