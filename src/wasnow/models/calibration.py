"""The fitted temperatures of a checkpoint, as a value. `wasnow.evaluation.calibrate` fits them."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, Field


class Calibration(BaseModel):
    """The temperatures of a checkpoint, and its expected calibration error (ECE) before and after them.

    The probability of change is sigmoid(logit / change_temperature); that of a class is
    softmax(logits / class_temperature) over the class words, without "unchanged". ECE values are fractions, 0..1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    change_temperature: float = Field(gt=0, description="divides the logit of change")
    class_temperature: float = Field(default=1.0, gt=0, description="divides the logits of the class words")
    ece_change_before: float | None
    ece_change_after: float | None
    ece_class_before: float | None = Field(default=None, description="None for a model without classes")
    ece_class_after: float | None = None
    split: str = Field(description="the split that the temperatures were fitted on")
    pairs: int
    data_fingerprint: str | None = None

    def threshold(self, own: float) -> float:
        """Return the calibrated probability that corresponds to the uncalibrated threshold ``own``, both 0..1."""
        return moved_threshold(own, self.change_temperature)

    def raw_threshold(self, calibrated: float) -> float:
        """Invert `threshold`: return the uncalibrated probability of a calibrated one, both 0..1."""
        return _tempered(calibrated, self.change_temperature)


def moved_threshold(threshold: float, temperature: float) -> float:
    """Return ``sigmoid(logit(threshold) / temperature)``, which selects the same pixels after temperature scaling."""
    return _tempered(threshold, 1 / temperature)


def _tempered(probability: float, factor: float) -> float:
    """Return sigmoid(factor * logit(probability)); 0 and 1 stay."""
    if factor == 1 or not 0 < probability < 1:
        return probability
    logit = factor * math.log(probability / (1 - probability))
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))
