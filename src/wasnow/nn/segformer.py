"""SegFormer's encoder (MiT) and its MLP decoder: four maps from an image, and one from four.

    image ─ stage 1 ─┬─ stage 2 ─┬─ stage 3 ─┬─ stage 4 ─┐        stage: overlapping patches ─ blocks ─ LN
    stride      4    │      8    │     16    │     32    │        block: x += attention(LN x), keys on a coarser grid
    width (B1) 64    ▼    128    ▼    320    ▼    512    ▼               x += mix(LN x), an MLP with a 3x3 inside
               └─────────── Linear to one width, resized to stride 4, concat ─ 1x1 BN ReLU ─ 1x1 ─> logits at stride 4

E. Xie et al., "SegFormer: simple and efficient design for semantic segmentation with transformers", NeurIPS 2021,
section 3 and table 6. The blocks, and the names of their weights (``stages.0.blocks.1.mlp.fc1.weight``), are those of
transformers; `tower_of` converts those of the hub and of the authors. Only the code between the blocks is our own: a
second input can be added at the first projection, all four maps are returned, and they stay channels-last throughout.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.models.segformer.configuration_segformer import SegformerConfig
from transformers.models.segformer.modeling_segformer import SegformerStage

from wasnow.errors import UsageError, did_you_mean
from wasnow.nn.layers import conv_bn_relu, resize

STRIDES = (4, 8, 16, 32)
"""Strides of the four maps."""

STRIDE = STRIDES[-1]
"""Height and width of an image must be multiples of this, so that every grid of keys divides evenly."""

Four = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class MitConfig:
    """The sizes of an encoder; four numbers mean one per stage.

    Attributes:
        widths: channels of the maps.
        depths: number of blocks.
        heads: attention heads per block; must divide the width.
        reductions: how much coarser the grid of keys and values is along each side.
        mlp: hidden width of the MLP as a multiple of the width.
        drop_path: probability that the last block is skipped in training; rises linearly from 0 over the blocks.
    """

    widths: Four
    depths: Four = (2, 2, 2, 2)
    heads: Four = (1, 2, 5, 8)
    reductions: Four = (8, 4, 2, 1)
    mlp: int = 4
    drop_path: float = 0.1

    def __post_init__(self) -> None:
        for name in ("widths", "depths", "heads", "reductions"):
            given = tuple(getattr(self, name))
            if len(given) != len(STRIDES) or any(not isinstance(each, int) or each < 1 for each in given):
                raise UsageError(f"encoder {name} {list(given)} must be four positive integers, one per stage")
            # JSON gives lists, and a list is never equal to a tuple.
            object.__setattr__(self, name, given)
        if any(width % heads for width, heads in zip(self.widths, self.heads, strict=True)):
            raise UsageError(f"encoder widths {list(self.widths)} must be multiples of the heads {list(self.heads)}")
        if any(STRIDE // stride % coarser for stride, coarser in zip(STRIDES, self.reductions, strict=True)):
            raise UsageError(f"encoder reductions {list(self.reductions)} must divide 8, 4, 2 and 1")

    @classmethod
    def named(cls, encoder: str | Mapping[str, Any]) -> MitConfig:
        """Return a config from a name of `PRESETS`, or from fields.

        Raises:
            UsageError: unknown name or field (suggests a similar one), or incompatible sizes.
        """
        if isinstance(encoder, str):
            if encoder not in PRESETS:
                raise UsageError(
                    f"unknown encoder {encoder!r}; use one of {', '.join(PRESETS)}"
                    + did_you_mean(encoder, list(PRESETS))
                )
            return PRESETS[encoder]
        known = [each.name for each in fields(cls)]
        for name in encoder:
            if name not in known:
                raise UsageError(
                    f"unknown encoder field {name!r}; use one of {', '.join(known)}{did_you_mean(name, known)}"
                )
        if "widths" not in encoder:
            raise UsageError(f"encoder widths are missing; give four numbers, or a name: {', '.join(PRESETS)}")
        return cls(**encoder)

    def dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {name: list(each) if isinstance(each, tuple) else each for name, each in asdict(self).items()}


PRESETS: Mapping[str, MitConfig] = {
    "mit-b0": MitConfig(widths=(32, 64, 160, 256)),
    "mit-b1": MitConfig(widths=(64, 128, 320, 512)),
    "mit-b2": MitConfig(widths=(64, 128, 320, 512), depths=(3, 4, 6, 3)),
}
"""As published: 3.3, 13.2 and 24.2 million parameters."""


class MixTransformer(nn.Module):
    """The encoder, with random weights until some are loaded.

    Args:
        config: its sizes.
    """

    def __init__(self, config: MitConfig) -> None:
        super().__init__()
        self.config = config
        theirs = SegformerConfig(
            depths=config.depths,
            sr_ratios=config.reductions,
            hidden_sizes=config.widths,
            num_attention_heads=config.heads,
            mlp_ratios=(config.mlp,) * len(STRIDES),
            drop_path_rate=config.drop_path,
        )
        theirs._attn_implementation = "sdpa"
        last = max(1, sum(config.depths) - 1)
        rising = [config.drop_path * number / last for number in range(sum(config.depths))]
        self.stages = nn.ModuleList(SegformerStage(theirs, number, rising) for number in range(len(STRIDES)))
        initialise(self)

    def forward(self, images: Tensor, beside: Tensor | None = None) -> list[Tensor]:
        """Return four maps of normalised images, in channels-last memory format.

        Args:
            images: ``(B, 3, H, W)``, H and W multiples of `STRIDE`.
            beside: ``(B, widths[0], H / 4, W / 4)``, added to the first projection of the image before its norm: the
                contribution of further image channels, from a convolution of their own.

        Returns:
            ``(B, width, H / stride, W / stride)`` for each of `STRIDES`.

        Raises:
            ValueError: H or W is not a multiple.
        """
        if any(side % STRIDE for side in images.shape[-2:]):
            raise ValueError(f"images of {tuple(images.shape[-2:])} px must be padded to multiples of {STRIDE}")
        maps: list[Tensor] = []
        x = images.contiguous(memory_format=torch.channels_last)
        for stage in cast("Sequence[Any]", self.stages):
            x = stage.patch_embeddings.proj(x)
            if beside is not None and not maps:
                x = x + beside
            rows, cols = x.shape[-2:]
            tokens = stage.patch_embeddings.layer_norm(x.flatten(2).transpose(1, 2))
            for block in stage.blocks:
                tokens = block(tokens, rows, cols)
            x = stage.layer_norm(tokens).transpose(1, 2).unflatten(2, (rows, cols))
            maps.append(x)
        return maps


class MLPDecoder(nn.Module):
    """From four maps to one at the size of the first, like SegFormer's head.

    Args:
        widths: channels of the maps.
        width: common channels.
        out: output channels.
        dropout: probability in training, before the last layer; SegFormer's is 0.1.
    """

    def __init__(self, widths: Sequence[int], width: int, out: int, *, dropout: float = 0.1) -> None:
        super().__init__()
        # A linear layer at every place equals a 1x1 convolution, without permuting the channels.
        self.levels = nn.ModuleList(nn.Conv2d(each, width, 1) for each in widths)
        self.join = conv_bn_relu(len(widths) * width, width, 1)
        self.dropout = nn.Dropout(dropout)
        self.logits = nn.Conv2d(width, out, 1)
        initialise(self)
        # With few output channels He's weights would be large, and a new network confident at random.
        nn.init.normal_(self.logits.weight, std=0.01)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Map ``(B, widths[i], h_i, w_i)``, finest first, to ``(B, out, h_0, w_0)``."""
        size = maps[0].shape[-2:]
        resized = [resize(level(each), size) for level, each in zip(self.levels, maps, strict=True)]
        # Coarsest first: the channel order of published heads.
        answer: Tensor = self.logits(self.dropout(self.join(torch.cat(resized[::-1], dim=1))))
        return answer


