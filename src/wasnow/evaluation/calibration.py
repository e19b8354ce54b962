"""How far stated confidence can be believed, and the one number that mends it.

    reliability   of the pixels that the model calls 70 % sure, how many are right?     Reliability, ece
    temperature   softmax(logits / T), T where validation pixels are likeliest          fit_temperature
    Calibration   both temperatures and what they did: `wasnow.models.calibration`

      observed                    T > 1 flattens the logits of a network that is too sure of itself, T < 1 sharpens.
       1 |        o   '           It divides all logits of a pixel alike, so their order stays, and with it the class
         |      o   '             map. A threshold of the model's own is moved along (`Calibration.threshold`), so the
         |    o '                 change map stays too: calibration changes what is said of the map, never the map.
       0 +---------- stated

Pixels come in millions and are sampled: `Reservoir` keeps a fixed number, each pixel as likely as any other.
Only numpy: no torch, no files.

Sources: Guo et al., "On calibration of modern neural networks" (ICML 2017), eqs. 3 (ECE) and 9 (temperature);
Naeini et al. 2015 (equal-width bins).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wasnow.errors import InputError

BINS = 15
"""As in Guo et al."""

COLDEST, HOTTEST = 0.05, 20.0
"""Temperatures stay between these: at an end, the sample separates without error, or the logits say nothing."""

_CELLS = 1 << 20
"""Logits that are looked at in one step of the fit: 8 MiB of float64."""


# ---------------------------------------------------------------------------------------------------------- reliability


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Stated against observed, in bins of equal width; adds up exactly over images but for rounding of ``stated``.

    Bin m of M holds confidences in ((m - 1) / M, m / M], the first one 0 as well.

    Attributes:
        count: ``(M,)`` pixels in each bin.
        stated: ``(M,)`` sum of their confidences.
        met: ``(M,)`` how many of them were right.
    """

    count: NDArray[np.int64]
    stated: NDArray[np.float64]
    met: NDArray[np.int64]

    @classmethod
    def of(cls, confidence: ArrayLike, correct: ArrayLike, bins: int = BINS) -> Reliability:
        """Count a pile of pixels.

        Args:
            confidence: probabilities 0..1, of any shape.
            correct: whether each came true, of the same shape.
            bins: M.

        Raises:
            InputError: shapes differ, or a confidence is no probability.
        """
        sure, right = np.asarray(confidence).ravel(), np.asarray(correct, bool).ravel()
        if sure.shape != right.shape:
            raise InputError(f"{sure.size} confidences for {right.size} outcomes; give one for each")
        if sure.size and not (sure.min() >= 0 and sure.max() <= 1):
            raise InputError(f"confidences from {sure.min():g} to {sure.max():g}, wanted 0 to 1; use probabilities")
        place = np.maximum(np.ceil(sure.astype(np.float64) * bins).astype(np.int64) - 1, 0)
        return cls(
            np.bincount(place, minlength=bins),
            np.bincount(place, sure, bins).astype(np.float64),
            np.bincount(place[right], minlength=bins),
        )

    @classmethod
    def empty(cls, bins: int = BINS) -> Reliability:
        """No pixels: where a sum starts."""
        return cls(np.zeros(bins, np.int64), np.zeros(bins), np.zeros(bins, np.int64))

    def __add__(self, other: Reliability) -> Reliability:
        return Reliability(self.count + other.count, self.stated + other.stated, self.met + other.met)

    @property
    def pixels(self) -> int:
        """How many are counted."""
        return int(self.count.sum())

    @property
    def ece(self) -> float:
        """Expected calibration error, 0..1: sum over bins of (n_m / n) |observed_m - stated_m|; NaN without pixels."""
        return float(np.abs(self.met - self.stated).sum() / self.pixels) if self.pixels else math.nan

    def as_dict(self) -> dict[str, Any]:
        """ECE and the filled bins (their place, pixels, mean stated and observed) as plain JSON values."""
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
    """Expected calibration error of a pile of predictions, 0..1; `Reliability.ece` has the equation.

    Raises:
        InputError: as `Reliability.of`.
    """
    return Reliability.of(confidence, correct, bins).ece


