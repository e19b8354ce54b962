"""The network of a run and its initial weights, as named by ``start``.

    start ─┬─ CLIP weights (wasnow weights) ─> sizes of the towers set the options ─> every clip.* tensor
           ├─ a published encoder (`published.encoders.ENCODERS`) ─────────────────────> the whole encoder of the model
           ├─ a checkpoint ─────────────────────────────────────────────────────────> every tensor that fits
           └─ None ─────────────────────────────────────────────────────────────────> random, from the seed

Training states do not contain parameters that no stage trains. A resumed run loads them from ``start`` again, and a
digest verifies that they are unchanged.
"""

from __future__ import annotations

import hashlib
import inspect
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from wasnow.errors import CheckpointError, UsageError, did_you_mean
from wasnow.models.checkpoint import make, resolve
from wasnow.models.published.convert import read_weights
from wasnow.models.published.encoders import PublishedEncoder, encoder_in
from wasnow.models.registry import MODELS, shipped
from wasnow.models.sealed import read_sealed, read_sealed_header
from wasnow.training.config import TrainConfig
from wasnow.vocabulary import Vocabulary

CLIP_KIND = "clip"
"""``kind`` in the header of a file of CLIP weights; a checkpoint has no kind."""

CLIP_PREFIX = "clip."

_READ_AS_PLAIN: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [(OrderedDict, "yacs.config.CfgNode")]
"""The training settings in VMamba's weight files: read as a dict of the standard library and ignored.

The class is replaced by name, so no code of its package is imported.
"""


@dataclass(frozen=True)
class InitialWeights:
    """A source of initial weights.

    Attributes:
        path: a sealed file, or a file of published weights.
        of_clip: whether it holds only CLIP towers, not a checkpoint.
        clip: sizes of the CLIP towers; None for a checkpoint of a model without CLIP.
        encoder: the published encoder whose weights it holds, if any.
        published: tensors of that encoder under their published names.
    """

    path: Path
    of_clip: bool
    clip: Mapping[str, Any] | None
    encoder: PublishedEncoder | None = None
    published: Mapping[str, Tensor] = field(default_factory=dict, repr=False)


def find_initial_weights(name: str) -> InitialWeights:
    """Find the source that ``start`` names: a path, a run folder, a model included in wasnow, or CLIP weights.

    A path may also be a published encoder: a ``.pth`` or ``.safetensors`` file of `ENCODERS`, or a hub folder with
    ``model.safetensors`` (``nvidia/mit-b1``, ``timm/resnet34.a1_in1k``).

    Raises:
        CheckpointError: it is not available (the message names the command that gets it), is damaged, or holds more
            than tensors.
    """
    if (published := _published(Path(name))) is not None:
        return published
    path = resolve(name) if Path(name).exists() else shipped(name) or _cached(name)
    header = _header(path)
    if header.get("kind") == CLIP_KIND:
        return InitialWeights(path, True, header.get("config"))
    options = header.get("model", {}).get("options", {})
    return InitialWeights(path, False, options.get("clip"))


def build_network(config: TrainConfig, vocabulary: Vocabulary, start: InitialWeights | None) -> nn.Module:
    """Return the network of a recipe with random weights and the classes of the data.

    Args:
        config: names the model and its options.
        vocabulary: of the data.
        start: source of the weights; its CLIP tower sizes are used unless an option gives others.

    Raises:
        UsageError: the model has no such option, or needs classes and the data has none.
        CheckpointError: the options give other tower sizes than ``start`` has.
    """
    entry = MODELS.get(config.model)
    classes = vocabulary.words if entry is None or "classes" in entry.answers else ()
    if entry is not None and "classes" in entry.answers and not classes and not _answers_without_classes(config.model):
        raise UsageError(
            f"{config.model} predicts classes and the data has none; choose a model that predicts change only"
        )
    options, known = dict(config.model_options), option_names(config.model)
    if start is not None and start.of_clip and CLIP_KIND not in known:
        raise UsageError(f"{start.path} holds CLIP weights and {config.model} has no CLIP; use a checkpoint as start")
    if start is not None and start.clip is not None and CLIP_KIND in known:
        if CLIP_KIND not in options:
            options[CLIP_KIND] = dict(start.clip)
        elif start.of_clip:
            _agree(options[CLIP_KIND], start.clip, start.path)
    try:
        return make(config.model, classes, options)
    except TypeError as error:
        raise UsageError(
            f"{config.model} does not accept its options ({error}); see --set model.OPTION=VALUE"
        ) from None


def option_names(model: str) -> list[str]:
    """Return the options of a model, from the signature of its factory; empty for an unknown name."""
    if model not in MODELS:
        return []
    return [name for name in _parameters(model) if name != "classes"]


def _answers_without_classes(model: str) -> bool:
    """Return whether a model with classes can also be built without: no classes are its default."""
    classes = _parameters(model).get("classes")
    return classes is not None and classes.default == ()


def _parameters(model: str) -> Mapping[str, inspect.Parameter]:
    module, _, factory = MODELS[model].factory.partition(":")
    return inspect.signature(getattr(import_module(module), factory)).parameters


def check_options(config: TrainConfig) -> None:
    """Check that the model has all options of the recipe.

    Raises:
        UsageError: an option does not exist; the message names the nearest and all options.
    """
    known = option_names(config.model)
    for name in config.model_options if config.model in MODELS else ():
        if name not in known:
            raise UsageError(
                f"{config.model} has no option {name!r}{did_you_mean(name, known)}; "
                f"its options are {', '.join(known) or 'none'}, as --set model.{known[0] if known else 'OPTION'}=..."
            )


