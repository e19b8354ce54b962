"""The small Semantic-CD: words, "other", what change means in words, and what each option takes away."""

import copy
import math

import numpy as np
import pytest
import torch

from making import textured
from wasnow.errors import VocabularyError
from wasnow.models import checkpoint
from wasnow.models.semantic_cd_mini import OTHER, WORDS, SemanticCDMini
from wasnow.models.semantic_cd_mini_decoders import differing
from wasnow.nn import sentence


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = SemanticCDMini().train()
    with torch.no_grad():
        for norm in made.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.momentum = 1.0
        made(*pair())
    return made.eval()


def pair(size=64, batch=2, seed=0):
    scenes = [torch.from_numpy(textured(seed + i, size, size)) / 255 for i in range(2 * batch)]
    return torch.stack(scenes[::2]).float(), torch.stack(scenes[1::2]).float()


@torch.no_grad()
def ask(model, before, after):
    return model(before, after, None)


def unsettled(model, *images):
    """Change before a word that is followed by itself is struck out."""
    learner = copy.copy(model)
    texts = model._bound()
    learner.training, learner._bound = True, lambda: texts
    return ask(learner, *images).change


def test_its_own_words_are_the_five_kinds_of_ground(model):
    assert model.card.classes == WORDS
    assert model.card.other_words == ()
    assert model.bind(WORDS) is model


def test_what_no_word_covers_is_other(model):
    asked = model.bind(["building", "water"])
    assert asked.card.classes == ("building", "water", OTHER)
    assert asked.card.other_words == ("road", "vegetation", "bare ground")
    assert model.card.classes == WORDS


def test_other_is_what_its_words_are_together(model):
    # Grouping classes adds up their probabilities and must not move the rest; seen before logits are enlarged.
    with torch.no_grad():
        features = model.encode(*pair())[0]
        p, q = (asked._classes(features).softmax(1) for asked in (model, model.bind(["building", "water"])))
    assert torch.allclose(q[:, 0], p[:, 0], atol=1e-5)
    assert torch.allclose(q[:, 1], p[:, 2], atol=1e-5)
    assert torch.allclose(q[:, 2], p[:, [1, 3, 4]].sum(1), atol=1e-5)


def test_the_order_of_words_only_moves_their_places(model):
    images = pair()
    one, other = ask(model, *images), ask(model.bind(WORDS[::-1]), *images)
    assert torch.allclose(one.before, other.before.flip(1), atol=1e-4)
    assert torch.allclose(one.change, other.change, atol=1e-4)


def test_grouping_words_can_only_take_change_away(model):
    images = pair()
    assert (unsettled(model.bind(["water"]), *images) <= unsettled(model, *images) + 1e-4).all()


def test_other_cannot_be_asked_for_beside_itself(model):
    with pytest.raises(VocabularyError, match="leave it out"):
        model.bind(["water", "other"])


def test_a_word_that_is_not_to_be_understood_is_refused(model, monkeypatch):
    monkeypatch.setattr(sentence, "available", lambda: False)
    with pytest.raises(VocabularyError):
        model.bind(["qzxv"])


def test_phrasings_of_a_word_are_one_class(model):
    asked = model.bind(["building|house|rooftop", "water"])
    assert asked.card.classes[:2] == ("building", "water")


@pytest.mark.parametrize("seed", range(4))
def test_differing_is_the_chance_that_the_classes_differ(seed):
    torch.manual_seed(seed)
    before, after = 3 * torch.randn(2, 2, 5, 4, 4, dtype=torch.float64).float()
    p1, p2 = before.softmax(1), after.softmax(1)
    expected = 1 - (p1 * p2).sum(1, keepdim=True)
    assert torch.allclose(differing(before, after).sigmoid(), expected, atol=1e-5)


def test_differing_is_finite_where_the_classes_are_certain():
    sure = torch.tensor([[100.0, 0.0, 0.0]]).view(1, 3, 1, 1)
    assert torch.isfinite(differing(sure, sure)).all()
    assert differing(sure, sure).item() < -10
    assert differing(sure, sure.flip(1)).item() > 10


def test_both_the_decoder_and_the_words_must_agree(model):
    images = pair()
    both = unsettled(model, *images)
    first, second = model.encode(*images)
    with torch.no_grad():
        decoder = model.change_decoder(first, second)
        seen = model._classes(torch.cat([first, second]))
        words = model.agree[0] + model.agree[1] * differing(*seen.chunk(2))
        odds = 1 / (1 / decoder.exp() + 1 / words.exp())
        expected = torch.nn.functional.interpolate(odds.log(), scale_factor=4, mode="bilinear", align_corners=False)
    assert torch.allclose(both, expected, atol=1e-4)
    assert (both <= torch.nn.functional.interpolate(words, scale_factor=4, mode="bilinear") + 1e-4).all()


def test_a_word_that_is_followed_by_itself_is_no_change(model):
    answer = ask(model, *pair(seed=3))
    same = answer.before.argmax(1, keepdim=True) == answer.after.argmax(1, keepdim=True)
    assert same.any()
    assert (answer.change[same] <= -4).all()


def test_answering_from_features_is_answering_from_images(model):
    before, after = pair(50)
    direct, kept = ask(model, before, after), model.encode(before, after)
    with torch.no_grad():
        again = model.answer(kept, (50, 50))
    assert torch.equal(direct.change, again.change)
    assert torch.equal(direct.after, again.after)


