"""A checkpoint: one safetensors file that says by itself what it is.

    model.safetensors
      header   {"wasnow": JSON}    format, model and its options, class words, scores, provenance, digest of the
                                weights, and the calibration once it was measured
      tensors  as the model's state_dict names them

Nothing in it can run: pickles are refused. A file is written aside, flushed to the disk and renamed, so that it is
there whole or not at all; its digest (SHA-256 over the header and over names, types, shapes and bytes of the weights)
tells a damaged one. The same weights and header give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from wasnow.errors import CheckpointError, UsageError
from wasnow.evaluation.calibration import Calibration
from wasnow.models.contract import ChangeModel
from wasnow.models.registry import MODELS, build, shipped
from wasnow.storage.atomic import atomic_path, output_errors, sync_folder

FORMAT = 1
"""Counts up whenever a file could not be read as before."""

BEST, LAST = "best.safetensors", "last.safetensors"
"""The checkpoints of a run folder."""

TERMS = "terms.names"
"""The tensor of a checkpoint that holds its terms, a line each, if it has a table of them."""

Scores = dict[str, dict[str, float | None]]
"""By split (``"val"``), then by score as `wasnow.evaluation.metrics.Scores.headline` names it; None where undefined."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Provenance(_Strict):
    """Where weights come from. What does not apply is None."""

    origin: str = Field(description="one line: 'trained by wasnow 0.1.0', or what was converted")
    git: str | None = Field(default=None, description="commit of the training code, '-dirty' if it was edited")
    torch: str | None = None
    recipe: dict[str, Any] | None = Field(default=None, description="the whole training configuration")
    data: str | None = Field(default=None, description="name of the dataset folder")
    data_fingerprint: str | None = None
    trained_on: str | None = Field(default=None, description="split and number of pairs")
    selected_on: str | None = Field(default=None, description="split whose scores chose these weights")
    seed: int | None = None
    step: int | None = None
    epoch: float | None = None


class ModelConfig(_Strict):
    """What `wasnow.models.build` needs to make the network again."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    classes: tuple[str, ...] = ()


class Header(_Strict):
    """Everything a checkpoint says of itself besides its weights."""

    format: int
    wasnow: str = Field(description="version that wrote it")
    model: ModelConfig
    scores: Scores = Field(default_factory=dict)
    provenance: Provenance
    parameters: int = Field(description="numbers in the weights, buffers included")
    calibration: Calibration | None = Field(default=None, description="None until 'wasnow calibrate' has measured it")
    about: str | None = Field(default=None, description="sentences for a user: what it learned from, where it fails")
    digest: str


# ------------------------------------------------------------------------------------------------------- a sealed file


def write_sealed(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    """Write tensors and a JSON header as one safetensors file, whole or not at all, and say its digest.

    Args:
        path: replaced if it exists.
        tensors: by name, on any device.
        header: plain JSON values; ``digest`` is added to it.

    Raises:
        DiskFull: no room left; what was at ``path`` is still there.
        OutputError: the file cannot be written for another reason.
    """
    own = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    # Two names for one tensor (tied weights) are stored twice: the format knows no sharing.
    storages: set[int] = set()
    for name, tensor in own.items():
        if tensor.numel() and (pointer := tensor.untyped_storage().data_ptr()) in storages:
            own[name] = tensor.clone()
        elif tensor.numel():
            storages.add(pointer)
    digest = _digest(own, header)
    text = _canonical({**header, "digest": digest})
    with output_errors(path, SafetensorError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            # safetensors makes files that only their owner can read; these get the default permissions.
            temporary.touch()
            mode = temporary.stat().st_mode
            save_file(own, temporary, metadata={"wasnow": text})
            temporary.chmod(mode)
        sync_folder(path.parent)
    return digest


def read_sealed_header(path: Path) -> dict[str, Any]:
    """The JSON header of a file that `write_sealed` wrote; the tensors are not read.

    Raises:
        CheckpointError: the file is missing, a pickle, cut short, or not ours.
    """
    _refuse_others(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            path, f"no whole safetensors file ({error})", "it was cut short or is something else; use another copy"
        ) from None
    try:
        header = dict(json.loads(metadata["wasnow"]))
        _canonical(header).encode()  # numbers and characters that no header of ours holds would fail later
        return header
    except KeyError:
        raise CheckpointError(
            path, "a safetensors file without a wasnow header", "bring weights of others in with wasnow convert"
        ) from None
    except (ValueError, TypeError, RecursionError):
        raise CheckpointError(path, "its header is damaged", "use another copy") from None


def read_sealed(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a file that `write_sealed` wrote.

    Raises:
        CheckpointError: as `read_sealed_header`, or the tensors are not the ones that were written.
    """
    header = read_sealed_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            # Copies: the tensors of an open file are the file itself, and change when somebody writes to it.
            tensors = {name: file.get_tensor(name).clone() for name in sorted(file.keys())}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(path, f"its weights cannot be read ({error})", "use another copy") from None
    if _digest(tensors, {name: value for name, value in header.items() if name != "digest"}) != header.get("digest"):
        raise CheckpointError(path, "it is not what was written (checksum)", "it was damaged; use another copy")
    return tensors, header


