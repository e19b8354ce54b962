"""What a run begins with: a network with the options of its recipe, and the weights of ``start``.

    start ─┬─ CLIP weights (wasnow weights) ─> their towers' sizes into the options ─> every clip.* tensor, exactly
           ├─ an encoder, as others publish it (`published.names.ENCODERS`) ──────> all of the model's encoder, exactly
           ├─ a checkpoint ─────────────────────────────────────────────────────────> every tensor that fits
           └─ None ────────────────────────────────────────────────────────────────> random, from the seed

Parameters that no stage trains are no part of the training states: a resumed run takes them from ``start`` again, and a
digest tells whether they are the ones that it began with.
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
from wasnow.models.published.names import PublishedEncoder, encoder_in
from wasnow.models.registry import MODELS, shipped
from wasnow.models.sealed import read_sealed, read_sealed_header
from wasnow.training.config import TrainConfig
from wasnow.vocabulary import Vocabulary

CLIP_KIND = "clip"
"""What the header of a file of CLIP weights calls itself; a checkpoint has no kind."""

CLIP_PREFIX = "clip."

_READ_AS_PLAIN: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [(OrderedDict, "yacs.config.CfgNode")]
"""The settings of a training that lie beside VMamba's weights: read as a dict of the standard library, and dropped.

Their name is looked up here, so nothing of the package is loaded or run.
"""


@dataclass(frozen=True)
class Start:
    """Where first weights come from.

    Attributes:
        path: a sealed file, or one of published weights.
        of_clip: whether it holds CLIP towers alone, and not a checkpoint.
        clip: the sizes of the towers in it; None for a checkpoint of a model without.
        encoder: whose weights it holds, where these are of a published encoder.
        published: they, under the names that they are published with.
    """

    path: Path
    of_clip: bool
    clip: Mapping[str, Any] | None
    encoder: PublishedEncoder | None = None
    published: Mapping[str, Tensor] = field(default_factory=dict, repr=False)


def find_start(name: str) -> Start:
    """The file that ``start`` means: a path, a run folder, a model that comes with wasnow, or the name of CLIP weights.

    A path may also be that of a published encoder: a ``.pth`` or ``.safetensors`` of `ENCODERS`, or a folder of the hub
    with ``model.safetensors`` (``nvidia/mit-b1``, ``timm/resnet34.a1_in1k``).

    Raises:
        CheckpointError: it is not to be had (says which command gets it), is damaged, or holds more than tensors.
    """
    if (published := _published(Path(name))) is not None:
        return published
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

    CLIP weights must be the model's towers exactly, and those of an encoder its encoder. Of a checkpoint every tensor
    is taken that has the name and shape of one here.

    Raises:
        CheckpointError: damaged, or other towers or another encoder than the model's; names the first key that differs.
        UsageError: nothing of a checkpoint fits, or the model has no such encoder.
    """
    if start.encoder is not None:
        return _take_encoder(model, start.path, start.encoder, start.published)
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
    from wasnow.models import clip_weights

    try:
        found: Path = clip_weights.find(name)
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


def _published(path: Path) -> Start | None:
    """The published encoder that a path means; None for anything else."""
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
    return None if encoder is None else Start(file, False, None, encoder, tensors)


def _is_pickle(file: Path) -> bool:
    """Whether ``torch.save`` may have written it: not an archive of code, as OpenAI's CLIP comes in."""
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
            f"choose {' or '.join([', '.join(others), last] if others else [last])}, or no start"
        )
    (part,) = parts
    own = part.state_dict()
    found, left = encoder.ours(published, own)
    # PyTorch before 0.4.1 did not count batches, and nothing reads the count while the momentum is fixed.
    missing = {name for name in own if name not in found and name.endswith("num_batches_tracked")}
    asked = {name: one for name, one in own.items() if name not in missing and not name.startswith(encoder.anew)}
    _same_shapes(asked, found, path, encoder.advice(found))
    part.load_state_dict({**own, **found})
    told = f"{encoder.title}'s {len(found)} tensors taken, "
    told += f"{' and '.join(left)} left out, " if left else ""
    return f"started from {path.name}: {told}{len(model.state_dict()) - len(found) - len(missing)} begin anew"
