"""Prior masks of dataset samples: from a folder, from labels, or none."""

import pickle
import shutil

import numpy as np
import pytest
import rasterio

from data.fakes import binary, save, second
from priors.stand_ins import Bright
from wasnow.data.dataset import open_dataset
from wasnow.data.land_cover import open_land_cover
from wasnow.errors import InputError, UsageError, VocabularyError
from wasnow.models.sam_cd import SAMCD
from wasnow.priors import open_priors
from wasnow.priors.make import PriorRequest, make_dataset
from wasnow.priors.samples import LabelMasks, NoMasks, WithPriors, pair_masks, recordable, with_priors
from wasnow.priors.store import other_masker

WORDS = ("red", "blue")
SMALL = {"encoder": {"widths": (8, 8, 8, 8), "depths": (1, 1, 1, 1), "heads": (1, 1, 1, 1)}, "width": 8}
DENSE = """\
before: "im1/{name}.png"
after: "im2/{name}.png"
before_label: "label1/{name}.png"
after_label: "label2/{name}.png"
classes: [water, building]
values: {1: water, 2: building, 255: no label}
"""


@pytest.fixture
def data(tmp_path):
    binary(tmp_path / "data")
    return open_dataset(tmp_path / "data")


@pytest.fixture
def made(data, tmp_path):
    make_dataset(data, tmp_path / "priors", PriorRequest(WORDS, Bright(), tile=32, margin=4))
    return tmp_path / "priors"


# ------------------------------------------------------------------------------------------------------ from a folder


def test_samples_have_the_masks_of_their_pair_in_the_requested_order(data, made):
    samples = WithPriors(data.splits["all"], open_priors(made, ["blue", "red"]), "all")
    assert samples.names == data.splits["all"].names
    assert samples.fingerprint == data.splits["all"].fingerprint
    for index, plain in enumerate(data.splits["all"]):
        seen = pickle.loads(pickle.dumps(samples))[index]
        expected = [Bright().masks(rgb, ["blue", "red"]) for rgb in (plain.before, plain.after)]
        np.testing.assert_array_equal(seen.priors, np.stack(expected))
        np.testing.assert_array_equal(seen.change, plain.change)


def test_the_origin_depends_on_the_masks_and_not_on_the_folder(made, tmp_path):
    shutil.copytree(made, tmp_path / "elsewhere")
    here, there = open_priors(made), open_priors(tmp_path / "elsewhere")
    assert here.origin == there.origin
    assert here.pick(["red"]).origin != here.origin
    with rasterio.open(tmp_path / "elsewhere/all/two.tif", "r+") as raster:
        raster.write(1 - raster.read(1), 1)
    assert here.digest != there.digest
    (tmp_path / "elsewhere/all/two.tif").unlink()
    with pytest.raises(InputError, match=r"two.tif cannot be read .* Make the priors again"):
        _ = there.digest


def test_a_missing_pair_is_reported_when_samples_are_created(data, made, tmp_path):
    binary(tmp_path / "more", names=("one", "two", "three", "four"))
    more = open_dataset(tmp_path / "more").splits["all"]
    with pytest.raises(InputError, match=r"no priors for 1 of 4 pairs of all, first four.*--dataset-tile"):
        WithPriors(more, open_priors(made), "all")
    with pytest.raises(UsageError, match="has priors of all, not of 'train'"):
        WithPriors(data.splits["all"], open_priors(made), "train")


def test_masks_of_other_images_are_rejected(data, made, tmp_path):
    binary(tmp_path / "other", seed=5)
    samples = WithPriors(open_dataset(tmp_path / "other").splits["all"], open_priors(made), "all")
    with pytest.raises(InputError, match="from other images than one of all"):
        samples[0]


# ------------------------------------------------------------------------------------------------------- from labels


def dense(root):
    rng = np.random.default_rng(0)
    first, second_ = (rng.choice(np.array([1, 2, 255], np.uint8), (16, 20)) for _ in range(2))
    pictures = [rng.integers(0, 255, (16, 20, 3)).astype(np.uint8) for _ in range(2)]
    for role, values in zip(("im1", "im2", "label1", "label2"), (*pictures, first, second_), strict=True):
        save(root / role / "a.png", values)
    (root / "dataset.yaml").write_text(DENSE)
    return first, second_


def test_dense_labels_are_masks_of_their_words_at_each_date(tmp_path):
    covers = dense(tmp_path)
    data = open_dataset(tmp_path)
    masks = LabelMasks.of_dataset(data).pick(["Building", "water"])
    assert masks.say == "covers"
    # Both readings of a dataset get the same masks.
    for samples in (data.splits["all"], open_land_cover(tmp_path)["all"]):
        seen = WithPriors(samples, masks, "all")[0].priors
        for date, cover in enumerate(covers):
            np.testing.assert_array_equal(seen[date], np.stack([cover == 2, cover == 1]))


