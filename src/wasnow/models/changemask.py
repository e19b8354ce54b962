"""ChangeMask: one encoder for both dates; change is a symmetric function of its feature maps at every level.

Z. Zheng et al., "ChangeMask: deep multi-task encoder-transformer-decoder architecture for semantic change detection",
ISPRS Journal of Photogrammetry and Remote Sensing 183, 2022.

    before ─ EfficientNet-B0 ─ f1 ─┬──────────────────────── U-Net decoder ─> 1x1 ─> K  classes before
                                   ├─ g([f1, f2]) + g([f2, f1]) ─ U-Net decoder ─> 1x1 ─> 1  change
    after  ─ the same ──────── f2 ─┴──────────────────────── U-Net decoder ─> 1x1 ─> K  classes after
                                                             (one for both dates)

    g        3-D convolution 2 x 3 x 3 over the pair, BN, ReLU: one for each of the levels
    decoder  320 at stride 32 ─ to the size of the next finer map ─ concat ─ 3x3 BN ReLU, twice ─ ... ─ 16 at stride 1
             channels  256 (16)  128 (8)  64 (4)  32 (2)  16 (1)

Both dates share all weights and the sum does not depend on their order: swapped dates give the same change and swapped
classes.

This follows the paper in the form of the authors' library torchange. That library returns probabilities; this network
returns the corresponding logits. There is no channel for "unchanged". The published weights contain two parts that are
never used, ``_conv_head`` with its norm and a g for the image itself; both are kept so that the weights fit unchanged.
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
from wasnow.nn.efficientnet import WIDTHS, EfficientNetB0
from wasnow.nn.layers import conv_bn_relu

STRIDE = 32
DECODED = (256, 128, 64, 32, 16)
"""Channels of a decoder at the strides 16, 8, 4, 2 and 1."""


class Interaction(nn.Module):
    """``g([f1, f2]) + g([f2, f1])``: a symmetric function of the feature maps of both dates.

    Args:
        width: channels of each map, and of the output.
    """

    follows: ClassVar = (("conv", "norm"),)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(width, width, (2, 3, 3), padding=(0, 1, 1), bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """``(B, width, h, w)`` of both dates to the same."""
        return self._read(first, second) + self._read(second, first)

    def _read(self, first: Tensor, second: Tensor) -> Tensor:
        # The kernel covers the whole stack of two, so this equals a 2-D convolution over interleaved channels.
        # With channels last, the two values of a channel are adjacent in memory.
        pairs = torch.stack([first.movedim(1, -1), second.movedim(1, -1)], -1).flatten(-2).movedim(-1, 1)
        read = functional.conv2d(pairs, self.conv.weight.flatten(1, 2), self.conv.bias, padding=1)
        return functional.relu(self.norm(read), inplace=True)


class Step(nn.Module):
    """One step of a decoder, to the next finer size.

    Args:
        inputs: channels of the coarse map.
        beside: channels of the encoder's map at the finer size; 0 without one.
        out: channels of the output.
    """

    def __init__(self, inputs: int, beside: int, out: int) -> None:
        super().__init__()
        self.conv1 = conv_bn_relu(inputs + beside, out)
        self.conv2 = conv_bn_relu(out, out)

    def forward(self, x: Tensor, beside: Tensor | None, size: tuple[int, int]) -> Tensor:
        """``(B, inputs, h, w)`` and ``(B, beside, *size)`` or None, to ``(B, out, *size)``."""
        x = functional.interpolate(x, size=size, mode="nearest")
        out: Tensor = self.conv2(self.conv1(x if beside is None else torch.cat([x, beside], dim=1)))
        return out


class Decoder(nn.Module):
    """U-Net decoder, from the encoder's maps to full size."""

    def __init__(self) -> None:
        super().__init__()
        inputs, beside = (WIDTHS[-1], *DECODED), (*WIDTHS[-2::-1], 0)
        self.blocks = nn.ModuleList(Step(*widths) for widths in zip(inputs, beside, DECODED, strict=False))
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_uniform_(part.weight, mode="fan_in", nonlinearity="relu")

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Five maps, finest first, to ``(B, 16, H, W)``; ``size`` is H and W of the image."""
        x, finer = maps[-1], [*maps[-2::-1], None]
        for step, beside in zip(self.blocks, finer, strict=True):
            rows, cols = size if beside is None else beside.shape[-2:]
            x = step(x, beside, (rows, cols))
        return x


class ChangeMask(FixedVocabularyNetwork):
    """The network, with random weights until a checkpoint or `convert` provides others: a `ChangeModel`.

    Args:
        classes: the class words, in logit order.
        normalisation: of `NORMALISATIONS`; the published encoder was trained with ``imagenet``.

    Raises:
        VocabularyError: no class words, or one is empty or occurs twice.
        UsageError: unknown normalisation.
    """

    name = "changemask"
    source = "Zheng et al. 2022, ISPRS JPRS 183, doi:10.1016/j.isprsjprs.2021.10.015"
    stride = STRIDE
    symmetric = True

    def __init__(self, classes: Sequence[str] = SECOND_WORDS, *, normalisation: str = "imagenet") -> None:
        super().__init__(classes, normalisation)
        self.encoder = EfficientNetB0()
        self.interact = nn.ModuleList(Interaction(width) for width in (3, *WIDTHS))
        self.class_decoder = Decoder()
        self.change_decoder = Decoder()
        self.class_logits = nn.Conv2d(DECODED[-1], len(self.classes), 1)
        self.change_logits = nn.Conv2d(DECODED[-1], 1, 1)

    def forward(self, before: Tensor, after: Tensor, valid: Tensor | None = None) -> ChangeLogits:
        """Predict a batch of any height and width; tensors are moved to the device of the weights.

        Args:
            before: ``(B, 3, H, W)``, red, green and blue in 0..1.
            after: ``(B, 3, H, W)``, the second date.
            valid: ignored.
        """
        rows, cols = before.shape[-2:]
        # Both dates in one batch, as published: in training the batch norms see both.
        images = torch.cat([self.normalise(before, "before"), self.normalise(after, "after")])
        dates = [each.chunk(2) for each in self.encoder(images)]
        first, second = ([date[i] for date in dates] for i in (0, 1))
        change = [join(one, other) for join, one, other in zip(list(self.interact)[1:], first, second, strict=True)]
        return ChangeLogits(
            change=self.change_logits(self.change_decoder(change, (rows, cols))),
            before=self.class_logits(self.class_decoder(first, (rows, cols))),
            after=self.class_logits(self.class_decoder(second, (rows, cols))),
        )