def _canonical(header: Mapping[str, Any]) -> str:
    return json.dumps(header, sort_keys=True, ensure_ascii=False, allow_nan=False)


def _digest(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    """SHA-256 over the header, then over names, types, shapes and bytes in the order of names."""
    sha = hashlib.sha256(_canonical(header).encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            sha.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _refuse_others(path: Path) -> None:
    """Missing files, folders, and formats that could run code when read."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except FileNotFoundError:
        raise CheckpointError(path, "no such file", "name a checkpoint, or the folder of a training run") from None
    except OSError as error:
        raise CheckpointError(path, f"cannot be read ({error.strerror})", "check the path") from None
    if start[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        raise CheckpointError(
            path,
            "a pickle, which can run code when it is read, so it is refused",
            "bring published weights in with wasnow convert",
        )


# -------------------------------------------------------------------------------------------------------- a checkpoint


def save(
    path: str | os.PathLike[str],
    model: ChangeModel,
    *,
    scores: Mapping[str, Mapping[str, float | None]] | None = None,
    provenance: Provenance | Mapping[str, Any],
    weights: Mapping[str, Tensor] | None = None,
    about: str | None = None,
) -> Path:
    """Write a model so that `load` needs nothing else.

    Args:
        path: the file to write; the suffix ``.safetensors`` is customary.
        model: an ``nn.Module`` with a card and ``config()``, the options that it was made with as JSON values.
        scores: by split, then by name; NaN is stored as None.
        provenance: where the weights come from.
        weights: instead of the model's own ``state_dict()``: an average of it, say.
        about: a few plain sentences for whoever reads a map that it made: what it was trained on, where it falls
            short. They stand in the card, in ``run.json`` and in the report.

    Raises:
        UsageError: the model has no weights or does not say its options.
        DiskFull: no room left.
        OutputError: the file cannot be written.
    """
    from wasnow import __version__

    if not isinstance(model, nn.Module) or not callable(getattr(model, "config", None)):
        raise UsageError(f"{model.card.name} has no weights and options to save; only networks make checkpoints")
    tensors = dict(model.state_dict() if weights is None else weights)
    options = {name: value for name, value in cast(Any, model).config().items() if name != "classes"}
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
    """Write a calibration into a checkpoint (None takes it out): the same weights under another header and digest.

    The file is replaced whole or not at all. `save` writes none: other weights need a measurement of their own.

    Args:
        path: a checkpoint, or a run folder: its best checkpoint.

    Returns:
        The file that was rewritten.

    Raises:
        CheckpointError: as `load`.
        DiskFull: no room left; the checkpoint is as it was.
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
    """What a checkpoint (or the best one of a run folder) says of itself; its weights are not read.

    Raises:
        CheckpointError: missing, damaged, a pickle, or of another format version.
    """
    found = resolve(path)
    return _header(found, read_sealed_header(found))


def load(path: str | os.PathLike[str], *, device: str | torch.device = "cpu") -> ChangeModel:
    """The model of a checkpoint, ready to answer; ``calibration`` and ``about`` are the header's, None without one.

    Args:
        path: a checkpoint, or a run folder: its best checkpoint.
        device: where to put it.

    Raises:
        CheckpointError: missing, damaged, a pickle, of another format version, or not fitting its own model.
    """
    found = resolve(path)
    tensors, raw = read_sealed(found)
    header = _header(found, raw)
    held = sum(tensor.numel() for tensor in tensors.values())
    model = rebuild(found, header.model, most=LAVISH * held + MODEST)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            found, f"its weights do not fit its model ({reason})", f"it was written by wasnow {header.wasnow}"
        ) from None
    # Two checkpoints of one model are two models: a resumed detection must see the same one.
    model.fingerprint = header.digest  # type: ignore[assignment]
    model.calibration = header.calibration  # type: ignore[assignment]
    model.about = header.about  # type: ignore[assignment]
    return cast(ChangeModel, model.eval().to(device))


class _NothingDrawn(TorchFunctionMode):
    """Networks are made without first weights, which take seconds to draw and are about to be replaced.

    Args:
        most: numbers that may be asked for in all; options that want more are no options of these weights.
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
                raise ValueError("they want a far larger network than its weights are of")
        return func(*args, **(kwargs or {}))


LAVISH, MODEST = 8, 2**24
"""A network may ask for so many times the numbers that its weights are, and so many besides, while it is made."""

_FACTORIES = frozenset((torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn))


def _numbers(args: tuple[Any, ...]) -> int:
    """How many numbers ``torch.empty(2, 3)`` or ``torch.empty((2, 3))`` makes."""
    size = args[0] if args and isinstance(args[0], tuple | list) else args
    return math.prod(side for side in size if isinstance(side, int))


def rebuild(path: Path, config: ModelConfig, *, most: float = math.inf) -> nn.Module:
    """The network that a header describes, its weights not set: to be loaded.

    Args:
        path: of the checkpoint, for messages.
        config: from its header.
        most: numbers that making it may ask memory for.

    Raises:
        CheckpointError: this version has no such model, or the model refuses the options.
    """
    if config.name not in MODELS:
        raise CheckpointError(path, f"it holds a model called {config.name!r}, unknown here", "update wasnow")
    try:
        with _NothingDrawn(most):
            model = make(config.name, config.classes, config.options)
    except Exception as error:  # options of a stranger can fail in any way, and none of them is a bug of ours
        reason = " ".join(f"{error}".split())[:300] or type(error).__name__
        raise CheckpointError(path, f"its model refuses its options ({reason})", "update wasnow") from None
    return model


def make(name: str, classes: tuple[str, ...], options: Mapping[str, Any]) -> nn.Module:
    """A network by its name; ``classes`` are passed on where there are any.

    Raises:
        UnknownModel: no such name.
        UsageError: the model has no weights, so nothing to train or to load.
    """
    model = build(name, **({"classes": classes} if classes else {}), **options)
    if not isinstance(model, nn.Module):
        raise UsageError(f"{name} fits itself to each scene and has no weights; choose a network (wasnow models)")
    return model


def resolve(path: str | os.PathLike[str]) -> Path:
    """The file that is meant: itself, the best checkpoint of a run folder, or what comes with wasnow under that name.

    Of a run folder where none was chosen yet, the last checkpoint. Names of `wasnow.models.MODELS` are looked at where
    there is no such path.

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
    raise CheckpointError(found, f"holds neither {BEST} nor {LAST}", "name a run folder that has validated once")


def describe(path: str | os.PathLike[str]) -> dict[str, dict[str, str]]:
    """A checkpoint as a model card: sections of lines, all text, in the order to print.

    Raises:
        CheckpointError: as `read_header`.
    """
    found = resolve(path)
    header = read_header(found)
    source, card = header.provenance, None
    # None and no mapping are what a model does anyway; no list and False may be an ablation.
    options = {name: value for name, value in header.model.options.items() if value is not None and value != {}}
    if header.model.name in MODELS:
        card = MODELS[header.model.name]
    sections: dict[str, dict[str, str]] = {
        "model": {
            "file": str(found),
            "name": header.model.name,
            "what it is": card.summary if card else "a model that this version does not know",
            "classes": ", ".join(header.model.classes) or "none: change alone",
            **_words_lines(found),
            **{f"option {name}": _short(_plain(value)) for name, value in options.items()},
            "weights": f"{header.parameters / 1e6:.2f} million, {found.stat().st_size / 1e6:.1f} MB",
            "digest": header.digest[:16],
        },
        **({"about": {"": " ".join(header.about.split())}} if header.about else {}),
        "where it comes from": {
            "origin": source.origin,
            "trained on": source.trained_on or "not said",
            "chosen on": source.selected_on or "not said",
        },
    }
    facts = {
        "data": source.data,
        "data fingerprint": source.data_fingerprint,
        "seed": source.seed,
        "step": source.step,
        "epoch": source.epoch,
        "written by": f"wasnow {header.wasnow}" + (f", torch {source.torch}" if source.torch else ""),
        "code": source.git,
    }
    sections["where it comes from"] |= {name: _plain(fact) for name, fact in facts.items() if fact is not None}
    for split, values in header.scores.items():
        sections[f"scores on {split}"] = {
            name: "undefined" if value is None else f"{100 * value:.2f}" for name, value in values.items()
        }
    sections["calibration"] = _calibration_lines(header)
    if source.recipe:
        sections["recipe"] = {name: _plain(value) for name, value in source.recipe.items() if value is not None}
    return sections


def _words_lines(path: Path) -> dict[str, str]:
    """How many terms a checkpoint has inside, where it brings the table of them (`wasnow.nn.terms`)."""
    with safe_open(path, framework="pt") as file:
        if TERMS not in file.keys():  # noqa: SIM118 (it is no mapping)
            return {}
        terms = int((file.get_tensor(TERMS) == ord("\n")).sum()) + 1
    return {"other words": f"any, by {terms:,} terms that it has inside"}


def _calibration_lines(header: Header) -> dict[str, str]:
    found = header.calibration
    if found is None:
        return {"temperatures": "not measured; wasnow calibrate measures them on validation pairs"}

    def told(temperature: float, before: float | None, after: float | None) -> str:
        if before is None or after is None:
            return f"{temperature:.4g}"
        return f"{temperature:.4g} (ECE {100 * before:.2f} % before, {100 * after:.2f} % after)"

    lines = {"temperature of change": told(found.change_temperature, found.ece_change_before, found.ece_change_after)}
    if header.model.classes:
        classes = told(found.class_temperature, found.ece_class_before, found.ece_class_after)
        lines["temperature of classes"] = classes
    return {**lines, "measured on": f"{found.split} ({found.pairs} pairs)"}


def _header(path: Path, raw: Mapping[str, Any]) -> Header:
    version = raw.get("format")
    if not isinstance(version, int) or "model" not in raw:
        raise CheckpointError(path, "no model checkpoint", "name best.safetensors or last.safetensors of a run")
    if version > FORMAT:
        raise CheckpointError(
            path,
            f"format {version}, written by wasnow {raw.get('wasnow', '?')}, and this version reads {FORMAT}",
            "update wasnow",
        )
    if version < FORMAT:
        raise CheckpointError(
            path,
            f"format {version}, older than the {FORMAT} that this version reads",
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


def _short(text: str, most: int = 200) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value, ensure_ascii=False)
