"""SSCD-l and Bi-SRNet answer what the published implementations answered, after `wasnow convert`."""

import pytest
import torch

from parity.published import answers, description, images, relative, weights
from wasnow.models import checkpoint
from wasnow.models.published.convert import convert

FIXTURES = {"sscd-l": "sscd_l", "bisrnet": "bisrnet"}


@pytest.fixture(scope="module", params=FIXTURES)
def converted(request, tmp_path_factory):
    """(fixture, network): weights saved as their authors would, converted as a user would, loaded as a run would."""
    folder = tmp_path_factory.mktemp(request.param)
    fixture = FIXTURES[request.param]
    torch.save(weights(fixture), folder / "theirs.pth")
    # The fixture's images are normalised already.
    convert(folder / "theirs.pth", request.param, folder / "ours.safetensors", normalisation="none")
    return fixture, checkpoint.load(folder / "ours.safetensors")


@torch.inference_mode()
def test_its_output_equals_the_published_one(converted):
    fixture, network = converted
    answer = network(*images(fixture))
    for ours, theirs in zip((answer.change, answer.before, answer.after), answers(fixture), strict=True):
        assert ours.shape == theirs.shape
        assert relative(ours, theirs) <= 1e-4


def test_it_has_as_many_parameters_as_the_published_one(converted):
    fixture, network = converted
    assert network.card.parameters == description(fixture)["parameters"]
