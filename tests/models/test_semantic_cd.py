"""Semantic-CD: words that do not see each other, frozen towers, published and open forms.

The towers are small and random, and what is claimed here holds for any weights. `tests/nn/test_clip.py` holds the
towers to other people's.
"""

import pytest
import torch
from torch.nn import functional

from making import TINY_SEMANTIC_CD as SMALL
from making import textured
from wasnow.errors import UsageError, VocabularyError
from wasnow.models import checkpoint
from wasnow.models.semantic_cd import SECOND_WORDS, SemanticCD, places
from wasnow.nn.prompter import Words

WORDS = ("water", "building", "low vegetation", "solar farm")


def made(classes=WORDS, **options):
    torch.manual_seed(0)
    model = SemanticCD(classes, **{**SMALL, **options})
    with torch.no_grad():
        for name, each in model.named_parameters():
            if not each.any():
                each.normal_(std=0.05)
            if name.endswith("token_embedding.weight"):
                each.normal_(std=1.0)
    return model.double().eval()


def images(height=64, width=64, batch=1):
    scenes = [torch.from_numpy(textured(i, height, width)).double() / 255 for i in range(2 * batch)]
    return torch.stack(scenes[::2]), torch.stack(scenes[1::2])


@pytest.fixture(scope="module")
def model():
    return made()


def gap(one, other):
    return ((one - other).abs().max() / other.abs().max()).item()


@torch.no_grad()
def ask(model, *pair):
    return model(*(pair or images()))


# ------------------------------------------------------------------------------------------------------ words


def test_permuted_words_permute_the_prediction(model):
    order = [2, 0, 3, 1]
    one, other = ask(model), ask(model.bind([WORDS[i] for i in order]))
    assert torch.equal(one.change, other.change)
    for there, here in ((one.before, other.before), (one.after, other.after)):
        assert gap(here, there[:, order]) < 1e-12


def test_a_further_word_does_not_change_the_logits_of_the_others(model):
    longer = "a remarkably long name of something that is not to be seen here"
    one, other = ask(model), ask(model.bind([longer, *WORDS, "dragon"]))
    assert torch.equal(one.change, other.change)
    assert gap(other.before[:, 1:5], one.before) < 1e-12
    assert gap(other.after[:, 1:5], one.after) < 1e-12


def test_different_words_have_different_answers(model):
    answer = ask(model)
    for i in range(1, len(WORDS)):
        assert gap(answer.before[:, i], answer.before[:, 0]) > 1e-6


