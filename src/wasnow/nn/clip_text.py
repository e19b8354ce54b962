"""CLIP's text tower, with a prefix that many texts share.

prefix (B, P, Dt) ───────── computed once per row ────┐ keys, values of each block
suffix (K, L, Dt) ── one softmax over [prefix_b ; suffix_k up to here] ── at EOS ─ project ─ (B, K, E)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from wasnow.nn.clip_blocks import Block, Tower, tower_blocks
from wasnow.nn.clip_config import ClipConfig


@dataclass(frozen=True, slots=True)
class Prefix:
    """The beginning that several texts share, as keys and values for all that follows.

    Attributes:
        keys: of each block, ``(B, heads, P, Dt / heads)``.
        values: of each block, the same shape.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]


class TextTower(Tower):
    """The text tower: causal, read at EOS.

    Attributes:
        blocks: `Block` s.
        checkpointing: see `Block`; sets all of them.
    """

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        width = config.text_width
        self.config = config
        self.token_embedding = nn.Embedding(config.vocabulary, width)
        self.position_embedding = nn.Parameter(torch.randn(config.text_positions, width) * 0.01)
        self.blocks = tower_blocks(config, "text")
        self.norm_after = nn.LayerNorm(width, eps=config.eps)
        self.projection = nn.Linear(width, config.embed, bias=False)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.projection.weight, std=width**-0.5)

    def embed(self, ids: Tensor) -> Tensor:
        """Embed ids ``(K, L)`` as ``(K, L, Dt)``, without positions."""
        embedded: Tensor = self.token_embedding(ids)
        return embedded

    def positions(self, length: int) -> Tensor:
        """Return ``(length, Dt)``: the first trained positions; if there are too few, all of them, stretched linearly.

        The first and the last position stay where they are.
        """
        own = self.position_embedding
        if length <= len(own):
            return own[:length]
        exact = torch.promote_types(own.dtype, torch.float32)
        stretched = functional.interpolate(own.T[None].to(exact), length, mode="linear", align_corners=True)
        return stretched[0].T.to(own.dtype)

    def project(self, tokens: Tensor) -> Tensor:
        """Project tokens ``(..., Dt)`` after the last block to the common space, ``(..., E)``; not of unit length."""
        projected: Tensor = self.projection(self.norm_after(tokens))
        return projected

    def forward(self, ids: Tensor) -> Tensor:
        """Embed texts ``(K, L)``, each with an EOS and anything after it, as ``(K, E)``; not of unit length.

        Raises:
            ValueError: a row has no EOS.
        """
        ends = ids == self.config.eos
        if not bool(ends.any(1).all()):
            raise ValueError(f"a text has no EOS ({self.config.eos}); create ids with tokenize")
        last = ends.int().argmax(1)
        # Tokens after the last EOS do not affect the output.
        needed = int(last.max()) + 1
        tokens = self.embed(ids[:, :needed]) + self.positions(ids.shape[1])[:needed]
        for block in self.blocks:
            tokens = block(tokens, causal=True)
        return self.project(tokens[torch.arange(len(ids), device=ids.device), last])

    def prefix(self, embedded: Tensor) -> Prefix:
        """Run the beginning that texts share, once.

        Args:
            embedded: ``(B, P, Dt)`` with positions 0 to P - 1 added; gradients flow back to it.
        """
        keys, values = [], []
        for number, block in enumerate(self._typed_blocks()):
            # After the last block only the keys and values of the prefix are needed.
            ends = number + 1 == len(self.blocks)
            embedded, key, value = self._maybe_twice(_prefix_block, block, embedded, ends)
            keys.append(key)
            values.append(value)
        return Prefix(tuple(keys), tuple(values))

    def suffix(self, prefix: Prefix, embedded: Tensor, last: Tensor) -> Tensor:
        """Return the embedding of every text after every prefix, ``(B, K, E)``, not of unit length.

        Padding is excluded from all computation, so one long word does not slow down the others. Memory grows with
        B K L (P + L), not with K copies of the prefix.

        Args:
            prefix: of B beginnings with P tokens.
            embedded: ``(K, L, Dt)`` with positions P to P + L - 1 added; gradients flow back to it.
            last: ``(K,)``, the position of EOS in each row, preferably on the CPU; tokens after it are ignored.
        """
        ragged = _Ragged.of(last, embedded.shape[1], embedded.device)
        batch = len(prefix.keys[0])
        tokens = embedded.flatten(0, 1)[ragged.kept].expand(batch, -1, -1)
        for block, keys, values in zip(self._typed_blocks(), prefix.keys, prefix.values, strict=True):
            tokens = self._maybe_twice(_suffix_block, block, tokens, keys, values, ragged)
        return self.project(tokens[:, ragged.ends])

    def _typed_blocks(self) -> Iterable[Block]:
        return (cast(Block, block) for block in self.blocks)

    def _maybe_twice(self, function: Any, *arguments: Any) -> Any:
        """Call a function, with gradient checkpointing where it is enabled and gradients are needed."""
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(function, *arguments, use_reentrant=False)
        return function(*arguments)


