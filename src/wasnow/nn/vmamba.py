"""VMamba's encoder: four maps from an image, by memories that run over it along its rows and columns.

    image ─ conv/2 LN GELU conv/2 LN ─ blocks ─┬─ conv/2 LN ─ blocks ─┬─ conv/2 LN ─ blocks ─┬─ conv/2 LN ─ blocks ─┐
    stride                              4      ▼              8       ▼             16       ▼             32      ▼
    width (tiny)                       96     LN            192      LN            384      LN            768     LN

    block:  x += scan2d(LN x);  x += Linear GELU Linear (LN x)

    scan2d(x) = Linear LN (y1 + y2 + y3 + y4 + d x'),       x' = SiLU(3x3 depthwise conv(Linear x)), twice as wide
                ──> ──>   │ │    <── <──   ↑ ↑
                ──> ──>   ↓ ↓    <── <──   │ │               y: `wasnow.nn.selective_scan` in this order, Δ, B and C
                  y1      y2       y3      y4                    from x', place by place, for each order its own

Y. Liu et al., "VMamba: visual state space model", NeurIPS 2024, with the sizes of its release of February 2024
(``vssm1_tiny_0229`` and its larger siblings: states of one number, no gate), which is what ChangeMamba took. The names
of the weights inside a block are VMamba's own. Everything is channels-last, so each step of a scan finds its channels
side by side. Any height and width is taken: convolutions of stride 2 round up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wasnow.errors import UsageError, did_you_mean
from wasnow.nn.selective_scan import Scan, chunked, counting

STRIDE = 32
"""Of the last map; multiples of it come out even everywhere."""

STAGES = 4
ORDERS = 4
"""By rows, by columns, and both from the end."""

WIDER = 2
"""How much wider a block is inside, where the scans are."""

PLACES_A_RANK = 16
"""Δ comes from one number for so many channels, as in Mamba."""

MLP = 4
"""Hidden width of a block's MLP over its width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VMambaConfig:
    """The sizes of an encoder.

    Attributes:
        width: channels of the first map; each further one has twice as many.
        depths: blocks, by stage.
        drop_path: how often the last block is left out in training; the others less, rising linearly from 0.

    Raises:
        UsageError: a number is not as it must be.
    """

    width: int
    depths: tuple[int, ...]
    drop_path: float

    def __post_init__(self) -> None:
        # Lists, as they come out of JSON, would make two equal encoders unequal.
        object.__setattr__(self, "depths", tuple(self.depths))
        if len(self.depths) != STAGES or min(self.depths) < 1:
            raise UsageError(f"encoder depths {list(self.depths)} are not four whole numbers above 0, one a stage")
        if self.width < 2 or self.width % 2:
            raise UsageError(f"encoder width {self.width} is not an even number above 0")
        if not 0 <= self.drop_path < 1:
            raise UsageError(f"encoder drop_path {self.drop_path} is not between 0 and 1")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the four maps."""
        return tuple(self.width << stage for stage in range(STAGES))

    def changed(self, others: Mapping[str, Any]) -> VMambaConfig:
        """The same with some fields replaced.

        Raises:
            UsageError: there is no such field (with the nearest), or its value is not as it must be.
        """
        known = [each.name for each in fields(self)]
        for name in others:
            if name not in known:
                raise UsageError(f"an encoder has no {name!r}; it has {', '.join(known)}{did_you_mean(name, known)}")
        return VMambaConfig(**{**asdict(self), **others})


PRESETS: Mapping[str, VMambaConfig] = {
    "tiny": VMambaConfig(width=96, depths=(2, 2, 4, 2), drop_path=0.2),
    "small": VMambaConfig(width=96, depths=(2, 2, 15, 2), drop_path=0.3),
    "base": VMambaConfig(width=128, depths=(2, 2, 15, 2), drop_path=0.6),
}
"""As published, the rates of drop_path too."""


class Scan2d(nn.Module):
    """Four scans over a map, added: every place comes to know of every other.

    Args:
        width: channels in and out.
        scan: how to scan.
    """

    def __init__(self, width: int, scan: Scan = chunked) -> None:
        super().__init__()
        inner, self.rank, self.scan = WIDER * width, math.ceil(width / PLACES_A_RANK), scan
        self.in_proj = nn.Linear(width, inner, bias=False)
        self.conv2d = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False)
        self.x_proj_weight = nn.Parameter(torch.empty(ORDERS, self.rank + 2, inner))
        self.dt_projs_weight = nn.Parameter(torch.empty(ORDERS, inner, self.rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(ORDERS, inner))
        self.A_logs = nn.Parameter(torch.zeros(ORDERS * inner, 1))  # every new memory forgets at the same rate, 1
        self.Ds = nn.Parameter(torch.ones(ORDERS * inner))
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, width, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        """As in Mamba: Δ from 1/1000 to 1/10 at first, evenly on a logarithmic scale; projections as `nn.Linear`."""
        for weight in (self.x_proj_weight, self.dt_projs_weight):
            bound = weight.shape[-1] ** -0.5
            nn.init.uniform_(weight, -bound, bound)
        with torch.no_grad():
            duration = torch.exp(math.log(0.001) + torch.rand_like(self.dt_projs_bias) * math.log(100))
            self.dt_projs_bias.copy_(duration + torch.log(-torch.expm1(-duration)))  # softplus, inverted

    def forward(self, x: Tensor) -> Tensor:
        """``(B, H, W, width)`` to the same."""
        x = functional.silu(self.conv2d(self.in_proj(x).permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        rows, cols = x.shape[1:3]
        # Places do not know of each other here, so what they tell is asked once for all four orders.
        told = functional.linear(x, self.x_proj_weight.flatten(0, 1))
        by_rows = self._there_and_back(x.flatten(1, 2), told.flatten(1, 2), 0)
        by_cols = self._there_and_back(x.transpose(1, 2).flatten(1, 2), told.transpose(1, 2).flatten(1, 2), 1)
        # Four times D u, where order does not matter.
        past = x * self.Ds.to(counting(x.dtype)).view(ORDERS, -1).sum(0)
        y = torch.unflatten(by_rows, 1, (rows, cols)) + torch.unflatten(by_cols, 1, (cols, rows)).transpose(1, 2) + past
        answer: Tensor = self.out_proj(self.out_norm(y.to(self.out_norm.weight.dtype)))
        return answer

    def _there_and_back(self, sequence: Tensor, told: Tensor, first: int) -> Tensor:
        """Scanned from the beginning by the weights ``first`` and from the end by ``first + 2``, and added.

        Args:
            sequence: ``(B, L, inner)``.
            told: ``(B, L, ORDERS * (rank + 2))``, what Δ comes from, B and C, for each order.
            first: 0 for rows, 1 for columns.
        """
        kind = counting(sequence.dtype)
        rates = -torch.exp(self.A_logs.to(kind)).view(ORDERS, -1, 1)
        answers = []
        for order in (first, first + 2):
            duration, write, read = torch.split(told.chunk(ORDERS, -1)[order], [self.rank, 1, 1], -1)
            delta = functional.linear(duration, self.dt_projs_weight[order]).to(kind)
            delta = functional.softplus(delta.add_(self.dt_projs_bias[order].to(kind)))
            answers.append(self.scan(sequence, delta, rates[order], write, read, reverse=order > 1))
        return answers[0] + answers[1]


class Mlp(nn.Module):
    """Two linear layers on every place, GELU between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, MLP * width)
        self.fc2 = nn.Linear(MLP * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, H, W, width)`` to the same."""
        answer: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return answer


class DropPath(nn.Module):
    """In training, leaves out what a block adds, for some of the images; what stays is enlarged accordingly."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, added: Tensor) -> Tensor:
        """``(B, ...)`` to the same."""
        if not self.training or self.rate == 0:
            return added
        kept = torch.rand(len(added), *[1] * (added.ndim - 1), device=added.device) >= self.rate
        return added * (kept / (1 - self.rate)).to(added.dtype)

    def extra_repr(self) -> str:
        """The rate, where a network is printed."""
        return str(self.rate)