def test_binding_shares_the_weights_and_leaves_the_model_as_it_was(model):
    other = model.bind(["meadow"])
    assert model.card.classes == WORDS
    assert other.card.classes == ("meadow",)
    assert all(a is b for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert model.bind(WORDS) is model


def test_a_hundred_words_in_parts_give_the_same_logits(model):
    words = [*WORDS, *(f"thing number {i}" for i in range(96))]
    assert gap(ask(model.bind(words)).before[:, :4], ask(model).before) < 1e-12


def test_phrasings_of_a_class_are_averaged(model):
    bound = model.bind(["building|house|rooftop", "water"])
    assert bound.card.classes == ("building", "water")
    features = torch.cat(model.encode(*images()))
    with torch.no_grad():
        single = [
            functional.normalize(text(model, features, word), dim=-1) for word in ("building", "house", "rooftop")
        ]
        expected = functional.normalize(sum(single), dim=-1)
        found = bound.prompter.embed(features, bound._words, bound.clip.text)[:, 0]
    assert gap(found, expected) < 1e-9


def text(model, features, word):
    """The straightforward way: the whole sequence of one word through the text tower."""
    prompter, tower = model.prompter, model.clip.text
    words = Words([[word]], ["{}"])
    context, embedded = prompter(features), tower.embed(words.ids[:, : words.longest + 2])
    n, length = context.shape[1], prompter.length(77)
    whole = torch.cat(
        [embedded[:, :1].expand(len(context), -1, -1), context, embedded[:, 1:].expand(len(context), -1, -1)], 1
    )
    whole = whole + tower.positions(length)[: whole.shape[1]]
    prefix = tower.prefix(whole[:, :1])
    out = [
        tower.suffix(tower.prefix(whole[b : b + 1, :1]), whole[b : b + 1, 1:], torch.tensor([n + int(words.last[0])]))
        for b in range(len(whole))
    ]
    assert prefix is not None
    return torch.cat([each[:, 0] for each in out])


@pytest.mark.parametrize("context", [4, 16, 64, 256])
def test_the_shared_prefix_equals_whole_sequences(context):
    model = made(context=context)
    features = torch.cat(model.encode(*images(batch=2)))
    with torch.no_grad():
        found = model.prompter.embed(features, model._words, model.clip.text)
        for k, word in enumerate(WORDS):
            assert gap(found[:, k], functional.normalize(text(model, features, word), dim=-1)) < 1e-9


def test_synonyms_and_templates_come_back_from_a_checkpoint(tmp_path):
    model = made(["building|house", "water"], templates=["{}", "an aerial photo of {}"]).float()
    back = checkpoint.load(checkpoint.save(tmp_path / "it.safetensors", model, provenance={"origin": "a test"}))
    assert back.config() == model.config()
    pair = [each.float() for each in images()]
    assert torch.equal(ask(back, *pair).before, ask(model, *pair).before)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no class words were given"),
        (["water", " "], "empty"),
        (["building|"], "empty"),
        (["water", "WATER"], "twice"),
        (["a " * 60 + "tall building"], "tokens, and 59 fit"),
    ],
)
def test_invalid_words_are_rejected(model, words, message):
    with pytest.raises(VocabularyError, match=message):
        model.bind(words)


def test_words_of_any_script_and_up_to_255_work(model):
    answer = ask(model.bind(["здание", "建筑物", "مبنى", "🌊", "naïve café"]))
    assert torch.isfinite(answer.before).all()
    many = model.bind([f"word {i}" for i in range(255)])
    assert ask(many).after.shape == (1, 255, 64, 64)


def test_five_hundred_words_are_too_many_for_one_run(model):
    with pytest.raises(VocabularyError, match="500 class words"):
        model.bind([f"word {i}" for i in range(500)])


# ------------------------------------------------------------------------------------------------------ the network


def test_filters_follow_the_quarters_of_vit_l():
    assert places("quarter", 24) == [5, 11, 17, 23]
    assert places("quarter", 12) == [2, 5, 8, 11]
    assert places("all", 3) == [0, 1, 2]
    assert places([7, 2], 12) == [2, 7]
    with pytest.raises(UsageError, match="did you mean 'quarter'"):
        places("quater", 24)
    with pytest.raises(UsageError, match="blocks of 0 to 11"):
        places([12], 12)


