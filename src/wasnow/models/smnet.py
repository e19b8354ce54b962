"""SMNet, a reconstruction: alternating convolutions and attention, and change from feature differences at four levels.

Y. Niu et al., "SMNet: symmetric multi-task network for semantic change detection in remote sensing images based on CNN
and transformer", Remote Sensing 15(4), 949, 2023. No code is public. This network has the parts that the abstract and
the headings of the paper name: units of pre-activated residual blocks and transformer blocks (PRTB), a multi-scale
encoder of such units, fusion of foreground, background and global content (MCFM), and one prediction branch per task.
**All numbers and equations below are our own**, after the published design named in each line.

    before ─ PRTB x 4 ─┬─ F1 ────────────── decoder ─> 1x1 ─> 1 + K  classes before      (one decoder for both dates)
                       ├─ MCFM(|F1 - F2|) ─ decoder ─> 1x1 ─> 1      change
    after  ─ the same ─┴─ F2 ────────────── decoder ─> 1x1 ─> 1 + K  classes after

    stride    4   8   16   32
    width    64 128  256  512

    PRTB     two residual blocks, BN and ReLU before each convolution; then one transformer block
             x += attention(LN x), keys and values on a grid coarser by 8, 4, 2, 1;   x += MLP(LN x), 3x3 inside
             after ResNet v2 (He et al. 2016) and SegFormer (Xie et al. 2021), which needs no position embedding
    MCFM     D = BN ReLU 3x3 |F1 - F2|;   m = sigmoid(1x1 D);   s = sigmoid(1x1 mean D)
             D + 3x3 [m D ; (1 - m) D ; s D]         foreground, background, global; after MCCNet (Li et al. 2022)
    decoder  from the deepest level up: twice the size, concatenated with the next, 3x3 BN ReLU

The network is symmetric in time: swapped dates give the same change and swapped classes.

The gate s is a mean over the whole input, and the keys of stride 32 see all of it, so predictions depend on the tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from wasnow.models.contract import ChangeLogits
from wasnow.models.fixed_vocabulary import FixedVocabularyNetwork
from wasnow.models.sscd_l import SECOND_WORDS
from wasnow.nn.layers import conv_bn_relu, resize
from wasnow.nn.pyramid import LayerNorm2d
from wasnow.nn.resnet import initialise

WIDTHS = (64, 128, 256, 512)
"""Channels at the strides 4, 8, 16 and 32."""

HEADS = (1, 2, 4, 8)
COARSER = (8, 4, 2, 1)
"""How much coarser the grid of keys and values is along each side; all of these grids have stride 32."""

BLOCKS = 2
"""Residual blocks per unit."""

MLP = 4
DECODED = 128
"""Channels of a decoder at every level."""

STRIDE = 32


class PreActivated(nn.Module):
    """``x' + conv3x3 relu BN conv3x3 relu BN x``; x' is x, or a 1x1 projection of x where shapes differ.

    Args:
        inputs: input channels.
        outputs: output channels.
        stride: of the first convolution and of the projection.
    """

    follows: ClassVar = (("conv1", "norm2"),)

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        same = stride == 1 and inputs == outputs
        self.short = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inputs, H, W)`` to ``(B, outputs, H / stride, W / stride)``, rounded up."""
        long = self.conv2(functional.relu(self.norm2(self.conv1(functional.relu(self.norm1(x))))))
        out: Tensor = self.short(x) + long
        return out


class Attention(nn.Module):
    """Attention from every place to the places of a coarser grid.

    Args:
        width: channels.
        heads: must divide the width.
        coarser: rows and columns of the map that are averaged into one of the grid.
    """

    def __init__(self, width: int, heads: int, coarser: int) -> None:
        super().__init__()
        self.heads, self.coarser = heads, coarser
        self.query = nn.Conv2d(width, width, 1, bias=False)
        self.key_value = nn.Conv2d(width, 2 * width, 1, bias=False)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, h, w)`` to the same."""
        grid = functional.avg_pool2d(x, self.coarser, ceil_mode=True) if self.coarser > 1 else x
        key, value = self.key_value(grid).chunk(2, dim=1)
        query, key, value = (self._split(each) for each in (self.query(x), key, value))
        found = functional.scaled_dot_product_attention(query, key, value)
        # Concatenate the heads with channels last in memory, the layout of the surrounding norms.
        places = torch.unflatten(found.transpose(1, 2).flatten(2), 1, x.shape[-2:])
        out: Tensor = self.out(places.movedim(-1, 1))
        return out

    def _split(self, x: Tensor) -> Tensor:
        """``(B, C, h, w)`` to ``(B, heads, h w, C / heads)``."""
        return torch.unflatten(x.movedim(1, -1).flatten(1, 2), -1, (self.heads, -1)).transpose(1, 2)


class TransformerBlock(nn.Module):
    """Attention, and an MLP with a 3x3 convolution, which encodes positions without an embedding.

    Args:
        width: channels.
        heads: must divide the width.
        coarser: of the grid of keys and values.
    """

    def __init__(self, width: int, heads: int, coarser: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm2d(width)
        self.attention = Attention(width, heads, coarser)
        self.norm2 = LayerNorm2d(width)
        self.mlp = nn.Sequential(
            nn.Conv2d(width, MLP * width, 1),
            nn.Conv2d(MLP * width, MLP * width, 3, padding=1, groups=MLP * width),
            nn.GELU(),
            nn.Conv2d(MLP * width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, h, w)`` to the same."""
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Encoder(nn.Module):
    """A stem to stride 4, and four units of residual and transformer blocks (PRTB)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, WIDTHS[0], 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(WIDTHS[0]),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.units = nn.ModuleList()
        inputs = WIDTHS[0]
        for level, (width, heads, coarser) in enumerate(zip(WIDTHS, HEADS, COARSER, strict=True)):
            residual = [PreActivated(inputs, width, stride=1 if level == 0 else 2)]
            residual += [PreActivated(width, width) for _ in range(BLOCKS - 1)]
            self.units.append(nn.Sequential(*residual, TransformerBlock(width, heads, coarser)))
            inputs = width
        initialise(self)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return four maps of `WIDTHS` channels, finest first, from a normalised ``(B, 3, H, W)``; sizes round up."""
        x, maps = self.stem(image), []
        for unit in self.units:
            x = unit(x)
            maps.append(x)
        return maps