def initialise(module: nn.Module) -> None:
    """Initialise like the authors' code: linear layers with 0.02, convolutions after He et al. (2015) by fan-out.

    transformers initialises convolutions with 0.02 too, which nearly disables the 3x3 in every MLP. That has no effect
    under published weights, but a large one on training from scratch.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
        elif isinstance(part, nn.Conv2d):
            fan_out = math.prod(part.kernel_size) * part.out_channels // part.groups
            nn.init.normal_(part.weight, std=math.sqrt(2 / fan_out))
        elif isinstance(part, nn.LayerNorm | nn.BatchNorm2d):
            nn.init.ones_(part.weight)
        else:
            continue
        if part.bias is not None:
            nn.init.zeros_(part.bias)


# ------------------------------------------------------------------------------------------------- published weights

_Rename = tuple[str, str | Callable[[re.Match[str]], str]]

_HUB: tuple[_Rename, ...] = (
    (r"^encoder\.patch_embeddings\.(\d)\.", r"stages.\1.patch_embeddings."),
    (r"^encoder\.block\.(\d)\.", r"stages.\1.blocks."),
    (r"^encoder\.layer_norm\.(\d)\.", r"stages.\1.layer_norm."),
    (r"\.attention\.self\.(query|key|value)\.", lambda found: f".attention.{found[1][0]}_proj."),
    (r"\.attention\.self\.sr\.", ".attention.sequence_reduction.sequence_reduction."),
    (r"\.attention\.self\.layer_norm\.", ".attention.sequence_reduction.layer_norm."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.mlp\.dense([12])\.", r".mlp.fc\1."),
    (r"\.layer_norm_1\.", ".layernorm_before."),
    (r"\.layer_norm_2\.", ".layernorm_after."),
)
_AUTHORS: tuple[_Rename, ...] = (
    (r"^patch_embed(\d)\.proj\.", lambda found: f"stages.{int(found[1]) - 1}.patch_embeddings.proj."),
    (r"^patch_embed(\d)\.norm\.", lambda found: f"stages.{int(found[1]) - 1}.patch_embeddings.layer_norm."),
    (r"^norm(\d)\.", lambda found: f"stages.{int(found[1]) - 1}.layer_norm."),
    (r"^block(\d)\.", lambda found: f"stages.{int(found[1]) - 1}.blocks."),
    (r"\.attn\.q\.", ".attention.q_proj."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.attn\.sr\.", ".attention.sequence_reduction.sequence_reduction."),
    (r"\.attn\.norm\.", ".attention.sequence_reduction.layer_norm."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
)


def tower_of(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the encoder's tensors of a published file under the names of `MixTransformer`; heads are left out.

    Args:
        published: a state of transformers' SegFormer of any version (``nvidia/mit-b1`` and those fine-tuned from it),
            or of the authors' code (``mit_b1.pth``), where keys and values are one tensor.
    """
    kept: dict[str, Tensor] = {}
    for name, tensor in published.items():
        name = re.sub(r"^(segformer|backbone)\.", "", name)
        for pattern, ours in (*_HUB, *_AUTHORS):
            name = re.sub(pattern, ours, name)
        if not name.startswith("stages."):
            continue
        if ".attn.kv." in name:
            for part, half in zip(("k_proj", "v_proj"), tensor.chunk(2), strict=True):
                kept[name.replace(".attn.kv.", f".attention.{part}.")] = half
        else:
            kept[name] = tensor
    return kept
