"""What every network promises, whatever is inside it. A new row of `MODELS` is tested by being there.

One network of each kind is made for the whole module, with random weights that are awake: batch norms have seen images,
and no part stands still at 0, as attention that a training has yet to open would.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from making import TINY_SEMANTIC_CD as SMALL
from making import textured
from wasnow.errors import InputError, UsageError, VocabularyError
from wasnow.models import checkpoint, registry
from wasnow.models.contract import ChangeLogits, ChangeModel, SceneModel
from wasnow.models.registry import MODELS
from wasnow.training.losses import Target, ding_loss

NETWORKS = [name for name, entry in MODELS.items() if entry.network]
WORDS = ("water", "building", "low vegetation")


@dataclass(frozen=True)
class Promise:
    """What differs between networks.

    Attributes:
        symmetric: whether its paper promises the same change, and exchanged classes, for exchanged dates; None: only
            until training teaches otherwise.
        unmoved: parameters that no loss can move, by what the equations say.
        options: that make it small.
        open: words to bind, and the classes that it answers with then; None for a fixed vocabulary.
        cut: log-odds of change at which pixels are held whose likeliest word stays: rounding may turn these over.
        mistake: an option, a wrong value of it, and the one that was meant.
    """

    symmetric: bool | None = False
    unmoved: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    open: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    cut: float | None = None
    mistake: tuple[str, str, str] = ("normalisation", "imagnet", "imagenet")


PROMISES = {
    "sscd-l": Promise(),
    # A bias of the keys adds the same to all scores of a query, which its softmax does not see.
    "bisrnet": Promise(unmoved=("*.key.bias",)),
    "hrscd": Promise(),
    # Published weights hold what a classifier would read, and what would join the images themselves; nothing reads it.
    "changemask": Promise(symmetric=True, unmoved=("encoder._conv_head.*", "encoder._bn1.*", "interact.0.*")),
    "ted": Promise(),
    "scannet": Promise(),
    "smnet": Promise(symmetric=True),
    # Keys likewise; CLIP's own scale takes no part unless it is asked for.
    "semantic-cd": Promise(
        unmoved=("*.k_proj.bias", "clip.logit_scale"),
        options=SMALL,
        open=(("dragon",), ("dragon",)),
        mistake=("prompter", "instanse", "instance"),
    ),
    "semantic-cd-mini": Promise(
        symmetric=None,
        cut=-4.0,
        open=(("water", "building", "low vegetation", "road"), ("water", "building", "low vegetation", "road")),
        mistake=("change", "bothe", "both"),
    ),
    # Keys likewise; without priors no word says anything about its class (tests/models/test_sam_cd.py gives it some).
    "sam-cd": Promise(
        symmetric=True,
        unmoved=("*.k_proj.bias", "*.key.bias", "word_decoder.*", "mask_weight"),
        options={"encoder": {"widths": (8, 16, 40, 64)}, "width": 32},
        mistake=("priors", "atention", "attention"),
    ),
    "mamba-scd": Promise(
        options={"encoder": {"width": 16, "depths": [1, 1, 1, 1]}, "width": 16},
        mistake=("size", "tinny", "tiny"),
    ),
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    return awake(request.param)


def awake(name: str) -> nn.Module:
    torch.manual_seed(0)
    made = registry.build(name, classes=WORDS, **PROMISES[name].options)
    norms = [part for part in made.modules() if isinstance(part, nn.BatchNorm2d)]
    with torch.no_grad():
        for each in made.parameters():
            if not each.any():
                each.fill_(0.1)
        usual = [norm.momentum for norm in norms]
        for norm in norms:
            norm.weight.fill_(0.25)  # forty layers at full strength and random amplify rounding; trained ones do not
            norm.momentum = 1.0
        made.train()(*images(64, 64, batch=2))
        for norm, momentum in zip(norms, usual, strict=True):
            norm.momentum = momentum
    return made.eval()


def images(height: int, width: int, *, batch: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two dates of textures in 0..1, half of what is seen in common."""
    scenes = [torch.from_numpy(textured(seed + i, height, width)) / 255 for i in range(3 * batch)]
    common, first, second = (torch.stack(scenes[i::3]) for i in range(3))
    return (common + first) / 2, (common + second) / 2


