"""The networks, tiny and with random weights: wiring, shapes, thresholds."""

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
    """How often a part of a network runs."""

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
def test_every_family_gives_one_mask_per_word_on_the_pixels_of_the_picture(maskers, family):
    masks = maskers[family].masks(PICTURE, WORDS)
    assert masks.shape == (2, 40, 56)
    assert masks.dtype == np.bool_
    # Thresholds of zero find something even with random weights.
    assert masks.any()
    again = maskers[family].masks(PICTURE, WORDS)
    np.testing.assert_array_equal(masks, again)


@pytest.mark.parametrize("family", ["sam", "sam2", "sam3", "clipseg"])
def test_a_word_gives_the_same_alone_and_among_others(maskers, family):
    together = maskers[family].masks(PICTURE, WORDS)
    alone = np.concatenate([maskers[family].masks(PICTURE, [word]) for word in WORDS])
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("family", ["sam", "sam2", "sam3", "clipseg"])
def test_no_words_give_no_masks(maskers, family):
    assert maskers[family].masks(PICTURE, []).shape == (0, 40, 56)


@pytest.mark.parametrize("family", ["sam", "sam2", "sam3", "clipseg"])
def test_scores_lie_between_zero_and_one(maskers, family):
    scores = [piece.score for pieces in maskers[family].find(PICTURE, WORDS) for piece in pieces]
    assert scores
    assert all(0 <= score <= 1 for score in scores)


@pytest.mark.parametrize(
    ("family", "part"),
    [
        ("sam", lambda m: m.drawer.network.vision_encoder),
        ("sam", lambda m: m.finder.network.model.backbone.part),
        ("sam2", lambda m: m.drawer.network.vision_encoder),
        ("sam3", lambda m: m.network.vision_encoder),
        ("clipseg", lambda m: m.network.clip.vision_model),
    ],
    ids=["sam", "dino", "sam2", "sam3", "clipseg"],
)
def test_the_picture_is_looked_at_once_for_all_words(maskers, counted, family, part):
    calls = counted(part(maskers[family]))
    maskers[family].find(PICTURE, ["building", "road", "water", "solar panel"])
    assert len(calls) == 1
    maskers[family].find(PICTURE[:, ::-1], ["building", "road"])
    assert len(calls) == 2


def test_another_picture_is_not_answered_from_the_first(maskers):
    one = maskers["sam"].finder.look(PICTURE)("building")[0]
    other = maskers["sam"].finder.look(np.ascontiguousarray(255 - PICTURE))("building")[0]
    assert one.shape != other.shape or not np.allclose(one, other)


@pytest.mark.parametrize("family", ["sam", "sam3", "clipseg"])
def test_a_high_threshold_finds_nothing_and_that_is_an_empty_mask(folders, maskers, family):
    strict = {
        "sam": lambda: GroundedSam.load(str(folders["grounding-dino"]), str(folders["sam"]), box=0.999, text=0.0),
        "sam3": lambda: Sam3.load(str(folders["sam3"]), score=0.999),
        "clipseg": lambda: ClipSeg.load(str(folders["clipseg"]), score=0.999),
    }[family]()
    if family == "sam":
        # Random weights are as sure as can be: sigmoid rounds to 1.
        strict.finder.box = 1.0
    assert not strict.masks(PICTURE, WORDS).any()
    assert strict.find(PICTURE, WORDS) == ((), ())
    assert strict.key != maskers[family].key


def test_sam_is_not_run_where_no_box_is_found(folders, counted):
    masker = GroundedSam.load(str(folders["grounding-dino"]), str(folders["sam"]), text=0.0)
    masker.finder.box = 1.0
    calls = counted(masker.drawer.network.vision_encoder)
    masker.find(PICTURE, WORDS)
    assert calls == []


@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_thresholds_that_are_no_scores_are_refused(folders, value):
    with pytest.raises(UsageError, match="--box"):
        BoxDetector(find_weights(folders["grounding-dino"], ("grounding-dino",)), box=value)
    with pytest.raises(UsageError, match="--score"):
        ClipSeg.load(str(folders["clipseg"]), score=value)
    with pytest.raises(UsageError, match="--score"):
        Sam3.load(str(folders["sam3"]), score=value)


# --- Grounding DINO ------------------------------------------------------------------------------------------------


def test_a_prompt_is_the_word_and_a_dot_and_says_where_its_parts_are(maskers):
    finder = maskers["sam"].finder
    assert finder.prompt("building") == ([101, 1031, 1012, 102], [[1]])
    assert finder.prompt("Solar  Panels") == ([101, 1033, 1034, 1036, 1012, 102], [[1], [2, 3]])
    # A dot of the word's own would end it for the network.
    assert finder.prompt("solar. panel") == finder.prompt("solar panel")


@pytest.mark.parametrize(
    ("word", "said"),
    [("xyzzy", "not spelt"), ("solar xyzzy", "not spelt"), (".", "not spelt"), ("road " * 40, "too long")],
)
def test_words_that_the_text_model_cannot_read_are_refused(maskers, word, said):
    with pytest.raises(UsageError, match=said):
        maskers["sam"].finder.prompt(word)


