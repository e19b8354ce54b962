"""Transforms: one geometry for everything, a light of its own for each date, the same for the same generator."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from wasnow.data.samples import Sample
from wasnow.data.transforms import Augment, ColorJitter, SensorJitter, resample, swapped
from wasnow.errors import UsageError
from wasnow.vocabulary import NO_LABEL

SEEDS = st.integers(0, 2**31)


def sample(height: int, width: int, seed: int = 0) -> Sample:
    """Every array says where each pixel came from: pictures in two bands, labels in their codes."""
    row, col = np.indices((height, width))
    place = np.dstack([row, col, (row + col) % 7]).astype(np.uint8)
    first = ((row * 3 + col) % 5 + 1).astype(np.uint8)
    second = ((row + col * 2) % 5 + 1).astype(np.uint8)
    change = ((row + col) % 2).astype(np.uint8)
    return Sample("s", place, place.copy(), first, second, change)


AUGMENTS = st.builds(
    Augment,
    crop=st.sampled_from([None, 8, 20, 40]),
    flips=st.booleans(),
    quarter_turns=st.booleans(),
    swap=st.just(0.0),
)


@settings(deadline=None)
@given(AUGMENTS, st.integers(6, 30), st.integers(6, 30), SEEDS)
def test_pictures_and_labels_stay_together(augment: Augment, height: int, width: int, seed: int) -> None:
    given_ = sample(height, width)
    seen = augment(given_, np.random.default_rng(seed))
    assert seen.before.shape[:2] == seen.change.shape == seen.before_classes.shape == seen.after_classes.shape
    np.testing.assert_array_equal(seen.before, seen.after)
    labelled = seen.change != NO_LABEL
    rows, cols = seen.before[..., 0][labelled], seen.before[..., 1][labelled]
    assert labelled.any()
    for name in ("before_classes", "after_classes", "change"):
        np.testing.assert_array_equal(getattr(seen, name)[labelled], getattr(given_, name)[rows, cols])
        assert (getattr(seen, name)[~labelled] == NO_LABEL).all()


@given(SEEDS)
def test_the_same_generator_gives_the_same_sample_and_the_input_is_left_alone(seed: int) -> None:
    given_ = sample(24, 30)
    copy = given_.before.copy()
    augment = Augment(crop=16, scale=(0.8, 1.25), light=ColorJitter())
    once, twice = (augment(given_, np.random.default_rng(seed)) for _ in range(2))
    for name in ("before", "after", "before_classes", "after_classes", "change"):
        np.testing.assert_array_equal(getattr(once, name), getattr(twice, name))
    np.testing.assert_array_equal(given_.before, copy)


def test_all_eight_symmetries_of_the_square_are_drawn() -> None:
    rng = np.random.default_rng(0)
    seen = {Augment(swap=0)(sample(5, 5), rng).before.tobytes() for _ in range(300)}
    assert len(seen) == 8


def test_a_picture_that_is_not_square_keeps_its_shape() -> None:
    rng = np.random.default_rng(0)
    assert {Augment()(sample(6, 9), rng).before.shape for _ in range(20)} == {(6, 9, 3)}


def test_dates_change_places_with_their_labels() -> None:
    given_ = sample(6, 6)
    seen = Augment(flips=False, quarter_turns=False, swap=1.0)(given_, np.random.default_rng(0))
    assert seen.before is given_.after
    assert seen.before_classes is given_.after_classes
    assert seen.after_classes is given_.before_classes
    assert seen.change is given_.change
    assert swapped(swapped(given_)) == given_


def test_each_date_has_its_own_light_and_labels_have_none() -> None:
    given_ = sample(16, 16)
    seen = Augment(flips=False, quarter_turns=False, swap=0, light=ColorJitter())(given_, np.random.default_rng(3))
    assert (seen.before != seen.after).any()
    np.testing.assert_array_equal(seen.before_classes, given_.before_classes)


@given(SEEDS)
def test_light_keeps_the_order_of_grey_levels(seed: int) -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    lit = ColorJitter(saturation=0)(ramp, np.random.default_rng(seed)).astype(int)
    assert (np.diff(lit, axis=1) >= 0).all()


def test_light_without_variation_changes_nothing() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (9, 9, 3)).astype(np.uint8)
    still = ColorJitter(0, 0, 0, 0, 0)
    np.testing.assert_allclose(still(rgb, np.random.default_rng(1)).astype(int), rgb, atol=1)


def test_light_is_as_bright_as_asked() -> None:
    grey = np.full((4, 4, 3), 128, np.uint8)
    means = [ColorJitter(0.1, 0, 0, 0, 0)(grey, np.random.default_rng(seed)).mean() for seed in range(200)]
    assert min(means) >= 128 - 0.1 * 255 - 1
    assert max(means) <= 128 + 0.1 * 255 + 1
    assert np.ptp(means) > 40


@given(st.floats(0, 20), st.floats(0, 20), SEEDS)
def test_resampling_agrees_with_scipy(row: float, col: float, seed: int) -> None:
    rgb = np.random.default_rng(seed).integers(0, 256, (12, 14, 3)).astype(np.uint8)
    rows, cols = row + np.arange(5) * 0.7, col + np.arange(6) * 1.3
    expected = np.stack(
        [
            ndimage.map_coordinates(
                rgb[..., band].astype(float), np.meshgrid(rows, cols, indexing="ij"), order=1, mode="mirror"
            )
            for band in range(3)
        ],
        axis=-1,
    )
    np.testing.assert_allclose(resample(rgb, rows, cols).astype(float), expected, atol=0.51)


@settings(deadline=None)
@given(SEEDS, st.floats(0.5, 2.0))
def test_scaled_labels_lie_on_what_the_scaled_picture_shows(seed: int, factor: float) -> None:
    blocks = np.random.default_rng(seed).integers(0, 2, (6, 6)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    picture = np.repeat(blocks[..., None] * np.uint8(200), 3, axis=2)
    augment = Augment(crop=24, scale=(factor, factor), swap=0)
    seen = augment(Sample("s", picture, picture, None, None, blocks), np.random.default_rng(seed))
    shown = (seen.before[..., 0] > 100).astype(np.uint8)
    pure = np.isin(seen.before[..., 0], (0, 200))
    sure = (seen.change != NO_LABEL) & pure
    assert sure.any()
    np.testing.assert_array_equal(seen.change[sure], shown[sure])


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"scale": (0.8, 1.2)}, "give a crop as well"),
        ({"scale": (2.0, 1.0), "crop": 8}, "does not rise"),
        ({"crop": 0}, "holds nothing"),
        ({"swap": 1.5}, "no probability"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(options: dict[str, object], advice: str) -> None:
    with pytest.raises(UsageError, match=advice):
        Augment(**options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="outside"):
        ColorJitter(brightness=3)


def test_a_camera_that_varies_in_nothing_leaves_the_picture():
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    assert np.array_equal(SensorJitter(0, 0, 0, 0)(picture, np.random.default_rng(1)), picture)


def test_a_camera_without_colours_shows_their_luma():
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    grey = SensorJitter(grey=1, haze=0, blur_px=0, noise=0)(picture, np.random.default_rng(1))
    assert np.array_equal(grey[..., 0], grey[..., 2])
    assert np.abs(grey[..., 0] - picture @ [0.299, 0.587, 0.114]).max() <= 0.51


@pytest.mark.parametrize("seed", range(5))
def test_haze_makes_pictures_paler_and_flatter(seed):
    picture = np.random.default_rng(seed).integers(0, 120, (40, 40, 3)).astype(np.uint8)
    hazy = SensorJitter(grey=0, haze=0.9, blur_px=0, noise=0)(picture, np.random.default_rng(seed))
    assert (hazy.astype(int) >= picture.astype(int) - 1).all()
    assert hazy.std() <= picture.std()


def test_a_camera_draws_the_same_from_the_same_numbers():
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    one, other = (SensorJitter()(picture, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(one, other)
    assert not np.array_equal(one, SensorJitter()(picture, np.random.default_rng(4)))


def test_a_displacement_moves_the_second_picture_and_no_label():
    ramp = np.repeat(np.repeat(np.arange(64, dtype=np.uint8)[None, :, None], 64, 0), 3, 2) * 3
    labels = np.random.default_rng(0).integers(1, 4, (64, 64)).astype(np.uint8)
    sample = Sample("x", ramp, ramp, labels, labels, (labels > 2).astype(np.uint8))
    seen = Augment(flips=False, quarter_turns=False, swap=0, shift_px=3)(sample, np.random.default_rng(0))
    moved = (seen.after[8:-8, 8:-8, 0].astype(float) - ramp[8:-8, 8:-8, 0]) / 3
    assert np.array_equal(seen.before, ramp)
    assert np.array_equal(seen.after_classes, labels)
    assert 0 < np.abs(moved).max() <= 3.4
    assert np.ptp(moved) < 0.8


@pytest.mark.parametrize("wrong", [{"grey": 2}, {"haze": 1}, {"blur_px": -1}, {"noise": -1}])
def test_impossible_cameras_are_refused(wrong):
    with pytest.raises(UsageError, match="none is negative"):
        SensorJitter(**wrong)


def test_a_displacement_beyond_the_labels_is_refused():
    with pytest.raises(UsageError, match="no longer match labels"):
        Augment(shift_px=40)


def guided(height: int, width: int, seed: int = 0) -> Sample:
    """A sample whose priors are its own class labels: class 1 and class 2 at both dates."""
    given_ = sample(height, width, seed)
    masks = [[labels == word for word in (1, 2)] for labels in (given_.before_classes, given_.after_classes)]
    return replace(given_, priors=np.array(masks).astype(np.uint8))


@settings(deadline=None)
@given(
    st.builds(
        Augment,
        crop=st.sampled_from([8, 20, 40]),
        scale=st.sampled_from([(1.0, 1.0), (0.5, 2.0)]),
        flips=st.booleans(),
        quarter_turns=st.booleans(),
        swap=st.sampled_from([0.0, 0.5, 1.0]),
    ),
    st.integers(6, 30),
    st.integers(6, 30),
    SEEDS,
)
def test_priors_go_wherever_a_label_goes_and_end_where_the_picture_ends(augment, height, width, seed):
    given_ = guided(height, width)
    seen = augment(given_, np.random.default_rng(seed))
    bare = augment(replace(given_, priors=None), np.random.default_rng(seed))
    assert bare.priors is None
    np.testing.assert_array_equal(seen.before, bare.before)
    assert seen.priors.dtype == np.uint8
    assert seen.priors.flags.c_contiguous
    for masks, labels in zip(seen.priors, (seen.before_classes, seen.after_classes), strict=True):
        # Beyond the edge a label is 255, and so no word.
        np.testing.assert_array_equal(masks, np.stack([labels == word for word in (1, 2)]))


@settings(deadline=None)
@given(st.integers(12, 30), st.integers(12, 30), st.booleans(), st.floats(0.1, 6.0), SEEDS)
def test_a_displacement_takes_the_masks_of_the_second_picture_along(height, width, swap, shift, seed):
    mask = np.random.default_rng(seed).integers(0, 2, (1, -(-height // 4), -(-width // 4))).repeat(4, 1).repeat(4, 2)
    mask = mask[:, :height, :width].astype(np.uint8)
    picture = np.repeat(mask[0][..., None] * np.uint8(200), 3, axis=2)
    given_ = Sample("s", picture, picture, None, None, mask[0], np.stack([mask, mask]))
    augment = Augment(flips=False, quarter_turns=False, swap=float(swap), shift_px=shift)
    seen = augment(given_, np.random.default_rng(seed))
    still, moved = (seen.before, seen.after)[:: -1 if swap else 1], seen.priors[:: -1 if swap else 1]
    np.testing.assert_array_equal(still[0], picture)
    np.testing.assert_array_equal(moved[0], mask)
    # What the displaced picture shows for certain, its mask says; away from the edge, which mirrors only the picture.
    edge = int(np.ceil(shift)) + 1
    inner = (slice(edge, height - edge), slice(edge, width - edge))
    shown = still[1][inner][..., 0]
    pure = np.isin(shown, (0, 200))
    np.testing.assert_array_equal(moved[1, 0][inner][pure], (shown[pure] > 100).astype(np.uint8))
    np.testing.assert_array_equal(seen.change, mask[0])


def test_no_mask_is_where_a_displaced_picture_is_continued():
    full = np.ones((2, 1, 20, 20), np.uint8)
    given_ = replace(sample(20, 20), priors=full)
    seen = Augment(flips=False, quarter_turns=False, swap=0, shift_px=4)(given_, np.random.default_rng(1))
    assert seen.priors[0].all()
    assert not seen.priors[1].all()
    assert seen.priors[1, 0, 4:-4, 4:-4].all()


def test_exchanged_twice_is_as_before_with_priors_too():
    given_ = guided(6, 8)
    again = swapped(swapped(given_))
    np.testing.assert_array_equal(again.priors, given_.priors)
    np.testing.assert_array_equal(swapped(given_).priors[0], given_.priors[1])