@torch.no_grad()
def ask(network: nn.Module, before: Tensor, after: Tensor) -> ChangeLogits:
    answer = network(before, after, torch.ones_like(before[:, :1], dtype=torch.bool))
    assert isinstance(answer, ChangeLogits)
    return answer


def parts(answer: ChangeLogits) -> list[Tensor]:
    return [each for each in (answer.change, answer.before, answer.after) if each is not None]


def difference(one: ChangeLogits, other: ChangeLogits) -> float:
    """Largest difference, as a share of the largest logit."""
    pairs = zip(parts(one), parts(other), strict=True)
    return max(((x.double() - y.double()).abs().max() / y.abs().max()).item() for x, y in pairs)


def without_cut(one: ChangeLogits, other: ChangeLogits, cut: float | None) -> tuple[ChangeLogits, ChangeLogits]:
    """Both with change 0 where either holds it down."""
    if cut is None:
        return one, other
    held = (one.change <= cut) | (other.change <= cut)
    assert not held.all()
    first, second = (ChangeLogits(torch.where(held, 0, each.change), each.before, each.after) for each in (one, other))
    return first, second


def test_every_network_says_what_it_promises():
    assert set(PROMISES) == set(NETWORKS)


def test_it_is_a_change_model(network):
    assert isinstance(network, ChangeModel)
    assert not isinstance(network, SceneModel)


def test_its_card_is_sane(network):
    card = network.card
    assert card.name in NETWORKS
    assert MODELS[card.name].network
    assert card.summary
    assert card.source
    assert card.classes == WORDS
    assert card.tile % card.stride == 0
    assert card.margin % card.stride == 0
    assert card.tile > 2 * card.margin
    assert 0 < card.threshold < 1
    assert card.scaling == "display"
    assert card.parameters == sum(each.numel() for each in network.parameters()) > 0


@pytest.mark.parametrize(("height", "width", "batch"), [(64, 64, 2), (33, 50, 1), (65, 31, 1), (8, 8, 1)])
def test_it_answers_at_the_size_of_its_images(network, height, width, batch):
    answer = ask(network, *images(height, width, batch=batch))
    assert answer.change.shape == (batch, 1, height, width)
    assert answer.land_cover is not None
    for cover in answer.land_cover:
        assert cover.shape == (batch, len(WORDS), height, width)
    assert all(torch.isfinite(each).all() for each in parts(answer))


def test_one_image_of_a_batch_knows_nothing_of_the_others(network):
    before, after = images(64, 64, batch=2)
    together, alone = ask(network, before, after), ask(network, before[1:], after[1:])
    last = ChangeLogits(together.change[1:], together.before[1:], together.after[1:])
    assert difference(last, alone) < 1e-4


def test_the_same_question_has_the_same_answer(network):
    pair = images(64, 64)
    for one, other in zip(parts(ask(network, *pair)), parts(ask(network, *pair)), strict=True):
        assert torch.equal(one, other)


def test_exchanged_dates_give_exchanged_answers_where_the_paper_promises_it(network):
    before, after = images(64, 64)
    there, back = ask(network, before, after), ask(network, after, before)
    gap = difference(ChangeLogits(back.change, back.after, back.before), there)
    promised = PROMISES[network.card.name].symmetric
    if promised is not False:
        assert gap < 1e-4
    else:
        assert gap > 1e-2  # or the promise could be made


