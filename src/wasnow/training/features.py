"""What a frozen encoder says of a pair: computed without a graph, and kept on disk where pairs come back unchanged.

    pair ─> key (its bytes, the encoder's weights) ─┬─ on disk ─> features ─┐
                                                    └─ not ──> encode ──────┴─> answer(features) ─> loss

The key is made of the picture as it is fed, after all augmentation: flips, quarter turns and exchanged dates have keys
of their own, and nothing can be taken for something else. Pairs are encoded one at a time, so that features do not
depend on which others share a batch: a run ends with the same weights whether features were found or computed.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from wasnow.errors import CheckpointError, UsageError
from wasnow.models.contract import ChangeModel, FeatureModel
from wasnow.models.sealed import read_sealed, write_sealed
from wasnow.training.config import TrainConfig
from wasnow.training.devices import Encoded
from wasnow.training.feed import Batch
from wasnow.training.optim import begins
from wasnow.training.start import digest

SHARE_OF_DISK = 0.5
"""Of the room that is free when a stage begins, features take at most this much; further ones are computed anew."""


def encoder_rests(model: nn.Module, learning: Collection[str]) -> bool:
    """Whether a model tells its encoder apart, and a stage trains nothing in it.

    Args:
        model: any.
        learning: names of the parameters that the stage trains.
    """
    # Masks go into `forward` alone, so that a model which takes them answers as a whole.
    if cast(ChangeModel, model).card.wants_priors or not isinstance(model, FeatureModel):
        return False
    return not any(in_encoder(model, name) for name in learning)


def in_encoder(model: FeatureModel, name: str) -> bool:
    """Whether a parameter or module of that name is part of what `FeatureModel.encode` uses."""
    return any(begins(name, part) for part in model.encoder_parts)


def check_features(
    config: TrainConfig, model: nn.Module, learning: Sequence[Collection[str]], shape: tuple[int, int]
) -> None:
    """Nothing, if features may be kept: they are exact, and few enough to come back.

    Args:
        config: with ``cache_features``.
        model: of the run.
        learning: names of the parameters that each stage trains.
        shape: rows and columns of a picture before augmentation.

    Raises:
        UsageError: they may not; says what to set.
    """
    if cast(ChangeModel, model).card.wants_priors:
        raise UsageError(f"cache_features: {config.model} looks at masks as well as at pictures; leave it out")
    if not isinstance(model, FeatureModel):
        raise UsageError(f"cache_features: {config.model} does not tell its encoder apart; leave it out")
    if not any(encoder_rests(model, names) for names in learning):
        raise UsageError(
            f"cache_features: every stage trains some of {', '.join(model.encoder_parts)}, so that features change at "
            "each step; leave it out, or name other parts in stages.N.trains"
        )
    wanted = []
    if config.augment.light is not None:
        wanted.append("--set augment.light=null")
    if config.augment.scale != (1.0, 1.0):
        wanted.append("--set augment.scale=[1,1]")
    if shape != (config.crop, config.crop):
        wanted.append(f"--set crop={shape[0]}" if shape[0] == shape[1] else f"--set tile={config.crop}")
    if wanted:
        raise UsageError(
            f"cache_features: no pair of {shape[1]} x {shape[0]} px would come back unchanged; add {' '.join(wanted)}, "
            "or leave it out"
        )
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0 and in_encoder(model, name):
            raise UsageError(f"cache_features: {name} of the encoder is dropout, which is never the same; set it to 0")


class FeatureStore:
    """Features of pairs by what the pairs show, in files.

    Args:
        folder: of this device; made when needed.
        model: whose encoder rests.
        computing: the context in which the network computes: its precision.
        salt: what else the features depend on.
        full: told once, when there is no room for more.
    """

    def __init__(
        self,
        folder: Path,
        model: FeatureModel,
        computing: Callable[[], AbstractContextManager[Any]],
        *,
        salt: str,
        full: Callable[[str], None],
    ) -> None:
        assert isinstance(model, nn.Module)
        parts = ((name, one) for name, one in model.state_dict().items() if in_encoder(model, name))
        self._salt = f"{digest(parts)} {torch.__version__} {salt}".encode()
        self._folder, self._model, self._computing, self._full = folder, model, computing, full
        self._room: float | None = None
        self.found, self.computed = 0, 0

    def encoded(self, part: Batch, before: Tensor, after: Tensor) -> Encoded:
        """The features of a batch.

        Args:
            part: as it travels, in bytes.
            before: the same on the device, as the network takes it.
            after: likewise.
        """
        each = [self._of(part, before, after, i) for i in range(len(before))]
        return Encoded(tuple(torch.cat(tensors) for tensors in zip(*each, strict=True)))

    def clear(self) -> None:
        """Give the disk back."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _of(self, part: Batch, before: Tensor, after: Tensor, i: int) -> tuple[Tensor, ...]:
        sha = hashlib.sha256(self._salt)
        for images in (part.before, part.after):
            sha.update(images[i].contiguous().numpy().data)
        path = self._folder / f"{sha.hexdigest()}.safetensors"
        try:
            tensors, header = read_sealed(path)
            self.found += 1
            packed = [(tensors[str(k)].to(before.device), order) for k, order in enumerate(header["orders"])]
        except CheckpointError:  # not there yet, or cut short when the power failed
            packed = [_packed(one) for one in self._computed(before[i : i + 1], after[i : i + 1])]
            self._keep(path, packed)
        # The dimensions lie in memory as they did: over another layout, products would round in another order.
        return tuple(one.permute([order.index(d) for d in range(one.ndim)]) for one, order in packed)

    @torch.no_grad()
    def _computed(self, before: Tensor, after: Tensor) -> tuple[Tensor, ...]:
        valid = torch.ones(1, 1, *before.shape[2:], dtype=torch.bool, device=before.device)
        self.computed += 1
        with self._computing():
            return self._model.encode(before, after, valid)

    def _keep(self, path: Path, packed: Sequence[tuple[Tensor, list[int]]]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._room is None:
            here = sum(one.stat().st_size for one in self._folder.iterdir())
            self._room = SHARE_OF_DISK * (shutil.disk_usage(self._folder).free + here) - here
        size = sum(one.numel() * one.element_size() for one, _ in packed)
        if self._room >= size:
            tensors = {str(k): one for k, (one, _) in enumerate(packed)}
            write_sealed(path, tensors, {"orders": [order for _, order in packed]})
        elif self._room > 0:
            self._full(f"no room for more features in {self._folder}; the others are computed each time")
            self._room = 0.0
        self._room -= min(size, self._room)


def _packed(tensor: Tensor) -> tuple[Tensor, list[int]]:
    """A tensor without gaps, its dimensions in the order in which they lie in memory, and that order."""
    strides = tensor.stride()
    order = sorted(range(tensor.ndim), key=lambda d: (-strides[d], d))
    return tensor.permute(order).contiguous(), order
