"""SCanNet: TED with attention between its three maps along columns and rows.

L. Ding et al., "Joint spatio-temporal modeling for semantic change detection in remote sensing images", IEEE
Transactions on Geoscience and Remote Sensing 62, 2024, section III-B. The attention is that of X. Dong et al., "CSWin
transformer: a general vision transformer backbone with cross-shaped windows", CVPR 2022.

    before ─ TED ─ 128 ─┐                                ┌─ 1x1 ─> 1 + K  classes before
             TED ─ 128 ─┼─ concat 384 ─ 2 blocks ─ split ┼─ 64 ──> 1      change
    after  ─ TED ─ 128 ─┘                                └─ 1x1 ─> 1 + K  classes after

With X the tokens of the stride-4 map, one per place:

    block      X = X + [columns(Q, K, V)_1 ; rows(Q, K, V)_2] W,  Q, K, V = LN(X) W',      X = X + MLP(LN(X))
    columns    softmax(Q K' / √d) V + V * w: over the first half of the channels, within each column
    rows       the same over the second half, within each row

After two blocks every place depends on all others. ``V * w``, a depthwise 3x3 convolution, encodes positions (LePE). A
stripe is one place wide, so only the middle column of w lies inside a column (the middle row inside a row). The other
entries only meet the zero padding of the stripe and keep their initial values.

**Any size.** The published network accepts one square input size only, because of a check and of reshapes. No parameter
depends on the size: stripes are as long as the map, and w is a convolution. The published weights therefore work at
every height and width without resizing.

The network is not symmetric in time, see `sscd_l`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from wasnow.models.contract import ChangeLogits
from wasnow.models.fixed_vocabulary import FixedVocabularyNetwork
from wasnow.models.sscd_l import SECOND_WORDS
from wasnow.nn.layers import resize
from wasnow.nn.three_branches import STRIDE, WIDTH, class_head
from wasnow.nn.three_maps import ThreeMaps

TOKEN = 3 * WIDTH
"""Channels per place: before, after and change concatenated."""

HEADS = 4
"""Attention heads of a block: half along columns, half along rows."""

BLOCKS = 2
MLP = 4
"""Hidden width of the MLP over `TOKEN`."""


class Columns(nn.Module):
    """Attention within each column, plus positions encoded by a depthwise convolution of the values.

    Args:
        width: channels.
        heads: must divide the width.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.place = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return ``(B, C, h, w)``, as are queries, keys and values; columns are independent of each other."""
        found = functional.scaled_dot_product_attention(self._split(query), self._split(key), self._split(value))
        return self._join(found, query) + self._place(value)

    def _split(self, x: Tensor) -> Tensor:
        """``(B, C, h, w)`` to ``(B w, heads, h, C / heads)``."""
        batch, _, rows, cols = x.shape
        return x.permute(0, 3, 2, 1).reshape(batch * cols, rows, self.heads, -1).transpose(1, 2)

    def _join(self, found: Tensor, like: Tensor) -> Tensor:
        """Invert `_split`."""
        batch, _, rows, cols = like.shape
        return found.transpose(1, 2).reshape(batch, cols, rows, -1).permute(0, 3, 2, 1)

    def _place(self, value: Tensor) -> Tensor:
        # The outer columns of the kernel would only meet zero padding, since a stripe is one place wide.
        weight = self.place.weight[..., 1:2]
        return functional.conv2d(value, weight, self.place.bias, padding=(1, 0), groups=self.place.groups)


class Rows(Columns):
    """The same within each row."""

    def _split(self, x: Tensor) -> Tensor:
        return super()._split(x.mT)

    def _join(self, found: Tensor, like: Tensor) -> Tensor:
        return super()._join(found, like.mT).mT

    def _place(self, value: Tensor) -> Tensor:
        weight = self.place.weight[..., 1:2, :]
        return functional.conv2d(value, weight, self.place.bias, padding=(0, 1), groups=self.place.groups)


class Block(nn.Module):
    """Attention along columns and rows, then an MLP at every place.

    Args:
        width: channels.
        heads: half of them for columns, half for rows.
    """

    def __init__(self, width: int = TOKEN, heads: int = HEADS) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.columns = Columns(width // 2, heads // 2)
        self.rows = Rows(width // 2, heads // 2)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, MLP * width), nn.GELU(), nn.Linear(MLP * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, h, w, C)`` to the same."""
        query, key, value = (each.chunk(2, dim=1) for each in self.qkv(self.norm1(x)).movedim(-1, 1).chunk(3, dim=1))
        down = self.columns(query[0], key[0], value[0])
        along = self.rows(query[1], key[1], value[1])
        x = x + self.proj(torch.cat([down, along], dim=1).movedim(1, -1))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Scan(nn.Module):
    """The transformer between TED's maps and the heads."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(TOKEN, TOKEN, 1)
        self.embed_norm = nn.LayerNorm(TOKEN)
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.norm = nn.LayerNorm(TOKEN)
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=0.02)
                nn.init.zeros_(part.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 384, h, w)`` to the same."""
        tokens = self.embed_norm(self.embed(x).movedim(1, -1))
        out: Tensor = self.norm(self.blocks(tokens)).movedim(-1, 1)
        return out


class SCanNet(FixedVocabularyNetwork):
    """The network, with random weights until a checkpoint or `convert` provides others: a `ChangeModel`.

    Args:
        classes: the class words, in logit order.
        normalisation: of `NORMALISATIONS`; ``imagenet`` for training from ImageNet weights or from scratch, ``second``
            for the published weights.

    Raises:
        VocabularyError: no class words, or one is empty or occurs twice.
        UsageError: unknown normalisation.
    """

    name = "scannet"
    source = "Ding et al. 2024, IEEE TGRS 62, doi:10.1109/TGRS.2024.3362795"
    stride = STRIDE

    def __init__(self, classes: Sequence[str] = SECOND_WORDS, *, normalisation: str = "imagenet") -> None:
        super().__init__(classes, normalisation)
        self.maps = ThreeMaps()
        self.scan = Scan()
        self.classes_before = class_head(len(self.classes))
        self.classes_after = class_head(len(self.classes))

    def forward(self, before: Tensor, after: Tensor, valid: Tensor | None = None) -> ChangeLogits:
        """Predict a batch of any height and width; tensors are moved to the device of the weights.

        Args:
            before: ``(B, 3, H, W)``, red, green and blue in 0..1.
            after: ``(B, 3, H, W)``, the second date.
            valid: ignored.
        """
        maps = self.maps(self.normalise(before, "before"), self.normalise(after, "after"))
        first, second, change = self.scan(torch.cat(maps, dim=1)).chunk(3, dim=1)
        return ChangeLogits(
            change=resize(self.maps.odds(change), before.shape[-2:]),
            before=resize(self.classes_before(first), before.shape[-2:]),
            after=resize(self.classes_after(second), after.shape[-2:]),
            unchanged_channel=True,
        )
