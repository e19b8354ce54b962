"""Masked attention: every place attends only to the places of interest.

    F (B, C, h, w) ─┬───────────────────────────── Q ─┐
                    ├─ r x r conv, LN ─ (h/r, w/r) ─ K ┤ softmax(Q K' / √d + M) V ─ Wo ─ + F ─ LN ─> L, one per word
    P (B, W, h, w) ──── r x r max pool ──────────── M ─┘

    M(q, k) = 0 where P(k) = 1, else -∞                 the same for all queries q, so a mask of keys is sufficient

The mask is that of B. Cheng et al., "Masked-attention mask transformer for universal image segmentation", CVPR 2022
(Mask2Former), equation 2. Keys and values on a coarser grid, and the heads, are those of SegFormer's encoder.

**Coarser grids.** A key covers r x r places. It is read if any of them is of interest, and then includes the others. A
key without places of interest is not read: its features do not affect other places and get no gradient from them. (At
its own place they are still the query, and F.)

**Empty masks.** A softmax over no keys is undefined. For an empty mask either all keys are read (``global``), or the
output is 0 (``zero``), per image and word, whatever the rest of the batch has.

The attention uses torch's fused kernels, which store no (h w) x (h w / r²) table of scores. The mask has one flag per
key, not per pair.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from wasnow.nn.segformer import initialise

Empty = Literal["global", "zero"]


class MaskedAttention(nn.Module):
    """Local features of each word, from the features of an image and a mask per word.

    Args:
        width: C.
        heads: must divide the width.
        reduction: r, how much coarser keys and values are along each side.
        empty: output for an empty mask: ``global``, attention to everything; ``zero``, no features.
    """

    def __init__(self, width: int, heads: int, reduction: int = 1, *, empty: Empty = "global") -> None:
        super().__init__()
        self.heads, self.reduction, self.empty = heads, reduction, empty
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.reduce = nn.Conv2d(width, width, reduction, stride=reduction) if reduction > 1 else None
        self.reduce_norm = nn.LayerNorm(width) if reduction > 1 else None
        self.norm = nn.LayerNorm(width)
        initialise(self)

    def forward(self, features: Tensor, masks: Tensor) -> Tensor:
        """Return one set of local features per word.

        Args:
            features: ``(B, C, h, w)``, h and w multiples of the reduction.
            masks: ``(B, W, h, w)`` bool, True where a place is of interest to a word.

        Returns:
            ``(B, W, C, h, w)``.

        Raises:
            ValueError: masks and features differ in size, or the size is not a multiple of the reduction.
        """
        rows, cols = features.shape[-2:]
        if masks.shape[-2:] != (rows, cols) or rows % self.reduction or cols % self.reduction:
            raise ValueError(
                f"features of {rows} x {cols} and masks of {' x '.join(map(str, masks.shape[-2:]))}; "
                f"both must have one size, a multiple of {self.reduction}"
            )
        tokens = features.flatten(2).transpose(1, 2)
        coarse = tokens
        if self.reduce is not None and self.reduce_norm is not None:
            coarse = self.reduce_norm(self.reduce(features).flatten(2).transpose(1, 2))
        query, key, value = (
            part(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part, x in ((self.query, tokens), (self.key, coarse), (self.value, coarse))
        )
        read = pooled(masks, self.reduction).flatten(2)
        some = read.any(-1, keepdim=True)
        # A softmax over no keys is NaN, and so are all gradients, even if its output is discarded.
        read = read | ~some
        local = torch.stack([self._local(tokens, query, key, value, each) for each in read.unbind(1)], dim=1)
        if self.empty == "zero":
            local = torch.where(some[..., None], local, 0)
        return local.transpose(2, 3).reshape(*masks.shape[:2], -1, rows, cols)

    def _local(self, tokens: Tensor, query: Tensor, key: Tensor, value: Tensor, read: Tensor) -> Tensor:
        """Return ``LN(F + Wo softmax(Q K' / √d + M) V)``, ``(B, N, C)``, of one word that reads the keys ``(B, M)``."""
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=read[:, None, None])
        local: Tensor = self.norm(tokens + self.out(found.transpose(1, 2).flatten(2)))
        return local


def pooled(masks: Tensor, by: int) -> Tensor:
    """Return ``(..., H / by, W / by)``: whether any value of ``(..., H, W)`` is True in each square of side ``by``."""
    if by == 1:
        return masks
    *most, rows, cols = masks.shape
    return masks.reshape(*most, rows // by, by, cols // by, by).any(-1).any(-2)
