"""Fold batch norms and activations into the preceding convolutions: the same results with fewer passes over large maps.

    training    x ─ conv(w) ─ norm: (. - m) g / s + b ─ activation ─>    s = sqrt(v + eps), m and v from training
    inference   x ─ conv(w g / s, b - m g / s) and activation ──────>    in one pass: `wasnow.nn.one_pass`

A batch norm in eval mode is a factor and an offset per channel, and both can be part of the convolution. On a processor
that is limited by memory bandwidth it pays to omit the norm, and to apply the activation while the values are in the
cache. Weights are stored with channels last, like the maps of such networks.

Folded are: neighbours in ``nn.Sequential``, the chains of `FOLLOWS`, and those that a class declares as ``follows``;
norms into 2-D, 3-D and transposed convolutions. Other norms stay, which costs time and changes nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from wasnow.nn.efficientnet import Block as SqueezeBlock
from wasnow.nn.efficientnet import EfficientNetB0
from wasnow.nn.efficientnet_lite import Block, EfficientNetLite0, SameConv
from wasnow.nn.one_pass import ONE_PASS, OnePassConv, OnePassSameConv, kind_of
from wasnow.nn.resnet import BasicBlock, ResNet34

Network = TypeVar("Network", bound=nn.Module)

FOLLOWS: Mapping[type[nn.Module], tuple[tuple[str, ...], ...]] = {
    EfficientNetLite0: (("_conv_stem", "_bn0", "_relu0"),),
    Block: (("_expand_conv", "_bn0", "_relu0"), ("_depthwise_conv", "_bn1", "_relu1"), ("_project_conv", "_bn2")),
    EfficientNetB0: (("_conv_stem", "_bn0", "_swish0"),),
    SqueezeBlock: (
        ("_expand_conv", "_bn0", "_swish0"), ("_depthwise_conv", "_bn1", "_swish1"), ("_project_conv", "_bn2"),
    ),
    ResNet34: (("conv1", "bn1", "relu"),),
    BasicBlock: (("conv1", "bn1"), ("conv2", "bn2")),
}  # fmt: skip
"""Chains of convolution, norm, activation by module class, where ``forward`` passes the output of each only to
the next and calls each once.

They apply to exactly that class; a subclass may use its parts differently. Classes of `wasnow.models`, which this
module does not import, have an attribute ``follows`` of the same kind.
"""

Convolution = nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d


@torch.no_grad()
def fused(network: Network, *, layout: torch.memory_format = torch.channels_last) -> Network:
    """Return a copy for inference: in eval mode, with all chains folded; the network itself is unchanged.

    Everything except convolutions is shared with the network: weights, buffers and class words. The copy therefore
    needs only the memory of its convolutions. It has no gradients, and its state differs from that of its class: do not
    train or save it.

    Args:
        network: with trained norms; on any device.
        layout: memory format of the weights of its convolutions, and so of their outputs.

    Returns:
        The same class, with the outputs of ``network.eval()`` up to rounding (about 1e-6 of the largest value).
    """
    seen: dict[int, nn.Module] = {}
    return cast(Network, _fused(network, seen, layout))


def _fused(module: nn.Module, seen: dict[int, nn.Module], layout: torch.memory_format) -> nn.Module:
    if id(module) in seen:
        return seen[id(module)]
    # A shallow copy; its tables of parts are those of the original and are replaced here.
    shell = seen[id(module)] = copy.copy(module)
    shell._parameters = dict(module._parameters)
    shell._buffers = dict(module._buffers)
    shell._modules = {
        name: None if part is None else _fused(part, seen, layout) for name, part in module._modules.items()
    }
    shell.training = False
    if type(module) in ONE_PASS:
        conv = cast(nn.Conv2d, module)
        shell._parameters["weight"] = _laid_out(conv.weight, layout)
        if _is_plain(conv):
            shell.__class__ = ONE_PASS[type(module)]
    for names in _chains(module):
        _fold(module, shell, names, layout)
    return shell


def _is_plain(conv: nn.Conv2d) -> bool:
    """Return whether plain numbers describe the convolution."""
    return conv.padding_mode == "zeros" and not isinstance(conv.padding, str) and not _is_heard(conv)


def _is_heard(module: nn.Module) -> bool:
    """Return whether the module has forward hooks."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _fold(module: nn.Module, shell: nn.Module, names: Sequence[str], layout: torch.memory_format) -> None:
    """Fold what follows a convolution into it: a norm, then an activation, as far as possible."""
    first, *rest = names
    conv = module._modules[first]
    if not isinstance(conv, Convolution):
        return
    for name in rest:
        part = module._modules[name]
        if isinstance(part, nn.BatchNorm2d) and _folds(conv, part):
            folded = _folded(cast(Convolution, shell._modules[first]), part, layout)
        elif isinstance(shell._modules[first], OnePassConv | OnePassSameConv) and _activates(part):
            folded = copy.copy(cast(nn.Conv2d, shell._modules[first]))
            folded.activation = kind_of(cast(nn.Module, part))  # type: ignore[assignment]
        else:
            return
        shell._modules[first] = folded
        shell._modules[name] = nn.Identity().eval()
        if not isinstance(part, nn.BatchNorm2d):
            return


