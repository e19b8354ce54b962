"""SAM-CD against what is said of it: priors, words, classes, controls. ``tests/contract`` has what networks promise."""

import json

import pytest
import torch
from torch.nn import functional

from wasnow.errors import InputError, UsageError, VocabularyError
from wasnow.models import registry
from wasnow.models.contract import ChangeModel
from wasnow.models.sam_cd import SAMCD
from wasnow.nn.fused import fused
from wasnow.training.losses import Target, change_loss, joint_loss

SMALL = {"encoder": {"widths": (8, 16, 40, 64), "depths": (1, 1, 1, 1)}, "width": 16}


def network(classes=(), **options):
    """A small one in eval mode, with weights that let everything be seen in the answer."""
    torch.manual_seed(0)
    made = SAMCD(classes, **{**SMALL, **options}).eval()
    with torch.no_grad():
        for each in made.parameters():
            each.add_(torch.randn_like(each) * 0.05)
    return made


def pair(height=64, width=64, batch=2, seed=1):
    return tuple(torch.rand(2, batch, 3, height, width, generator=torch.Generator().manual_seed(seed)))


def masks(words=1, height=64, width=64, batch=2, seed=2):
    """Priors ``(B, 2, words, H, W)``: one square for each date and word."""
    draw = torch.Generator().manual_seed(seed)
    made = torch.zeros(batch, 2, words, height, width, dtype=torch.bool)
    for each in made.flatten(0, 2):
        row, col = (int(torch.randint(0, side // 2, (), generator=draw)) for side in (height, width))
        each[row : row + 12, col : col + 9] = True
    return made


@torch.no_grad()
def ask(model, priors=None, **size):
    return model(*pair(**size), None, priors)


# ------------------------------------------------------------------------------------------------------------- priors


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, ("building",)),
        ({"words": ["solar farm", "water"]}, ("solar farm", "water")),
        ({"classes": ["water", "road"]}, ("water", "road")),
        ({"classes": ["water", "road"], "words": ["road"]}, ("road",)),
        ({"priors": "channel"}, ("building",)),
        ({"priors": "none"}, ()),
    ],
)
def test_its_card_names_the_words_of_its_prior_masks(options, wanted):
    model = SAMCD(**{**SMALL, **options})
    assert model.card.wants_priors == wanted
    assert isinstance(model, ChangeModel)


@pytest.mark.parametrize("empty", ["global", "zero"])
@pytest.mark.parametrize("priors", ["attention", "channel", "none"])
def test_no_priors_are_empty_priors(priors, empty):
    model = network(["water", "road"], priors=priors, empty=empty)
    without, nothing = ask(model), ask(model, torch.zeros(2, 2, 2, 64, 64, dtype=torch.bool))
    for one, other in (
        (without.change, nothing.change),
        (without.before, nothing.before),
        (without.after, nothing.after),
    ):
        assert torch.equal(one, other)


def test_empty_masks_let_everything_be_read():
    model = network()
    everything = torch.ones(2, 2, 1, 64, 64, dtype=torch.bool)
    assert torch.equal(ask(model).change, ask(model, everything).change)
    assert not torch.allclose(ask(model).change, ask(model, masks()).change)


