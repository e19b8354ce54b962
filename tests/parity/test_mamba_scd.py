"""MambaSCD answers what the published implementation answered, after `wasnow convert`."""

import pytest
import torch

from parity.published import answers, description, images, relative, weights
from wasnow.models import checkpoint
from wasnow.models.published.convert import convert

FIXTURE = "mambascd_tiny"


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Weights saved as their authors would, converted as a user would, loaded as a run would."""
    folder = tmp_path_factory.mktemp(FIXTURE)
    torch.save(weights(FIXTURE), folder / "theirs.pth")
    # The fixture's images are normalised already.
    convert(folder / "theirs.pth", "mamba-scd-tiny", folder / "ours.safetensors", normalisation="none")
    return checkpoint.load(folder / "ours.safetensors")


@torch.inference_mode()
def test_its_output_equals_the_published_one(network):
    answer = network(*images(FIXTURE))
    stays, changes = answers(FIXTURE)[0].chunk(2, 1)
    wanted = (changes - stays, *answers(FIXTURE)[1:])
    for ours, theirs in zip((answer.change, answer.before, answer.after), wanted, strict=True):
        assert ours.shape == theirs.shape
        assert relative(ours, theirs) <= 1e-4


def test_it_has_as_many_parameters_as_the_published_one(network):
    assert network.card.parameters == description(FIXTURE)["parameters"]
