"""A method that fits itself to a scene, as a model that can be scored: fitted anew to every pair it is shown.

pair ─> its valid pixels ─> SceneModel.fit ─> answer ─> log-odds moved so that the method's threshold is 0.5
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


class PerPair:
    """A `SceneModel` as a `ChangeModel`.

    Args:
        method: what is fitted to each pair.
    """

    def __init__(self, method: SceneModel) -> None:
        self._method = method

    @property
    def card(self) -> ModelCard:
        """The method's, with the threshold that all pairs share."""
        return replace(self._method.card, threshold=0.5)

    def bind(self, classes: Sequence[str]) -> PerPair:
        """See `wasnow.models.contract.SceneModel.bind`."""
        return PerPair(self._method.bind(classes))

    def __call__(self, before: Tensor, after: Tensor, valid: Tensor) -> ChangeLogits:
        """Fit to each pair of the batch by itself and answer it; shapes as in `wasnow.models.contract.ChangeModel`.

        Raises:
            InputError: a pair cannot be fitted to.
        """
        answers = []
        for first, second, shown in zip(before.cpu(), after.cpu(), valid.cpu(), strict=True):
            # Methods of native numbers ask how far values vary: bytes are what the files hold.
            pair = [(one * 255).round() for one in (first, second)]
            pixels = [np.ascontiguousarray(one[:, shown[0]].T.numpy(), np.float32) for one in pair]
            fitted = self._method.fit(lambda pixels=pixels: _chunks(*pixels))  # type: ignore[misc]
            answer = fitted(pair[0][None], pair[1][None], shown[None]).change
            limit = fitted.card.threshold
            answers.append(answer - (math.log(limit) - math.log1p(-limit)))
        return ChangeLogits(torch.cat(answers))


def _chunks(
    before: NDArray[np.float32], after: NDArray[np.float32]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    for start in range(0, len(before), CHUNK):
        yield before[start : start + CHUNK], after[start : start + CHUNK]