def _activates(part: nn.Module | None) -> bool:
    return part is not None and kind_of(part) is not None and not _is_heard(part)


def _laid_out(weight: Tensor, layout: torch.memory_format) -> nn.Parameter:
    """Return the weight in a memory format; itself, where it has that format already."""
    if weight.is_contiguous(memory_format=layout):
        return cast(nn.Parameter, weight)
    return nn.Parameter(weight.contiguous(memory_format=layout), requires_grad=False)


def _chains(module: nn.Module) -> Iterator[tuple[str, ...]]:
    """Yield names of parts, each of which gets the output of the one before and nothing else."""
    names = list(module._modules)
    if type(module) is nn.Sequential:
        yield from (tuple(names[place : place + 3]) for place in range(len(names) - 1))
    for chain in (*FOLLOWS.get(type(module), ()), *vars(type(module)).get("follows", ())):
        # A block without expansion has no first convolution.
        if all(name in names for name in chain):
            yield chain


def _folds(conv: Convolution, norm: nn.BatchNorm2d) -> bool:
    return (
        type(conv) in (nn.Conv2d, SameConv, nn.Conv3d, nn.ConvTranspose2d)
        # The output channels of a grouped transposed convolution are not one axis of its weights.
        and (type(conv) is not nn.ConvTranspose2d or conv.groups == 1)
        and type(norm) is nn.BatchNorm2d
        and norm.num_features == conv.out_channels
        and not _is_heard(conv)
        and not _is_heard(norm)
        # A norm without running statistics uses those of each batch and cannot be folded.
        and norm.running_mean is not None
        and norm.running_var is not None
    )


def _folded(conv: Convolution, norm: nn.BatchNorm2d, layout: torch.memory_format) -> Convolution:
    """Return one convolution for two; computed in float64, because a channel that was always 0 has a tiny deviation."""
    mean, var = cast(Tensor, norm.running_mean).double(), cast(Tensor, norm.running_var).double()
    factor = (var + norm.eps).rsqrt()
    if norm.weight is not None:
        factor = factor * norm.weight.double()
    offset = -mean * factor
    if norm.bias is not None:
        offset = offset + norm.bias.double()
    if conv.bias is not None:
        offset = offset + conv.bias.double() * factor
    out = 1 if isinstance(conv, nn.ConvTranspose2d) else 0
    across = [-1 if axis == out else 1 for axis in range(conv.weight.ndim)]
    weight = (conv.weight.double() * factor.view(across)).to(conv.weight.dtype)
    one = copy.copy(conv)
    one._parameters = {
        # The owner of a 3-D convolution brings its weights into the shape of a 2-D one.
        "weight": nn.Parameter(weight.contiguous(memory_format=layout) if weight.ndim == 4 else weight, False),
        "bias": nn.Parameter(offset.to(conv.weight.dtype), requires_grad=False),
    }
    one.training = False
    return one
