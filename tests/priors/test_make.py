"""Making a prior folder from a pair or a dataset, and reading it."""

import json
import pickle
import shutil

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

from data.fakes import binary
from making import UTM, needs_real, textured, write_raster
from priors.stand_ins import Bright
from wasnow.data.dataset import open_dataset
from wasnow.errors import InputError, Interrupted, OutputError, UsageError, VocabularyError
from wasnow.priors import open_priors
from wasnow.priors.cache import PriorCache
from wasnow.priors.files import MaskFiles
from wasnow.priors.make import PriorRequest, make_dataset, make_pair
from wasnow.raster.grid import Grid
from wasnow.raster.tiles import Window
from wasnow.storage.hashing import file_sha256

WORDS = ("red", "blue")


def rgb(seed, shape=(90, 70)):
    return textured(seed, *shape).astype(np.uint8)


@pytest.fixture
def rasters(tmp_path):
    return (
        write_raster(tmp_path / "old.tif", rgb(1), photometric="RGB"),
        # Shifted by three rows and five columns, and smaller.
        write_raster(
            tmp_path / "new.tif", rgb(2, (70, 60)), photometric="RGB", transform=UTM @ Affine.translation(5, 3)
        ),
    )


def request_of(masker=None, tmp_path=None, **options):
    cache = None if tmp_path is None else PriorCache(tmp_path / "kept")
    return PriorRequest(WORDS, masker or Bright(), cache, **{"tile": 32, "margin": 4, **options})


# --- pairs ---------------------------------------------------------------------------------------------------------


def test_the_masks_of_a_pair_are_on_each_raster_s_own_grid(rasters, tmp_path):
    made = make_pair(*rasters, tmp_path / "out", request_of())
    for date, path, seed in zip(("before", "after"), rasters, (1, 2), strict=True):
        with rasterio.open(path) as image, rasterio.open(tmp_path / "out" / f"{date}.tif") as masks:
            assert (masks.crs, masks.transform, masks.shape) == (image.crs, image.transform, image.shape)
            assert masks.descriptions == WORDS
            assert masks.profile["tiled"]
            expected = Bright().masks(np.moveaxis(rgb(seed, masks.shape), 0, -1), WORDS)
            np.testing.assert_array_equal(masks.read(), expected)
        covered = made.manifest.covered[date]
        assert covered["red"].share == pytest.approx(expected[0].mean())
        assert covered["blue"].objects > 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"before.tif", "after.tif", "priors.json"}


def test_images_without_georeference_give_masks_without_library_warnings(tmp_path, recwarn):
    paths = [write_raster(tmp_path / name, rgb(1), crs=None, transform=None) for name in ("old.tif", "new.tif")]
    recwarn.clear()
    make_pair(*paths, tmp_path / "out", request_of())
    assert [str(one.message) for one in recwarn if "geo" in str(one.message).lower()] == []


def test_masks_are_read_by_windows_on_any_grid(rasters, tmp_path):
    make_pair(*rasters, tmp_path / "out", request_of())
    priors = open_priors(tmp_path / "out")
    assert priors.words == WORDS
    grid = Grid(CRS.from_epsg(32632), UTM, 70, 90)
    both = priors.read_pair(Window(0, 0, 90, 70), grid)
    assert both.shape == (2, 2, 90, 70)
    assert both.dtype == np.uint8
    expected = np.zeros((2, 90, 70), bool)
    expected[:, 3:73, 5:65] = Bright().masks(np.moveaxis(rgb(2, (70, 60)), 0, -1), WORDS)
    np.testing.assert_array_equal(both[1], expected)
    window = Window(40, 30, 60, 50)
    beyond = np.pad(both, ((0, 0), (0, 0), (0, 60), (0, 60)))[:, :, 40:100, 30:80]
    np.testing.assert_array_equal(priors.read_pair(window, grid), beyond)
    # At half the resolution, each pixel has the value of one of the four that it covers.
    coarse = priors.read(Window(0, 0, 45, 35), "before", grid.scaled(2))
    four = both[0].reshape(2, 45, 2, 35, 2)
    assert ((coarse >= four.min(axis=(2, 4))) & (coarse <= four.max(axis=(2, 4)))).all()


