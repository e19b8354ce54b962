"""Weights that others published, under the names that they have here.

    bisrnet.pth ── read_weights ──> tensors by their names ── rename ──> by ours ── fit ──> network ──> checkpoint
                   no pickle runs                             UPSTREAMS       first difference named

Converting changes names and nothing else: the network then answers what the published one answered, which
``tests/parity`` holds to 1e-4. Of the code that the weights were published with, only names and shapes are used here.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from wasnow import checkpoint
from wasnow.errors import CheckpointError, OutputError, UnknownModel, UsageError
from wasnow.models.contract import ChangeModel
from wasnow.models.mamba_scd import PUBLISHED_WORDS as CHANGE_MAMBA_WORDS
from wasnow.models.sscd_l import SECOND_WORDS
from wasnow.nn.resnet import ResNet34
from wasnow.nn.vmamba import PUBLISHED as VMAMBA

Names = Mapping[str, tuple[str, ...]]
"""How their parameter names begin, and what stands there with us; two where we have two copies of what they share."""

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "weights")
"""Where a training script may have put the weights among other things."""


# ------------------------------------------------------------------------------------------------------- their names


@dataclass(frozen=True, slots=True)
class Upstream:
    """A published implementation.

    Attributes:
        source: where its weights are from.
        names: the first entry that a name begins with counts. Where the authors renamed, the newest stands first.
        class_head: our name of the weights ``(1 + K, ...)``, or ``(K, ...)``, that tell how many words there are.
        classes: the words that the published weights answer with, in their order.
        normalisation: of `wasnow.nn.normalise` that they were trained with.
        unchanged_channel: whether the class head answers one channel more than there are words.
        network: of `wasnow.models.MODELS`; None: the one that is called as this row is.
        options: of the network, beside classes and normalisation.
    """

    source: str
    names: Names
    class_head: str
    classes: tuple[str, ...]
    normalisation: str
    unchanged_channel: bool = True
    network: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


_SSCD_L: Names = {
    "FCN.layer0.0.": ("encoder.resnet.conv1.",),
    "FCN.layer0.1.": ("encoder.resnet.bn1.",),
    "FCN.layer": ("encoder.resnet.layer",),
    "FCN.head.": ("encoder.reduce.",),
    "resCD.": ("change.blocks.",),
    "res1.": ("change.blocks.",),
    "classifierCD.": ("change.head.",),
    "CD.": ("change.head.",),
    "classifier1.": ("classes_before.",),
    "classifier2.": ("classes_after.",),
}


def _bisrnet() -> Names:
    names = {**_SSCD_L, "head.": ("encoder.reduce.",)}
    owners = {"SR1": ("reason_before",), "SR2": ("reason_after",), "SiamSR": ("reason_before", "reason_after")}
    for theirs, ours in owners.items():
        names[f"{theirs}.gamma"] = tuple(f"{one}.gamma" for one in ours)
        for part in ("query", "key", "value"):
            names[f"{theirs}.{part}_conv."] = tuple(f"{one}.project.{part}." for one in ours)
    for number, date in ((1, "before"), (2, "after")):
        names[f"CotSR.gamma{number}"] = (f"reason_across.gamma_{date}",)
        for part in ("query", "key", "value"):
            names[f"CotSR.{part}_conv{number}."] = (f"reason_across.project_{date}.{part}.",)
    return names


def _ted() -> Names:
    names = {
        theirs: tuple(f"maps.{one}" for one in ours) for theirs, ours in _SSCD_L.items() if "classifier" not in theirs
    }
    return {
        **names,
        "Dec1.": ("maps.decode_before.",),
        "Dec2.": ("maps.decode_after.",),
        "DecCD.": ("maps.decode_change.",),
        "classifierCD.": ("maps.change.head.",),
        "classifier1.": ("classes_before.",),
        "classifier2.": ("classes_after.",),
    }


def _scannet() -> Names:
    names = {theirs: ours for theirs, ours in _ted().items() if theirs not in ("classifier1.", "classifier2.")}
    names |= {
        "classifierA.": ("classes_before.",),
        "classifierB.": ("classes_after.",),
        "transformer.stage1_conv_embed.0.": ("scan.embed.",),
        "transformer.stage1_conv_embed.2.": ("scan.embed_norm.",),
        "transformer.norm.": ("scan.norm.",),
    }
    inside = {"attns.0.get_v.": "columns.place.", "attns.1.get_v.": "rows.place.", "mlp.fc1.": "mlp.0."}
    inside |= {"mlp.fc2.": "mlp.2."} | {part: part for part in ("qkv.", "proj.", "norm1.", "norm2.")}
    for block in range(2):
        for theirs, ours in inside.items():
            names[f"transformer.stage.{block}.{theirs}"] = (f"scan.blocks.{block}.{ours}",)
    return names


def _hrscd() -> Names:
    names: dict[str, tuple[str, ...]] = {}
    parts = {"conv1": "first.0", "bn1": "first.1", "conv2": "second.0", "bn2": "second.1", "couple": "short.0"}
    parts["bnc"] = "short.1"
    for theirs, ours in (("TC", "land"), ("CD", "change")):
        # They count the stages of an encoder upwards from 1, and those of a decoder down to 0.
        stages = [(f"{theirs}Encoder.encres{number + 1}", f"{ours}_encoder.stages.{number}") for number in range(5)]
        stages += [(f"{theirs}Decoder.decres{5 - number}", f"{ours}_decoder.stages.{number}") for number in range(6)]
        for stage, here in stages:
            for block in range(3):
                for part, place in parts.items():
                    names[f"{stage}_{block + 1}.{part}."] = (f"{here}.{block}.{place}.",)
        names[f"{theirs}Decoder.coupling."] = (f"{ours}_decoder.logits.",)
    return names


def _changemask() -> Names:
    names = {
        "encoder.": ("encoder.",),
        "semantic_decoder.": ("class_decoder.",),
        "change_decoder.": ("change_decoder.",),
        "s.": ("class_logits.",),
        "c.": ("change_logits.",),
    }
    for level in range(6):
        names[f"temporal_transformer.t.{level}.0."] = (f"interact.{level}.conv.",)
        names[f"temporal_transformer.t.{level}.2."] = (f"interact.{level}.norm.",)
    return names


def _mamba_scd() -> Names:
    """ChangeMamba's names since 2025, and those before, which count levels from the finest: 4 to 1."""
    places: list[tuple[str, str, str]] = []
    arrangements = (("cat", "stacked"), ("interleave", "woven"), ("split", "beside"))
    for level in range(4):
        old = 4 - level
        looks = [
            (f"decoder_bcd.stage_blocks.{level}.{now}.", f"decoder_bcd.st_block_{old}{number}.", f"{level}.{ours}.")
            for number, (now, ours) in enumerate(arrangements, start=1)
        ]
        for now, then, ours in looks:
            places.append((f"{now}0.", f"{then}0.", f"change.looks.{ours}reduce."))
            places.append((f"{now}2.", f"{then}2.", f"change.looks.{ours}block."))
        fuse, smooth, reduce = f"fuse_layer_{old}.", f"smooth_layer_{old - 1}", f"trans_layer_{old - 1}."
        places.append((f"decoder_bcd.fuse_layers.{level}.", f"decoder_bcd.{fuse}", f"change.looks.{level}.join."))
        places.append((f"decoder_bcd.smooth_layers.{level}.", f"decoder_bcd.{smooth}.", f"change.smooth.{level}."))
        for one, ours in (("decoder_T1", "classes_before"), ("decoder_T2", "classes_after")):
            now, then = f"{one}.stage_blocks.{level}.", f"{one}.st_block_{old}_semantic."
            look = f"{ours}.looks.{level}."
            # Only at the coarsest level does a convolution stand before the block, and shift its number.
            places.append((f"{now}0.", f"{then}0.", f"{look}reduce."))
            places.append((f"{now}{1 if level else 2}.", f"{then}{1 if level else 2}.", f"{look}block."))
            places.append((f"{one}.transition_layers.{level}.", f"{one}.{reduce}", f"{ours}.reduce.{level}."))
            places.append((f"{one}.smooth_layers.{level}.", f"{one}.{smooth}_semantic.", f"{ours}.smooth.{level}."))
    return {
        **{f"encoder.{theirs}": (f"encoder.{ours}",) for theirs, ours in VMAMBA.items()},
        **{now: (ours,) for now, _, ours in places},
        **{then: (ours,) for _, then, ours in places},
        "main_clf_cd.": ("change_head.",),
        "aux_clf.": ("class_head.",),
    }


