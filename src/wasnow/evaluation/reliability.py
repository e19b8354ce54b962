"""Reliability of stated probabilities: how often predictions at a given confidence are correct.

Numpy only: no torch, no files.

Source: Guo et al., "On calibration of modern neural networks" (ICML 2017), eq. 3 (expected calibration error);
Naeini et al. 2015 (bins of equal width).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wasnow.errors import InputError

BINS = 15
"""Number of bins, as in Guo et al."""


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Confidence and accuracy in bins of equal width. Instances can be added.

    Bin m of M holds confidences in ((m - 1) / M, m / M]; the first bin includes 0.

    Attributes:
        count: ``(M,)`` pixels in each bin.
        stated: ``(M,)`` sum of their confidences.
        met: ``(M,)`` number of correct ones.
    """

    count: NDArray[np.int64]
    stated: NDArray[np.float64]
    met: NDArray[np.int64]

    @classmethod
    def of(cls, confidence: ArrayLike, correct: ArrayLike, bins: int = BINS) -> Reliability:
        """Count pixels.

        Args:
            confidence: probabilities 0..1, of any shape.
            correct: whether each prediction is correct, of the same shape.
            bins: M.

        Raises:
            InputError: shapes differ, or a confidence is outside 0..1.
        """
        stated, outcome = np.asarray(confidence).ravel(), np.asarray(correct, bool).ravel()
        if stated.shape != outcome.shape:
            raise InputError(f"{stated.size} confidences for {outcome.size} outcomes; give one for each")
        if stated.size and not (stated.min() >= 0 and stated.max() <= 1):
            raise InputError(f"confidences are {stated.min():g} to {stated.max():g}; they must be probabilities 0..1")
        place = np.maximum(np.ceil(stated.astype(np.float64) * bins).astype(np.int64) - 1, 0)
        return cls(
            np.bincount(place, minlength=bins),
            np.bincount(place, stated, bins).astype(np.float64),
            np.bincount(place[outcome], minlength=bins),
        )

    @classmethod
    def empty(cls, bins: int = BINS) -> Reliability:
        """Return counts of no pixels, the start of a sum."""
        return cls(np.zeros(bins, np.int64), np.zeros(bins), np.zeros(bins, np.int64))

    def __add__(self, other: Reliability) -> Reliability:
        return Reliability(self.count + other.count, self.stated + other.stated, self.met + other.met)

    @property
    def pixels(self) -> int:
        """Number of counted pixels."""
        return int(self.count.sum())

    @property
    def ece(self) -> float:
        """Expected calibration error, 0..1: sum over bins of (n_m / n) |observed_m - stated_m|; NaN without pixels."""
        return float(np.abs(self.met - self.stated).sum() / self.pixels) if self.pixels else math.nan

    def as_dict(self) -> dict[str, Any]:
        """Return ECE and the non-empty bins (index, pixels, mean stated and observed) as plain JSON values."""
        filled = np.flatnonzero(self.count)
        return {
            "ece": self.ece if self.pixels else None,
            "pixels": self.pixels,
            "bins": len(self.count),
            "diagram": [
                {
                    "bin": int(i),
                    "pixels": int(self.count[i]),
                    "stated": float(self.stated[i] / self.count[i]),
                    "observed": float(self.met[i] / self.count[i]),
                }
                for i in filled
            ],
        }


def ece(confidence: ArrayLike, correct: ArrayLike, bins: int = BINS) -> float:
    """Return the expected calibration error, 0..1; `Reliability.ece` gives the equation.

    Args:
        confidence: probabilities 0..1.
        correct: whether each prediction is correct.
        bins: number of bins.

    Raises:
        InputError: as `Reliability.of`.
    """
    return Reliability.of(confidence, correct, bins).ece


def sigmoid(logits: NDArray[Any], temperature: float = 1.0) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-z / T)) as float64, without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64) / temperature))


def max_probability(logits: NDArray[Any], temperature: float = 1.0) -> NDArray[np.float64]:
    """Return ``(N,)``: the maximum of softmax(z / T) in each row of ``(N, K)``, 1 / K..1."""
    z = logits.astype(np.float64) / temperature
    highest: NDArray[np.float64] = 1 / np.exp(z - z.max(1, keepdims=True)).sum(1)
    return highest
