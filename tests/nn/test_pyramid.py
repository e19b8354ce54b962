"""The pyramid of a plain map: sizes, norms, and what its first level is made of."""

import pytest
import torch
from torch.nn import functional

from wasnow.nn.pyramid import LayerNorm2d, LevelHead, SimpleFPN


@pytest.mark.parametrize("channels", [1, 2, 3, 16])
def test_a_map_at_stride_16_becomes_strides_4_8_16_and_32(channels):
    levels = SimpleFPN(channels, 8)(torch.randn(2, channels, 6, 4))
    assert [tuple(level.shape) for level in levels] == [(2, 8, 24, 16), (2, 8, 12, 8), (2, 8, 6, 4), (2, 8, 3, 2)]


def test_its_norm_is_layer_norm_over_channels():
    norm = LayerNorm2d(5).double()
    with torch.no_grad():
        norm.weight.copy_(torch.rand(5))
        norm.bias.copy_(torch.rand(5))
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    expected = functional.layer_norm(x.movedim(1, -1), (5,), norm.weight, norm.bias, 1e-6).movedim(-1, 1)
    assert torch.allclose(norm(x), expected, atol=1e-12)


def test_places_of_a_level_depend_only_on_near_places():
    torch.manual_seed(0)
    fpn = SimpleFPN(4, 4)
    x = torch.randn(1, 4, 8, 8)
    y = x.clone()
    y[..., 0, 0] += 1
    for level, other in zip(fpn(x), fpn(y), strict=True):
        assert (level[..., 0, 0] != other[..., 0, 0]).any()
        assert torch.equal(level[..., -1, -1], other[..., -1, -1])


def test_the_head_returns_logits_at_the_finest_level():
    levels = SimpleFPN(6, 8)(torch.randn(2, 6, 4, 4))
    assert LevelHead(8, 12, 3)(levels).shape == (2, 3, 16, 16)
    assert LevelHead(8, 12, 1, norm=LayerNorm2d)(levels).shape == (2, 1, 16, 16)


def test_the_head_joins_levels_as_a_concatenation_would():
    torch.manual_seed(0)
    head = LevelHead(6, 5, 3).double().eval()
    levels = [torch.randn(2, 6, side, side, dtype=torch.float64) for side in (16, 8, 4, 2)]
    read = [
        functional.interpolate(read(level), size=(16, 16), mode="bilinear", align_corners=False)
        for read, level in zip(head.levels, levels, strict=True)
    ]
    expected = head.logits(head.join(torch.cat(read, dim=1)))
    assert torch.allclose(head(levels), expected, atol=1e-12)
