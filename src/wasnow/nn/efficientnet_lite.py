"""EfficientNet-Lite0: the small image tower, from pixels to maps at five strides.

    image ─ stem ─ 0 ──┬─ 1, 2 ─┬─ 3, 4 ─┬─ 5 .. 10 ─┬─ 11 .. 15 ─┐
    stride  2      2   │        4        8           16           32
    width   32     16  ▼        24       40          112          320        (B, width, H / stride, W / stride)

A block widens, looks around within each channel, and narrows: 1x1 ─ BN ─ ReLU6 ─ depthwise ─ BN ─ ReLU6 ─ 1x1 ─ BN,
plus what came in where the shape stays. Lite leaves out the squeeze-and-excitation and the swish of EfficientNet, which
small processors are slow at.

Source: Tan and Le, "EfficientNet" (2019); the Lite variants of tensorflow/tpu. Names of the tensors are those of the
PyTorch port that the public ImageNet weights come in (``_blocks.3._depthwise_conv.weight``). Padding is TensorFlow's
SAME: an odd pixel goes to the right and below.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

# (blocks, kernel, stride of the first, times wider inside, channels)
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
BLOCKS = sum(stage[0] for stage in _STAGES)
"""How many blocks there are."""

WIDTHS = tuple(width for count, *_, width in _STAGES for _ in range(count))
"""Channels after each block."""

OUTPUTS = (2, 4, 10, 15)
"""The last block at each of the strides 4, 8, 16 and 32."""


class SameConv(nn.Conv2d):
    """A convolution without bias whose answer has ``ceil(size / stride)`` rows and columns; stride 1 or 2."""

    def __init__(self, inside: int, out: int, kernel: int, stride: int = 1, *, groups: int = 1) -> None:
        super().__init__(inside, out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inside, H, W)`` to ``(B, out, ceil(H / stride), ceil(W / stride))``."""
        weight, padding = self.placed(x.shape[-2], x.shape[-1])
        return functional.conv2d(x, weight, self.bias, self.stride, padding, groups=self.groups)

    def placed(self, rows: int, cols: int) -> tuple[Tensor, tuple[int, int]]:
        """Weights and padding for a map of so many rows and columns."""
        half = self.kernel_size[0] // 2
        if self.stride[0] == 1:
            return self.weight, (half, half)
        # Along an even side the border is one wider at its end. An empty first row or column of the kernel does the
        # same as a copy of the whole map with such a border, three times as fast.
        return functional.pad(self.weight, (1 - cols % 2, 0, 1 - rows % 2, 0)), (half, half)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    """One inverted residual.

    Args:
        inside: channels that come in.
        out: channels that go out.
        kernel: of the depthwise convolution.
        stride: of the depthwise convolution.
        wider: channels within, over ``inside``; 1 leaves the first convolution out.
    """

    def __init__(self, inside: int, out: int, kernel: int, stride: int, wider: int) -> None:
        super().__init__()
        width = inside * wider
        if wider > 1:
            self._expand_conv = SameConv(inside, width, 1)
            self._bn0 = _norm(width)
            self._relu0 = nn.ReLU6(inplace=True)
        self._depthwise_conv = SameConv(width, width, kernel, stride, groups=width)
        self._bn1 = _norm(width)
        self._relu1 = nn.ReLU6(inplace=True)
        self._project_conv = SameConv(width, out, 1)
        self._bn2 = _norm(out)
        self.wider = wider > 1
        self.residual = stride == 1 and inside == out

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inside, H, W)`` to ``(B, out, ., .)``."""
        # In place: the gradient of a norm needs what came in and not what went out, and these maps are the widest.
        inner: Tensor = self._relu0(self._bn0(self._expand_conv(x))) if self.wider else x
        inner = self._relu1(self._bn1(self._depthwise_conv(inner)))
        inner = self._bn2(self._project_conv(inner))
        return inner.add_(x) if self.residual else inner


class EfficientNetLite0(nn.Module):
    """The tower without its classifier; 2.96 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv(3, STEM, 3, 2)
        self._bn0 = _norm(STEM)
        self._relu0 = nn.ReLU6(inplace=True)
        shapes = [
            (kernel, stride if i == 0 else 1, wider, width)
            for count, kernel, stride, wider, width in _STAGES
            for i in range(count)
        ]
        self._blocks = nn.ModuleList(
            Block(inside, width, kernel, stride, wider)
            for inside, (kernel, stride, wider, width) in zip((STEM, *WIDTHS[:-1]), shapes, strict=True)
        )

    @property
    def blocks(self) -> nn.ModuleList:
        """The sixteen blocks, to be gone through one by one."""
        return self._blocks

    def embed(self, images: Tensor) -> Tensor:
        """Normalised colours ``(B, 3, H, W)`` to what the first block takes, ``(B, 32, H / 2, W / 2)``."""
        stem: Tensor = self._relu0(self._bn0(self._conv_stem(images)))
        return stem

    def forward(self, images: Tensor) -> list[Tensor]:
        """``(B, 3, H, W)`` to maps of 24, 40, 112 and 320 channels at the strides 4, 8, 16 and 32."""
        x, maps = self.embed(images), []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in OUTPUTS:
                maps.append(x)
        return maps


def tower_of(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tower's tensors out of the published ones: the classifier and what counts batches is left behind."""
    return {
        name: tensor
        for name, tensor in published.items()
        if name.startswith(("_conv_stem.", "_bn0.", "_blocks.")) and not name.endswith("num_batches_tracked")
    }