def test_a_subset_of_the_words_can_be_read_in_another_order(rasters, tmp_path):
    make_pair(*rasters, tmp_path / "out", request_of())
    whole, picked = open_priors(tmp_path / "out"), open_priors(tmp_path / "out", ["Blue"])
    window = Window(0, 0, 90, 70)
    np.testing.assert_array_equal(picked.read(window, "before"), whole.read(window, "before")[1:])
    with pytest.raises(VocabularyError, match="no priors for building, only for red and blue"):
        open_priors(tmp_path / "out", ["building"])


def test_priors_are_rejected_for_another_image(rasters, tmp_path):
    make_pair(*rasters, tmp_path / "out", request_of())
    priors = open_priors(tmp_path / "out")
    priors.check("before", file_sha256(rasters[0]))
    priors.check("before", None)
    with pytest.raises(InputError, match="another before image"):
        priors.check("before", file_sha256(rasters[1]))
    with pytest.raises(UsageError, match="a pair has before and after"):
        priors.check("between", None)
    with pytest.raises(UsageError, match="wasnow priors FOLDER"):
        priors.of("train", "x")


def test_priors_can_be_sent_to_another_process(rasters, tmp_path):
    make_pair(*rasters, tmp_path / "out", request_of())
    there = pickle.loads(pickle.dumps(open_priors(tmp_path / "out")))
    assert there.read(Window(0, 0, 5, 5), "after").shape == (2, 5, 5)


