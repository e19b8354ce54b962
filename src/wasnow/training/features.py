"""Cached features of a frozen encoder: computed without a graph, and kept on disk if pairs recur unchanged.

    pair ─> key (its bytes, the encoder's weights) ─┬─ on disk ─> features ─┐
                                                    └─ not ──> encode ──────┴─> answer(features) ─> loss

The key depends on the images after augmentation: flips, quarter turns and swapped dates have separate keys. Pairs are
encoded one at a time, so features do not depend on the other pairs of the batch, and a run ends with the same weights
whether features were read or computed.
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
from wasnow.training.batches import Batch
from wasnow.training.config import TrainConfig
from wasnow.training.devices import Encoded
from wasnow.training.initial_weights import digest
from wasnow.training.optim import has_prefix

SHARE_OF_DISK = 0.5
"""Largest share of the free disk space that features use; further features are computed each time."""


def encoder_is_frozen(model: nn.Module, learning: Collection[str]) -> bool:
    """Return whether a model has a separate encoder of which a stage trains no parameter.

    Args:
        model: any model.
        learning: names of the parameters that the stage trains.
    """
    # Only `forward` takes prior masks, so a model with masks cannot be split into encoder and decoder.
    if cast(ChangeModel, model).card.wants_priors or not isinstance(model, FeatureModel):
        return False
    return not any(in_encoder(model, name) for name in learning)


def in_encoder(model: FeatureModel, name: str) -> bool:
    """Return whether a parameter or module of that name is used by `FeatureModel.encode`."""
    return any(has_prefix(name, part) for part in model.encoder_parts)


def check_features(
    config: TrainConfig, model: nn.Module, learning: Sequence[Collection[str]], shape: tuple[int, int]
) -> None:
    """Check that cached features are exact and that pairs recur.

    Args:
        config: with ``cache_features``.
        model: of the run.
        learning: names of the parameters that each stage trains.
        shape: rows and columns of an image before augmentation.

    Raises:
        UsageError: features cannot be cached; the message names the setting to change.
    """
    if cast(ChangeModel, model).card.wants_priors:
        raise UsageError(f"cache_features: {config.model} uses prior masks as well as images; remove the setting")
    if not isinstance(model, FeatureModel):
        raise UsageError(f"cache_features: {config.model} has no separate encoder; remove the setting")
    if not any(encoder_is_frozen(model, names) for names in learning):
        raise UsageError(
            f"cache_features: every stage trains parts of the encoder ({', '.join(model.encoder_parts)}), so features "
            "change at each step; remove the setting, or name other parts in stages.N.trains"
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
            f"cache_features: pairs of {shape[1]} x {shape[0]} px would not recur unchanged; add {' '.join(wanted)}, "
            "or remove the setting"
        )
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0 and in_encoder(model, name):
            raise UsageError(f"cache_features: {name} in the encoder is dropout, which is random; set it to 0")


class FeatureStore:
    """Files of features, keyed by the content of the images.

    Args:
        folder: of this device; created if missing.
        model: with a frozen encoder.
        computing: context of the computation (precision).
        salt: further text that the features depend on.
        full: called once with a message when the disk share is used up.
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
        self._free: float | None = None
        self.found, self.computed = 0, 0

    def encoded(self, part: Batch, before: Tensor, after: Tensor) -> Encoded:
        """Return the features of a batch, read or computed.

        Args:
            part: the batch as bytes, for the keys.
            before: ``(B, 3, H, W)``, the first date as input of the network.
            after: ``(B, 3, H, W)``, the second date.
        """
        each = [self._of(part, before, after, i) for i in range(len(before))]
        return Encoded(tuple(torch.cat(tensors) for tensors in zip(*each, strict=True)))

    def clear(self) -> None:
        """Delete the files."""
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
        except CheckpointError:  # missing, or truncated by a power failure
            packed = [_packed(one) for one in self._computed(before[i : i + 1], after[i : i + 1])]
            self._keep(path, packed)
        # Restore the memory layout: another layout would change the rounding of products.
        return tuple(one.permute([order.index(d) for d in range(one.ndim)]) for one, order in packed)

    @torch.no_grad()
    def _computed(self, before: Tensor, after: Tensor) -> tuple[Tensor, ...]:
        valid = torch.ones(1, 1, *before.shape[2:], dtype=torch.bool, device=before.device)
        self.computed += 1
        with self._computing():
            return self._model.encode(before, after, valid)

    def _keep(self, path: Path, packed: Sequence[tuple[Tensor, list[int]]]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._free is None:
            here = sum(one.stat().st_size for one in self._folder.iterdir())
            self._free = SHARE_OF_DISK * (shutil.disk_usage(self._folder).free + here) - here
        size = sum(one.numel() * one.element_size() for one, _ in packed)
        if self._free >= size:
            tensors = {str(k): one for k, (one, _) in enumerate(packed)}
            write_sealed(path, tensors, {"orders": [order for _, order in packed]})
        elif self._free > 0:
            self._full(f"no disk space for more features in {self._folder}; the others are computed each time")
            self._free = 0.0
        self._free -= min(size, self._free)


def _packed(tensor: Tensor) -> tuple[Tensor, list[int]]:
    """Return a contiguous tensor with dimensions in memory order, and that order."""
    strides = tensor.stride()
    order = sorted(range(tensor.ndim), key=lambda d: (-strides[d], d))
    return tensor.permute(order).contiguous(), order