def test_without_filters_each_date_is_plain_clip():
    model = made(filters="none")
    (first, second), (before, after) = model.encode(*images(64, 64)), images(64, 64)
    for found, one, date in ((first, before, "before"), (second, after, "after")):
        size = [side // 16 * 14 for side in one.shape[-2:]]
        small = functional.interpolate(model.normalise(one, date), size=size, mode="bilinear", antialias=True)
        _, patches = model.clip.image(small)
        assert gap(model.clip.image.project(found.flatten(2).transpose(1, 2)), patches) < 1e-9


def test_new_filters_leave_clip_as_it_is():
    torch.manual_seed(0)
    fresh = SemanticCD(WORDS, **SMALL)
    plain = SemanticCD(WORDS, **{**SMALL, "filters": "none"})
    plain.load_state_dict(fresh.state_dict(), strict=False)
    pair = [each.float() for each in images()]
    for one, other in zip(fresh.encode(*pair), plain.encode(*pair), strict=True):
        assert torch.equal(one, other)


def test_only_the_words_need_the_answer_again(model):
    pair = images(50, 70)
    features = model.encode(*pair)
    with torch.no_grad():
        for words in (WORDS, ("meadow", "quarry")):
            bound = model.bind(words)
            kept, whole = bound.answer(features, (50, 70)), bound(*pair)
            assert torch.equal(kept.change, whole.change)
            assert torch.equal(kept.after, whole.after)


@pytest.mark.parametrize("size", [(64, 64), (33, 50), (96, 32), (8, 8)])
def test_any_size_works(model, size):
    answer = ask(model, *images(*size))
    assert answer.change.shape == (1, 1, *size)
    assert answer.before.shape == (1, 4, *size)
    assert answer.unchanged_channel is False


def test_padded_rows_do_not_shift_the_others():
    """What lies at multiples of the stride is answered where it is, with or without some rows more below."""
    model = made(filters="none", prompter="none", classes=WORDS)
    before, after = images(64, 64)
    whole = ask(model, before, after).change
    cut = ask(model, before[..., :60, :], after[..., :60, :]).change
    assert cut.shape[-2:] == (60, 64)
    correlated = torch.corrcoef(torch.stack([cut.flatten(), whole[..., :60, :].flatten()]))[0, 1]
    assert correlated > 0.9


@pytest.mark.parametrize(
    "options",
    [
        {"prompter": "none"},
        {"prompter": "words"},
        {"prompter": "learned"},
        {"vocabulary": "fixed"},
        {"vocabulary": "fixed", "cost_pyramid": False},
        {"cost_pyramid": False},
        {"filters": "all", "filter_start": "published"},
        {"filters": [1]},
        {"logit_scale": "clip"},
        {"logit_scale": 1},
        {"pixels_per_token": 32},
        {"context": 4},
        {"templates": ["{}", "a photo of {}"]},
    ],
)
def test_every_ablation_answers_and_builds_again_from_its_own_words(options):
    model = made(**options)
    answer = ask(model)
    assert answer.before.shape == (1, 4, 64, 64)
    again = SemanticCD(**model.config()).double().eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(ask(again).before, answer.before)


@pytest.mark.parametrize("options", [{"vocabulary": "fixed"}, {"prompter": "none"}])
def test_a_fixed_vocabulary_rejects_other_words(options):
    with pytest.raises(VocabularyError, match="semantic-cd was trained with the classes water, building"):
        made(**options).bind(["dragon"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompter": "instant"}, "did you mean 'instance'"),
        ({"prompter": "none", "vocabulary": "open"}, "cannot be open"),
        ({"context": 10}, "use 4, 16, 64 or 256"),
        ({"clip": "vit-l-41"}, "did you mean 'vit-l-14'"),
        ({"logit_scale": 0}, "above 0"),
        ({"templates": ["an aerial photo"]}, "has no placeholder for the word"),
    ],
)
def test_invalid_options_are_rejected(options, message):
    with pytest.raises(UsageError, match=message):
        made(**options)


def test_the_context_depends_on_the_image(model):
    features = torch.cat(model.encode(*images(batch=2)))
    written = model.prompter(features)
    assert written.shape == (4, 16, 24)
    pooled = functional.adaptive_avg_pool2d(features, 4).flatten(2).transpose(1, 2)
    assert gap(written, model.prompter.meta(pooled) + model.prompter.context) < 1e-12
    assert gap(written[0], written[1]) > 1e-6


def test_costs_are_cosines_times_the_scale():
    model = made(logit_scale=1.0)
    costs = model.costs(torch.cat(model.encode(*images())))
    assert costs.shape == (2, 4, 4, 4)
    assert costs.abs().max() <= 1


def test_gradient_checkpointing_gives_the_same_gradients():
    grown = []
    for forgets in (False, True):
        model = made().train()
        model.checkpointing = forgets
        answer = model(*images())
        (answer.change.square().mean() + answer.before.square().mean()).backward()
        grown.append({name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None})
    assert grown[0].keys() == grown[1].keys()
    for name, gradient in grown[0].items():
        assert torch.allclose(grown[1][name], gradient, atol=1e-9), name


def test_second_has_six_words():
    assert SemanticCD(**SMALL).card.classes == SECOND_WORDS
