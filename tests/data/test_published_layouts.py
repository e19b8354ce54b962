"""Layouts of published datasets, each as a tiny generated copy, and what must not be mistaken for them."""

from pathlib import Path

import numpy as np
import pytest

from data.fakes import SIDE, Truth, encoded, save, truths
from wasnow.data.dataset import Dataset, open_dataset
from wasnow.data.encodings import BRIGHT_WORDS, ENCODINGS
from wasnow.errors import DatasetError
from wasnow.vocabulary import NO_LABEL

BLACK, RED, BLUE = (0, 0, 0), (255, 0, 0), (0, 0, 255)


def ready(root: Path, **options: str) -> Dataset:
    dataset = open_dataset(root, **options)
    assert dataset.check() == ()
    return dataset


def ignored(dataset: Dataset) -> str:
    return " ".join(note for note in dataset.warnings if "ignored" in note)


def pair(root: Path, files: tuple[str, str], truth: Truth) -> None:
    for file, picture in zip(files, (truth.before, truth.after), strict=True):
        save(root / file, picture)


def change_of(truth: Truth, on: int = 255) -> np.ndarray:
    return truth.change * np.uint8(on)


# ----------------------------------------------------------------------------------------------------------- S2Looking


def s2looking(root: Path) -> list[Truth]:
    made = truths(["1", "2", "10"])
    for truth in made:
        pair(root, (f"train/Image1/{truth.name}.png", f"train/Image2/{truth.name}.png"), truth)
        save(root / "train" / "label" / f"{truth.name}.png", change_of(truth))
        for folder, color, where in (("label1", RED, truth.first == 1), ("label2", BLUE, truth.first > 1)):
            label = np.where(where[..., None], np.uint8(color), np.uint8(BLACK))
            save(root / "train" / folder / f"{truth.name}.png", label)
    return made


def test_red_and_blue_labels_of_s2looking_are_not_taken_for_the_palette_of_second(tmp_path: Path) -> None:
    made = s2looking(tmp_path)
    dataset = ready(tmp_path)
    assert dataset.vocabulary.words == ()
    assert "0,0,255 and 255,0,0" in ignored(dataset)
    np.testing.assert_array_equal(dataset.splits["train"][0].change, made[0].change)


def test_two_colours_without_a_change_label_are_rejected_with_advice(tmp_path: Path) -> None:
    s2looking(tmp_path)
    for path in (tmp_path / "train" / "label").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match=r"too few to identify a palette.*--encoding second-rgb"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, encoding="second-rgb").coding.classes is ENCODINGS["second-rgb"]


# ------------------------------------------------------------------------------------------------------- BRIGHT, DFC25


def bright(root: Path, names: tuple[str, ...], *, targets: bool = True) -> np.ndarray:
    damage = np.zeros((SIDE, SIDE), np.uint8)
    damage[2:8, 2:8], damage[10:14, 2:8], damage[2:8, 12:20] = 1, 2, 3
    for truth in truths(names):
        save(root / "pre-event" / f"{truth.name}_pre_disaster.tif", truth.before)
        save(root / "post-event" / f"{truth.name}_post_disaster.tif", truth.after[..., 0])
        if targets:
            save(root / "target" / f"{truth.name}_building_damage.tif", damage)
    return damage


def test_targets_of_bright_are_its_labels(tmp_path: Path) -> None:
    damage = bright(tmp_path, ("bata-explosion_00000000", "beirut-explosion_00000001"))
    (tmp_path / "train_set.txt").write_text("bata-explosion_00000000\n")
    (tmp_path / "test_set.txt").write_text("beirut-explosion_00000001\n")
    dataset = ready(tmp_path)
    assert dataset.vocabulary.words == BRIGHT_WORDS
    assert {split: list(samples.names) for split, samples in dataset.splits.items()} == {
        "train": ["bata-explosion_00000000"],
        "test": ["beirut-explosion_00000001"],
    }
    sample = dataset.splits["train"][0]
    np.testing.assert_array_equal(sample.change, (damage >= 2).astype(np.uint8))
    np.testing.assert_array_equal(sample.before_classes == 1, damage >= 2)
    np.testing.assert_array_equal(sample.after_classes == 1 + BRIGHT_WORDS.index("destroyed"), damage == 3)
    assert (sample.after[..., 0] == sample.after[..., 2]).all()


def test_the_validation_split_of_dfc25_has_no_targets_and_this_is_reported(tmp_path: Path) -> None:
    bright(tmp_path / "dfc25_track2_trainval" / "train", ("bata-explosion_00000000",))
    bright(tmp_path / "dfc25_track2_trainval" / "val", ("hawaii-wildfire_00000002",), targets=False)
    dataset = ready(tmp_path)
    assert set(dataset.splits) == {"train", "val"}
    assert any("val has no labels" in note for note in dataset.warnings)
    assert dataset.splits["val"][0].change is None


