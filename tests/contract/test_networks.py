"""The contract of every network in `MODELS`; a new row is tested without further code.

One network of each kind is built per module, with random weights and warmed-up batch norms,
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
from wasnow.models import checkpoint, loading, registry
from wasnow.models.contract import ChangeLogits, ChangeModel, SceneModel
from wasnow.models.registry import MODELS
from wasnow.training.losses import Target, ding_loss

NETWORKS = [name for name, entry in MODELS.items() if entry.network]
WORDS = ("water", "building", "low vegetation")


@dataclass(frozen=True)
class Contract:
    """The properties in which networks differ.

    Attributes:
        symmetric: whether swapped dates give the same change and swapped classes; None: only before training.
        untrained: patterns of parameters whose gradient is zero by construction.
        options: that make the network small.
        open: words to bind and the resulting classes; None for a fixed vocabulary.
        cut: log-odds at which change is suppressed for pixels without a class change; rounding can flip these pixels.
        mistake: an option, an invalid value of it, and the value that the message suggests.
    """

    symmetric: bool | None = False
    untrained: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    open: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    cut: float | None = None
    mistake: tuple[str, str, str] = ("normalisation", "imagnet", "imagenet")


CONTRACTS = {
    "sscd-l": Contract(),
    # A bias of the keys adds the same value to all scores of a query; the softmax cancels it.
    "bisrnet": Contract(untrained=("*.key.bias",)),
    "hrscd": Contract(),
    # Published weights contain layers of a classifier and of image fusion that the network does not use.
    "changemask": Contract(symmetric=True, untrained=("encoder._conv_head.*", "encoder._bn1.*", "interact.0.*")),
    "ted": Contract(),
    "scannet": Contract(),
    "smnet": Contract(symmetric=True),
    # The same for keys; CLIP's logit scale is unused by default.
    "semantic-cd": Contract(
        untrained=("*.k_proj.bias", "clip.logit_scale"),
        options=SMALL,
        open=(("dragon",), ("dragon",)),
        mistake=("prompter", "instanse", "instance"),
    ),
    # The head for the pixel size is trained by its own loss.
    "semantic-cd-mini": Contract(
        untrained=("pixel_size.*",),
        symmetric=None,
        cut=-4.0,
        open=(("water", "building", "low vegetation", "road"), ("water", "building", "low vegetation", "road")),
        mistake=("change", "bothe", "both"),
    ),
    # The same for keys; the word decoder needs priors (see tests/models/test_sam_cd.py).
    "sam-cd": Contract(
        symmetric=True,
        untrained=("*.k_proj.bias", "*.key.bias", "word_decoder.*", "mask_weight"),
        options={"encoder": {"widths": (8, 16, 40, 64)}, "width": 32},
        mistake=("priors", "atention", "attention"),
    ),
    "mamba-scd": Contract(
        options={"encoder": {"width": 16, "depths": [1, 1, 1, 1]}, "width": 16},
        mistake=("size", "tinny", "tiny"),
    ),
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    return warmed_up(request.param)


def warmed_up(name: str) -> nn.Module:
    torch.manual_seed(0)
    made = registry.build(name, classes=WORDS, **CONTRACTS[name].options)
    norms = [part for part in made.modules() if isinstance(part, nn.BatchNorm2d)]
    with torch.no_grad():
        for each in made.parameters():
            if not each.any():
                each.fill_(0.1)
        usual = [norm.momentum for norm in norms]
        for norm in norms:
            norm.weight.fill_(0.25)  # forty random layers at full scale amplify rounding; trained layers do not
            norm.momentum = 1.0
        made.train()(*images(64, 64, batch=2))
        for norm, momentum in zip(norms, usual, strict=True):
            norm.momentum = momentum
    return made.eval()


def images(height: int, width: int, *, batch: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return two dates of textures in 0..1 that share a common component."""
    scenes = [torch.from_numpy(textured(seed + i, height, width)) / 255 for i in range(3 * batch)]
    common, first, second = (torch.stack(scenes[i::3]) for i in range(3))
    return (common + first) / 2, (common + second) / 2


@torch.no_grad()
def predict(network: nn.Module, before: Tensor, after: Tensor) -> ChangeLogits:
    answer = network(before, after, torch.ones_like(before[:, :1], dtype=torch.bool))
    assert isinstance(answer, ChangeLogits)
    return answer


def parts(answer: ChangeLogits) -> list[Tensor]:
    return [each for each in (answer.change, answer.before, answer.after) if each is not None]


def difference(one: ChangeLogits, other: ChangeLogits) -> float:
    """Return the largest difference relative to the largest logit."""
    pairs = zip(parts(one), parts(other), strict=True)
    return max(((x.double() - y.double()).abs().max() / y.abs().max()).item() for x, y in pairs)


def above_cut(one: ChangeLogits, other: ChangeLogits, cut: float | None) -> tuple[ChangeLogits, ChangeLogits]:
    """Return both with change 0 where either is at or below the cut."""
    if cut is None:
        return one, other
    held = (one.change <= cut) | (other.change <= cut)
    assert not held.all()
    first, second = (ChangeLogits(torch.where(held, 0, each.change), each.before, each.after) for each in (one, other))
    return first, second


def test_every_network_has_a_contract():
    assert set(CONTRACTS) == set(NETWORKS)


def test_the_network_is_a_change_model(network):
    assert isinstance(network, ChangeModel)
    assert not isinstance(network, SceneModel)


