"""ResNet-34 with configurable strides of its stages, so that its maps can stay large.

K. He et al., "Deep residual learning for image recognition", CVPR 2016, table 1.

    image ─ conv 7x7 /2 ─ max pool /2 ─ layer1 ─ layer2 ─ layer3 ─ layer4
    width                          64       64      128      256      512
    blocks                                   3        4        6        3
    stride, as published                     4        8       16       32
    stride, strides=(1, 2, 1, 1)             4        8        8        8

Parameters have torchvision's names, so its weights fit unchanged (`convert.load_backbone`).
"""

from __future__ import annotations

from torch import Tensor, nn

DEPTHS = (3, 4, 6, 3)
WIDTHS = (64, 128, 256, 512)


class BasicBlock(nn.Module):
    """``relu(x' + BN conv3x3 relu BN conv3x3 x)``; x' is x, or a 1x1 projection of x where shapes differ.

    Args:
        inputs: input channels.
        outputs: output channels.
        stride: of the first convolution and of the projection.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            if stride != 1 or inputs != outputs
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, inputs, H, W)`` to ``(B, outputs, H / stride, W / stride)``, rounded up."""
        short = x if self.downsample is None else self.downsample(x)
        long: Tensor = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out: Tensor = self.relu(long + short)
        return out


def basic_blocks(inputs: int, outputs: int, count: int, stride: int = 1) -> nn.Sequential:
    """Return a sequence of blocks; the first changes width and size.

    Args:
        inputs: input channels.
        outputs: output channels.
        count: number of blocks.
        stride: of the first block.
    """
    first = BasicBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs) for _ in range(count - 1)))


class ResNet34(nn.Module):
    """The network without its classifier: 21.3 M parameters.

    Args:
        strides: of the four stages.
    """

    def __init__(self, strides: tuple[int, int, int, int] = (1, 2, 2, 2)) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = basic_blocks(WIDTHS[0], WIDTHS[0], DEPTHS[0], strides[0])
        self.layer2 = basic_blocks(WIDTHS[0], WIDTHS[1], DEPTHS[1], strides[1])
        self.layer3 = basic_blocks(WIDTHS[1], WIDTHS[2], DEPTHS[2], strides[2])
        self.layer4 = basic_blocks(WIDTHS[2], WIDTHS[3], DEPTHS[3], strides[3])
        initialise(self, mode="fan_out")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Map normalised images ``(B, 3, H, W)`` to the outputs of the four stages."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        first = self.layer1(x)
        second = self.layer2(first)
        third = self.layer3(second)
        return first, second, third, self.layer4(third)


def initialise(module: nn.Module, *, mode: str = "fan_in") -> None:
    """Initialise convolutions after He et al. (2015) for ReLU, biases with 0, batch norms as the identity.

    Args:
        module: all its parts are initialised.
        mode: ``fan_in`` preserves the variance of activations, ``fan_out`` that of gradients.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode=mode, nonlinearity="relu")  # type: ignore[arg-type]
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