# -------------------------------------------------------------------------------------------------------------- WHU-CD


def test_whu_cd_is_read_from_its_whole_images_and_its_crops_are_ignored(tmp_path: Path) -> None:
    root = tmp_path / "1. The two-period image data"
    made = truths(["train", "test"])
    for truth in made:
        years = tuple(f"{year}/whole_image/{truth.name}/image/{year}_{truth.name}.tif" for year in (2012, 2016))
        pair(root, (years[0], years[1]), truth)
        save(root / "2012" / "whole_image" / truth.name / "label" / f"2012_{truth.name}.tif", change_of(truth))
        save(root / "2012" / "splited_images" / truth.name / "image" / "0_1.tif", truth.before[:8, :8])
        save(root / "change_label" / truth.name / "change_label.tif", change_of(truth))
    dataset = ready(tmp_path)
    assert set(dataset.splits) == {"train", "test"}
    np.testing.assert_array_equal(dataset.splits["train"][0].change, made[0].change)
    np.testing.assert_array_equal(dataset.splits["train"][0].before, made[0].before)
    assert "splited_images" in ignored(dataset)


def test_the_older_release_of_whu_cd_has_building_labels_next_to_its_images(tmp_path: Path) -> None:
    (truth,) = truths(["x"])
    pair(tmp_path, ("before/before.tif", "after/after.tif"), truth)
    for folder in ("before", "after"):
        save(tmp_path / folder / f"{folder}_label.tif", change_of(truth))
    save(tmp_path / "change label" / "change_label.tif", change_of(truth))
    dataset = ready(tmp_path)
    np.testing.assert_array_equal(dataset.splits["all"][0].change, truth.change)
    assert "before_label.tif" in ignored(dataset)


# -------------------------------------------------------------------------------------------- CLCD, SYSU, FOTBCD, OSCD


@pytest.mark.parametrize("folders", [("time1", "time2", "label"), ("before", "after", "label"), ("t1", "t2", "mask")])
def test_clcd_sysu_fotbcd_and_dsifn_have_a_folder_per_role_and_split(
    tmp_path: Path, folders: tuple[str, str, str]
) -> None:
    for split in ("train", "val", "test"):
        for truth in truths([f"{split}1", f"{split}2"], seed=len(split)):
            base = f"images/{split}"
            pair(tmp_path, (f"{base}/{folders[0]}/{truth.name}.png", f"{base}/{folders[1]}/{truth.name}.png"), truth)
            save(tmp_path / base / folders[2] / f"{truth.name}.png", change_of(truth))
    dataset = open_dataset(tmp_path)
    assert dataset.check() == ()
    assert {split: len(samples) for split, samples in dataset.splits.items()} == {"train": 2, "val": 2, "test": 2}


def test_oscd_is_read_from_its_rgb_images(tmp_path: Path) -> None:
    prefix = "Onera Satellite Change Detection dataset - "
    made = truths(["rennes", "brasilia"])
    for truth, split in zip(made, ("Train", "Test"), strict=True):
        city = tmp_path / f"{prefix}Images" / truth.name
        pair(city, ("pair/img1.png", "pair/img2.png"), truth)
        for date in ("imgs_1", "imgs_1_rect", "imgs_2"):
            save(city / date / "B04.tif", truth.before[..., 0].astype(np.uint16))
        save(tmp_path / f"{prefix}{split} Labels" / truth.name / "cm" / "cm.png", change_of(truth))
        save(tmp_path / f"{prefix}{split} Labels" / truth.name / "cm" / f"{truth.name}-cm.tif", truth.change + 1)
    (tmp_path / f"{prefix}Images" / "train.txt").write_text("rennes")
    dataset = ready(tmp_path)
    assert {split: list(samples.names) for split, samples in dataset.splits.items()} == {
        "train": ["rennes"],
        "test": ["brasilia"],
    }
    np.testing.assert_array_equal(dataset.splits["train"][0].change, made[0].change)
    assert "imgs_1" in ignored(dataset)


# ---------------------------------------------------------------------------------------------- roles in the file names