def _prefix_block(block: Block, tokens: Tensor, ends: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens ``(B, P, D)`` after a block (before it, with ``ends``), and its keys and values."""
    queries, keys, values = block.heads(tokens)
    if not ends:
        attended = functional.scaled_dot_product_attention(queries, keys, values, is_causal=True, scale=1.0)
        tokens = block.finish(tokens, attended)
    return tokens, keys, values


@dataclass(frozen=True, slots=True)
class _Ragged:
    """Positions of the T tokens of K texts of different lengths, concatenated without padding.

    Attributes:
        kept: ``(T,)``, the position of each in the padded rows ``K * L``.
        slots: ``(K, L)``, the inverse; arbitrary where a row is padded.
        row: ``(T,)``, the text of each token.
        col: ``(T,)``, its position in the text.
        ends: ``(K,)``, the last token of each text.
    """

    kept: Tensor
    slots: Tensor
    row: Tensor
    col: Tensor
    ends: Tensor

    @classmethod
    def of(cls, last: Tensor, length: int, device: torch.device) -> _Ragged:
        """Return the positions for texts whose last tokens are at ``last`` (K,), padded to ``length`` or less.

        They are computed on the device of ``last``: on the CPU this avoids waiting for a GPU.
        """
        ends = (last + 1).cumsum(0) - 1
        row, col = (torch.arange(length, device=last.device) <= last[:, None]).nonzero(as_tuple=True)
        starts = ends - last
        longest = int(col.max()) + 1
        slots = (starts[:, None] + torch.arange(longest, device=last.device)).clamp(max=len(row) - 1)
        there = (each.to(device) for each in (row * length + col, slots, row, col, ends))
        return cls(*there)


def _suffix_block(block: Block, tokens: Tensor, keys: Tensor, values: Tensor, ragged: _Ragged) -> Tensor:
    """Return tokens ``(B, T, D)`` after a block; each attends to the prefix and to its own text up to itself."""
    own_queries, own_keys, own_values = block.heads(tokens)
    slots, row, col = ragged.slots, ragged.row, ragged.col
    shared = own_queries @ keys.transpose(-2, -1)  # (B, heads, T, P)
    padded = own_queries[:, :, slots] @ own_keys[:, :, slots].transpose(-2, -1)  # (B, heads, K, L, L)
    own = padded[:, :, row, col]  # (B, heads, T, L)
    later = torch.arange(slots.shape[1], device=col.device) > col[:, None]
    scores = torch.cat([shared, own.masked_fill(later, float("-inf"))], dim=-1)
    weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(values.dtype)
    to_shared, to_own = weights[..., : keys.shape[-2]], weights[..., keys.shape[-2] :]
    # Padded rows get values too; they are ignored.
    gathered = to_own[:, :, slots] @ own_values[:, :, slots]  # (B, heads, K, L, d)
    return block.finish(tokens, to_shared @ values + gathered[:, :, row, col])
