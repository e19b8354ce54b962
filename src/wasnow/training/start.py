"""What a run begins with: a network with the options of its recipe, and the weights of ``start``.

    start ─┬─ CLIP weights (wasnow weights) ─> their towers' sizes into the options ─> every clip.* tensor, exactly
           ├─ SegFormer weights, as published ──────────────────────────────────────> every encoder.* tensor, exactly
           ├─ a checkpoint ─────────────────────────────────────────────────────────> every tensor that fits
           └─ None ────────────────────────────────────────────────────────────────> random, from the seed

Parameters that no stage trains are no part of the training states: a resumed run takes them from ``start`` again, and a
digest tells whether they are the ones that it began with.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from wasnow.checkpoint import make, read_sealed, read_sealed_header, resolve
from wasnow.errors import CheckpointError, UsageError, did_you_mean
from wasnow.models import MODELS, shipped
from wasnow.training.config import TrainConfig
from wasnow.vocabulary import Vocabulary

CLIP_KIND = "clip"
"""What the header of a file of CLIP weights calls itself; a checkpoint has no kind."""

CLIP_PREFIX = "clip."

_OF_SEGFORMER = re.compile(r"patch_embed(dings\.)?\d\.proj\.|stages\.\d\.patch_embeddings\.proj\.")
"""In the names of a published SegFormer: the authors', and transformers' of any version."""


@dataclass(frozen=True)
class Start:
    """Where first weights come from.

    Attributes:
        path: a sealed file.
        of_clip: whether it holds CLIP towers alone, and not a checkpoint.
        clip: the sizes of the towers in it; None for a checkpoint of a model without.
        of_segformer: whether it holds a SegFormer, in the names of those who published it.
    """

    path: Path
    of_clip: bool
    clip: Mapping[str, Any] | None
    of_segformer: bool = False


def find_start(name: str) -> Start:
    """The file that ``start`` means: a path, a run folder, a model that comes with wasnow, or the name of CLIP weights.

    A path may also be the safetensors of a published SegFormer (``nvidia/mit-b1``), or the folder that holds them.

    Raises:
        CheckpointError: it is not to be had (says which command gets it), or is damaged.
    """
    if (published := _segformer(Path(name))) is not None:
        return Start(published, False, None, of_segformer=True)
    path = resolve(name) if Path(name).exists() else shipped(name) or _cached(name)
    header = _header(path)
    if header.get("kind") == CLIP_KIND:
        return Start(path, True, header.get("config"))
    options = header.get("model", {}).get("options", {})
    return Start(path, False, options.get("clip"))


def network(config: TrainConfig, vocabulary: Vocabulary, start: Start | None) -> nn.Module:
    """The network of a recipe with random weights, answering with the words of the data.

    Args:
        config: names the model and its options.
        vocabulary: of the data.
        start: where weights will come from; the sizes of its CLIP towers are taken where no option names others.

    Raises:
        UsageError: the model has no such option, or needs classes and the data has none.
        CheckpointError: the options name other towers than ``start`` has.
    """
    entry = MODELS.get(config.model)
    classes = vocabulary.words if entry is None or "classes" in entry.answers else ()
    if entry is not None and "classes" in entry.answers and not classes and not _answers_without_classes(config.model):
        raise UsageError(f"{config.model} answers with classes and the data has none; choose a model of change alone")
    options, known = dict(config.model_options), option_names(config.model)
    if start is not None and start.of_clip and CLIP_KIND not in known:
        raise UsageError(f"{start.path} holds CLIP weights and {config.model} has no CLIP; name a checkpoint as start")
    if start is not None and start.clip is not None and CLIP_KIND in known:
        if CLIP_KIND not in options:
            options[CLIP_KIND] = dict(start.clip)
        elif start.of_clip:
            _agree(options[CLIP_KIND], start.clip, start.path)
    try:
        return make(config.model, classes, options)
    except TypeError as error:
        raise UsageError(f"{config.model} refuses its options ({error}); see --set model.OPTION=VALUE") from None


def option_names(model: str) -> list[str]:
    """The options of a model, from the signature of what makes it; none for a name that is not known."""
    if model not in MODELS:
        return []
    return [name for name in _parameters(model) if name != "classes"]


def _answers_without_classes(model: str) -> bool:
    """Whether a model that may answer with classes may also do without: none are its default."""
    classes = _parameters(model).get("classes")
    return classes is not None and classes.default == ()


def _parameters(model: str) -> Mapping[str, inspect.Parameter]:
    module, _, factory = MODELS[model].factory.partition(":")
    return inspect.signature(getattr(import_module(module), factory)).parameters


def check_options(config: TrainConfig) -> None:
    """Nothing, if the model has all options that the recipe gives it.

    Raises:
        UsageError: it has not; names the nearest and all that there are.
    """
    known = option_names(config.model)
    for name in config.model_options if config.model in MODELS else ():
        if name not in known:
            raise UsageError(
                f"{config.model} has no option {name!r}{did_you_mean(name, known)}; "
                f"its options are {', '.join(known) or 'none'}, as --set model.{known[0] if known else 'OPTION'}=..."
            )


def take_weights(model: nn.Module, start: Start) -> str:
    """Take over weights, and say in a line what was taken.

    CLIP weights must be the model's towers exactly, and SegFormer's its encoder. Of a checkpoint every tensor is taken
    that has the name and shape of one here.

    Raises:
        CheckpointError: damaged, or other towers than the model's; names the first key that differs.
        UsageError: nothing of a checkpoint fits, or SegFormer weights are given to a model that has no such encoder.
    """
    if start.of_segformer:
        return _take_segformer(model, start.path)
    tensors, _ = read_sealed(start.path)
    own = model.state_dict()
    if start.of_clip:
        towers = {name: one for name, one in own.items() if name.startswith(CLIP_PREFIX)}
        _same_shapes(towers, tensors, start.path, "these are the weights of another CLIP")
        model.load_state_dict(tensors, strict=False)
        return f"started from {start.path.name}: CLIP's {len(tensors)} tensors, {len(own) - len(tensors)} begin anew"
    fitting = {name: one for name, one in tensors.items() if name in own and own[name].shape == one.shape}
    if not fitting:
        raise UsageError(f"no weight of {start.path} fits this model; choose a checkpoint of the same model for start")
    model.load_state_dict(fitting, strict=False)
    return f"started from {start.path.name}: {len(fitting)} tensors taken, {len(own) - len(fitting)} begin anew"


def digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 over names, types, shapes and bytes, one tensor at a time in the order of names."""
    sha = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda one: one[0]):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _cached(name: str) -> Path:
    """CLIP weights by their name."""
    from wasnow import weights

    try:
        found: Path = weights.find(name)
    except CheckpointError as error:
        others = "or name another file with --set start=FILE, or begin at random with --set start=null"
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
            "weights as others publish them",
            f"bring them in with wasnow weights get --from {path} (CLIP) or wasnow convert (a network)",
        ) from None


