"""Augmentation: one geometry for a sample, a radiometry per date, and reproducible draws."""

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
    """Every array encodes the origin of each pixel: images in two bands, labels in their codes."""
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
def test_images_and_labels_are_transformed_alike(augment: Augment, height: int, width: int, seed: int) -> None:
    original = sample(height, width)
    augmented = augment(original, np.random.default_rng(seed))
    assert (
        augmented.before.shape[:2]
        == augmented.change.shape
        == augmented.before_classes.shape
        == augmented.after_classes.shape
    )
    np.testing.assert_array_equal(augmented.before, augmented.after)
    labelled = augmented.change != NO_LABEL
    rows, cols = augmented.before[..., 0][labelled], augmented.before[..., 1][labelled]
    assert labelled.any()
    for name in ("before_classes", "after_classes", "change"):
        np.testing.assert_array_equal(getattr(augmented, name)[labelled], getattr(original, name)[rows, cols])
        assert (getattr(augmented, name)[~labelled] == NO_LABEL).all()


@given(SEEDS)
def test_the_same_generator_state_gives_the_same_sample_and_the_input_is_unchanged(seed: int) -> None:
    original = sample(24, 30)
    copy = original.before.copy()
    augment = Augment(crop=16, scale=(0.8, 1.25), light=ColorJitter())
    once, twice = (augment(original, np.random.default_rng(seed)) for _ in range(2))
    for name in ("before", "after", "before_classes", "after_classes", "change"):
        np.testing.assert_array_equal(getattr(once, name), getattr(twice, name))
    np.testing.assert_array_equal(original.before, copy)


def test_all_eight_symmetries_of_the_square_occur() -> None:
    rng = np.random.default_rng(0)
    seen = {Augment(swap=0)(sample(5, 5), rng).before.tobytes() for _ in range(300)}
    assert len(seen) == 8


def test_an_image_that_is_not_square_keeps_its_shape() -> None:
    rng = np.random.default_rng(0)
    assert {Augment()(sample(6, 9), rng).before.shape for _ in range(20)} == {(6, 9, 3)}


def test_dates_are_swapped_with_their_labels() -> None:
    original = sample(6, 6)
    augmented = Augment(flips=False, quarter_turns=False, swap=1.0)(original, np.random.default_rng(0))
    assert augmented.before is original.after
    assert augmented.before_classes is original.after_classes
    assert augmented.after_classes is original.before_classes
    assert augmented.change is original.change
    assert swapped(swapped(original)) == original


def test_each_date_has_its_own_colours_and_labels_are_unchanged() -> None:
    original = sample(16, 16)
    augmented = Augment(flips=False, quarter_turns=False, swap=0, light=ColorJitter())(
        original, np.random.default_rng(3)
    )
    assert (augmented.before != augmented.after).any()
    np.testing.assert_array_equal(augmented.before_classes, original.before_classes)


@given(SEEDS)
def test_colour_jitter_is_monotonic_in_grey_levels(seed: int) -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    lit = ColorJitter(saturation=0)(ramp, np.random.default_rng(seed)).astype(int)
    assert (np.diff(lit, axis=1) >= 0).all()


def test_colour_jitter_of_zero_changes_nothing() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (9, 9, 3)).astype(np.uint8)
    none = ColorJitter(0, 0, 0, 0, 0)
    np.testing.assert_allclose(none(rgb, np.random.default_rng(1)).astype(int), rgb, atol=1)


def test_brightness_stays_within_its_range() -> None:
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
def test_scaled_labels_match_the_scaled_image(seed: int, factor: float) -> None:
    blocks = np.random.default_rng(seed).integers(0, 2, (6, 6)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    picture = np.repeat(blocks[..., None] * np.uint8(200), 3, axis=2)
    augment = Augment(crop=24, scale=(factor, factor), swap=0)
    augmented = augment(Sample("s", picture, picture, None, None, blocks), np.random.default_rng(seed))
    shown = (augmented.before[..., 0] > 100).astype(np.uint8)
    pure = np.isin(augmented.before[..., 0], (0, 200))
    clear = (augmented.change != NO_LABEL) & pure
    assert clear.any()
    np.testing.assert_array_equal(augmented.change[clear], shown[clear])


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"scale": (0.8, 1.2)}, "Set a crop as well"),
        ({"scale": (2.0, 1.0), "crop": 8}, "must be ascending"),
        ({"crop": 0}, "must be at least 1 px"),
        ({"swap": 1.5}, "must be a probability"),
    ],
)
def test_invalid_settings_are_rejected(options: dict[str, object], advice: str) -> None:
    with pytest.raises(UsageError, match=advice):
        Augment(**options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="must be from 0 to below 1"):
        ColorJitter(brightness=3)


def test_sensor_jitter_of_zero_changes_nothing():
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    assert np.array_equal(SensorJitter(0, 0, 0, 0)(picture, np.random.default_rng(1)), picture)


def test_a_greyscale_image_is_the_luma():
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    grey = SensorJitter(grey=1, haze=0, blur_px=0, noise=0)(picture, np.random.default_rng(1))
    assert np.array_equal(grey[..., 0], grey[..., 2])
    assert np.abs(grey[..., 0] - picture @ [0.299, 0.587, 0.114]).max() <= 0.51


