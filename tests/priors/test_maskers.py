"""Maskers with tiny networks of random weights: wiring, shapes, thresholds."""

import numpy as np
import pytest
import torch

from wasnow.errors import UsageError
from wasnow.priors.clipseg import ClipSeg
from wasnow.priors.grounded_sam import BoxDetector, GroundedSam
from wasnow.priors.maskers import MaskerChoice
from wasnow.priors.sam3 import Sam3
from wasnow.priors.weights import find_weights

WORDS = ["building", "solar panel"]
PICTURE = np.random.default_rng(3).integers(0, 256, (40, 56, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def maskers(folders):
    dino = str(folders["grounding-dino"])
    return {
        "sam": GroundedSam.load(dino, str(folders["sam"]), box=0.0, text=0.0),
        "sam2": GroundedSam.load(dino, str(folders["sam2"]), box=0.0, text=0.0),
        "sam3": Sam3.load(str(folders["sam3"]), score=0.0),
        "clipseg": ClipSeg.load(str(folders["clipseg"]), score=0.0),
    }


@pytest.fixture
def counted(monkeypatch):
    """Count how often a part of a network runs."""

    def count(part, name="forward"):
        calls = []
        original = getattr(part, name)

        def wrapped(*args, **kwargs):
            calls.append(1)
            return original(*args, **kwargs)

        monkeypatch.setattr(part, name, wrapped)
        return calls

    return count


@pytest.mark.parametrize("family", ["sam", "sam2", "sam3", "clipseg"])
def test_every_masker_gives_one_mask_per_word_with_the_shape_of_the_image(maskers, family):
    masks = maskers[family].masks(PICTURE, WORDS)
    assert masks.shape == (2, 40, 56)
    assert masks.dtype == np.bool_
    # Thresholds of zero find something even with random weights.
    assert masks.any()
    again = maskers[family].masks(PICTURE, WORDS)
    np.testing.assert_array_equal(masks, again)


@pytest.mark.parametrize("family", ["sam", "sam2", "sam3", "clipseg"])
def test_the_result_of_a_word_does_not_depend_on_other_words(maskers, family):
    together = maskers[family].masks(PICTURE, WORDS)
    alone = np.concatenate([maskers[family].masks(PICTURE, [word]) for word in WORDS])
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("family", ["sam", "sam2", "sam3", "clipseg"])
def test_no_words_give_no_masks(maskers, family):
    assert maskers[family].masks(PICTURE, []).shape == (0, 40, 56)


@pytest.mark.parametrize("family", ["sam", "sam2", "sam3", "clipseg"])
def test_scores_are_between_zero_and_one(maskers, family):
    scores = [piece.score for pieces in maskers[family].find(PICTURE, WORDS) for piece in pieces]
    assert scores
    assert all(0 <= score <= 1 for score in scores)


@pytest.mark.parametrize(
    ("family", "part"),
    [
        ("sam", lambda m: m.segmenter.network.vision_encoder),
        ("sam", lambda m: m.detector.network.model.backbone.part),
        ("sam2", lambda m: m.segmenter.network.vision_encoder),
        ("sam3", lambda m: m.network.vision_encoder),
        ("clipseg", lambda m: m.network.clip.vision_model),
    ],
    ids=["sam", "dino", "sam2", "sam3", "clipseg"],
)
def test_the_image_is_encoded_once_for_all_words(maskers, counted, family, part):
    calls = counted(part(maskers[family]))
    maskers[family].find(PICTURE, ["building", "road", "water", "solar panel"])
    assert len(calls) == 1
    maskers[family].find(PICTURE[:, ::-1], ["building", "road"])
    assert len(calls) == 2


def test_the_cached_backbone_is_not_used_for_another_image(maskers):
    one = maskers["sam"].detector.encode(PICTURE)("building")[0]
    other = maskers["sam"].detector.encode(np.ascontiguousarray(255 - PICTURE))("building")[0]
    assert one.shape != other.shape or not np.allclose(one, other)


@pytest.mark.parametrize("family", ["sam", "sam3", "clipseg"])
def test_a_high_threshold_gives_an_empty_mask(folders, maskers, family):
    strict = {
        "sam": lambda: GroundedSam.load(str(folders["grounding-dino"]), str(folders["sam"]), box=0.999, text=0.0),
        "sam3": lambda: Sam3.load(str(folders["sam3"]), score=0.999),
        "clipseg": lambda: ClipSeg.load(str(folders["clipseg"]), score=0.999),
    }[family]()
    if family == "sam":
        # Random weights are as sure as can be: sigmoid rounds to 1.
        strict.detector.box = 1.0
    assert not strict.masks(PICTURE, WORDS).any()
    assert strict.find(PICTURE, WORDS) == ((), ())
    assert strict.key != maskers[family].key


def test_sam_does_not_run_without_boxes(folders, counted):
    masker = GroundedSam.load(str(folders["grounding-dino"]), str(folders["sam"]), text=0.0)
    masker.detector.box = 1.0
    calls = counted(masker.segmenter.network.vision_encoder)
    masker.find(PICTURE, WORDS)
    assert calls == []


@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_thresholds_outside_zero_to_one_are_rejected(folders, value):
    with pytest.raises(UsageError, match="--box"):
        BoxDetector(find_weights(folders["grounding-dino"], ("grounding-dino",)), box=value)
    with pytest.raises(UsageError, match="--score"):
        ClipSeg.load(str(folders["clipseg"]), score=value)
    with pytest.raises(UsageError, match="--score"):
        Sam3.load(str(folders["sam3"]), score=value)


# --- Grounding DINO ------------------------------------------------------------------------------------------------


def test_a_prompt_is_the_word_and_a_dot_with_the_positions_of_its_parts(maskers):
    detector = maskers["sam"].detector
    assert detector.prompt("building") == ([101, 1031, 1012, 102], [[1]])
    assert detector.prompt("Solar  Panels") == ([101, 1033, 1034, 1036, 1012, 102], [[1], [2, 3]])
    # A dot within the word would end the prompt.
    assert detector.prompt("solar. panel") == detector.prompt("solar panel")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("xyzzy", "its tokenizer does not know"),
        ("solar xyzzy", "its tokenizer does not know"),
        (".", "its tokenizer does not know"),
        ("road " * 40, "too long"),
    ],
)
def test_words_that_the_tokenizer_does_not_know_are_rejected(maskers, word, message):
    with pytest.raises(UsageError, match=message):
        maskers["sam"].detector.prompt(word)


