"""Dataset recognition: layouts in any nesting, and encodings by the values of label files."""

import json
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from data.fakes import SIDE, binary, encoded, paletted, save, second, truths
from making import write_raster
from wasnow.data.dataset import Dataset, open_dataset
from wasnow.data.encodings import ENCODINGS
from wasnow.data.layouts.layout import split_of
from wasnow.data.samples import Sample
from wasnow.data.splits import NAMED_SPLITS
from wasnow.errors import DatasetError, SingleDated, UsageError
from wasnow.vocabulary import NO_LABEL, SECOND_WORDS

PALETTE = {0: (255, 255, 255), 1: (0, 0, 255), 2: (128, 128, 128), 3: (0, 128, 0)}


def same(sample: Sample, truth: object) -> None:
    np.testing.assert_array_equal(sample.before_classes, truth.first)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(sample.after_classes, truth.second)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(sample.change, truth.change)  # type: ignore[attr-defined]


def ready(dataset: Dataset) -> Dataset:
    assert dataset.check() == ()
    return dataset


@pytest.mark.parametrize("encoding", ["second-rgb", "second-e1", "second-e3", "second-e4"])
def test_second_is_read_in_every_encoding_that_its_values_identify(tmp_path: Path, encoding: str) -> None:
    made = second(tmp_path, encoding)
    dataset = ready(open_dataset(tmp_path))
    assert dataset.vocabulary.words == SECOND_WORDS
    assert set(dataset.splits) == {"train", "test"}
    for split, pairs in made.items():
        for index, truth in enumerate(pairs):
            sample = dataset.splits[split][index]
            assert sample.name == truth.name
            np.testing.assert_array_equal(sample.before, truth.before)
            np.testing.assert_array_equal(sample.after, truth.after)
            same(sample, truth)


def test_e1_is_assumed_with_a_warning_and_e2_must_be_given(tmp_path: Path) -> None:
    made = second(tmp_path, "second-e2")
    assumed = open_dataset(tmp_path)
    assert assumed.coding.classes is ENCODINGS["second-e1"]
    assert any("second-e1 assumed" in note and "--encoding second-e2" in note for note in assumed.warnings)
    explicit = open_dataset(tmp_path, encoding="e2")
    assert not any("assumed" in note for note in explicit.warnings)
    same(explicit.splits["train"][0], made["train"][0])
    assert (assumed.splits["train"][0].before_classes != made["train"][0].first).any()


@pytest.mark.parametrize(
    "folders",
    [
        ("im1", "im2", "label1", "label2"),
        ("Im1", "IM2", "Label1", "LABEL2"),
        ("A", "B", "labelA", "labelB"),
        ("T1", "T2", "GT_T1", "GT_T2"),
        ("images1", "images2", "labels1", "labels2"),
        ("images", "images2", "labels", "labels2"),
        ("time1", "time2", "label1_rgb", "label2_rgb"),
    ],
)
def test_folder_names_of_many_repositories_are_recognised(tmp_path: Path, folders: tuple[str, ...]) -> None:
    made = second(tmp_path, "second-rgb", folders=folders, splits=("Train", "VAL"))
    dataset = ready(open_dataset(tmp_path))
    assert list(dataset.splits) == ["train", "val"]
    same(dataset.splits["train"][1], made["Train"][1])


def test_the_role_folder_may_contain_the_split_folder_and_outer_folders_are_ignored(tmp_path: Path) -> None:
    for truth in truths(["a1", "a2"]):
        for role, values in (("A", truth.before), ("B", truth.after), ("label", truth.change * np.uint8(255))):
            save(tmp_path / "download" / "DATA" / role / "train" / f"{truth.name}.png", values)
    assert list(ready(open_dataset(tmp_path)).splits) == ["train"]


def test_a_second_copy_of_the_labels_in_colour_is_ignored(tmp_path: Path) -> None:
    made = second(tmp_path, "second-e1")
    for split, pairs in made.items():
        for truth in pairs:
            save(tmp_path / split / "label1_rgb" / f"{truth.name}.png", encoded(truth.first, ENCODINGS["second-rgb"]))
            save(tmp_path / split / "label2_rgb" / f"{truth.name}.png", encoded(truth.second, ENCODINGS["second-rgb"]))
    dataset = ready(open_dataset(tmp_path))
    assert dataset.coding.classes is ENCODINGS["second-e1"]
    assert any("ignored: the same labels in colour" in note for note in dataset.warnings)