@pytest.mark.parametrize(
    "names",
    [
        ("{}_pre.png", "{}_post.png", "{}_mask.png"),
        ("{}_A.png", "{}_B.png", "{}_label.png"),
        ("{}-t1.tif", "{}-t2.tif", "{}-change.tif"),
        ("before_{}.png", "after_{}.png", "change_{}.png"),
        ("images/{}_before.png", "images/{}_after.png", "masks/{}.png"),
        ("data/town_{}_im1.png", "data/town_{}_im2.png", "data/town_{}_gt.png"),
    ],
)
def test_pairs_in_one_folder_are_recognised_by_their_file_names(tmp_path: Path, names: tuple[str, str, str]) -> None:
    made = truths(["north", "south"])
    for truth in made:
        pair(tmp_path, (names[0].format(truth.name), names[1].format(truth.name)), truth)
        save(tmp_path / names[2].format(truth.name), change_of(truth))
    dataset = ready(tmp_path)
    samples = dataset.splits["all"]
    assert [name.rpartition("_")[2] for name in samples.names] == ["north", "south"]
    for sample, truth in zip(samples, made, strict=True):
        np.testing.assert_array_equal(sample.before, truth.before)
        np.testing.assert_array_equal(sample.after, truth.after)
        np.testing.assert_array_equal(sample.change, truth.change)


def test_a_missing_file_of_a_pair_in_one_folder_is_a_fault(tmp_path: Path) -> None:
    for truth in truths(["a1", "a2", "a3"]):
        pair(tmp_path, (f"{truth.name}_pre.png", f"{truth.name}_post.png"), truth)
        save(tmp_path / f"{truth.name}_mask.png", change_of(truth))
    (tmp_path / "a2_post.png").unlink()
    (fault,) = open_dataset(tmp_path, strict=False).check()
    assert fault.what == "has no after image of the same name"


# --------------------------------------------------------------------------------------- ignored files, missing labels


def test_a_dataset_without_labels_is_not_ready(tmp_path: Path) -> None:
    for truth in truths(["p", "q"]):
        pair(tmp_path, (f"A/{truth.name}.png", f"B/{truth.name}.png"), truth)
    (fault,) = open_dataset(tmp_path).check()
    assert fault.what.startswith("no labels found")


def test_files_that_belong_to_no_pair_are_reported(tmp_path: Path) -> None:
    for truth in truths(["p", "q"]):
        pair(tmp_path, (f"A/{truth.name}.png", f"B/{truth.name}.png"), truth)
        save(tmp_path / "label" / f"{truth.name}.png", change_of(truth))
        save(tmp_path / "edges" / f"{truth.name}.png", change_of(truth))
    save(tmp_path / "overview.png", truths(["p"])[0].before)
    text = ignored(ready(tmp_path))
    assert "2 in edges (such as p.png)" in text
    assert "overview.png" in text


# ----------------------------------------------------------------------------------------------------- labels with -1


def test_minus_one_in_change_labels_is_no_label_with_a_warning(tmp_path: Path) -> None:
    made = truths(["p", "q"])
    for truth in made:
        pair(tmp_path, (f"A/{truth.name}.png", f"B/{truth.name}.png"), truth)
        label = truth.change.astype(np.int16)
        label[:3] = -1
        save(tmp_path / "label" / f"{truth.name}.tif", label)
    dataset = ready(tmp_path)
    assert any("-1 counts as no label" in note for note in dataset.warnings)
    change = dataset.splits["all"][0].change
    assert (change[:3] == NO_LABEL).all()
    np.testing.assert_array_equal(change[3:], made[0].change[3:])


def test_minus_one_in_class_labels_is_no_label(tmp_path: Path) -> None:
    made = truths(["p", "q", "r"])
    for truth in made:
        pair(tmp_path, (f"im1/{truth.name}.png", f"im2/{truth.name}.png"), truth)
        for folder, codes in (("label1", truth.first), ("label2", truth.second)):
            values = encoded(codes, ENCODINGS["second-e1"]).astype(np.int16)
            values[:2] = -1
            save(tmp_path / folder / f"{truth.name}.tif", values)
    sample = ready(tmp_path).splits["all"][0]
    assert (sample.before_classes[:2] == NO_LABEL).all()
    np.testing.assert_array_equal(sample.before_classes[2:], made[0].first[2:])


def test_a_description_may_define_minus_one(tmp_path: Path) -> None:
    (truth,) = truths(["p"])
    pair(tmp_path, ("A/p.png", "B/p.png"), truth)
    save(tmp_path / "label" / "p.tif", truth.change.astype(np.int16) - 1)
    (tmp_path / "dataset.yaml").write_text(
        "before: 'A/{name}.png'\nafter: 'B/{name}.png'\nchange_label: 'label/{name}.tif'\n"
        "change_values: {-1: unchanged, 0: changed}\n"
    )
    np.testing.assert_array_equal(ready(tmp_path).splits["all"][0].change, truth.change)
