"""Batches of training pairs and their labels as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wasnow.errors import InputError
from wasnow.evaluation.metrics import IGNORE
from wasnow.training.losses import NO_CLASS, Target

if TYPE_CHECKING:
    from wasnow.data.samples import Sample


@dataclass(frozen=True)
class Batch:
    """Pairs as bytes; they are converted to float on the device.

    Attributes:
        before: ``(B, 3, H, W)`` uint8.
        after: ``(B, 3, H, W)`` uint8.
        target: the labels.
        priors: ``(B, 2, W, H, Wd)`` uint8, 0 and 1, for W words; None for a model without prior masks.
    """

    before: Tensor
    after: Tensor
    target: Target
    priors: Tensor | None = None

    def to(self, device: torch.device) -> tuple[Tensor, Tensor, Target]:
        """Return images as float32 0..1, and labels, on a device."""
        before, after = (one.to(device, non_blocking=True).float() / 255 for one in (self.before, self.after))
        return before, after, self.target.to(device)


def collate(samples: Sequence[Sample]) -> Batch:
    """Return samples of one size as a batch.

    Raises:
        InputError: sizes differ, some samples have no labels or priors, or only some have classes.
    """
    if len(sizes := {one.before.shape[:2] for one in samples}) > 1:
        small = min(sizes)
        raise InputError(
            f"pairs of {small[0]} x {small[1]} px and larger ones are in one batch; use --set crop={min(small)}"
        )
    before, after = (
        torch.from_numpy(np.stack([np.moveaxis(getattr(one, date), 2, 0) for one in samples]))
        for date in ("before", "after")
    )
    missing = [one.name for one in samples if one.priors is None]
    if 0 < len(missing) < len(samples):
        raise InputError(f"{missing[0]} has no priors and others in its batch do; compute priors for the whole dataset")
    return Batch(before, after, target_of(samples), _stacked([one.priors for one in samples]))


def target_of(samples: Sequence[Sample]) -> Target:
    """Return the labels of samples as a target.

    Labels with classes only: a pixel is changed if either date has a class. Labels with a change mask only: no classes.
    Labels with both: the mask gives the change, and classes are used wherever they are labelled, changed or not.

    Raises:
        InputError: a sample has no labels, or only some have classes.
    """
    missing = [one.name for one in samples if one.change is None and one.before_classes is None]
    if missing:
        raise InputError(f"{missing[0]} has no labels; remove it from the training data or add its label files")
    kinds = {(one.change is None, one.before_classes is None) for one in samples}
    if len(kinds) > 1:
        raise InputError(f"{samples[0].name} and others have different kinds of labels; use separate datasets")
    mask = _stacked([one.change for one in samples])
    before, after = _stacked([one.before_classes for one in samples]), _stacked([one.after_classes for one in samples])
    if before is None or after is None:
        assert mask is not None
        return Target.of_change(mask)
    if mask is None:
        return Target.of_codes(before, after, ignore=IGNORE)
    return Target(mask == 1, mask != IGNORE, _classes(before), _classes(after))


def _stacked(maps: Sequence[NDArray[np.uint8] | None]) -> Tensor | None:
    present = [one for one in maps if one is not None]
    return torch.from_numpy(np.stack(present)) if len(present) == len(maps) else None


def _classes(codes: Tensor) -> Tensor:
    """Return codes 1..K as indices 0..K-1; unchanged and unlabelled pixels as `NO_CLASS`."""
    return torch.where((codes == 0) | (codes == IGNORE), NO_CLASS, codes.long() - 1)
