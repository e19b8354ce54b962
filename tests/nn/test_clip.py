"""CLIP's towers answer what transformers' own CLIP answers with the same weights; a shared prefix changes nothing."""

import dataclasses
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPConfig, CLIPModel

from wasnow.errors import UsageError
from wasnow.nn.clip import Clip
from wasnow.nn.clip_config import ACTIVATIONS, PRESETS, ClipConfig
from wasnow.nn.clip_words import tokenize

TINY = ClipConfig(
    image_width=24,
    image_layers=3,
    image_heads=2,
    image_mlp=40,
    patch=4,
    image_size=16,
    text_width=16,
    text_layers=3,
    text_heads=4,
    text_mlp=24,
    embed=12,
)
WORDS = ["water", "low vegetation", "a satellite photo of a solar farm", "tree"]


def random_clip(config=TINY, seed=0, dtype=torch.float64):
    """With weights large enough that attention is not flat."""
    torch.manual_seed(seed)
    clip = Clip(config).to(dtype)
    with torch.no_grad():
        for name, weight in clip.named_parameters():
            if weight.ndim and "norm" not in name:
                weight.copy_(torch.randn_like(weight) * (0.8 if weight.ndim == 1 else weight.shape[-1] ** -0.5 * 1.5))
            elif weight.ndim:
                weight.add_(torch.randn_like(weight) * 0.2)
    return clip.eval()


THEIRS = {
    "image.patch_embedding.weight": "vision_model.embeddings.patch_embedding.weight",
    "image.class_embedding": "vision_model.embeddings.class_embedding",
    "image.position_embedding": "vision_model.embeddings.position_embedding.weight",
    "image.norm_before": "vision_model.pre_layrnorm",
    "image.norm_after": "vision_model.post_layernorm",
    "image.blocks": "vision_model.encoder.layers",
    "image.projection": "visual_projection",
    "text.token_embedding": "text_model.embeddings.token_embedding",
    "text.position_embedding": "text_model.embeddings.position_embedding.weight",
    "text.norm_after": "text_model.final_layer_norm",
    "text.blocks": "text_model.encoder.layers",
    "text.projection": "text_projection",
}


def their_clip(ours):
    """Transformers' whole model, with the weights of ours."""
    config = ours.config

    def tower(name):
        return {
            "hidden_size": getattr(config, f"{name}_width"),
            "intermediate_size": getattr(config, f"{name}_mlp"),
            "num_hidden_layers": getattr(config, f"{name}_layers"),
            "num_attention_heads": getattr(config, f"{name}_heads"),
            "hidden_act": ACTIVATIONS[config.activation],
        }

    theirs = CLIPModel(
        CLIPConfig(
            text_config=tower("text"),
            vision_config={**tower("image"), "patch_size": config.patch, "image_size": config.image_size},
            projection_dim=config.embed,
        )
    ).to(ours.logit_scale.dtype)
    state = {}
    for name, weight in ours.state_dict().items():
        begins = next((begins for begins in THEIRS if name.startswith(begins)), None)
        state[name if begins is None else name.replace(begins, THEIRS[begins], 1)] = weight
    theirs.load_state_dict(state)
    return theirs.eval()


@pytest.fixture(scope="module", params=sorted(ACTIVATIONS))
def both(request):
    ours = random_clip(dataclasses.replace(TINY, activation=request.param))
    return ours, their_clip(ours)