class VSSBlock(nn.Module):
    """Scans, then an MLP, each added to what came in.

    Args:
        width: channels in and out.
        drop_path: see `DropPath`.
        scan: how to scan.
    """

    def __init__(self, width: int, drop_path: float = 0.0, scan: Scan = chunked) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.op = Scan2d(width, scan)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width)
        self.drop_path = DropPath(drop_path)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, H, W, width)`` to the same."""
        x = x + self.drop_path(self.op(self.norm(x)))
        answer: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return answer


class Halve(nn.Module):
    """A 3x3 convolution of stride 2, and a norm."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, 2, padding=1)
        self.norm = nn.LayerNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, H, W, inputs)`` to ``(B, H / 2, W / 2, outputs)``, rounded up."""
        answer: Tensor = self.norm(self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        return answer


class VMamba(nn.Module):
    """The encoder, with random weights until some are loaded.

    Args:
        config: its sizes.
        scan: how to scan.
    """

    def __init__(self, config: VMambaConfig, scan: Scan = chunked) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        last = sum(config.depths) - 1
        rates = iter([config.drop_path * number / last for number in range(last + 1)])
        self.stem = nn.ModuleList([Halve(3, widths[0] // 2), Halve(widths[0] // 2, widths[0])])
        self.stages = nn.ModuleList(
            nn.Sequential(*(VSSBlock(width, next(rates), scan) for _ in range(depth)))
            for width, depth in zip(widths, config.depths, strict=True)
        )
        self.halves = nn.ModuleList(Halve(width, 2 * width) for width in widths[:-1])
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images ``(B, 3, H, W)`` to four maps, finest first; channels-last in memory.

        Returns:
            ``(B, width, H / stride, W / stride)`` for strides 4, 8, 16, 32, rounded up.
        """
        x = self.stem[1](functional.gelu(self.stem[0](images.permute(0, 2, 3, 1))))
        maps: list[Tensor] = []
        for number, (stage, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            x = stage(self.halves[number - 1](x) if number else x)
            maps.append(norm(x).permute(0, 3, 1, 2))
        return maps


def initialise(module: nn.Module) -> None:
    """As VMamba: linear layers at 0.02, biases 0."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


PUBLISHED: Mapping[str, str] = {
    "patch_embed.0.": "stem.0.conv.",
    "patch_embed.2.": "stem.0.norm.",
    "patch_embed.5.": "stem.1.conv.",
    "patch_embed.7.": "stem.1.norm.",
    **{f"layers.{stage}.blocks.": f"stages.{stage}." for stage in range(STAGES)},
    **{f"layers.{stage}.downsample.1.": f"halves.{stage}.conv." for stage in range(STAGES - 1)},
    **{f"layers.{stage}.downsample.3.": f"halves.{stage}.norm." for stage in range(STAGES - 1)},
    **{f"outnorm{stage}.": f"norms.{stage}." for stage in range(STAGES)},
}
"""How the names of VMamba's own weights begin, and what stands there in `VMamba`."""