UPSTREAMS: Mapping[str, Upstream] = {
    "sscd-l": Upstream(
        source="github.com/ggsDing/Bi-SRNet, github.com/ggsDing/SCanNet",
        names=_SSCD_L,
        class_head="classes_before.weight",
        classes=SECOND_WORDS,
        normalisation="second",
    ),
    "bisrnet": Upstream(
        source="github.com/ggsDing/Bi-SRNet, github.com/ggsDing/SCanNet",
        names=_bisrnet(),
        class_head="classes_before.weight",
        classes=SECOND_WORDS,
        normalisation="second",
    ),
    "hrscd": Upstream(
        source="github.com/ggsDing/Bi-SRNet",
        names=_hrscd(),
        class_head="land_decoder.logits.weight",
        classes=SECOND_WORDS,
        normalisation="second",
    ),
    "changemask": Upstream(
        source="github.com/Z-Zheng/pytorch-change-models",
        names=_changemask(),
        class_head="class_logits.weight",
        classes=SECOND_WORDS,
        normalisation="imagenet",
        unchanged_channel=False,
    ),
    "ted": Upstream(
        source="github.com/ggsDing/SCanNet",
        names=_ted(),
        class_head="classes_before.weight",
        classes=SECOND_WORDS,
        normalisation="second",
    ),
    "scannet": Upstream(
        source="github.com/ggsDing/SCanNet",
        names=_scannet(),
        class_head="classes_before.weight",
        classes=SECOND_WORDS,
        normalisation="second",
    ),
    **{
        f"mamba-scd-{size}": Upstream(
            source="github.com/ChenHongruixuan/ChangeMamba",
            names=_mamba_scd(),
            class_head="class_head.weight",
            classes=CHANGE_MAMBA_WORDS,
            normalisation="imagenet",
            network="mamba-scd",
            options={"size": size},
        )
        for size in ("tiny", "small", "base")
    },
}


