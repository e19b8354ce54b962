"""Dense pairs read with the classes of unchanged pixels."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wasnow.data.dataset import open_dataset
from wasnow.data.images import write_png
from wasnow.data.land_cover import change_between, open_land_cover, with_land_cover
from wasnow.errors import DatasetError
from wasnow.training.batches import target_of
from wasnow.training.losses import NO_CLASS
from wasnow.vocabulary import NO_LABEL

COVER = arrays(np.uint8, (6, 7), elements=st.sampled_from([1, 2, 3, NO_LABEL]))

DESCRIPTION = """\
before: "{split}/im1/{name}.png"
after: "{split}/im2/{name}.png"
before_label: "{split}/label1/{name}.png"
after_label: "{split}/label2/{name}.png"
classes: [water, building, road]
values: {%s1: water, 2: building, 3: road, 255: no label}
"""


def dataset(folder: Path, *, dense: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Write one pair with random land cover and return its labels."""
    rng = np.random.default_rng(7)
    first, second = (rng.choice(np.array([1, 2, 3, NO_LABEL], np.uint8), (32, 40)) for _ in range(2))
    second[:16] = first[:16]
    pictures = [rng.integers(0, 255, (32, 40, 3)).astype(np.uint8) for _ in range(2)]
    for role, values in zip(("im1", "im2", "label1", "label2"), (*pictures, first, second), strict=True):
        (folder / "train" / role).mkdir(parents=True)
        write_png(folder / "train" / role / "a.png", values)
    (folder / "dataset.yaml").write_text(DESCRIPTION % ("" if dense else "0: unchanged, "))
    return first, second


@given(COVER, COVER)
def test_change_is_where_classes_differ_and_unlabelled_where_either_is(first: np.ndarray, second: np.ndarray) -> None:
    change = change_between(first, second)
    np.testing.assert_array_equal(change, change_between(second, first))
    for a, b, c in zip(first.flat, second.flat, change.flat, strict=True):
        assert c == (NO_LABEL if NO_LABEL in (a, b) else int(a != b))


def test_land_cover_reads_back_with_the_change_of_the_from_to_labels(tmp_path: Path) -> None:
    first, second = dataset(tmp_path)
    sample, plain = open_land_cover(tmp_path)["train"][0], open_dataset(tmp_path).splits["train"][0]
    assert sample.before_classes is not None
    assert sample.after_classes is not None
    np.testing.assert_array_equal(sample.before_classes, first)
    np.testing.assert_array_equal(sample.after_classes, second)
    np.testing.assert_array_equal(sample.change, plain.change)
    np.testing.assert_array_equal(sample.change, change_between(first, second))
    np.testing.assert_array_equal(sample.before, plain.before)


def test_training_targets_hold_the_classes_of_unchanged_pixels(tmp_path: Path) -> None:
    first, second = dataset(tmp_path)
    target = target_of([open_land_cover(tmp_path)["train"][0]])
    for classes, cover in ((target.before, first), (target.after, second)):
        expected = np.where(cover == NO_LABEL, NO_CLASS, cover.astype(np.int64) - 1)
        np.testing.assert_array_equal(np.asarray(classes)[0], expected)
    known = (first != NO_LABEL) & (second != NO_LABEL)
    np.testing.assert_array_equal(np.asarray(target.change)[0], known & (first != second))


def test_labels_of_changed_pixels_only_are_rejected_with_advice(tmp_path: Path) -> None:
    dataset(tmp_path, dense=False)
    with pytest.raises(DatasetError, match="Read it with open_dataset"):
        open_land_cover(tmp_path)


def test_an_open_dataset_keeps_its_tiles(tmp_path: Path) -> None:
    first, _ = dataset(tmp_path)
    opened = open_dataset(tmp_path, tile=16).splits["train"]
    dense = with_land_cover(opened)
    assert dense.names == opened.names
    assert len(dense) > 1
    place = dense.names.index("a@16,16")
    np.testing.assert_array_equal(dense[place].before_classes, first[16:32, 16:32])
