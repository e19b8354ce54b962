"""The common part of TED and SCanNet: the three branches of SSCD-l, each with a decoder to stride 4.

    before ─ encoder ─┬─ low ──────────────────────┐
                      └─ deep ─┬──────────────── decoder ─> before   (B, 128, H/4, W/4)
                               └─ blocks ────────┐
                       low, low ─────────────── decoder ─> change    the same shape
                               ┌─ blocks ────────┘
                      ┌─ deep ─┴──────────────── decoder ─> after    the same shape
    after  ─ encoder ─┴─ low ──────────────────────┘

    decoder     deep (stride 8) ─ transposed conv 2x2 /2 ─┬─ concat ─ 3x3 BN ReLU ─>
                low (stride 4) ── 1x1 BN ReLU ─> 64 ──────┘

Encoder and change branch are those of `three_branches`. "low" is the output of the encoder's first stage, 64 channels
with edges.

Source: L. Ding et al., "Joint spatio-temporal modeling for semantic change detection in remote sensing images", IEEE
Transactions on Geoscience and Remote Sensing 62, 2024, section III, and the authors' code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wasnow.nn.layers import conv_bn_relu
from wasnow.nn.resnet import WIDTHS, initialise
from wasnow.nn.three_branches import WIDTH, ChangeBranch, Encoder

LOW = WIDTHS[0]
"""Channels of the low map of one date, and of its projection in each decoder."""


class Decoder(nn.Module):
    """Doubles the size of a deep map and joins it with a low map of that size.

    Args:
        low: channels of the low map: `LOW` for one date, twice as many for both.
    """

    def __init__(self, low: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(WIDTH, WIDTH, 2, stride=2)
        self.transit = conv_bn_relu(low, LOW, 1)
        self.decode = conv_bn_relu(WIDTH + LOW, WIDTH)
        initialise(self)

    def forward(self, deep: Tensor, low: Tensor) -> Tensor:
        """Map ``(B, 128, h, w)`` and ``(B, low, ~2h, ~2w)`` to 128 channels at the size of the latter."""
        rows, cols = low.shape[-2:]
        # The size of an odd low map was rounded up, so the doubled deep map has one row or column too many.
        large = self.up(deep)[..., :rows, :cols]
        out: Tensor = self.decode(torch.cat([large, self.transit(low)], dim=1))
        return out


class ThreeMaps(nn.Module):
    """From two images to three maps at stride 4: first date, second date, change."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.change = ChangeBranch()
        self.decode_before = Decoder(LOW)
        self.decode_after = Decoder(LOW)
        self.decode_change = Decoder(2 * LOW)

    def forward(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map normalised ``(B, 3, H, W)`` to before, after, change: each ``(B, 128, H / 4, W / 4)``, rounded up."""
        first, first_low = self._levels(before)
        second, second_low = self._levels(after)
        change = self.change.blocks(torch.cat([first, second], dim=1))
        return (
            self.decode_before(first, first_low),
            self.decode_after(second, second_low),
            self.decode_change(change, torch.cat([first_low, second_low], dim=1)),
        )

    def odds(self, change: Tensor) -> Tensor:
        """Map the change map ``(B, 128, h, w)`` to log-odds ``(B, 1, h, w)``."""
        odds: Tensor = self.change.head(change)
        return odds

    def _levels(self, image: Tensor) -> tuple[Tensor, Tensor]:
        stages = self.encoder.resnet(image)
        return self.encoder.reduce(stages[-1]), stages[0]