def test_the_card_is_consistent(network):
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
def test_the_prediction_has_the_size_of_the_images(network, height, width, batch):
    answer = predict(network, *images(height, width, batch=batch))
    assert answer.change.shape == (batch, 1, height, width)
    assert answer.land_cover is not None
    for cover in answer.land_cover:
        assert cover.shape == (batch, len(WORDS), height, width)
    assert all(torch.isfinite(each).all() for each in parts(answer))


def test_predictions_do_not_depend_on_the_batch(network):
    before, after = images(64, 64, batch=2)
    together, alone = predict(network, before, after), predict(network, before[1:], after[1:])
    last = ChangeLogits(together.change[1:], together.before[1:], together.after[1:])
    assert difference(last, alone) < 1e-4


def test_predictions_are_deterministic(network):
    pair = images(64, 64)
    for one, other in zip(parts(predict(network, *pair)), parts(predict(network, *pair)), strict=True):
        assert torch.equal(one, other)


def test_swapped_dates_swap_the_prediction_of_symmetric_networks(network):
    before, after = images(64, 64)
    there, back = predict(network, before, after), predict(network, after, before)
    gap = difference(ChangeLogits(back.change, back.after, back.before), there)
    promised = CONTRACTS[network.card.name].symmetric
    assert network.card.symmetric == (promised is True)
    if promised is not False:
        assert gap < 1e-4
    else:
        assert gap > 1e-2  # otherwise the network should be marked symmetric


def test_every_trainable_parameter_gets_a_gradient(network):
    codes = torch.randint(0, len(WORDS) + 1, (2, 2, 64, 64), generator=torch.Generator().manual_seed(1))
    target = Target.of_codes(*torch.where(codes[:1] > 0, codes.clamp(min=1), 0))
    network.zero_grad()
    ding_loss(network(*images(64, 64, batch=2)), target).total.backward()
    untrained = CONTRACTS[network.card.name].untrained
    without_gradient = []
    for name, each in network.named_parameters():
        if each.grad is None and any(fnmatch(name, pattern) for pattern in untrained):
            continue
        assert each.grad is not None, name
        assert torch.isfinite(each.grad).all(), name
        if not each.grad.any() and not any(fnmatch(name, pattern) for pattern in untrained):
            without_gradient.append(name)
    network.zero_grad()
    assert not without_gradient


def test_a_checkpoint_restores_the_same_network(network, tmp_path):
    path = checkpoint.save(tmp_path / "it.safetensors", network, provenance={"origin": "a test"})
    back = checkpoint.load(path)
    assert back.card == replace(network.card, weights=back.card.weights)
    assert back.card.weights.fingerprint == checkpoint.read_header(path).digest
    assert back.config() == network.config() == json.loads(json.dumps(network.config()))
    pair = images(33, 50)
    for one, other in zip(parts(predict(back, *pair)), parts(predict(network, *pair)), strict=True):
        assert torch.equal(one, other)


def test_bfloat16_is_close_to_float32(network):
    before, after = images(64, 64)
    exact = predict(network, before, after)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = predict(network, before, after)
    half = predict(copy.deepcopy(network).bfloat16(), before, after)
    cut = CONTRACTS[network.card.name].cut
    assert difference(*above_cut(mixed, exact, cut)) < 0.15
    assert difference(*above_cut(half, exact, cut)) < 0.25


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_constant_images_give_finite_predictions(network, level):
    flat = torch.full((2, 3, 64, 64), level)
    answer = predict(network, flat, flat)
    assert all(torch.isfinite(each).all() for each in parts(answer))


def test_training_on_constant_images_gives_finite_gradients(network):
    learner = copy.deepcopy(network).train()
    flat = torch.full((2, 3, 32, 32), 0.5)
    ding_loss(learner(flat, flat), Target.of_codes(*torch.ones(2, 2, 32, 32, dtype=torch.uint8))).total.backward()
    assert all(torch.isfinite(each.grad).all() for each in learner.parameters() if each.grad is not None)


def test_the_network_moves_to_another_device(network):
    answer = copy.deepcopy(network).to("meta")(*images(33, 50))
    assert all(each.device.type == "meta" for each in parts(answer))
    assert answer.change.shape == (1, 1, 33, 50)


def test_only_open_vocabulary_networks_accept_other_words(network):
    assert network.bind(WORDS) is network
    if CONTRACTS[network.card.name].open is not None:
        words, classes = CONTRACTS[network.card.name].open
        assert network.bind(words).card.classes == classes
        assert network.card.classes == WORDS
        return
    assert network.bind([word.title() for word in WORDS]) is network
    with pytest.raises(VocabularyError, match=rf"{network.card.name} was trained with the classes {', '.join(WORDS)}"):
        network.bind(["dragon"])


def test_four_bands_are_rejected_with_advice(network):
    with pytest.raises(InputError, match="use red, green and blue"):
        network(torch.zeros(1, 4, 32, 32), torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("name", [name for name in NETWORKS if MODELS[name].shipped is None])
def test_a_network_without_weights_is_not_ready(name):
    with pytest.raises(UsageError, match="is a network and needs weights"):
        loading.load(name)


@pytest.mark.parametrize("name", NETWORKS)
def test_unknown_options_are_rejected_with_a_suggestion(name):
    option, wrong, meant = CONTRACTS[name].mistake
    with pytest.raises(UsageError, match=f"did you mean '{meant}'"):
        registry.build(name, **{option: wrong})


def test_a_method_without_weights_is_ready():
    assert loading.load("irmad").card.name == "irmad"
