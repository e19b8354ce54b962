"""From a pair or a dataset to a prior folder and back."""

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


def way(masker=None, tmp_path=None, **options):
    cache = None if tmp_path is None else PriorCache(tmp_path / "kept")
    return PriorRequest(WORDS, masker or Bright(), cache, **{"tile": 32, "margin": 4, **options})


# --- pairs ---------------------------------------------------------------------------------------------------------


def test_the_masks_of_a_pair_lie_on_each_raster_s_own_grid(rasters, tmp_path):
    made = make_pair(*rasters, tmp_path / "out", way())
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


def test_pictures_without_a_place_make_masks_without_warnings_of_libraries(tmp_path, recwarn):
    paths = [write_raster(tmp_path / name, rgb(1), crs=None, transform=None) for name in ("old.tif", "new.tif")]
    recwarn.clear()
    make_pair(*paths, tmp_path / "out", way())
    assert [str(one.message) for one in recwarn if "geo" in str(one.message).lower()] == []


def test_they_are_read_by_windows_on_any_grid(rasters, tmp_path):
    make_pair(*rasters, tmp_path / "out", way())
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
    # At half the resolution every pixel is one of the four that it covers.
    coarse = priors.read(Window(0, 0, 45, 35), "before", grid.scaled(2))
    four = both[0].reshape(2, 45, 2, 35, 2)
    assert ((coarse >= four.min(axis=(2, 4))) & (coarse <= four.max(axis=(2, 4)))).all()


def test_some_words_can_be_picked_in_another_order(rasters, tmp_path):
    make_pair(*rasters, tmp_path / "out", way())
    whole, picked = open_priors(tmp_path / "out"), open_priors(tmp_path / "out", ["Blue"])
    window = Window(0, 0, 90, 70)
    np.testing.assert_array_equal(picked.read(window, "before"), whole.read(window, "before")[1:])
    with pytest.raises(VocabularyError, match="no priors for building, only for red and blue"):
        open_priors(tmp_path / "out", ["building"])


def test_priors_know_the_image_they_are_of(rasters, tmp_path):
    make_pair(*rasters, tmp_path / "out", way())
    priors = open_priors(tmp_path / "out")
    priors.check("before", file_sha256(rasters[0]))
    priors.check("before", None)
    with pytest.raises(InputError, match="another before image"):
        priors.check("before", file_sha256(rasters[1]))
    with pytest.raises(UsageError, match="before or after"):
        priors.check("between", None)
    with pytest.raises(UsageError, match="wasnow priors FOLDER"):
        priors.of("train", "x")


def test_priors_can_be_sent_to_another_process(rasters, tmp_path):
    make_pair(*rasters, tmp_path / "out", way())
    there = pickle.loads(pickle.dumps(open_priors(tmp_path / "out")))
    assert there.read(Window(0, 0, 5, 5), "after").shape == (2, 5, 5)


def test_the_same_again_gives_the_same_bytes_and_asks_nothing(rasters, tmp_path):
    first = make_pair(*rasters, tmp_path / "one", way(tmp_path=tmp_path))
    again = make_pair(*rasters, tmp_path / "two", way(tmp_path=tmp_path))
    assert first.asked > 0 == first.reused
    assert again.asked == 0 < again.reused == first.asked
    for name in ("before.tif", "after.tif", "priors.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_an_interrupted_run_goes_on_where_it_was(rasters, tmp_path):
    class Impatient(Bright):
        def find(self, rgb, words):
            if len(self.calls) == 5:
                raise KeyboardInterrupt
            return super().find(rgb, words)

    with pytest.raises(Interrupted, match="run the same command again"):
        make_pair(*rasters, tmp_path / "out", way(Impatient(), tmp_path))
    with pytest.raises(InputError, match="no finished prior folder"):
        open_priors(tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.plain.part"))
    made = make_pair(*rasters, tmp_path / "out", way(tmp_path=tmp_path))
    # Two words of five tiles; equal tiles of a picture count as found as well.
    assert made.reused >= 10
    assert open_priors(tmp_path / "out").words == WORDS


def test_pixels_without_data_hold_nothing_and_do_not_count(tmp_path):
    values = np.full((3, 40, 40), 255, np.uint8)
    values[:, :, 20:] = 7
    paths = [write_raster(tmp_path / f"{n}.tif", values, nodata=7) for n in "ab"]
    made = make_pair(*paths, tmp_path / "out", way())
    assert made.manifest.covered["before"]["red"].share == 1
    assert open_priors(tmp_path / "out").read(Window(0, 20, 40, 20), "before").max() == 0


def test_numbers_beyond_8_bit_are_stretched_alike_everywhere(tmp_path):
    wide = textured(3, 60, 60) * 40
    paths = [write_raster(tmp_path / f"{n}.tif", wide.astype(np.uint16)) for n in "ab"]
    make_pair(*paths, tmp_path / "out", way())
    low, high = np.percentile(wide.astype(np.uint16)[0], [1, 99])
    shown = np.rint(np.clip((wide.astype(np.uint16)[0] - low) / (high - low), 0, 1) * 255)
    found = open_priors(tmp_path / "out").read(Window(0, 0, 60, 60), "before")[0]
    assert (found != (shown > 128)).mean() < 0.002
    make_pair(*paths, tmp_path / "told", way(), stretch="0,8000", bands=(1,))
    told = open_priors(tmp_path / "told").read(Window(0, 0, 60, 60), "before")
    np.testing.assert_array_equal(told[0], told[1])
    with pytest.raises(UsageError, match="--bands names 2"):
        make_pair(*paths, tmp_path / "more", way(), bands=(1, 2))


def test_masks_from_files_need_no_network(rasters, tmp_path):
    codes = np.zeros((90, 70), np.uint8)
    codes[10:50, 20:40] = 1
    codes[60:80, 5:65] = 2
    files = MaskFiles.of_pair([write_raster(tmp_path / "codes.tif", codes[None])], WORDS)
    made = make_pair(*rasters, tmp_path / "out", way(files))
    priors = open_priors(tmp_path / "out")
    np.testing.assert_array_equal(priors.read(Window(0, 0, 90, 70), "before"), [codes == 1, codes == 2])
    np.testing.assert_array_equal(priors.read(Window(0, 0, 70, 60), "after")[0], codes[3:73, 5:65] == 1)
    assert made.manifest.covered["before"]["red"].objects is None
    assert made.manifest.masker["masker"] == "files"


def test_folders_that_hold_something_else_are_not_touched(rasters, tmp_path):
    (tmp_path / "mine").mkdir()
    shutil.copy(rasters[0], tmp_path / "mine" / "before.tif")
    with pytest.raises(OutputError, match="holds no priors"):
        make_pair(*rasters, tmp_path / "mine", way())
    with pytest.raises(OutputError, match="is a file"):
        make_pair(*rasters, rasters[0], way())
    with pytest.raises(VocabularyError, match="--classes building"):
        PriorRequest((), Bright())


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"format": 1, "words": 3}'])
def test_a_manifest_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "priors.json").write_text(content)
    with pytest.raises(InputError, match="make the priors again"):
        open_priors(tmp_path)


