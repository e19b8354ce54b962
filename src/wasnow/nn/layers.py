"""Small building blocks that several networks share: convolution with norm and ReLU, padding, bilinear resizing."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional


def conv_bn_relu(inputs: int, outputs: int, kernel: int = 3, *, bias: bool = False) -> nn.Sequential:
    """Return a convolution that keeps the size, a batch norm and a ReLU.

    Args:
        inputs: input channels.
        outputs: output channels.
        kernel: side of the kernel, odd.
        bias: whether the convolution has a bias, which the batch norm makes redundant; some published weights have it.
    """
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def pad_to(x: Tensor, size: Sequence[int]) -> Tensor:
    """Pad ``(B, C, h, w)`` at the bottom and right to at least ``size``, repeating the last row and column."""
    rows, cols = (max(0, wanted - given) for wanted, given in zip(size, x.shape[-2:], strict=True))
    return functional.pad(x, (0, cols, 0, rows), mode="replicate") if rows or cols else x


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad ``(B, C, h, w)`` like `pad_to`, until both sides are multiples; `upsample` crops the result again."""
    return pad_to(x, [-(-side // multiple) * multiple for side in x.shape[-2:]])


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize ``(B, C, h, w)`` bilinearly to ``(rows, cols)``."""
    rows, cols = size
    return functional.interpolate(x, size=(rows, cols), mode="bilinear", align_corners=False)


def upsample(x: Tensor, factor: int, size: Sequence[int]) -> Tensor:
    """Enlarge ``(B, C, h, w)`` bilinearly by ``factor`` and crop it to ``(rows, cols)``."""
    full = functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    rows, cols = size
    return full[..., :rows, :cols]