def test_training_draws_other_phrasings_for_each_batch_and_the_seed_decides_which(model):
    learner = copy.deepcopy(model).train()
    torch.manual_seed(1)
    first, second = learner._bound(), learner._bound()
    torch.manual_seed(1)
    again = learner._bound()
    assert not torch.equal(first, second)
    assert torch.equal(first, again)
    assert torch.allclose(first.norm(dim=1), torch.ones(5), atol=1e-5)


def test_an_answer_does_not_depend_on_the_random_numbers_of_training(model):
    images = pair()
    torch.manual_seed(1)
    one = ask(model, *images)
    torch.manual_seed(2)
    assert torch.equal(one.change, ask(model, *images).change)


@pytest.mark.parametrize("change", ["decoder", "classes"])
def test_each_half_of_change_can_be_left_out(change):
    torch.manual_seed(0)
    model = SemanticCDMini(change=change).eval()
    assert (model.change_decoder is None) == (change == "classes")
    assert torch.isfinite(ask(model, *pair()).change).all()


def test_without_cost_volume_the_words_are_fixed():
    model = SemanticCDMini(cost_volume=False).eval()
    assert ask(model, *pair()).before.shape[1] == 5
    with pytest.raises(VocabularyError, match="without cost_volume"):
        model.bind(["water"])


def test_each_date_is_seen_alone(model):
    before, after = pair()
    with torch.no_grad():
        alone = model.encode(before, before)[0]
        beside = model.encode(before, after)[0]
    assert torch.equal(alone, beside)


@pytest.mark.parametrize("coarser", [1, 2])
def test_the_dates_in_the_other_order_change_the_same_pixels_the_other_way(coarser):
    torch.manual_seed(0)
    model = SemanticCDMini(coarser=coarser).eval()
    before, after = pair(72)
    forth, back = ask(model, before, after), ask(model, after, before)
    assert torch.equal(forth.change, back.change)
    assert torch.equal(forth.before, back.after)
    assert torch.equal(forth.after, back.before)


def test_what_is_seen_does_not_depend_on_where_a_tile_begins(model):
    # Beyond the reach of the border a pixel's features are those of its surroundings, whatever else the tile shows.
    scene = torch.from_numpy(textured(5, 64, 1408))[None].float() / 255
    with torch.no_grad():
        whole = model.features(scene)
        part = model.features(scene[..., 256:])
    assert torch.allclose(whole[..., 240:], part[..., 176:], atol=1e-4)


def test_a_second_look_at_coarser_pixels_can_only_add_change(model):
    before, after = pair(96, batch=1)
    one = ask(model, before, after)
    twice = copy.copy(model)
    twice._options = {**model._options, "coarser": 2}
    both = ask(twice, before, after)
    coarse = [torch.nn.functional.avg_pool2d(each, 2) for each in (before, after)]
    alone = ask(model, *coarse)
    grown = torch.nn.functional.interpolate(alone.before, scale_factor=2, mode="nearest")
    assert both.change.shape == one.change.shape
    assert torch.allclose(2 * both.before.mean() - one.before.mean(), grown.mean(), atol=0.05)
    moved = both.before.argmax(1, keepdim=True) != both.after.argmax(1, keepdim=True)
    differed = one.before.argmax(1, keepdim=True) != one.after.argmax(1, keepdim=True)
    assert (both.change[moved & differed] >= one.change[moved & differed] - 1e-5).all()


def test_an_offset_moves_change_of_its_word_and_no_other(model):
    images = pair(seed=3)
    moved = copy.copy(model)
    moved._options = {**model._options, "offsets": [0.0, 0.0, 2.0, 0.0, 0.0]}
    for words in (WORDS, ("lake", "house")):
        one, two = (ask(each.bind(words), *images) for each in (model, moved))
        place = words.index("lake") if "lake" in words else words.index("water")
        first, second = (each.argmax(1, keepdim=True) == place for each in (one.before, one.after))
        differs = one.before.argmax(1, keepdim=True) != one.after.argmax(1, keepdim=True)
        added = 2.0 * (first | second) * differs
        assert torch.allclose(two.change, torch.where(differs, one.change + added, one.change), atol=1e-5)
        assert torch.equal(one.before, two.before)


@pytest.mark.parametrize("size", [(40, 72), (33, 64), (8, 8), (64, 96)])
def test_images_of_any_size_are_answered_at_that_size(model, size):
    images = [each[..., : size[0], : size[1]] for each in pair(96)]
    answer = ask(model, *images)
    assert answer.change.shape[-2:] == answer.before.shape[-2:] == size
    assert torch.isfinite(answer.change).all()


def test_the_pixel_size_is_judged_from_one_image(model):
    with torch.no_grad():
        guess = model.log2_gsd(pair(64)[0])
    assert guess.shape == (2,)
    assert torch.isfinite(guess).all()


def test_a_checkpoint_brings_its_own_table_of_terms(model, tmp_path):
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.terms.embeddings.copy_(changed.terms.embeddings.roll(1, 0))
    changed._texts = None
    back = checkpoint.load(checkpoint.save(tmp_path / "m.safetensors", changed, provenance={"origin": "a test"}))
    images = pair()
    assert torch.equal(ask(back, *images).before, ask(changed, *images).before)
    assert not torch.allclose(ask(back, *images).before, ask(model, *images).before, atol=1e-3)


def test_other_words_than_those_of_training_can_be_trained():
    model = SemanticCDMini(("forest", "lake")).train()
    answer = model(*pair())
    assert answer.before.shape[1] == 2
    assert all(math.isfinite(each) for each in answer.change.detach().flatten()[:4].tolist())
    assert np.isfinite(answer.before.detach().numpy()).all()
