"""The training data of semantic-cd-mini, from imagery whose licence allows shipping a model trained on it.

    python mini/make_data.py DATA OUT [--seed 0] [--share 1] [--mix shipped]      the dataset
    python mini/make_data.py DATA OUT --test-area      2009.tif, 2017.tif, label.tif of naip-dakota's east

    dubai-landcover   CC0             masks of one date ─> pairs (wasnow.data.pairs)                      exact labels
    naip-dakota       public domain   real pairs; labels from the infrared band that the model never sees  weak
    landsat-*         public domain   likewise, from near and short-wave infrared                          weak
    synthetic         our own         wasnow.synthetic                                                exact

OUT is one dataset in the layout of SECOND with a class at every pixel of both dates (dense: change is where they
differ): `wasnow.data.land_cover.open_land_cover` reads the classes of unchanged ground too, `open_dataset` does not.
The first word of a pair's name is its source. The same seed gives the same bytes.

Never trained on: the tiles that a `Mix` keeps for the splits ``val`` and ``test``, and the eastern two fifths of
naip-dakota, which `write_test_area` writes out for measuring. Never read at all: the folders in `FOR_TESTING`.
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import yaml
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from scipy import ndimage

from wasnow.data.encodings import LabelEncoding
from wasnow.data.images import write_png
from wasnow.data.land_cover import change_between
from wasnow.data.layouts.described import FILE_NAME, NO_LABEL_WORD
from wasnow.data.mask_folder import LandCoverImage, MaskFolder, open_masks
from wasnow.data.pairs import GeneratedPairs, PairRecipe
from wasnow.data.samples import Codes, Sample
from wasnow.data.spectral_labels import SpectralBands, SpectralLabels, label_map, label_spectrally, open_mask
from wasnow.data.transforms import ColorJitter, Rgb, nearest, resample
from wasnow.errors import InputError, OutputError, UsageError, WasnowError
from wasnow.raster.pair import PlacedSource, read_placed
from wasnow.raster.radiometry import Stretch
from wasnow.raster.reader import RasterReader
from wasnow.raster.source import probe
from wasnow.raster.tiles import Window
from wasnow.synthetic import render_scene
from wasnow.vocabulary import NO_LABEL

WORDS = ("building", "road", "water", "vegetation", "bare ground")
BUILDING, ROAD, WATER, VEGETATION, BARE = range(1, 6)

FOR_TESTING = ("france-buildings", "levir-cd", "dsifn-cd", "beijing-construction")
"""Measured on and never trained on."""

READ = ("dubai-landcover", "naip-dakota", "landsat-pucallpa", "landsat-taizhou")

SIZE = 384
"""Side of the pictures, pixels: crops of 256 at scales around 1 can be cut from it."""

DUBAI = LabelEncoding(
    "dubai-landcover, in the words of this model",
    "land and unpaved are bare ground; grey and black are unlabelled",
    WORDS,
    {
        (60, 16, 152): BUILDING,
        (110, 193, 228): ROAD,
        (226, 169, 41): WATER,
        (254, 221, 58): VEGETATION,
        (132, 41, 246): BARE,
        (155, 155, 155): NO_LABEL,
        (0, 0, 0): NO_LABEL,
    },
)
"""The colours, as `wasnow.vocabulary.ENCODINGS` has them under another order of words."""

NAIP_YEARS = (2009, 2012, 2014, 2017)
NAIP_CUT = 562
"""First of the 372 eastern columns (of 934), the test area, at easting 488 710 m. The cut runs where the least water
crosses it at any date: 1 of 723 pixels in 2009, 38 in 2014; both sides have lakes that grow."""

NAIP_FRAME = 2
"""Rows and columns at the border that resampling onto the grid of another date may leave empty."""

PUCALLPA_YEARS = (1985, 1995, 2005)
TAIZHOU_YEARS = (2000, 2003)

SOURCES = {
    "dubai": "dubai-landcover; CC0 (Humans in the Loop / MBRSC); exact labels",
    "dubai-coarser": "the same, pixels 1.25 to 2.5 times as long",
    "naip": f"naip-dakota, columns 0 to {NAIP_CUT - 1}; US public domain; weak labels from NDWI and NDVI",
    "pucallpa": "landsat-pucallpa; public domain (USGS); weak labels from MNDWI and NDVI",
    "taizhou": "landsat-taizhou; public domain (USGS); weak labels from MNDWI and NDVI",
    "synthetic": "wasnow.synthetic; this project; exact labels",
}
"""First part of a pair's name -> where it comes from, its licence, and how its labels came about."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many pairs of each kind are made; those without another word are for training."""

    dubai: int = 2600
    dubai_val: int = 120
    dubai_test: int = 120
    naip: int = 250
    pucallpa: int = 100
    taizhou: int = 50
    synthetic: int = 150

    def times(self, share: float) -> Counts:
        """A part of them, of each kind one at least."""
        return Counts(*(max(1, round(share * count)) for count in astuple(self)))


