"""The fitted model of IR-MAD and CVA: the squared difference of two dates along fitted axes, read as a logit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from wasnow.errors import InputError
from wasnow.models.contract import ChangeLogits, ModelCard, require_no_classes
from wasnow.models.moments import Floats
from wasnow.models.probability import GammaMixture, Reading

CHUNK = 1 << 16
"""Rows converted to float64 at a time: bounds the memory and fits the cache."""


@dataclass(frozen=True, slots=True)
class Difference:
    """``D = (before - before_center) A - (after - after_center) B + offset``; Z is its squared length.

    The centres are the means rounded to float32, so that float32 pixels are centred without rounding; ``offset`` holds
    the remainder of the means.

    Attributes:
        before_center: ``(Cb,)``.
        after_center: ``(Ca,)``.
        before_axes: ``(Cb, p)``: A, already divided by the noise of each component.
        after_axes: ``(Ca, p)``: B, also divided by the noise.
        offset: ``(p,)``.
    """

    before_center: Floats
    after_center: Floats
    before_axes: Floats
    after_axes: Floats
    offset: Floats

    @classmethod
    def around(cls, before_mean: Floats, after_mean: Floats, before_axes: Floats, after_axes: Floats) -> Self:
        """Return the difference that is zero at the two means.

        Args:
            before_mean: ``(Cb,)``.
            after_mean: ``(Ca,)``.
            before_axes: ``(Cb, p)``.
            after_axes: ``(Ca, p)``.
        """
        before_center = before_mean.astype(np.float32).astype(np.float64)
        after_center = after_mean.astype(np.float32).astype(np.float64)
        offset = (after_mean - after_center) @ after_axes - (before_mean - before_center) @ before_axes
        return cls(before_center, after_center, before_axes, after_axes, offset)

    def squared(self, before: Floats, after: Floats) -> Floats:
        """Return Z ``(N,)`` of pixels ``(N, Cb)`` and ``(N, Ca)`` in float64."""
        difference = (before - self.before_center) @ self.before_axes
        difference -= (after - self.after_center) @ self.after_axes
        difference += self.offset
        z: Floats = np.einsum("np,np->n", difference, difference)
        return z


class FittedDifference:
    """IR-MAD or CVA fitted to a scene: a `FittedSceneModel`.

    Args:
        card: of the method, with the threshold of the reading.
        difference: the fitted axes.
        reading: how Z becomes a logit.
        diagnostics: facts about the fit, as JSON values.
    """

    def __init__(self, card: ModelCard, difference: Difference, reading: Reading, diagnostics: dict[str, Any]) -> None:
        self.card = card
        self.difference = difference
        self.reading = reading
        self._diagnostics = diagnostics
        self._table = reading.table()
        self._before_axes = torch.from_numpy(difference.before_axes.T.astype(np.float32).copy())
        self._after_axes = torch.from_numpy(-difference.after_axes.T.astype(np.float32))
        self._before_center = torch.from_numpy(difference.before_center.astype(np.float32))[:, None]
        self._after_center = torch.from_numpy(difference.after_center.astype(np.float32))[:, None]
        self._offset = torch.from_numpy(difference.offset.astype(np.float32))[:, None]

    def bind(self, classes: Sequence[str]) -> FittedDifference:
        """Return itself; there must be no words.

        Raises:
            VocabularyError: class words are given.
        """
        require_no_classes(self.card, classes)
        return self

    @torch.no_grad()
    def __call__(self, before: Tensor, after: Tensor, valid: Tensor) -> ChangeLogits:
        """Return the log-odds of change, pixel by pixel; exactly 0 where not valid, and never NaN.

        Raises:
            InputError: the number of bands differs from the fit.
        """
        found = (before.shape[1], after.shape[1])
        wanted = (len(self.difference.before_center), len(self.difference.after_center))
        if found != wanted:
            raise InputError(
                f"{self.card.name} was fitted to {wanted[0]} and {wanted[1]} bands and got {found[0]} and "
                f"{found[1]}; use the bands of the fit, or fit again"
            )
        logits = torch.zeros_like(valid, dtype=torch.float32)
        for image in range(len(before)):
            logits[image] = self._logits(before[image].flatten(1), after[image].flatten(1)).view_as(logits[image])
        return ChangeLogits(logits.mul_(valid))

    def _logits(self, before: Tensor, after: Tensor) -> Tensor:
        """Return ``(N,)`` from ``(Cb, N)`` and ``(Ca, N)``, computed in pieces that fit the cache."""
        logits = torch.empty(before.shape[1], dtype=torch.float32, device=before.device)
        device = before.device
        before_center, after_center = self._before_center.to(device), self._after_center.to(device)
        before_axes, after_axes, offset = (
            self._before_axes.to(device),
            self._after_axes.to(device),
            self._offset.to(device),
        )
        for start in range(0, before.shape[1], CHUNK):
            piece = slice(start, start + CHUNK)
            difference = torch.addmm(offset, before_axes, before[:, piece].float() - before_center)
            difference.addmm_(after_axes, after[:, piece].float() - after_center)
            z = difference.square_().sum(dim=0).nan_to_num_(nan=math.inf)  # NaN comes from overflow only
            logits[piece] = self._table(z)
        return logits

    def state(self) -> dict[str, Any]:
        """Return what `from_state` needs as JSON values; floats keep all their bits."""
        reading, difference = self.reading, self.difference
        return {
            "model": self.card.name,
            "difference": {name: getattr(difference, name).tolist() for name in Difference.__dataclass_fields__},
            "reading": {
                "dof": reading.dof,
                "probability": reading.probability,
                "false_alarm": reading.false_alarm,
                "mixture": reading.mixture
                and {
                    "changed_share": reading.mixture.changed_share,
                    "unchanged": list(reading.mixture.unchanged),
                    "changed": list(reading.mixture.changed),
                },
            },
            "diagnostics": self._diagnostics,
        }

    def diagnostics(self) -> dict[str, Any]:
        """Return convergence, correlations, shares and thresholds of the fit as JSON values."""
        return dict(self._diagnostics)

    @classmethod
    def from_state(cls, card: ModelCard, state: dict[str, Any]) -> Self:
        """Return the model that `state` described.

        Args:
            card: of the method.
            state: from `state`.

        Raises:
            InputError: the state belongs to another model or is not valid.
        """
        try:
            if state["model"] != card.name:
                raise InputError(
                    f"the saved fit belongs to {state['model']!r}, not to {card.name!r}; resume with that model, or "
                    "start again"
                )
            stored = state["reading"]
            mixture = stored["mixture"] and GammaMixture(
                float(stored["mixture"]["changed_share"]),
                _pair(stored["mixture"]["unchanged"]),
                _pair(stored["mixture"]["changed"]),
            )
            reading = Reading(stored["dof"], stored["probability"], stored["false_alarm"], mixture)
            arrays = {name: np.array(state["difference"][name], np.float64) for name in Difference.__dataclass_fields__}
            components = len(arrays["offset"])
            for date in ("before", "after"):  # an empty axis list loses its second dimension in JSON
                arrays[f"{date}_axes"] = arrays[f"{date}_axes"].reshape(len(arrays[f"{date}_center"]), components)
            return cls(fitted_card(card, reading), Difference(**arrays), reading, dict(state["diagnostics"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"the saved fit of {card.name} cannot be read ({type(error).__name__}: {error}); start the run again"
            ) from None


def _pair(values: Sequence[float]) -> tuple[float, float]:
    first, second = values
    return float(first), float(second)


def fitted_card(card: ModelCard, reading: Reading) -> ModelCard:
    """Return the card of a method with the threshold of its reading."""
    return replace(card, threshold=reading.threshold)