# -------------------------------------------------------------------------------------------------------- converting


@dataclass(frozen=True, slots=True)
class Converted:
    """What became of a file of weights."""

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
    """Make a checkpoint of published weights.

    Args:
        weights: a ``.pth`` of plain tensors, or a ``.safetensors``.
        model: of `UPSTREAMS`.
        output: the checkpoint to write.
        classes: the words of the weights in their order; None takes those of the published ones.
        normalisation: that they were trained with; None likewise.
        overwrite: replace ``output`` where it exists.

    Raises:
        UnknownModel: no published weights of that name can be converted.
        UsageError: the words are not as many as the weights answer with.
        CheckpointError: the file cannot be read, or is of another network.
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
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
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
    """Tensors by name, without running anything that the file may hold.

    Prefixes of ``DataParallel`` are taken off, and the weights out of what a training script put around them.

    Raises:
        CheckpointError: it is missing or damaged, holds more than plain data, or no tensors.
    """
    held = _read(path)
    if isinstance(held, Mapping):
        inner = [held[name] for name in WRAPPERS if isinstance(held.get(name), Mapping)]
        held = inner[0] if inner else held
    if not isinstance(held, Mapping) or not held or not all(isinstance(each, Tensor) for each in held.values()):
        raise CheckpointError(path, "holds no tensors by name", "give the state_dict() of a network")
    weights = {str(name): tensor for name, tensor in held.items()}
    while all(name.startswith("module.") for name in weights):
        weights = {name.removeprefix("module."): tensor for name, tensor in weights.items()}
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CheckpointError(path, f"{name} holds NaN or infinity", "its training had failed; use another copy")
    return weights


def _read(path: Path) -> object:
    if not path.is_file():
        raise CheckpointError(path, "no such file", "check the path")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickle protocols, of no use to whoever converts
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can fail in any way, and none of them is a bug of ours
        if isinstance(error, pickle.UnpicklingError) and (refused := re.search(r"GLOBAL ([\w.]*\w)", str(error))):
            raise CheckpointError(
                path,
                f"holds more than tensors ({refused[1]}), which could run code when it is read, so it is refused",
                "save the state_dict() alone where you trust the file, and convert that",
            ) from None
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:120]
        raise CheckpointError(
            path, f"cannot be read as weights ({reason})", "it may be cut short or something else; use another copy"
        ) from None


def _words(
    path: Path, upstream: Upstream, weights: Mapping[str, Tensor], classes: Sequence[str] | None
) -> tuple[str, ...]:
    """The words for as many classes as the weights have; those of the upstream where they do not say."""
    words = upstream.classes if classes is None else tuple(classes)
    heads = [tensor for name, tensor in weights.items() if upstream.class_head in ours_of(name, upstream.names)]
    extra = int(upstream.unchanged_channel)
    if not heads or heads[0].ndim == 0 or heads[0].shape[0] == extra + len(words):
        return words
    raise UsageError(
        f"{path} answers with {heads[0].shape[0] - extra} classes, and {'these' if classes is None else 'given'} are "
        f"{len(words)}: {', '.join(words)}; name its own, in their order, with --classes"
    )


# ------------------------------------------------------------------------------------------------------------ fitting


def ours_of(name: str, names: Names) -> tuple[str, ...]:
    """What a published parameter is called here; nothing where it has no place."""
    for begins, ours in names.items():
        if name.startswith(begins):
            return tuple(one + name.removeprefix(begins) for one in ours)
    return ()


def fit(path: Path, network: nn.Module, weights: Mapping[str, Tensor], names: Names, *, called: str) -> None:
    """Put published weights into a network.

    Args:
        path: where they are from, for messages.
        network: gets them; unchanged where an error is raised.
        weights: by their names.
        names: how to map these.
        called: the name of the network, for messages.

    Raises:
        CheckpointError: a parameter has no place, another shape, or is missing; names the first one.
    """
    own = network.state_dict()
    filled: dict[str, Tensor] = {}
    for theirs, tensor in weights.items():
        places = ours_of(theirs, names)
        if not places or any(place not in own for place in places):
            raise CheckpointError(
                path,
                f"it holds {theirs} {tuple(tensor.shape)}, which {called} does not have",
                "it is of another network; choose that one with --model",
            )
        for place in places:
            if tensor.shape != own[place].shape:
                raise CheckpointError(
                    path,
                    f"{theirs} is {tuple(tensor.shape)}, and {called} wants {tuple(own[place].shape)}",
                    "it is of another network; choose that one with --model",
                )
            if place in filled:
                raise CheckpointError(path, f"{theirs} is there twice, under two names", "use another copy")
            filled[place] = tensor
    for place, tensor in own.items():
        # PyTorch before 0.4.1 did not count batches, and nothing reads the count while the momentum is fixed.
        if place not in filled and not place.endswith("num_batches_tracked"):
            raise CheckpointError(
                path,
                f"it has no {_theirs_of(place, names)} {tuple(tensor.shape)}, which {called} needs",
                "it is of another network, or a part of one; choose another with --model",
            )
    network.load_state_dict({**own, **filled})


def _theirs_of(place: str, names: Names) -> str:
    """What one of our parameters is called there, by the newest of their names."""
    for begins, ours in names.items():
        for one in ours:
            if place.startswith(one):
                return begins + place.removeprefix(one)
    return place


def load_backbone(resnet: ResNet34, path: Path) -> None:
    """Start from a ResNet-34 that was trained on ImageNet, in the names of torchvision or timm.

    Args:
        resnet: gets the weights, such as ``model.encoder.resnet``.
        path: a ``.pth`` or ``.safetensors``; its classifier (``fc``) is left out.

    Raises:
        CheckpointError: the file cannot be read, or is of another network.
    """
    weights = {name: each for name, each in read_weights(path).items() if not name.startswith("fc.")}
    fit(path, resnet, weights, {"": ("",)}, called="ResNet-34")