def test_boxes_are_selected_by_best_token_and_by_every_part_of_the_word():
    detector = BoxDetector.__new__(BoxDetector)
    detector.box, detector.text = 0.30, 0.25
    scores = torch.tensor(
        [
            [0.9, 0.40, 0.26, 0.0],  # both parts
            [0.9, 0.40, 0.24, 0.0],  # the second part is not spoken for
            [0.9, 0.29, 0.29, 0.0],  # nothing exceeds the box threshold
            [0.9, 0.00, 0.00, 0.9],  # only the frame of the text
        ]
    )
    boxes = torch.tensor([[0.25, 0.5, 0.5, 1.0]]).repeat(4, 1) + torch.arange(4)[:, None] * torch.tensor([0.1, 0, 0, 0])
    at, best = detector.chosen(scores, boxes, [[1], [2]], (100, 200))
    np.testing.assert_allclose(at, [[0, 0, 100, 100]], atol=1e-4)
    np.testing.assert_allclose(best, [0.40])


def test_boxes_without_area_are_dropped():
    detector = BoxDetector.__new__(BoxDetector)
    detector.box, detector.text = 0.3, 0.25
    boxes = torch.tensor([[0.5, 0.5, 0.0, 0.4], [1.3, 0.5, 0.2, 0.2]])
    at, best = detector.chosen(torch.full((2, 3), 0.9), boxes, [[1]], (50, 50))
    assert at.shape == (0, 4)
    assert best.shape == (0,)


def test_the_cached_backbone_gives_the_result_of_the_whole_network(folders, maskers):
    """Oracle: the network of transformers, run for each word."""
    from transformers import GroundingDinoForObjectDetection

    detector = maskers["sam"].detector
    plain = GroundingDinoForObjectDetection.from_pretrained(folders["grounding-dino"]).eval()
    boxes_of = detector.encode(PICTURE)
    for word in WORDS:
        ids, parts = detector.prompt(word)
        with torch.inference_mode():
            answer = plain(pixel_values=detector.prepare(PICTURE), input_ids=torch.tensor([ids]))
        expected = detector.chosen(answer.logits[0].sigmoid(), answer.pred_boxes[0], parts, PICTURE.shape[:2])
        for ours, theirs in zip(boxes_of(word), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)