def test_labels_of_changed_pixels_are_masks_there_only(tmp_path):
    truth = second(tmp_path)["train"][0]
    data = open_dataset(tmp_path)
    masks = pair_masks("labels", data).pick(["water", "building"])
    codes = [1 + data.vocabulary.words.index(word) for word in ("water", "building")]
    seen = WithPriors(data.splits["train"], masks, "train")[0].priors
    for date, labels in enumerate((truth.first, truth.second)):
        np.testing.assert_array_equal(seen[date], np.stack([labels == code for code in codes]))
    assert masks.origin["masker"] == {"masker": "labels", "say": "classes where it changed"}


def test_binary_change_labels_are_one_mask_at_both_dates(data):
    masks = LabelMasks.of_dataset(data).pick(["building"])
    sample = WithPriors(data.splits["all"], masks, "all")[1]
    for date in sample.priors:
        np.testing.assert_array_equal(date, sample.change[None])
    with pytest.raises(VocabularyError, match="binary change and do not distinguish road and building"):
        masks.pick(["road", "building"])


def test_a_word_that_is_not_a_class_is_rejected_with_the_nearest_one(tmp_path):
    second(tmp_path)
    with pytest.raises(VocabularyError, match="did you mean 'building'"):
        LabelMasks.of_dataset(open_dataset(tmp_path)).pick(["buildings"])


def test_labels_of_another_dataset_and_pairs_without_labels_are_rejected(data, tmp_path):
    masks = LabelMasks.of_dataset(data).pick(["building"])
    with pytest.raises(UsageError, match="labels of the splits all, not of 'val'"):
        masks.require("val", ["one"])
    with pytest.raises(InputError, match="no pair four"):
        masks.require("all", ["one", "four"])
    shutil.rmtree(tmp_path / "data/label")
    bare = open_dataset(tmp_path / "data")
    with pytest.raises(InputError, match="one has no labels to use as priors"):
        WithPriors(bare.splits["all"], LabelMasks.of_dataset(bare).pick(["building"]), "all")[0]


# -------------------------------------------------------------------------------------------------- what a model wants


def test_a_model_gets_exactly_the_masks_it_needs(data, made):
    samples = data.splits["all"]
    plain = SAMCD(words=WORDS, priors="none", **SMALL)
    assert with_priors(plain, samples, "all", open_priors(made)) == (samples, None)
    model = SAMCD(words=WORDS[:1], **SMALL)
    seen, masks = with_priors(model, samples, "all", open_priors(made))
    assert masks.words == ("red",)
    assert seen[0].priors.shape == (2, 1, 24, 24)
    seen, masks = with_priors(model, samples, "all", pair_masks("none", data))
    assert not seen[0].priors.any()
    assert seen[0].priors.shape == (2, 1, 24, 24)
    assert masks == NoMasks(("red",))


def test_the_error_for_missing_masks_says_how_to_make_them(data, made):
    model = SAMCD(words=["solar farm", "red"], **SMALL)
    with pytest.raises(UsageError, match="wasnow priors DATASET --classes 'solar farm, red' -o priors/"):
        with_priors(model, data.splits["all"], "all", None)
    with pytest.raises(VocabularyError, match="no priors for solar farm"):
        with_priors(model, data.splits["all"], "all", open_priors(made))


def test_a_folder_is_recorded_as_an_absolute_path_and_a_control_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert recordable("priors") == str(tmp_path / "priors")
    assert (recordable("labels"), recordable("none")) == ("labels", "none")
    assert recordable("./labels") == str(tmp_path / "labels")


@pytest.mark.parametrize(
    ("learned", "given", "message"),
    [
        ({"masker": "files", "sources": [1]}, {"masker": "files", "sources": [2]}, None),
        ({"masker": "sam3", "score": 0.5}, {"masker": "sam3", "score": 0.5}, None),
        ({"masker": "sam3", "score": 0.5}, {"masker": "sam3", "score": 0.4}, "masks by sam3 with another score"),
        ({"masker": "sam3"}, {"masker": "files"}, "with masks by sam3 and is given masks by files"),
        ({"masker": "labels"}, {"masker": "none"}, "with masks from labels and is given no masks"),
        (None, {"masker": "files"}, None),
    ],
)
def test_masks_of_another_masker_than_in_training_give_a_warning(learned, given, message):
    found = other_masker(learned and {"masker": learned}, {"masker": given})
    assert (found is None) == (message is None)
    assert message is None or message in found
