"""Image features kept on disk, so that other class words need no second look at the images.

    tile of both dates ──digest──> DIR/tile-<digest>.safetensors there?   yes: read it        ──┐
                                                                          no:  encode, keep it ──┴──> answer(words)

A file is named by a digest of the encoder and of the very pixels that it was shown, gaps included. So whatever changes
them (another raster, grid, stretch, tile, band order, or weights) changes the name, and nothing has to be listed here
that somebody could forget. Floating numbers are kept as bfloat16, and what was just encoded is rounded likewise before
it is answered from: a run that finds features gives the same bytes as the run that left them.

The folder is a convenience. A damaged file is encoded anew, a full disk or a reached limit costs time on the next run;
neither fails this one.
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
"""So much of the disk is always left to others; the results of this run are among them."""
ABANDONED_S = 3600
"""A half-written file this old belongs to a run that was killed."""

OF_WORDS = ("classes", "synonyms", "templates")
"""Options of a network that speak of its words; they change with what it is bound to, and no encoder sees them."""

_NAME = re.compile(r"tile-[0-9a-f]{40}\.safetensors")
_PART = re.compile(r"\.tile-[0-9a-f]{40}\.safetensors\.[0-9a-f]+\.part")


class FeatureStore:
    """A folder of features, bounded in bytes.

    What an earlier run used longest ago goes first when the limit is reached. What this run has used stays until it
    ends: a scene larger than the limit would otherwise evict each tile just before the next run asks for it.

    Args:
        folder: made if need be; files in it that are not ours are never touched.
        limit_bytes: what all files together may take.
        writers: how many processes fill the folder for one run; each looks now and then what the others have added, so
            that all together go beyond the limit by a twentieth at most.

    Raises:
        OutputError: the folder cannot be made or read.
    """

    def __init__(self, folder: Path, limit_bytes: int, writers: int = 1) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self.damaged = 0
        self.left_out: dict[str, int] = {}
        self._began = time.time_ns()
        self._full = False
        self._uncounted, self._count_after = 0, limit_bytes // (20 * writers) if writers > 1 else limit_bytes
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._drop_abandoned()
            self._bytes = sum(size for _, size, _ in self._files())
        except OSError as error:
            raise OutputError(
                f"--keep-features {folder} cannot be used ({error.strerror}); choose another folder"
            ) from None

    @property
    def held_bytes(self) -> int:
        """What the files take, as far as this process knows."""
        return self._bytes

    def find(self, key: str) -> Features | None:
        """What was kept under a key, in the types that it had; None where there is nothing whole."""
        path = self._path(key)
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["wasnow"])
                kept = [file.get_tensor(f"{index:04d}") for index in range(len(about["types"]))]
                if _digest(kept) != about["digest"]:
                    raise ValueError("checksum")
                # Copies: the tensors of an open file are the file itself, which another run may evict.
                found = tuple(each.to(_type(name), copy=True) for each, name in zip(kept, about["types"], strict=True))
            os.utime(path, ns=(now := time.time_ns(), now))
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, ValueError, KeyError, TypeError):
            self.damaged += 1
            self._remove(path)
            return None
        return found

    def keep(self, key: str, features: Features) -> Features:
        """Keep features if there is room, and say what `find` will answer: the same, rounded to bfloat16."""
        kept = [each.detach().cpu().contiguous() for each in features]
        kept = [each.to(torch.bfloat16) if each.is_floating_point() else each for each in kept]
        types = [str(each.dtype).removeprefix("torch.") for each in features]
        about = json.dumps({"digest": _digest(kept), "types": types}, sort_keys=True)
        data = save({f"{index:04d}": each for index, each in enumerate(kept)}, {"wasnow": about})
        if self._has_room(len(data)):
            self._write(self._path(key), data)
        return tuple(each.to(own.dtype, copy=True) for each, own in zip(kept, features, strict=True))

    def warning(self) -> str | None:
        """One sentence where not everything could be kept."""
        if not self.left_out:
            return None
        reasons = ", ".join(f"{count} ({reason})" for reason, count in sorted(self.left_out.items()))
        return f"image features of some tiles were not kept and will be computed again next time: {reasons}"

    # --- files ----------------------------------------------------------------------------------------------------

    def _path(self, key: str) -> Path:
        return self.folder / f"tile-{key}.safetensors"

    def _files(self) -> list[tuple[int, int, Path]]:
        """(last use in ns, bytes, path) of every file that is ours."""
        found = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if _NAME.fullmatch(entry.name):
                    try:
                        status = entry.stat()
                    except FileNotFoundError:  # another run evicted it just now
                        continue
                    found.append((status.st_mtime_ns, status.st_size, Path(entry.path)))
        return found

    def _drop_abandoned(self) -> None:
        for path in self.folder.iterdir():
            if _PART.fullmatch(path.name) and path.stat().st_mtime < time.time() - ABANDONED_S:
                path.unlink(missing_ok=True)

    def _remove(self, path: Path) -> None:
        try:
            size = path.stat().st_size
            path.unlink()
        except OSError:
            return
        self._bytes -= size

    def _has_room(self, size: int) -> bool:
        if self._uncounted + size > self._count_after:
            self._recount()
        if self._bytes + size > self.limit_bytes and not self._full:
            self._evict(size)
        if self._bytes + size > self.limit_bytes:
            return self._leave_out("the limit of --features-limit is reached")
        try:
            free = shutil.disk_usage(self.folder).free
        except OSError:
            return self._leave_out("the folder is gone")
        if free - size < FREE_BYTES:
            return self._leave_out(f"less than {FREE_BYTES / 2**30:g} GiB would be left on the disk")
        return True

    def _recount(self) -> None:
        """Look how much there is: other processes write here too."""
        self._uncounted = 0
        with suppress(OSError):
            self._bytes = sum(size for _, size, _ in self._files())

    def _leave_out(self, reason: str) -> bool:
        self.left_out[reason] = self.left_out.get(reason, 0) + 1
        return False

    def _evict(self, size: int) -> None:
        """Make room for more than one file at a time, so that the folder is not listed again for each."""
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
        # Nothing older is left, and nothing becomes older while this run goes on.
        self._full = self._bytes + size > self.limit_bytes

    def _write(self, path: Path, data: bytes) -> None:
        try:
            # Not durable: a file that a power cut damaged is found by its digest and costs one tile.
            with atomic_path(path, durable=False, shared=True) as temporary:
                temporary.write_bytes(data)
                os.utime(temporary, ns=(now := time.time_ns(), now))
                replaced = path.stat().st_size if path.exists() else 0
        except OSError as error:
            self._leave_out(f"could not be written: {error.strerror}")
            return
        self._bytes += len(data) - replaced
        self._uncounted += len(data)


class Remembering:
    """A network that answers from kept features where it can, and keeps what it encodes where it cannot.

    To the engine it is the network itself. ``reused`` and ``encoded`` count tiles.

    Args:
        model: satisfies `FeatureModel`, bound to its words.
        store: where features are kept.
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
        """Of the network."""
        return self.model.card

    def bind(self, classes: Sequence[str]) -> Remembering:
        """Other words, the same features."""
        return Remembering(self.model.bind(classes), self.store, self._identity)

    def __call__(self, before: Tensor, after: Tensor, valid: Tensor) -> ChangeLogits:
        """See `ChangeModel`; each tile of the batch is looked up, and only the missing ones are encoded."""
        network = cast(FeatureModel, self.model)
        keys = [self._key(before[index], after[index], valid[index]) for index in range(len(before))]
        found = [self.store.find(key) for key in keys]
        missing = [index for index, each in enumerate(found) if each is None]
        if missing:
            encoded = network.encode(before[missing], after[missing], valid[missing])
            for place, index in enumerate(missing):
                found[index] = self.store.keep(keys[index], tuple(each[place : place + 1] for each in encoded))
        self.encoded += len(missing)
        self.reused += len(keys) - len(missing)
        device = _device(self.model)
        tiles = [each for each in found if each is not None]
        features = tuple(torch.cat(parts).to(device) for parts in zip(*tiles, strict=True))
        return network.answer(features, (before.shape[-2], before.shape[-1]))

    def _key(self, *arrays: Tensor) -> str:
        sha = hashlib.blake2b(self._identity.encode(), digest_size=20)
        for each in arrays:
            _feed(sha, each)
        return sha.hexdigest()