def test_inside_local_features_differ_only_where_a_mask_of_either_date_is():
    model, (before, after) = network(local="inside", empty="zero"), pair()
    prior = torch.zeros(len(before), 2, 1, *before.shape[-2:])
    prior[:, 0, :, :32, :32], prior[:, 1, :, 32:64, :32] = 1, 1
    given = []
    model.fuse[0].register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    model(before, after, priors=prior)
    local = given[0][:, given[0].shape[1] // 2 :].abs().sum(1)
    assert (local[:, :16, :8] > 0).all()
    assert (local[:, 16:] == 0).all()
    assert (local[:, :, 8:] == 0).all()


def test_with_empty_zero_and_empty_masks_change_comes_from_global_features():
    model, deaf = network(empty="zero"), network(empty="zero")
    for fuse in deaf.fuse:
        torch.nn.init.zeros_(fuse[0].weight[:, fuse[0].out_channels :].detach())
    assert torch.equal(ask(model).change, ask(deaf).change)
    assert torch.equal(ask(deaf, masks()).change, ask(deaf).change)
    assert not torch.allclose(ask(model, masks()).change, ask(deaf).change)


def test_masks_of_bits_bytes_and_floats_are_equivalent():
    model = network(["building", "road"])
    answers = [ask(model, masks(2).to(kind)) for kind in (torch.bool, torch.uint8, torch.float32, torch.float64)]
    for answer in answers[1:]:
        assert torch.equal(answer.change, answers[0].change)
        assert torch.equal(answer.before, answers[0].before)


@pytest.mark.parametrize(("height", "width"), [(33, 50), (31, 65), (8, 8)])
def test_odd_sizes_work_with_priors(height, width):
    model = network(["building", "road"])
    size = {"height": height, "width": width, "batch": 1}
    answer = ask(model, torch.rand(1, 2, 2, height, width), **size)
    assert answer.change.shape == (1, 1, height, width)
    assert answer.before.shape == answer.after.shape == (1, 2, height, width)


def test_padding_by_the_last_row_and_column_does_not_change_the_prediction():
    model, prior = network(), masks(height=50, width=40)
    before, after = pair(50, 40)
    whole = [functional.pad(each, (0, 24, 0, 14), mode="replicate") for each in (before, after)]
    grown = functional.pad(prior[:, :, 0].float(), (0, 24, 0, 14), mode="replicate")[:, :, None]
    with torch.no_grad():
        assert torch.equal(model(*whole, None, grown).change[..., :50, :40], model(before, after, None, prior).change)


@pytest.mark.parametrize("shape", [(2, 1, 1, 64, 64), (2, 2, 2, 64, 64), (2, 2, 64, 64), (2, 2, 1, 32, 64)])
@pytest.mark.parametrize("priors", ["attention", "channel"])
def test_priors_of_another_shape_are_rejected_with_the_required_shape(shape, priors):
    with pytest.raises(InputError, match=r"instead of \(2, 2, 1, 64, 64\): .*the words building; make them"):
        ask(network(priors=priors), torch.zeros(shape))


def test_priors_of_one_image_do_not_affect_the_others():
    model, prior = network(), masks()
    other = prior.clone()
    other[1] = False
    assert torch.equal(ask(model, prior).change[0], ask(model, other).change[0])
    assert not torch.allclose(ask(model, prior).change[1], ask(model, other).change[1])


def test_swapped_dates_and_priors_give_the_same_change_and_swapped_classes():
    model, prior, (before, after) = network(["building", "road"]), masks(2), pair()
    with torch.no_grad():
        there, back = model(before, after, None, prior), model(after, before, None, prior.flip(1))
    assert torch.allclose(there.change, back.change, atol=1e-5)
    assert torch.allclose(there.before, back.after, atol=1e-5)
    assert torch.allclose(there.after, back.before, atol=1e-5)


@pytest.mark.parametrize("empty", ["global", "zero"])
def test_an_identical_pair_with_identical_priors_has_the_same_change_everywhere(empty):
    model, (before, _), prior = network(empty=empty), pair(), masks()
    prior[:, 1] = prior[:, 0]
    with torch.no_grad():
        change = model(before, before, None, prior).change
    assert torch.allclose(change, change[:1, :, :1, :1].expand_as(change), atol=1e-5)


# -------------------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize("fusion", ["max", "sum"])
def test_the_order_of_words_does_not_matter_to_the_change(fusion):
    model, prior = network(words=["building", "road", "water"], fusion=fusion), masks(3)
    order = torch.tensor([2, 0, 1])
    assert torch.allclose(ask(model, prior).change, ask(model, prior[:, :, order]).change, atol=1e-5)


@pytest.mark.parametrize("fusion", ["max", "sum"])
def test_a_further_word_with_empty_masks_changes_nothing_if_empty_is_zero(fusion):
    one = network(words=["building"], fusion=fusion, empty="zero")
    two = SAMCD(words=["building", "road"], fusion=fusion, empty="zero", **SMALL).eval()
    two.load_state_dict(one.state_dict())
    wider = functional.pad(masks(), (0, 0, 0, 0, 0, 1))
    assert torch.equal(ask(one, masks()).change, ask(two, wider).change)
    assert not torch.allclose(ask(one, masks()).change, ask(two, masks(2)).change)


def test_one_word_is_fused_the_same_either_way():
    assert torch.equal(ask(network(fusion="max"), masks()).change, ask(network(fusion="sum"), masks()).change)


# ------------------------------------------------------------------------------------------------------------ classes


def test_classes_do_not_affect_the_change():
    plain = network(words=["building", "road"])
    named = SAMCD(["building", "road"], **SMALL).eval()
    named.load_state_dict(plain.state_dict(), strict=False)
    assert ask(plain).land_cover is None
    assert [each.shape for each in ask(named).land_cover] == [(2, 2, 64, 64)] * 2
    assert torch.equal(ask(named, masks(2)).change, ask(plain, masks(2)).change)


def test_a_mask_affects_only_its_own_class_date_and_place():
    model = network(["water", "building", "road"], words=["Building"])
    silent = network(["water", "building", "road"], words=["Building"])
    for each in (model, silent):
        torch.nn.init.zeros_(each.word_decoder.logits.weight)
        torch.nn.init.zeros_(each.word_decoder.logits.bias)
    torch.nn.init.zeros_(silent.mask_weight)
    prior = masks()
    prior[:, 0] = False
    one, other = ask(model, prior), ask(silent, prior)
    assert torch.equal(one.before, other.before)
    said = torch.zeros(2, 3, 64, 64)
    said[:, 1] = model.mask_weight.detach() * prior[:, 1, 0]
    assert torch.allclose(one.after - other.after, said, atol=1e-5)
    assert model.mask_weight > 0.5


def test_local_features_affect_only_the_class_of_their_word():
    model, deaf = (network(["water", "building"], words=["building"]) for _ in range(2))
    torch.nn.init.zeros_(deaf.word_decoder.logits.weight)
    with torch.no_grad():
        deaf.word_decoder.logits.bias.zero_()
        difference = ask(model, masks()).after - ask(deaf, masks()).after
    assert not difference[:, 0].any()
    assert difference[:, 1].std() > 0


def test_without_masks_classes_come_from_the_image_alone():
    model = network(["building", "road"])
    sight = network(["building", "road"])
    torch.nn.init.zeros_(sight.get_buffer("class_of_word"))
    assert torch.equal(ask(model).before, ask(sight).before)
    assert not torch.allclose(ask(model, masks(2)).before, ask(sight, masks(2)).before)


def test_permuted_words_and_classes_give_the_same_prediction():
    one = network(["building", "road", "water"])
    order = [2, 0, 1]
    other = SAMCD([one.classes[i] for i in order], **SMALL).eval()
    state = one.state_dict()
    for name in ("class_decoder.logits.weight", "class_decoder.logits.bias"):
        state[name] = state[name][order]
    other.load_state_dict(state)
    here, there = ask(one, masks(3)), ask(other, masks(3)[:, :, order])
    assert torch.allclose(here.change, there.change, atol=1e-5)
    assert torch.allclose(here.before[:, order], there.before, atol=1e-4)


# ----------------------------------------------------------------------------------------------------------- controls


def test_a_new_network_with_mask_channels_equals_one_without():
    torch.manual_seed(0)
    channel = SAMCD(priors="channel", **SMALL).eval()
    plain = SAMCD(priors="none", **SMALL).eval()
    plain.load_state_dict({name: each for name, each in channel.state_dict().items() if name != "prior_stem.weight"})
    assert torch.equal(ask(channel, masks()).change, ask(plain).change)
    assert sum(x.numel() for x in channel.parameters()) - sum(x.numel() for x in plain.parameters()) == 8 * 49


def test_masks_as_channels_are_channels_of_the_image():
    model = network(priors="channel", words=["building", "road"])
    first = model.encoder.stages[0].patch_embeddings.proj
    image, prior = torch.randn(2, 3, 64, 64), torch.rand(2, 2, 64, 64)
    with torch.no_grad():
        apart = first(image) + model.prior_stem(prior)
        joined = functional.conv2d(
            torch.cat([image, prior], 1), torch.cat([first.weight, model.prior_stem.weight], 1), first.bias, 4, 3
        )
    assert torch.allclose(apart, joined, atol=1e-5)
    assert not torch.allclose(ask(model, masks(2)).change, ask(model).change)


def test_without_priors_there_is_no_attention_and_masks_are_ignored():
    model = network(priors="none")
    assert not [name for name, _ in model.named_parameters() if "attention." in name and not name.startswith("encoder")]
    assert torch.equal(ask(model, masks()).change, ask(model).change)


# ----------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("local", ["everywhere", "inside"])
@pytest.mark.parametrize("empty", ["global", "zero"])
def test_with_priors_every_parameter_gets_a_gradient(empty, local):
    model = network(["water", "building"], empty=empty, local=local)
    codes = torch.randint(0, 3, (2, 2, 64, 64), generator=torch.Generator().manual_seed(3))
    joint_loss(
        model(*pair(), None, masks(2)), Target.of_codes(*torch.where(codes[:1] > 0, codes.clamp(min=1), 0))
    ).total.backward()
    # A bias of the keys adds the same to all scores of a query, which its softmax does not see.
    still = [name for name, each in model.named_parameters() if not each.grad.any() and "key.bias" not in name]
    assert [name for name in still if "k_proj.bias" not in name] == []


@pytest.mark.parametrize("empty", ["global", "zero"])
@pytest.mark.parametrize("fill", [False, True])
def test_empty_and_full_priors_train_without_nan_in_bfloat16(empty, fill):
    model = network(["water", "building"], empty=empty).train()
    target = Target.of_codes(*torch.ones(2, 2, 64, 64, dtype=torch.uint8))
    with torch.autocast("cpu", torch.bfloat16):
        answer = model(*pair(), None, torch.full((2, 2, 2, 64, 64), fill))
    joint_loss(answer, target).total.backward()
    assert all(each.grad.isfinite().all() for each in model.parameters())


def test_predictions_outside_training_are_deterministic():
    model = network(words=["building"], dropout=0.5)
    assert torch.equal(ask(model, masks()).change, ask(model, masks()).change)
    model.train()
    assert not torch.equal(ask(model, masks()).change, ask(model, masks()).change)


def changed_apart(priors):
    """How far apart the log-odds of changed and unchanged pixels are after a short training on noise and priors."""
    torch.manual_seed(0)
    still = {**SMALL, "encoder": {**SMALL["encoder"], "drop_path": 0.0}, "dropout": 0.0}
    model = SAMCD(**still, priors=priors).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    # Left or right halves that come and go: of no place can be said beforehand whether it changes.
    prior = torch.zeros(4, 2, 1, 64, 64, dtype=torch.bool)
    for image, (date, start) in enumerate([(0, 0), (0, 32), (1, 0), (1, 32)]):
        prior[image, date, :, :, start : start + 32] = True
    changed = prior[:, 0, 0] ^ prior[:, 1, 0]
    for step in range(20):
        optimizer.zero_grad()
        change_loss(model(*pair(batch=4, seed=step), None, prior), Target.of_change(changed)).total.backward()
        optimizer.step()
    with torch.no_grad():
        change = model(*pair(batch=4, seed=99), None, prior).change[:, 0]
    return (change[changed].mean() - change[~changed].mean()).item()


def test_mask_channels_can_be_learned_from():
    assert changed_apart("channel") > 1
    assert abs(changed_apart("none")) < 0.3


# ----------------------------------------------------------------------------------------------------------- options


def test_folded_norms_do_not_change_the_prediction():
    model = network(["building", "road"])
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.5, 2)
    quick = fused(model)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in quick.modules())
    assert quick.card.wants_priors == model.card.wants_priors
    one, other = ask(quick, masks(2)), ask(model, masks(2))
    assert torch.allclose(one.change, other.change, atol=1e-4)
    assert torch.allclose(one.after, other.after, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {
            "classes": ["water", "road"],
            "words": ["road"],
            "empty": "zero",
            "local": "inside",
            "fusion": "sum",
            "dropout": 0.0,
        },
        {"encoder": "mit-b0", "priors": "channel", "reductions": [2, 2, 2, 1]},
        {"encoder": {"widths": [8, 16, 40, 64]}, "priors": "none"},
    ],
)
def test_its_options_build_it_again(options):
    with torch.device("meta"):
        model = SAMCD(**options)
        again = registry.build("sam-cd", **json.loads(json.dumps(model.config())))
    assert again.config() == model.config()
    assert again.card == model.card
    assert {n: x.shape for n, x in again.state_dict().items()} == {n: x.shape for n, x in model.state_dict().items()}


