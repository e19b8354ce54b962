"""mini/make_data.py on small made-up sources: what is learned from, what is kept away, and what labels are made of."""

import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray

from making import REAL, ROOT, needs_real, write_raster
from wasnow.data.dataset import open_dataset
from wasnow.data.encodings import ENCODINGS
from wasnow.data.images import write_png
from wasnow.data.land_cover import open_land_cover
from wasnow.errors import InputError, OutputError, UsageError
from wasnow.synthetic import CLASSES
from wasnow.vocabulary import NO_LABEL

MAGENTA = (250, 10, 250)
"""What only the held-back places show."""

DUBAI_COLORS = [color for color, code in ENCODINGS["dubai-landcover"].codes.items() if code != NO_LABEL]


def _loaded() -> ModuleType:
    path = ROOT / "mini" / "make_data.py"
    spec = importlib.util.spec_from_file_location("make_data", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_data"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


make_data = _loaded()
FEW = make_data.Counts(dubai=3, dubai_val=1, dubai_test=1, naip=3, pucallpa=2, taizhou=1, synthetic=1)
SHIPPED, WIDER = (replace(make_data.MIXES[name], counts=FEW) for name in ("shipped", "wider"))


def ground(seed: int, height: int, width: int, grown: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Blue, green, red, NIR and SWIR of a place, 8-bit numbers; and what is there: 3 water, 4 plants, 5 soil. The lakes
    reach ``grown`` columns further."""
    cover = np.full((height, width), 4, np.uint8)
    cover[height // 2 :, : width // 2] = 5
    cover[height // 5 : height // 2, width // 8 : width // 4 + grown] = 3
    cover[height // 5 : height // 2, 3 * width // 4 : 7 * width // 8 + grown] = 3
    light = {3: (50, 60, 40, 20, 10), 4: (40, 60, 45, 190, 90), 5: (90, 110, 140, 160, 190)}
    bands = np.zeros((5, height, width), np.float32)
    for code, values in light.items():
        bands[:, cover == code] = np.array(values, np.float32)[:, None]
    noise = np.random.default_rng(seed).normal(1, 0.03, bands.shape)
    return np.clip(bands * noise, 1, 255).astype(np.float32), cover


def sources(folder: Path) -> Path:
    """All four sources, small. Held-back tiles and columns are magenta."""
    rng = np.random.default_rng(0)
    for tile in ("Tile_1", "Tile_3", "Tile_4", "Tile_6", "Tile_7"):
        for role in ("images", "masks"):
            (folder / "dubai-landcover" / tile / role).mkdir(parents=True)
        for part in range(2):
            codes = np.kron(rng.integers(0, 5, (7, 8)), np.ones((60, 60), np.int64))
            picture = (codes[..., None] * 30 + rng.integers(20, 40, (*codes.shape, 3))).astype(np.uint8)
            if tile == SHIPPED.test[0]:
                picture[:] = MAGENTA
            write_png(folder / "dubai-landcover" / tile / "images" / f"{part}.png", picture)
            write_png(
                folder / "dubai-landcover" / tile / "masks" / f"{part}.png", np.array(DUBAI_COLORS, np.uint8)[codes]
            )
    for name in ("naip-dakota", "landsat-pucallpa", "landsat-taizhou"):
        (folder / name).mkdir()
    for at, year in enumerate(make_data.NAIP_YEARS):
        (blue, green, red, nir, _), _ = ground(at, 420, 700, 30 * at)
        bands = np.stack([red, green, blue, nir])
        bands[[0, 2], :, make_data.NAIP_CUT :] = MAGENTA[0]  # green stays, so that the index still tells water
        place = Affine(5, 0, 486_000 + 2 * (at == 3), 0, -5, 5_209_000)
        write_raster(folder / "naip-dakota" / f"{year}.tif", bands.astype(np.uint8), transform=place)
    for at, year in enumerate(make_data.PUCALLPA_YEARS):
        (_, green, red, nir, swir), _ = ground(at, 390, 400, 30 * at)
        bands = np.stack([swir, nir, red, green]).astype(np.uint8)
        write_raster(folder / "landsat-pucallpa" / f"{year}.tif", bands, nodata=0)
    for at, year in enumerate(make_data.TAIZHOU_YEARS):
        (blue, green, red, nir, swir), _ = ground(at, 390, 390, 30 * at)
        bands = np.stack([blue, green, red, nir, swir, swir]).astype(np.uint8)
        write_raster(folder / "landsat-taizhou" / f"{year}TM", bands, driver="ENVI")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sources(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("made") / "pairs"
    return out, make_data.make(data, out, mix=SHIPPED)


def pictures(folder: Path, split: str) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    for sample in open_dataset(folder).splits[split]:
        yield sample.name, sample.before
        yield sample.name, sample.after


def magenta(picture: NDArray[np.uint8]) -> float:
    """The share of such pixels, in any light."""
    red, green, blue = (picture[..., band].astype(int) for band in range(3))
    return float(((red - green > 90) & (blue - green > 90)).mean())


# ------------------------------------------------------------------------------------------------- what it is made from


def test_every_source_is_there_and_the_folder_is_a_dataset_without_faults(made: tuple[Path, dict[str, Any]]) -> None:
    folder, told = made
    dataset = open_dataset(folder)
    assert dataset.check() == ()
    assert dataset.vocabulary.words == make_data.WORDS == CLASSES
    assert {split: len(samples) for split, samples in dataset.splits.items()} == {"train": 10, "val": 1, "test": 1}
    assert set(told["train"]) == set(make_data.SOURCES)
    assert all(sample.before.shape == (384, 384, 3) for sample in dataset.splits["train"])


def test_the_test_tile_and_the_eastern_columns_are_nowhere_in_what_is_trained_on(
    made: tuple[Path, dict[str, Any]],
) -> None:
    for split in ("train", "val"):
        for name, picture in pictures(made[0], split):
            assert magenta(picture) < 0.002, name
    assert all(magenta(picture) > 0.9 for _, picture in pictures(made[0], "test"))


@pytest.mark.parametrize("mix", [SHIPPED, WIDER], ids=["shipped", "wider"])
def test_what_teaches_what_chooses_and_what_measures_share_no_image(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mix: Any
) -> None:
    opened: list[set[str]] = []
    seen = make_data.GeneratedPairs

    def watched(masks: Any, *arguments: Any) -> Any:
        opened.append({entry.name for entry in masks.entries})
        return seen(masks, *arguments)

    monkeypatch.setattr(make_data, "GeneratedPairs", watched)
    monkeypatch.setattr(make_data, "synthetic", lambda *_: iter(()))
    make_data.make(data, tmp_path / "out", mix=mix)
    # Training opens its images twice: as they are, and as a camera with larger pixels would have them.
    *training, chosen, measured = opened
    taught = set().union(*training)
    assert taught
    assert chosen
    assert measured
    assert not taught & chosen
    assert not taught & measured
    assert not chosen & measured


@pytest.mark.parametrize("name", make_data.FOR_TESTING)
def test_data_kept_for_testing_is_refused_also_behind_a_link(name: str, tmp_path: Path) -> None:
    kept = tmp_path / name
    kept.mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dubai-landcover").symlink_to(kept, target_is_directory=True)
    with pytest.raises(UsageError, match="never trained on"):
        make_data.make(tmp_path / "data", tmp_path / "out", mix=SHIPPED)
    with pytest.raises(UsageError, match=name):
        make_data.make(kept, tmp_path / "out", mix=SHIPPED)
    assert not (tmp_path / "out").exists()


def test_a_missing_source_and_a_full_folder_are_refused_before_any_work(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="DATA holds one for each of"):
        make_data.make(tmp_path, tmp_path / "out")
    with pytest.raises(OutputError, match="choose a new folder"):
        make_data.make(data, data)


def test_the_same_seed_gives_the_same_bytes(data: Path, made: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    # Scenes are slow to render, and have a test of their own for this.
    make_data.make(data, tmp_path / "again", mix=replace(SHIPPED, counts=replace(FEW, synthetic=0)))
    first, again = (
        {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.png")}
        for folder in (made[0], tmp_path / "again")
    )
    assert again == {name: content for name, content in first.items() if "synthetic" not in name}


def test_another_seed_gives_other_pairs(data: Path) -> None:
    dates = make_data.naip(data, slice(0, make_data.NAIP_CUT))
    for one, other in (
        [next(make_data.dubai(data, ("Tile_1",), 2, seed)) for seed in (0, 1)],
        [next(make_data.crops("naip", dates, 1, seed, (0.7, 1.6))) for seed in (0, 1)],
    ):
        assert (one.before != other.before).any()


def test_the_description_names_sources_licences_and_the_seed(made: tuple[Path, dict[str, Any]]) -> None:
    text = (made[0] / "dataset.yaml").read_text()
    for word in ("seed 0", "CC0", "public domain", "Tile", "NDWI"):
        assert word.casefold() in text.casefold()


# --------------------------------------------------------------------------------------------------------------- labels


def test_classes_are_told_wherever_one_is_known_and_change_is_where_they_differ(
    made: tuple[Path, dict[str, Any]],
) -> None:
    for sample in open_land_cover(made[0])["train"]:
        before, after, change = sample.before_classes, sample.after_classes, sample.change
        assert before is not None
        assert after is not None
        assert change is not None
        assert set(np.unique([before, after])) <= {1, 2, 3, 4, 5, NO_LABEL}
        known = (before != NO_LABEL) & (after != NO_LABEL)
        np.testing.assert_array_equal(change == NO_LABEL, ~known)
        np.testing.assert_array_equal(change == 1, known & (before != after))
        assert known.any()


def test_the_colours_of_dubai_mean_the_same_words_as_everywhere_in_wasnow() -> None:
    theirs, ours = ENCODINGS["dubai-landcover"], make_data.DUBAI
    said = {"land": "bare ground"}
    assert theirs.codes.keys() == ours.codes.keys()
    for color, code in theirs.codes.items():
        if code == NO_LABEL:
            assert ours.codes[color] == NO_LABEL
        else:
            word = theirs.words[code - 1]
            assert make_data.WORDS[ours.codes[color] - 1] == said.get(word, word)


def test_weak_labels_are_right_where_they_speak_and_speak_of_most(data: Path) -> None:
    for at, date in enumerate(make_data.naip(data, slice(0, make_data.NAIP_CUT)).values()):
        _, truth = ground(at, 420, 700, 30 * at)
        inside = (slice(4, -4), slice(4, make_data.NAIP_CUT - 4))
        cover, truth = date.cover[inside], truth[inside]
        spoken = cover != NO_LABEL
        assert spoken.mean() > 0.85
        assert (cover == truth)[spoken].mean() > 0.99


def test_the_infrared_decides_labels_and_never_reaches_a_picture(data: Path, tmp_path: Path) -> None:
    for year in make_data.NAIP_YEARS:
        with rasterio.open(data / "naip-dakota" / f"{year}.tif") as raster:
            bands, place = raster.read(), raster.transform
        bands[3] = bands[3][::-1]
        (tmp_path / "naip-dakota").mkdir(exist_ok=True)
        write_raster(tmp_path / "naip-dakota" / f"{year}.tif", bands, transform=place)
    plain, turned = (make_data.naip(folder, slice(0, 500)) for folder in (data, tmp_path))
    for year in make_data.NAIP_YEARS:
        np.testing.assert_array_equal(plain[year].picture, turned[year].picture)
        assert (plain[year].cover != turned[year].cover).mean() > 0.1


def test_bare_ground_beside_a_river_is_what_the_river_covered_at_another_date(data: Path) -> None:
    dates = make_data.pucallpa(data)
    ever = np.any([date.cover == make_data.WATER for date in dates.values()], axis=0)
    for date in dates.values():
        assert ever[date.cover == make_data.BARE].all()


def test_dates_that_lie_apart_come_onto_one_grid(data: Path) -> None:
    read = dict(make_data.on_one_grid(data / "naip-dakota", make_data.NAIP_YEARS))
    assert {values.shape for values in read.values()} == {(4, 420, 700)}
    # 2017 lies 2 m further east: its first column has nothing within half a pixel, and the rest is a mixture of two.
    with rasterio.open(data / "naip-dakota" / "2017.tif") as raster:
        stored = raster.read(1).astype(np.float32)
    np.testing.assert_allclose(
        read[2017][0, 5:-5, 5:-5], (0.6 * stored[:, 1:] + 0.4 * stored[:, :-1])[5:-5, 4:-5], atol=1
    )


# -------------------------------------------------------------------------------------------------------------- scaling


def test_a_factor_of_one_changes_nothing() -> None:
    rng = np.random.default_rng(4)
    picture, cover = rng.integers(0, 255, (40, 50, 3)).astype(np.uint8), rng.integers(1, 6, (40, 50)).astype(np.uint8)
    same, labels = make_data.scaled(picture, cover, 1.0)
    np.testing.assert_array_equal(same, picture)
    np.testing.assert_array_equal(labels, cover)


@pytest.mark.parametrize("factor", [0.4, 0.5, 0.8, 1.6])
def test_scaling_keeps_the_mean_and_the_place_of_things(factor: float) -> None:
    cover = np.full((120, 160), 4, np.uint8)
    cover[30:90, 40:100] = 3
    picture = np.where(cover[..., None] == 3, 200, 50).astype(np.uint8) * np.ones(3, np.uint8)
    small, labels = make_data.scaled(picture, cover, factor)
    assert small.shape[:2] == labels.shape == (int(120 * factor), int(160 * factor))
    assert small.mean() == pytest.approx(picture.mean(), rel=0.02)
    assert ((small[..., 0] > 125) == (labels == 3)).mean() > 0.97


def test_coarser_images_are_blurred_before_they_are_sampled() -> None:
    stripes = np.zeros((80, 80, 3), np.uint8)
    stripes[:, ::2] = 255
    small, _ = make_data.scaled(stripes, np.ones((80, 80), np.uint8), 0.4)
    assert np.ptp(small[8:-8, 8:-8]) < 110  # alias of the stripes would have the full 255


# ------------------------------------------------------------------------------------------------------------ test area


def test_the_test_area_is_one_grid_in_place_with_water_where_it_came(data: Path, tmp_path: Path) -> None:
    make_data.write_test_area(data, tmp_path)
    shown = {}
    for name in ("2009.tif", "2017.tif", "label.tif"):
        with rasterio.open(tmp_path / name) as raster:
            shown[name] = raster.read()
            assert raster.transform == Affine(5, 0, 486_000 + 5 * make_data.NAIP_CUT, 0, -5, 5_209_000 - 5 * 2)
    assert shown["2009.tif"].shape == shown["2017.tif"].shape == (3, 416, 700 - 2 - make_data.NAIP_CUT)
    _, before = ground(0, 420, 700, 0)
    _, after = ground(3, 420, 700, 90)  # the fourth date
    area = (slice(2, -2), slice(make_data.NAIP_CUT, -2))
    came = (before != 3)[area] & (after == 3)[area]
    label = shown["label.tif"][0]
    assert (label[came] == 1).mean() > 0.9
    assert (label[~came] != 1).mean() > 0.99


@pytest.mark.real
def test_water_doubles_in_the_test_area_of_naip_dakota(tmp_path: Path) -> None:
    needs_real("naip-dakota")
    make_data.write_test_area(REAL, tmp_path)
    with rasterio.open(tmp_path / "label.tif") as raster:
        label = raster.read(1)
    known = label != NO_LABEL
    assert known.mean() > 0.8
    assert 0.08 < (label == 1).sum() / known.sum() < 0.3


@pytest.mark.real
def test_real_weak_labels_agree_with_each_other_on_lakes_that_stay(tmp_path: Path) -> None:
    needs_real("naip-dakota")
    dates = make_data.naip(REAL, slice(0, make_data.NAIP_CUT))
    water = [date.cover == make_data.WATER for date in dates.values()]
    spoken = [date.cover != NO_LABEL for date in dates.values()]
    for earlier, later, known in zip(water, water[1:], spoken[1:], strict=False):
        assert (later | ~known)[earlier].mean() > 0.95  # this region only grew wetter


# --------------------------------------------------------------------------------------------------------- command line


def test_the_command_says_what_it_made_and_a_fault_in_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make_data.main([str(data), str(tmp_path / "area"), "--test-area"]) == 0
    assert "never trained on" in capsys.readouterr().out
    assert make_data.main([str(tmp_path), str(tmp_path / "out")]) == InputError.exit_code
    told = capsys.readouterr()
    assert told.err.startswith("error: ")
    assert told.err.count(os.linesep) == 1
    assert told.out == ""