def model_identity(model: ChangeModel, fingerprint: str | None) -> str:
    """What tells the encoders of two models apart, whatever words they are bound to.

    Args:
        model: satisfies `FeatureModel`.
        fingerprint: of its checkpoint; None for a network made in Python, whose weights are then digested.

    Raises:
        UsageError: neither a fingerprint nor weights to digest.
    """
    name = f"{model.card.name} of wasnow {wasnow.__version__}"
    if fingerprint is not None:
        return f"{name}: {fingerprint}"
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"{model.card.name} has no fingerprint, so kept features could be taken for those of another model; "
            "put a fingerprint into card.weights, or leave --keep-features out"
        )
    config: dict[str, Any] = model.config() if isinstance(model, Network) else {}
    options = {key: value for key, value in config.items() if key not in OF_WORDS}
    sha = hashlib.blake2b(json.dumps(options, sort_keys=True, default=str).encode(), digest_size=20)
    for key, value in sorted(model.state_dict().items()):
        if key.startswith(tuple(cast(FeatureModel, model).encoder_parts)):
            sha.update(key.encode())
            _feed(sha, value)
    return f"{name}: weights {sha.hexdigest()}"


def _device(model: ChangeModel) -> torch.device:
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device


def _type(name: Any) -> torch.dtype:
    found = getattr(torch, str(name), None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"{name} is no type of numbers")
    return found


def _digest(tensors: Sequence[Tensor]) -> str:
    sha = hashlib.blake2b(digest_size=20)
    for each in tensors:
        _feed(sha, each)
    return sha.hexdigest()


def _feed(sha: Any, tensor: Tensor) -> None:
    """Type, shape and bytes of a tensor into a digest."""
    sha.update(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
    if tensor.numel():
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
