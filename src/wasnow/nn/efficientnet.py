"""EfficientNet-B0: feature maps at five strides, blocks with squeeze and excitation.

    image ─ stem ─┬─ 0, 1, 2 ─┬─ 3, 4 ─┬─ 5 .. 8 ─┬─ 9 .. 15 ─┐
    stride   2    │        4  │     8  │      16  │        32 │
    width   32    ▼       24  ▼    40  ▼     112  ▼       320 ▼      (B, width, H / stride, W / stride), rounded up

A block expands the channels, filters each of them, weights them, and projects to the output channels:

    1x1 BN swish ─ depthwise BN swish ─ * sigmoid(1x1 swish 1x1 mean) ─ 1x1 BN ─ + input, where the shape stays

The mean is over the whole input, so the maps depend on the tile.

Source: Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural networks", ICML 2019, table 1. The
tensors have the names of the PyTorch port of the public ImageNet weights and U-Net encoders
(``_blocks.3._se_reduce.weight``). The map at stride 16 is taken where those encoders take it: after the first block of
112 channels. Padding is TensorFlow's SAME, see `efficientnet_lite`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from wasnow.nn.efficientnet_lite import SameConv

# (blocks, kernel, stride of the first, expansion, channels)
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM = 32
HEAD = 1280
"""Channels of the layer before the classifier."""

OUTPUTS = (2, 4, 8, 15)
"""The block whose output is the map at each of the strides 4, 8, 16 and 32."""

WIDTHS = (STEM, 24, 40, 112, 320)
"""Channels of the maps at the strides 2, 4, 8, 16 and 32."""

DROP = 0.2
"""Probability that the last block is skipped for an image in training; rises linearly from 0 over the blocks."""


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    """An inverted residual block with squeeze and excitation.

    Args:
        inside: input channels.
        out: output channels.
        kernel: of the depthwise convolution.
        stride: of the depthwise convolution.
        wider: expansion of the channels; 1 omits the first convolution.
        drop: probability, 0..1, that a residual block is skipped for an image in training.
    """

    def __init__(self, inside: int, out: int, kernel: int, stride: int, wider: int, *, drop: float = 0.0) -> None:
        super().__init__()
        width, few = inside * wider, max(1, inside // 4)
        if wider > 1:
            self._expand_conv = SameConv(inside, width, 1)
            self._bn0 = _norm(width)
            self._swish0 = nn.SiLU()
        self._depthwise_conv = SameConv(width, width, kernel, stride, groups=width)
        self._bn1 = _norm(width)
        self._swish1 = nn.SiLU()
        self._se_reduce = nn.Conv2d(width, few, 1)
        self._se_expand = nn.Conv2d(few, width, 1)
        self._project_conv = SameConv(width, out, 1)
        self._bn2 = _norm(out)
        self.wider = wider > 1
        self.residual = stride == 1 and inside == out
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, inside, H, W)`` to ``(B, out, ., .)``."""
        inner: Tensor = self._swish0(self._bn0(self._expand_conv(x))) if self.wider else x
        inner = self._swish1(self._bn1(self._depthwise_conv(inner)))
        weights = self._se_expand(functional.silu(self._se_reduce(inner.mean((2, 3), keepdim=True))))
        inner = self._bn2(self._project_conv(inner * weights.sigmoid()))
        return x + self._dropped(inner) if self.residual else inner

    def _dropped(self, inner: Tensor) -> Tensor:
        """In training, return 0 for some images and scale the others accordingly."""
        if not self.training or self.drop == 0:
            return inner
        kept = torch.rand(len(inner), 1, 1, 1, device=inner.device) >= self.drop
        return inner * (kept / (1 - self.drop)).to(inner)


class EfficientNetB0(nn.Module):
    """The tower, and the layer before its classifier; 4.0 million parameters.

    ``_conv_head`` and ``_bn1`` are used by classifiers only. They are kept because published encoders include them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv(3, STEM, 3, 2)
        self._bn0 = _norm(STEM)
        self._swish0 = nn.SiLU()
        blocks: list[Block] = []
        inside, last = STEM, sum(stage[0] for stage in _STAGES)
        for count, kernel, stride, wider, out in _STAGES:
            for number in range(count):
                drop = DROP * len(blocks) / last
                blocks.append(Block(inside, out, kernel, stride if number == 0 else 1, wider, drop=drop))
                inside = out
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SameConv(inside, HEAD, 1)
        self._bn1 = _norm(HEAD)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
                if part.bias is not None:
                    nn.init.zeros_(part.bias)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map normalised images ``(B, 3, H, W)`` to maps of `WIDTHS` channels at the strides 2, 4, 8, 16 and 32."""
        x = self._swish0(self._bn0(self._conv_stem(images)))
        maps = [x]
        for number, block in enumerate(self._blocks):
            x = block(x)
            if number in OUTPUTS:
                maps.append(x)
        return maps
