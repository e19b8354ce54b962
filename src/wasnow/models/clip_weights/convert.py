"""Convert published CLIP weights: check them, rename their tensors, write them to the cache."""

from __future__ import annotations

import zipfile
from pathlib import Path

from torch import Tensor

from wasnow.errors import CheckpointError
from wasnow.models import sealed
from wasnow.models.clip_weights.layouts import config_of, describe_beside, layout_of, rename
from wasnow.models.clip_weights.store import KIND, PREFIX, Stored, read_stored
from wasnow.models.published.convert import read_weights
from wasnow.nn.clip_config import Activation


def convert(
    weights: Path,
    name: str,
    *,
    digest: str,
    source: str,
    verified: bool,
    activation: Activation | None,
    target: Path,
) -> Stored:
    """Rename tensors, check them and write the cache file.

    Args:
        weights: the published file.
        name: the name in the cache.
        digest: SHA-256 of the published file.
        source: where it comes from, as text.
        verified: whether the digest is the published one.
        activation: ``gelu`` or ``quickgelu``; None takes the described one.
        target: the file to write.

    Raises:
        CheckpointError, UsageError: as `wasnow.models.clip_weights.download.get`.
    """
    theirs = _read(weights)
    layout = layout_of(weights, theirs)
    described = describe_beside(weights.parent / layout.description, layout)
    config = config_of(weights, theirs, layout, described, activation)
    tensors = rename(weights, theirs, layout, config)
    sealed.write_sealed(
        target,
        {PREFIX + ours: tensor.float() for ours, tensor in tensors.items()},
        {
            "kind": KIND,
            "config": config.dict(),
            "source": source,
            "name": name,
            "sha256": digest,
            "verified": verified,
        },
    )
    return read_stored(target)


def _read(path: Path) -> dict[str, Tensor]:
    """Return the published tensors by their names."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("constants.pkl") for name in archive.namelist()):
                raise CheckpointError(
                    path,
                    "a TorchScript archive, which contains code",
                    "use plain weights (wasnow weights get openai-vit-l-14), or save only the state_dict() "
                    "if you trust the file",
                )
    theirs = read_weights(path)
    # A newer class of open_clip keeps the text tower in a submodule.
    if "text.token_embedding.weight" in theirs:
        theirs = {name.removeprefix("text."): tensor for name, tensor in theirs.items()}
    return theirs
