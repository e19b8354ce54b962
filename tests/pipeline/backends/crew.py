"""Test models that record where they were unpickled, are slow, or kill their process; and pairs of many blocks."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import rasterio
import torch
from torch import Tensor

from making import Toy, pair
from wasnow.models.contract import ChangeLogits
from wasnow.pipeline import plan

SAME = ("change.tif", "confidence.tif", "changes.gpkg", "changes.parquet")
"""Results that must have the same bytes with every backend."""
LETHAL = (250, 0, 250)
"""The colour of a pixel in the before image that makes `Lethal` kill its process."""


@dataclass(frozen=True)
class Traced(Toy):
    """A `Toy` of small tiles that writes a line to a file of its process whenever it is unpickled there."""

    tile: int = 32
    folder: str = ""
    seconds: float = 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (type(self), {each.name: getattr(self, each.name) for each in fields(self)})

    def __call__(self, before: Tensor, after: Tensor, valid: Tensor) -> ChangeLogits:
        time.sleep(self.seconds)
        return super().__call__(before, after, valid)


def _unpickled(kind: type[Traced], values: dict[str, Any]) -> Traced:
    with (Path(values["folder"]) / f"{os.getpid()}.loaded").open("a") as file:
        file.write("loaded\n")
    return kind(**values)


def loads(folder: Path) -> dict[int, int]:
    """How often each process has unpickled the model."""
    return {int(path.stem): len(path.read_text().splitlines()) for path in folder.glob("*.loaded")}


@dataclass(frozen=True)
class Guided(Toy):
    """Change is where the prior masks of the two dates differ."""

    classes: tuple[str, ...] = ()
    tile: int = 32
    wants_priors: tuple[str, ...] = ("building",)

    def __call__(
        self, before: Tensor, after: Tensor, valid: Tensor | None = None, priors: Tensor | None = None
    ) -> ChangeLogits:
        assert priors is not None
        masks = priors.float()
        return ChangeLogits(8 * (masks[:, 0] - masks[:, 1]).abs().amax(1, keepdim=True) - 4)


@dataclass(frozen=True)
class Lethal(Traced):
    """Kills its process at a lethal pixel, until a file ``healed`` exists."""

    def __call__(self, before: Tensor, after: Tensor, valid: Tensor) -> ChangeLogits:
        lethal = (before - torch.tensor(LETHAL).reshape(1, 3, 1, 1) / 255).abs().amax(1) < 0.01
        if lethal.any() and not (Path(self.folder) / "healed").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(before, after, valid)


def lethal_pair(folder: Path, *places: tuple[int, int]) -> tuple[Path, Path]:
    """A pair with lethal pixels at these rows and columns."""
    before, after = pair(folder)
    with rasterio.open(before, "r+") as raster:
        values = raster.read()
        for row, col in places:
            values[:, row, col] = LETHAL
        raster.write(values)
    return before, after


def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use blocks of 32 pixels: twelve in a pair, and more with margins."""
    whole = plan.Tiling
    monkeypatch.setattr(plan, "Tiling", lambda *a, **k: whole(*a, **k, block_side=32))


def same_results(one: Path, other: Path) -> None:
    """Assert that two result folders have the same bytes."""
    for name in SAME:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def children_of(pid: int) -> list[int]:
    """Every running process of the process group of a process."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                fields_ = (path / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields_[2]) == pid and fields_[0] != "Z" and int(path.name) != pid:
                found.append(int(path.name))
    return found