def test_the_defaults_follow_the_published_method():
    with torch.device("meta"):
        model = SAMCD()
    assert model.config()["encoder"] == "mit-b1"
    assert [(each.heads, each.reduction) for each in model.attention] == [(1, 8), (2, 4), (5, 2), (8, 1)]
    assert [each[0].in_channels for each in model.fuse] == [128, 256, 640, 1024]
    assert model.decoder.join[0].in_channels == 4 * 256


def test_a_finer_grid_of_keys_resolves_smaller_parts_of_a_mask():
    here, there = torch.zeros(2, 2, 2, 1, 64, 64, dtype=torch.bool)
    here[..., :8, :8], there[..., 20:28, 20:28] = True, True
    coarse, fine = network(), network(reductions=[4, 2, 1, 1])
    assert torch.equal(ask(coarse, here).change, ask(coarse, there).change)
    assert not torch.allclose(ask(fine, here).change, ask(fine, there).change)


def test_it_binds_only_its_own_classes_or_none():
    plain, named = SAMCD(**SMALL), SAMCD(["water", "road"], **SMALL)
    assert plain.bind([]) is plain
    assert named.bind(["Water", "road"]) is named
    with pytest.raises(VocabularyError, match="detects change without classes"):
        plain.bind(["water"])
    with pytest.raises(VocabularyError, match="was trained with the classes water, road"):
        named.bind(["road"])


@pytest.mark.parametrize(
    ("options", "error", "advice"),
    [
        ({"priors": "atention"}, UsageError, "did you mean 'attention'"),
        ({"empty": "zeros"}, UsageError, "did you mean 'zero'"),
        ({"fusion": "mean"}, UsageError, "is none of max, sum"),
        ({"encoder": "mit-b5"}, UsageError, "use one of mit-b0, mit-b1, mit-b2"),
        ({"reductions": [8, 4, 2]}, UsageError, "four numbers that divide 8, 4, 2 and 1"),
        ({"reductions": [16, 4, 2, 1]}, UsageError, "four numbers that divide 8, 4, 2 and 1"),
        ({"width": 0}, UsageError, "width must be at least 1"),
        ({"words": []}, VocabularyError, "use priors=none"),
        ({"words": "building"}, VocabularyError, "must be a list"),
        ({"words": ["building", "Building"]}, VocabularyError, "given twice"),
    ],
)
def test_invalid_options_are_rejected_with_advice(options, error, advice):
    with pytest.raises(error, match=advice):
        SAMCD(**{**SMALL, **options})
