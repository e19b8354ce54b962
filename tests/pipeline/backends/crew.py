"""Models that say where they were loaded, take their time, or kill whoever asks them; and pairs of many blocks."""

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
"""What must be the same bytes whoever did the work."""
LETHAL = (250, 0, 250)
"""The colour of a pixel in the before image that kills."""


@dataclass(frozen=True)
class Told(Toy):
    """A `Toy` of small tiles that leaves a line in a folder, named by its process, whenever it is unpacked there."""

    tile: int = 32
    folder: str = ""
    seconds: float = 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (type(self), {each.name: getattr(self, each.name) for each in fields(self)})

    def __call__(self, before: Tensor, after: Tensor, valid: Tensor) -> ChangeLogits:
        time.sleep(self.seconds)
        return super().__call__(before, after, valid)


def _arrived(kind: type[Told], values: dict[str, Any]) -> Told:
    with (Path(values["folder"]) / f"{os.getpid()}.loaded").open("a") as file:
        file.write("loaded\n")
    return kind(**values)


def loads(folder: Path) -> dict[int, int]:
    """How often each process has loaded the model."""
    return {int(path.stem): len(path.read_text().splitlines()) for path in folder.glob("*.loaded")}


@dataclass(frozen=True)
class Guided(Toy):
    """Believes the masks that it is given: changed where they differ between the dates."""

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
class Lethal(Told):
    """Kills its process over a lethal pixel, until there is a file ``healed``."""

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
    """Blocks of 32 pixels: twelve in a pair, and more with margins."""
    whole = plan.Tiling
    monkeypatch.setattr(plan, "Tiling", lambda *a, **k: whole(*a, **k, block_side=32))


def same_results(one: Path, other: Path) -> None:
    """Nothing, if two result folders hold the same bytes."""
    for name in SAME:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def children_of(pid: int) -> list[int]:
    """Every living descendant of a process, and what is left of its group."""
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
