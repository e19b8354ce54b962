"""Convert published weights to checkpoints: rename the tensors, check that they fit, save.

    bisrnet.pth ── read_weights ──> tensors by their names ── rename ──> by ours ── fit ──> network ──> checkpoint
                   no pickle runs                             UPSTREAMS       first difference named

Only names change: the network then predicts what the published one predicted, which ``tests/parity`` checks to 1e-4. Of
the published code only names and shapes are used here.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from wasnow.errors import CheckpointError, OutputError, UnknownModel, UsageError
from wasnow.models import checkpoint
from wasnow.models.contract import ChangeModel
from wasnow.models.file_kind import other_content
from wasnow.models.published.names import UPSTREAMS, Names, Upstream
from wasnow.nn.resnet import ResNet34
from wasnow.storage.hashing import file_sha256

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "weights")
"""Keys under which training scripts store the weights among other things."""


# -------------------------------------------------------------------------------------------------------- converting


@dataclass(frozen=True, slots=True)
class Converted:
    """The result of a conversion."""

    path: Path
    model: str
    parameters: int
    classes: tuple[str, ...]
    normalisation: str
    source: str
    sha256: str


def convert(
    weights: Path,
    model: str,
    output: Path,
    *,
    classes: Sequence[str] | None = None,
    normalisation: str | None = None,
    overwrite: bool = False,
) -> Converted:
    """Convert published weights to a checkpoint.

    Args:
        weights: a ``.pth`` of plain tensors, or a ``.safetensors``.
        model: of `UPSTREAMS`.
        output: the checkpoint to write.
        classes: the class words of the weights, in their order; None takes the published ones.
        normalisation: that the weights were trained with; None takes the published one.
        overwrite: replace an existing ``output``.

    Raises:
        UnknownModel: published weights of that name cannot be converted.
        UsageError: the number of words differs from that of the weights.
        CheckpointError: the file cannot be read, or belongs to another network.
        OutputError: ``output`` exists, or cannot be written.
    """
    if model not in UPSTREAMS:
        raise UnknownModel(model, sorted(UPSTREAMS))
    if output.exists() and not overwrite:
        raise OutputError(f"{output} exists; choose another name, or pass --overwrite")
    upstream = UPSTREAMS[model]
    theirs = read_weights(weights)
    words = _words(weights, upstream, theirs, classes)
    options = {**upstream.options, "normalisation": normalisation or upstream.normalisation}
    network = checkpoint.make(upstream.network or model, words, options)
    fit(weights, network, theirs, upstream.names, called=model)
    converted = cast(ChangeModel, network.eval())
    digest = file_sha256(weights)
    checkpoint.save(
        output,
        converted,
        provenance={
            "origin": f"converted from {weights.name} (sha256 {digest}), as published with {upstream.source}",
            "torch": torch.__version__,
        },
    )
    return Converted(
        path=output,
        model=model,
        parameters=converted.card.parameters,
        classes=words,
        normalisation=normalisation or upstream.normalisation,
        source=weights.name,
        sha256=digest,
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return tensors by name without executing anything in the file.

    Prefixes of ``DataParallel`` are removed, and weights are extracted from the dictionary of a training script.

    Raises:
        CheckpointError: it is missing or damaged, has more than plain data, or no tensors.
    """
    held = _read(path)
    if isinstance(held, Mapping):
        inner = [held[name] for name in WRAPPERS if isinstance(held.get(name), Mapping)]
        held = inner[0] if inner else held
    if not isinstance(held, Mapping) or not held or not all(isinstance(each, Tensor) for each in held.values()):
        raise CheckpointError(path, "has no tensors by name", "give the state_dict() of a network")
    weights = {str(name): tensor for name, tensor in held.items()}
    while all(name.startswith("module.") for name in weights):
        weights = {name.removeprefix("module."): tensor for name, tensor in weights.items()}
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CheckpointError(path, f"{name} has NaN or infinite values", "its training failed; use another copy")
    return weights


