"""Temperature scaling: softmax(logits / T) with the T of the largest likelihood on validation pixels.

      observed                    T > 1 flattens the logits of an overconfident network, T < 1 sharpens them. All
       1 |        o   '           logits of a pixel are divided by T, so their order and the class map stay. A
         |      o   '             decision threshold is converted as well (`Calibration.threshold`), so the
         |    o '                 change map stays, too.
       0 +---------- stated

Fits use a sample of pixels: `PixelSample` keeps a fixed number, each pixel with equal probability.
Numpy and scipy only: no torch, no files.

Source: Guo et al., "On calibration of modern neural networks" (ICML 2017), eq. 9.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from wasnow.errors import InputError

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
"""Range of the fit. A result at a bound means that the sample separates without error, or that logits carry no
information."""

_CELLS = 1 << 20
"""Logits processed at a time: 8 MiB of float64."""


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Return the temperature T that maximises the likelihood of the labels, `MIN_TEMPERATURE` to `MAX_TEMPERATURE`.

    The mean negative log-likelihood is convex in b = 1 / T. Its slope is mean(E_p[z] - z_label) with p = softmax(b z);
    its root is found by Brent's method.

    Args:
        logits: ``(N,)`` log-odds of label 1, or ``(N, K)`` class logits.
        labels: ``(N,)`` 0 or 1; or 0..K-1.

    Returns:
        T; 1 if all logits in each row are equal, where T has no effect.

    Raises:
        InputError: no rows, wrong shapes, logits that are not finite, or labels out of range.
    """
    z, y = np.asarray(logits), np.asarray(labels).astype(np.int64)
    if z.ndim == 1:
        # The softmax of two logits that differ by z is the sigmoid of z.
        z = z[:, None] * np.array([-0.5, 0.5], z.dtype if z.dtype.kind == "f" else np.float64)
    if z.ndim != 2 or y.shape != z.shape[:1] or not y.size:
        raise InputError(f"logits are {z.shape} and labels {y.shape}; one label per row is required")
    if not np.isfinite(z).all():
        raise InputError("some logits are not finite, so no temperature can be fitted; check the model")
    if y.min() < 0 or y.max() >= z.shape[1]:
        raise InputError(f"labels range from {y.min()} to {y.max()}; {z.shape[1]} classes need 0 to {z.shape[1] - 1}")
    if not np.ptp(z, axis=1).any():
        return 1.0
    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    if _slope(z, y, low) >= 0:
        return MAX_TEMPERATURE
    if _slope(z, y, high) <= 0:
        return MIN_TEMPERATURE
    return float(1 / brentq(lambda b: _slope(z, y, b), low, high, xtol=1e-14, rtol=1e-12))


def at_bound(temperature: float) -> bool:
    """Return whether a fitted temperature is at a bound of its range and therefore unreliable."""
    return not 1.001 * MIN_TEMPERATURE < temperature < 0.999 * MAX_TEMPERATURE


def _slope(z: NDArray[Any], y: NDArray[np.int64], b: float) -> float:
    """Return the derivative of the mean negative log-likelihood at b, in float64, computed in chunks."""
    slope = 0.0
    rows = max(1, _CELLS // z.shape[1])
    for start in range(0, len(z), rows):
        part = z[start : start + rows].astype(np.float64)
        part -= part.max(1, keepdims=True)
        p = np.exp(b * part)
        p /= p.sum(1, keepdims=True)
        slope += float(((p * part).sum(1) - part[np.arange(len(part)), y[start : start + rows]]).sum())
    return slope / len(z)


class PixelSample:
    """A uniform sample of at most ``capacity`` pixels of a stream, in constant memory.

    Each pixel gets a random key, and the pixels with the smallest keys are kept. Equal pixels in equal order and chunks
    give equal samples.

    Args:
        capacity: pixels to keep.
        seed: random seed.
    """

    def __init__(self, capacity: int, seed: int = 0) -> None:
        self.capacity = capacity
        self.total = 0
        self._rng = np.random.default_rng(seed)
        self._keys = np.zeros(0)
        self._values: NDArray[Any] | None = None
        self._labels = np.zeros(0, np.int64)
        self._limit = 1.0

    def add(self, values: NDArray[Any], labels: NDArray[Any]) -> None:
        """Add ``(N,)`` or ``(N, K)`` logits and their ``(N,)`` labels."""
        keys = self._rng.random(len(values))
        self.total += len(values)
        stay = keys < self._limit
        kept = values[stay] if self._values is None else np.concatenate([self._values, values[stay]])
        keys, labels = np.concatenate([self._keys, keys[stay]]), np.concatenate([self._labels, labels[stay]])
        if len(keys) > self.capacity:
            smallest = np.sort(np.argpartition(keys, self.capacity)[: self.capacity])
            keys, kept, labels = keys[smallest], kept[smallest], labels[smallest]
            self._limit = float(keys.max())
        self._keys, self._values, self._labels = keys, kept, labels.astype(np.int64)

    @property
    def sample(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Logits and labels of the kept pixels."""
        return (np.zeros(0) if self._values is None else self._values), self._labels
