"""The parts of the default model above its tower: pyramid, class decoder and change decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from wasnow.nn.one_pass import convolved

CLASSES_AT_ONCE = 8
"""Classes that are computed together in inference; bounds the memory for long lists of words."""


class Pyramid(nn.Module):
    """Feature pyramid: combine maps at four strides into one at stride 4, from coarse to fine (Lin et al. 2017).

    Smoothing at full width happens at stride 8, where it costs a quarter of what it costs at stride 4.

    Args:
        inside: channels of the maps, the finest first.
        width: channels at the strides 8 to 32.
        fine: channels of the answer.
    """

    def __init__(self, inside: Sequence[int], width: int, fine: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in inside[1:])
        self.smooth = _conv(width, width, 3)
        self.narrow = nn.Conv2d(width, fine, 1, bias=False)
        self.finest = nn.Conv2d(inside[0], fine, 1)
        self.sharpen = _conv(fine, fine, 3)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return ``(B, fine, H / 4, W / 4)`` of maps ``(B, ., H / 4, W / 4)`` to ``(B, ., H / 32, W / 32)``."""
        sides = [lateral(one) for lateral, one in zip(self.laterals, maps[1:], strict=True)]
        x = sides.pop()
        while sides:
            x = sides.pop() + _doubled(x)
        x = self.finest(maps[0]) + _doubled(self.narrow(self.smooth(x)))
        sharp: Tensor = self.sharpen(functional.relu(x, inplace=True))
        return sharp


class ClassDecoder(nn.Module):
    """Predict one logit per class from its cost map and the features; all classes share the weights.

    Args:
        width: channels of the features.
        head: channels within.
    """

    def __init__(self, width: int, head: int) -> None:
        super().__init__()
        self.shared = _conv(width, head, 3)
        self.own = nn.Conv2d(1, head, 3, padding=1)
        self.around = nn.Conv2d(head, head, 3, padding=2, dilation=2, groups=head)
        self.logit = nn.Conv2d(head, 1, 1)

    def forward(self, features: Tensor, costs: Tensor) -> Tensor:
        """Return ``(B, K, h, w)`` logits of features ``(B, width, h, w)`` and costs ``(B, K, h, w)``."""
        shared = self.shared(features)
        many = costs.shape[1] if torch.is_grad_enabled() else CLASSES_AT_ONCE
        return torch.cat([self._some(shared, some) for some in torch.split(costs, many, dim=1)], dim=1)

    def _some(self, shared: Tensor, costs: Tensor) -> Tensor:
        batch, classes, rows, cols = costs.shape
        # Channels last, which torch does not choose for a single channel: a sum of two layouts takes five times as
        # long.
        places = costs.reshape(-1, 1, rows, cols)
        places = places.as_strided(places.shape, (rows * cols, 1, cols, 1)) if places.is_contiguous() else places
        own = self.own(places).unflatten(0, (batch, classes))
        x = self._looked_around(functional.relu(own + shared[:, None], inplace=True).flatten(0, 1))
        added: Tensor = self.logit(x)
        return costs + added.view(costs.shape)

    def _looked_around(self, x: Tensor) -> Tensor:
        """Return ``relu(x + around(x))`` in one convolution, by adding 1 to the centre of each kernel."""
        middle = functional.pad(self.around.weight.new_ones(1, 1, 1, 1), (1, 1, 1, 1))
        weight, bias = self.around.weight + middle, self.around.bias
        return convolved(x, weight, bias, padding=(2, 2), dilation=(2, 2), groups=self.around.groups, activation="relu")


class ChangeDecoder(nn.Module):
    """Predict log-odds of change from the features of both dates; symmetric in the dates.

    Args:
        width: channels of the features.
        head: half of the channels within.
    """

    def __init__(self, width: int, head: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _conv(2 * width, 2 * head, 1),
            _conv(2 * head, 2 * head, 3),
            _conv(2 * head, 2 * head, 3, dilation=2),
            nn.Conv2d(2 * head, 1, 1),
        )

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Return ``(B, 1, h, w)`` log-odds of features ``(B, width, h, w)`` of both dates."""
        logits: Tensor = self.layers(torch.cat([(before - after).abs(), before + after], dim=1))
        return logits


def differing(before: Tensor, after: Tensor) -> Tensor:
    """Return log-odds that independent dates have different classes: logit(1 - sum_k p1[k] p2[k]).

    Args:
        before: ``(B, K, h, w)`` class logits.
        after: the same for AFTER.

    Returns:
        ``(B, 1, h, w)``, finite for all finite logits.
    """
    first, second = (each.float().log_softmax(dim=1) for each in (before, after))
    same = (first + second).logsumexp(dim=1, keepdim=True).clamp(max=-1e-6)
    return torch.log(-torch.expm1(same)) - same


def _doubled(x: Tensor) -> Tensor:
    """Upsample by two, bilinear."""
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _conv(inside: int, out: int, kernel: int, *, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, out, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(inplace=True),
    )


def mean_directions(texts: Tensor, rows: Sequence[Sequence[str]]) -> Tensor:
    """Return ``(rows, D)`` unit vectors: the normalised mean of the unit vectors ``(n, D)`` of each row."""
    # Sums of slices: OpenVINO cannot convert index_add.
    parts = torch.split(texts, [len(row) for row in rows])
    return functional.normalize(torch.stack([part.sum(dim=0) for part in parts]), dim=-1)


def upsample_cropped(logits: Tensor, size: tuple[int, int], times: int) -> Tensor:
    """Upsample logits by ``times`` and crop the padding of `encode`."""
    full = functional.interpolate(logits, scale_factor=times, mode="bilinear", align_corners=False)
    return full[..., : size[0], : size[1]]