# --- image tower --------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_image_tower_is_that_of_transformers(both):
    ours, theirs = both
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    pooled, patches = ours.image(images)
    told = theirs.get_image_features(images)
    assert torch.allclose(pooled, told.pooler_output, atol=1e-10)
    dense = theirs.visual_projection(theirs.vision_model.post_layernorm(told.last_hidden_state[:, 1:]))
    assert torch.allclose(patches, dense, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize("size", [(16, 24), (32, 32), (8, 12), (4, 64)])
def test_images_of_any_size_are_read_as_transformers_reads_them(both, size):
    ours, theirs = both
    images = torch.randn(1, 3, *size, dtype=torch.float64)
    told = theirs.get_image_features(images, interpolate_pos_encoding=True).pooler_output
    pooled, patches = ours.image(images)
    # It resizes positions in float32 where the weights are less exact; here neither does.
    assert torch.allclose(pooled, told, atol=1e-10)
    assert patches.shape == (1, size[0] * size[1] // 16, TINY.embed)


def test_positions_at_the_native_grid_are_the_weights_themselves():
    tower = random_clip().image
    assert tower.positions(4, 4) is tower.position_embedding


def test_positions_that_are_all_equal_stay_so_at_any_grid():
    tower = random_clip().image
    with torch.no_grad():
        tower.position_embedding[1:] = tower.position_embedding[1]
        assert torch.allclose(tower.positions(7, 3)[1:], tower.position_embedding[1], atol=1e-12)


def test_positions_of_a_turned_grid_are_the_turned_positions():
    tower = random_clip().image
    with torch.no_grad():
        tall = tower.positions(8, 5)[1:].view(8, 5, -1)
        grid = tower.position_embedding[1:].view(4, 4, -1)
        tower.position_embedding[1:] = grid.transpose(0, 1).flatten(0, 1)
        wide = tower.positions(5, 8)[1:].view(5, 8, -1)
    assert torch.allclose(wide, tall.transpose(0, 1), atol=1e-12)


@torch.no_grad()
def test_running_the_blocks_one_by_one_is_running_the_tower():
    tower = random_clip().image
    images = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    tokens = tower.embed(images)
    assert tokens.shape == (2, 1 + 24, TINY.image_width)
    for number in range(len(tower.blocks)):
        tokens = tower.blocks[number](tokens)
    pooled, patches = tower(images)
    assert torch.equal(tower.project(tokens), torch.cat([pooled[:, None], patches], 1))


def test_images_that_patches_do_not_divide_are_refused_with_the_nearest_size():
    with pytest.raises(UsageError, match="resize them to 16 x 20"):
        random_clip().image.embed(torch.zeros(1, 3, 15, 19, dtype=torch.float64))


def test_checkpointing_changes_no_gradient():
    tower = random_clip().image
    images = torch.randn(1, 3, 16, 16, dtype=torch.float64)

    def gradient():
        tower.zero_grad()
        pooled, patches = tower(images)
        (pooled.sum() + patches.square().sum()).backward()
        return tower.patch_embedding.weight.grad.clone()

    plain = gradient()
    tower.checkpointing = True
    assert tower.checkpointing
    assert all(block.checkpointing for block in tower.blocks)
    assert torch.allclose(gradient(), plain, atol=1e-12)


# --- text tower ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_text_tower_is_that_of_transformers(both):
    ours, theirs = both
    ids = tokenize(WORDS)
    assert torch.allclose(ours.text(ids), theirs.get_text_features(ids).pooler_output, atol=1e-10)


@torch.no_grad()
def test_tokens_after_eos_change_nothing():
    text = random_clip().text
    ids = tokenize(WORDS, 20)
    other = torch.where(ids == 0, torch.randint(1, 40000, ids.shape), ids)
    assert torch.allclose(text(ids), text(other), atol=1e-12)
    assert torch.allclose(text(ids), text(tokenize(WORDS, 77)), atol=1e-12)


def test_a_text_without_eos_is_refused():
    with pytest.raises(ValueError, match="has no EOS"):
        random_clip().text(torch.tensor([[49406, 5, 0]]))


def test_positions_are_stretched_only_where_they_are_too_few():
    text = random_clip().text
    assert torch.equal(text.positions(9), text.position_embedding[:9])
    assert torch.equal(text.positions(77), text.position_embedding)
    long = text.positions(153)
    assert long.shape == (153, TINY.text_width)
    # Twice as fine: every other one is an old one, and those between are halfway.
    assert torch.allclose(long[::2], text.position_embedding)
    assert torch.allclose(long[1::2], (text.position_embedding[1:] + text.position_embedding[:-1]) / 2)


# --- a shared prefix ----------------------------------------------------------------------------------------------


def naive(text, prefix, tails, last):
    """Every pair of prefix and suffix run whole, one by one, through transformers' blocks."""
    rows = []
    for one in prefix:
        for tail, end in zip(tails, last.tolist(), strict=True):
            tokens = torch.cat([one, tail[: end + 1]])[None]
            for block in text.blocks:
                tokens = block(tokens, causal=True)
            rows.append(text.project(tokens[0, -1]))
    return torch.stack(rows).view(len(prefix), len(tails), -1)


def drawn(seed, batch, length, lasts, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    prefix = torch.randn(batch, length, TINY.text_width, generator=draw, dtype=dtype)
    tails = torch.randn(len(lasts), max(lasts) + 3, TINY.text_width, generator=draw, dtype=dtype)
    return prefix, tails, torch.tensor(lasts)


@settings(max_examples=15)
@given(
    seed=st.integers(0, 1000),
    batch=st.integers(1, 3),
    length=st.integers(1, 9),
    lasts=st.lists(st.integers(0, 6), min_size=1, max_size=6),
)
def test_suffixes_after_a_shared_prefix_equal_whole_texts(seed, batch, length, lasts):
    text = random_clip().text
    prefix, tails, last = drawn(seed, batch, length, lasts)
    with torch.no_grad():
        ours = text.suffix(text.prefix(prefix), tails, last)
        assert torch.allclose(ours, naive(text, prefix, tails, last), atol=1e-10)


def test_in_float32_they_differ_by_less_than_1e_5():
    text = random_clip(dtype=torch.float32).text
    prefix, tails, last = drawn(1, 2, 30, [1, 4, 2, 0], torch.float32)
    with torch.no_grad():
        whole = naive(text, prefix, tails, last)
        ours = text.suffix(text.prefix(prefix), tails, last)
    assert (ours - whole).abs().max() <= 1e-5 * whole.abs().max()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_prefix_and_suffix_as_through_the_whole_texts(checkpointing):
    text = random_clip().text
    text.checkpointing = checkpointing
    prefix, tails, last = drawn(2, 2, 5, [1, 3, 0])
    weights = torch.randn(2, 3, TINY.embed, dtype=torch.float64)

    def gradients(run):
        inputs = [prefix.clone().requires_grad_(), tails.clone().requires_grad_()]
        (run(*inputs) * weights).sum().backward()
        return [one.grad for one in inputs]

    ours = gradients(lambda p, t: text.suffix(text.prefix(p), t, last))
    whole = gradients(lambda p, t: naive(text, p, t, last))
    for mine, theirs in zip(ours, whole, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-10)
    assert ours[0].abs().min() > 0
    assert ours[1][0, 2:].abs().max() == 0  # behind the EOS of the first text


@torch.no_grad()
def test_words_after_a_shared_prefix_equal_those_of_transformers(both):
    ours, theirs = both
    ids = tokenize([f"aerial photo of {word}" for word in WORDS])
    shared = 4  # SOS, aerial, photo, of
    assert (ids[:, :shared] == ids[0, :shared]).all()
    embedded = ours.text.embed(ids) + ours.text.positions(77)
    prefix = ours.text.prefix(embedded[:1, :shared])
    last = (ids == 49407).int().argmax(1) - shared
    answer = ours.text.suffix(prefix, embedded[:, shared:], last)
    assert torch.allclose(answer[0], theirs.get_text_features(ids).pooler_output, atol=1e-10)


@torch.no_grad()
def test_texts_are_independent_and_ignore_tokens_after_eos():
    text = random_clip().text
    prefix, tails, last = drawn(3, 2, 4, [2, 5, 1])
    known = text.prefix(prefix)
    whole = text.suffix(known, tails, last)
    changed = tails.clone()
    changed[1] = changed[1].flip(-1)
    changed[0, 3:] = 0
    again = text.suffix(known, changed, last)
    assert torch.allclose(again[:, [0, 2]], whole[:, [0, 2]], atol=1e-12)
    assert not torch.allclose(again[:, 1], whole[:, 1], atol=1e-3)
    turned = text.suffix(known, tails[[2, 0, 1]], last[[2, 0, 1]])
    assert torch.allclose(turned, whole[:, [2, 0, 1]], atol=1e-12)


# --- sizes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "millions"), [("vit-b-32", 151.3), ("vit-b-16", 149.6), ("vit-l-14", 427.6)])
def test_the_presets_have_as_many_parameters_as_the_published_models(name, millions):
    with torch.device("meta"):
        clip = Clip(PRESETS[name])
    assert sum(one.numel() for one in clip.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


def test_a_clip_built_on_the_meta_device_is_complete_after_loading():
    full = random_clip(dtype=torch.float32)
    with torch.device("meta"):
        empty = Clip(TINY)
    empty.load_state_dict(full.state_dict(), assign=True)
    images = torch.randn(1, 3, 16, 20)
    with torch.no_grad():
        assert torch.equal(empty.to("cpu").image(images)[0], full.image(images)[0])


def test_a_description_survives_json():
    config = dataclasses.replace(TINY, activation="quickgelu", eps=1e-6)
    assert ClipConfig.from_dict(json.loads(json.dumps(config.dict()))) == config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"activation": "quick_gelu"}, "did you mean 'quickgelu'"),
        ({"image_heads": 5}, "5 heads do not divide the image width 24"),
        ({"patch": 5}, "patches of 5 px do not divide images of 16 px"),
        ({"text_layers": 0}, "text_layers is 0"),
        ({"widht": 3}, "unknown CLIP setting 'widht'"),
    ],
)
def test_an_invalid_description_is_rejected(change, words):
    with pytest.raises(UsageError, match=words):
        ClipConfig.from_dict({**TINY.dict(), **change})


def test_an_incomplete_description_names_the_missing_field():
    values = TINY.dict()
    del values["patch"], values["embed"]
    with pytest.raises(UsageError, match="lacks patch, embed"):
        ClipConfig.from_dict(values)