def sigmoid(logits: NDArray[Any], temperature: float = 1.0) -> NDArray[np.float64]:
    """1 / (1 + exp(-z / T)), without overflow, as float64."""
    return 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64) / temperature))


def surest(logits: NDArray[Any], temperature: float = 1.0) -> NDArray[np.float64]:
    """``(N,)``: the largest of softmax(z / T) of each row of ``(N, K)``, 1 / K..1."""
    z = logits.astype(np.float64) / temperature
    best: NDArray[np.float64] = 1 / np.exp(z - z.max(1, keepdims=True)).sum(1)
    return best


# ---------------------------------------------------------------------------------------------------------- temperature


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature T under which the labels are likeliest, `COLDEST` to `HOTTEST`.

    The mean negative log-likelihood is convex in b = 1 / T: its slope is mean(E_p[z] - z_label) and its curvature
    mean(Var_p[z]), with p = softmax(b z). Newton steps inside a bracket find where the slope is 0.

    Args:
        logits: ``(N,)`` log-odds of label 1, or ``(N, K)`` one a class.
        labels: ``(N,)`` 0 or 1; or 0..K-1.

    Returns:
        T; 1 where the logits of each row are all the same, so that no temperature matters.

    Raises:
        InputError: no rows, other shapes, logits that are no finite numbers, or labels outside the classes.
    """
    z, y = np.asarray(logits), np.asarray(labels).astype(np.int64)
    if z.ndim == 1:
        # Half of z to either side: the softmax of two classes that differ by z is its sigmoid.
        z = z[:, None] * np.array([-0.5, 0.5], z.dtype if z.dtype.kind == "f" else np.float64)
    if z.ndim != 2 or y.shape != z.shape[:1] or not y.size:
        raise InputError(f"logits {z.shape} and labels {y.shape} give no temperature; one label a row is needed")
    if not np.isfinite(z).all():
        raise InputError("some logits are no finite numbers, so no temperature fits them; look at the model first")
    if y.min() < 0 or y.max() >= z.shape[1]:
        raise InputError(f"labels {y.min()} to {y.max()} for {z.shape[1]} classes; wanted 0 to {z.shape[1] - 1}")
    if not np.ptp(z, axis=1).any():
        return 1.0
    low, high, b = 1 / HOTTEST, 1 / COLDEST, 1.0
    for _ in range(100):
        slope, curvature = _slope(z, y, b)
        low, high = (b, high) if slope < 0 else (low, b)
        step = b - slope / curvature if curvature > 0 else math.inf
        # Newton, where it stays inside; else to the end that the slope points to, and from then on halfway.
        after = step if low < step < high else math.sqrt(low * high)
        if slope == 0 or abs(after - b) <= 1e-10 * b:
            break
        b = after
    return float(min(max(1 / b, COLDEST), HOTTEST))


def at_an_end(temperature: float) -> bool:
    """Whether the fit ran against `COLDEST` or `HOTTEST`: the number then says little."""
    return not 1.001 * COLDEST < temperature < 0.999 * HOTTEST


def _slope(z: NDArray[Any], y: NDArray[np.int64], b: float) -> tuple[float, float]:
    """First and second derivative of the mean negative log-likelihood at b, in float64, a part at a time."""
    slope = curvature = 0.0
    rows = max(1, _CELLS // z.shape[1])
    for start in range(0, len(z), rows):
        part = z[start : start + rows].astype(np.float64)
        part -= part.max(1, keepdims=True)
        p = np.exp(b * part)
        p /= p.sum(1, keepdims=True)
        mean = (p * part).sum(1)
        slope += float((mean - part[np.arange(len(part)), y[start : start + rows]]).sum())
        curvature += float((p * (part - mean[:, None]) ** 2).sum())
    return slope / len(z), curvature / len(z)


class Reservoir:
    """A uniform sample of at most ``capacity`` of all the pixels that pass by; memory does not grow with them.

    Each pixel draws a number, and those with the smallest stay. The same pixels in the same order and parts give the
    same sample.
    """

    def __init__(self, capacity: int, seed: int = 0) -> None:
        self.capacity = capacity
        self.passed = 0
        self._draw = np.random.default_rng(seed)
        self._keys = np.zeros(0)
        self._values: NDArray[Any] | None = None
        self._labels = np.zeros(0, np.int64)
        self._limit = 1.0

    def add(self, values: NDArray[Any], labels: NDArray[Any]) -> None:
        """Let ``(N,)`` or ``(N, K)`` logits and their ``(N,)`` labels pass."""
        keys = self._draw.random(len(values))
        self.passed += len(values)
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
        """Logits and labels of the pixels that stayed."""
        return (np.zeros(0) if self._values is None else self._values), self._labels


# -------------------------------------------------------------------------------------------------------------- drawing

_SIDE, _LEFT, _TOP, _BOTTOM = 300, 44, 10, 36
_COLORS = ("#8a8f98", "#2a6fdb", "#1f8a4c", "#c77700")


def reliability_diagram(curves: Mapping[str, Reliability], *, stated: str, observed: str) -> str:
    """Stated against observed as ``<svg>``: a dot a bin, its area the share of pixels; on the diagonal all is well.

    Args:
        curves: by their name in the legend; those without pixels are left out.
        stated: what the axis across says.
        observed: what the axis upwards says.
    """
    width = height = _SIDE

    def at(x: float, y: float) -> tuple[float, float]:
        return _LEFT + x * width, _TOP + (1 - y) * height

    drawn = []
    for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        x, y = at(tick, tick)
        drawn.append(f'<path class="rule" d="M{_LEFT} {y:.1f}H{_LEFT + width}"/>')
        drawn.append(f'<text class="y" x="{_LEFT - 6}" y="{y + 4:.1f}">{tick:.1f}</text>')
        drawn.append(f'<text class="x" x="{x:.1f}" y="{_TOP + height + 15}">{tick:.1f}</text>')
    drawn.append(f'<path class="mark" d="M{_LEFT} {_TOP + height}L{_LEFT + width} {_TOP}"/>')
    drawn.append(f'<text class="x" x="{_LEFT + width / 2}" y="{_TOP + height + 31}">{escape(stated)}</text>')
    drawn.append(f'<text class="x" transform="translate(11 {_TOP + height / 2}) rotate(-90)">{escape(observed)}</text>')
    legend = []
    for color, (name, one) in zip(_COLORS, curves.items(), strict=False):
        filled = np.flatnonzero(one.count)
        if not len(filled):
            continue
        n = one.count[filled]
        points = [at(x, y) for x, y in zip(one.stated[filled] / n, one.met[filled] / n, strict=True)]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        drawn.append(f'<path class="curve" stroke="{color}" d="{path}"/>')
        for (x, y), share in zip(points, n / one.pixels, strict=True):
            title = f"{share:.1%} of the pixels"
            drawn.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{2 + 9 * math.sqrt(share):.1f}" fill="{color}" '
                f'fill-opacity=".55"><title>{title}</title></circle>'
            )
        legend.append(f'<li><i style="background:{color}"></i>{escape(name)} <b>ECE {100 * one.ece:.2f} %</b></li>')
    if not legend:
        return '<p class="quiet">no pixel has both an answer and a label</p>'
    box = f"0 0 {_LEFT + width + 12} {_TOP + height + _BOTTOM}"
    return (
        f'<svg class="chart" viewBox="{box}" style="max-width:26rem" role="img" '
        f'aria-label="{escape(stated)} against {escape(observed)}">{"".join(drawn)}</svg>'
        f'<ul class="key">{"".join(legend)}</ul>'
    )
