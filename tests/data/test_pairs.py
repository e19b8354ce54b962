"""Generated pairs: labels are exact under blending and shift, and pairs depend on seed and index only."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.fakes import PURE, masks, nearest_pure, save, truncate
from wasnow.data.dataset import open_dataset
from wasnow.data.export import export_second
from wasnow.data.mask_folder import MaskFolder, open_masks
from wasnow.data.pairs import GeneratedPairs, PairRecipe, blend, from_to
from wasnow.data.samples import Sample
from wasnow.errors import DatasetError, OutputError, UsageError
from wasnow.vocabulary import NO_LABEL

PLAIN = PairRecipe(size=32, light=None, noise=0, shift_px=0, segment_share=(0.02, 0.3))
SEEDS = st.integers(0, 2**31)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> MaskFolder:
    root = tmp_path_factory.mktemp("landcover")
    masks(root)
    # The images of the fakes show their classes in pure colours, so the labels can be derived from an image.
    return open_masks(root)


def arrays(sample: Sample) -> list[np.ndarray]:
    every = (sample.before, sample.after, sample.before_classes, sample.after_classes, sample.change)
    return [array for array in every if array is not None]


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, transplant=st.sampled_from([0.0, 1.0]), feather=st.sampled_from([0.0, 0.7, 2.0]))
def test_the_label_is_the_class_that_contributes_most_of_the_colour(
    folder: MaskFolder, seed: int, transplant: float, feather: float
) -> None:
    recipe = replace(PLAIN, transplant=transplant, feather_px=(feather, feather))
    sample = GeneratedPairs(folder, 1, seed, recipe).pair(0)
    assert sample.before_classes is not None
    assert sample.after_classes is not None
    assert sample.change is not None
    assert (sample.change != NO_LABEL).all()
    shown_before, shown_after = nearest_pure(sample.before), nearest_pure(sample.after)
    # A nearly even mixture of two colours rounds to either of them: only such pixels may differ.
    clear = unambiguous(sample.before) & unambiguous(sample.after)
    np.testing.assert_array_equal((shown_before != shown_after)[clear], sample.change[clear] == 1)
    changed = clear & (sample.change == 1)
    np.testing.assert_array_equal(sample.before_classes[changed], shown_before[changed])
    np.testing.assert_array_equal(sample.after_classes[changed], shown_after[changed])
    assert clear.mean() > 0.9


def unambiguous(picture: np.ndarray) -> np.ndarray:
    """Pixels where one pure colour is nearer than the others by more than rounding."""
    apart = np.sort(((picture[..., None, :].astype(float) - PURE[1:].astype(float)) ** 2).sum(-1), axis=-1)
    return np.asarray(apart[..., 1] - apart[..., 0] > 2000)


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_a_shift_of_half_a_pixel_does_not_change_labels(folder: MaskFolder, seed: int) -> None:
    plain = replace(PLAIN, transplant=1.0)
    one, other = (GeneratedPairs(folder, 1, seed, recipe).pair(0) for recipe in (plain, replace(plain, shift_px=0.5)))
    for name in ("before", "before_classes", "after_classes", "change"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    # In constant areas, the shifted image has the same values.
    inside = constant_areas(one.after)
    np.testing.assert_allclose(one.after[inside].astype(int), other.after[inside], atol=1)


def constant_areas(picture: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    low, high = (f(picture, size=(3, 3, 1)) for f in (ndimage.minimum_filter, ndimage.maximum_filter))
    inside = (low == high).all(axis=-1)
    inside[[0, -1]] = inside[:, [0, -1]] = False  # a shift brings in pixels from beyond the edge
    return np.asarray(inside)


@given(SEEDS, st.floats(0, 3))
def test_blending_follows_its_equation(seed: int, sigma: float) -> None:
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    host, canvas = rng.integers(0, 256, (2, 20, 20, 3)).astype(np.uint8)
    host_classes, canvas_classes = rng.integers(1, 6, (2, 20, 20)).astype(np.uint8)
    core = np.zeros((20, 20), bool)
    core[5:13, 4:15] = True
    picture, classes = blend(host, host_classes, canvas, canvas_classes, core, sigma)
    a = ndimage.gaussian_filter(core.astype(float), sigma, truncate=3, mode="nearest") if sigma else core.astype(float)
    np.testing.assert_allclose(picture, a[..., None] * canvas + (1 - a[..., None]) * host, atol=0.51)
    clear = np.abs(a - 0.5) > 1e-4
    np.testing.assert_array_equal(classes[clear], np.where(a >= 0.5, canvas_classes, host_classes)[clear])


def test_a_pixel_without_a_label_at_one_date_has_none_at_both() -> None:
    first, second = np.array([[1, 255, 2, 255, 3]], np.uint8), np.array([[1, 1, 255, 255, 2]], np.uint8)
    before, after, change = from_to(first, second)
    assert change.tolist() == [[0, 255, 255, 255, 1]]
    assert before.tolist() == [[0, 255, 255, 255, 3]]
    assert after.tolist() == [[0, 255, 255, 255, 2]]


def test_unlabelled_ground_has_no_label_in_generated_pairs(tmp_path: Path) -> None:
    masks(tmp_path)
    for path in sorted(tmp_path.glob("*/masks/*.png")):
        mask = np.full((64, 64, 3), 155, np.uint8)
        mask[:, :32] = (132, 41, 246)
        mask[:20, :32] = (226, 169, 41)
        save(path, mask)
        picture = np.zeros((64, 64, 3), np.uint8)
        picture[:, :32] = 100
        save(path.parent.parent / "images" / path.name, picture)
    pairs = GeneratedPairs(open_masks(tmp_path), 12, 0, replace(PLAIN, feather_px=(0, 0)))
    total = 0
    for sample in (pairs[i] for i in range(12)):
        unlabelled = (sample.before[..., 0] == 0) | (sample.after[..., 0] == 0)
        np.testing.assert_array_equal(sample.change == NO_LABEL, unlabelled)
        total += int(unlabelled.sum())
    assert total


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(0, 10**6))
def test_a_pair_depends_on_seed_and_index_only(folder: MaskFolder, seed: int, index: int) -> None:
    recipe = PairRecipe(size=32)
    once = GeneratedPairs(folder, 1, seed, recipe).pair(index)
    other = pickle.loads(pickle.dumps(GeneratedPairs(folder, 5, seed, recipe)))
    other.pair(index + 1)
    for one, two in zip(arrays(once), arrays(other.pair(index)), strict=True):
        np.testing.assert_array_equal(one, two)
    assert (GeneratedPairs(folder, 1, seed + 1, recipe).pair(index).before != once.before).any()


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(0, 10**6))
def test_labels_follow_from_the_land_cover_of_the_pair(folder: MaskFolder, seed: int, index: int) -> None:
    pairs = GeneratedPairs(folder, 1, seed, PairRecipe(size=48))
    sample = pairs.pair(index)
    before, after, first, second = pairs.covers(index)
    np.testing.assert_array_equal(before, sample.before)
    np.testing.assert_array_equal(after, sample.after)
    known = (first != NO_LABEL) & (second != NO_LABEL)
    np.testing.assert_array_equal(sample.change == 1, known & (first != second))
    np.testing.assert_array_equal(sample.change == NO_LABEL, ~known)
    np.testing.assert_array_equal(sample.before_classes, np.where(known, np.where(first != second, first, 0), NO_LABEL))
    np.testing.assert_array_equal(sample.after_classes, np.where(known, np.where(first != second, second, 0), NO_LABEL))


def test_threads_generate_the_same_pairs(folder: MaskFolder) -> None:
    pairs = GeneratedPairs(folder, 16, 3, PairRecipe(size=32))
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(pairs.__getitem__, range(16)))
    for index, sample in enumerate(threaded):
        np.testing.assert_array_equal(sample.after, pairs[index].after)


def test_rare_classes_are_pasted_as_often_as_common_ones(tmp_path: Path) -> None:
    masks(tmp_path, groups=("g",), each=3, side=64)
    for number, path in enumerate(sorted(tmp_path.glob("g/masks/*.png"))):
        mask = np.full((64, 64, 3), (132, 41, 246), np.uint8)
        if number == 0:
            mask[30:38, 30:38] = (110, 193, 228)
        save(path, mask)
    folder = open_masks(tmp_path)
    pairs = GeneratedPairs(folder, 60, 0, replace(PLAIN, transplant=1.0, segments=(1, 1)))
    road = folder.vocabulary.words.index("road") + 1
    with_road = sum(
        bool(((s.before_classes == road) | (s.after_classes == road)).any()) for s in map(pairs.pair, range(60))
    )
    assert with_road > 15


def test_held_back_groups_are_not_in_training(folder: MaskFolder) -> None:
    kept, held = folder.split(["north"])
    assert kept.groups == ("south",)
    assert held.groups == ("north",)
    assert not {entry.name for entry in kept.entries} & {entry.name for entry in held.entries}
    assert folder.split()[1].groups == ("south",)
    with pytest.raises(UsageError, match="did you mean 'south'"):
        folder.split(["soth"])
    with pytest.raises(UsageError, match="one side of the split is empty"):
        folder.split(["north", "south"])


def test_fingerprints_differ_between_recipes_and_seeds(folder: MaskFolder) -> None:
    prints = {
        GeneratedPairs(folder, 4, seed, recipe).fingerprint
        for seed in (0, 1)
        for recipe in (PLAIN, PairRecipe(size=32))
    }
    assert len(prints) == 4
    assert GeneratedPairs(folder, 4, 0, PLAIN).fingerprint in prints


def test_an_exported_dataset_reads_back_equal_and_is_reproducible(folder: MaskFolder, tmp_path: Path) -> None:
    kept, held = folder.split()
    splits = {
        "train": GeneratedPairs(kept, 5, 1, PairRecipe(size=32)),
        "val": GeneratedPairs(held, 2, 1, PairRecipe(size=32)),
    }
    for name in ("one", "two"):
        export_second(splits, tmp_path / name, provenance={"seed": 1})
    dataset = open_dataset(tmp_path / "one")
    assert dataset.check() == ()
    assert dataset.vocabulary == folder.vocabulary
    for split, made in splits.items():
        for index in range(len(made)):
            for one, two in zip(arrays(dataset.splits[split][index]), arrays(made[index]), strict=True):
                np.testing.assert_array_equal(one, two)
    every = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    files = [path for path in every if path.parts[0] != ".wasnow"]
    assert len(files) == 7 * 4 + 1
    assert all((tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files)
    with pytest.raises(OutputError, match="not empty"):
        export_second(splits, tmp_path / "one")


def test_masks_without_images_are_faults(tmp_path: Path) -> None:
    masks(tmp_path)
    (tmp_path / "north" / "images" / "part_0.png").unlink()
    truncate(tmp_path / "south" / "masks" / "part_1.png")
    with pytest.raises(DatasetError, match=r"part_0\.png: has no image"):
        open_masks(tmp_path)
    faults = open_masks(tmp_path, strict=False).check()
    assert [fault.file for fault in faults] == ["north/masks/part_0.png", "south/masks/part_1.png"]


def test_a_masks_yaml_defines_the_meaning_of_mask_values(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        save(tmp_path / "pic" / f"{name}.png", rng.integers(0, 255, (40, 40, 3)).astype(np.uint8))
        save(tmp_path / "seg" / f"{name}.png", rng.integers(0, 3, (5, 5)).astype(np.uint8).repeat(8, 0).repeat(8, 1))
    with pytest.raises(DatasetError, match=r"masks\.yaml"):
        open_masks(tmp_path)
    (tmp_path / "masks.yaml").write_text(
        "image: 'pic/{name}.png'\nmask: 'seg/{name}.png'\nvalues: {0: no label, 1: field, 2: wood}\n"
    )
    folder = open_masks(tmp_path)
    assert folder.vocabulary.words == ("field", "wood")
    assert set(np.unique(folder[0].classes)) == {1, 2, NO_LABEL}
    (tmp_path / "masks.yaml").write_text("image: 'pic/{name}.png'\nmasks: 'seg/{name}.png'\nvalues: {0: field}\n")
    with pytest.raises(DatasetError, match="did you mean 'mask'"):
        open_masks(tmp_path)


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"shift_px": 0.8}, "would make labels wrong"),
        ({"size": 4}, "at least 16"),
        ({"segments": (0, 2)}, "must be ascending"),
        ({"segment_share": (0.5, 0.1)}, "must be ascending"),
        ({"swap": 2.0}, "must be a probability"),
        ({"noise": -1.0}, "negative"),
    ],
)
def test_invalid_recipes_are_rejected(options: dict[str, object], advice: str) -> None:
    with pytest.raises(UsageError, match=advice):
        PairRecipe(**options)  # type: ignore[arg-type]
