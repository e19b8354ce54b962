"""A benchmark that fits into a test: coloured blobs, two networks of two convolutions, two steps each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from torch import Tensor

import wasnow.models.registry
from training.tiny import Blobs, Tiny
from wasnow.benchmark.pairs import Pairs, split_pairs
from wasnow.benchmark.plan import Plan, make_plan
from wasnow.benchmark.run import Benchmark, BenchmarkResult
from wasnow.models.contract import ChangeLogits, ModelCard
from wasnow.models.registry import ModelEntry
from wasnow.priors.samples import LABELS, NoMasks
from wasnow.training.config import Optimizer, Schedule, Stage, TrainConfig
from wasnow.training.recipes import RECIPES

HOSTILE = "</script><b onclick=x>$&_#%{}~^\\"


class Named(Tiny):
    """A network by the name of its class."""

    @property
    def card(self) -> ModelCard:
        return replace(super().card, name=type(self).__name__.casefold())


class Wide(Named):
    """The same with more channels."""

    def __init__(self, classes: Sequence[str] = ("water", "building", "field")) -> None:
        super().__init__(classes, width=16)
        self._config = {"classes": list(classes)}


class Guided(Named):
    """A network that wants masks of water, and does not look at them."""

    @property
    def card(self) -> ModelCard:
        return replace(super().card, wants_priors=("water",))

    def forward(
        self, before: Tensor, after: Tensor, valid: Tensor | None = None, priors: Tensor | None = None
    ) -> ChangeLogits:
        return super().forward(before, after, valid)


class Labelled(NoMasks):
    """Masks that say that they are from labels."""

    @property
    def origin(self) -> dict[str, Any]:
        return {**super().origin, "masker": {"masker": LABELS}}

    def pick(self, words: Sequence[str]) -> Labelled:
        return Labelled(tuple(words))


class Broken(Named):
    """A network that cannot answer."""

    def forward(self, before: Tensor, after: Tensor, valid: Tensor | None = None) -> ChangeLogits:
        raise ArithmeticError("nothing here\nadds up")


class Once(Named):
    """A network that ends its own process, or interrupts its parent, when it learns for the third time, but only once.

    Args:
        mark: a file that is there when it happened.
        whom: ``self`` or ``parent``.
    """

    def __init__(self, classes: Sequence[str], *, mark: str, whom: str) -> None:
        super().__init__(classes)
        self._config = {"classes": list(classes), "mark": mark, "whom": whom}
        self._asked = 0

    def forward(self, before: Tensor, after: Tensor, valid: Tensor | None = None) -> ChangeLogits:
        self._asked += self.training
        mark = Path(self._config["mark"])
        if self._asked == 3 and not mark.exists():
            mark.touch()
            if self._config["whom"] == "self":
                os.kill(os.getpid(), signal.SIGKILL)
            parent = multiprocessing.parent_process()
            assert parent is not None
            os.kill(parent.pid, signal.SIGINT)
            time.sleep(1)
        return super().forward(before, after, valid)


def recipe(model: str, summary: str = "as published", **changes: Any) -> TrainConfig:
    """Two steps of two pairs."""
    values: dict[str, Any] = {
        "name": f"{model}-recipe",
        "summary": summary,
        "model": model,
        "crop": 16,
        "batch_size": 2,
        "workers": 0,
        "stages": (Stage(loss="ding", steps=2),),
        "optimizer": Optimizer(lr=0.02),
        "schedule": Schedule(kind="constant"),
        "samples": 0,
        "save_every": 1,
        "validate_every": 2,
    }
    return TrainConfig(**{**values, **changes})


def enter(monkeypatch: Any, *names: str) -> None:
    """Let wasnow know networks of this module, each with a recipe as published."""
    for name in names:
        entry = ModelEntry("a test network", "change, classes", "train it", f"{__name__}:{name.title()}", network=True)
        monkeypatch.setitem(wasnow.models.registry.MODELS, name, entry)
        monkeypatch.setitem(RECIPES, f"{name}-recipe", lambda name=name: recipe(name))


def pairs(count: int = 8, name: str = "blobs") -> Pairs:
    """Pairs to train on, of which a fifth scores."""
    return split_pairs({"all": Blobs(count)}, name)


def contest(output: Path, plan: Plan, data: Pairs | None = None) -> Benchmark:
    """A silent benchmark on the CPU."""
    return Benchmark(plan, data or pairs(), output, device="cpu", examples=1, command="wasnow benchmark")


def planned(*names: str, **options: Any) -> Plan:
    """The plan for networks of this module, as published."""
    return make_plan(names, options.pop("budget", "published"), device="cpu", **options)


def run(output: Path, *names: str, **options: Any) -> BenchmarkResult:
    """Everything."""
    return contest(output, planned(*names, **options)).run()


def write_folder(path: Path, count: int = 6) -> Path:
    """The blobs as a folder in the layout and colours of SECOND."""
    palette = np.array([[255, 255, 255], [0, 0, 255], [128, 128, 128], [0, 128, 0]], np.uint8)
    for i in range(count):
        sample = Blobs(count)[i]
        labels = (palette[sample.before_classes], palette[sample.after_classes])
        for part, rgb in zip(("im1", "im2", "label1", "label2"), (sample.before, sample.after, *labels), strict=True):
            file = path / "train" / part / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            with rasterio.open(file, "w", driver="PNG", width=32, height=32, count=3, dtype="uint8") as out:
                out.write(np.moveaxis(rgb, 2, 0))
    return path
