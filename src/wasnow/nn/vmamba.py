"""VMamba's encoder: four maps from an image, by selective scans along its rows and columns.

    image ─ conv/2 LN GELU conv/2 LN ─ blocks ─┬─ conv/2 LN ─ blocks ─┬─ conv/2 LN ─ blocks ─┬─ conv/2 LN ─ blocks ─┐
    stride                              4      ▼              8       ▼             16       ▼             32      ▼
    width (tiny)                       96     LN            192      LN            384      LN            768     LN

    block:  x += scan2d(LN x);  x += Linear GELU Linear (LN x)

    scan2d(x) = Linear LN (y1 + y2 + y3 + y4 + d x'),       x' = SiLU(3x3 depthwise conv(Linear x)), twice as wide
                ──> ──>   │ │    <── <──   ↑ ↑
                ──> ──>   ↓ ↓    <── <──   │ │               y: `wasnow.nn.selective_scan` in this order; Δ, B and C
                  y1      y2       y3      y4                    from x' at each place, separately for each order

Y. Liu et al., "VMamba: visual state space model", NeurIPS 2024, with the sizes of its release of February 2024
(``vssm1_tiny_0229`` and larger: states of one number, no gate), the basis of ChangeMamba. The names of the weights in a
block are VMamba's own. All maps are channels-last, so each step of a scan reads adjacent channels. Any height and width
works: convolutions of stride 2 round up.
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
"""Stride of the last map; multiples of it divide evenly everywhere."""

STAGES = 4
ORDERS = 4
"""By rows, by columns, and both reversed."""

WIDER = 2
"""Expansion of the channels in a block, for the scans."""

PLACES_A_RANK = 16
"""Δ is computed from one value per this many channels, as in Mamba."""

MLP = 4
"""Hidden width of a block's MLP as a multiple of its width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VMambaConfig:
    """The sizes of an encoder.

    Attributes:
        width: channels of the first map; each further map has twice as many.
        depths: blocks, by stage.
        drop_path: probability that the last block is skipped in training; rises linearly from 0 over the blocks.

    Raises:
        UsageError: a value is not valid.
    """

    width: int
    depths: tuple[int, ...]
    drop_path: float

    def __post_init__(self) -> None:
        # JSON gives lists, and a list is never equal to a tuple.
        object.__setattr__(self, "depths", tuple(self.depths))
        if len(self.depths) != STAGES or min(self.depths) < 1:
            raise UsageError(f"encoder depths {list(self.depths)} must be four positive integers, one per stage")
        if self.width < 2 or self.width % 2:
            raise UsageError(f"encoder width {self.width} must be even and greater than 0")
        if not 0 <= self.drop_path < 1:
            raise UsageError(f"encoder drop_path {self.drop_path} must be at least 0 and below 1")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the four maps."""
        return tuple(self.width << stage for stage in range(STAGES))

    def changed(self, others: Mapping[str, Any]) -> VMambaConfig:
        """Return the same config with some fields replaced.

        Raises:
            UsageError: unknown field (suggests a similar one), or an invalid value.
        """
        known = [each.name for each in fields(self)]
        for name in others:
            if name not in known:
                raise UsageError(
                    f"unknown encoder field {name!r}; use one of {', '.join(known)}{did_you_mean(name, known)}"
                )
        return VMambaConfig(**{**asdict(self), **others})


PRESETS: Mapping[str, VMambaConfig] = {
    "tiny": VMambaConfig(width=96, depths=(2, 2, 4, 2), drop_path=0.2),
    "small": VMambaConfig(width=96, depths=(2, 2, 15, 2), drop_path=0.3),
    "base": VMambaConfig(width=128, depths=(2, 2, 15, 2), drop_path=0.6),
}
"""As published, including drop_path."""


class Scan2d(nn.Module):
    """Four scans over a map, added: every place depends on all others.

    Args:
        width: input and output channels.
        scan: the scan implementation.
    """

    def __init__(self, width: int, scan: Scan = chunked) -> None:
        super().__init__()
        inner, self.rank, self.scan = WIDER * width, math.ceil(width / PLACES_A_RANK), scan
        self.in_proj = nn.Linear(width, inner, bias=False)
        self.conv2d = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False)
        self.x_proj_weight = nn.Parameter(torch.empty(ORDERS, self.rank + 2, inner))
        self.dt_projs_weight = nn.Parameter(torch.empty(ORDERS, inner, self.rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(ORDERS, inner))
        self.A_logs = nn.Parameter(torch.zeros(ORDERS * inner, 1))  # initial decay rate 1 everywhere
        self.Ds = nn.Parameter(torch.ones(ORDERS * inner))
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, width, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        """Initialise as in Mamba: Δ log-uniform from 1/1000 to 1/10; projections as `nn.Linear`."""
        for weight in (self.x_proj_weight, self.dt_projs_weight):
            bound = weight.shape[-1] ** -0.5
            nn.init.uniform_(weight, -bound, bound)
        with torch.no_grad():
            duration = torch.exp(math.log(0.001) + torch.rand_like(self.dt_projs_bias) * math.log(100))
            self.dt_projs_bias.copy_(duration + torch.log(-torch.expm1(-duration)))  # softplus, inverted

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, width)`` to the same shape."""
        x = functional.silu(self.conv2d(self.in_proj(x).permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        rows, cols = x.shape[1:3]
        # The projections act on single places, so they are computed once for all four orders.
        projected = functional.linear(x, self.x_proj_weight.flatten(0, 1))
        by_rows = self._both_ways(x.flatten(1, 2), projected.flatten(1, 2), 0)
        by_cols = self._both_ways(x.transpose(1, 2).flatten(1, 2), projected.transpose(1, 2).flatten(1, 2), 1)
        # The terms D u of the four orders, which do not depend on the order.
        direct = x * self.Ds.to(counting(x.dtype)).view(ORDERS, -1).sum(0)
        down = torch.unflatten(by_cols, 1, (cols, rows)).transpose(1, 2)
        y = torch.unflatten(by_rows, 1, (rows, cols)) + down + direct
        answer: Tensor = self.out_proj(self.out_norm(y.to(self.out_norm.weight.dtype)))
        return answer

    def _both_ways(self, sequence: Tensor, projected: Tensor, first: int) -> Tensor:
        """Return the sum of the scan from the start with weights ``first`` and from the end with ``first + 2``.

        Args:
            sequence: ``(B, L, inner)``.
            projected: ``(B, L, ORDERS * (rank + 2))``, the input of Δ, B and C, for each order.
            first: 0 for rows, 1 for columns.
        """
        kind = counting(sequence.dtype)
        rates = -torch.exp(self.A_logs.to(kind)).view(ORDERS, -1, 1)
        answers = []
        for order in (first, first + 2):
            duration, write, read = torch.split(projected.chunk(ORDERS, -1)[order], [self.rank, 1, 1], -1)
            delta = functional.linear(duration, self.dt_projs_weight[order]).to(kind)
            delta = functional.softplus(delta.add_(self.dt_projs_bias[order].to(kind)))
            answers.append(self.scan(sequence, delta, rates[order], write, read, reverse=order > 1))
        return answers[0] + answers[1]


class Mlp(nn.Module):
    """Two linear layers at every place, with GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, MLP * width)
        self.fc2 = nn.Linear(MLP * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, width)`` to the same shape."""
        answer: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return answer


class DropPath(nn.Module):
    """Skips the residual of a block for some images in training; the others are scaled accordingly."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, added: Tensor) -> Tensor:
        """Map ``(B, ...)`` to the same shape."""
        if not self.training or self.rate == 0:
            return added
        kept = torch.rand(len(added), *[1] * (added.ndim - 1), device=added.device) >= self.rate
        return added * (kept / (1 - self.rate)).to(added.dtype)

    def extra_repr(self) -> str:
        """Return the rate, for printed networks."""
        return str(self.rate)


class VSSBlock(nn.Module):
    """Scans, then an MLP, both residual.

    Args:
        width: input and output channels.
        drop_path: see `DropPath`.
        scan: the scan implementation.
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
        """Map ``(B, H, W, width)`` to the same shape."""
        x = x + self.drop_path(self.op(self.norm(x)))
        answer: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return answer


class Halve(nn.Module):
    """A 3x3 convolution of stride 2 and a layer norm."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, 2, padding=1)
        self.norm = nn.LayerNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, inputs)`` to ``(B, H / 2, W / 2, outputs)``, rounded up."""
        answer: Tensor = self.norm(self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        return answer


class VMamba(nn.Module):
    """The encoder, with random weights until some are loaded.

    Args:
        config: sizes.
        scan: the scan implementation.
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
        """Map normalised images ``(B, 3, H, W)`` to four maps, finest first, in channels-last memory format.

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
    """Initialise like VMamba: linear layers with 0.02, biases with 0."""
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
"""How the names of VMamba's own weights begin -> how ours in `VMamba` begin."""
