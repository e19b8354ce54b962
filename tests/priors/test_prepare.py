"""Image preparation, compared with the processors of transformers where those can be imported."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wasnow.priors import prepare
from wasnow.priors.prepare import Preparation

PICTURE = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
TALL = np.ascontiguousarray(PICTURE.transpose(1, 0, 2))


@pytest.mark.parametrize("picture", [PICTURE, TALL], ids=["wide", "tall"])
def test_the_input_of_sam_agrees_with_its_processor(picture):
    processors = pytest.importorskip("transformers.models.sam.image_processing_pil_sam")
    theirs = processors.SamImageProcessorPil(size={"longest_edge": 128}, pad_size={"height": 128, "width": 128})(
        picture, return_tensors="pt"
    )
    ours = Preparation("longest", (128,))
    assert ours.scaled_shape(*picture.shape[:2]) == tuple(theirs["reshaped_input_sizes"][0])
    difference = (ours(picture) - theirs["pixel_values"]).abs()
    # One grey level, here and there, where two libraries round differently.
    assert difference.max() < 1.01 / 255 / min(prepare.IMAGENET_STD)
    assert (difference > 0).float().mean() < 0.25


@pytest.mark.parametrize("picture", [PICTURE, TALL, PICTURE[:20]], ids=["wide", "tall", "long"])
def test_the_input_of_grounding_dino_agrees_with_its_processor(picture):
    module = "transformers.models.grounding_dino.image_processing_pil_grounding_dino"
    processors = pytest.importorskip(module)
    theirs = processors.GroundingDinoImageProcessorPil(size={"shortest_edge": 80, "longest_edge": 133})(
        picture, return_tensors="pt"
    )
    ours = Preparation("shortest", (80, 133))(picture)
    assert ours.shape == theirs["pixel_values"].shape
    difference = (ours - theirs["pixel_values"]).abs()
    assert difference.max() < 1.01 / 255 / min(prepare.IMAGENET_STD)
    assert theirs["pixel_mask"].all()


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_the_shorter_side_rule_agrees_with_transformers(height, width):
    from transformers.image_transforms import get_size_with_aspect_ratio

    theirs = get_size_with_aspect_ratio((height, width), 800, 1333)
    assert prepare.GROUNDING_DINO.scaled_shape(height, width) == tuple(max(1, side) for side in theirs)


def test_the_input_of_clipseg_agrees_with_its_processor():
    processors = pytest.importorskip("transformers.models.vit.image_processing_pil_vit")
    theirs = processors.ViTImageProcessorPil(
        size={"height": 32, "width": 32}, image_mean=prepare.IMAGENET_MEAN, image_std=prepare.IMAGENET_STD
    )(PICTURE, return_tensors="pt")["pixel_values"]
    difference = (Preparation("exact", (32, 32))(PICTURE) - theirs).abs()
    assert difference.max() < 1.01 / 255 / min(prepare.IMAGENET_STD)


def test_an_image_of_the_right_size_is_only_normalised():
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[..., 0] = 255
    seen = Preparation("exact", (32, 32), prepare.STANDARD, prepare.STANDARD)(picture)
    assert (seen[0, 0] == 1).all()
    assert (seen[0, 1:] == -1).all()


def test_padding_is_zero_after_normalisation():
    seen = Preparation("longest", (64,))(np.full((10, 20, 3), 200, np.uint8))
    assert seen.shape == (1, 3, 64, 64)
    assert (seen[:, :, 32:] == 0).all()
    assert (seen[:, :, :32] != 0).all()


@pytest.mark.parametrize("fit", [Preparation("longest", (128,)), Preparation("exact", (128, 128))])
@pytest.mark.parametrize("shape", [(40, 64), (64, 40), (64, 64), (200, 100)])
def test_boxes_and_masks_map_back_to_the_image(fit, shape):
    """Oracle: a box, scaled to the network's input, filled, and mapped back as a mask."""
    height, width = shape
    box = torch.tensor([[width / 4, height / 4, 3 * width / 4, height / 2]])
    x0, y0, x1, y1 = fit.boxes(box, height, width)[0].round().int().tolist()
    there = torch.full((1, 128, 128), -1.0)
    there[0, y0:y1, x0:x1] = 1.0
    back = fit.masks(there, height, width)[0] > 0
    expected = torch.zeros(height, width, dtype=torch.bool)
    expected[height // 4 : height // 2, width // 4 : 3 * width // 4] = True
    # Within a pixel around the edge of the box.
    assert (back != expected).sum() <= 2 * (height + width)
    assert back[3 * height // 8, width // 2]
    assert not back[3 * height // 4, width // 2]


def test_no_boxes_give_no_masks():
    assert prepare.SAM.masks(torch.zeros(0, 256, 256), 30, 40).shape == (0, 30, 40)


def test_the_preprocessor_configuration_of_the_weights_is_used():
    configured = prepare.GROUNDING_DINO.configured_by(
        {"size": {"shortest_edge": 64, "longest_edge": 96}, "image_mean": [0.1] * 3}
    )
    assert (configured.size, configured.mean, configured.std) == ((64, 96), (0.1,) * 3, prepare.IMAGENET_STD)
    assert prepare.CLIPSEG.configured_by({"size": 224}).size == (224, 224)
    assert prepare.SAM3.configured_by({"image_processor": {"size": {"height": 56, "width": 56}}}).size == (56, 56)
    assert prepare.SAM.configured_by({}) == prepare.SAM
