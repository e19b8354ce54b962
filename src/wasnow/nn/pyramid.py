"""A feature pyramid from one plain feature map, and the head that reads it.

    (B, C, h, w) at stride 16 ─ SimpleFPN ─> strides 4, 8, 16, 32, each (B, out, ., .)
                                              └─ each 1x1 ─ norm ─ ReLU ─ to the finest size ─ concat ─> logits

Source: Li et al., "Exploring plain vision transformer backbones for object detection" (ViTDet, 2022) for the pyramid;
the head joins levels like SegFormer's (Xie et al. 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from wasnow.nn.layers import resize

LEVELS = 4


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of each place."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        # One fused kernel with channels last is twice as fast as single steps.
        last = x.permute(0, 2, 3, 1)
        return functional.layer_norm(last, self.weight.shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


class SimpleFPN(nn.Module):
    """Four levels at a quarter, half, the same and twice the stride of the input map.

    Args:
        channels: C of the map.
        out: channels of every level.
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        half, quarter = max(1, channels // 2), max(1, channels // 4)
        self.levels = nn.ModuleList(
            [
                nn.Sequential(
                    nn.ConvTranspose2d(channels, half, 2, 2),
                    LayerNorm2d(half),
                    nn.GELU(),
                    nn.ConvTranspose2d(half, quarter, 2, 2),
                    *_smoothed(quarter, out),
                ),
                nn.Sequential(nn.ConvTranspose2d(channels, half, 2, 2), *_smoothed(half, out)),
                nn.Sequential(*_smoothed(channels, out)),
                nn.Sequential(nn.MaxPool2d(2, 2), *_smoothed(channels, out)),
            ]
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map ``(B, C, h, w)``, sides at least 2, to ``(B, out, 4h, 4w)``, ``(2h, 2w)``, ``(h, w)``, ``(h/2, w/2)``."""
        return [level(x) for level in self.levels]


def _smoothed(channels: int, out: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, out, 1, bias=False),
        LayerNorm2d(out),
        nn.Conv2d(out, out, 3, padding=1, bias=False),
        LayerNorm2d(out),
    ]


class LevelHead(nn.Module):
    """From four levels to one map of logits at the finest size.

    Args:
        channels: of every level.
        width: between levels and logits.
        out: number of logits.
        norm: creates the norm of a number of channels; batch norm as published.
    """

    def __init__(
        self, channels: int, width: int, out: int, *, norm: Callable[[int], nn.Module] = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        self.levels = nn.ModuleList(_joined(channels, width, norm) for _ in range(LEVELS))
        self.join = _Joining(*_joined(LEVELS * width, width, norm))
        self.logits = nn.Conv2d(width, out, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Map four levels ``(B, channels, ., .)``, finest first, to ``(B, out, h, w)`` at the finest size."""
        size = levels[0].shape[-2:]
        # Resizing and 1x1 convolutions commute, so each level gets its share of the joining convolution at its own
        # size, and the concatenation is avoided.
        shares = self.join.get_submodule("0").get_parameter("weight").chunk(LEVELS, dim=1)
        parts = [
            resize(functional.conv2d(read(level), share), size)
            for read, level, share in zip(self.levels, levels, shares, strict=True)
        ]
        logits: Tensor = self.logits(self.join[1:](parts[0] + parts[1] + parts[2] + parts[3]))
        return logits


class _Joining(nn.Sequential):
    """A sequence that is not applied part by part: nothing in it may be folded into its neighbour."""


def _joined(channels: int, width: int, norm: Callable[[int], nn.Module]) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), norm(width), nn.ReLU(inplace=True))
