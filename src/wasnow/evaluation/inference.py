"""Inference on one pair at its full size.

Sample ─> pad by reflection to the stride of the model ─> model, once per word list ─> crop ─> logits ─> codes
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

ClassMaps = tuple[NDArray[np.int64], NDArray[np.int64]]
"""``(H, W)`` class codes of both dates."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """The class maps that a model predicts for one pair.

    Attributes:
        change: ``(H, W)`` uint8, 1 changed.
        before: ``(H, W)`` class codes, 0 where unchanged; all 0 for a model without classes.
        after: the same for the second date.
    """

    change: NDArray[np.uint8]
    before: NDArray[np.unsignedinteger]
    after: NDArray[np.unsignedinteger]


def bind_to(model: ChangeModel, words: tuple[str, ...]) -> ChangeModel:
    """Return the model bound to these words; unchanged without words."""
    return model if not words or tuple(model.card.classes) == words else model.bind(words)


class evaluation_mode(AbstractContextManager[None]):  # noqa: N801
    """Context with a model in evaluation mode and without gradients; restores the modes afterwards.

    Args:
        model: any model; only a `torch.nn.Module` has modes.
        bf16: compute in bfloat16 where it is safe.
    """

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
    """Return the prediction for one pair at its full size; call it inside `evaluation_mode`.

    Args:
        model: bound to its classes.
        sample: the pair; labels are not used.
        threshold: uncalibrated change probability above which a pixel is changed.
    """
    output = next(infer_pair([model], sample))
    return decode(output, threshold, most_probable_classes(output))


def infer_pair(models: Sequence[ChangeModel], sample: Sample) -> Iterator[ChangeLogits]:
    """Yield the output ``(1, C, H, W)`` of one model for each of its word lists.

    The pair is padded at the bottom and right, by reflection, to the stride of the model, and the output is cropped. A
    model that is an `FeatureModel` encodes the pair once. Call it inside `evaluation_mode`.

    Args:
        models: one model bound to one or more word lists.
        sample: the pair; labels are not used.

    Raises:
        UsageError: the model needs prior masks and the sample has none.
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
    encode_once = len(models) > 1 and isinstance(first, FeatureModel) and masks is None
    features = first.encode(before, after, valid) if encode_once and isinstance(first, FeatureModel) else None
    for model in models:
        if features is not None and isinstance(model, FeatureModel):
            output = model.answer(features, padded)
        else:
            output = infer(model, before, after, valid, masks)
        dates = [None if one is None else one[..., :height, :width] for one in (output.before, output.after)]
        yield ChangeLogits(
            output.change[..., :height, :width], dates[0], dates[1], unchanged_channel=output.unchanged_channel
        )


def _masks(model: ChangeModel, sample: Sample, padded: tuple[int, int]) -> Tensor | None:
    """Return prior masks ``(1, 2, W, H, Wd)`` bool, False in the padding; None for a model without masks."""
    wanted = model.card.wants_priors
    if not wanted:
        return None
    if sample.priors is None:
        raise UsageError(
            f"{model.card.name} needs prior masks of {join_words(wanted)} and {sample.name} has none; "
            "compute them with wasnow priors DATASET"
        )
    height, width = sample.priors.shape[-2:]
    margins = ((0, 0), (0, 0), (0, padded[0] - height), (0, padded[1] - width))
    return torch.from_numpy(np.pad(sample.priors, margins) > 0)[None]


def most_probable_classes(output: ChangeLogits) -> ClassMaps | None:
    """Return the most probable codes 1..K, ``(H, W)`` per date, on all pixels; None for a model without classes."""
    if output.land_cover is None:
        return None
    # Equal to argmax, which takes five times as long along the first axis.
    first, second = (logits[0].max(0).indices.cpu().numpy() + 1 for logits in output.land_cover)
    return first, second


def decode(output: ChangeLogits, limit: float, cover: ClassMaps | None) -> Prediction:
    """Return the class maps of an output.

    Args:
        output: of one pair.
        limit: uncalibrated change probability above which a pixel is changed.
        cover: result of `most_probable_classes`.
    """
    changed = (output.change[0, 0].float().sigmoid() > limit).cpu().numpy()
    if cover is None:
        nothing: NDArray[np.unsignedinteger] = np.zeros(changed.shape, np.uint8)
        return Prediction(changed.astype(np.uint8), nothing, nothing)
    kind = np.uint8 if max(one.max(initial=0) for one in cover) < IGNORE else np.uint16
    before, after = (one.astype(kind) * changed for one in cover)
    return Prediction(changed.astype(np.uint8), before, after)
