"""A published implementation as its fixture describes it: weights to convert, images to show, answers to expect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from parity.fill import fill, inputs, load

FOLDER = Path(__file__).parent


def description(name: str) -> dict[str, Any]:
    """What ``NAME.json`` says: manifest, parameters, size, salt."""
    return load(FOLDER, name)[0]


def weights(name: str) -> dict[str, Tensor]:
    """The state dict of the published implementation, under its own names."""
    spec = description(name)
    return {key: torch.from_numpy(value) for key, value in fill(spec["manifest"], spec["salt"]).items()}


def images(name: str) -> tuple[Tensor, Tensor]:
    """The pair that it was shown, normalised already."""
    spec = description(name)
    before, after = inputs(spec["height"], spec["width"], spec["salt"])
    return torch.from_numpy(before), torch.from_numpy(after)


def answers(name: str) -> list[Tensor]:
    """What it answered, in its own order."""
    return [torch.from_numpy(value) for _, value in sorted(load(FOLDER, name)[1].items())]


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, as a share of their largest number."""
    return ((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max()).item()
