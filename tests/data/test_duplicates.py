"""Leaks between splits: equal and nearly equal images are reported, and different images are not."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.io import MemoryFile

from data.fakes import save
from making import textured
from wasnow.data.dataset import open_dataset
from wasnow.data.duplicates import ImagePrint, find_leaks


def image(seed: int, side: int = 96) -> np.ndarray:
    return np.moveaxis(textured(seed, side, side), 0, -1).astype(np.uint8)


def jpeg(rgb: np.ndarray) -> np.ndarray:
    with MemoryFile() as memory:
        with memory.open(
            driver="JPEG", width=rgb.shape[1], height=rgb.shape[0], count=3, dtype="uint8", QUALITY=70
        ) as out:
            out.write(np.moveaxis(rgb, -1, 0))
        with memory.open() as raster:
            return np.moveaxis(raster.read(), 0, -1)


def prints(**splits: list[np.ndarray]) -> dict[str, list[ImagePrint]]:
    return {
        split: [ImagePrint.of(f"{split}/{number}", rgb) for number, rgb in enumerate(images)]
        for split, images in splits.items()
    }


def test_equal_images_of_two_splits_are_found() -> None:
    (warning,) = find_leaks(prints(train=[image(0), image(1)], test=[image(2), image(1)]))
    assert "1 of 2 images of test are equal to images of train (first test/1 and train/1)" in warning


@settings(max_examples=20)
@given(st.integers(0, 500), st.floats(0.85, 1.1), st.floats(-12, 12))
def test_compressed_images_of_other_brightness_are_nearly_equal(seed: int, contrast: float, shift: float) -> None:
    rgb = image(seed)
    other = jpeg(np.clip(rgb * contrast + shift, 0, 255).astype(np.uint8))
    (warning,) = find_leaks(prints(train=[image(seed + 1000), rgb], val=[other]))
    assert "nearly equal to images of train (first val/0 and train/1)" in warning


def test_different_images_are_not_reported() -> None:
    assert find_leaks(prints(train=[image(seed) for seed in range(60)], test=[image(100 + s) for s in range(60)])) == []


def test_images_without_contrast_are_compared_by_their_pixels_only() -> None:
    flat, other = np.full((96, 96, 3), 90, np.uint8), np.full((96, 96, 3), 91, np.uint8)
    assert find_leaks(prints(train=[flat], test=[other])) == []
    assert len(find_leaks(prints(train=[flat], test=[flat]))) == 1


def dataset(root: Path, images: dict[str, tuple[np.ndarray, np.ndarray]]) -> Path:
    for name, (before, after) in images.items():
        split, stem = name.split("/")
        change = np.zeros(before.shape[:2], np.uint8)
        change[10:40, 10:40] = 255
        for role, values in (("A", before), ("B", after), ("label", change)):
            save(root / split / role / f"{stem}.png", values)
    return root


def test_data_check_reports_a_test_image_that_is_in_train_at_the_other_date(tmp_path: Path) -> None:
    pairs = {"train/x": (image(0), image(1)), "test/y": (image(2), image(0))}
    found = open_dataset(dataset(tmp_path, pairs)).examine()
    assert found.ready
    assert any("test/B/y.png and train/A/x.png" in warning for warning in found.warnings)


def test_data_check_reports_pairs_of_equal_images_with_labelled_change(tmp_path: Path) -> None:
    pairs = {"train/x": (image(0), image(0)), "train/y": (image(1), image(2))}
    found = open_dataset(dataset(tmp_path, pairs)).examine()
    assert any("in 1 pairs (first x) both images are equal" in warning for warning in found.warnings)


@pytest.mark.parametrize("change", [True, False])
def test_equal_images_are_reported_only_if_change_is_labelled(tmp_path: Path, change: bool) -> None:
    dataset(tmp_path, {"train/x": (image(0), image(0)), "train/y": (image(3), image(4))})
    if not change:
        save(tmp_path / "train" / "label" / "x.png", np.zeros((96, 96), np.uint8))
    warnings = open_dataset(tmp_path).examine().warnings
    assert any("both images are equal" in warning for warning in warnings) == change
