"""Checkpoints: a network in one safetensors file that needs nothing else to be loaded.

    model.safetensors
      header   {"wasnow": JSON}    format, model name and options, class words, scores, provenance, digest of the
                                   weights, and the calibration once it was fitted
      tensors  with the names of the model's state_dict

`wasnow.models.sealed` is the file format: nothing in a checkpoint is executed, and damage is detected.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from wasnow.errors import CheckpointError, UsageError
from wasnow.models.calibration import Calibration
from wasnow.models.contract import ChangeModel, WeightsInfo
from wasnow.models.network import Network
from wasnow.models.registry import MODELS, build, shipped
from wasnow.models.sealed import read_sealed, read_sealed_header, write_sealed

FORMAT = 1
"""Incremented when files can no longer be read as before."""

BEST, LAST = "best.safetensors", "last.safetensors"
"""The checkpoints of a run folder."""

Scores = dict[str, dict[str, float | None]]
"""By split (``"val"``), then by score as in `wasnow.evaluation.metrics.Scores.headline`; None where undefined."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Provenance(_Strict):
    """Where weights come from. Fields that do not apply are None."""

    origin: str = Field(description="one line: 'trained by wasnow 0.1.0', or what was converted")
    git: str | None = Field(default=None, description="commit of the training code, '-dirty' if it was edited")
    torch: str | None = None
    recipe: dict[str, Any] | None = Field(default=None, description="the whole training configuration")
    data: str | None = Field(default=None, description="name of the dataset folder")
    data_fingerprint: str | None = None
    trained_on: str | None = Field(default=None, description="split and number of pairs")
    selected_on: str | None = Field(default=None, description="split whose scores selected these weights")
    seed: int | None = None
    stage: str | None = Field(default=None, description="stage of the training")
    step: int | None = None
    epoch: float | None = None