class Fusion(nn.Module):
    """Foreground, background and global content of the difference at one level (MCFM).

    Args:
        width: channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.difference = conv_bn_relu(width, width)
        self.foreground = nn.Conv2d(width, 1, 1)
        self.image = nn.Conv2d(width, width, 1)
        self.join = nn.Conv2d(3 * width, width, 3, padding=1)
        initialise(self)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return ``(B, width, h, w)`` from the maps of both dates, whatever their order."""
        changed = self.difference((first - second).abs())
        there = self.foreground(changed).sigmoid()
        whole = self.image(changed.mean((2, 3), keepdim=True)).sigmoid()
        out: Tensor = changed + self.join(torch.cat([there * changed, (1 - there) * changed, whole * changed], dim=1))
        return out


class Decoder(nn.Module):
    """From the deepest of four maps up to the finest, and to logits.

    Args:
        out: number of logits.
    """

    def __init__(self, out: int) -> None:
        super().__init__()
        self.enter = conv_bn_relu(WIDTHS[-1], DECODED)
        self.steps = nn.ModuleList(conv_bn_relu(DECODED + width, DECODED) for width in WIDTHS[-2::-1])
        self.logits = nn.Conv2d(DECODED, out, 1)
        initialise(self)

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Return ``(B, out, *size)`` from four maps, finest first; logits at stride 4 are resized to ``size``."""
        x = self.enter(maps[-1])
        for step, beside in zip(self.steps, maps[-2::-1], strict=True):
            rows, cols = beside.shape[-2:]
            x = step(torch.cat([resize(x, (rows, cols)), beside], dim=1))
        return resize(self.logits(x), size)


class SMNet(FixedVocabularyNetwork):
    """The network, with random weights until a checkpoint provides others: a `ChangeModel`.

    Args:
        classes: the class words, in logit order.
        normalisation: of `NORMALISATIONS`.

    Raises:
        VocabularyError: no class words, or one is empty or occurs twice.
        UsageError: unknown normalisation.
    """

    name = "smnet"
    source = "after Niu et al. 2023, Remote Sensing 15(4), 949, doi:10.3390/rs15040949; its numbers are ours"
    stride = STRIDE
    symmetric = True

    def __init__(self, classes: Sequence[str] = SECOND_WORDS, *, normalisation: str = "imagenet") -> None:
        super().__init__(classes, normalisation)
        self.encoder = Encoder()
        self.fusions = nn.ModuleList(Fusion(width) for width in WIDTHS)
        self.change_decoder = Decoder(1)
        self.class_decoder = Decoder(1 + len(self.classes))

    def forward(self, before: Tensor, after: Tensor, valid: Tensor | None = None) -> ChangeLogits:
        """Predict a batch of any height and width; tensors are moved to the device of the weights.

        Args:
            before: ``(B, 3, H, W)``, red, green and blue in 0..1.
            after: ``(B, 3, H, W)``, the second date.
            valid: ignored.
        """
        rows, cols = before.shape[-2:]
        first = self.encoder(self.normalise(before, "before"))
        second = self.encoder(self.normalise(after, "after"))
        change = [fuse(one, other) for fuse, one, other in zip(self.fusions, first, second, strict=True)]
        return ChangeLogits(
            change=self.change_decoder(change, (rows, cols)),
            before=self.class_decoder(first, (rows, cols)),
            after=self.class_decoder(second, (rows, cols)),
            unchanged_channel=True,
        )