def test_esri_folders_hold_pairs_and_one_change_label(tmp_path: Path) -> None:
    made = binary(tmp_path, folders=("images", "images2", "labels"), on=1)
    dataset = ready(open_dataset(tmp_path))
    np.testing.assert_array_equal(dataset.splits["all"][0].change, made[0].change)


@pytest.mark.parametrize("on", [1, 255])
def test_masks_of_0_and_1_and_of_0_and_255_are_equivalent(tmp_path: Path, on: int) -> None:
    made = binary(tmp_path, on=on)
    dataset = ready(open_dataset(tmp_path))
    assert dataset.vocabulary.words == ()
    for sample, truth in zip(dataset.splits["all"], sorted(made, key=lambda t: t.name), strict=True):
        assert sample.before_classes is None
        np.testing.assert_array_equal(sample.change, truth.change)


def test_a_jpeg_mask_is_thresholded_with_a_warning(tmp_path: Path) -> None:
    binary(tmp_path)
    blocks = np.zeros((64, 64), np.uint8)
    blocks[8:40, 16:56] = 1
    for name in ("one", "two", "three"):
        for role in ("A", "B"):
            save(tmp_path / role / f"{name}.png", np.full((64, 64, 3), 90, np.uint8))
        (tmp_path / "label" / f"{name}.png").unlink()
        save(tmp_path / "label" / f"{name}.jpg", blocks * np.uint8(255), QUALITY=60)
    dataset = ready(open_dataset(tmp_path))
    assert dataset.coding.change is ENCODINGS["binary-smeared"]
    assert any("127" in note for note in dataset.warnings)
    np.testing.assert_array_equal(dataset.splits["all"][0].change, blocks)


def test_a_mask_with_jpeg_noise_saved_as_png_is_thresholded_too(tmp_path: Path) -> None:
    made = binary(tmp_path)
    rng = np.random.default_rng(0)
    for truth in made:
        noisy = np.clip(truth.change * 255.0 + rng.normal(0, 6, truth.change.shape), 0, 255).astype(np.uint8)
        save(tmp_path / "label" / f"{truth.name}.png", noisy)
    dataset = ready(open_dataset(tmp_path))
    assert dataset.coding.change is ENCODINGS["binary-smeared"]


def test_255_next_to_0_and_1_is_no_label(tmp_path: Path) -> None:
    made = binary(tmp_path, on=1)
    first = made[0].change.copy()
    first[:4] = 255
    save(tmp_path / "label" / "one.png", first)
    dataset = ready(open_dataset(tmp_path))
    index = dataset.splits["all"].names.index("one")
    assert (dataset.splits["all"][index].change[:4] == NO_LABEL).all()
    assert any("255 counts as no label" in note for note in dataset.warnings)


def test_a_grey_mask_saved_as_rgb_is_a_mask(tmp_path: Path) -> None:
    made = binary(tmp_path)
    for truth in made:
        save(tmp_path / "label" / f"{truth.name}.png", np.repeat(truth.change[..., None] * np.uint8(255), 3, axis=2))
    dataset = ready(open_dataset(tmp_path))
    by_name = {truth.name: truth for truth in made}
    for sample in dataset.splits["all"]:
        np.testing.assert_array_equal(sample.change, by_name[sample.name].change)


def test_the_palette_of_a_label_takes_precedence_over_its_indices(tmp_path: Path) -> None:
    made = second(tmp_path, "second-e1", classes=3)
    shuffled = {9: (255, 255, 255), 4: (0, 0, 255), 2: (128, 128, 128), 7: (0, 128, 0)}
    to_index = {color: index for index, color in shuffled.items()}
    for split, pairs in made.items():
        for truth in pairs:
            for folder, codes in (("label1", truth.first), ("label2", truth.second)):
                table = np.array([to_index[PALETTE[code]] for code in range(4)], np.uint8)
                paletted(tmp_path / split / folder / f"{truth.name}.png", table[codes], shuffled)
    dataset = ready(open_dataset(tmp_path))
    assert dataset.coding.classes is ENCODINGS["second-rgb"]
    same(dataset.splits["train"][0], made["train"][0])