@dataclass(frozen=True, slots=True)
class Mix:
    """Which places teach, choose and measure, and how much of each kind there is.

    Attributes:
        train: tiles of dubai-landcover.
        val: a tile, and which of its images, by name.
        test: likewise.
        counts: of pairs.
    """

    train: tuple[str, ...]
    val: tuple[str, slice]
    test: tuple[str, slice]
    counts: Counts = Counts()


ALL = slice(None)
MIXES: Mapping[str, Mix] = {
    "shipped": Mix(("Tile_1", "Tile_3", "Tile_4"), ("Tile_7", ALL), ("Tile_6", ALL)),
    "wider": Mix(
        ("Tile_1", "Tile_3", "Tile_4", "Tile_6"),
        ("Tile_7", slice(0, None, 2)),
        ("Tile_7", slice(1, None, 2)),
        Counts(naip=500, synthetic=450),
    ),
}
"""What the shipped weights learned from, and a second attempt that did no better (docs/experiments.md)."""


def folder_of(data: Path, name: str) -> Path:
    """The folder of one source.

    Raises:
        UsageError: it is one of `FOR_TESTING`, or lies in one, or a link leads there.
        InputError: there is none.
    """
    folder = data / name
    for part in (*folder.parts, *folder.resolve().parts):
        if part in FOR_TESTING:
            raise UsageError(f"{folder} is kept for measuring ({part}) and never trained on; give another folder")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; DATA holds one for each of {', '.join(READ)}")
    return folder


# ------------------------------------------------------------------------------------------ pairs of single-date images


@dataclass(frozen=True)
class Coarser(MaskFolder):
    """The same images as a camera with larger pixels would have taken them.

    Attributes:
        factors: side of the new picture by that of the old one, per image; below 1.
    """

    factors: tuple[float, ...] = ()
    _made: dict[int, LandCoverImage] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, masks: MaskFolder, seed: int, times: int = 3) -> Coarser:
        """Every image ``times`` times, by factors from 0.4 to 0.8 that leave at least 3/4 of a picture's side."""
        rng = np.random.default_rng([seed, 4])
        entries = masks.entries * times
        shapes = [masks[index].classes.shape for index in range(len(masks))] * times
        least = [min(0.8, max(0.4, 0.75 * SIZE / min(shape))) for shape in shapes]
        factors = tuple(float(np.exp(rng.uniform(math.log(low), math.log(0.8)))) for low in least)
        return cls(masks.root, entries, masks.encoding, masks.faults, factors=factors)

    def __getitem__(self, index: int) -> LandCoverImage:
        """See `MaskFolder`."""
        if index not in self._made:
            single = super().__getitem__(index)
            self._made[index] = LandCoverImage(*scaled(single.picture, single.classes, self.factors[index]))
        return self._made[index]


def dubai(
    data: Path, tiles: Sequence[str], count: int, seed: int, *, images: slice = ALL, coarser: float = 0.0
) -> Iterator[Sample]:
    """Pairs made of the images of some tiles, a share ``coarser`` of them from images of larger pixels.

    Args:
        data: where the sources lie.
        tiles: names of groups.
        count: how many pairs.
        seed: another one makes others.
        images: which of these tiles' images, in the order of their names.
        coarser: 0..1.
    """
    masks = replace(open_masks(folder_of(data, "dubai-landcover"), encoding="dubai-landcover"), encoding=DUBAI)
    masks = masks.only([entry for entry in masks.entries if entry.group in tiles][images])
    # The training adds strong augmentation of its own.
    light = ColorJitter(brightness=0.04, contrast=0.08, gamma=0.08, color=0.03, saturation=0.10)
    recipe = PairRecipe(size=SIZE, transplant=0.6, shift_px=0.5, light=light, noise=2.0)
    few = round(count * coarser)
    yield from covered("dubai", GeneratedPairs(masks, max(1, count - few), seed, recipe), count - few)
    if few:
        yield from covered("dubai-coarser", GeneratedPairs(Coarser.of(masks, seed), few, seed + 1, recipe), few)


