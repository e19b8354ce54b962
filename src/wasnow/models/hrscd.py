"""HRSCD, strategy 4: land cover of each date, and change that is told what the two land covers differ in.

R. Caye Daudt et al., "Multitask learning for large-scale semantic change detection", Computer Vision and Image
Understanding 187, 2019, section 4: the integrated strategy.

    before ─ encoder ─┬──────── decoder ─> 1 + K  classes before
                      │ |e1 - e2|
    both ─── encoder ─┴─ concat ─ decoder ─> 1    change              at each of six levels
                      │ |e1 - e2|
    after  ─ encoder ─┴──────── decoder ─> 1 + K  classes after

    level               1        2        3        4        5       6
    stride              1        2        4        8       16      32
    channels            8       16       32       64      128     256      encoder: 3 residual blocks a level, the last
                                                                            of them halves; decoder: back up again

One encoder and one decoder serve both dates, so the classes of a date do not depend on the other, and exchanged dates
exchange them. The change encoder reads the dates in order: the change is not symmetric in time.

As published: the network of the authors, in the form that Ding et al. (2022) compare with: one logit of change instead
of two, and logits instead of log-probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from wasnow.models.contract import ChangeLogits
from wasnow.models.fixed_vocabulary import FixedVocabularyNetwork
from wasnow.models.sscd_l import SECOND_WORDS

WIDTHS = (8, 16, 32, 64, 128, 256)
"""Channels of the six levels."""

STRIDE = 1 << (len(WIDTHS) - 1)


class Block(nn.Module):
    """``leaky(x' + BN conv3x3 leaky BN conv3x3 x)``; x' is x, or a 1x1 projection of it where channels differ.

    Args:
        inputs: channels in.
        outputs: channels out.
        halve: max pool 2x2 of x' and of what the second convolution takes.
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
        # In place: the gradient of a norm needs what came in and not what went out, and these maps are the widest.
        long, short = functional.leaky_relu(self.first(x), inplace=True), self.short(x)
        if self.halve:
            long, short = functional.max_pool2d(long, 2), functional.max_pool2d(short, 2)
        return functional.leaky_relu(self.second(long).add_(short), inplace=True)


class Double(nn.Module):
    """The same block, which doubles the size and halves the channels by transposed convolutions.

    Args:
        inputs: channels in.
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
        bands: of its image.
    """

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.ModuleList([Block(before, width), Block(width, width), Block(width, wider, halve=True)])
            for before, width, wider in zip((bands, *WIDTHS[1:]), WIDTHS, WIDTHS[1:], strict=False)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """``(B, bands, H, W)``, at least 32 px a side, to six maps, finest first; sizes are rounded down."""
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
        times: channels of the maps that it is given, over those of the encoder; 2 where another map stands beside.
        out: logits.
    """

    def __init__(self, times: int, out: int) -> None:
        super().__init__()
        deepest = WIDTHS[-1]
        self.stages = nn.ModuleList(
            [nn.ModuleList([Block(times * deepest, deepest), Block(deepest, deepest), Double(deepest)])]
        )
        for width in WIDTHS[-2::-1]:
            # The last one is there already: it stays, where the others double.
            last = Double(width) if width != WIDTHS[0] else Block(width, width)
            self.stages.append(nn.ModuleList([Block((1 + times) * width, width), Block(width, width), last]))
        self.logits = nn.Conv2d(WIDTHS[0], out, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Six maps, finest first, to ``(B, out, H, W)`` at the size of the first."""
        x: Tensor | None = None
        for stage, beside in zip(self.stages, reversed(maps), strict=True):
            x = beside if x is None else torch.cat([_grown(x, like=beside), beside], dim=1)
            for block in stage.children():
                x = block(x)
        out: Tensor = self.logits(x)
        return out


def _grown(x: Tensor, like: Tensor) -> Tensor:
    """With its last row and column again, where rounding down had taken one off."""
    (rows, cols), (wanted_rows, wanted_cols) = x.shape[-2:], like.shape[-2:]
    if (rows, cols) == (wanted_rows, wanted_cols):
        return x
    return functional.pad(x, (0, wanted_cols - cols, 0, wanted_rows - rows), mode="replicate")


class HRSCD(FixedVocabularyNetwork):
    """The network, with random weights until a checkpoint or `convert` brings others: a `ChangeModel`.

    Args:
        classes: the words that it answers with, in logit order.
        normalisation: of `NORMALISATIONS`; ``second`` for weights that the code of Ding et al. trained.

    Raises:
        VocabularyError: there are no words, or one is empty or there twice.
        UsageError: no normalisation has that name.
    """

    name = "hrscd"
    source = "Caye Daudt et al. 2019, CVIU 187, doi:10.1016/j.cviu.2019.07.003"
    stride = STRIDE

    def __init__(self, classes: Sequence[str] = SECOND_WORDS, *, normalisation: str = "imagenet") -> None:
        super().__init__(classes, normalisation)
        self.land_encoder = Encoder(3)
        self.land_decoder = Decoder(1, 1 + len(self.classes))
        self.change_encoder = Encoder(6)
        self.change_decoder = Decoder(2, 1)

    def forward(self, before: Tensor, after: Tensor, valid: Tensor | None = None) -> ChangeLogits:
        """Answer a batch of any height and width; it is taken to the device of the weights.

        Args:
            before: ``(B, 3, H, W)``, red, green and blue in 0..1.
            after: likewise.
            valid: not looked at.
        """
        rows, cols = before.shape[-2:]
        first = _at_least(self.normalise(before, "before"), STRIDE)
        second = _at_least(self.normalise(after, "after"), STRIDE)
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


def _at_least(image: Tensor, side: int) -> Tensor:
    """With its last row and column repeated up to so many pixels: of less, nothing would be left at the last level."""
    rows, cols = (max(0, side - each) for each in image.shape[-2:])
    return functional.pad(image, (0, cols, 0, rows), mode="replicate") if rows or cols else image