def test_two_binary_masks_per_pair_are_combined_into_one_change_map(tmp_path: Path) -> None:
    for truth in truths(["p", "q"]):
        gone = (truth.first == 1).astype(np.uint8) * np.uint8(255)
        new = (truth.first == 2).astype(np.uint8) * np.uint8(255)
        for role, values in (("im1", truth.before), ("im2", truth.after), ("label1", gone), ("label2", new)):
            save(tmp_path / role / f"{truth.name}.png", values)
    dataset = ready(open_dataset(tmp_path))
    np.testing.assert_array_equal(
        dataset.splits["all"][0].change, np.isin(truths(["p", "q"])[0].first, (1, 2)).astype(np.uint8)
    )


@pytest.mark.parametrize("line", ["{n}", "{n}.png", "A/{n}.png", "/data/x/im1/{n}.png", "A/{n}.png B/{n}.png"])
def test_list_files_may_name_pairs_in_several_ways(tmp_path: Path, line: str) -> None:
    binary(tmp_path, folders=("T1", "T2", "GT_CD"), names=("a", "b", "c", "d"))
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "train.txt").write_text("\n".join(line.format(n=n) for n in "ca") + "\n")
    (tmp_path / "list" / "val.txt").write_text(line.format(n="b"))
    dataset = ready(open_dataset(tmp_path))
    assert {split: sorted(samples.names) for split, samples in dataset.splits.items()} == {
        "train": ["a", "c"],
        "val": ["b"],
    }
    assert any("1 pairs are in none of the lists" in note for note in dataset.warnings)


def test_flat_file_names_are_split_by_their_first_word(tmp_path: Path) -> None:
    binary(tmp_path, names=("train_1", "train_2", "val_1", "test_1"))
    assert {n: len(s) for n, s in open_dataset(tmp_path).splits.items()} == {"train": 2, "val": 1, "test": 1}


def test_a_name_in_a_list_without_a_pair_is_a_fault(tmp_path: Path) -> None:
    binary(tmp_path)
    (tmp_path / "train.txt").write_text("one\nghost\n")
    (fault,) = open_dataset(tmp_path, strict=False).check()
    assert "ghost" in fault.what


@pytest.mark.parametrize(
    ("name", "split"),
    [("SECOND_train_set", "train"), ("test", "test"), ("valid", "val"), ("TrainVal", None), ("strain", None),
     ("SECOND_total_test", "test"), ("val_list", "val"), ("contest", None)],
)  # fmt: skip
def test_split_names_are_recognised_as_whole_words(name: str, split: str | None) -> None:
    assert split_of(name) == split


def test_a_list_of_ids_splits_the_training_folder_into_train_and_val(tmp_path: Path) -> None:
    second(tmp_path, splits=("train",))
    names = list(open_dataset(tmp_path).splits["train"].names)
    ids = tmp_path / "val_list.txt"
    ids.write_text(f"im1/{names[0]}.png\n")
    cut = open_dataset(tmp_path, split=str(ids))
    assert list(cut.splits["val"].names) == names[:1]
    assert list(cut.splits["train"].names) == names[1:]
    assert any("val consists of the 1 ids in" in warning for warning in cut.warnings)
    ids.write_text(f"{names[0]}\nabsent\n")
    with pytest.raises(DatasetError, match="1 of the 2 ids"):
        open_dataset(tmp_path, split=str(ids))


def test_a_published_split_is_recognised_by_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    second(tmp_path, splits=("train",))
    name = open_dataset(tmp_path).splits["train"].names[0]
    monkeypatch.setitem(NAMED_SPLITS, "a-split", (hashlib.sha256(name.encode()).hexdigest(), 1))
    ids = tmp_path / "val_list.txt"
    ids.write_text(name)
    assert any("the published split a-split" in warning for warning in open_dataset(tmp_path, split=str(ids)).warnings)


