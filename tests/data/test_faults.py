"""Dataset faults: all are found in one run, named by file, and never turned into labels."""

from pathlib import Path

import numpy as np
import pytest

from data.fakes import SIDE, binary, save, second, truncate
from making import write_raster
from wasnow.data.dataset import open_dataset
from wasnow.data.faults import Fault, listed
from wasnow.data.labels import Labels, reconcile
from wasnow.errors import DatasetError, UnknownLabels
from wasnow.vocabulary import NO_LABEL


def test_all_faults_are_reported_together(tmp_path: Path) -> None:
    second(tmp_path, "second-rgb", count=8)
    train = tmp_path / "train"
    (train / "im2" / "00000.png").unlink()
    truncate(train / "im1" / "00001.png")
    save(train / "im2" / "00002.png", np.zeros((SIDE, SIDE + 4, 3), np.uint8))
    odd = np.full((SIDE, SIDE, 3), 255, np.uint8)
    odd[3:5, 2:7] = (1, 2, 3)
    save(train / "label1" / "00003.png", odd)
    save(train / "label2" / "00004.png", np.full((SIDE // 2, SIDE, 3), 255, np.uint8))
    (train / "label1" / "00005.png").write_bytes(b"")
    (train / "label2" / "00006.png").write_text("not a picture")
    (tmp_path / "test" / "label2" / "10007.png").unlink()
    faults = open_dataset(tmp_path, strict=False).check()
    by_file = {fault.file: fault.what for fault in faults}
    assert set(by_file) == {
        "train/im1/00000.png", "train/im1/00001.png", "train/im2/00002.png", "train/label1/00003.png",
        "train/label2/00004.png", "train/label1/00005.png", "train/label2/00006.png", "test/im1/10007.png",
    }  # fmt: skip
    assert "has no after image: expected 00000.* in im2" in by_file["train/im1/00000.png"]
    assert "truncated" in by_file["train/im1/00001.png"]
    assert f"{SIDE + 4} x {SIDE} px" in by_file["train/im2/00002.png"]
    assert "1,2,3 in 10 px" in by_file["train/label1/00003.png"]
    assert f"has {SIDE} x {SIDE // 2} px" in by_file["train/label2/00004.png"]
    assert "empty (0 bytes)" in by_file["train/label1/00005.png"]
    assert "cannot be read as a raster" in by_file["train/label2/00006.png"]
    assert "has no label of the second date" in by_file["test/im1/10007.png"]


def test_opening_a_dataset_with_missing_files_lists_all_of_them(tmp_path: Path) -> None:
    second(tmp_path)
    for name in ("00000", "00002"):
        (tmp_path / "train" / "im1" / f"{name}.png").unlink()
    with pytest.raises(DatasetError, match=r"2 faults.*wasnow data check") as refusal:
        open_dataset(tmp_path)
    assert [Path(fault.file).stem for fault in refusal.value.faults] == ["00000", "00002"]


def test_the_error_for_an_unknown_value_names_file_value_and_count(tmp_path: Path) -> None:
    second(tmp_path, "second-e1")
    path = tmp_path / "train" / "label2" / "00001.png"
    values = np.zeros((SIDE, SIDE), np.uint8)
    values[0, :7] = 77
    save(path, values)
    samples = open_dataset(tmp_path, encoding="e1").splits["train"]
    with pytest.raises(UnknownLabels, match="77 in 7 px") as error:
        samples[samples.names.index("00001")]
    assert error.value.path == path
    assert error.value.values == {"77": 7}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
def test_a_truncated_image_is_a_fault_in_every_format(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    binary(tmp_path)
    for name in ("one", "two", "three"):
        for role in ("A", "B"):
            (tmp_path / role / f"{name}.png").unlink()
            save(tmp_path / role / f"{name}{suffix}", rng.integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8))
    assert open_dataset(tmp_path).check() == ()
    truncate(tmp_path / "B" / f"two{suffix}", 0.6)
    (fault,) = open_dataset(tmp_path, strict=False).check()
    assert fault.file == f"B/two{suffix}"


def test_a_png_with_a_flipped_byte_or_without_its_end_is_a_fault_and_trailing_bytes_are_not(tmp_path: Path) -> None:
    binary(tmp_path)
    flipped, endless, junk = (tmp_path / "A" / f"{name}.png" for name in ("one", "two", "three"))
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 0x55
    flipped.write_bytes(bytes(content))
    endless.write_bytes(endless.read_bytes()[:-12])
    junk.write_bytes(junk.read_bytes() + b"trailing bytes")
    assert {fault.file for fault in open_dataset(tmp_path, strict=False).check()} == {"A/one.png", "A/two.png"}


def test_two_files_of_one_name_and_role_are_a_fault(tmp_path: Path) -> None:
    made = binary(tmp_path)
    save(tmp_path / "A" / "one.jpg", made[0].before)
    (fault,) = open_dataset(tmp_path, strict=False).check()
    assert "duplicate of" in fault.what


def test_images_on_different_grids_are_a_fault(tmp_path: Path) -> None:
    from affine import Affine

    picture = np.full((3, SIDE, SIDE), 9, np.uint8)
    for role, shift in (("before", 0.0), ("after", 40.0)):
        (tmp_path / role).mkdir()
        write_raster(tmp_path / role / "x.tif", picture, transform=Affine(2, 0, 500_000 + shift, 0, -2, 5_500_000))
    (tmp_path / "label").mkdir()
    save(tmp_path / "label" / "x.png", np.eye(SIDE, dtype=np.uint8))
    (fault,) = open_dataset(tmp_path).check()
    assert fault.file == "after/x.tif"
    assert "another grid" in fault.what


def test_sixteen_bit_images_without_a_stretch_are_a_fault(tmp_path: Path) -> None:
    binary(tmp_path)
    for role in ("A", "B"):
        (tmp_path / role / "one.png").unlink()
        save(tmp_path / role / "one.tif", np.full((SIDE, SIDE, 3), 2000, np.uint16))
    faults = open_dataset(tmp_path).check()
    assert {fault.file for fault in faults} == {"A/one.tif", "B/one.tif"}
    assert all("stretch" not in fault.file and "uint16" in fault.what for fault in faults)


def test_a_pixel_that_is_invalid_in_one_image_has_no_label(tmp_path: Path) -> None:
    made = binary(tmp_path)
    alpha = np.full((SIDE, SIDE), 255, np.uint8)
    alpha[:5] = 0
    save(tmp_path / "A" / "one.png", np.dstack([made[0].before, alpha]))
    samples = open_dataset(tmp_path).splits["all"]
    change = samples[samples.names.index("one")].change
    assert (change[:5] == NO_LABEL).all()
    np.testing.assert_array_equal(change[5:], made[0].change[5:])


def test_a_change_label_that_contradicts_the_classes_is_used_with_a_warning(tmp_path: Path) -> None:
    made = second(tmp_path, splits=("train",))["train"]
    for truth in made:
        label = truth.change.copy()
        label[-1] = 1 - label[-1]
        save(tmp_path / "train" / "label" / f"{truth.name}.png", label * np.uint8(255))
    dataset = open_dataset(tmp_path)
    found = dataset.examine()
    assert found.ready
    assert any("in 4 pairs" in warning and "disagree" in warning for warning in found.warnings)
    sample = dataset.splits["train"][0]
    np.testing.assert_array_equal(sample.change[-1], 1 - made[0].change[-1])
    assert set(np.unique(sample.before_classes[-1][sample.change[-1] == 1])) == {NO_LABEL}
    assert set(np.unique(sample.before_classes[-1][sample.change[-1] == 0])) == {0}


def test_examination_counts_the_pixels_of_each_transition(tmp_path: Path) -> None:
    made = second(tmp_path)
    for split, tally in open_dataset(tmp_path).examine().tallies.items():
        assert tally.images == len(made[split])
        assert tally.changed == sum(int(truth.change.sum()) for truth in made[split])
        counted = np.zeros((7, 7), np.int64)
        for truth in made[split]:
            np.add.at(counted, (truth.first[truth.change == 1], truth.second[truth.change == 1]), 1)
        np.testing.assert_array_equal(tally.transitions, counted)
        assert tally.change_share == pytest.approx(np.mean([truth.change.mean() for truth in made[split]]))


def codes(*values: int) -> np.ndarray:
    return np.array([values], np.uint8)


def test_without_a_change_map_no_label_at_one_date_means_no_label_at_both() -> None:
    labels = reconcile(codes(0, 1, 255, 2, 0), codes(0, 2, 3, 255, 4), None, dense=False)
    assert labels.change.tolist() == [[0, 1, 255, 255, 1]]
    assert labels.before_classes.tolist() == [[0, 1, 255, 255, 255]]
    assert labels.after_classes.tolist() == [[0, 2, 255, 255, 4]]


def test_with_a_change_map_a_changed_pixel_without_a_class_keeps_its_change_label() -> None:
    labels = reconcile(codes(0, 1, 255, 0, 3), codes(0, 2, 3, 255, 3), codes(0, 1, 1, 0, 255), dense=False)
    assert labels.change.tolist() == [[0, 1, 1, 0, 255]]
    assert labels.before_classes.tolist() == [[0, 1, 255, 0, 255]]
    assert labels.after_classes.tolist() == [[0, 2, 3, 0, 255]]


def test_dense_labels_change_where_they_differ() -> None:
    labels: Labels = reconcile(codes(1, 1, 255), codes(1, 2, 2), None, dense=True)
    assert labels.change.tolist() == [[0, 1, 255]]
    assert labels.before_classes.tolist() == [[0, 1, 255]]


def test_a_long_list_of_faults_is_cut_with_a_count() -> None:
    lines = listed([Fault(f"{n}.png", "lost") for n in range(70)])
    assert len(lines) == 51
    assert "20 more" in lines[-1]