def test_boxes_count_by_their_best_token_and_every_part_of_the_word():
    finder = BoxDetector.__new__(BoxDetector)
    finder.box, finder.text = 0.30, 0.25
    scores = torch.tensor(
        [
            [0.9, 0.40, 0.26, 0.0],  # both parts
            [0.9, 0.40, 0.24, 0.0],  # the second part is not spoken for
            [0.9, 0.29, 0.29, 0.0],  # nothing exceeds the box threshold
            [0.9, 0.00, 0.00, 0.9],  # only the frame of the text
        ]
    )
    boxes = torch.tensor([[0.25, 0.5, 0.5, 1.0]]).repeat(4, 1) + torch.arange(4)[:, None] * torch.tensor([0.1, 0, 0, 0])
    at, best = finder.chosen(scores, boxes, [[1], [2]], (100, 200))
    np.testing.assert_allclose(at, [[0, 0, 100, 100]], atol=1e-4)
    np.testing.assert_allclose(best, [0.40])


def test_boxes_without_area_are_left_out():
    finder = BoxDetector.__new__(BoxDetector)
    finder.box, finder.text = 0.3, 0.25
    boxes = torch.tensor([[0.5, 0.5, 0.0, 0.4], [1.3, 0.5, 0.2, 0.2]])
    at, best = finder.chosen(torch.full((2, 3), 0.9), boxes, [[1]], (50, 50))
    assert at.shape == (0, 4)
    assert best.shape == (0,)


def test_the_backbone_kept_gives_what_the_whole_network_gives(folders, maskers):
    """The network as transformers runs it, word by word, is the oracle."""
    from transformers import GroundingDinoForObjectDetection

    finder = maskers["sam"].finder
    plain = GroundingDinoForObjectDetection.from_pretrained(folders["grounding-dino"]).eval()
    boxes_of = finder.look(PICTURE)
    for word in WORDS:
        ids, parts = finder.prompt(word)
        with torch.inference_mode():
            answer = plain(pixel_values=finder.prepare(PICTURE), input_ids=torch.tensor([ids]))
        expected = finder.chosen(answer.logits[0].sigmoid(), answer.pred_boxes[0], parts, PICTURE.shape[:2])
        for ours, theirs in zip(boxes_of(word), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)


# --- SAM, SAM 2 ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["sam", "sam2"])
def test_boxes_are_drawn_alike_one_by_one_and_many_at_once(maskers, family, monkeypatch):
    masks_in = maskers[family].drawer.look(PICTURE)
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 20, (7, 2))
    boxes = np.concatenate([low, low + rng.uniform(5, 20, (7, 2))], axis=1).astype(np.float32)
    together = masks_in(boxes)
    monkeypatch.setattr("wasnow.priors.grounded_sam.BOXES_AT_ONCE", 3)
    np.testing.assert_array_equal(masks_in(boxes), together)
    assert together.shape == (7, 40, 56)
    assert masks_in(np.zeros((0, 4), np.float32)).shape == (0, 40, 56)


def test_sam_draws_what_its_own_post_processing_gives(maskers):
    """SamImageProcessorPil.post_process_masks is the oracle for the way back through padding."""
    processors = pytest.importorskip("transformers.models.sam.image_processing_pil_sam")
    drawer = maskers["sam"].drawer
    size = {"height": 64, "width": 64}
    theirs = processors.SamImageProcessorPil(size={"longest_edge": 64}, pad_size=size)
    shown = theirs(PICTURE, return_tensors="pt")
    box = np.array([[5, 6, 30, 33]], np.float32)
    with torch.inference_mode():
        answer = drawer.network(
            pixel_values=drawer.prepare(PICTURE),
            input_boxes=drawer.prepare.boxes(torch.from_numpy(box), 40, 56)[None],
            multimask_output=False,
        )
    expected = theirs.post_process_masks(
        [answer.pred_masks[0]], shown["original_sizes"], shown["reshaped_input_sizes"], pad_size=size
    )[0]
    np.testing.assert_array_equal(drawer.look(PICTURE)(box), np.asarray(expected)[:, 0])


# --- SAM 3 ---------------------------------------------------------------------------------------------------------


def test_sam_3_scores_and_masks_as_its_own_post_processing_does(maskers):
    """Written out from Sam3ImageProcessor.post_process_instance_segmentation, which does not import here."""
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


def test_clipseg_answers_as_the_whole_network_does(maskers):
    masker = maskers["clipseg"]
    pixels = masker.prepare(PICTURE)
    for word, ours in zip(WORDS, masker.logits(PICTURE, WORDS), strict=True):
        ids = torch.tensor([masker._tokenizer(word)["input_ids"]])
        with torch.inference_mode():
            theirs = masker.network(input_ids=ids, pixel_values=pixels).logits
        torch.testing.assert_close(ours, theirs.reshape(ours.shape), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["sam", "sam2", "sam3", "clipseg"])
def test_a_choice_knows_the_key_of_a_masker_without_making_its_networks(folders, maskers, family, monkeypatch):
    weights = (folders["grounding-dino"], folders[family]) if family.startswith("sam") and family != "sam3" else None
    name = "grounded-sam" if weights else family
    choice = MaskerChoice(name, tuple(map(str, weights or (folders[family],))), box=0.0, text=0.0, score=0.0)
    for module in ("single_network", "grounded_sam"):
        monkeypatch.setattr(f"wasnow.priors.{module}.load_network", None)
    assert choice.key == maskers[family].key
    monkeypatch.undo()
    assert choice.load().key == choice.key


@pytest.mark.parametrize(
    ("name", "weights", "said"),
    [
        ("sam4", (), "did you mean 'sam3'"),
        ("files", (), "name the files with --masks"),
        ("grounded-sam", ("x",), "1 weights are given, and grounded-sam has 2 networks: name the detector"),
        ("sam3", ("x", "y"), "sam3 has 1 network"),
    ],
)
def test_a_choice_that_cannot_be_meant_is_refused(name, weights, said):
    with pytest.raises(UsageError, match=said):
        MaskerChoice(name, weights)