def covered(source: str, pairs: GeneratedPairs, count: int) -> Iterator[Sample]:
    """The first pairs with a class at every pixel that has one, named by their source."""
    for index in range(count):
        yield sample_of(f"{source}_{index:06d}", *pairs.covers(index))


# ------------------------------------------------------------------------------- real pairs, labelled by withheld bands


@dataclass(frozen=True)
class Date:
    """One place at one date.

    Attributes:
        picture: ``(H, W, 3)`` uint8, all that a model will see.
        cover: ``(H, W)`` codes of `WORDS`, 255 where the withheld bands do not speak clearly.
    """

    picture: Rgb
    cover: Codes


def naip(data: Path, cols: slice) -> dict[int, Date]:
    """Some columns of naip-dakota at its four dates on the grid of the first; labels from NDWI and NDVI.

    Limits are found from the columns asked for alone. Bare ground must be 5 pixels (25 m) wide: narrower is a road.
    """
    dates = {}
    for year, bands in on_one_grid(folder_of(data, "naip-dakota"), NAIP_YEARS):
        bands = bands[:, :, cols]
        red, green, _, nir = bands
        found = label_spectrally(SpectralBands(red, green, nir))
        cover = label_map({WATER: found.water, VEGETATION: found.vegetation, BARE: open_mask(found.bare, 5)})
        dates[year] = Date(as_bytes(bands[:3]), cover)
    return dates


def pucallpa(data: Path) -> dict[int, Date]:
    """landsat-pucallpa at its three dates; labels from MNDWI and NDVI.

    It has no blue: the lower of red and green stands for it, as over soil, turbid water and forest alike. Nine tenths
    are dark forest, so tones are the square root of the stretched numbers, else all would be black but river and town.
    Bare ground and a town look alike to every index: only ground that was the river at another date counts as bare.
    """
    read = dict(on_one_grid(folder_of(data, "landsat-pucallpa"), PUCALLPA_YEARS))
    found = {
        year: label_spectrally(SpectralBands(red, green, nir, swir)) for year, (swir, nir, red, green) in read.items()
    }
    river = np.any([covers.water for covers in found.values()], axis=0)
    dates = {}
    for year, (_, _, red, green) in read.items():
        covers = found[year]
        cover = label_map({WATER: covers.water, VEGETATION: covers.vegetation, BARE: covers.bare & river})
        red, green = stretched(np.stack([red, green]))
        shown = np.sqrt(np.stack([red, green, np.minimum(red, green)]))
        dates[year] = Date(as_bytes(shown * 255), cover)
    return dates


def taizhou(data: Path) -> dict[int, Date]:
    """landsat-taizhou at its two dates; water and vegetation from MNDWI and NDVI, nothing said about the rest."""
    dates = {}
    for year, bands in on_one_grid(folder_of(data, "landsat-taizhou"), TAIZHOU_YEARS, "{}TM"):
        blue, green, red, nir, swir, _ = bands
        found = label_spectrally(SpectralBands(red, green, nir, swir))
        cover = label_map({WATER: found.water, VEGETATION: found.vegetation})
        dates[year] = Date(as_bytes(stretched(np.stack([red, green, blue])) * 255), cover)
    return dates


def on_one_grid(folder: Path, years: Sequence[int], file: str = "{}.tif") -> Iterator[tuple[int, NDArray[np.float32]]]:
    """All bands of each year's file on the grid of the first, resampled as by the engine; NaN where missing.

    Raises:
        RasterUnreadable: a file is missing or damaged.
    """
    sources = [probe(folder / file.format(year)) for year in years]
    sources = [source.with_bands(tuple(range(1, source.count + 1))) for source in sources]
    height, width = sources[0].grid.shape
    for year, source in zip(years, sources, strict=True):
        with RasterReader(source) as reader:
            placement = PlacedSource.of(source, sources[0].grid).placement
            yield year, read_placed(reader, placement, Window(0, 0, height, width))