def _read(path: Path) -> object:
    if not path.is_file():
        raise CheckpointError(path, "no such file", "check the path")
    if (other := other_content(path)) is not None:
        raise CheckpointError(path, *other)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickle protocols
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can fail in any way
        if isinstance(error, pickle.UnpicklingError) and (refused := re.search(r"GLOBAL ([\w.]*\w)", str(error))):
            raise CheckpointError(
                path,
                f"has more than tensors ({refused[1]}), which could run code when it is read",
                "save only the state_dict() if you trust the file, and give that",
            ) from None
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:120]
        raise CheckpointError(
            path, f"cannot be read as weights ({reason})", "it may be truncated or something else; use another copy"
        ) from None


def _words(
    path: Path, upstream: Upstream, weights: Mapping[str, Tensor], classes: Sequence[str] | None
) -> tuple[str, ...]:
    """Return the words for as many classes as the weights have."""
    words = upstream.classes if classes is None else tuple(classes)
    heads = [tensor for name, tensor in weights.items() if upstream.class_head in ours_of(name, upstream.names)]
    extra = int(upstream.unchanged_channel)
    if not heads or heads[0].ndim == 0 or heads[0].shape[0] == extra + len(words):
        return words
    raise UsageError(
        f"{path} predicts {heads[0].shape[0] - extra} classes instead of the {len(words)} "
        f"{'published' if classes is None else 'given'} ones ({', '.join(words)}); give its own, in their order, "
        "with --classes"
    )


# ------------------------------------------------------------------------------------------------------------ fitting


def ours_of(name: str, names: Names) -> tuple[str, ...]:
    """Return our names of a published parameter; empty where it has none."""
    for begins, ours in names.items():
        if name.startswith(begins):
            return tuple(one + name.removeprefix(begins) for one in ours)
    return ()


def fit(path: Path, network: nn.Module, weights: Mapping[str, Tensor], names: Names, *, called: str) -> None:
    """Load published weights into a network.

    Args:
        path: the file, for messages.
        network: gets the weights; unchanged after an error.
        weights: by their names.
        names: how to map these.
        called: the name of the network, for messages.

    Raises:
        CheckpointError: a parameter is unknown, missing, or has another shape; names the first one.
    """
    own = network.state_dict()
    filled: dict[str, Tensor] = {}
    for theirs, tensor in weights.items():
        places = ours_of(theirs, names)
        if not places or any(place not in own for place in places):
            raise CheckpointError(
                path,
                f"it has {theirs} {tuple(tensor.shape)}, which {called} does not have",
                "it belongs to another network; choose that one with --model",
            )
        for place in places:
            if tensor.shape != own[place].shape:
                raise CheckpointError(
                    path,
                    f"{theirs} has shape {tuple(tensor.shape)} instead of {tuple(own[place].shape)} in {called}",
                    "it belongs to another network; choose that one with --model",
                )
            if place in filled:
                raise CheckpointError(path, f"{theirs} occurs twice, under two names", "use another copy")
            filled[place] = tensor
    for place, tensor in own.items():
        # PyTorch before 0.4.1 did not count batches, and the count is unused while the momentum is fixed.
        if place not in filled and not place.endswith("num_batches_tracked"):
            raise CheckpointError(
                path,
                f"it has no {_theirs_of(place, names)} {tuple(tensor.shape)}, which {called} requires",
                "it belongs to another network, or is a part of one; choose another with --model",
            )
    network.load_state_dict({**own, **filled})


def _theirs_of(place: str, names: Names) -> str:
    """Return the newest published name of one of our parameters."""
    for begins, ours in names.items():
        for one in ours:
            if place.startswith(one):
                return begins + place.removeprefix(one)
    return place


def load_backbone(resnet: ResNet34, path: Path) -> None:
    """Load a ResNet-34 trained on ImageNet, with the names of torchvision or timm.

    Args:
        resnet: gets the weights, such as ``model.encoder.resnet``.
        path: a ``.pth`` or ``.safetensors``; its classifier (``fc``) is ignored.

    Raises:
        CheckpointError: the file cannot be read, or belongs to another network.
    """
    weights = {name: each for name, each in read_weights(path).items() if not name.startswith("fc.")}
    fit(path, resnet, weights, {"": ("",)}, called="ResNet-34")
