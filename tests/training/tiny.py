"""A network and a dataset small enough to train in a test, and a run of them in a process of its own.

The pairs are coloured blobs: the colour tells the class, so a small network can learn them.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import wasnow.models.registry
from wasnow.data.samples import Sample
from wasnow.models.contract import ChangeLogits, ModelCard
from wasnow.models.network import Network
from wasnow.models.registry import ModelEntry
from wasnow.training.config import Optimizer, Schedule, Stage, TrainConfig
from wasnow.training.settings import with_settings
from wasnow.vocabulary import Vocabulary

WORDS = ("water", "building", "field")
COLORS = np.array([[40, 90, 200], [200, 60, 60], [210, 190, 80]], np.float64)


class Tiny(Network):
    """Two convolutions shared by the dates, and heads; stride 4 by declaration, though it needs none."""

    def __init__(
        self, classes: Sequence[str] = WORDS, *, width: int = 8, norm: str = "group", dropout: float = 0.1
    ) -> None:
        super().__init__()
        self._config = {"classes": list(classes), "width": width, "norm": norm, "dropout": dropout}
        self._classes = tuple(classes)
        layer = nn.BatchNorm2d(width) if norm == "batch" else nn.GroupNorm(2, width)
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), layer, nn.ReLU(), nn.Dropout2d(dropout), nn.Conv2d(width, width, 1)
        )
        self.change = nn.Conv2d(2 * width, 1, 1)
        self.classes = nn.Conv2d(width, len(classes) + 1, 1)

    @property
    def card(self) -> ModelCard:
        return ModelCard(
            name="tiny",
            summary="a test network",
            source="tests",
            classes=self._classes,
            stride=4,
            weights=self.weights_info,
        )

    def config(self) -> dict[str, Any]:
        return self._config

    def bind(self, classes: Sequence[str]) -> Tiny:
        assert tuple(classes) == self._classes
        return self

    def forward(self, before: Tensor, after: Tensor, valid: Tensor | None = None) -> ChangeLogits:
        assert before.shape[-2] % 4 == before.shape[-1] % 4 == 0
        first, second = (self.encoder(one.to(self.change.weight.device)) for one in (before, after))
        change = self.change(torch.cat([first, second], 1)) + 4 * (first - second).abs().mean(1, keepdim=True) - 1
        return ChangeLogits(change, self.classes(first), self.classes(second), unchanged_channel=True)


class TinyChange(Tiny):
    """The same without classes."""

    def __init__(self, *, width: int = 8) -> None:
        super().__init__(("one",), width=width)
        self._classes = ()
        self._config = {"width": width}

    @property
    def card(self) -> ModelCard:
        return ModelCard(
            name="tiny-change", summary="a test network", source="tests", stride=4, weights=self.weights_info
        )

    def forward(self, before: Tensor, after: Tensor, valid: Tensor | None = None) -> ChangeLogits:
        return ChangeLogits(super().forward(before, after, valid).change)


def register() -> None:
    """Register both networks."""
    entries: Any = wasnow.models.registry.MODELS
    entries["tiny"] = ModelEntry("a test network", "change, classes", "none", "training.tiny:Tiny")
    entries["tiny-change"] = ModelEntry("a test network", "change", "none", "training.tiny:TinyChange")


@dataclass(frozen=True)
class Blobs:
    """``count`` pairs of blobs, generated on access."""

    count: int = 6
    height: int = 32
    width: int = 32
    seed: int = 0
    words: tuple[str, ...] = WORDS

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.words)

    @property
    def names(self) -> Sequence[str]:
        return [f"blobs-{i}" for i in range(self.count)]

    @property
    def fingerprint(self) -> str:
        return f"{self.count}-{self.height}-{self.width}-{self.seed}-{len(self.words)}".ljust(16, "x")

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(index)
        rng = np.random.default_rng([self.seed, index])

        def blobs(values: NDArray[Any]) -> NDArray[Any]:
            return values.repeat(8, 0).repeat(8, 1)[: self.height, : self.width]

        coarse = (-(-self.height // 8), -(-self.width // 8))
        first, other = rng.integers(1, 4, coarse), rng.integers(1, 4, coarse)
        changed = rng.random(coarse) < 0.4
        second = np.where(changed, other, first)
        photos = []
        for classes in (first, second):
            noisy = COLORS[blobs(classes) - 1] + rng.normal(0, 8, (self.height, self.width, 3))
            photos.append(np.clip(noisy, 0, 255).astype(np.uint8))
        changed = blobs(first != second)
        before, after = (np.where(changed, blobs(one), 0).astype(np.uint8) for one in (first, second))
        change = changed.astype(np.uint8)
        if not self.words:
            return Sample(self.names[index], photos[0], photos[1], None, None, change)
        return Sample(self.names[index], photos[0], photos[1], before, after, change)


def mirror(sample: Sample, rng: np.random.Generator) -> Sample:
    """A crop of 16 px and a flip: the smallest augmentation that affects the result."""
    height, width = sample.before.shape[:2]
    row, col = int(rng.integers(height - 15)), int(rng.integers(width - 15))
    step = -1 if rng.random() < 0.5 else 1

    def cut(values: NDArray[np.uint8] | None) -> Any:
        return None if values is None else np.ascontiguousarray(values[row : row + 16, col : col + 16][:, ::step])

    maps = (sample.before, sample.after, sample.before_classes, sample.after_classes, sample.change)
    return Sample(sample.name, *map(cut, maps))


def config(*settings: str, **changes: Any) -> TrainConfig:
    """A run of a second or two."""
    values: dict[str, Any] = {
        "name": "tiny",
        "model": "tiny",
        "crop": 16,
        "batch_size": 4,
        "workers": 0,
        "stages": (Stage(loss="ding", steps=12),),
        "optimizer": Optimizer(lr=0.02),
        "schedule": Schedule(kind="cosine", warmup=2),
        "ema": 0.9,
        "validate_every": 4,
        "save_every": 2,
        "log_every": 1,
        "samples": 1,
        "device": "cpu",
    }
    return with_settings(TrainConfig(**{**values, **changes}), settings)


def splits() -> dict[str, Blobs]:
    """Six pairs to train on, three to validate, and a test split that must not be used."""
    return {"train": Blobs(6), "val": Blobs(3, seed=1), "test": Forbidden(2, seed=2)}


class Forbidden(Blobs):
    """Pairs that must not be used."""

    def __getitem__(self, index: int) -> Sample:
        raise AssertionError("the test split was used")


STAGES = (Stage(loss="ding", steps=8), Stage(name="heads", loss="ding", steps=6, trains=("change", "classes")))


def run(output: str, settings: Sequence[str], environment: dict[str, str] | None = None) -> None:
    """One resumable run in this process: for tests that kill it, or need two of them."""
    from wasnow.training.logging import NullLogger, Progress
    from wasnow.training.trainer import train

    class Unhurried(NullLogger):
        """Steps long enough that a kill arrives before the last one."""

        def step(self, progress: Progress) -> None:
            time.sleep(0.03)

    os.environ.update(environment or {})
    torch.set_num_threads(1)
    register()
    train(config(*settings, stages=STAGES), splits(), Path(output), resume=True, transform=mirror, logger=Unhurried())


def process(output: Path, *settings: str, **environment: str) -> BaseProcess:
    """`run` in a process of its own, forked from one that has imported everything: it starts at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["training.tiny", "wasnow.training.trainer"])
    started = context.Process(target=run, args=(str(output), settings, environment))
    started.start()
    return started