class ModelConfig(_Strict):
    """What `wasnow.models.registry.build` needs to build the network again."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    classes: tuple[str, ...] = ()


class Header(_Strict):
    """The metadata of a checkpoint."""

    format: int
    wasnow: str = Field(description="version that wrote it")
    model: ModelConfig
    scores: Scores = Field(default_factory=dict)
    provenance: Provenance
    parameters: int = Field(description="number of values in the weights, buffers included")
    calibration: Calibration | None = Field(default=None, description="None until 'wasnow calibrate' has fitted it")
    about: str | None = Field(default=None, description="for the user: what it was trained on, where it falls short")
    digest: str


def save(
    path: str | os.PathLike[str],
    model: ChangeModel,
    *,
    scores: Mapping[str, Mapping[str, float | None]] | None = None,
    provenance: Provenance | Mapping[str, Any],
    weights: Mapping[str, Tensor] | None = None,
    about: str | None = None,
) -> Path:
    """Write a checkpoint that `load` can read on its own.

    Args:
        path: the file to write, usually with the suffix ``.safetensors``.
        model: a `Network`.
        scores: by split, then by name; NaN is stored as None.
        provenance: where the weights come from.
        weights: tensors to store instead of the model's own ``state_dict()``, such as an average.
        about: a few sentences for the user: what the model was trained on and where it falls short. They appear in
            the model card, in ``run.json`` and in the report.

    Raises:
        UsageError: the model is not a `Network`.
        DiskFull: the disk is full.
        OutputError: the file cannot be written.
    """
    from wasnow import __version__

    if not isinstance(model, Network):
        raise UsageError(f"{model.card.name} has no weights to save; only networks have checkpoints")
    tensors = dict(model.state_dict() if weights is None else weights)
    options = {name: value for name, value in model.config().items() if name != "classes"}
    header = {
        "format": FORMAT,
        "wasnow": __version__,
        "model": {"name": model.card.name, "options": options, "classes": list(model.card.classes)},
        "scores": {
            split: {name: _number(value) for name, value in one.items()} for split, one in (scores or {}).items()
        },
        "provenance": Provenance.model_validate(provenance).model_dump(mode="json"),
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
    }
    if about is not None:
        header["about"] = about
    write_sealed(Path(path), tensors, header)
    return Path(path)


def set_calibration(path: str | os.PathLike[str], calibration: Calibration | None) -> Path:
    """Store a calibration in a checkpoint, or remove it with None; weights stay, header and digest change.

    The file is replaced atomically. `save` stores no calibration, because it belongs to one set of weights.

    Args:
        path: a checkpoint, or a run folder, which means its best checkpoint.

    Returns:
        The file that was rewritten.

    Raises:
        CheckpointError: as `load`.
        DiskFull: the disk is full; the checkpoint is unchanged.
        OutputError: the file cannot be written.
    """
    found = resolve(path)
    tensors, header = read_sealed(found)
    _header(found, header)
    kept = {name: value for name, value in header.items() if name not in ("digest", "calibration")}
    more = {} if calibration is None else {"calibration": calibration.model_dump(mode="json")}
    write_sealed(found, tensors, {**kept, **more})
    return found


def read_header(path: str | os.PathLike[str]) -> Header:
    """Return the metadata of a checkpoint, or of the best one of a run folder, without reading the weights.

    Raises:
        CheckpointError: it is missing, damaged, a pickle, or of another format version.
    """
    found = resolve(path)
    return _header(found, read_sealed_header(found))


def load(path: str | os.PathLike[str], *, device: str | torch.device = "cpu") -> ChangeModel:
    """Return the model of a checkpoint in eval mode; ``card.weights`` has what the header states about the weights.

    Args:
        path: a checkpoint, or a run folder, which means its best checkpoint.
        device: where to put the model.

    Raises:
        CheckpointError: it is missing, damaged, a pickle, of another format version, or does not fit its model.
    """
    found = resolve(path)
    tensors, raw = read_sealed(found)
    header = _header(found, raw)
    held = sum(tensor.numel() for tensor in tensors.values())
    model = rebuild(found, header.model, most=LARGEST_RATIO * held + SMALL_NETWORK)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            found, f"its weights do not fit its model ({reason})", f"load it with wasnow {header.wasnow}"
        ) from None
    if isinstance(model, Network):
        recipe = header.provenance.recipe or {}
        # The digest distinguishes two checkpoints of one model: a resumed run must load the same weights.
        model.weights_info = WeightsInfo(header.digest, header.calibration, header.about, recipe.get("priors"))
    return cast(ChangeModel, model.eval().to(device))


class _Uninitialised(TorchFunctionMode):
    """Build networks without random initial weights, which take seconds to draw and are replaced anyway.

    Args:
        most: how many values may be allocated in total; options that need more do not fit the weights.
    """

    def __init__(self, most: float = math.inf) -> None:
        super().__init__()
        self._left = most

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return (kwargs or {}).get("tensor", args[0] if args else None)
        if func in _FACTORIES:
            self._left -= _numbers(args)
            if self._left < 0:
                raise ValueError("they need a far larger network than its weights fill")
        return func(*args, **(kwargs or {}))


LARGEST_RATIO, SMALL_NETWORK = 8, 2**24
"""While it is built, a network may allocate this multiple of the number of its weights, plus this many values."""

_FACTORIES = frozenset((torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn))


def _numbers(args: tuple[Any, ...]) -> int:
    """Return how many values ``torch.empty(2, 3)`` or ``torch.empty((2, 3))`` allocates."""
    size = args[0] if args and isinstance(args[0], tuple | list) else args
    return math.prod(side for side in size if isinstance(side, int))


def rebuild(path: Path, config: ModelConfig, *, most: float = math.inf) -> nn.Module:
    """Return the network that a header describes, with undefined weights.

    Args:
        path: the checkpoint, for messages.
        config: from its header.
        most: how many values may be allocated while it is built.

    Raises:
        CheckpointError: this version has no such model, or the model rejects the options.
    """
    if config.name not in MODELS:
        raise CheckpointError(path, f"its model {config.name!r} is unknown to this version", "update wasnow")
    try:
        with _Uninitialised(most):
            model = make(config.name, config.classes, config.options)
    except Exception as error:  # foreign options can fail in any way; none of them is a bug here
        reason = " ".join(f"{error}".split())[:300] or type(error).__name__
        raise CheckpointError(path, f"its model rejects its options ({reason})", "update wasnow") from None
    return model


def make(name: str, classes: tuple[str, ...], options: Mapping[str, Any]) -> nn.Module:
    """Return a network by its name.

    Args:
        name: of `MODELS`.
        classes: the class words; empty for the model's default.
        options: further arguments of the model.

    Raises:
        UnknownModel: no such name.
        UsageError: the model has no weights, so it can be neither trained nor loaded.
    """
    model = build(name, **({"classes": classes} if classes else {}), **options)
    if not isinstance(model, nn.Module):
        raise UsageError(f"{name} is fitted to each scene and has no weights; choose a network (wasnow models)")
    return model


def resolve(path: str | os.PathLike[str]) -> Path:
    """Return the checkpoint that a path names: the file itself, or the best checkpoint of a run folder.

    In a run folder without a best checkpoint it is the last one. If there is no such path, the name of a model that
    comes with wasnow gives its checkpoint.

    Raises:
        CheckpointError: a folder without checkpoints.
    """
    found = Path(path)
    if not found.exists() and (own := shipped(os.fspath(path))) is not None:
        return own
    if not found.is_dir():
        return found
    for name in (BEST, LAST):
        if (found / name).exists():
            return found / name
    raise CheckpointError(found, f"has neither {BEST} nor {LAST}", "give a run folder that has validated once")


def _header(path: Path, raw: Mapping[str, Any]) -> Header:
    version = raw.get("format")
    if not isinstance(version, int) or "model" not in raw:
        raise CheckpointError(path, "not a model checkpoint", "give best.safetensors or last.safetensors of a run")
    if version > FORMAT:
        raise CheckpointError(
            path,
            f"format {version}, written by wasnow {raw.get('wasnow', '?')}; this version reads {FORMAT}",
            "update wasnow",
        )
    if version < FORMAT:
        raise CheckpointError(
            path,
            f"format {version}; this version reads {FORMAT}",
            f"read it with wasnow {raw.get('wasnow', '?')}, or train again",
        )
    try:
        return Header.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise CheckpointError(path, f"its header is not valid ({where}: {first['msg']})", "use another copy") from None


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