# --- datasets ------------------------------------------------------------------------------------------------------


@pytest.fixture
def dataset(tmp_path):
    binary(tmp_path / "data")
    return open_dataset(tmp_path / "data")


def test_a_dataset_gets_masks_for_every_pair_of_every_split(dataset, tmp_path):
    made = make_dataset(dataset, tmp_path / "out", way(tmp_path=tmp_path))
    priors = open_priors(tmp_path / "out")
    assert sum(len(samples) for samples in dataset.splits.values()) > 1
    for split, samples in dataset.splits.items():
        assert priors.names(split) == samples.names
        for sample in samples:
            masks = priors.of(split, sample.name, sample.before, sample.after)
            expected = [Bright().masks(picture, WORDS) for picture in (sample.before, sample.after)]
            np.testing.assert_array_equal(masks, expected)
            assert masks.dtype == np.uint8
    again = make_dataset(dataset, tmp_path / "out", way(tmp_path=tmp_path))
    assert again.asked == 0
    assert again.manifest == made.manifest


def test_pictures_that_changed_since_are_noticed(dataset, tmp_path):
    make_dataset(dataset, tmp_path / "out", way())
    priors = open_priors(tmp_path / "out")
    split, samples = next(iter(dataset.splits.items()))
    sample = samples[0]
    with pytest.raises(InputError, match="other pictures than"):
        priors.of(split, sample.name, sample.before, sample.after ^ 1)
    with pytest.raises(InputError, match="no priors for nobody"):
        priors.of(split, "nobody")
    with pytest.raises(UsageError, match="not of 'tests'"):
        priors.of("tests", sample.name)
    with pytest.raises(UsageError, match="BEFORE AFTER"):
        priors.read(Window(0, 0, 1, 1), "before")


def test_pictures_cut_into_tiles_have_masks_of_their_own(tmp_path):
    binary(tmp_path / "data")
    dataset = open_dataset(tmp_path / "data", tile=12)
    make_dataset(dataset, tmp_path / "out", way())
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
    made = make_dataset(whole, tmp_path / "out", way(files))
    priors = open_priors(tmp_path / "out")
    for (split, name, date), codes in truth.items():
        masks = priors.of(split, name)[("before", "after").index(date)]
        np.testing.assert_array_equal(masks, [codes == 1, codes == 2])
    assert all(word.objects is None for word in made.manifest.covered["after"].values())
    cut = open_dataset(tmp_path / "data", tile=12)
    make_dataset(cut, tmp_path / "cut", way(files))
    split, samples = next(iter(cut.splits.items()))
    entry = samples.entries[1]
    at = entry.window
    codes = truth[split, whole.splits[split].entries[0].name, "before"]
    codes = codes[at.row : at.row_stop, at.col : at.col_stop]
    np.testing.assert_array_equal(open_priors(tmp_path / "cut").of(split, entry.name)[0, 0], codes == 1)
    (tmp_path / "masks" / split / "before" / f"{entry.before.stem}.png").unlink()
    with pytest.raises(InputError, match=f"no masks for {entry.before.stem} of {split}"):
        make_dataset(whole, tmp_path / "none", way(files))
    assert not (tmp_path / "none").exists()


def test_the_record_tells_how_the_masks_were_made(dataset, tmp_path):
    make_dataset(dataset, tmp_path / "out", way())
    told = json.loads((tmp_path / "out" / "priors.json").read_text())
    assert told["words"] == list(WORDS)
    assert told["masker"] == {"masker": "bright", "threshold": 128}
    assert (told["tile"], told["margin"]) == (32, 4)


@pytest.mark.real
def test_masks_of_real_buildings_come_through_from_labels(tmp_path):
    """Label rasters of real pairs as file priors: same pixels on the same grid."""
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