def test_gradients_reach_all_that_should_train(network):
    codes = torch.randint(0, len(WORDS) + 1, (2, 2, 64, 64), generator=torch.Generator().manual_seed(1))
    target = Target.of_codes(*torch.where(codes[:1] > 0, codes.clamp(min=1), 0))
    network.zero_grad()
    ding_loss(network(*images(64, 64, batch=2)), target).total.backward()
    unmoved = PROMISES[network.card.name].unmoved
    still = []
    for name, each in network.named_parameters():
        if each.grad is None and any(fnmatch(name, pattern) for pattern in unmoved):
            continue
        assert each.grad is not None, name
        assert torch.isfinite(each.grad).all(), name
        if not each.grad.any() and not any(fnmatch(name, pattern) for pattern in unmoved):
            still.append(name)
    network.zero_grad()
    assert not still


def test_a_checkpoint_brings_back_the_same_network(network, tmp_path):
    path = checkpoint.save(tmp_path / "it.safetensors", network, provenance={"origin": "a test"})
    back = checkpoint.load(path)
    assert back.card == replace(network.card, weights=back.card.weights)
    assert back.card.weights.fingerprint == checkpoint.read_header(path).digest
    assert back.config() == network.config() == json.loads(json.dumps(network.config()))
    pair = images(33, 50)
    for one, other in zip(parts(ask(back, *pair)), parts(ask(network, *pair)), strict=True):
        assert torch.equal(one, other)


def test_bfloat16_is_close_to_float32(network):
    before, after = images(64, 64)
    exact = ask(network, before, after)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = ask(network, before, after)
    half = ask(copy.deepcopy(network).bfloat16(), before, after)
    cut = PROMISES[network.card.name].cut
    assert difference(*without_cut(mixed, exact, cut)) < 0.15
    assert difference(*without_cut(half, exact, cut)) < 0.25


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_constant_images_make_no_nan(network, level):
    flat = torch.full((2, 3, 64, 64), level)
    answer = ask(network, flat, flat)
    assert all(torch.isfinite(each).all() for each in parts(answer))


def test_training_on_constant_images_makes_no_nan(network):
    learner = copy.deepcopy(network).train()
    flat = torch.full((2, 3, 32, 32), 0.5)
    ding_loss(learner(flat, flat), Target.of_codes(*torch.ones(2, 2, 32, 32, dtype=torch.uint8))).total.backward()
    assert all(torch.isfinite(each.grad).all() for each in learner.parameters() if each.grad is not None)


def test_it_goes_with_its_weights_to_another_device(network):
    answer = copy.deepcopy(network).to("meta")(*images(33, 50))
    assert all(each.device.type == "meta" for each in parts(answer))
    assert answer.change.shape == (1, 1, 33, 50)


def test_it_answers_with_its_own_words_and_refuses_others_unless_its_vocabulary_is_open(network):
    assert network.bind(WORDS) is network
    if PROMISES[network.card.name].open is not None:
        asked, classes = PROMISES[network.card.name].open
        assert network.bind(asked).card.classes == classes
        assert network.card.classes == WORDS
        return
    assert network.bind([word.title() for word in WORDS]) is network
    with pytest.raises(VocabularyError, match=rf"{network.card.name} was trained with the classes {', '.join(WORDS)}"):
        network.bind(["dragon"])


def test_four_bands_are_refused_with_advice(network):
    with pytest.raises(InputError, match="give red, green and blue"):
        network(torch.zeros(1, 4, 32, 32), torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("name", [name for name in NETWORKS if MODELS[name].shipped is None])
def test_a_network_without_weights_is_not_ready_by_its_name_alone(name):
    with pytest.raises(UsageError, match="is a network without weights"):
        registry.ready(name)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_refuses_options_that_it_does_not_know(name):
    option, wrong, meant = PROMISES[name].mistake
    with pytest.raises(UsageError, match=f"did you mean '{meant}'"):
        registry.build(name, **{option: wrong})


def test_a_method_that_fits_itself_is_ready():
    assert registry.ready("irmad").card.name == "irmad"
