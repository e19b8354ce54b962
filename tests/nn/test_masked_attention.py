"""Masked attention: against its equations written out, and what a mask keeps from being read."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from wasnow.nn.masked_attention import MaskedAttention, pooled

WIDTH, HEADS, SIDE = 12, 3, 8


def attention(reduction=2, empty="global", seed=0):
    """In double precision, with biases and norms that are not those of a new one."""
    torch.manual_seed(seed)
    made = MaskedAttention(WIDTH, HEADS, reduction, empty=empty).double()
    with torch.no_grad():
        for each in made.parameters():
            each.add_(torch.randn_like(each) * 0.3)
    return made


def scene(batch=2, words=3, seed=1):
    """Features, and masks of which some are empty, some full, some between."""
    torch.manual_seed(seed)
    features = torch.randn(batch, WIDTH, SIDE, SIDE, dtype=torch.float64)
    masks = torch.rand(batch, words, SIDE, SIDE) < 0.1
    masks[0, 0] = False
    masks[-1, -1] = True
    return features, masks


def dense(module, features, masks):
    """The equations, with a table of all scores, a head and a word and an image at a time."""
    state, r = dict(module.named_parameters()), module.reduction

    def linear(x, name):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x, name):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]

    images = []
    for image, its_masks in zip(features, masks, strict=True):
        tokens = image.flatten(1).T
        coarse = tokens
        if r > 1:
            patches = functional.unfold(image[None], r, stride=r)[0].T
            coarse = norm(patches @ state["reduce.weight"].flatten(1).T + state["reduce.bias"], "reduce_norm")
        words = []
        for mask in its_masks:
            read = functional.max_pool2d(mask[None].double(), r)[0].flatten() > 0
            if not read.any():
                if module.empty == "zero":
                    words.append(torch.zeros_like(image))
                    continue
                read[:] = True
            barred = torch.zeros(len(tokens), len(coarse), dtype=torch.float64)
            barred[:, ~read] = -math.inf
            found = []
            for head in range(module.heads):
                own = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
                q, k, v = (
                    linear(tokens, "query")[:, own],
                    linear(coarse, "key")[:, own],
                    linear(coarse, "value")[:, own],
                )
                found.append(torch.softmax(q @ k.T / math.sqrt(WIDTH // HEADS) + barred, dim=-1) @ v)
            words.append(norm(tokens + linear(torch.cat(found, 1), "out"), "norm").T.reshape(image.shape))
        images.append(torch.stack(words))
    return torch.stack(images)


@pytest.mark.parametrize("empty", ["global", "zero"])
@pytest.mark.parametrize("reduction", [1, 2, 4])
def test_it_equals_the_equations_in_answer_and_gradients(reduction, empty):
    module, (features, masks) = attention(reduction, empty), scene()
    leaves = [features.requires_grad_(), *module.parameters()]
    answers = [module(features, masks), dense(module, features, masks)]
    assert torch.allclose(*answers, rtol=0, atol=1e-10)
    toward = torch.randn_like(answers[0])
    ours, theirs = (torch.autograd.grad((each * toward).sum(), leaves) for each in answers)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("empty", ["global", "zero"])
@pytest.mark.parametrize("fill", [False, True])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_empty_and_full_masks_are_never_nan(empty, fill, kind):
    module = copy.deepcopy(attention(2, empty)).to(kind)
    features = torch.randn(2, WIDTH, SIDE, SIDE, dtype=kind, requires_grad=True)
    answer = module(features, torch.full((2, 2, SIDE, SIDE), fill))
    answer.square().sum().backward()
    assert answer.isfinite().all()
    assert features.grad.isfinite().all()
    assert all(each.grad.isfinite().all() for each in module.parameters())


@torch.no_grad()
def test_an_empty_mask_reads_everything_or_gives_zero():
    features, masks = scene()
    nothing, everything = torch.zeros_like(masks), torch.ones_like(masks)
    module, zero = attention(empty="global"), attention(empty="zero")
    assert torch.equal(module(features, nothing), module(features, everything))
    assert not zero(features, nothing).any()
    assert torch.equal(zero(features, everything), module(features, everything))


@torch.no_grad()
@pytest.mark.parametrize("reduction", [1, 2, 4])
def test_masked_places_do_not_affect_other_places(reduction):
    module, (features, _) = attention(reduction), scene()
    masks = torch.zeros(2, 1, SIDE, SIDE, dtype=torch.bool)
    masks[..., :4, :4] = True
    other = features.clone()
    other[..., 4:, :] = 100 * torch.randn_like(other[..., 4:, :])
    one, two = module(features, masks), module(other, masks)
    assert torch.equal(one[..., :4, :], two[..., :4, :])
    assert not torch.allclose(one[..., 4:, :], two[..., 4:, :])
    masks[..., 5, 5] = True
    assert not torch.allclose(module(features, masks)[..., :4, :], module(other, masks)[..., :4, :])


@pytest.mark.parametrize("reduction", [1, 2, 4])
def test_masked_places_get_exactly_zero_gradient_from_other_places(reduction):
    module, (features, _) = attention(reduction), scene()
    masks = torch.zeros(2, 1, SIDE, SIDE, dtype=torch.bool)
    masks[..., :4, :4] = True
    module(features.requires_grad_(), masks)[..., :4, :].square().sum().backward()
    assert not features.grad[..., 4:, :].any()
    assert not features.grad[..., :4, 4:].eq(0).all()  # those places are queries themselves


@torch.no_grad()
def test_a_key_is_read_whole_where_any_of_its_places_is_of_interest():
    module, (features, _) = attention(4), scene()
    one = torch.zeros(2, 1, SIDE, SIDE, dtype=torch.bool)
    one[..., 2, 3] = True
    square = torch.zeros_like(one)
    square[..., :4, :4] = True
    assert torch.equal(module(features, one), module(features, square))


@torch.no_grad()
def test_images_of_a_batch_are_independent():
    module, (features, masks) = attention(), scene(batch=3)
    together = module(features, masks)
    for i in range(3):
        assert torch.allclose(together[i : i + 1], module(features[i : i + 1], masks[i : i + 1]), atol=1e-12)


@torch.no_grad()
def test_each_word_has_its_own_features_whatever_the_others_are():
    module, (features, masks) = attention(), scene(words=4)
    order = torch.tensor([2, 0, 3, 1])
    together = module(features, masks)
    assert torch.equal(together[:, order], module(features, masks[:, order]))
    assert torch.equal(together[:, 1:2], module(features, masks[:, 1:2]))
    assert not torch.allclose(together[:, 1], together[:, 2])


class Largest(TorchDispatchMode):
    """Remembers how many numbers the largest tensor has that any operation makes."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else [made]:
            if isinstance(each, torch.Tensor):
                self.numbers = max(self.numbers, each.untyped_storage().nbytes() // each.element_size())
        return made


@pytest.mark.parametrize("reduction", [1, 2])
def test_no_table_of_scores_is_allocated(reduction):
    side = 48
    module = MaskedAttention(WIDTH, HEADS, reduction)
    features = torch.randn(1, WIDTH, side, side, requires_grad=True)
    masks = torch.rand(1, 2, side, side) < 0.5
    with Largest() as largest:
        module(features, masks).sum().backward()
    places = side * side
    assert places * WIDTH <= largest.numbers <= 4 * places * WIDTH < places * (places // reduction**2) / 8


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 2, 4, 8]), st.integers(0, 2**31))
def test_pooling_a_mask_is_its_maximum(rows, cols, by, seed):
    masks = torch.rand(2, 3, rows * by, cols * by, generator=torch.Generator().manual_seed(seed)) < 0.1
    assert torch.equal(pooled(masks, by), functional.max_pool2d(masks.float(), by) > 0)


@pytest.mark.parametrize(("features", "masks"), [((8, 8), (8, 4)), ((6, 8), (6, 8))])
def test_incompatible_sizes_are_rejected(features, masks):
    module = MaskedAttention(WIDTH, HEADS, 4)
    with pytest.raises(ValueError, match="one size, a multiple of 4"):
        module(torch.zeros(1, WIDTH, *features), torch.zeros(1, 1, *masks, dtype=torch.bool))
