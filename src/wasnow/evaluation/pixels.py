"""Logits and labels of the labelled pixels of a pair."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wasnow.evaluation.labels import change_labels, labels
from wasnow.evaluation.metrics import IGNORE
from wasnow.models.contract import ChangeLogits

if TYPE_CHECKING:
    from wasnow.data.samples import Sample


def change_pixels(output: ChangeLogits, sample: Sample) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return ``(N,)`` change logits and labels of the pixels with a change label."""
    known = change_labels(sample)
    logits = output.change[0, 0].float().cpu().numpy()
    return logits[known != IGNORE], known[known != IGNORE] == 1


def class_pixels(output: ChangeLogits, sample: Sample) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Yield ``(N, K)`` logits and ``(N,)`` classes 0..K-1 of each date, on changed pixels with a class label."""
    both = labels(sample)
    if output.land_cover is None or both is None:
        return
    for logits, codes in zip(output.land_cover, both, strict=True):
        named = (codes > 0) & (codes != IGNORE)
        chosen: Tensor = logits[0][:, torch.from_numpy(named).to(logits.device)]
        yield chosen.float().T.cpu().numpy(), codes[named].astype(np.int64) - 1