def _agree(wanted: Any, found: Mapping[str, Any], path: Path) -> None:
    """Nothing, if an option ``clip`` means the towers of a file."""
    from wasnow.nn.clip import PRESETS, ClipConfig

    if isinstance(wanted, str):
        if wanted not in PRESETS:
            return  # the model says so, and names the presets
        wanted = PRESETS[wanted].dict()
    else:
        wanted = ClipConfig.from_dict(wanted).dict()
    for key in dict.fromkeys([*wanted, *found]):
        if wanted.get(key) != found.get(key):
            raise CheckpointError(
                path,
                f"its {key} is {found.get(key)}, model.clip says {wanted.get(key)}",
                "leave model.clip out to take the towers as they are",
            )


def _same_shapes(own: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path, advice: str) -> None:
    for name in sorted({*own, *found}):
        here, there = (tuple(side[name].shape) if name in side else "missing" for side in (own, found))
        if here != there:
            raise CheckpointError(path, f"{name} is {there} in the file and {here} in the model", advice)


def _segformer(path: Path) -> Path | None:
    """The file of published SegFormer weights that a path means; None for anything else."""
    file = path / "model.safetensors" if path.is_dir() else path
    try:
        with safe_open(file, framework="pt") as held:
            names = list(held.keys())
            if "wasnow" in (held.metadata() or {}) or not any(_OF_SEGFORMER.search(name) for name in names):
                return None
    except (OSError, SafetensorError, ValueError):
        return None
    return file


def _take_segformer(model: nn.Module, path: Path) -> str:
    from wasnow.nn.segformer import MixTransformer, tower_of

    encoder = getattr(model, "encoder", None)
    if not isinstance(encoder, MixTransformer):
        raise UsageError(
            f"{path} holds SegFormer weights and this model has no such encoder; choose sam-cd, or no start"
        )
    tower = tower_of(load_file(path))
    own = encoder.state_dict()
    advice = "these are the weights of another encoder; name theirs: --set model.encoder=mit-b0, mit-b1 or mit-b2"
    _same_shapes(own, tower, path, advice)
    encoder.load_state_dict(tower)
    begun = len(model.state_dict()) - len(own)
    return f"started from {path.name}: SegFormer's {len(own)} tensors, {begun} begin anew"
