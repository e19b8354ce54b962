"""A pixel depends on nothing beyond the receptive field that the card of a model states."""

import pytest
import torch
from torch import nn

from wasnow.models import registry

BOUNDED = ("sscd-l", "ted", "hrscd")


def smoothing(name: str) -> nn.Module:
    """The network with positive weights, so that no influence is cancelled or cut off by a ReLU."""
    torch.manual_seed(0)
    network = registry.build(name, classes=("water",)).eval()
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.uniform_(part.weight, 0.5, 1.0)
            part.weight.data /= part.weight[0].numel()
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.constant_(part.bias, 0.1)
    return network


@pytest.mark.parametrize("name", BOUNDED)
def test_the_gradient_of_a_pixel_ends_at_the_stated_receptive_field(name):
    network = smoothing(name)
    field = network.card.receptive_field
    # A strip is enough: rows and columns are treated alike.
    length, place = 2 * field + 96, field + 48
    before = torch.rand(1, 3, 64, length, requires_grad=True)
    answer = network(before, torch.rand(1, 3, 64, length))
    for offset in (0, 3):
        target = answer.change[0, 0, 32, place + offset] + answer.before[0, :, 32, place + offset].sum()
        (gradient,) = torch.autograd.grad(target, before, retain_graph=True)
        reached = gradient.abs().amax((0, 1, 2)).nonzero()[:, 0] - (place + offset)
        assert -field <= int(reached.min())
        assert int(reached.max()) <= field
        assert max(-int(reached.min()), int(reached.max())) >= field - 32  # the statement is not a loose one


@pytest.mark.parametrize("name", BOUNDED)
def test_crops_agree_where_the_receptive_field_lies_inside(name):
    network = smoothing(name)
    field, stride = network.card.receptive_field, network.card.stride
    length = 2 * field + 160
    before, after = torch.rand(1, 3, 64, length), torch.rand(1, 3, 64, length)
    with torch.no_grad():
        whole = network(before, after)
        for start in (stride, 2 * stride):
            cut = network(before[..., start:], after[..., start:])
            inner = slice(start + field, length)
            assert torch.allclose(whole.change[..., inner], cut.change[..., field:], rtol=1e-5, atol=1e-6)
            assert torch.allclose(whole.before[..., inner], cut.before[..., field:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name", sorted({"bisrnet", "changemask", "scannet", "smnet", "mamba-scd", "semantic-cd", "sam-cd"})
)
def test_networks_with_attention_scans_or_means_over_the_tile_state_no_bound(name):
    options = {"clip": "vit-b-32"} if name == "semantic-cd" else {}
    with torch.device("meta"):
        network = registry.build(name, **options)
    assert network.card.receptive_field is None
