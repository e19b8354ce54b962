"""MambaSCD: VMamba for both dates; the change decoder scans over three arrangements of the pair.

H. Chen et al., "ChangeMamba: remote sensing change detection with spatiotemporal state space model", IEEE Transactions
on Geoscience and Remote Sensing 62, 2024.

    before ─ VMamba ─ 4 maps ─┬──────── semantic decoder 1 ─┐
                              │                             ├─ one 1x1 ─> 1 + K  classes before, classes after
    after  ─ the same ────────│─┬────── semantic decoder 2 ─┘
                              └─┴────── change decoder ─ 1x1 ─> 2        change = the second minus the first

At each level the change decoder reduces the pair to one map. It applies blocks of `wasnow.nn.vmamba` to three
arrangements of the pair, each after a 1x1 convolution to 128 channels:

    stacked   before and after concatenated on channels      ─┐
    woven     columns of before and after alternate           ├─ 1 + 2 + 2 maps of 128 ─ 1x1 BN ReLU
    beside    before to the left of after, as one image      ─┘

Both kinds of decoder go from the coarsest level to the finest: upsampling, addition, a residual block of two 3x3
convolutions. The semantic decoders have one block of scans per level and share the class head. The network is not
symmetric in time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wasnow.errors import UsageError, did_you_mean
from wasnow.models.contract import ChangeLogits
from wasnow.models.fixed_vocabulary import FixedVocabularyNetwork
from wasnow.nn.layers import conv_bn_relu, resize
from wasnow.nn.resnet import BasicBlock, initialise
from wasnow.nn.selective_scan import Scan, scan_named
from wasnow.nn.vmamba import PRESETS, STRIDE, VMamba, VSSBlock

PUBLISHED_WORDS = ("low vegetation", "ground", "tree", "water", "building", "playground")
"""The classes of SECOND, in the order of the published weights, which differs from that of Ding et al."""

WIDTH = 128
"""Channels of the decoders."""

DROP_PATH = 0.1
"""Probability that a block of the decoders is skipped in training."""


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


class PairLook(nn.Module):
    """Scans over three arrangements of a pair of maps, reduced to one map."""

    def __init__(self, inputs: int, width: int, scan: Scan) -> None:
        super().__init__()
        self.stacked = Look(2 * inputs, width, scan)
        self.woven = Look(inputs, width, scan)
        self.beside = Look(inputs, width, scan)
        self.join = conv_bn_relu(5 * width, width, 1, bias=True)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """``(B, inputs, h, w)`` of both dates to ``(B, width, h, w)``."""
        stacked = self.stacked(torch.cat([before, after], 1))
        # Channels are last in memory, here and below.
        columns = torch.stack([before.movedim(1, -1), after.movedim(1, -1)], 3).flatten(2, 3)
        woven = self.woven(columns.movedim(-1, 1))
        beside = self.beside(torch.cat([before, after], -1))
        found: Tensor = self.join(torch.cat([stacked, woven[..., ::2], woven[..., 1::2], *beside.chunk(2, -1)], 1))
        return found


class ChangeDecoder(nn.Module):
    """The maps of both dates to one map of change. Parts are stored in the order of use: coarsest first."""

    def __init__(self, widths: Sequence[int], width: int, scan: Scan) -> None:
        super().__init__()
        self.looks = nn.ModuleList(PairLook(each, width, scan) for each in reversed(widths))
        self.smooth = nn.ModuleList(BasicBlock(width, width) for _ in widths[1:])

    def forward(self, before: Sequence[Tensor], after: Sequence[Tensor]) -> Tensor:
        """Return ``(B, width, H / 4, W / 4)`` from four maps of each date, finest first."""
        found = [look(*pair) for look, *pair in zip(self.looks, before[::-1], after[::-1], strict=True)]
        x: Tensor = found[0]
        for smooth, finer in zip(self.smooth, found[1:], strict=True):
            x = smooth(resize(x, finer.shape[-2:]) + finer)
        return x


class SemanticDecoder(nn.Module):
    """The maps of one date to one map of its classes. Parts are stored in the order of use: coarsest first."""

    def __init__(self, widths: Sequence[int], width: int, scan: Scan) -> None:
        super().__init__()
        coarsest, *finer = reversed(widths)
        self.looks = nn.ModuleList([Look(coarsest, width, scan)])
        self.looks.extend(Look(width, width, scan, reduce=False) for _ in finer)
        self.reduce = nn.ModuleList(conv_bn_relu(each, width, 1, bias=True) for each in finer)
        self.smooth = nn.ModuleList(BasicBlock(width, width) for _ in widths)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return ``(B, width, H / 4, W / 4)`` from four maps, finest first."""
        x: Tensor = self.looks[0](maps[-1])
        steps = zip(self.reduce, self.smooth[:-1], self.looks[1:], maps[-2::-1], strict=True)
        for reduce, smooth, look, finer in steps:
            x = look(smooth(resize(x, finer.shape[-2:]) + reduce(finer)))
        answer: Tensor = self.smooth[-1](x)
        return answer


class MambaSCD(FixedVocabularyNetwork):
    """The network, with random weights until a checkpoint or `convert` provides others: a `ChangeModel`.

    Args:
        classes: the class words, in logit order.
        size: encoder size, of `PRESETS`: tiny, small or base.
        encoder: fields of `VMambaConfig` that differ from those of the size.
        width: channels of the decoders.
        normalisation: of `NORMALISATIONS`; ``imagenet`` also for the published weights.
        scan: ``chunked``, or ``mamba_ssm`` with that package and a GPU. It changes the speed and not the result, so it
            is not part of `config`, and a checkpoint can be loaded anywhere.

    Raises:
        VocabularyError: no class words, or one is empty or occurs twice.
        UsageError: unknown size, normalisation, scan or encoder field.
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
                f"unknown size {size!r}; use one of {', '.join(PRESETS)}{did_you_mean(size, list(PRESETS))}"
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
        """Return the arguments that build this network again, as JSON values; without the scan."""
        return {
            "classes": list(self.classes),
            "size": self.size,
            "encoder": {name: list(each) if isinstance(each, tuple) else each for name, each in self.differing.items()},
            "width": self.width,
            "normalisation": self.normalise.name,
        }

    def forward(self, before: Tensor, after: Tensor, valid: Tensor | None = None) -> ChangeLogits:
        """Predict a batch of any height and width; tensors are moved to the device of the weights.

        Args:
            before: ``(B, 3, H, W)``, red, green and blue in 0..1.
            after: ``(B, 3, H, W)``, the second date.
            valid: ignored.
        """
        dates = [self.normalise(before, "before"), self.normalise(after, "after")]
        # The images of a batch are independent here, so both dates form one batch.
        maps = [each.chunk(2) for each in self.encoder(torch.cat(dates))]
        first, second = [each[0] for each in maps], [each[1] for each in maps]
        stays, changes = self.change_head(self.change(first, second)).chunk(2, 1)
        return ChangeLogits(
            change=resize(changes - stays, before.shape[-2:]),
            before=resize(self.class_head(self.classes_before(first)), before.shape[-2:]),
            after=resize(self.class_head(self.classes_after(second)), after.shape[-2:]),
            unchanged_channel=True,
        )