def stretched(bands: NDArray[np.float32]) -> NDArray[np.float32]:
    """``(C, H, W)``, each band 0..1 from its 1st to its 99th percentile: as the engine shows what is not 8-bit RGB."""
    known = bands.reshape(len(bands), -1).T
    known = known[np.isfinite(known).all(axis=1)]
    return Stretch.of_samples(known, display=False).apply(bands)


def as_bytes(bands: NDArray[np.float32]) -> Rgb:
    """``(3, H, W)`` 0..255 as ``(H, W, 3)`` uint8; black where missing."""
    return np.ascontiguousarray(np.moveaxis(np.rint(np.nan_to_num(bands)).clip(0, 255).astype(np.uint8), 0, -1))


def crops(
    source: str, dates: Mapping[int, Date], count: int, seed: int, scale: tuple[float, float]
) -> Iterator[Sample]:
    """Random squares of all pairs of dates in turn, in either order, on a finer or coarser pixel grid.

    Args:
        source: first part of their names.
        dates: year -> what was seen.
        count: how many.
        seed: another one makes others.
        scale: a new pixel goes this often into an old one, per side; drawn log-uniformly, and never so small that more
            than the whole raster would be needed.
    """
    rng = np.random.default_rng([seed, *source.encode()])
    couples = list(combinations(dates, 2))
    for index in range(count):
        years = couples[index % len(couples)]
        before, after = (dates[year] for year in (years if rng.uniform() < 0.5 else years[::-1]))
        height, width = before.cover.shape
        least = max(scale[0], SIZE / min(height, width))
        factor = math.exp(rng.uniform(math.log(least), math.log(scale[1])))
        row, col = (rng.uniform(0, max(0.0, size - SIZE / factor)) for size in (height, width))
        (first, first_cover), (second, second_cover) = (
            scaled(date.picture, date.cover, factor, at=(row, col), side=SIZE) for date in (before, after)
        )
        yield sample_of(f"{source}_{index:06d}", first, second, first_cover, second_cover)


def scaled(
    picture: Rgb, cover: Codes, factor: float, *, at: tuple[float, float] = (0.0, 0.0), side: int | None = None
) -> tuple[Rgb, Codes]:
    """A picture and its cover with pixels ``1 / factor`` times as long: blurred first where they grow.

    Args:
        picture: ``(H, W, 3)``.
        cover: ``(H, W)``; the nearest label is taken.
        factor: new side by old side.
        at: row and col of the corner, in old pixels.
        side: of the answer, in new pixels; None for all there is.
    """
    shape = (side, side) if side is not None else tuple(int(size * factor) for size in cover.shape)
    rows, cols = (at[i] + (np.arange(shape[i]) + 0.5) / factor - 0.5 for i in range(2))
    if factor < 1:
        # Half a new pixel's width: what a square detector of that size would have averaged, nearly.
        sigma = 0.5 * math.sqrt(1 / factor**2 - 1)
        picture = np.rint(ndimage.gaussian_filter(picture.astype(np.float32), (sigma, sigma, 0))).astype(np.uint8)
    return resample(picture, rows, cols), nearest(cover, rows, cols)


# ------------------------------------------------------------------------------------------------------ invented places


def synthetic(count: int, seed: int) -> Iterator[Sample]:
    """Scenes of `wasnow.synthetic` from 0.3 to 2 m a pixel; an eighth of them where nothing happens."""
    rng = np.random.default_rng([seed, 3])
    for index in range(count):
        gsd_m = math.exp(rng.uniform(math.log(0.3), math.log(2.0)))
        rows, cols = rng.uniform(-0.5, 0.5, 2).tolist()
        scene = render_scene(
            seed * 100_000 + index,
            height=SIZE,
            width=SIZE,
            gsd_m=gsd_m,
            change_share=float(rng.uniform(0.04, 0.25)),
            shift_px=(rows, cols),
            identical=index % 8 == 7,
        )
        name = f"synthetic_{index:06d}"
        yield sample_of(name, scene.before, scene.after, scene.before_classes, scene.after_classes)