def test_the_name_of_a_published_split_without_the_list_is_rejected(tmp_path: Path) -> None:
    second(tmp_path, splits=("train",))
    with pytest.raises(UsageError, match="are not included in wasnow"):
        open_dataset(tmp_path, split="second-2375-593")


def test_landsat_scd_as_published_is_recognised_by_its_size_and_values(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 10, (52, 52)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    for role in ("A", "B"):
        save(tmp_path / role / "0.png", np.full((416, 416, 3), 99, np.uint8))
    save(tmp_path / "label" / "0.png", codes)
    sample = ready(open_dataset(tmp_path)).splits["all"][0]
    expected = ENCODINGS["landsat-scd-from-to"].decode(codes)
    np.testing.assert_array_equal(sample.before_classes, expected[0])
    np.testing.assert_array_equal(sample.after_classes, expected[1])


def test_landsat_scd_with_one_label_per_date_is_recognised(tmp_path: Path) -> None:
    second(tmp_path / "Landsat_SCD", "landsat-scd", folders=("A", "B", "labelA", "labelB"), classes=4)
    assert open_dataset(tmp_path / "Landsat_SCD").vocabulary.words == ENCODINGS["landsat-scd"].words
    second(tmp_path / "rgb", "landsat-scd-rgb", folders=("A", "B", "labelA_rgb", "labelB_rgb"), classes=4)
    assert open_dataset(tmp_path / "rgb").coding.classes is ENCODINGS["landsat-scd-rgb"]


def test_hrscd_files_pair_by_name_without_the_year_and_the_change_map_is_used(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    covers = rng.integers(0, 6, (2, SIDE, SIDE)).astype(np.uint8)
    change = (rng.random((SIDE, SIDE)) < 0.3).astype(np.uint8)
    for year, flown, cover in ((2006, 2005, covers[0]), (2012, 2012, covers[1])):
        name = f"14-{flown}-0415-6890-LA93.tif"
        save(tmp_path / f"images_{year}" / str(year) / "D14" / name, np.full((SIDE, SIDE, 3), 80, np.uint8))
        save(tmp_path / f"labels_land_cover_{year}" / str(year) / "D14" / name, cover)
    save(tmp_path / "labels_change" / "D14" / "14-2012-0415-6890-LA93.tif", change)
    dataset = ready(open_dataset(tmp_path))
    assert dataset.layout == "HRSCD"
    sample = dataset.splits["all"][0]
    np.testing.assert_array_equal(sample.change, change)
    for classes, cover in zip((sample.before_classes, sample.after_classes), covers, strict=True):
        np.testing.assert_array_equal(classes, np.where(change == 1, np.where(cover == 0, NO_LABEL, cover), 0))


def xbd(root: Path, *, targets: bool) -> np.ndarray:
    damage = np.zeros((SIDE, SIDE), np.uint8)
    damage[2:8, 2:8], damage[10:14, 2:8], damage[2:8, 12:20] = 1, 4, 2
    for date in ("pre", "post"):
        save(root / "train" / "images" / f"storm_1_{date}_disaster.png", np.full((SIDE, SIDE, 3), 50, np.uint8))
    if targets:
        save(root / "train" / "targets" / "storm_1_pre_disaster_target.png", (damage > 0).astype(np.uint8))
        save(root / "train" / "targets" / "storm_1_post_disaster_target.png", damage)
        return damage
    boxes = {"no-damage": (2, 2, 8, 8), "destroyed": (2, 10, 8, 14), "minor-damage": (12, 2, 20, 8)}
    features = [{"properties": {"subtype": level}, "wkt": shapely.box(*box).wkt} for level, box in boxes.items()]
    (root / "train" / "labels").mkdir()
    for date in ("pre", "post"):
        path = root / "train" / "labels" / f"storm_1_{date}_disaster.json"
        path.write_text(json.dumps({"features": {"xy": features, "lng_lat": []}, "metadata": {}}))
    return damage


@pytest.mark.parametrize("targets", [True, False])
def test_xbd_transitions_are_from_building_to_damage_level(tmp_path: Path, targets: bool) -> None:
    damage = xbd(tmp_path, targets=targets)
    dataset = ready(open_dataset(tmp_path))
    words = dataset.vocabulary.words
    sample = dataset.splits["train"][0]
    assert sample.before_classes is not None
    assert sample.after_classes is not None
    assert {words[code - 1] for code in np.unique(sample.before_classes) if code} == {"building"}
    np.testing.assert_array_equal(sample.after_classes == words.index("destroyed") + 1, damage == 4)
    np.testing.assert_array_equal(sample.after_classes == words.index("minor damage") + 1, damage == 2)
    np.testing.assert_array_equal(sample.change, (damage > 1).astype(np.uint8))


GRID = Affine(2.0, 0, 500_000, 0, -2.0, 5_500_000)


def georeferenced_pairs(root: Path, names: tuple[str, ...]) -> None:
    for name in names:
        for role in ("before", "after"):
            (root / role).mkdir(parents=True, exist_ok=True)
            write_raster(root / role / f"{name}.tif", np.full((3, SIDE, SIDE), 70, np.uint8), transform=GRID)


def polygons(path: Path, columns: dict[str, list[str]], crs: str = "EPSG:32632") -> None:
    """Two squares: rows 4..8 and 12..20, cols 4..8 and 6..10, on the grid of `georeferenced_pairs`."""
    from pyproj import Transformer

    move = Transformer.from_crs("EPSG:32632", crs, always_xy=True)
    shapes = []
    for left, top, right, bottom in ((4, 4, 8, 8), (6, 12, 10, 20)):
        corners = [GRID @ corner for corner in ((left, top), (right, top), (right, bottom), (left, bottom))]
        shapes.append(shapely.Polygon([move.transform(*corner) for corner in corners]))
    path.parent.mkdir(parents=True, exist_ok=True)
    pyogrio.raw.write(
        path,
        shapely.to_wkb(np.array(shapes)),
        [np.array(values, object) for values in columns.values()],
        list(columns),
        geometry_type="Polygon",
        crs=crs,
    )


def test_polygons_of_each_pair_are_rasterized_on_access(tmp_path: Path) -> None:
    georeferenced_pairs(tmp_path, ("x", "y"))
    for name in ("x", "y"):
        polygons(tmp_path / "label" / f"{name}.geojson", {"note": ["a", "b"]}, crs="EPSG:4326")
    sample = ready(open_dataset(tmp_path)).splits["all"][0]
    expected = np.zeros((SIDE, SIDE), np.uint8)
    expected[4:8, 4:8] = expected[12:20, 6:10] = 1
    np.testing.assert_array_equal(sample.change, expected)


def test_polygons_that_name_from_and_to_are_class_labels(tmp_path: Path) -> None:
    georeferenced_pairs(tmp_path, ("x", "y"))
    polygons(tmp_path / "changes.gpkg", {"from": ["field", "water"], "to": ["road", "field"]})
    dataset = ready(open_dataset(tmp_path))
    assert dataset.vocabulary.words == ("field", "road", "water")
    sample = dataset.splits["all"][1]
    expected = np.zeros((2, SIDE, SIDE), np.uint8)
    expected[:, 4:8, 4:8] = np.array([1, 2])[:, None, None]
    expected[:, 12:20, 6:10] = np.array([3, 1])[:, None, None]
    np.testing.assert_array_equal(np.stack([sample.before_classes, sample.after_classes]), expected)  # type: ignore[list-item]


@pytest.mark.parametrize(
    "files",
    [
        ("before/before.tif", "after/after.tif", "change label/change_label.tif"),
        ("A/town_A.png", "B/town_B.png", "label/town_label.png"),
        ("2016/before/x-t1.tif", "2016/after/x-t2.tif", "2016/label/x.png"),
    ],
)
def test_single_pairs_and_names_that_end_in_their_role_are_paired(tmp_path: Path, files: tuple[str, str, str]) -> None:
    (made,) = truths(["x"])
    for file, values in zip(files, (made.before, made.after, made.change), strict=True):
        save(tmp_path / file, values)
    (sample,) = ready(open_dataset(tmp_path)).splits["all"]
    np.testing.assert_array_equal(sample.after, made.after)
    np.testing.assert_array_equal(sample.change, made.change)


def test_folders_of_other_names_are_recognised_by_their_content(tmp_path: Path) -> None:
    names = [f"p{number}" for number in range(4)]
    made = truths(names, side=48)
    for truth in made:
        for folder, values in (
            ("spring", truth.before),
            ("autumn", truth.after),
            ("ref", truth.change * np.uint8(255)),
        ):
            save(tmp_path / folder / f"{truth.name}.png", values)
    dataset = ready(open_dataset(tmp_path))
    assert any("autumn as before image, spring as after image, ref as change label" in n for n in dataset.warnings)
    np.testing.assert_array_equal(dataset.splits["all"][0].before, made[0].after)


def test_a_folder_of_images_of_one_date_is_rejected_with_advice(tmp_path: Path) -> None:
    from data.fakes import masks

    masks(tmp_path)
    with pytest.raises(SingleDated, match="Generate pairs with wasnow data pairs"):
        open_dataset(tmp_path)


def test_the_error_for_an_unknown_folder_describes_its_content(tmp_path: Path) -> None:
    save(tmp_path / "holiday" / "beach.png", np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(DatasetError, match=r"1 images in holiday: not a known layout .* dataset\.yaml"):
        open_dataset(tmp_path)
    with pytest.raises(DatasetError, match="no such folder"):
        open_dataset(tmp_path / "nowhere")


def test_unknown_class_values_are_rejected_and_listed(tmp_path: Path) -> None:
    for truth in truths(["p", "q"]):
        for role, values in (
            ("im1", truth.before), ("im2", truth.after), ("label1", truth.first * 9), ("label2", truth.second * 9)
        ):  # fmt: skip
            save(tmp_path / role / f"{truth.name}.png", values)
    with pytest.raises(DatasetError, match=r"values 0, 9, 18, .* dataset\.yaml"):
        open_dataset(tmp_path)


def test_change_labels_with_more_than_two_values_are_rejected(tmp_path: Path) -> None:
    made = binary(tmp_path)
    for truth in made:
        save(tmp_path / "label" / f"{truth.name}.png", np.minimum(truth.first, 3))
    with pytest.raises(DatasetError, match=r"values 0, 1, 2, 3.*--encoding nonzero.*change_values"):
        open_dataset(tmp_path)
    changed = open_dataset(tmp_path, encoding="nonzero").splits["all"][0].change
    np.testing.assert_array_equal(changed, next(t for t in made if t.name == "one").change)


def test_tiles_partition_large_images(tmp_path: Path) -> None:
    made = second(tmp_path, splits=("train",), count=1)["train"][0]
    samples = open_dataset(tmp_path, tile=16).splits["train"]
    assert len(set(samples.names)) == len(samples) == 4
    mosaic = np.zeros_like(made.first)
    for entry, sample in zip(samples.entries, samples, strict=True):
        at = entry.window
        assert at is not None
        mosaic[at.row : at.row_stop, at.col : at.col_stop] = sample.before_classes
        np.testing.assert_array_equal(sample.before, made.before[at.row : at.row_stop, at.col : at.col_stop])
    np.testing.assert_array_equal(mosaic, made.first)


def test_a_copy_has_the_same_fingerprint_and_a_changed_pixel_another(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        second(tmp_path / folder)
    one, two = (open_dataset(tmp_path / folder).splits["train"].fingerprint for folder in ("one", "two"))
    assert one == two
    path = tmp_path / "two" / "train" / "label1" / "00000.png"
    save(path, np.full((SIDE, SIDE), 3, np.uint8))
    assert open_dataset(tmp_path / "two").splits["train"].fingerprint != one


@settings(max_examples=30)
@given(st.lists(st.text("ab1_-", min_size=1, max_size=6), min_size=1, max_size=5, unique=True))
def test_samples_are_the_names_that_both_dates_share(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    root = tmp_path_factory.mktemp("names")
    made = save(root / "x.png", np.zeros((4, 4, 3), np.uint8)).read_bytes()
    for role in ("A", "B"):
        (root / "d" / role).mkdir(parents=True)
        for name in names:
            (root / "d" / role / f"{name}.png").write_bytes(made)
    assert sorted(open_dataset(root / "d").splits["all"].names) == sorted(names)
