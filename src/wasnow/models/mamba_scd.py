"""MambaSCD: change and classes from VMamba's maps of both dates; three ways to scan over a pair find the change.

H. Chen et al., "ChangeMamba: remote sensing change detection with spatiotemporal state space model", IEEE Transactions
on Geoscience and Remote Sensing 62, 2024.

    before ─ VMamba ─ 4 maps ─┬──────── semantic decoder 1 ─┐
                              │                             ├─ one 1x1 ─> 1 + K  classes before, classes after
    after  ─ the same ────────│─┬────── semantic decoder 2 ─┘
                              └─┴────── change decoder ─ 1x1 ─> 2        change = the second minus the first

The change decoder brings the pair to one map at each level, by blocks of `wasnow.nn.vmamba` over three arrangements of
it, each after a 1x1 convolution to 128 channels:

    stacked   b over a, on channels                     ─┐
    woven     b a b a b a, columns in turn               ├─ 1 + 2 + 2 maps of 128 ─ 1x1 BN ReLU
    beside    b b b a a a, one image beside the other   ─┘

Both kinds of decoder go from the coarsest level to the finest: enlarged, added, two 3x3 convolutions with a short cut.
The semantic decoders have a block of scans at each level and own no head. Nothing here is symmetric in time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wasnow.errors import UsageError, did_you_mean
from wasnow.models.contract import ChangeLogits
from wasnow.models.fixed_vocabulary import FixedVocabularyNetwork
from wasnow.nn.resnet import BasicBlock, initialise
from wasnow.nn.selective_scan import Scan, scan_named
from wasnow.nn.three_branches import enlarge
from wasnow.nn.vmamba import PRESETS, STRIDE, VMamba, VSSBlock

PUBLISHED_WORDS = ("low vegetation", "ground", "tree", "water", "building", "playground")
"""The classes of SECOND, in the order of the published weights, which is not that of Ding et al."""

WIDTH = 128
"""Channels of the decoders."""

DROP_PATH = 0.1
"""How often a block of the decoders is left out in training."""


class Look(nn.Module):
    """Scans over a map, after a 1x1 convolution where the map has another width."""

    def __init__(self, inputs: int, width: int, scan: Scan, *, reduce: bool = True) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(inputs, width, 1) if reduce else nn.Identity()
        self.block = VSSBlock(width, DROP_PATH, scan)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inputs, h, w)`` to ``(B, width, h, w)``."""
        seen: Tensor = self.block(self.reduce(x).permute(0, 2, 3, 1))
        return seen.permute(0, 3, 1, 2)


def joined(inputs: int, width: int) -> nn.Sequential:
    """1x1 convolution, batch norm, ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, width, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))


class PairLook(nn.Module):
    """What scans over three arrangements of a pair of maps find, in one map."""

    def __init__(self, inputs: int, width: int, scan: Scan) -> None:
        super().__init__()
        self.stacked = Look(2 * inputs, width, scan)
        self.woven = Look(inputs, width, scan)
        self.beside = Look(inputs, width, scan)
        self.join = joined(5 * width, width)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """``(B, inputs, h, w)`` of both dates to ``(B, width, h, w)``."""
        stacked = self.stacked(torch.cat([before, after], 1))
        # Channels lie last, here and in all that follows.
        columns = torch.stack([before.movedim(1, -1), after.movedim(1, -1)], 3).flatten(2, 3)
        woven = self.woven(columns.movedim(-1, 1))
        beside = self.beside(torch.cat([before, after], -1))
        found: Tensor = self.join(torch.cat([stacked, woven[..., ::2], woven[..., 1::2], *beside.chunk(2, -1)], 1))
        return found


class ChangeDecoder(nn.Module):
    """The maps of both dates to one of change. Parts stand in the order of use: coarsest first."""

    def __init__(self, widths: Sequence[int], width: int, scan: Scan) -> None:
        super().__init__()
        self.looks = nn.ModuleList(PairLook(each, width, scan) for each in reversed(widths))
        self.smooth = nn.ModuleList(BasicBlock(width, width) for _ in widths[1:])

    def forward(self, before: Sequence[Tensor], after: Sequence[Tensor]) -> Tensor:
        """Four maps of each date, finest first, to ``(B, width, H / 4, W / 4)``."""
        found = [look(*pair) for look, *pair in zip(self.looks, before[::-1], after[::-1], strict=True)]
        x: Tensor = found[0]
        for smooth, finer in zip(self.smooth, found[1:], strict=True):
            x = smooth(enlarge(x, like=finer) + finer)
        return x


class SemanticDecoder(nn.Module):
    """The maps of one date to one of its classes. Parts stand in the order of use: coarsest first."""

    def __init__(self, widths: Sequence[int], width: int, scan: Scan) -> None:
        super().__init__()
        coarsest, *finer = reversed(widths)
        self.looks = nn.ModuleList([Look(coarsest, width, scan)])
        self.looks.extend(Look(width, width, scan, reduce=False) for _ in finer)
        self.reduce = nn.ModuleList(joined(each, width) for each in finer)
        self.smooth = nn.ModuleList(BasicBlock(width, width) for _ in widths)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps, finest first, to ``(B, width, H / 4, W / 4)``."""
        x: Tensor = self.looks[0](maps[-1])
        steps = zip(self.reduce, self.smooth[:-1], self.looks[1:], maps[-2::-1], strict=True)
        for reduce, smooth, look, finer in steps:
            x = look(smooth(enlarge(x, like=finer) + reduce(finer)))
        answer: Tensor = self.smooth[-1](x)
        return answer


