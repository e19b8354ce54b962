"""Encoders that others published: how to recognise their weights, and which of their names is which of ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from wasnow.nn.vmamba import PRESETS as VMAMBA_SIZES
from wasnow.nn.vmamba import PUBLISHED as VMAMBA
from wasnow.nn.vmamba import STAGES

Weights = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class PublishedEncoder:
    """A published encoder that training can start from.

    Attributes:
        title: its name.
        marks: patterns; a file has this encoder if each matches one of its names.
        part: the class of the module that takes it, ``module:name``.
        models: the networks with such a module.
        ours: from published tensors and those of the module, to tensors under the names of the module, and descriptions
            of what is left out. Unknown names stay unchanged, so that a comparison finds them.
        advice: what to do where these tensors, under our names, do not fit the module.
        initialised: name prefixes of the module that are not published, because they belong to the layers behind it.
    """

    title: str
    marks: tuple[str, ...]
    part: str
    models: tuple[str, ...]
    ours: Callable[[Weights, Weights], tuple[dict[str, Tensor], tuple[str, ...]]]
    advice: Callable[[Weights], str]
    initialised: tuple[str, ...] = ()


def encoder_in(names: Iterable[str]) -> PublishedEncoder | None:
    """Return the row of `ENCODERS` whose weights have these names."""
    listed = list(names)
    for encoder in ENCODERS:
        if all(any(re.search(mark, name) for name in listed) for mark in encoder.marks):
            return encoder
    return None


def _without(head: str) -> Callable[[Weights, Weights], tuple[dict[str, Tensor], tuple[str, ...]]]:
    """Return a function that keeps all tensors but those of the classifier."""

    def ours(published: Weights, own: Weights) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        kept = {name: one for name, one in published.items() if not name.startswith(head)}
        return kept, ("the classifier",) if len(kept) < len(published) else ()

    return ours


_RESNETS: Mapping[tuple[int, ...], tuple[str, str]] = {
    (2, 2, 2, 2): ("18", ""),
    (3, 4, 6, 3): ("34", "50"),
    (3, 4, 23, 3): ("", "101"),
    (3, 8, 36, 3): ("", "152"),
}
"""By blocks per stage: the ResNet with two convolutions per block, and the one with three."""


def _another_resnet(tensors: Weights) -> str:
    blocks = _depths(tensors, r"layer(\d)\.(\d+)\.", first=1)
    number = _RESNETS.get(blocks, ("", ""))["layer1.0.conv3.weight" in tensors]
    found = f"this is ResNet-{number}" if number not in ("", "34") else "this is another network"
    return f"{found}, and the encoder is ResNet-34; give weights of ResNet-34"


def _another_efficientnet(tensors: Weights) -> str:
    return "the encoder is EfficientNet-B0; give weights of EfficientNet-B0, such as efficientnet-b0-355c32eb.pth"


def _depths(tensors: Weights, block: str, *, first: int = 0) -> tuple[int, ...]:
    """Return blocks by stage, from a pattern whose groups are the stage, counted from ``first``, and the block."""
    found = {(int(at[1]) - first, int(at[2])) for name in tensors if (at := re.match(block, name))}
    return tuple(sum(stage == each for stage, _ in found) for each in range(max((s for s, _ in found), default=-1) + 1))


_OUR_BLOCK = r"stages\.(\d+)\.(\d+)\."


def _of_vmamba(published: Weights, own: Weights) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return VMamba's tensors, without the last blocks of a stage where this encoder has fewer and no size matches.

    ChangeMamba's tiny encoder has four blocks in its third stage. Its code initialises it from weights with five and
    uses the first four silently.
    """
    kept, left = {}, []
    for name, tensor in published.items():
        if name.startswith("classifier."):
            left = ["the classifier"]
            continue
        begins = next((each for each in VMAMBA if name.startswith(each)), None)
        place = name if begins is None else VMAMBA[begins] + name.removeprefix(begins)
        # In channels-first versions of VMamba, linear layers are stored as 1x1 convolutions.
        linear = place in own and own[place].ndim == 2 and tensor.ndim == 4 and tensor.shape[2:] == (1, 1)
        kept[place] = tensor.flatten(1) if linear else tensor
    theirs, here = _depths(kept, _OUR_BLOCK), _depths(own, _OUR_BLOCK)
    if len(theirs) == STAGES and _vmamba_size(kept) is None:
        for stage, (there, most) in enumerate(zip(theirs, here, strict=True)):
            if there > most:
                left.append(f"{'block' if there == most + 1 else 'blocks from'} {most + 1} of stage {stage + 1}")
                for block in range(most, there):
                    kept = {name: one for name, one in kept.items() if not name.startswith(f"stages.{stage}.{block}.")}
    return kept, tuple(left)


