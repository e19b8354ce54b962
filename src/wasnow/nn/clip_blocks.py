"""The transformer blocks of CLIP's towers: those of transformers, opened up for prefixes and checkpointing."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.models.clip.configuration_clip import CLIPTextConfig, CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from wasnow.nn.clip_config import ACTIVATIONS, ClipConfig, Values


class Block(CLIPEncoderLayer):  # type: ignore[no-untyped-call]
    """A transformer block: ``x + attention(norm x)``, then ``x + mlp(norm x)``.

    Attributes:
        checkpointing: recompute activations in the backward pass instead of storing them.
    """

    checkpointing: bool = False

    def forward(self, tokens: Tensor, *, causal: bool = False) -> Tensor:  # type: ignore[override]
        """Map tokens ``(B, L, D)`` to tokens; each attends to all, or with ``causal`` to itself and those before it."""
        if self.checkpointing and tokens.requires_grad and torch.is_grad_enabled():
            return cast(Tensor, checkpoint(self._plain, tokens, causal, use_reentrant=False))
        return self._plain(tokens, causal)

    def _plain(self, tokens: Tensor, causal: bool) -> Tensor:
        return super().forward(tokens, None, is_causal=causal)  # type: ignore[arg-type]

    def heads(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries (scaled), keys and values of tokens ``(B, L, D)``, each ``(B, heads, L, D / heads)``."""
        attention = self.self_attn
        tokens = self.layer_norm1(tokens)

        def split(projected: Tensor) -> Tensor:
            return projected.view(*projected.shape[:-1], attention.num_heads, attention.head_dim).transpose(-3, -2)

        queries: Tensor = split(attention.q_proj(tokens)) * attention.scale
        return queries, split(attention.k_proj(tokens)), split(attention.v_proj(tokens))

    def finish(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """Return the block's output from its input ``(B, L, D)`` and its attention ``(B, heads, L, D / heads)``."""
        tokens = tokens + self.self_attn.out_proj(attended.transpose(-3, -2).flatten(-2))
        mixed: Tensor = tokens + self.mlp(self.layer_norm2(tokens))
        return mixed


def tower_blocks(config: ClipConfig, tower: Literal["image", "text"]) -> nn.ModuleList:
    """Return the blocks of a tower with CLIP's initialisation: smaller weights where there are more blocks."""
    width, layers = getattr(config, f"{tower}_width"), getattr(config, f"{tower}_layers")
    sizes: Values = {
        "hidden_size": width,
        "intermediate_size": getattr(config, f"{tower}_mlp"),
        "num_hidden_layers": layers,
        "num_attention_heads": getattr(config, f"{tower}_heads"),
        "hidden_act": ACTIVATIONS[config.activation],
        "layer_norm_eps": config.eps,
        "attn_implementation": "sdpa",
    }
    theirs = CLIPVisionConfig(**sizes) if tower == "image" else CLIPTextConfig(**sizes)
    blocks = [Block(theirs) for _ in range(layers)]
    residual = (2 * layers) ** -0.5
    for block in blocks:
        attention, mlp = block.self_attn, block.mlp
        for linear, std in (
            (attention.q_proj, width**-0.5),
            (attention.k_proj, width**-0.5),
            (attention.v_proj, width**-0.5),
            (attention.out_proj, width**-0.5 * residual),
            (mlp.fc1, (2 * width) ** -0.5),
            (mlp.fc2, width**-0.5 * residual),
        ):
            nn.init.normal_(linear.weight, std=std)
            nn.init.zeros_(linear.bias)
    return nn.ModuleList(blocks)


class Tower(nn.Module):
    """The common part of both towers: blocks, a norm after them, and a projection to the common space."""

    blocks: nn.ModuleList

    @property
    def checkpointing(self) -> bool:
        """Whether its blocks recompute activations in the backward pass."""
        return all(cast(Block, block).checkpointing for block in self.blocks)

    @checkpointing.setter
    def checkpointing(self, wanted: bool) -> None:
        for block in self.blocks:
            cast(Block, block).checkpointing = wanted
