"""The cache of converted CLIP weights: list, find and load them."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from wasnow.errors import CheckpointError, UsageError, did_you_mean
from wasnow.models import sealed
from wasnow.models.clip_weights import known
from wasnow.nn.clip import Clip
from wasnow.nn.clip_config import ClipConfig
from wasnow.storage.cache import cache_folder

KIND = "clip"
PREFIX = "clip."
SUFFIX = ".safetensors"


@dataclass(frozen=True, slots=True)
class Stored:
    """CLIP weights in the cache.

    Attributes:
        name: their name.
        path: their file.
        config: sizes and activation.
        source: where they come from, as text.
        sha256: of the file that they were converted from.
        verified: whether that is the published digest.
        size: of the converted file, in bytes.
    """

    name: str
    path: Path
    config: ClipConfig
    source: str
    sha256: str
    verified: bool
    size: int


def cache() -> Path:
    """Return the folder of converted weights."""
    return cache_folder("weights")


def stored() -> list[Stored]:
    """Return all weights in the cache, sorted by name; other files are ignored."""
    found = []
    for path in sorted(cache().glob(f"*{SUFFIX}")):
        with contextlib.suppress(CheckpointError):
            found.append(read_stored(path))
    return found


def find(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the converted file of these weights.

    Args:
        name_or_path: a name in the cache, or a converted file anywhere.

    Raises:
        CheckpointError: the weights are missing, with the command that gets them; or the file has another content.
    """
    text = os.fspath(name_or_path)
    cached = cache() / f"{text}{SUFFIX}"
    if is_name(text) and cached.is_file():
        return cached
    path = Path(text).expanduser()
    if path.is_file():
        header(path)
        return path
    if path.is_dir():
        raise CheckpointError(text, "is a folder", f"convert its weights once with wasnow weights get --from {text}")
    if text in known.KNOWN:
        raise CheckpointError(
            text,
            "these weights are not in the cache yet",
            f"get them with wasnow weights get {text}, or from a file with wasnow weights get {text} --from FILE",
        )
    if path.suffix or len(path.parts) > 1:
        raise CheckpointError(text, "no such file", "check the path, or give a name that wasnow weights lists")
    names = sorted({*known.KNOWN, *(one.name for one in stored())})
    raise CheckpointError(
        text,
        f"no weights of that name{did_you_mean(text, names)}",
        "wasnow weights lists the names; convert a file with wasnow weights get --from FILE",
    )


def header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the header of a converted file: ``kind``, ``config``, ``source``, ``name``, ``sha256``, ``verified``.

    Raises:
        CheckpointError: it is missing, damaged, not converted, or not a CLIP.
    """
    path = Path(path)
    try:
        found = sealed.read_sealed_header(path)
    except CheckpointError as error:
        if "wasnow convert" not in str(error):
            raise
        raise CheckpointError(
            path, "weights in a published layout", f"convert them once with wasnow weights get --from {path}"
        ) from None
    if found.get("kind") != KIND:
        raise CheckpointError(path, "a trained model instead of CLIP weights", "give a name that wasnow weights lists")
    return found


def load(name_or_path: str | os.PathLike[str]) -> Clip:
    """Return the towers with these weights, in eval mode.

    Raises:
        CheckpointError: as `find`, or the file is damaged.
    """
    path = find(name_or_path)
    tensors, found = sealed.read_sealed(path)
    with torch.device("meta"):
        clip = Clip(_config_of(path, found))
    try:
        clip.load_state_dict({name.removeprefix(PREFIX): each for name, each in tensors.items()}, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(path, f"its weights do not fit its header ({reason})", "convert them again") from None
    return clip.eval()


def read_stored(path: Path) -> Stored:
    """Return the description of a converted file.

    Raises:
        CheckpointError: as `header`.
    """
    found = header(path)
    return Stored(
        name=str(found.get("name", path.stem)),
        path=path,
        config=_config_of(path, found),
        source=str(found.get("source", "")),
        sha256=str(found.get("sha256", "")),
        verified=bool(found.get("verified")),
        size=path.stat().st_size,
    )


def _config_of(path: Path, found: Mapping[str, Any]) -> ClipConfig:
    try:
        return ClipConfig.from_dict(found["config"])
    except (KeyError, TypeError, UsageError) as error:
        raise CheckpointError(path, f"its header is damaged ({error})", "convert the weights again") from None


def is_name(text: str) -> bool:
    """Return whether weights can have this name: letters, digits, dots, dashes, underscores."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text) is not None


def describe(one: Stored) -> dict[str, Any]:
    """Return stored weights as JSON values."""
    return {**asdict(one), "path": str(one.path)}