# --- SAM, SAM 2 ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["sam", "sam2"])
def test_masks_of_boxes_do_not_depend_on_the_batch_size(maskers, family, monkeypatch):
    masks_in = maskers[family].segmenter.encode(PICTURE)
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 20, (7, 2))
    boxes = np.concatenate([low, low + rng.uniform(5, 20, (7, 2))], axis=1).astype(np.float32)
    together = masks_in(boxes)
    monkeypatch.setattr("wasnow.priors.grounded_sam.BOXES_AT_ONCE", 3)
    np.testing.assert_array_equal(masks_in(boxes), together)
    assert together.shape == (7, 40, 56)
    assert masks_in(np.zeros((0, 4), np.float32)).shape == (0, 40, 56)


def test_sam_masks_agree_with_its_post_processing(maskers):
    """Oracle: SamImageProcessorPil.post_process_masks."""
    processors = pytest.importorskip("transformers.models.sam.image_processing_pil_sam")
    segmenter = maskers["sam"].segmenter
    size = {"height": 64, "width": 64}
    theirs = processors.SamImageProcessorPil(size={"longest_edge": 64}, pad_size=size)
    shown = theirs(PICTURE, return_tensors="pt")
    box = np.array([[5, 6, 30, 33]], np.float32)
    with torch.inference_mode():
        answer = segmenter.network(
            pixel_values=segmenter.prepare(PICTURE),
            input_boxes=segmenter.prepare.boxes(torch.from_numpy(box), 40, 56)[None],
            multimask_output=False,
        )
    expected = theirs.post_process_masks(
        [answer.pred_masks[0]], shown["original_sizes"], shown["reshaped_input_sizes"], pad_size=size
    )[0]
    np.testing.assert_array_equal(segmenter.encode(PICTURE)(box), np.asarray(expected)[:, 0])


# --- SAM 3 ---------------------------------------------------------------------------------------------------------


def test_sam_3_scores_and_masks_agree_with_its_post_processing(maskers):
    """Reimplements Sam3ImageProcessor.post_process_instance_segmentation, which needs torchvision."""
    masker = maskers["sam3"]
    told = masker._tokenizer("building", padding="max_length", max_length=32, return_tensors="pt")
    with torch.inference_mode():
        answer = masker.network(pixel_values=masker.prepare(PICTURE), **told)
    scores = answer.pred_logits[0].sigmoid() * answer.presence_logits[0].sigmoid()
    masks = torch.nn.functional.interpolate(answer.pred_masks.sigmoid(), (40, 56), mode="bilinear")[0] > 0.5
    found = masker.find(PICTURE, ["building"])[0]
    kept = [i for i in scores.argsort(descending=True, stable=True).tolist() if masks[i].any()]
    np.testing.assert_allclose([piece.score for piece in found], scores[kept], rtol=1e-4)
    np.testing.assert_array_equal(masker.masks(PICTURE, ["building"])[0], masks.any(dim=0))


# --- CLIPSeg -------------------------------------------------------------------------------------------------------


def test_clipseg_logits_agree_with_the_whole_network(maskers):
    masker = maskers["clipseg"]
    pixels = masker.prepare(PICTURE)
    for word, ours in zip(WORDS, masker.logits(PICTURE, WORDS), strict=True):
        ids = torch.tensor([masker._tokenizer(word)["input_ids"]])
        with torch.inference_mode():
            theirs = masker.network(input_ids=ids, pixel_values=pixels).logits
        torch.testing.assert_close(ours, theirs.reshape(ours.shape), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["sam", "sam2", "sam3", "clipseg"])
def test_the_key_of_a_choice_is_computed_without_its_networks(folders, maskers, family, monkeypatch):
    weights = (folders["grounding-dino"], folders[family]) if family.startswith("sam") and family != "sam3" else None
    name = "grounded-sam" if weights else family
    choice = MaskerChoice(name, tuple(map(str, weights or (folders[family],))), box=0.0, text=0.0, score=0.0)
    for module in ("single_network", "grounded_sam"):
        monkeypatch.setattr(f"wasnow.priors.{module}.load_network", None)
    assert choice.key == maskers[family].key
    monkeypatch.undo()
    assert choice.load().key == choice.key


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("sam4", (), "did you mean 'sam3'"),
        ("files", (), "Give the mask files with --masks"),
        ("grounded-sam", ("x",), "1 weights are given, but grounded-sam has 2 networks: give the detector"),
        ("sam3", ("x", "y"), "sam3 has 1 network"),
    ],
)
def test_invalid_choices_are_rejected(name, weights, message):
    with pytest.raises(UsageError, match=message):
        MaskerChoice(name, weights)