# ---------------------------------------------------------------------------------------------------------- as a folder


def sample_of(name: str, before: Rgb, after: Rgb, first: Codes, second: Codes) -> Sample:
    """A sample whose classes speak of every pixel that is labelled, changed or not."""
    return Sample(name, before, after, first, second, change_between(first, second))


def write_split(samples: Iterator[Sample], folder: Path, report: Callable[[str, int], None]) -> dict[str, list[int]]:
    """Write samples as im1, im2, label1 and label2.

    Returns:
        By source: how many pairs, labelled pixels, changed pixels, and pixels of each class over both dates.
    """
    for role in ("im1", "im2", "label1", "label2"):
        (folder / role).mkdir(parents=True, exist_ok=True)
    told: dict[str, list[int]] = {}
    for done, sample in enumerate(samples, 1):
        first, second, change = sample.before_classes, sample.after_classes, sample.change
        assert first is not None and second is not None and change is not None  # noqa: PT018
        files = {"im1": sample.before, "im2": sample.after, "label1": first, "label2": second}
        for role, values in files.items():
            write_png(folder / role / f"{sample.name}.png", np.ascontiguousarray(values))
        counts = np.bincount(np.concatenate([first, second], axis=None), minlength=256)
        unchanged, changed = np.bincount(change.ravel(), minlength=256)[:2].tolist()
        row = [1, unchanged + changed, changed, *counts[1 : len(WORDS) + 1].tolist()]
        source = sample.name.rpartition("_")[0]
        told[source] = [a + b for a, b in zip(told.get(source, [0] * len(row)), row, strict=True)]
        report(source, done)
    return told


def make(data: Path, out: Path, *, seed: int = 0, mix: Mix = MIXES["shipped"]) -> dict[str, dict[str, list[int]]]:
    """Make the whole dataset.

    Args:
        data: the folder that holds dubai-landcover, naip-dakota, landsat-pucallpa and landsat-taizhou.
        out: new, or empty.
        seed: another one makes other pairs.
        mix: which places and how many pairs.

    Returns:
        Split -> source -> figures, as `write_split` gives them.

    Raises:
        UsageError: ``data`` leads to a folder of test data.
        OutputError: ``out`` holds something.
        InputError: a source is missing or damaged.
    """
    for name in READ:
        folder_of(data, name)
    if out.exists() and any(out.iterdir()):
        raise OutputError(f"{out} is not empty; choose a new folder")

    counts = mix.counts

    def train() -> Iterator[Sample]:
        yield from dubai(data, mix.train, counts.dubai, seed, coarser=0.35)
        yield from crops("naip", naip(data, slice(0, NAIP_CUT)), counts.naip, seed, (0.7, 1.6))
        yield from crops("pucallpa", pucallpa(data), counts.pucallpa, seed, (1.0, 2.4))
        yield from crops("taizhou", taizhou(data), counts.taizhou, seed, (1.0, 2.0))
        yield from synthetic(counts.synthetic, seed)

    (val, val_images), (test, test_images) = mix.val, mix.test
    splits = {
        "train": train(),
        "val": dubai(data, (val,), counts.dubai_val, seed + 100, images=val_images, coarser=0.35),
        "test": dubai(data, (test,), counts.dubai_test, seed + 200, images=test_images, coarser=0.35),
    }
    told = {}
    for split, samples in splits.items():
        told[split] = write_split(samples, out / split, progress)
    describe(out, told, seed, mix)
    return told


def describe(out: Path, told: Mapping[str, Mapping[str, list[int]]], seed: int, mix: Mix) -> None:
    """Write dataset.yaml, last of all: what the numbers mean, and where everything comes from."""
    tiles = f"train {', '.join(mix.train)}; val {mix.val[0]}; test {mix.test[0]}"
    notes = [f"# made by: mini/make_data.py, seed {seed}", f"# tiles of Dubai: {tiles}"]
    notes += [
        f"# {split}, {source}: {row[0]} pairs from {SOURCES[source]}"
        for split in told
        for source, row in told[split].items()
    ]
    content: dict[str, Any] = {
        "name": "training data of semantic-cd-mini",
        "before": "{split}/im1/{name}.png",
        "after": "{split}/im2/{name}.png",
        "before_label": "{split}/label1/{name}.png",
        "after_label": "{split}/label2/{name}.png",
        "classes": list(WORDS),
        "values": {**dict(enumerate(WORDS, 1)), NO_LABEL: NO_LABEL_WORD},
    }
    text = "\n".join([*notes, yaml.safe_dump(content, sort_keys=False, width=1000)])
    (out / FILE_NAME).write_text(text, encoding="utf-8")


