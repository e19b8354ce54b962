"""Dataset descriptions: any folder can be described, and invalid descriptions are rejected with a clear message."""

from pathlib import Path

import numpy as np
import pytest

from data.fakes import SIDE, binary, save, truths
from wasnow.data.dataset import open_dataset
from wasnow.errors import DatasetError

HEAD = "before: '{split}/x/{name}_1.png'\nafter: '{split}/y/{name}_2.png'\n"


def unusual_folder(root: Path) -> dict[str, object]:
    made = {}
    for split in ("training", "rest"):
        for truth in truths(["p", "q"], classes=3):
            save(root / split / "x" / f"{truth.name}_1.png", truth.before)
            save(root / split / "y" / f"{truth.name}_2.png", truth.after)
            save(root / split / "z" / f"{truth.name}.png", truth.first * 10)
            save(root / split / "z2" / f"{truth.name}.png", truth.second * 10)
            made[truth.name] = truth
    return made


def describe(root: Path, text: str) -> Path:
    (root / "dataset.yaml").write_text(text)
    return root


def test_patterns_locate_files_and_values_define_classes(tmp_path: Path) -> None:
    made = unusual_folder(tmp_path)
    describe(
        tmp_path,
        HEAD + "before_label: '{split}/z/{name}.png'\nafter_label: '{split}/z2/{name}.png'\n"
        "classes: [lake, wood, town]\n"
        "values: {0: unchanged, 10: town, 20: wood, 30: no label}\n",
    )  # fmt: skip
    dataset = open_dataset(tmp_path)
    assert dataset.check() == ()
    assert {name: len(samples) for name, samples in dataset.splits.items()} == {"train": 2, "rest": 2}
    assert dataset.vocabulary.words == ("lake", "wood", "town")
    sample, truth = dataset.splits["train"][0], made["p"]
    unlabelled = (truth.first == 3) | (truth.second == 3)  # type: ignore[attr-defined]
    for actual, expected in ((sample.before_classes, truth.first), (sample.after_classes, truth.second)):  # type: ignore[attr-defined]
        np.testing.assert_array_equal(actual, np.where(unlabelled, 255, np.array([0, 3, 2, 255])[expected]))


def test_a_joint_label_gives_the_classes_of_both_dates(tmp_path: Path) -> None:
    unusual_folder(tmp_path)
    describe(
        tmp_path,
        HEAD + "joint_label: '{split}/z/{name}.png'\n"
        "values: {0: unchanged, 10: [wood, field], 20: [field, wood], '30': no label}\n",
    )  # fmt: skip
    sample = open_dataset(tmp_path).splits["train"][0]
    first = truths(["p"], classes=3)[0].first
    np.testing.assert_array_equal(sample.before_classes, np.array([0, 1, 2, 255])[first])
    np.testing.assert_array_equal(sample.after_classes, np.array([0, 2, 1, 255])[first])


def test_change_values_define_which_values_are_change(tmp_path: Path) -> None:
    unusual_folder(tmp_path)
    describe(
        tmp_path,
        HEAD + "change_label: '{split}/z/{name}.png'\n"
        "change_values: {0: unchanged, 10: changed, 20: changed, 30: unchanged}",
    )
    change = open_dataset(tmp_path).splits["train"][0].change
    np.testing.assert_array_equal(change, np.isin(truths(["p"], classes=3)[0].first, (1, 2)))


def test_bands_and_stretch_convert_any_values_to_eight_bits(tmp_path: Path) -> None:
    values = np.stack([np.full((SIDE, SIDE), v, np.uint16) for v in (0, 500, 1000, 4000)], axis=-1)
    for role in ("a", "b"):
        save(tmp_path / f"{role}1.tif", values)
    describe(tmp_path, "before: 'a{name}.tif'\nafter: 'b{name}.tif'\nbands: [4, 3, 2]\nstretch: [0, 1000]\n")
    sample = open_dataset(tmp_path).splits["all"][0]
    assert sample.before[0, 0].tolist() == [255, 255, 128]
    assert sample.change is None


def test_list_files_can_be_given_in_the_description(tmp_path: Path) -> None:
    binary(tmp_path)
    (tmp_path / "mine.lst").write_text("two\n")
    text = "before: 'A/{name}.png'\nafter: 'B/{name}.png'\nchange_label: 'label/{name}.png'\nsplits: {test: mine.lst}\n"
    assert open_dataset(describe(tmp_path, text)).splits["test"].names == ("two",)