def test_a_repeated_run_gives_the_same_bytes_from_the_cache(rasters, tmp_path):
    first = make_pair(*rasters, tmp_path / "one", request_of(tmp_path=tmp_path))
    again = make_pair(*rasters, tmp_path / "two", request_of(tmp_path=tmp_path))
    assert first.asked > 0 == first.reused
    assert again.asked == 0 < again.reused == first.asked
    for name in ("before.tif", "after.tif", "priors.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_an_interrupted_run_continues_from_the_cache(rasters, tmp_path):
    class Impatient(Bright):
        def find(self, rgb, words):
            if len(self.calls) == 5:
                raise KeyboardInterrupt
            return super().find(rgb, words)

    with pytest.raises(Interrupted, match="Run the same command again"):
        make_pair(*rasters, tmp_path / "out", request_of(Impatient(), tmp_path))
    with pytest.raises(InputError, match="not a finished prior folder"):
        open_priors(tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.plain.part"))
    made = make_pair(*rasters, tmp_path / "out", request_of(tmp_path=tmp_path))
    # Two words of five tiles; equal tiles of a picture count as found as well.
    assert made.reused >= 10
    assert open_priors(tmp_path / "out").words == WORDS


def test_invalid_pixels_are_not_masked_and_not_counted(tmp_path):
    values = np.full((3, 40, 40), 255, np.uint8)
    values[:, :, 20:] = 7
    paths = [write_raster(tmp_path / f"{n}.tif", values, nodata=7) for n in "ab"]
    made = make_pair(*paths, tmp_path / "out", request_of())
    assert made.manifest.covered["before"]["red"].share == 1
    assert open_priors(tmp_path / "out").read(Window(0, 20, 40, 20), "before").max() == 0


def test_16_bit_rasters_have_one_stretch_for_all_tiles(tmp_path):
    wide = textured(3, 60, 60) * 40
    paths = [write_raster(tmp_path / f"{n}.tif", wide.astype(np.uint16)) for n in "ab"]
    make_pair(*paths, tmp_path / "out", request_of())
    low, high = np.percentile(wide.astype(np.uint16)[0], [1, 99])
    shown = np.rint(np.clip((wide.astype(np.uint16)[0] - low) / (high - low), 0, 1) * 255)
    found = open_priors(tmp_path / "out").read(Window(0, 0, 60, 60), "before")[0]
    assert (found != (shown > 128)).mean() < 0.002
    make_pair(*paths, tmp_path / "told", request_of(), stretch="0,8000", bands=(1,))
    told = open_priors(tmp_path / "told").read(Window(0, 0, 60, 60), "before")
    np.testing.assert_array_equal(told[0], told[1])
    with pytest.raises(UsageError, match="--bands has 2 bands"):
        make_pair(*paths, tmp_path / "more", request_of(), bands=(1, 2))


def test_masks_from_files_need_no_network(rasters, tmp_path):
    codes = np.zeros((90, 70), np.uint8)
    codes[10:50, 20:40] = 1
    codes[60:80, 5:65] = 2
    files = MaskFiles.of_pair([write_raster(tmp_path / "codes.tif", codes[None])], WORDS)
    made = make_pair(*rasters, tmp_path / "out", request_of(files))
    priors = open_priors(tmp_path / "out")
    np.testing.assert_array_equal(priors.read(Window(0, 0, 90, 70), "before"), [codes == 1, codes == 2])
    np.testing.assert_array_equal(priors.read(Window(0, 0, 70, 60), "after")[0], codes[3:73, 5:65] == 1)
    assert made.manifest.covered["before"]["red"].objects is None
    assert made.manifest.masker["masker"] == "files"


def test_folders_with_other_files_are_left_unchanged(rasters, tmp_path):
    (tmp_path / "mine").mkdir()
    shutil.copy(rasters[0], tmp_path / "mine" / "before.tif")
    with pytest.raises(OutputError, match="is not a prior folder"):
        make_pair(*rasters, tmp_path / "mine", request_of())
    with pytest.raises(OutputError, match="is a file"):
        make_pair(*rasters, rasters[0], request_of())
    with pytest.raises(VocabularyError, match="--classes building"):
        PriorRequest((), Bright())


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"format": 1, "words": 3}'])
def test_an_invalid_manifest_is_rejected(tmp_path, content):
    (tmp_path / "priors.json").write_text(content)
    with pytest.raises(InputError, match="Make the priors again"):
        open_priors(tmp_path)


# --- datasets ------------------------------------------------------------------------------------------------------


@pytest.fixture
def dataset(tmp_path):
    binary(tmp_path / "data")
    return open_dataset(tmp_path / "data")


def test_a_dataset_gets_masks_for_every_pair_of_every_split(dataset, tmp_path):
    made = make_dataset(dataset, tmp_path / "out", request_of(tmp_path=tmp_path))
    priors = open_priors(tmp_path / "out")
    assert sum(len(samples) for samples in dataset.splits.values()) > 1
    for split, samples in dataset.splits.items():
        assert priors.names(split) == samples.names
        for sample in samples:
            masks = priors.of(split, sample.name, sample.before, sample.after)
            expected = [Bright().masks(picture, WORDS) for picture in (sample.before, sample.after)]
            np.testing.assert_array_equal(masks, expected)
            assert masks.dtype == np.uint8
    again = make_dataset(dataset, tmp_path / "out", request_of(tmp_path=tmp_path))
    assert again.asked == 0
    assert again.manifest == made.manifest


def test_images_that_changed_since_are_detected(dataset, tmp_path):
    make_dataset(dataset, tmp_path / "out", request_of())
    priors = open_priors(tmp_path / "out")
    split, samples = next(iter(dataset.splits.items()))
    sample = samples[0]
    with pytest.raises(InputError, match="other images than"):
        priors.of(split, sample.name, sample.before, sample.after ^ 1)
    with pytest.raises(InputError, match="no priors for absent"):
        priors.of(split, "absent")
    with pytest.raises(UsageError, match="not of 'tests'"):
        priors.of("tests", sample.name)
    with pytest.raises(UsageError, match="BEFORE AFTER"):
        priors.read(Window(0, 0, 1, 1), "before")


def test_tiles_of_a_dataset_have_their_own_masks(tmp_path):
    binary(tmp_path / "data")
    dataset = open_dataset(tmp_path / "data", tile=12)
    make_dataset(dataset, tmp_path / "out", request_of())
    split, samples = next(iter(dataset.splits.items()))
    sample = samples[len(samples) - 1]
    masks = open_priors(tmp_path / "out", ["blue"]).of(split, sample.name, sample.before, sample.after)
    np.testing.assert_array_equal(masks[1, 0], sample.after[..., 2] > 128)


def test_a_dataset_takes_masks_from_a_folder_of_pngs_also_for_tiles(tmp_path):
    binary(tmp_path / "data")
    whole = open_dataset(tmp_path / "data")
    rng = np.random.default_rng(0)
    truth = {}
    for split, samples in whole.splits.items():
        for entry in samples.entries:
            for date, picture in (("before", entry.before), ("after", entry.after)):
                path = tmp_path / "masks" / split / date / f"{picture.stem}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                shape = samples[0].before.shape[:2]
                truth[split, entry.name, date] = rng.integers(0, 3, shape, dtype=np.uint8)
                write_raster(path, truth[split, entry.name, date][None], crs=None, driver="PNG")
    files = MaskFiles.of_dataset([tmp_path / "masks"], WORDS)
    made = make_dataset(whole, tmp_path / "out", request_of(files))
    priors = open_priors(tmp_path / "out")
    for (split, name, date), codes in truth.items():
        masks = priors.of(split, name)[("before", "after").index(date)]
        np.testing.assert_array_equal(masks, [codes == 1, codes == 2])
    assert all(word.objects is None for word in made.manifest.covered["after"].values())
    cut = open_dataset(tmp_path / "data", tile=12)
    make_dataset(cut, tmp_path / "cut", request_of(files))
    split, samples = next(iter(cut.splits.items()))
    entry = samples.entries[1]
    at = entry.window
    codes = truth[split, whole.splits[split].entries[0].name, "before"]
    codes = codes[at.row : at.row_stop, at.col : at.col_stop]
    np.testing.assert_array_equal(open_priors(tmp_path / "cut").of(split, entry.name)[0, 0], codes == 1)
    (tmp_path / "masks" / split / "before" / f"{entry.before.stem}.png").unlink()
    with pytest.raises(InputError, match=f"no mask for {entry.before.stem} of {split}"):
        make_dataset(whole, tmp_path / "none", request_of(files))
    assert not (tmp_path / "none").exists()


def test_the_manifest_records_how_the_masks_were_made(dataset, tmp_path):
    make_dataset(dataset, tmp_path / "out", request_of())
    told = json.loads((tmp_path / "out" / "priors.json").read_text())
    assert told["words"] == list(WORDS)
    assert told["masker"] == {"masker": "bright", "threshold": 128}
    assert (told["tile"], told["margin"]) == (32, 4)


@pytest.mark.real
def test_label_rasters_of_real_buildings_are_copied_unchanged(tmp_path):
    """Label rasters of real pairs as prior files: same pixels on the same grid."""
    root = needs_real("france-buildings") / "instances"
    name = sorted(path.name for path in (root / "label").glob("*.tif"))[0]
    files = MaskFiles.of_pair([root / "label" / name], ["building"])
    made = make_pair(
        root / "before" / name, root / "after" / name, tmp_path / "out", PriorRequest(("building",), files)
    )
    with rasterio.open(root / "label" / name) as raster:
        label = raster.read(1)
    found = open_priors(tmp_path / "out").read(Window(0, 0, *label.shape), "after")[0]
    np.testing.assert_array_equal(found, label != 0)
    assert 0 < made.manifest.covered["after"]["building"].share < 1
