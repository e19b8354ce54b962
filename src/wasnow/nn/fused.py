"""Batch norms and activations folded into the convolutions before them: the same answers, fewer passes over large maps.

    training    x ─ conv(w) ─ norm: (. - m) g / s + b ─ activation ─>    s = sqrt(v + eps), m and v from all of training
    inference   x ─ conv(w g / s, b - m g / s) and activation ──────>    in one pass: `wasnow.nn.one_pass`

A norm that has stopped learning is a factor and an offset for each channel, and so is what a convolution gives. On a
processor that waits for memory more than it multiplies, leaving the norm out pays, and so does applying the activation
while the numbers are at hand. Weights are laid out with their channels last, as the maps of such networks are.

What is folded: neighbours in ``nn.Sequential``, the chains of `FOLLOWS`, and those that a class names itself, as
``follows``; norms into convolutions of images and of stacks of them, and transposed ones. A norm that nobody knows the
place of stays as it is, which costs time and changes nothing.
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
"""By the class of a module: convolution, norm, activation, where its ``forward`` gives what each answers to the next
alone, and asks none of them twice.

Only of that very class: what a subclass does with its parts is its own affair. Classes of `wasnow.models`, which this
module does not know, have an attribute ``follows`` of the same kind.
"""

Convolution = nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d


@torch.no_grad()
def fused(network: Network, *, layout: torch.memory_format = torch.channels_last) -> Network:
    """A copy for inference: in eval mode, each norm of `FOLLOWS` folded; the network itself stays as it is.

    All but convolutions is shared with the network, weights, buffers and words alike, so the copy costs the memory of
    its convolutions. It takes no gradients, and its state is no longer that of its class: not to be trained or saved.

    Args:
        network: with trained norms, or in eval mode from the start; on any device.
        layout: of the weights of its convolutions, and so of the maps that come out of them.

    Returns:
        The same class, answering as ``network.eval()`` does up to rounding (about 1e-6 of the largest number).
    """
    seen: dict[int, nn.Module] = {}
    return cast(Network, _fused(network, seen, layout))


def _fused(module: nn.Module, seen: dict[int, nn.Module], layout: torch.memory_format) -> nn.Module:
    if id(module) in seen:
        return seen[id(module)]
    # A copy of the outermost shell; the tables of its parts are still those of the original, and replaced here.
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
    """Whether numbers alone say what it does."""
    return conv.padding_mode == "zeros" and not isinstance(conv.padding, str) and not _is_heard(conv)


def _is_heard(module: nn.Module) -> bool:
    """Whether somebody looks at what goes in or comes out, or changes it."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _fold(module: nn.Module, shell: nn.Module, names: Sequence[str], layout: torch.memory_format) -> None:
    """Fold what follows a convolution into it: a norm, then an activation, as far as that goes."""
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
    """Itself, where that is its layout already."""
    if weight.is_contiguous(memory_format=layout):
        return cast(nn.Parameter, weight)
    return nn.Parameter(weight.contiguous(memory_format=layout), requires_grad=False)


def _chains(module: nn.Module) -> Iterator[tuple[str, ...]]:
    """Names of parts, each of which sees what the one before answers, and nothing else does."""
    names = list(module._modules)
    if type(module) is nn.Sequential:
        yield from (tuple(names[place : place + 3]) for place in range(len(names) - 1))
    for chain in (*FOLLOWS.get(type(module), ()), *vars(type(module)).get("follows", ())):
        # A block that does not widen has no first convolution.
        if all(name in names for name in chain):
            yield chain


def _folds(conv: Convolution, norm: nn.BatchNorm2d) -> bool:
    return (
        type(conv) in (nn.Conv2d, SameConv, nn.Conv3d, nn.ConvTranspose2d)
        # The channels that go out of a transposed convolution in groups are not one axis of its weights.
        and (type(conv) is not nn.ConvTranspose2d or conv.groups == 1)
        and type(norm) is nn.BatchNorm2d
        and norm.num_features == conv.out_channels
        and not _is_heard(conv)
        and not _is_heard(norm)
        # A norm without running numbers takes those of each batch, which no weight can know.
        and norm.running_mean is not None
        and norm.running_var is not None
    )


def _folded(conv: Convolution, norm: nn.BatchNorm2d, layout: torch.memory_format) -> Convolution:
    """One convolution for two; counted in float64, because a channel that was always 0 has a tiny deviation."""
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
        # Of a stack of two images the weights are brought into the shape of an image's by whoever owns them.
        "weight": nn.Parameter(weight.contiguous(memory_format=layout) if weight.ndim == 4 else weight, False),
        "bias": nn.Parameter(offset.to(conv.weight.dtype), requires_grad=False),
    }
    one.training = False
    return one
