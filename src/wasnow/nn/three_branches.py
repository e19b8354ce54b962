"""The common part of the networks of Ding et al.: one encoder for both dates, a change branch, a class head per date.

    before ─ encoder ─┬───────────────────────> 1x1 ─> classes before
                      ├─ concat ─> change branch ─────> change
    after  ─ encoder ─┴───────────────────────> 1x1 ─> classes after

All maps have stride 8 and 128 channels; the logits are resized to the size of the images at the end.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wasnow.nn.layers import conv_bn_relu
from wasnow.nn.resnet import WIDTHS, ResNet34, basic_blocks, initialise

STRIDE = 8
WIDTH = 128
CHANGE_BLOCKS = 6


class Encoder(nn.Module):
    """ResNet-34 whose last two stages keep their size, and a 1x1 convolution from 512 channels to `WIDTH`."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = ResNet34(strides=(1, 2, 1, 1))
        self.reduce = conv_bn_relu(WIDTHS[-1], WIDTH, 1)
        initialise(self.reduce)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images ``(B, 3, H, W)`` to ``(B, 128, H / 8, W / 8)``, rounded up."""
        features: Tensor = self.reduce(self.resnet(x)[-1])
        return features


class ChangeBranch(nn.Module):
    """Six residual blocks on the concatenated features of both dates, and a small head."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = basic_blocks(2 * WIDTH, WIDTH, CHANGE_BLOCKS)
        self.head = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH // 2, 1),
            nn.BatchNorm2d(WIDTH // 2),
            nn.ReLU(inplace=True),
            nn.Conv2d(WIDTH // 2, 1, 1),
        )
        initialise(self)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Map features ``(B, 128, h, w)`` of both dates to log-odds of change ``(B, 1, h, w)``."""
        odds: Tensor = self.head(self.blocks(torch.cat([before, after], dim=1)))
        return odds


def class_head(classes: int) -> nn.Conv2d:
    """Return a 1x1 convolution from ``(B, 128, h, w)`` to ``(B, 1 + classes, h, w)``: "unchanged", then the words."""
    head = nn.Conv2d(WIDTH, 1 + classes, 1)
    initialise(head)
    return head
