"""Published implementations: where their weights are from, and which of their names is which of ours.

Only names and shapes of their code are used here; `wasnow.models.published.convert` does the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from wasnow.models.mamba_scd import PUBLISHED_WORDS as CHANGE_MAMBA_WORDS
from wasnow.models.sscd_l import SECOND_WORDS
from wasnow.nn.vmamba import PRESETS as VMAMBA_SIZES
from wasnow.nn.vmamba import PUBLISHED as VMAMBA
from wasnow.nn.vmamba import STAGES

Names = Mapping[str, tuple[str, ...]]
"""How their parameter names begin, and what stands there with us; two where we have two copies of what they share."""


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


# ------------------------------------------------------------------------------------------------------ encoders alone

Weights = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class PublishedEncoder:
    """An encoder that others trained, as they publish it: what a training may begin with.

    Attributes:
        title: what it is called.
        marks: patterns; a file holds this where each is found in one of its names.
        part: the class of the module that takes it, ``module:name``.
        models: the networks that have such a part.
        ours: from published tensors, and those of the part, to what the part takes under its own names, and in words
            what is left out. A name that has no place stays as it is, and a comparison finds it.
        advice: what to do where these tensors, under our names, do not fit the part.
        anew: how names of the part begin that are not published, since they belong to what comes behind it.
    """

    title: str
    marks: tuple[str, ...]
    part: str
    models: tuple[str, ...]
    ours: Callable[[Weights, Weights], tuple[dict[str, Tensor], tuple[str, ...]]]
    advice: Callable[[Weights], str]
    anew: tuple[str, ...] = ()


def encoder_in(names: Iterable[str]) -> PublishedEncoder | None:
    """The row of `ENCODERS` whose weights have these names."""
    listed = list(names)
    for encoder in ENCODERS:
        if all(any(re.search(mark, name) for name in listed) for mark in encoder.marks):
            return encoder
    return None


def _without(head: str) -> Callable[[Weights, Weights], tuple[dict[str, Tensor], tuple[str, ...]]]:
    """All tensors under the names that they have, but those of the classifier."""

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
"""By blocks in a stage: the number of one whose blocks have two convolutions, and of one where they have three."""


def _another_resnet(tensors: Weights) -> str:
    blocks = _depths(tensors, r"layer(\d)\.(\d+)\.", first=1)
    number = _RESNETS.get(blocks, ("", ""))["layer1.0.conv3.weight" in tensors]
    told = f"this is ResNet-{number}" if number not in ("", "34") else "this is another network"
    return f"{told}, and the encoder here is ResNet-34: give the weights of that"


def _another_efficientnet(tensors: Weights) -> str:
    return "the encoder here is EfficientNet-B0: give the weights of that, such as efficientnet-b0-355c32eb.pth"


def _depths(tensors: Weights, block: str, *, first: int = 0) -> tuple[int, ...]:
    """Blocks by stage, from a pattern whose groups are the stage, counted from ``first``, and the block."""
    found = {(int(at[1]) - first, int(at[2])) for name in tensors if (at := re.match(block, name))}
    return tuple(sum(stage == each for stage, _ in found) for each in range(max((s for s, _ in found), default=-1) + 1))


_OUR_BLOCK = r"stages\.(\d+)\.(\d+)\."


def _of_vmamba(published: Weights, own: Weights) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """VMamba's tensors; the last blocks of a stage stay behind where this encoder has fewer and no size is such.

    ChangeMamba's tiny encoder has four blocks in its third stage and begins with weights of five, of which its code
    takes the first four without a word.
    """
    kept, left = {}, []
    for name, tensor in published.items():
        if name.startswith("classifier."):
            left = ["the classifier"]
            continue
        begins = next((each for each in VMAMBA if name.startswith(each)), None)
        place = name if begins is None else VMAMBA[begins] + name.removeprefix(begins)
        # Where VMamba's maps are channels-first, its linear layers may be stored as convolutions of one pixel.
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
    """The size that has as many channels and blocks."""
    width, depths = _vmamba_width(tensors), _depths(tensors, _OUR_BLOCK)
    return next((name for name, each in VMAMBA_SIZES.items() if (each.width, each.depths) == (width, depths)), None)


def _vmamba_width(tensors: Weights) -> int:
    stem = tensors.get("stem.1.conv.weight")
    return 0 if stem is None else len(stem)


def _another_vmamba(tensors: Weights) -> str:
    width, depths = _vmamba_width(tensors), _depths(tensors, _OUR_BLOCK)
    scans = tensors.get("stages.0.0.op.in_proj.weight")
    if len(depths) != STAGES or not width or scans is None or len(scans) != 2 * width:
        return "it is of another release of VMamba: wanted are vssm_tiny_0230, vssm_small_0229 or vssm_base_0229"
    if (size := _vmamba_size(tensors)) is not None:
        return f"these are of the size {size}: --set model.size={size}"
    blocks = ",".join(map(str, depths))
    return f"it has other sizes: --set model.encoder.width={width} --set model.encoder.depths=[{blocks}]"


def _of_segformer(published: Weights, own: Weights) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    from wasnow.nn.segformer import tower_of  # brings in transformers

    kept = tower_of(published)
    return kept, ("the head",) if any(re.search(r"^(decode_)?head|^classifier", name) for name in published) else ()


def _another_segformer(tensors: Weights) -> str:
    return "these are the weights of another encoder; name theirs: --set model.encoder=mit-b0, mit-b1 or mit-b2"


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
        anew=("norms.",),
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
"""ResNet-34 as torchvision and timm name it; EfficientNet-B0 as efficientnet_pytorch and segmentation_models do; VMamba
as its authors; SegFormer as the hub and its authors."""