def test_the_description_file_can_be_given_instead_of_the_folder(tmp_path: Path) -> None:
    binary(tmp_path)
    path = tmp_path / "other.yaml"
    path.write_text("before: 'A/{name}.png'\nafter: 'B/{name}.png'\nchange_label: 'label/{name}.png'\n")
    assert len(open_dataset(path).splits["all"]) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("before: 'x/{name}.png'\nafter: 'y/{name}.png'\nafter_labels: z\n", "did you mean 'after_label'"),
        ("before: 'x/{name}.png'\n", "the key 'after' is missing"),
        ("before: x\nafter: 'y/{name}.png'\n", "has no {name}"),
        (HEAD + "before_label: 'z/{name}.png'\n", "must be given together"),
        (HEAD + "values: {700: water}\n", "not a label value"),
        (HEAD + "values: {true: water}\n", "not true or false"),
        (HEAD + "values: {1: water}\nencoding: e1\n", "give one of them"),
        (HEAD + "values: {1: watr}\nclasses: [water, wood]\n", "did you mean 'water'"),
        (HEAD + "values: {1: [a, b]}\n", "for joint_label"),
        (HEAD + "change_values: {1: maybe}\n", "not one of unchanged, changed, no label"),
        (HEAD + "encoding: e9\n", "unknown label encoding 'e9'"),
        (HEAD + "stretch: [9, 3]\n", "must be ascending"),
        (HEAD + "bands: [0, 1, 2]\n", "counted from 1"),
        ("before: 'no/{name}.png'\nafter: 'y/{name}.png'\n", "no file matches before"),
        ("- a\n- b\n", "holds list"),
        ("before: [\n", "cannot be read as YAML"),
    ],
)
def test_an_invalid_description_is_rejected_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    from wasnow.errors import WasnowError

    unusual_folder(tmp_path)
    with pytest.raises(WasnowError) as error:
        open_dataset(describe(tmp_path, text))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_reported_with_the_expected_path(tmp_path: Path) -> None:
    unusual_folder(tmp_path)
    (tmp_path / "rest" / "y" / "q_2.png").unlink()
    describe(tmp_path, HEAD)
    with pytest.raises(DatasetError, match=r"expected rest/y/q_2\.png"):
        open_dataset(tmp_path)


def test_each_date_may_have_its_own_stretch(tmp_path: Path) -> None:
    for role, value in (("a", 500), ("b", 1500)):
        save(tmp_path / f"{role}1.tif", np.full((SIDE, SIDE, 3), value, np.uint16))
    describe(
        tmp_path,
        "before: 'a{name}.tif'\nafter: 'b{name}.tif'\nstretch: {before: [0, 1000], after: [1000, 2000]}\n",
    )  # fmt: skip
    sample = open_dataset(tmp_path).splits["all"][0]
    np.testing.assert_array_equal(sample.before, sample.after)
    assert sample.before[0, 0, 0] == 128
    described = "before: 'a{name}.tif'\nafter: 'b{name}.tif'\nstretch: {before: [0, 1000], after: [9, 3]}\n"
    with pytest.raises(DatasetError, match="must be ascending"):
        open_dataset(describe(tmp_path, described))


def named_bands(path: Path, **values: int) -> None:
    from making import write_raster

    write_raster(path, np.stack([np.full((SIDE, SIDE), value, np.uint8) for value in values.values()]))
    import rasterio

    with rasterio.open(path, "r+") as raster:
        raster.descriptions = tuple(values)


@pytest.mark.parametrize("described", ["", "bands: [B4, B3, B2]\n", "bands: [3, 2, 1]\n"])
def test_bands_are_found_by_name(tmp_path: Path, described: str) -> None:
    for name in ("a1.tif", "b1.tif"):
        named_bands(tmp_path / name, SR_B2=20, SR_B3=30, SR_B4=40, SR_B5=50)
    text = "before: 'a{name}.tif'\nafter: 'b{name}.tif'\n" + described
    sample = open_dataset(describe(tmp_path, text)).splits["all"][0]
    assert sample.before[0, 0].tolist() == [40, 30, 20]


def test_an_unclear_order_of_bands_is_rejected_with_advice(tmp_path: Path) -> None:
    from wasnow.errors import RasterUnsuitable

    for name in ("a1.tif", "b1.tif"):
        named_bands(tmp_path / name, blue=20, green=30, nir=40, swir=50)
    text = "before: 'a{name}.tif'\nafter: 'b{name}.tif'\n"
    with pytest.raises(RasterUnsuitable, match=r"bands named blue, green, nir, swir.*Set the bands"):
        open_dataset(describe(tmp_path, text)).splits["all"][0]
    with pytest.raises(RasterUnsuitable, match="has no band 'red'"):
        open_dataset(describe(tmp_path, text + "bands: [red, green, blue]\n")).splits["all"][0]