def load_initial_weights(model: nn.Module, start: InitialWeights) -> str:
    """Load initial weights and return a message about what was loaded.

    CLIP weights must match the towers of the model, and encoder weights its encoder. From a checkpoint, every tensor
    with the name and shape of one of the model is loaded.

    Raises:
        CheckpointError: the file is damaged or has other towers or another encoder; the message names the first
            difference.
        UsageError: no tensor of a checkpoint fits, or the model has no such encoder.
    """
    if start.encoder is not None:
        return _take_encoder(model, start.path, start.encoder, start.published)
    tensors, _ = read_sealed(start.path)
    own = model.state_dict()
    if start.of_clip:
        towers = {name: one for name, one in own.items() if name.startswith(CLIP_PREFIX)}
        _same_shapes(towers, tensors, start.path, "these are weights of a different CLIP")
        model.load_state_dict(tensors, strict=False)
        return f"started from {start.path.name}: {len(tensors)} tensors of CLIP, {len(own) - len(tensors)} are random"
    fitting = {name: one for name, one in tensors.items() if name in own and own[name].shape == one.shape}
    if not fitting:
        raise UsageError(f"no tensor of {start.path} fits this model; use a checkpoint of the same model as start")
    model.load_state_dict(fitting, strict=False)
    return f"started from {start.path.name}: {len(fitting)} tensors loaded, {len(own) - len(fitting)} are random"


def digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Return the SHA-256 over names, types, shapes and bytes of tensors, sorted by name."""
    sha = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda one: one[0]):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _cached(name: str) -> Path:
    """Return the file of CLIP weights by name."""
    from wasnow.models.clip_weights import store

    try:
        found: Path = store.find(name)
    except CheckpointError as error:
        others = "or use another file with --set start=FILE, or random weights with --set start=null"
        raise CheckpointError(name, error.reason, f"{str(error).rpartition('; ')[2]}; {others}") from None
    return found


def _header(path: Path) -> dict[str, Any]:
    try:
        return read_sealed_header(path)
    except CheckpointError as error:
        if "wasnow convert" not in str(error):
            raise
        raise CheckpointError(
            path,
            "weights in a published format",
            f"import them with wasnow weights get --from {path} (CLIP) or wasnow convert (a network)",
        ) from None


def _agree(wanted: Any, found: Mapping[str, Any], path: Path) -> None:
    """Check that the option ``clip`` describes the towers of a file.

    Args:
        wanted: value of the option.
        found: tower sizes in the file.
        path: of the file.
    """
    from wasnow.nn.clip_config import PRESETS, ClipConfig

    if isinstance(wanted, str):
        if wanted not in PRESETS:
            return  # the model rejects it and names the presets
        wanted = PRESETS[wanted].dict()
    else:
        wanted = ClipConfig.from_dict(wanted).dict()
    for key in dict.fromkeys([*wanted, *found]):
        if wanted.get(key) != found.get(key):
            raise CheckpointError(
                path,
                f"its {key} is {found.get(key)}, model.clip says {wanted.get(key)}",
                "remove model.clip to use the towers of the file",
            )


def _same_shapes(own: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path, advice: str) -> None:
    for name in sorted({*own, *found}):
        here, there = (tuple(side[name].shape) if name in side else "missing" for side in (own, found))
        if here != there:
            raise CheckpointError(path, f"{name} is {there} in the file and {here} in the model", advice)


def _published(path: Path) -> InitialWeights | None:
    """Return the published encoder in a file or folder; None for anything else."""
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        return None
    if file.suffix == ".safetensors":
        try:
            with safe_open(file, framework="pt") as held:
                names = [] if "wasnow" in (held.metadata() or {}) else list(held.keys())
        except (SafetensorError, OSError, ValueError):
            return None
        if encoder_in(names) is None:
            return None
    elif not _is_pickle(file):
        return None
    with torch.serialization.safe_globals(_READ_AS_PLAIN):
        tensors = read_weights(file)
    encoder = encoder_in(tensors)
    return None if encoder is None else InitialWeights(file, False, None, encoder, tensors)


def _is_pickle(file: Path) -> bool:
    """Return whether ``torch.save`` may have written a file; OpenAI's CLIP is an archive with code instead."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            return not any(name.endswith("/constants.pkl") for name in archive.namelist())
    with file.open("rb") as opened:
        return opened.read(1) == b"\x80"


def _take_encoder(model: nn.Module, path: Path, encoder: PublishedEncoder, published: Mapping[str, Tensor]) -> str:
    parts = [each for each in model.modules() if f"{type(each).__module__}:{type(each).__qualname__}" == encoder.part]
    if not parts:
        *others, last = encoder.models
        raise UsageError(
            f"{path} holds {encoder.title} weights and this model has no such encoder; "
            f"use {' or '.join([', '.join(others), last] if others else [last])}, or start=null"
        )
    (part,) = parts
    own = part.state_dict()
    found, left = encoder.ours(published, own)
    # PyTorch before 0.4.1 did not count batches, and the count is not used while the momentum is fixed.
    missing = {name for name in own if name not in found and name.endswith("num_batches_tracked")}
    required = {
        name: one for name, one in own.items() if name not in missing and not name.startswith(encoder.initialised)
    }
    _same_shapes(required, found, path, encoder.advice(found))
    part.load_state_dict({**own, **found})
    loaded = f"{len(found)} tensors of {encoder.title} loaded, "
    loaded += f"without {' and '.join(left)}, " if left else ""
    return f"started from {path.name}: {loaded}{len(model.state_dict()) - len(found) - len(missing)} are random"
