"""Norms folded into convolutions: the same answers from a copy that shares the rest."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from making import TINY_SEMANTIC_CD
from wasnow.models import loading, registry
from wasnow.models.contract import ChangeLogits
from wasnow.models.semantic_cd_mini import SemanticCDMini
from wasnow.nn.efficientnet_lite import Block
from wasnow.nn.fused import fused

WORDS = ("building", "water", "road")


def lived(network: nn.Module) -> nn.Module:
    """Norms that have seen something: no mean is 0, no deviation 1."""
    generator = torch.Generator().manual_seed(1)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.3, generator=generator)
            part.running_var.uniform_(0.3, 3, generator=generator)
            part.weight.data.uniform_(0.5, 1.5, generator=generator)
            part.bias.data.normal_(0, 0.3, generator=generator)
    return network


def norms(network: nn.Module) -> int:
    return sum(isinstance(part, nn.BatchNorm2d) for part in network.modules())


def images(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(*shape, generator=generator), torch.rand(*shape, generator=generator)


def parts(logits: ChangeLogits) -> tuple[torch.Tensor, ...]:
    return logits.change, logits.before, logits.after


def close(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    return bool((found - wanted).abs().max() <= 1e-4 * wanted.abs().max())


@given(
    st.sampled_from([(3, 8, 1), (8, 8, 8), (6, 4, 2)]),
    st.sampled_from([1, 3]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_a_folded_convolution_equals_the_convolution_and_its_norm(channels, kernel, bias, affine, seed):
    inside, out, groups = channels
    torch.manual_seed(seed)
    pair = nn.Sequential(
        nn.Conv2d(inside, out, kernel, groups=groups, bias=bias), nn.BatchNorm2d(out, affine=affine), nn.ReLU()
    )
    pair[1].running_mean.normal_()
    pair[1].running_var.uniform_(1e-3, 4)
    pair.eval()
    x = torch.rand(2, inside, 7, 5)
    one = fused(pair)
    assert norms(one) == 0
    with torch.no_grad():
        torch.testing.assert_close(one(x), pair(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "left"),
    [
        ("semantic-cd-mini", {}, 0),
        ("sscd-l", {}, 0),
        ("semantic-cd", TINY_SEMANTIC_CD, 1),  # where levels are joined: that convolution is not asked as a whole
        ("bisrnet", {}, 0),
        ("hrscd", {}, 0),
        ("changemask", {}, 1),  # before an unused classifier
        ("ted", {}, 0),
        ("scannet", {}, 0),
        ("smnet", {}, 8),  # they come first in their blocks
        ("mamba-scd", {"encoder": {"width": 16, "depths": (1, 1, 1, 1)}, "width": 16}, 0),
    ],
)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_folded_networks_keep_their_predictions_and_have_no_norms(name, options, left, layout):
    torch.manual_seed(0)
    model = lived(registry.build(name, **options)).eval()
    one = fused(model, layout=layout)
    assert norms(model) > left
    assert norms(one) == left
    before, after = images(1, 3, 64, 96)
    with torch.inference_mode():
        for found, wanted in zip(parts(one(before, after)), parts(model(before, after)), strict=True):
            assert close(found, wanted)


@given(st.sampled_from([1, 2]), st.integers(0, 2**31))
def test_a_transposed_convolution_is_folded_unless_it_works_in_groups(groups, seed):
    torch.manual_seed(seed)
    pair = lived(nn.Sequential(nn.ConvTranspose2d(4, 6, 3, 2, groups=groups), nn.BatchNorm2d(6))).eval()
    x = torch.rand(2, 4, 5, 3)
    one = fused(pair)
    assert norms(one) == groups - 1
    with torch.no_grad():
        torch.testing.assert_close(one(x), pair(x), rtol=1e-4, atol=1e-5)


def test_a_convolution_without_a_norm_gets_the_same_memory_format():
    alone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    one = fused(alone)
    assert one[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert alone[0].weight.is_contiguous()
    assert torch.equal(one[0].weight, alone[0].weight)
    assert one[0].bias is alone[0].bias


def test_words_can_be_bound_before_and_after():
    model = loading.load("semantic-cd-mini")
    lived(model)
    before, after = images(1, 3, 64, 64)
    with torch.inference_mode():
        wanted = model.bind(WORDS)(before, after)
        for bound in (fused(model.bind(WORDS)), fused(model).bind(WORDS)):
            assert bound.card.classes == model.bind(WORDS).card.classes
            for found, one in zip(parts(bound(before, after)), parts(wanted), strict=True):
                assert close(found, one)


def test_encoding_and_prediction_stay_separate_steps():
    """What features are kept of is the folded network too."""
    model = lived(SemanticCDMini()).eval()
    before, after = images(1, 3, 64, 64)
    one = fused(model)
    with torch.inference_mode():
        apart = one.answer(one.encode(before, after), (64, 64))
        assert all(torch.equal(a, b) for a, b in zip(parts(apart), parts(one(before, after)), strict=True))


def test_the_network_itself_is_unchanged():
    model = lived(SemanticCDMini()).train()
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    names = [name for name, _ in model.named_modules()]
    one = fused(model)
    assert not any(part.training for part in one.modules())
    assert all(part.training for part in model.modules())
    assert [name for name, _ in model.named_modules()] == names
    assert all(torch.equal(tensor, kept[name]) for name, tensor in model.state_dict().items())


def test_unfolded_modules_are_shared():
    model = SemanticCDMini().eval()
    one = fused(model)
    assert one.terms.embeddings.data_ptr() == model.terms.embeddings.data_ptr()
    assert one.words.weight is model.words.weight
    assert one.scale is model.scale


def test_a_shared_module_is_shared_in_the_copy():
    twice = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
    one = fused(nn.ModuleList([twice, twice]).eval())
    assert one[0] is one[1]


def test_a_norm_of_each_batch_stays_a_norm():
    """Without running numbers there is nothing that could be folded."""
    pair = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)).eval()
    x = torch.rand(2, 2, 4, 4)
    one = fused(pair)
    assert norms(one) == 1
    with torch.no_grad():
        torch.testing.assert_close(one(x), pair(x))


def test_a_subclass_with_its_own_forward_is_not_folded():
    class Own(Block):
        def forward(self, x):
            return self._bn2(self._project_conv(self._bn1(self._bn0(self._expand_conv(x)))))

    own = lived(Own(4, 4, 3, 1, 2)).eval()
    x = torch.rand(1, 4, 6, 6)
    one = fused(own)
    assert norms(one) == 3
    with torch.no_grad():
        torch.testing.assert_close(one(x), own(x))


def test_hooks_of_a_norm_still_run():
    pair = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)).eval()
    heard = []
    pair[1].register_forward_hook(lambda *_: heard.append(1))
    fused(pair)(torch.rand(1, 2, 4, 4))
    assert heard == [1]
