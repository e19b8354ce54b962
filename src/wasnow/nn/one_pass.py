"""A convolution and the activation that follows it in one pass over memory, on a processor.

    two passes     x ─ conv ─ y ─ activation ─> y
    one pass       x ─ conv and activation ─> y          the numbers are the same, bit for bit

Small networks wait for memory more than they multiply, and the maps between a convolution and its activation are their
largest. oneDNN, which torch's convolutions call anyway, applies simple functions while the numbers are still at hand.
Torch has this as the operator that its compiler puts in place; it needs no compiler to be called. It also goes to
oneDNN where plain torch, on one thread, takes a slower way for 1x1 convolutions.

Only for answers: it has no gradient. Everything that it is not made for goes the plain way.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wasnow.nn.efficientnet_lite import SameConv

NOTHING = "none"

_KINDS: Mapping[type[nn.Module], str] = {nn.ReLU: "relu", nn.ReLU6: "hardtanh", nn.SiLU: "swish"}
_LIMITS: Mapping[str, list[float]] = {"hardtanh": [0.0, 6.0]}


def kind_of(module: nn.Module) -> str | None:
    """What `convolved` calls an activation; None for one that it does not know."""
    return _KINDS.get(type(module))


def convolved(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    activation: str = NOTHING,
) -> Tensor:
    """A 2-D convolution and what follows it.

    Args:
        x: ``(B, C, H, W)``; the answer has its layout in memory.
        weight: ``(out, C / groups, rows, cols)``.
        bias: ``(out,)`` or None.
        stride: as torch's, and so on.
        padding: likewise.
        dilation: likewise.
        groups: likewise.
        activation: ``none``, or what `kind_of` says.
    """
    dtype = _dtype(x, weight)
    if dtype is None:
        return _activated(functional.conv2d(x, weight, bias, stride, padding, dilation, groups), activation)
    if dtype != weight.dtype or dtype != x.dtype:
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    answer: Tensor = _operator()(
        x, weight, bias, padding, stride, dilation, groups, activation, _LIMITS.get(activation, []), ""
    )
    return answer


def _dtype(x: Tensor, weight: Tensor) -> torch.dtype | None:
    """The numbers that the one pass would use; None where it cannot or must not be made."""
    if (
        torch.is_grad_enabled()
        or x.device.type != "cpu"
        or x.ndim != 4
        or x.numel() == 0
        # Whoever writes the network down knows torch's own convolutions.
        or torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or _operator() is None
    ):
        return None
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        return dtype if dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported() else None
    return torch.float32 if x.dtype == weight.dtype == torch.float32 else None


def _operator() -> Any:
    """Torch's operator; None where it is not, or not as it was when this was written."""
    return _tried() if torch.backends.mkldnn.enabled else None


@cache
def _tried() -> Any:
    """The operator, if it does what we take it for: torch promises its name to nobody."""
    operator = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
    if operator is None:
        return None
    x, weight, bias = torch.tensor([[[[-3.0, 9.0]]]]), torch.tensor([[[[2.0]]]]), torch.tensor([1.0])
    try:
        with torch.inference_mode(), torch.autocast("cpu", enabled=False):
            for activation in (NOTHING, *_KINDS.values()):
                found = operator(
                    x, weight, bias, (0, 0), (1, 1), (1, 1), 1, activation, _LIMITS.get(activation, []), ""
                )
                if not torch.allclose(found, _activated(2 * x + 1, activation)):
                    return None
    except (RuntimeError, TypeError, NotImplementedError):
        return None
    return operator


def _activated(x: Tensor, activation: str) -> Tensor:
    match activation:
        case "relu":
            return functional.relu(x)
        case "hardtanh":
            return functional.relu6(x)
        case "swish":
            return functional.silu(x)
    return x


class OnePassConv(nn.Conv2d):
    """A convolution that applies the activation behind it; made by `wasnow.nn.fused` and not to be trained."""

    activation = NOTHING

    def forward(self, x: Tensor) -> Tensor:
        """See `convolved`."""
        return convolved(
            x,
            self.weight,
            self.bias,
            stride=self.stride,  # type: ignore[arg-type]
            padding=self.padding,  # type: ignore[arg-type]
            dilation=self.dilation,  # type: ignore[arg-type]
            groups=self.groups,
            activation=self.activation,
        )


class OnePassSameConv(SameConv):
    """The same with the padding of `SameConv`."""

    activation = NOTHING

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inside, H, W)`` to ``(B, out, ceil(H / stride), ceil(W / stride))``."""
        weight, padding = self.placed(x.shape[-2], x.shape[-1])
        return convolved(
            x,
            weight,
            self.bias,
            stride=self.stride,  # type: ignore[arg-type]
            padding=padding,
            groups=self.groups,
            activation=self.activation,
        )


ONE_PASS: Mapping[type[nn.Module], type[nn.Module]] = {nn.Conv2d: OnePassConv, SameConv: OnePassSameConv}