def _vmamba_size(tensors: Weights) -> str | None:
    """Return the size with as many channels and blocks."""
    width, depths = _vmamba_width(tensors), _depths(tensors, _OUR_BLOCK)
    return next((name for name, each in VMAMBA_SIZES.items() if (each.width, each.depths) == (width, depths)), None)


def _vmamba_width(tensors: Weights) -> int:
    stem = tensors.get("stem.1.conv.weight")
    return 0 if stem is None else len(stem)


def _another_vmamba(tensors: Weights) -> str:
    width, depths = _vmamba_width(tensors), _depths(tensors, _OUR_BLOCK)
    scans = tensors.get("stages.0.0.op.in_proj.weight")
    if len(depths) != STAGES or not width or scans is None or len(scans) != 2 * width:
        return "it belongs to another release of VMamba; use vssm_tiny_0230, vssm_small_0229 or vssm_base_0229"
    if (size := _vmamba_size(tensors)) is not None:
        return f"the weights have size {size}; pass --set model.size={size}"
    blocks = ",".join(map(str, depths))
    return f"it has other sizes; pass --set model.encoder.width={width} --set model.encoder.depths=[{blocks}]"


def _of_segformer(published: Weights, own: Weights) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    from wasnow.nn.segformer import tower_of  # imports transformers

    kept = tower_of(published)
    return kept, ("the head",) if any(re.search(r"^(decode_)?head|^classifier", name) for name in published) else ()


def _another_segformer(tensors: Weights) -> str:
    return "the weights belong to another encoder; pass --set model.encoder=mit-b0, mit-b1 or mit-b2"


ENCODERS: tuple[PublishedEncoder, ...] = (
    PublishedEncoder(
        title="ResNet-34",
        marks=(r"^conv1\.weight$", r"^layer1\.0\.conv1\.weight$"),
        part="wasnow.nn.resnet:ResNet34",
        models=("sscd-l", "bisrnet", "ted", "scannet"),
        ours=_without("fc."),
        advice=_another_resnet,
    ),
    PublishedEncoder(
        title="EfficientNet-B0",
        marks=(r"^_conv_stem\.weight$", r"^_blocks\.0\._se_reduce\.weight$"),
        part="wasnow.nn.efficientnet:EfficientNetB0",
        models=("changemask",),
        ours=_without("_fc."),
        advice=_another_efficientnet,
    ),
    PublishedEncoder(
        title="VMamba",
        marks=(r"^patch_embed\.(0|proj)\.weight$", r"^layers\.0\.blocks\.0\.(op|self_attention)\."),
        part="wasnow.nn.vmamba:VMamba",
        models=("mamba-scd",),
        ours=_of_vmamba,
        advice=_another_vmamba,
        initialised=("norms.",),
    ),
    PublishedEncoder(
        title="SegFormer",
        marks=(r"patch_embed(dings\.)?\d\.proj\.|stages\.\d\.patch_embeddings\.proj\.",),
        part="wasnow.nn.segformer:MixTransformer",
        models=("sam-cd",),
        ours=_of_segformer,
        advice=_another_segformer,
    ),
)
"""ResNet-34 with the names of torchvision and timm; EfficientNet-B0 with those of efficientnet_pytorch and
segmentation_models; VMamba and SegFormer with those of their authors, SegFormer also with those of the hub.
"""
