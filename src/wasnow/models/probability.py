"""From Z, a squared and noise-normalised difference, to a probability of change.

    Z of every pixel ──> LogHistogram ──> GammaMixture.fit ──┐
                                                              ├─> Reading ──> logit(Z) ──> LogitTable, for tensors
    degrees of freedom ──> log_survival, log_cumulative ──────┘

Where nothing changed, Z is chi-square distributed. `irmad` explains this, and why the default takes the smaller of two
log-odds: a mixture fitted to the scene, and the significance. IR-MAD and CVA both use this module.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Self, get_args

import numpy as np
import torch
from scipy.special import digamma, gammainc, gammaincc, gammaln, polygamma
from torch import Tensor

from wasnow.errors import UsageError
from wasnow.models.moments import Floats, LogHistogram

Probability = Literal["mixture", "chi2"]
"""How Z becomes a probability: log-odds fitted to the scene, or the published chi-square probability."""


# ── the chi-square law, in logarithms ────────────────────────────────────────────────────────────────────────────────


def log_survival(z: Floats, dof: float) -> Floats:
    """Return log P(chi² > z), accurate in both tails for any z from 0 to 1e8.

    scipy's ``chi2.logsf`` is -inf from about z = 1500. There Legendre's continued fraction is used (even part of
    Abramowitz and Stegun 6.5.31): Γ(a, x) = e^-x x^a / (x + 1-a - 1(1-a) / (x + 3-a - 2(2-a) / (x + 5-a - ...))).
    """
    a, x = dof / 2.0, np.asarray(z, np.float64) / 2.0
    upper = gammaincc(a, x)
    far = upper < 1e-250
    result = np.log(np.where(far, 1.0, upper))
    tail = x[far]
    fraction = tail + 81.0 - a
    for k in range(40, 0, -1):
        fraction = tail + (2 * k - 1) - a - k * (k - a) / fraction
    result[far] = a * np.log(tail) - tail - gammaln(a) - np.log(fraction)
    return result


def log_cumulative(z: Floats, dof: float) -> Floats:
    """Return log P(chi² <= z) for z > 0, accurate in both tails: the leading term of the series where P underflows."""
    a, x = dof / 2.0, np.asarray(z, np.float64) / 2.0
    upper, lower = gammaincc(a, x), gammainc(a, x)
    far = lower < 1e-250
    leading = a * np.log(x) - x - gammaln(a + 1.0) - np.log1p(-np.minimum(x / (a + 1.0), 0.5))
    near = np.where(upper < 0.5, np.log1p(-np.minimum(upper, 0.5)), np.log(np.where(far, 1.0, lower)))
    return np.where(far, leading, near)


def consistency(dof: int) -> float:
    """Return c(p), the share of the noise variance that moments with weights 1 - F(Z) have where nothing changed."""
    a = dof / 2.0
    return 1.0 - math.exp(math.lgamma(a + 0.5) - math.lgamma(a + 1.0)) / math.sqrt(math.pi)


class SurvivalTable:
    """P(chi² > z) by linear interpolation in √z, within 1e-8 of scipy and three to six times as fast."""

    NODES = 1 << 16

    def __init__(self, dof: float) -> None:
        # Beyond this the probability, and with it the weight of a pixel, is below 1e-17.
        self._high = math.sqrt(dof) + 10.0
        self._values = gammaincc(dof / 2.0, np.linspace(0.0, self._high, self.NODES) ** 2 / 2.0)

    def __call__(self, z: Floats) -> Floats:
        """Return the probabilities of ``z``, of any shape and not negative."""
        place = np.minimum(np.sqrt(z), self._high) * ((self.NODES - 1) / self._high)
        left = np.minimum(place.astype(np.int64), self.NODES - 2)
        low = self._values[left]
        result: Floats = low + (self._values[left + 1] - low) * (place - left)
        return result


# ── reading Z ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class GammaMixture:
    """Two gamma laws of Z: a narrow one for unchanged, a wide one for changed pixels of a scene.

    Attributes:
        changed_share: weight of the wide law, in (0, 1).
        unchanged: (shape, scale) of the narrow law; a chi-square law is (p/2, 2).
        changed: (shape, scale) of the wide law; its scale is the larger one.
    """

    changed_share: float
    unchanged: tuple[float, float]
    changed: tuple[float, float]

    def log_odds(self, z: Floats) -> Floats:
        """Return the posterior log-odds of change, never decreasing in ``z`` (> 0).

        The ratio of two gamma laws is (k1 - k0) log z + (1/θ0 - 1/θ1) z + const. With k1 < k0 it would rise again
        towards z = 0, which makes no sense for a change map; left of its minimum it is held at the minimum.
        """
        (k0, t0), (k1, t1) = self.unchanged, self.changed
        slope = 1.0 / t0 - 1.0 / t1
        z = np.maximum(z, max(0.0, (k0 - k1) / slope))
        constant = math.log(self.changed_share) - math.log1p(-self.changed_share)
        constant += math.lgamma(k0) + k0 * math.log(t0) - math.lgamma(k1) - k1 * math.log(t1)
        odds: Floats = constant + (k1 - k0) * np.log(z) + slope * z
        return odds

    @classmethod
    def fit(cls, histogram: LogHistogram, start: float, *, max_iterations: int = 1000) -> Self | None:
        """Fit by expectation maximisation over histogram bins, after Bruzzone and Prieto (2000).

        Args:
            histogram: of Z.
            start: the value of Z that separates the two classes at first.
            max_iterations: at most this many steps; each costs microseconds.

        Returns:
            The mixture, or None where the histogram does not have two classes of different width.
        """
        seen = histogram.counts > 0
        logs, counts = histogram.log_centers[seen], histogram.counts[seen].astype(np.float64)
        z, total = np.exp(logs), float(histogram.counts.sum())
        member = np.where(z > start, 0.99, 0.01)
        narrow = wide = (1.0, 1.0)
        share, previous = 0.5, -math.inf
        for _ in range(max_iterations):
            share = float(counts @ member) / total
            if not 1.0 / total < share < 1.0 - 1.0 / total:
                return None
            laws = _fit_gamma(z, logs, counts * (1.0 - member)), _fit_gamma(z, logs, counts * member)
            if laws[0] is None or laws[1] is None:
                return None
            narrow, wide = laws[0], laws[1]
            low = math.log1p(-share) + _log_gamma_density(z, logs, *narrow)
            high = math.log(share) + _log_gamma_density(z, logs, *wide)
            both = np.logaddexp(low, high)
            member = np.exp(high - both)
            likelihood = float(counts @ both) / total
            if likelihood - previous < 1e-9:
                break
            previous = likelihood
        if wide[1] <= narrow[1] * 1.01:
            return None
        return cls(share, narrow, wide)


def _log_gamma_density(z: Floats, logs: Floats, shape: float, scale: float) -> Floats:
    density: Floats = (shape - 1.0) * logs - z / scale - math.lgamma(shape) - shape * math.log(scale)
    return density


def _fit_gamma(z: Floats, logs: Floats, weights: Floats) -> tuple[float, float] | None:
    """Return the maximum likelihood (shape, scale) (Minka 2002), or None for a single value."""
    total = float(weights.sum())
    mean = float(weights @ z) / total
    spread = math.log(mean) - float(weights @ logs) / total
    if spread < 1e-6:
        return None
    shape = (3.0 - spread + math.sqrt((spread - 3.0) ** 2 + 24.0 * spread)) / (12.0 * spread)
    for _ in range(4):
        error = math.log(shape) - float(digamma(shape)) - spread
        shape = 1.0 / (1.0 / shape + error / (shape * shape * (1.0 / shape - float(polygamma(1, shape)))))
    return shape, mean / shape


def check_reading(probability: str, false_alarm: float) -> None:
    """Check the options of the reading.

    Raises:
        UsageError: one is unknown or out of range.
    """
    if probability not in get_args(Probability):
        raise UsageError(f"probability is {probability!r}; use one of {', '.join(get_args(Probability))}")
    if not 1e-6 <= false_alarm <= 0.5:
        raise UsageError(
            f"false_alarm is {false_alarm}; it must be a share of the unchanged pixels from 1e-6 to 0.5, usually 1e-4"
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """How Z becomes the logit of change.

    Attributes:
        dof: degrees of freedom of Z where nothing changed.
        probability: ``"mixture"`` or ``"chi2"``, see the module.
        false_alarm: the share of unchanged pixels that Gaussian noise alone may push over the threshold.
        mixture: the two laws of the scene, or None where there are not two.
    """

    dof: float
    probability: Probability
    false_alarm: float
    mixture: GammaMixture | None

    def logit(self, z: Floats) -> Floats:
        """Return the log-odds of change in float64, never decreasing in ``z`` (> 0)."""
        if self.probability == "chi2":
            return log_cumulative(z, self.dof) - log_survival(z, self.dof)
        significance = math.log(self.false_alarm) - log_survival(z, self.dof)
        return significance if self.mixture is None else np.minimum(significance, self.mixture.log_odds(z))

    @property
    def threshold(self) -> float:
        """The change probability above which a pixel counts as changed."""
        return 0.5 if self.probability == "mixture" else 1.0 - self.false_alarm

    @property
    def z_threshold(self) -> float:
        """The value of Z at which a pixel counts as changed, to four digits."""
        odds = math.log(self.threshold) - math.log1p(-self.threshold)
        low, high = math.log(1e-4), math.log(1e7)
        while high - low > 1e-6:
            middle = (low + high) / 2.0
            below = float(self.logit(np.array([math.exp(middle)]))[0]) < odds
            low, high = (middle, high) if below else (low, middle)
        return float(f"{math.exp(high):.4g}")

    def table(self) -> LogitTable:
        """Return the same function for tensors."""
        return LogitTable(self)


class LogitTable:
    """`Reading.logit` for float32 tensors: linear interpolation on nodes uniform in log Z.

    The logit is linear in log Z near 0 and linear in Z far out, so the relative error is at most about step²/8 = 1e-6,
    less than the rounding of float32. Outside 1e-10..1e10 it keeps the end values.
    """

    LOG2_LOW = math.log2(1e-10)
    LOG2_HIGH = math.log2(1e10)
    NODES = 1 << 14

    def __init__(self, reading: Reading) -> None:
        values = reading.logit(np.exp2(np.linspace(self.LOG2_LOW, self.LOG2_HIGH, self.NODES)))
        self._values = torch.from_numpy(values.astype(np.float32))
        self._steps = torch.from_numpy(np.append(np.diff(values), 0.0).astype(np.float32))

    def __call__(self, z: Tensor) -> Tensor:
        """Return the logits of a flat tensor ``(N,)``, whose storage is overwritten."""
        if z.device != self._values.device:
            self._values, self._steps = self._values.to(z.device), self._steps.to(z.device)
        scale = (self.NODES - 1) / (self.LOG2_HIGH - self.LOG2_LOW)
        place = z.clamp_(2.0**self.LOG2_LOW, 2.0**self.LOG2_HIGH).log2_().sub_(self.LOG2_LOW).mul_(scale)
        left = place.to(torch.int32).clamp_(0, self.NODES - 2)
        place.sub_(left)
        return self._values.index_select(0, left).addcmul_(self._steps.index_select(0, left), place)
