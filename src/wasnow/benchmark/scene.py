"""A scene-fitted method as a model that can be evaluated: it is fitted to every pair.

pair ─> its valid pixels ─> SceneModel.fit ─> output ─> log-odds shifted so that the threshold of the method is 0.5
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wasnow.models.contract import ChangeLogits, ModelCard, SceneModel

CHUNK = 1 << 16


class PerPairModel:
    """A `SceneModel` as a `ChangeModel`.

    Args:
        method: fitted to each pair.
    """

    def __init__(self, method: SceneModel) -> None:
        self._method = method

    @property
    def card(self) -> ModelCard:
        """The card of the method with a threshold of 0.5."""
        return replace(self._method.card, threshold=0.5)

    def bind(self, classes: Sequence[str]) -> PerPairModel:
        """See `wasnow.models.contract.SceneModel.bind`."""
        return PerPairModel(self._method.bind(classes))

    def __call__(self, before: Tensor, after: Tensor, valid: Tensor) -> ChangeLogits:
        """Fit the method to each pair of the batch and return its output; shapes as in `ChangeModel`.

        Args:
            before: images 0..1 of the first date.
            after: images 0..1 of the second date.
            valid: pixels with data.

        Raises:
            InputError: the method cannot be fitted to a pair.
        """
        outputs = []
        for first, second, shown in zip(before.cpu(), after.cpu(), valid.cpu(), strict=True):
            # Scene methods expect the values of the files, which are bytes.
            pair = [(one * 255).round() for one in (first, second)]
            pixels = [np.ascontiguousarray(one[:, shown[0]].T.numpy(), np.float32) for one in pair]
            fitted = self._method.fit(lambda pixels=pixels: _chunks(*pixels))  # type: ignore[misc]
            output = fitted(pair[0][None], pair[1][None], shown[None]).change
            limit = fitted.card.threshold
            outputs.append(output - (math.log(limit) - math.log1p(-limit)))
        return ChangeLogits(torch.cat(outputs))


def _chunks(
    before: NDArray[np.float32], after: NDArray[np.float32]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    for start in range(0, len(before), CHUNK):
        yield before[start : start + CHUNK], after[start : start + CHUNK]
