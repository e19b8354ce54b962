"""Published networks: where their weights come from, and how their parameter names map to ours.

Only names and shapes of their code are used here; `wasnow.models.published.convert` converts the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wasnow.models.mamba_scd import PUBLISHED_WORDS as CHANGE_MAMBA_WORDS
from wasnow.models.sscd_l import SECOND_WORDS
from wasnow.nn.vmamba import PUBLISHED as VMAMBA

Names = Mapping[str, tuple[str, ...]]
"""How their parameter names begin -> how ours begin; two of ours where a shared weight is stored twice here."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """A published implementation.

    Attributes:
        source: where its weights come from.
        names: the first entry that matches the beginning of a name counts. Newest names come first.
        class_head: our name of the weights ``(1 + K, ...)``, or ``(K, ...)``, that give the number of words.
        classes: the class words of the published weights, in their order.
        normalisation: of `wasnow.nn.normalise` that they were trained with.
        unchanged_channel: whether the class head has one channel more than there are words.
        network: of `wasnow.models.registry.MODELS`; None: the network with the name of this row.
        options: of the network, besides classes and normalisation.
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
        # Their encoder stages count up from 1, their decoder stages count down to 0.
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
    """Return ChangeMamba's names since 2025, and the older ones, which count levels from the finest: 4 to 1."""
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
            # Only at the coarsest level a convolution precedes the block and shifts its number.
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
