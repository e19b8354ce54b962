"""HRSCD against what its paper says of it. What all networks promise is in ``tests/contract``."""

import pytest
import torch
from torch.nn import functional

from wasnow.models.hrscd import HRSCD, WIDTHS, Block, Decoder, Double, Encoder


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return HRSCD().eval()


@torch.inference_mode()
@pytest.mark.parametrize(
    ("size", "rows", "cols"),
    [((64, 32), (64, 32, 16, 8, 4, 2), (32, 16, 8, 4, 2, 1)), ((47, 33), (47, 23, 11, 5, 2, 1), (33, 16, 8, 4, 2, 1))],
)
def test_its_encoder_halves_five_times_rounding_down(size, rows, cols):
    maps = Encoder(3).eval()(torch.rand(1, 3, *size))
    assert [tuple(each.shape[1:]) for each in maps] == list(zip(WIDTHS, rows, cols, strict=True))


@torch.inference_mode()
def test_its_decoder_uses_all_levels():
    maps = Encoder(3).eval()(torch.rand(1, 3, 47, 33))
    assert Decoder(1, 4).eval()(maps).shape == (1, 4, 47, 33)


@torch.inference_mode()
def test_a_block_is_its_equation():
    torch.manual_seed(0)
    block = Block(3, 4, halve=True).eval()
    (conv1, norm1), (conv2, norm2), (couple, norm3) = block.first, block.second, block.short
    x = torch.randn(2, 3, 6, 6)
    long = norm2(conv2(functional.max_pool2d(functional.leaky_relu(norm1(conv1(x)), 0.01), 2)))
    short = functional.max_pool2d(norm3(couple(x)), 2)
    assert torch.allclose(block(x), functional.leaky_relu(long + short, 0.01), atol=1e-6)


@torch.inference_mode()
def test_doubling_makes_each_place_four():
    assert Double(8).eval()(torch.rand(1, 8, 3, 5)).shape == (1, 4, 6, 10)


@torch.inference_mode()
def test_classes_of_a_date_are_independent_of_the_other_and_swap_with_it(network):
    before, after, other = torch.rand(3, 1, 3, 32, 32)
    one, two, back = network(before, after), network(before, other), network(after, before)
    assert torch.equal(one.before, two.before)
    assert torch.equal(one.before, back.after)
    assert torch.equal(one.after, back.before)
    assert not torch.equal(one.change, back.change)


@torch.inference_mode()
def test_the_change_decoder_gets_the_difference_of_land_cover_features(network):
    before, after = torch.rand(2, 1, 3, 32, 32)
    told = {}
    handle = network.change_decoder.register_forward_pre_hook(lambda _, given: told.update(maps=given[0]))
    network(before, after)
    handle.remove()
    first, second = (network.land_encoder(network.normalise(each, "before")) for each in (before, after))
    for width, given, one, two in zip(WIDTHS, told["maps"], first, second, strict=True):
        assert given.shape[1] == 2 * width
        assert torch.allclose(given[:, width:], (one - two).abs(), atol=1e-5)


@torch.inference_mode()
def test_a_small_image_is_padded_by_its_edge(network):
    small = torch.rand(2, 1, 3, 8, 20)
    large = functional.pad(small.flatten(0, 1), (0, 12, 0, 24), mode="replicate").unflatten(0, (2, 1))
    one, two = network(*small), network(*large)
    assert one.change.shape == (1, 1, 8, 20)
    assert torch.equal(one.change, two.change[..., :8, :20])
    assert torch.equal(one.after, two.after[..., :8, :20])
