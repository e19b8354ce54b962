"""ChangeMask and its encoder against torch's own 3-D convolution and published sizes.

What all networks promise, its symmetry in time among that, is in ``tests/contract``.
"""

import pytest
import torch
from torch.nn import functional

from wasnow.errors import UsageError
from wasnow.models.changemask import ChangeMask, Decoder, Interaction
from wasnow.models.published.convert import convert
from wasnow.nn.efficientnet import WIDTHS, Block, EfficientNetB0


@torch.inference_mode()
def test_joining_two_maps_is_the_3d_convolution_of_both_orders():
    torch.manual_seed(0)
    join = Interaction(6).eval()
    join.norm.running_mean.uniform_()
    one, other = torch.randn(2, 2, 6, 5, 7)
    there, back = (
        functional.relu(join.norm(join.conv(torch.stack(pair, dim=2)).squeeze(2)))
        for pair in ((one, other), (other, one))
    )
    assert torch.allclose(join(one, other), there + back, atol=1e-5)
    assert torch.allclose(join(one, other), join(other, one), atol=1e-6)


def test_its_encoder_is_efficientnet_b0_as_published():
    # 5,288,548 parameters with the classifier for 1000 classes, as its authors' and PyTorch's tables say.
    assert sum(each.numel() for each in EfficientNetB0().parameters()) == 5_288_548 - (1280 * 1000 + 1000)


@torch.inference_mode()
@pytest.mark.parametrize(
    ("size", "rows", "cols"),
    [((64, 32), (32, 16, 8, 4, 2), (16, 8, 4, 2, 1)), ((37, 9), (19, 10, 5, 3, 2), (5, 3, 2, 1, 1))],
)
def test_its_maps_have_half_the_size_of_the_ones_before_rounded_up(size, rows, cols):
    maps = EfficientNetB0().eval()(torch.rand(1, 3, *size))
    assert [tuple(each.shape[1:]) for each in maps] == list(zip(WIDTHS, rows, cols, strict=True))


@torch.inference_mode()
def test_a_block_weights_its_channels_by_their_mean():
    torch.manual_seed(0)
    block = Block(4, 4, 3, 1, 6).eval()
    x = torch.randn(1, 4, 5, 5)
    plain = block(x) - x
    block._se_expand.weight.zero_()
    block._se_expand.bias.fill_(30.0)  # every channel counts in full
    full = block(x) - x
    block._se_expand.bias.fill_(-30.0)  # no channel counts: what is left is the norm's own offset
    none = block(x) - x
    assert not torch.allclose(plain, full)
    assert torch.allclose(none, block._bn2(torch.zeros(1, 4, 5, 5)), atol=1e-5)


def test_blocks_are_skipped_in_training_only_and_keep_their_mean():
    torch.manual_seed(0)
    block = Block(4, 4, 3, 1, 6, drop=0.25)
    inner = torch.ones(4000, 4, 1, 1)
    dropped = block.train()._dropped(inner)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(block.eval()._dropped(inner), inner)
    rates = [each.drop for each in EfficientNetB0()._blocks]
    assert rates[0] == 0
    assert rates == sorted(rates)
    assert rates[-1] < 0.2


@torch.inference_mode()
@pytest.mark.parametrize("size", [(64, 32), (37, 9)])
def test_its_decoder_returns_to_the_size_of_the_image(size):
    maps = EfficientNetB0().eval()(torch.rand(1, 3, *size))
    assert Decoder().eval()(maps, size).shape == (1, 16, *size)


@torch.inference_mode()
def test_it_has_no_unchanged_channel_and_independent_classes_per_date():
    torch.manual_seed(0)
    network = ChangeMask(("a", "b")).eval()
    before, after, other = torch.rand(3, 1, 3, 32, 32)
    one, two = network(before, after), network(before, other)
    assert not one.unchanged_channel
    assert one.before.shape == (1, 2, 32, 32)
    assert torch.allclose(one.before, two.before, atol=1e-6)
    assert not torch.allclose(one.change, two.change)


def test_published_weights_of_four_classes_are_counted_without_unchanged(tmp_path):
    torch.save({"s.weight": torch.zeros(4, 16, 1, 1)}, tmp_path / "four.pth")
    with pytest.raises(UsageError, match="predicts 4 classes instead of the 6 published ones"):
        convert(tmp_path / "four.pth", "changemask", tmp_path / "out.safetensors")
