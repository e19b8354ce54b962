"""HRSCD, ChangeMask, TED and SCanNet answer what the published implementations answered, after `wasnow convert`."""

import pytest
import torch

from parity.published import answers, description, images, relative, weights
from wasnow.models import checkpoint
from wasnow.models.published.convert import convert

MODELS = ("hrscd", "changemask", "ted", "scannet")


@pytest.fixture(scope="module", params=MODELS)
def converted(request, tmp_path_factory):
    """(fixture, network): weights saved as their authors would, converted as a user would, loaded as a run would."""
    folder = tmp_path_factory.mktemp(request.param)
    torch.save(weights(request.param), folder / "theirs.pth")
    # The fixture's images are normalised already.
    convert(folder / "theirs.pth", request.param, folder / "ours.safetensors", normalisation="none")
    return request.param, checkpoint.load(folder / "ours.safetensors")


@torch.inference_mode()
def test_its_output_equals_the_published_one(converted):
    name, network = converted
    answer = network(*images(name))
    ours = [answer.change, answer.before, answer.after]
    if name == "changemask":  # whose authors answer with probabilities
        ours = [ours[0].sigmoid(), ours[1].softmax(1), ours[2].softmax(1)]
    for mine, theirs in zip(ours, answers(name), strict=True):
        assert mine.shape == theirs.shape
        assert relative(mine, theirs) <= 1e-4


def test_it_has_as_many_parameters_as_the_published_one(converted):
    name, network = converted
    assert network.card.parameters == description(name)["parameters"]
