"""EfficientNet-Lite0: the shapes of its maps, its padding, and its equations written out from the tensors' names."""

import math

import pytest
import torch
from torch.nn import functional

from wasnow.nn.efficientnet_lite import BLOCKS, OUTPUTS, WIDTHS, EfficientNetLite0, SameConv, tower_of

PUBLISHED = 4_652_008
"""Parameters of the whole network as its authors count them."""


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    made = EfficientNetLite0()
    with torch.no_grad():
        for norm in made.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.running_mean.normal_(0, 0.2)
                norm.running_var.uniform_(0.5, 1.5)
                norm.weight.uniform_(0.5, 1.5)
                norm.bias.normal_(0, 0.2)
    return made.eval()


def test_with_its_classifier_it_has_the_published_number_of_parameters(tower):
    head, classifier = 320 * 1280 + 2 * 1280, 1280 * 1000 + 1000
    assert sum(each.numel() for each in tower.parameters()) + head + classifier == PUBLISHED


@torch.no_grad()
def test_maps_lie_at_strides_4_8_16_and_32(tower):
    maps = tower(torch.rand(1, 3, 96, 160))
    assert [tuple(one.shape) for one in maps] == [
        (1, WIDTHS[place], 96 // stride, 160 // stride) for place, stride in zip(OUTPUTS, (4, 8, 16, 32), strict=True)
    ]


@torch.no_grad()
@pytest.mark.parametrize("size", [31, 33, 40])
def test_odd_sizes_are_rounded_up_at_every_stride(tower, size):
    for one, stride in zip(tower(torch.rand(1, 3, size, size)), (4, 8, 16, 32), strict=True):
        assert one.shape[-1] == math.ceil(size / stride)


@torch.no_grad()
@pytest.mark.parametrize(("kernel", "stride", "size"), [(3, 2, 8), (3, 2, 9), (5, 2, 8), (5, 2, 11), (3, 1, 7)])
def test_an_odd_pixel_of_padding_goes_to_the_right_and_below(kernel, stride, size):
    layer = SameConv(1, 1, kernel, stride)
    image = torch.rand(1, 1, size, size)
    missing = max(0, (math.ceil(size / stride) - 1) * stride + kernel - size)
    padded = torch.zeros(1, 1, size + missing, size + missing)
    padded[..., missing // 2 : missing // 2 + size, missing // 2 : missing // 2 + size] = image
    windows = padded[0, 0].unfold(0, kernel, stride).unfold(1, kernel, stride)
    assert torch.allclose(layer(image)[0, 0], (windows * layer.weight[0, 0]).sum((-1, -2)), atol=1e-6)


def by_name(state: dict[str, torch.Tensor], image: torch.Tensor) -> list[torch.Tensor]:
    """The tower from its tensors alone, all shapes read off them; the strides are those of the paper's table."""

    def conv(x, name, stride=1):
        weight = state[f"{name}.weight"]
        kernel = weight.shape[-1]
        missing = [max(0, (math.ceil(s / stride) - 1) * stride + kernel - s) for s in x.shape[-2:]]
        x = functional.pad(x, (missing[1] // 2, missing[1] - missing[1] // 2, missing[0] // 2, -(-missing[0] // 2)))
        return functional.conv2d(x, weight, None, stride, groups=x.shape[1] if weight.shape[1] == 1 else 1)

    def norm(x, name):
        mean, var, scale, shift = (
            state[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-3).sqrt() * scale + shift

    x, maps = norm(conv(image, "_conv_stem", 2), "_bn0").clamp(0, 6), []
    for number in range(16):
        block, inner = f"_blocks.{number}", x
        if f"{block}._expand_conv.weight" in state:
            inner = norm(conv(inner, f"{block}._expand_conv"), f"{block}._bn0").clamp(0, 6)
        stride = 2 if number in (1, 3, 5, 11) else 1
        inner = norm(conv(inner, f"{block}._depthwise_conv", stride), f"{block}._bn1").clamp(0, 6)
        inner = norm(conv(inner, f"{block}._project_conv"), f"{block}._bn2")
        x = x + inner if inner.shape == x.shape else inner
        if number in (2, 4, 10, 15):
            maps.append(x)
    return maps


@torch.no_grad()
def test_it_computes_what_its_tensors_say(tower):
    tower.double()
    image = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    for one, other in zip(tower(image), by_name(tower.state_dict(), image), strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-9)
    tower.float()


def test_the_classifier_of_published_weights_is_left_behind(tower):
    published = {
        **tower.state_dict(),
        "_conv_head.weight": torch.zeros(1),
        "_bn1.weight": torch.zeros(1),
        "_fc.bias": 0,
    }
    kept = tower_of(published)
    missing, unexpected = EfficientNetLite0().load_state_dict(kept, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)


def test_the_last_block_is_the_last_output():
    assert OUTPUTS[-1] == BLOCKS - 1 == len(WIDTHS) - 1