# ---------------------------------------------------------------------------------------------------- the test area


def water_change(before: SpectralLabels, after: SpectralLabels) -> Codes:
    """``(H, W)``: 1 where water came or went, 0 where it did not, 255 where it is not clear at either date."""
    clear = (before.water | before.land) & (after.water | after.land)
    return np.where(clear, (before.water != after.water).astype(np.uint8), np.uint8(NO_LABEL))


def write_test_area(data: Path, out: Path, years: tuple[int, int] = (2009, 2017)) -> None:
    """The east of naip-dakota as ``YEAR.tif`` (RGB, twice) and ``label.tif`` (`water_change`), on one grid.

    Raises:
        InputError: the source is missing or damaged.
    """
    folder = folder_of(data, "naip-dakota")
    read = dict(on_one_grid(folder, years))
    area = (slice(NAIP_FRAME, -NAIP_FRAME), slice(NAIP_CUT, -NAIP_FRAME))
    grid = probe(folder / f"{years[0]}.tif").grid
    height, width = (len(range(*part.indices(size))) for part, size in zip(area, grid.shape, strict=True))
    transform = grid.crop(Window(NAIP_FRAME, NAIP_CUT, height, width)).transform
    bands = {year: values[:, *area] for year, values in read.items()}
    before, after = (label_spectrally(SpectralBands(red, green, nir)) for red, green, _, nir in bands.values())
    files = {f"{year}.tif": np.moveaxis(as_bytes(values[:3]), -1, 0) for year, values in bands.items()}
    files["label.tif"] = water_change(before, after)[None]
    out.mkdir(parents=True, exist_ok=True)
    for name, values in files.items():
        shape = {"count": len(values), "height": height, "width": width, "dtype": "uint8"}
        place = {"crs": grid.crs, "transform": transform, "compress": "deflate", "tiled": True}
        colors = {"photometric": "RGB"} if len(values) == 3 else {}
        with rasterio.open(out / name, "w", driver="GTiff", **shape, **place, **colors) as raster:
            raster.write(values)


def progress(source: str, done: int) -> None:
    """On one line of the terminal."""
    if sys.stderr.isatty():
        print(f"\r{done:6d} {source:16s}", end="", file=sys.stderr)


def summary(told: Mapping[str, Mapping[str, Sequence[int]]]) -> Iterator[str]:
    """One line for each source of each split."""
    for split, sources in told.items():
        for source, (pairs, labelled, changed, *classes) in sources.items():
            total = max(1, sum(classes))
            shares = ", ".join(f"{word} {count / total:.0%}" for word, count in zip(WORDS, classes, strict=True))
            yield f"{split}: {pairs} pairs from {SOURCES[source]}"
            yield f"    {changed / max(1, labelled):.1%} of the pixels labelled at both dates changed; {shares}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; its exit code."""
    parser = argparse.ArgumentParser(description="Make the training data of semantic-cd-mini.")
    parser.add_argument("data", type=Path, help=f"folder that holds {', '.join(READ)}")
    parser.add_argument("out", type=Path, help="new folder")
    parser.add_argument("--seed", type=int, default=0, help="another seed makes other pairs")
    parser.add_argument("--share", type=float, default=1.0, help="0.1 makes a tenth of the pairs")
    parser.add_argument("--mix", choices=MIXES, default="shipped", help="which places, how much of each kind")
    parser.add_argument("--test-area", action="store_true", help="write the east of naip-dakota instead")
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    try:
        if given.test_area:
            write_test_area(given.data, given.out)
            print(f"wrote {given.out}: naip-dakota from column {NAIP_CUT} on, never trained on")
        else:
            mix = MIXES[given.mix]
            mix = replace(mix, counts=mix.counts.times(given.share))
            told = make(given.data, given.out, seed=given.seed, mix=mix)
            print("\n".join([f"wrote {given.out}", *summary(told)]))
    except WasnowError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
