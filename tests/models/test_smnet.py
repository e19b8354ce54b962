"""SMNet, a reconstruction, against its own equations. What all networks promise is in ``tests/contract``."""

import math

import pytest
import torch
from torch.nn import functional

import wasnow.models.smnet as module
from wasnow.models.smnet import COARSER, WIDTHS, Attention, Decoder, Encoder, Fusion, PreActivated, SMNet


def test_its_summary_says_that_it_is_a_reconstruction():
    assert module.__doc__.splitlines()[0].startswith("SMNet, a reconstruction")
    assert "reconstruction" in SMNet(("a",)).card.summary


@torch.inference_mode()
@pytest.mark.parametrize(("size", "coarser"), [((6, 4), 2), ((5, 3), 2), ((3, 4), 1), ((2, 2), 8)])
def test_attention_reads_the_means_of_a_coarser_grid(size, coarser):
    torch.manual_seed(0)
    attention = Attention(8, 2, coarser)
    x = torch.randn(1, 8, *size)
    grid = torch.stack(
        [
            x[0, :, row : row + coarser, col : col + coarser].mean((1, 2))
            for row in range(0, size[0], coarser)
            for col in range(0, size[1], coarser)
        ],
        dim=1,
    )
    query = attention.query.weight[:, :, 0, 0] @ x[0].flatten(1)
    key, value = (attention.key_value.weight[:, :, 0, 0] @ grid).chunk(2)
    found = []
    for q, k, v in zip(query.chunk(2), key.chunk(2), value.chunk(2), strict=True):
        found.append(v @ torch.softmax(q.T @ k / math.sqrt(4), dim=-1).T)
    answer = attention.out(torch.cat(found).unflatten(1, size)[None])
    assert torch.allclose(attention(x), answer, atol=1e-5)


@torch.inference_mode()
def test_all_grids_of_keys_equal_that_of_the_coarsest_level():
    for width, coarser, level in zip(WIDTHS, COARSER, Encoder().eval()(torch.rand(1, 3, 96, 64)), strict=True):
        assert level.shape[1] == width
        assert tuple(side // coarser for side in level.shape[-2:]) == (3, 2)


@torch.inference_mode()
def test_a_pre_activated_block_with_zero_weights_returns_its_input():
    block = PreActivated(4, 4).eval()
    block.conv2.weight.zero_()
    x = torch.randn(1, 4, 5, 5)  # below 0 too: nothing stands after the sum
    assert torch.equal(block(x), x)


@torch.inference_mode()
def test_fusion_separates_foreground_and_background_and_is_symmetric():
    torch.manual_seed(0)
    fusion = Fusion(6).eval()
    one, other = torch.randn(2, 2, 6, 5, 7)
    given = []
    handle = fusion.join.register_forward_pre_hook(lambda _, x: given.append(x[0]))
    answer = fusion(one, other)
    assert torch.equal(answer, fusion(other, one))
    handle.remove()
    foreground, background, whole = given[0].chunk(3, dim=1)
    changed = fusion.difference((one - other).abs())
    assert torch.allclose(foreground + background, changed, atol=1e-6)
    # Every place of a channel is weighed alike: the two maps are multiples of each other.
    assert torch.allclose(whole * changed.sum((2, 3), True), changed * whole.sum((2, 3), True), atol=1e-4)
    assert (whole <= changed).all()


@torch.inference_mode()
def test_alike_dates_leave_no_trace_of_what_is_there():
    torch.manual_seed(0)
    network = SMNet(("a", "b")).eval()
    one, other = torch.rand(2, 1, 3, 32, 32)
    assert torch.equal(network(one, one).change, network(other, other).change)
    assert not torch.allclose(network(one, one).before, network(other, other).before)


@torch.inference_mode()
@pytest.mark.parametrize("size", [(64, 32), (33, 70)])
def test_a_decoder_returns_logits_at_the_size_of_the_image(size):
    maps = Encoder().eval()(torch.rand(1, 3, *size))
    assert Decoder(5).eval()(maps, size).shape == (1, 5, *size)


@torch.inference_mode()
def test_a_decoder_enlarges_its_logits_bilinearly():
    torch.manual_seed(0)
    maps, decoder = Encoder().eval()(torch.rand(1, 3, 32, 32)), Decoder(2).eval()
    small = decoder(maps, (8, 8))
    large = functional.interpolate(small, size=(32, 32), mode="bilinear", align_corners=False)
    assert torch.allclose(decoder(maps, (32, 32)), large, atol=1e-6)
