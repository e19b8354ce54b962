"""Blocks: any tiling, batch and resolution gives the prediction of the whole image."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from making import Toy, textured
from wasnow.models.calibration import moved_threshold
from wasnow.models.contract import ChangeLogits
from wasnow.pipeline.block import InferenceSettings, InputScaling, predict_block
from wasnow.raster.pair import PairWindow, Reason
from wasnow.raster.radiometry import Stretch
from wasnow.raster.tiles import Tiling, Window
from wasnow.vocabulary import Vocabulary

FULL_RANGE = Stretch((0.0,) * 3, (255.0,) * 3)
SCALING = InputScaling(FULL_RANGE, FULL_RANGE, (0.5,) * 3, (0.5,) * 3)


def scene(height: int, width: int, *, holes: bool = True, seed: int = 0) -> PairWindow:
    before, after = textured(seed, height, width), textured(seed, height, width)
    after[:, height // 3 : height // 2, width // 3 : width // 2] += 60
    reason = np.zeros((height, width), np.uint8)
    if holes:
        reason[: height // 5, : width // 5] = Reason.BEFORE_MISSING
        before[:, reason > 0] = np.nan
    return PairWindow(Window(0, 0, height, width), before, after, reason)


def map_of(model, whole, tiling, *, factor=1.0, result=None, blend=False, batch=1, threshold=0.5, **more):
    results = results_of(model, whole, tiling, factor, result, blend=blend, batch=batch, threshold=threshold, **more)
    return results["codes"], results["confidence"]


def results_of(model, whole, tiling, factor=1.0, result=None, *, threshold=0.5, **more):
    shape = whole.reason.shape
    settings_ = InferenceSettings(
        vocabulary=Vocabulary(model.card.classes),
        threshold=threshold,
        factor=factor,
        result_shape=result or shape,
        working_shape=shape,
        **more,
    )
    codes = np.full((3, *settings_.result_shape), 77, settings_.vocabulary.dtype)
    confidence = np.full((3 if model.card.classes else 1, *settings_.result_shape), 77, np.uint8)
    landcover = np.full((2, *settings_.result_shape), 77, settings_.vocabulary.dtype)
    for block in tiling:
        cut = block.read.clip(*shape)
        part = cut.within(whole.window)
        pixels = PairWindow(
            cut, whole.before[(slice(None), *part)], whole.after[(slice(None), *part)], whole.reason[part]
        )
        got = predict_block(model, SCALING, settings_, block, pixels)
        place = got.window.within(Window(0, 0, *settings_.result_shape))
        codes[(slice(None), *place)] = got.codes
        confidence[(slice(None), *place)] = got.confidence
        if got.landcover is not None:
            landcover[(slice(None), *place)] = got.landcover
    return {"codes": codes, "confidence": confidence, "landcover": landcover}


@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([24, 32, 48]), st.integers(20, 100), st.integers(1, 3))
def test_the_map_does_not_depend_on_tiles_blocks_or_batches(height, width, tile, block_side, batch):
    model, whole = Toy(radius=4), scene(height, width)
    one = map_of(model, whole, Tiling(height, width, 256, 4))
    many = map_of(model, whole, Tiling(height, width, tile, 4, block_side=block_side), batch=batch)
    assert (np.abs(one[1].astype(int) - many[1]) <= 1).all()
    assert (one[0] != many[0]).mean() <= 0.01


@given(st.integers(20, 80), st.integers(20, 80), st.sampled_from([0.5, 1.37, 2.0, 3.3]))
def test_resampled_predictions_have_no_seams(height, width, factor):
    model, whole = Toy(radius=3), scene(height, width)
    result = int(height * factor), int(width * factor)  # whole pixels of the working grid's extent
    one = map_of(model, whole, Tiling(height, width, 256, 8), factor=factor, result=result)
    many = map_of(model, whole, Tiling(height, width, 32, 8, block_side=40), factor=factor, result=result)
    assert (np.abs(one[1].astype(int) - many[1]) <= 1).all()
    assert (one[0] != many[0]).mean() <= 0.01


@given(st.integers(20, 80), st.integers(20, 80), st.integers(10, 60))
def test_blended_predictions_do_not_depend_on_blocks(height, width, block_side):
    model, whole = Toy(radius=3), scene(height, width)
    one = map_of(model, whole, Tiling(height, width, 32, 8, block_side=1000, blend=True), blend=True)
    many = map_of(model, whole, Tiling(height, width, 32, 8, block_side=block_side, blend=True), blend=True)
    np.testing.assert_array_equal(one[0], many[0])
    np.testing.assert_array_equal(one[1], many[1])


@dataclass(frozen=True)
class Recording(Toy):
    """A `Toy` that keeps what it was shown."""

    shown: list[torch.Tensor] = field(default_factory=list, compare=False)

    def __call__(self, before, after, valid):
        self.shown.append(before)
        return super().__call__(before, after, valid)


@given(st.integers(17, 40), st.integers(17, 40))
def test_a_raster_smaller_than_a_tile_is_continued_by_mirroring(height, width):
    model, whole = Recording(stride=32), scene(height, width, holes=False)
    map_of(model, whole, Tiling(height, width, 64, 4, stride=32))
    (shown,) = model.shown
    rows, cols = (-size % 32 for size in (height, width))
    mirrored = np.pad(whole.before / 255, [(0, 0), (0, rows), (0, cols)], mode="reflect")
    np.testing.assert_allclose(shown[0].numpy(), mirrored, atol=1e-6)


def test_every_pixel_is_classified_unchanged_or_flagged():
    model, whole = Toy(), scene(70, 60)
    codes, confidence = map_of(model, whole, Tiling(70, 60, 32, 4))
    flagged = whole.reason > 0
    assert (codes[:, flagged] == 255).all()
    assert (confidence[:, flagged] == 255).all()
    assert (codes[2][~flagged] <= 9).all()
    assert (confidence[:, ~flagged] <= 254).all()
    changed = codes[2] != 0
    assert changed[~flagged].any()
    assert (codes[:2, ~changed] == 0).all()
    assert (codes[0, changed & ~flagged] >= 1).all()


def test_a_model_without_classes_leaves_the_class_bands_empty():
    codes, confidence = map_of(Toy(classes=()), scene(40, 40, holes=False), Tiling(40, 40, 32, 4))
    assert set(np.unique(codes[:2])) == {0}
    assert set(np.unique(codes[2])) == {0, 1}
    assert len(confidence) == 1


def test_an_identical_pair_has_no_change():
    whole = scene(40, 40)
    same = PairWindow(whole.window, whole.before, whole.before.copy(), whole.reason)
    codes, _ = map_of(Toy(), same, Tiling(40, 40, 32, 4))
    assert set(np.unique(codes[2])) == {0, 255}


def test_swapping_the_dates_swaps_from_and_to():
    whole = scene(60, 50)
    swapped = PairWindow(whole.window, whole.after.copy(), whole.before.copy(), whole.reason)
    forth, _ = map_of(Toy(), whole, Tiling(60, 50, 32, 4))
    back, _ = map_of(Toy(), swapped, Tiling(60, 50, 32, 4))
    np.testing.assert_array_equal(forth[0], back[1])
    np.testing.assert_array_equal(forth[1], back[0])


@pytest.mark.parametrize("shape", [(1, 1), (13, 70), (3, 200), (31, 33)])
def test_images_smaller_than_a_tile_or_a_stride_work(shape):
    codes, _ = map_of(Toy(stride=8, radius=8), scene(*shape, holes=False), Tiling(*shape, 64, 8, stride=8))
    assert codes.shape == (3, *shape)
    assert (codes[2] <= 9).all()


def test_predictions_that_are_not_finite_are_flagged():
    class Broken(Toy):
        def __call__(self, before, after, valid):
            logits = super().__call__(before, after, valid)
            logits.change[..., 3, 5] = float("nan")
            return ChangeLogits(logits.change, logits.before, logits.after)

    codes, confidence = map_of(Broken(), scene(20, 20, holes=False), Tiling(20, 20, 32, 4))
    assert codes[2, 3, 5] == 255
    assert (confidence[:, 3, 5] == 255).all()
    assert (codes[2] == 255).sum() == 1


def test_the_model_input_is_finite_where_data_are_missing():
    """Toy asserts that its input is finite; here most of a block is missing."""
    whole = scene(40, 40)
    whole.reason[1:] = Reason.AFTER_MISSING
    whole.after[:, 1:] = np.nan
    codes, _ = map_of(Toy(), whole, Tiling(40, 40, 32, 4))
    assert (codes[2, 1:] == 255).all()


# --- class maps, thresholds of classes, temperatures --------------------------------------------------------------


@settings(max_examples=12)
@given(st.integers(20, 70), st.integers(20, 70), st.sampled_from([24, 48]), st.sampled_from([1.0, 1.7]), st.booleans())
def test_class_maps_equal_the_change_map_where_it_changed_and_are_never_zero(height, width, tile, factor, blend):
    model, whole, size = Toy(radius=3), scene(height, width), (int(height * factor), int(width * factor))
    tiling = Tiling(height, width, tile, 8, blend=blend)
    got = results_of(model, whole, tiling, factor, size, blend=blend, landcover=True)
    codes, cover = got["codes"], got["landcover"]
    flagged = codes[2] == 255
    changed = (codes[2] > 0) & ~flagged
    np.testing.assert_array_equal(cover[:, changed], codes[:2, changed])
    assert (cover[:, flagged] == 255).all()
    assert ((cover[:, ~flagged] >= 1) & (cover[:, ~flagged] <= 3)).all()


def test_class_maps_are_the_largest_logits():
    whole = scene(40, 40, holes=False)
    cover = results_of(Toy(), whole, Tiling(40, 40, 48, 4), landcover=True)["landcover"]
    fed = [torch.from_numpy(each / np.float32(255))[None] for each in (whole.before, whole.after)]
    logits = Toy()(*fed, torch.ones(1, 1, 40, 40).bool())
    for date, expected in enumerate((logits.before, logits.after)):
        assert (cover[date] == expected[0].argmax(0).numpy() + 1).mean() > 0.999


def test_class_maps_are_optional():
    block = Tiling(30, 30, 32, 4)[0]
    settings_ = InferenceSettings(Vocabulary(Toy().classes), 0.5, 1.0, (30, 30), (30, 30))
    assert predict_block(Toy(), SCALING, settings_, block, scene(30, 30)).landcover is None


@settings(max_examples=12)
@given(st.lists(st.floats(0, 0.99), min_size=3, max_size=3), st.floats(0.01, 0.99))
def test_a_changed_pixel_exceeds_the_common_threshold_and_those_of_both_classes(own, common):
    model, whole, tiling = Toy(), scene(40, 44), Tiling(40, 44, 32, 4)
    everything = results_of(model, whole, tiling, threshold=0.0, landcover=True)
    got = results_of(model, whole, tiling, threshold=common, class_thresholds=tuple(own))
    probability, cover = everything["confidence"][0] / 254, everything["landcover"].astype(int)
    seen = probability <= 1
    limit = np.maximum(common, np.asarray(own)[np.where(seen, cover - 1, 0)].max(0))
    sure = seen & (np.abs(probability - limit) > 0.004)  # the raster holds probabilities in steps of 1/254
    np.testing.assert_array_equal(got["codes"][2][sure] > 0, (probability > limit)[sure])


def test_class_thresholds_up_to_the_common_one_have_no_effect():
    whole, tiling = scene(40, 44), Tiling(40, 44, 32, 4)
    plain = results_of(Toy(), whole, tiling, threshold=0.6)
    same = results_of(Toy(), whole, tiling, threshold=0.6, class_thresholds=(0.6, 0.0, 0.3))
    np.testing.assert_array_equal(plain["codes"], same["codes"])


@settings(max_examples=12)
@given(st.floats(0.3, 20), st.floats(0.3, 20), st.floats(0.05, 0.95))
def test_calibration_changes_the_confidence_and_not_the_map(change, classes, threshold):
    whole, tiling = scene(40, 44), Tiling(40, 44, 32, 4)
    plain = results_of(Toy(), whole, tiling, threshold=threshold, landcover=True)
    tempered = results_of(
        Toy(),
        whole,
        tiling,
        threshold=moved_threshold(threshold, change),
        landcover=True,
        change_temperature=change,
        class_temperature=classes,
    )
    # Only a probability that float32 rounds onto the threshold may fall on its other side.
    assert (plain["codes"] != tempered["codes"]).mean() < 0.002
    assert (plain["landcover"] != tempered["landcover"]).mean() < 0.002


def test_temperatures_divide_the_logits():
    whole = scene(30, 30, holes=False)
    got = results_of(Toy(), whole, Tiling(30, 30, 32, 4), change_temperature=2.5, class_temperature=4.0)
    # A raster smaller than a tile is predicted without padding.
    fed = [torch.from_numpy(each / np.float32(255))[None] for each in (whole.before, whole.after)]
    logits = Toy()(*fed, torch.ones(1, 1, 30, 30).bool())
    expected = [torch.sigmoid(logits.change / 2.5)[0, 0]]
    expected += [(each / 4.0).softmax(1).amax(1)[0] for each in (logits.before, logits.after)]
    assert np.abs(got["confidence"] / 254 - torch.stack(expected).numpy()).max() < 0.5 / 254 + 1e-4


@given(st.floats(0, 1), st.floats(0.01, 100))
def test_a_calibrated_threshold_is_the_sigmoid_of_the_divided_logit(threshold, temperature):
    moved = moved_threshold(threshold, temperature)
    assert moved == pytest.approx(expit(logit(threshold) / temperature), abs=1e-12)
    assert moved_threshold(threshold, 1.0) == pytest.approx(threshold, abs=1e-12)