@pytest.mark.parametrize("seed", range(5))
def test_haze_makes_images_brighter_with_less_contrast(seed):
    picture = np.random.default_rng(seed).integers(0, 120, (40, 40, 3)).astype(np.uint8)
    hazy = SensorJitter(grey=0, haze=0.9, blur_px=0, noise=0)(picture, np.random.default_rng(seed))
    assert (hazy.astype(int) >= picture.astype(int) - 1).all()
    assert hazy.std() <= picture.std()


def test_sensor_jitter_is_reproducible():
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    one, other = (SensorJitter()(picture, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(one, other)
    assert not np.array_equal(one, SensorJitter()(picture, np.random.default_rng(4)))


def test_a_shift_moves_the_second_image_and_no_label():
    ramp = np.repeat(np.repeat(np.arange(64, dtype=np.uint8)[None, :, None], 64, 0), 3, 2) * 3
    labels = np.random.default_rng(0).integers(1, 4, (64, 64)).astype(np.uint8)
    sample = Sample("x", ramp, ramp, labels, labels, (labels > 2).astype(np.uint8))
    augmented = Augment(flips=False, quarter_turns=False, swap=0, shift_px=3)(sample, np.random.default_rng(0))
    moved = (augmented.after[8:-8, 8:-8, 0].astype(float) - ramp[8:-8, 8:-8, 0]) / 3
    assert np.array_equal(augmented.before, ramp)
    assert np.array_equal(augmented.after_classes, labels)
    assert 0 < np.abs(moved).max() <= 3.4
    assert np.ptp(moved) < 0.8


@pytest.mark.parametrize("wrong", [{"grey": 2}, {"haze": 1}, {"blur_px": -1}, {"noise": -1}])
def test_invalid_sensor_jitter_is_rejected(wrong):
    with pytest.raises(UsageError, match="none may be negative"):
        SensorJitter(**wrong)


def test_a_shift_that_breaks_the_labels_is_rejected():
    with pytest.raises(UsageError, match="no longer match their labels"):
        Augment(shift_px=40)


def with_label_priors(height: int, width: int, seed: int = 0) -> Sample:
    """A sample whose prior masks are its own class labels: class 1 and class 2 at both dates."""
    original = sample(height, width, seed)
    masks = [[labels == word for word in (1, 2)] for labels in (original.before_classes, original.after_classes)]
    return replace(original, priors=np.array(masks).astype(np.uint8))


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
def test_priors_are_transformed_like_labels_and_are_zero_beyond_the_edge(augment, height, width, seed):
    original = with_label_priors(height, width)
    augmented = augment(original, np.random.default_rng(seed))
    without = augment(replace(original, priors=None), np.random.default_rng(seed))
    assert without.priors is None
    np.testing.assert_array_equal(augmented.before, without.before)
    assert augmented.priors.dtype == np.uint8
    assert augmented.priors.flags.c_contiguous
    for masks, labels in zip(augmented.priors, (augmented.before_classes, augmented.after_classes), strict=True):
        # Beyond the edge labels are 255, which is neither word.
        np.testing.assert_array_equal(masks, np.stack([labels == word for word in (1, 2)]))


@settings(deadline=None)
@given(st.integers(12, 30), st.integers(12, 30), st.booleans(), st.floats(0.1, 6.0), SEEDS)
def test_a_shift_moves_the_prior_masks_of_the_second_image(height, width, swap, shift, seed):
    mask = np.random.default_rng(seed).integers(0, 2, (1, -(-height // 4), -(-width // 4))).repeat(4, 1).repeat(4, 2)
    mask = mask[:, :height, :width].astype(np.uint8)
    picture = np.repeat(mask[0][..., None] * np.uint8(200), 3, axis=2)
    original = Sample("s", picture, picture, None, None, mask[0], np.stack([mask, mask]))
    augment = Augment(flips=False, quarter_turns=False, swap=float(swap), shift_px=shift)
    augmented = augment(original, np.random.default_rng(seed))
    images, moved = (augmented.before, augmented.after)[:: -1 if swap else 1], augmented.priors[:: -1 if swap else 1]
    np.testing.assert_array_equal(images[0], picture)
    np.testing.assert_array_equal(moved[0], mask)
    # The mask matches the shifted image, except near the edge, where only the image is mirrored.
    edge = int(np.ceil(shift)) + 1
    inner = (slice(edge, height - edge), slice(edge, width - edge))
    shown = images[1][inner][..., 0]
    pure = np.isin(shown, (0, 200))
    np.testing.assert_array_equal(moved[1, 0][inner][pure], (shown[pure] > 100).astype(np.uint8))
    np.testing.assert_array_equal(augmented.change, mask[0])


def test_prior_masks_are_zero_where_a_shifted_image_is_mirrored():
    full = np.ones((2, 1, 20, 20), np.uint8)
    original = replace(sample(20, 20), priors=full)
    augmented = Augment(flips=False, quarter_turns=False, swap=0, shift_px=4)(original, np.random.default_rng(1))
    assert augmented.priors[0].all()
    assert not augmented.priors[1].all()
    assert augmented.priors[1, 0, 4:-4, 4:-4].all()


def test_swapping_twice_restores_priors():
    original = with_label_priors(6, 8)
    again = swapped(swapped(original))
    np.testing.assert_array_equal(again.priors, original.priors)
    np.testing.assert_array_equal(swapped(original).priors[0], original.priors[1])
