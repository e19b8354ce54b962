"""SSCD-l against what its paper and its backbone say. What all networks promise is in ``tests/contract``."""

import pytest
import torch

from wasnow.errors import CheckpointError, UsageError
from wasnow.models.published.convert import load_backbone
from wasnow.models.sscd_l import SECOND_WORDS, SSCDL
from wasnow.nn.normalise import NORMALISATIONS, Normalise
from wasnow.nn.resnet import BasicBlock, ResNet34, basic_blocks


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return SSCDL().eval()


def test_the_default_classes_are_those_of_second(network):
    assert network.card.classes == SECOND_WORDS
    assert network.classes_before.out_channels == 7


def test_its_backbone_is_resnet34_as_published():
    # 21,797,672 parameters with the classifier for 1000 classes, as torchvision documents them.
    assert sum(each.numel() for each in ResNet34().parameters()) == 21_797_672 - (512 * 1000 + 1000)


@torch.inference_mode()
@pytest.mark.parametrize(
    ("strides", "sides"),
    [((1, 2, 2, 2), (16, 8, 4, 2)), ((1, 2, 1, 1), (16, 8, 8, 8))],
    ids=["published", "kept large"],
)
def test_its_stages_have_the_requested_strides(strides, sides):
    stages = ResNet34(strides)(torch.zeros(1, 3, 64, 64))
    assert [(each.shape[1], each.shape[2]) for each in stages] == list(zip((64, 128, 256, 512), sides, strict=True))


def test_a_block_with_zero_weights_returns_its_input():
    block = BasicBlock(4, 4).eval()
    torch.nn.init.zeros_(block.conv2.weight)
    x = torch.rand(1, 4, 5, 5)
    assert torch.allclose(block(x), x)


def test_only_the_first_block_of_a_row_projects():
    row = basic_blocks(4, 8, 3, stride=2)
    assert [each.downsample is not None for each in row] == [True, False, False]
    assert row(torch.rand(2, 4, 9, 9)).shape == (2, 8, 5, 5)


def test_weights_of_imagenet_fit_the_backbone_without_their_classifier(network, tmp_path):
    torch.manual_seed(1)
    theirs = ResNet34().state_dict()
    torch.save({**theirs, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}, tmp_path / "resnet34.pth")
    mine = SSCDL()
    load_backbone(mine.encoder.resnet, tmp_path / "resnet34.pth")
    assert all(torch.equal(each, theirs[name]) for name, each in mine.encoder.resnet.state_dict().items())


def test_weights_of_another_resnet_are_rejected_by_their_first_difference(tmp_path):
    shallow = {name: each for name, each in ResNet34().state_dict().items() if not name.startswith("layer1.2")}
    torch.save(shallow, tmp_path / "resnet18.pth")
    with pytest.raises(CheckpointError, match=r"has no layer1\.2\.conv1\.weight \(64, 64, 3, 3\), which ResNet-34"):
        load_backbone(ResNet34(), tmp_path / "resnet18.pth")


@torch.inference_mode()
def test_its_classes_of_a_date_do_not_depend_on_the_other_date(network):
    torch.manual_seed(2)
    before, after, other = torch.rand(3, 1, 3, 32, 32)
    one, two = network(before, after), network(before, other)
    assert torch.equal(one.before, two.before)
    assert not torch.equal(one.after, two.after)
    assert not torch.equal(one.change, two.change)


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_normalisation_is_the_published_arithmetic_on_bytes(name):
    normalise = Normalise(name)
    image = torch.randint(0, 256, (1, 3, 4, 5), generator=torch.Generator().manual_seed(0))
    for date, levels in zip(("before", "after"), NORMALISATIONS[name], strict=True):
        mean, std = (255 * torch.tensor(x)[:, None, None] for x in (levels.mean, levels.std))
        theirs = (image - mean) / std
        assert torch.allclose(normalise(image / 255, date), theirs, atol=1e-5)
    assert not normalise.state_dict()


def test_an_unknown_normalisation_is_rejected_with_a_suggestion():
    with pytest.raises(UsageError, match="did you mean 'second'"):
        Normalise("secnd")