class MambaSCD(FixedVocabularyNetwork):
    """The network, with random weights until a checkpoint or `convert` brings others: a `ChangeModel`.

    Args:
        classes: the words that it answers with, in logit order.
        size: of the encoder, of `PRESETS`: tiny, small or base.
        encoder: fields of `VMambaConfig` that shall differ from those of the size.
        width: channels of the decoders.
        normalisation: of `NORMALISATIONS`; ``imagenet`` for the published weights too.
        scan: ``chunked``, or ``mamba_ssm`` where that package and a GPU are there. It changes the speed and not the
            answer, so it is no part of `config`: a checkpoint opens anywhere.

    Raises:
        VocabularyError: there are no words, or one is empty or there twice.
        UsageError: no size, normalisation, scan or field of the encoder has that name.
    """

    name = "mamba-scd"
    source = "Chen et al. 2024, IEEE TGRS 62, doi:10.1109/TGRS.2024.3417253"
    stride = STRIDE

    def __init__(
        self,
        classes: Sequence[str] = PUBLISHED_WORDS,
        *,
        size: str = "tiny",
        encoder: Mapping[str, Any] | None = None,
        width: int = WIDTH,
        normalisation: str = "imagenet",
        scan: str = "chunked",
    ) -> None:
        super().__init__(classes, normalisation)
        if size not in PRESETS:
            raise UsageError(
                f"no size is called {size!r}; known are {', '.join(PRESETS)}{did_you_mean(size, list(PRESETS))}"
            )
        self.size, self.width, self.differing = size, width, dict(encoder or {})
        way = scan_named(scan)
        self.encoder = VMamba(PRESETS[size].changed(self.differing), way)
        widths = self.encoder.config.widths
        self.change = ChangeDecoder(widths, width, way)
        self.classes_before = SemanticDecoder(widths, width, way)
        self.classes_after = SemanticDecoder(widths, width, way)
        self.change_head = nn.Conv2d(width, 2, 1)
        self.class_head = nn.Conv2d(width, 1 + len(self.classes), 1)
        for part in self.modules():
            if isinstance(part, BasicBlock):
                initialise(part)

    def config(self) -> dict[str, Any]:
        """The arguments that build this network again, as plain JSON values; not how it scans."""
        return {
            "classes": list(self.classes),
            "size": self.size,
            "encoder": {name: list(each) if isinstance(each, tuple) else each for name, each in self.differing.items()},
            "width": self.width,
            "normalisation": self.normalise.name,
        }

    def forward(self, before: Tensor, after: Tensor, valid: Tensor | None = None) -> ChangeLogits:
        """Answer a batch of any height and width; it is taken to the device of the weights.

        Args:
            before: ``(B, 3, H, W)``, red, green and blue in 0..1.
            after: likewise.
            valid: not looked at.
        """
        dates = [self.normalise(before, "before"), self.normalise(after, "after")]
        # No image of a batch knows of another here, so both dates go through at once.
        maps = [each.chunk(2) for each in self.encoder(torch.cat(dates))]
        first, second = [each[0] for each in maps], [each[1] for each in maps]
        stays, changes = self.change_head(self.change(first, second)).chunk(2, 1)
        return ChangeLogits(
            change=enlarge(changes - stays, like=before),
            before=enlarge(self.class_head(self.classes_before(first)), like=before),
            after=enlarge(self.class_head(self.classes_after(second)), like=after),
            unchanged_channel=True,
        )
