"""HRSCD, strategy 4: land cover of each date, and change from both images and the difference of land cover features.

R. Caye Daudt et al., "Multitask learning for large-scale semantic change detection", Computer Vision and Image
Understanding 187, 2019, section 4: the integrated strategy.

    before ─ encoder ─┬──────── decoder ─> 1 + K  classes before
                      │ |e1 - e2|
    both ─── encoder ─┴─ concat ─ decoder ─> 1    change              at each of six levels
                      │ |e1 - e2|
    after  ─ encoder ─┴──────── decoder ─> 1 + K  classes after

    level               1        2        3        4        5       6
    stride              1        2        4        8       16      32
    channels            8       16       32       64      128     256      encoder: 3 residual blocks each, the last one
                                                                            halves the size; decoder: the reverse

One encoder and one decoder serve both dates: the classes of a date do not depend on the other date, and swapped dates
swap them. The change encoder reads the dates in order, so the change is not symmetric in time.

As published, in the form that Ding et al. (2022) compare with: one logit of change instead of two, and logits instead
of log-probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from wasnow.models.contract import ChangeLogits
from wasnow.models.fixed_vocabulary import FixedVocabularyNetwork
from wasnow.models.sscd_l import SECOND_WORDS
from wasnow.nn.layers import pad_to

WIDTHS = (8, 16, 32, 64, 128, 256)
"""Channels of the six levels."""

STRIDE = 1 << (len(WIDTHS) - 1)


class Block(nn.Module):
    """``leaky(x' + BN conv3x3 leaky BN conv3x3 x)``; x' is x, or a 1x1 projection of x where channels differ.

    Args:
        inputs: input channels.
        outputs: output channels.
        halve: apply 2x2 max pooling to x' and to the input of the second convolution.
    """

    def __init__(self, inputs: int, outputs: int, *, halve: bool = False) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))
        self.short = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
            if inputs != outputs
            else nn.Identity()
        )
        self.halve = halve

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inputs, H, W)`` to ``(B, outputs, H, W)``, or half of it, rounded down."""
        # In place: the gradient of a norm needs its input, not its output, and these maps are the largest.
        long, short = functional.leaky_relu(self.first(x), inplace=True), self.short(x)
        if self.halve:
            long, short = functional.max_pool2d(long, 2), functional.max_pool2d(short, 2)
        return functional.leaky_relu(self.second(long).add_(short), inplace=True)


class Double(nn.Module):
    """The same block with doubled size and half the channels, by transposed convolutions.

    Args:
        inputs: input channels.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        outputs = inputs // 2
        self.first = nn.Sequential(_doubling(inputs, outputs), nn.BatchNorm2d(outputs))
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))
        self.short = nn.Sequential(_doubling(inputs, outputs), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inputs, h, w)`` to ``(B, inputs / 2, 2h, 2w)``."""
        long = self.second(functional.leaky_relu(self.first(x), inplace=True))
        return functional.leaky_relu(long.add_(self.short(x)), inplace=True)


def _doubling(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1, bias=False)


class Encoder(nn.Module):
    """Five stages of three blocks.

    Args:
        bands: channels of the input image.
    """

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.ModuleList([Block(before, width), Block(width, width), Block(width, wider, halve=True)])
            for before, width, wider in zip((bands, *WIDTHS[1:]), WIDTHS, WIDTHS[1:], strict=False)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return six maps of ``(B, bands, H, W)``, at least 32 px per side, finest first; sizes are rounded down."""
        maps, x = [], image
        for stage in self.stages:
            enter, stay, halve = stage.children()
            x = stay(enter(x))
            maps.append(x)
            x = halve(x)
        return [*maps, x]


class Decoder(nn.Module):
    """From six maps back to one at full size.

    Args:
        times: input channels as a multiple of the encoder's; 2 where a second map is concatenated.
        out: number of logits.
    """

    def __init__(self, times: int, out: int) -> None:
        super().__init__()
        deepest = WIDTHS[-1]
        self.stages = nn.ModuleList(
            [nn.ModuleList([Block(times * deepest, deepest), Block(deepest, deepest), Double(deepest)])]
        )
        for width in WIDTHS[-2::-1]:
            # The last stage is at full size already, so it does not double.
            last = Double(width) if width != WIDTHS[0] else Block(width, width)
            self.stages.append(nn.ModuleList([Block((1 + times) * width, width), Block(width, width), last]))
        self.logits = nn.Conv2d(WIDTHS[0], out, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return ``(B, out, H, W)`` at the size of the first of six maps, given finest first."""
        x: Tensor | None = None
        for stage, beside in zip(self.stages, reversed(maps), strict=True):
            # Rounding down can have removed a row or column of the coarser map; padding restores it.
            x = beside if x is None else torch.cat([pad_to(x, beside.shape[-2:]), beside], dim=1)
            for block in stage.children():
                x = block(x)
        out: Tensor = self.logits(x)
        return out


class HRSCD(FixedVocabularyNetwork):
    """The network, with random weights until a checkpoint or `convert` provides others: a `ChangeModel`.

    Args:
        classes: the class words, in logit order.
        normalisation: of `NORMALISATIONS`; ``second`` for weights trained with the code of Ding et al.

    Raises:
        VocabularyError: no class words, or one is empty or occurs twice.
        UsageError: unknown normalisation.
    """

    name = "hrscd"
    source = "Caye Daudt et al. 2019, CVIU 187, doi:10.1016/j.cviu.2019.07.003"
    stride = STRIDE
    receptive_field = 562

    def __init__(self, classes: Sequence[str] = SECOND_WORDS, *, normalisation: str = "imagenet") -> None:
        super().__init__(classes, normalisation)
        self.land_encoder = Encoder(3)
        self.land_decoder = Decoder(1, 1 + len(self.classes))
        self.change_encoder = Encoder(6)
        self.change_decoder = Decoder(2, 1)

    def forward(self, before: Tensor, after: Tensor, valid: Tensor | None = None) -> ChangeLogits:
        """Predict a batch of any height and width; tensors are moved to the device of the weights.

        Args:
            before: ``(B, 3, H, W)``, red, green and blue in 0..1.
            after: ``(B, 3, H, W)``, the second date.
            valid: ignored.
        """
        rows, cols = before.shape[-2:]
        # A smaller image would have no pixel at the last level.
        first = pad_to(self.normalise(before, "before"), (STRIDE, STRIDE))
        second = pad_to(self.normalise(after, "after"), (STRIDE, STRIDE))
        land1, land2 = self.land_encoder(first), self.land_encoder(second)
        together = self.change_encoder(torch.cat([first, second], dim=1))
        change = [
            torch.cat([both, (one - other).abs()], dim=1)
            for both, one, other in zip(together, land1, land2, strict=True)
        ]
        return ChangeLogits(
            change=self.change_decoder(change)[..., :rows, :cols],
            before=self.land_decoder(land1)[..., :rows, :cols],
            after=self.land_decoder(land2)[..., :rows, :cols],
            unchanged_channel=True,
        )
