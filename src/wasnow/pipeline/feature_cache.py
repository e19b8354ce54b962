"""Cache image features on disk, so that a run with other class words does not encode the images again.

    tile of both dates ──digest──> DIR/tile-<digest>.safetensors exists?  yes: read it          ──┐
                                                                          no:  encode, write it ──┴──> answer(words)

A file is named by a digest of the encoder and of its input pixels, including the mask. Another raster, grid, stretch,
tile, band order or other weights therefore give another name; there is no list of dependencies that could be
incomplete. Floating-point features are stored as bfloat16. Features that were just encoded are rounded in the same way
before they are used, so a run that reads features gives the same bytes as the run that wrote them.

The cache is an optimisation: a damaged file is encoded again, a full disk or a reached limit costs time in the next
run, and neither fails this one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

import wasnow
from wasnow.errors import OutputError, UsageError
from wasnow.models.contract import ChangeLogits, ChangeModel, FeatureModel, ModelCard
from wasnow.models.network import Network
from wasnow.storage.atomic import atomic_path

Features = tuple[Tensor, ...]

FREE_BYTES = 2**30
"""Disk space that the cache never uses; the results of the run need some of it."""
STALE_S = 3600
"""A temporary file this old belongs to a run that was killed."""

WORD_OPTIONS = ("classes", "synonyms", "templates")
"""Options of a network that depend on the bound class words; its encoder does not use them."""

_NAME = re.compile(r"tile-[0-9a-f]{40}\.safetensors")
_PART = re.compile(r"\.tile-[0-9a-f]{40}\.safetensors\.[0-9a-f]+\.part")


class FeatureStore:
    """A folder of cached features with a size limit.

    When the limit is reached, files that were used least recently are removed first. Files that this run has used are
    stored until it ends: with a scene larger than the limit, each tile would otherwise be removed just before the next
    run needs it.

    Args:
        folder: created if missing; other files in it are never touched.
        limit_bytes: largest size of all files together.
        writers: number of processes that write to the folder in one run. Each counts the files of the others from time
            to time, so that together they exceed the limit by a twentieth at most.

    Raises:
        OutputError: the folder cannot be created or read.
    """

    def __init__(self, folder: Path, limit_bytes: int, writers: int = 1) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self.damaged = 0
        self.not_cached: dict[str, int] = {}
        self._began = time.time_ns()
        self._full = False
        self._uncounted, self._count_after = 0, limit_bytes // (20 * writers) if writers > 1 else limit_bytes
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._remove_stale()
            self._bytes = sum(size for _, size, _ in self._files())
        except OSError as error:
            raise OutputError(
                f"--keep-features {folder}: the folder cannot be used ({error.strerror}); choose another one"
            ) from None

    @property
    def size_bytes(self) -> int:
        """Size of the files, as far as this process has counted."""
        return self._bytes

    def get(self, key: str) -> Features | None:
        """Return the features of a key in their original types; None if there are none or the file is damaged."""
        path = self._path(key)
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["wasnow"])
                stored = [file.get_tensor(f"{index:04d}") for index in range(len(about["types"]))]
                if _digest(stored) != about["digest"]:
                    raise ValueError("checksum")
                # Copies: the tensors are views of the open file, which another run may remove.
                types = map(_dtype, about["types"])
                found = tuple(each.to(own, copy=True) for each, own in zip(stored, types, strict=True))
            os.utime(path, ns=(now := time.time_ns(), now))
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, ValueError, KeyError, TypeError):
            self.damaged += 1
            self._remove(path)
            return None
        return found

    def put(self, key: str, features: Features) -> Features:
        """Store features if there is space, and return what `get` returns for them: rounded to bfloat16."""
        stored = [each.detach().cpu().contiguous() for each in features]
        stored = [each.to(torch.bfloat16) if each.is_floating_point() else each for each in stored]
        types = [str(each.dtype).removeprefix("torch.") for each in features]
        about = json.dumps({"digest": _digest(stored), "types": types}, sort_keys=True)
        data = save({f"{index:04d}": each for index, each in enumerate(stored)}, {"wasnow": about})
        if self._has_space(len(data)):
            self._write(self._path(key), data)
        return tuple(each.to(own.dtype, copy=True) for each, own in zip(stored, features, strict=True))

    def warning(self) -> str | None:
        """Return a sentence if some features were not cached."""
        if not self.not_cached:
            return None
        reasons = ", ".join(f"{count} ({reason})" for reason, count in sorted(self.not_cached.items()))
        return f"image features of some tiles were not cached and will be computed again next time: {reasons}"

    # --- files ----------------------------------------------------------------------------------------------------

    def _path(self, key: str) -> Path:
        return self.folder / f"tile-{key}.safetensors"

    def _files(self) -> list[tuple[int, int, Path]]:
        """(last use in ns, bytes, path) of every file of the cache."""
        found = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if _NAME.fullmatch(entry.name):
                    try:
                        status = entry.stat()
                    except FileNotFoundError:  # another run removed it just now
                        continue
                    found.append((status.st_mtime_ns, status.st_size, Path(entry.path)))
        return found

    def _remove_stale(self) -> None:
        for path in self.folder.iterdir():
            if _PART.fullmatch(path.name) and path.stat().st_mtime < time.time() - STALE_S:
                path.unlink(missing_ok=True)

    def _remove(self, path: Path) -> None:
        try:
            size = path.stat().st_size
            path.unlink()
        except OSError:
            return
        self._bytes -= size

    def _has_space(self, size: int) -> bool:
        if self._uncounted + size > self._count_after:
            self._recount()
        if self._bytes + size > self.limit_bytes and not self._full:
            self._evict(size)
        if self._bytes + size > self.limit_bytes:
            return self._skip("the limit of --features-limit is reached")
        try:
            free = shutil.disk_usage(self.folder).free
        except OSError:
            return self._skip("the folder is gone")
        if free - size < FREE_BYTES:
            return self._skip(f"less than {FREE_BYTES / 2**30:g} GiB would be left on the disk")
        return True

    def _recount(self) -> None:
        """Count the files again: other processes write here too."""
        self._uncounted = 0
        with suppress(OSError):
            self._bytes = sum(size for _, size, _ in self._files())

    def _skip(self, reason: str) -> bool:
        self.not_cached[reason] = self.not_cached.get(reason, 0) + 1
        return False

    def _evict(self, size: int) -> None:
        """Free space for several files at once, so that the folder is not listed again for each."""
        try:
            files = sorted(self._files())
        except OSError:
            return
        self._bytes = sum(each for _, each, _ in files)
        goal = self.limit_bytes - max(size, self.limit_bytes // 20)
        for used, _, path in files:
            if self._bytes <= goal or used >= self._began:
                break
            self._remove(path)
        # The remaining files were used by this run, so removing more is not possible until it ends.
        self._full = self._bytes + size > self.limit_bytes

    def _write(self, path: Path, data: bytes) -> None:
        try:
            # Not durable: the digest detects a file that a power failure damaged, and that costs one tile.
            with atomic_path(path, durable=False, shared=True) as temporary:
                temporary.write_bytes(data)
                os.utime(temporary, ns=(now := time.time_ns(), now))
                replaced = path.stat().st_size if path.exists() else 0
        except OSError as error:
            self._skip(f"could not be written: {error.strerror}")
            return
        self._bytes += len(data) - replaced
        self._uncounted += len(data)


class CachedFeatureModel:
    """A network with a feature cache: a `ChangeModel` that encodes only tiles without cached features.

    Attributes:
        reused: number of tiles whose features were read.
        encoded: number of tiles that were encoded.

    Args:
        model: satisfies `FeatureModel`, bound to its words.
        store: the cache.
        identity: of the model without its words, from `model_identity`.
    """

    def __init__(self, model: ChangeModel, store: FeatureStore, identity: str) -> None:
        self.model = model
        self.store = store
        self.reused = 0
        self.encoded = 0
        self._identity = identity

    @property
    def card(self) -> ModelCard:
        """The card of the network."""
        return self.model.card

    def bind(self, classes: Sequence[str]) -> CachedFeatureModel:
        """Return the model for other class words, with the same features."""
        return CachedFeatureModel(self.model.bind(classes), self.store, self._identity)

    def __call__(self, before: Tensor, after: Tensor, valid: Tensor) -> ChangeLogits:
        """See `ChangeModel`; looks up each tile of the batch and encodes the missing ones."""
        network = cast(FeatureModel, self.model)
        keys = [self._key(before[index], after[index], valid[index]) for index in range(len(before))]
        found = [self.store.get(key) for key in keys]
        missing = [index for index, each in enumerate(found) if each is None]
        if missing:
            encoded = network.encode(before[missing], after[missing], valid[missing])
            for place, index in enumerate(missing):
                found[index] = self.store.put(keys[index], tuple(each[place : place + 1] for each in encoded))
        self.encoded += len(missing)
        self.reused += len(keys) - len(missing)
        device = _device(self.model)
        tiles = [each for each in found if each is not None]
        features = tuple(torch.cat(parts).to(device) for parts in zip(*tiles, strict=True))
        return network.answer(features, (before.shape[-2], before.shape[-1]))

    def _key(self, *arrays: Tensor) -> str:
        sha = hashlib.blake2b(self._identity.encode(), digest_size=20)
        for each in arrays:
            _update(sha, each)
        return sha.hexdigest()


def model_identity(model: ChangeModel, fingerprint: str | None) -> str:
    """Return a text that differs for two models with different encoders, and does not depend on the bound words.

    Args:
        model: satisfies `FeatureModel`.
        fingerprint: of its checkpoint; None for a network created in Python, whose weights are digested instead.

    Raises:
        UsageError: neither a fingerprint nor weights to digest.
    """
    name = f"{model.card.name} of wasnow {wasnow.__version__}"
    if fingerprint is not None:
        return f"{name}: {fingerprint}"
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"{model.card.name} has no fingerprint, so its cached features could be confused with those of another "
            "model; put a fingerprint into card.weights, or leave --keep-features out"
        )
    config: dict[str, Any] = model.config() if isinstance(model, Network) else {}
    options = {key: value for key, value in config.items() if key not in WORD_OPTIONS}
    sha = hashlib.blake2b(json.dumps(options, sort_keys=True, default=str).encode(), digest_size=20)
    for key, value in sorted(model.state_dict().items()):
        if key.startswith(tuple(cast(FeatureModel, model).encoder_parts)):
            sha.update(key.encode())
            _update(sha, value)
    return f"{name}: weights {sha.hexdigest()}"


def _device(model: ChangeModel) -> torch.device:
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device


def _dtype(name: Any) -> torch.dtype:
    found = getattr(torch, str(name), None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"{name} is not a data type")
    return found


def _digest(tensors: Sequence[Tensor]) -> str:
    sha = hashlib.blake2b(digest_size=20)
    for each in tensors:
        _update(sha, each)
    return sha.hexdigest()


def _update(sha: Any, tensor: Tensor) -> None:
    """Add the type, shape and bytes of a tensor to a digest."""
    sha.update(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
    if tensor.numel():
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
