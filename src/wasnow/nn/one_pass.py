"""A convolution and the activation that follows it in one pass over memory, on a CPU.

    two passes     x ─ conv ─ y ─ activation ─> y
    one pass       x ─ conv and activation ─> y          the values are the same, bit for bit

Small networks are limited by memory bandwidth, and the maps between a convolution and its activation are their largest.
oneDNN, which torch's convolutions use anyway, applies simple functions while the values are in the cache. Torch has an
operator for this that its compiler uses; it can be called without the compiler. It also uses oneDNN where plain torch,
on one thread, chooses a slower implementation of 1x1 convolutions.

For inference only: the operator has no gradient. Everything that it does not support uses the plain implementation.
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
    """Return the name of an activation for `convolved`; None for an unsupported one."""
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
    """Return a 2-D convolution followed by an activation.

    Args:
        x: ``(B, C, H, W)``; the output has its memory format.
        weight: ``(out, C / groups, rows, cols)``.
        bias: ``(out,)`` or None.
        stride: as in torch.
        padding: as in torch.
        dilation: as in torch.
        groups: as in torch.
        activation: ``none``, or a name from `kind_of`.
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
    """Return the number type of the one-pass operator; None where it cannot be used."""
    if (
        torch.is_grad_enabled()
        or x.device.type != "cpu"
        or x.ndim != 4
        or x.numel() == 0
        # Exporters support torch's own convolutions only.
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
    """Return torch's operator; None where it is missing or behaves differently."""
    return _tried() if torch.backends.mkldnn.enabled else None


@cache
def _tried() -> Any:
    """Return the operator if it computes what is expected: it is not part of torch's public interface."""
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
    """A convolution that includes the following activation; created by `wasnow.nn.fused`, not for training."""

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
        """Map ``(B, inside, H, W)`` to ``(B, out, ceil(H / stride), ceil(W / stride))``."""
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
