"""TED against SSCD-l, which it extends, and its decoder. What all networks promise is in ``tests/contract``."""

import pytest
import torch

from wasnow.models.sscd_l import SSCDL
from wasnow.models.ted import TED
from wasnow.nn.three_maps import Decoder, ThreeMaps


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return TED().eval()


def test_it_is_sscd_l_with_three_decoders(network):
    up = 128 * 128 * 4 + 128
    decode = 192 * 128 * 9 + 2 * 128
    transit = 64 * 64 + 2 * 64
    decoders = 3 * (up + decode + transit) + 64 * 64  # the low map of the change has twice the channels
    assert network.card.parameters - SSCDL().card.parameters == decoders


def test_its_encoder_and_change_branch_are_those_of_sscd_l(network):
    plain = {name: each.shape for name, each in SSCDL().state_dict().items() if not name.startswith("classes")}
    own = {name.removeprefix("maps."): each.shape for name, each in network.state_dict().items()}
    assert plain.items() <= own.items()


@torch.inference_mode()
@pytest.mark.parametrize(("size", "quarter"), [((32, 48), (8, 12)), ((33, 41), (9, 11)), ((5, 70), (2, 18))])
def test_its_maps_are_at_stride_four_rounded_up(network, size, quarter):
    for each in network.maps(*torch.rand(2, 1, 3, *size)):
        assert each.shape == (1, 128, *quarter)


@torch.inference_mode()
def test_a_decoder_drops_the_row_and_column_that_rounding_up_added():
    torch.manual_seed(1)
    decoder = Decoder(64).eval()
    deep, low = torch.rand(1, 128, 3, 4), torch.rand(1, 64, 6, 8)
    even, odd = decoder(deep, low), decoder(deep, low[..., :5, :7])
    assert odd.shape == (1, 128, 5, 7)
    # A 3x3 convolution sees the missing edge from one place away.
    assert torch.allclose(odd[..., :4, :6], even[..., :4, :6], atol=1e-5)


@torch.inference_mode()
def test_maps_of_the_dates_are_independent():
    torch.manual_seed(2)
    maps = ThreeMaps().eval()
    before, after, other = torch.rand(3, 1, 3, 32, 32)
    (one, two, both), (again, third, different) = maps(before, after), maps(before, other)
    assert torch.equal(one, again)
    assert not torch.equal(two, third)
    assert not torch.equal(both, different)
