"""Read the sources of `mini/mix.py` into memory: pictures, labels as sets of words, pixel sizes; held-out places apart.

    folder ─> Place(pictures of 1 or more dates, labels of each, pixel size)

A label is a set of words as bits (`mini/mix.py`), so that "building or road" and "anything but water" can be said.
Weak labels come from infrared bands that the model never sees.
"""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from scipy import ndimage

from mix import BAND_PX, BARE, BUILDING, FOR_TESTING, ROAD, SOURCES, UNKNOWN, VEGETATION, WATER
from wasnow.data.spectral_labels import SpectralBands, label_spectrally, open_mask
from wasnow.raster.pair import PlacedSource, read_placed
from wasnow.raster.radiometry import Stretch
from wasnow.raster.reader import RasterReader
from wasnow.raster.source import probe
from wasnow.raster.tiles import Window
from wasnow.synthetic import render_scene

Rgb = NDArray[np.uint8]
Sets = NDArray[np.uint8]
Bool = NDArray[np.bool_]

NOT_BUILDING = UNKNOWN & ~BUILDING
DUBAI_GSD_M = 1.0
"""Judged by places of known size; the source does not say it."""

DAKOTA_CUT = 562
YINX_CUT_M = 275_000.0
RIO_HELD_OUT = ("img50", "img51", "img52", "img53")
BANEPA_HELD_OUT_ROWS = 512
SENTINEL_HELD_OUT = ("beirut", "montpellier", "norcia", "rio")
CALIFORNIA_HELD_OUT = ("santamonica", "santa")


@dataclass(frozen=True, slots=True)
class Place:
    """One place.

    Attributes:
        name: source and file.
        pictures: ``(H, W, 3)`` uint8 of each date.
        labels: ``(H, W)`` uint8 sets of words of each date.
        gsd_m: pixel side, metres.
        unchanged: ``(H, W)``: known to be unchanged between all dates; None where only the labels tell.
    """

    name: str
    pictures: tuple[Rgb, ...]
    labels: tuple[Sets, ...]
    gsd_m: float
    unchanged: Bool | None = None


def read(path: Path, *, shape: tuple[int, int] | None = None, codes: bool = False) -> NDArray[np.uint8]:
    """A raster file as ``(H, W)`` or ``(H, W, C)`` uint8; one with a palette in its colours, unless ``codes``."""
    with rasterio.open(path) as file:
        out = None if shape is None else (file.count, *shape)
        values: NDArray[np.uint8] = file.read(out_shape=out, resampling=Resampling.bilinear)
        if file.colorinterp[0] is ColorInterp.palette and not codes:
            colours = file.colormap(1)
            return np.array([colours.get(code, (0, 0, 0))[:3] for code in range(256)], np.uint8)[values[0]]
    return values[0] if len(values) == 1 else np.ascontiguousarray(values.transpose(1, 2, 0))


def folder_of(data: Path, name: str) -> Path:
    """The folder of a source; refuses those that test, also behind a link."""
    folder = data / name
    if any(part in FOR_TESTING for part in (*folder.parts, *folder.resolve().parts)):
        raise SystemExit(f"{folder} is kept for measuring and never trained on")
    if not folder.is_dir():
        raise SystemExit(f"{folder}: no such folder")
    return folder


# ----------------------------------------------------------------------------------------------- labels drawn by hand


DUBAI_COLOURS = {
    (60, 16, 152): BUILDING,
    (110, 193, 228): ROAD,
    (226, 169, 41): WATER,
    (254, 221, 58): VEGETATION,
    (132, 41, 246): BARE,
}


def dubai(data: Path, *, held_out: bool = False, band_px: int = BAND_PX) -> Iterator[Place]:
    """Single dates; no label within ``band_px`` of the outline of a building, as the outlines are loose."""
    for tile in ("Tile_6", "Tile_7") if held_out else ("Tile_1", "Tile_3", "Tile_4"):
        for path in sorted((folder_of(data, "dubai-landcover") / tile / "images").glob("*.jpg")):
            colours = read(path.parents[1] / "masks" / path.with_suffix(".png").name)[..., :3].astype(np.int32)
            code = (colours[..., 0] << 16) | (colours[..., 1] << 8) | colours[..., 2]
            labels = np.full(code.shape, UNKNOWN, np.uint8)
            for (r, g, b), word in DUBAI_COLOURS.items():
                labels[code == (r << 16 | g << 8 | b)] = word
            picture = read(path)
            if band_px and not held_out:
                roof = labels == BUILDING
                side = 2 * band_px + 1
                inner = ndimage.minimum_filter(roof.view(np.uint8), side).view(np.bool_)
                outer = ndimage.maximum_filter(roof.view(np.uint8), side).view(np.bool_)
                labels[outer & ~inner] = UNKNOWN
                # Gardens inside a block that is drawn as one building.
                red, green, blue = (picture[..., band].astype(np.int32) for band in range(3))
                labels[roof & (2 * green - red - blue > 24)] = BUILDING | VEGETATION
            yield Place(f"dubai {tile} {path.stem}", (picture,), (labels,), DUBAI_GSD_M)


def yinx(data: Path, *, held_out: bool = False) -> Iterator[Place]:
    """Yield neighbouring tiles joined to one image; pixels between tiles and undrawn pixels have no label."""
    folder = folder_of(data, "naip-yinx")
    tiles = {}
    with (folder / "tiles.csv").open() as file:
        for row in csv.DictReader(file):
            east, north = float(row["left"]), float(row["top"])
            if (east > YINX_CUT_M) == held_out:
                tiles[round((east - 266115.6) / 153.6), round((4324399.2 - north) / 153.6)] = row["tile"]
    table = np.array([UNKNOWN, BUILDING, ROAD, BARE, VEGETATION, WATER], np.uint8)
    while tiles:
        group, new = {}, [next(iter(tiles))]
        while new:
            at = new.pop()
            if at in tiles:
                group[at] = tiles.pop(at)
                new += [(at[0] + x, at[1] + y) for x in (-1, 0, 1) for y in (-1, 0, 1)]
        left, top = (min(at[i] for at in group) for i in (0, 1))
        wide, high = (max(at[i] for at in group) + 1 - low for i, low in ((0, left), (1, top)))
        picture = np.zeros((high * 256, wide * 256, 3), np.uint8)
        labels = np.full(picture.shape[:2], UNKNOWN, np.uint8)
        for (col, row), name in group.items():
            place = slice((row - top) * 256, (row - top + 1) * 256), slice((col - left) * 256, (col - left + 1) * 256)
            rgb, nir = read(folder / "rgb" / f"{name}.jpg"), read(folder / "nir" / f"{name}.jpg").astype(np.float32)
            drawn = read(folder / "masks" / f"{name}.png")
            sets = table[drawn]
            red = rgb[..., 0].astype(np.float32)
            ndvi = (nir - red) / np.maximum(nir + red, 1)
            # Small sheds are missed: what is not drawn and not green may be anything but water.
            sets[drawn == 0] = np.where(ndvi > 0.15, VEGETATION, UNKNOWN & ~WATER)[drawn == 0]
            sets[(drawn == 0) & (ndvi > 0.0) & (ndvi <= 0.15)] = VEGETATION | BARE
            picture[place], labels[place] = rgb, sets
        yield Place(f"yinx {left} {top}", (picture,), (labels,), 0.6)


def rio(data: Path, *, held_out: bool = False) -> Iterator[Place]:
    """Buildings or not."""
    for path in sorted((folder_of(data, "spacenet1-rio") / "images").glob("*.jpg")):
        if (path.stem in RIO_HELD_OUT) == held_out:
            codes = read(path.parents[1] / "masks" / f"{path.stem}.png")
            yield Place(f"rio {path.stem}", (read(path),), (_buildings(codes),), 0.5)


def banepa(data: Path, *, held_out: bool = False) -> Iterator[Place]:
    """Buildings or not."""
    folder = folder_of(data, "oam-banepa")
    path = folder / "images" / "z19_386690_220241.jpg"
    codes, picture = read(folder / "masks" / f"{path.stem}.png"), read(path)
    cut = len(codes) - BANEPA_HELD_OUT_ROWS
    rows = slice(cut, None) if held_out else slice(0, cut)
    sets = _buildings(codes[rows])
    sets[sets == NOT_BUILDING] = NOT_BUILDING & ~WATER  # There is none in the picture.
    yield Place("banepa", (np.ascontiguousarray(picture[rows]),), (sets,), 0.2645)


def _buildings(codes: NDArray[np.uint8]) -> Sets:
    return np.select([codes == 1, codes == 0], [np.uint8(BUILDING), np.uint8(NOT_BUILDING)], np.uint8(UNKNOWN))


def chesapeake(data: Path, *, held_out: bool = False) -> Iterator[Place]:
    """Land cover; impervious ground that is no road is a building, a drive or a yard."""
    if held_out:
        return
    table = np.full(256, UNKNOWN, np.uint8)
    table[1:7] = WATER, VEGETATION, VEGETATION, BARE, BUILDING | ROAD | BARE, ROAD
    for path in sorted((folder_of(data, "chesapeake-wv") / "images").glob("*.jpg")):
        yield Place(path.stem, (read(path),), (table[read(path.parents[1] / "masks" / f"{path.stem}.png")],), 1.0)


# ------------------------------------------------------------------------------------ labels read off withheld bands


def ratio(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.float32]:
    """``(first - second) / (first + second)``."""
    first, second = first.astype(np.float32), second.astype(np.float32)
    return (first - second) / np.maximum(first + second, 1e-6)


def california(data: Path, *, held_out: bool = False) -> Iterator[Place]:
    """Real dates of towns in which hardly anything changed: unchanged but where plants came or went.

    Cameras are not calibrated: tree points say, for each city and year, how high NDVI is on trees.
    """
    folder = folder_of(data, "naip-california")
    trees = defaultdict(list)
    with (folder / "trees.csv").open() as file:
        for row in csv.DictReader(file):
            trees[row["tile"]].append((int(float(row["y"])), int(float(row["x"]))))
    names: dict[str, dict[int, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for path in sorted((folder / "rgb").glob("*.jpg")):
        city, year, number = path.stem.rsplit("_", 2)
        if city.replace("_", "").startswith(CALIFORNIA_HELD_OUT) == held_out:
            names[city][int(year)][number] = path.stem
    for city, years in names.items():
        seen: dict[int, dict[str, tuple[Rgb, Sets]]] = {}
        for year, tiles in years.items():
            read_tiles, on_trees, overall = {}, [], []
            for number, stem in tiles.items():
                rgb = read(folder / "rgb" / f"{stem}.jpg")
                nir = read(folder / "nir" / f"{stem}.jpg")
                ndvi = ndimage.uniform_filter(ratio(nir, rgb[..., 0]), 3)
                read_tiles[number] = rgb, ndvi, nir
                overall.append(ndvi[::8, ::8].ravel())
                on_trees += [ndvi[y, x] for y, x in trees[stem] if 0 <= y < 256 and 0 <= x < 256]
            high = float(np.quantile(on_trees, 0.3))
            low = float(min(np.median(np.concatenate(overall)), np.quantile(on_trees, 0.05)))
            seen[year] = {
                number: (
                    rgb,
                    np.select(
                        # Water is dark in the infrared; so are shadows and fresh asphalt.
                        [ndvi >= high, (ndvi < low) & (nir > 60), ndvi < low],
                        [np.uint8(VEGETATION), np.uint8(BUILDING | ROAD | BARE), np.uint8(UNKNOWN & ~VEGETATION)],
                        np.uint8(UNKNOWN),
                    ).astype(np.uint8),
                )
                for number, (rgb, ndvi, nir) in read_tiles.items()
            }
        for number in sorted(set().union(*seen.values())):
            dates = [tiles[number] for tiles in seen.values() if number in tiles]
            labels = tuple(sets for _, sets in dates)
            moved = np.zeros(labels[0].shape, np.bool_)
            for first in labels:
                for second in labels:
                    moved |= (first & second) == 0
            # Registration is good to a pixel or two, and crowns have soft edges: only clear patches count.
            moved = ndimage.binary_dilation(ndimage.binary_opening(moved, np.ones((3, 3))), np.ones((7, 7)))
            yield Place(f"california {city} {number}", tuple(rgb for rgb, _ in dates), labels, 0.6, ~moved)


def sentinel2(data: Path, *, held_out: bool = False) -> Iterator[Place]:
    """Top-of-atmosphere reflectance is calibrated, so textbook thresholds hold; between them nothing is said."""
    folder = folder_of(data, "sentinel2-cities")
    for place, facts in json.loads((folder / "index.json").read_text()).items():
        if (place in SENTINEL_HELD_OUT) != held_out:
            continue
        pictures, labels = [], []
        for date in facts["dates"]:
            rgb = read(folder / "rgb" / f"{place}_{date}.jpg")
            shape = (rgb.shape[0], rgb.shape[1])
            red, green, _ = np.moveaxis((rgb / 255.0) ** 2 * 0.4, -1, 0)
            nir = (read(folder / "nir" / f"{place}_{date}.jpg", shape=shape) / 255.0) ** 2 * 0.6
            swir = (read(folder / "swir" / f"{place}_{date}.jpg", shape=shape) / 255.0) ** 2 * 0.6
            labels.append(_by_index(ratio(green, swir), ratio(nir, red), (0.0, 0.25), (0.2, 0.45)))
            pictures.append(rgb)
        yield Place(f"sentinel2 {place}", tuple(pictures), tuple(labels), 10.0)


def _by_index(
    water: NDArray[np.float32], plants: NDArray[np.float32], wet: tuple[float, float], green: tuple[float, float]
) -> Sets:
    """Sets of words from a water index and NDVI, each with the limits of "clearly not" and "clearly"."""
    return np.select(
        [
            (water >= wet[1]) & (plants < green[0]),
            (water <= wet[0]) & (plants >= green[1]),
            (water <= wet[0]) & (plants <= green[0]),
            water <= wet[0],
        ],
        [
            np.uint8(WATER),
            np.uint8(VEGETATION),
            np.uint8(UNKNOWN & ~WATER & ~VEGETATION),
            np.uint8(UNKNOWN & ~WATER),
        ],
        np.uint8(UNKNOWN),
    ).astype(np.uint8)


def dakota(data: Path, *, held_out: bool = False) -> Iterator[Place]:
    """Eight dates on one grid; each finds the limits of its indices from the columns that are asked for."""
    paths = {
        int(path.stem): path
        for name in ("naip-dakota", "naip-dakota-more-dates")
        for path in folder_of(data, name).glob("*.tif")
    }
    cols = slice(DAKOTA_CUT, None) if held_out else slice(0, DAKOTA_CUT)
    pictures, labels = [], []
    for bands in on_one_grid([paths[year] for year in sorted(paths)]):
        red, green, blue, nir = bands[:4, :, cols]
        found = label_spectrally(SpectralBands(red, green, nir))
        sets = np.where(found.land, np.uint8(UNKNOWN & ~WATER), np.uint8(UNKNOWN))
        sets[open_mask(found.bare, 5)] = BARE
        sets[found.vegetation] = VEGETATION
        sets[found.water] = WATER
        pictures.append(_bytes(np.stack([red, green, blue])))
        labels.append(sets)
    yield Place("dakota", tuple(pictures), tuple(labels), 5.0)


def pucallpa(data: Path, *, held_out: bool = False) -> Iterator[Place]:
    """Six dates of Landsat; nine tenths are dark forest, so tones are square roots of the stretched numbers.

    There is no blue band: the lower of red and green stands for it, as over soil, turbid water and forest alike.
    """
    if held_out:
        return
    paths = {
        int(path.stem): path
        for name in ("landsat-pucallpa", "landsat-pucallpa-more-dates")
        for path in folder_of(data, name).glob("*.tif")
    }
    pictures, labels = [], []
    for swir, nir, red, green in on_one_grid([paths[year] for year in sorted(paths)]):
        found = label_spectrally(SpectralBands(red, green, nir, swir))
        sets = np.where(found.land, np.uint8(UNKNOWN & ~WATER), np.uint8(UNKNOWN))
        sets[found.vegetation] = VEGETATION
        sets[found.water] = WATER
        missing = ~np.isfinite(red)
        sets[missing] = UNKNOWN
        red, green = stretched(np.stack([red, green]))
        pictures.append(_bytes(255 * np.sqrt(np.stack([red, green, np.minimum(red, green)]).clip(0, 1))))
        labels.append(sets)
    yield Place("pucallpa", tuple(pictures), tuple(labels), 30.0)


def on_one_grid(paths: list[Path]) -> Iterator[NDArray[np.float32]]:
    """All bands of each file on the grid of the first, resampled as by the engine; NaN where missing."""
    sources = [probe(path) for path in paths]
    height, width = sources[0].grid.shape
    for source in sources:
        every = source.with_bands(tuple(range(1, source.count + 1)))
        with RasterReader(every) as reader:
            placement = PlacedSource.of(every, sources[0].grid).placement
            yield read_placed(reader, placement, Window(0, 0, height, width))


def stretched(bands: NDArray[np.float32]) -> NDArray[np.float32]:
    """``(C, H, W)``, each band 0..1 from its 1st to its 99th percentile: as the engine shows what is not 8-bit RGB."""
    known = bands.reshape(len(bands), -1).T
    known = known[np.isfinite(known).all(axis=1)]
    return Stretch.of_samples(known, display=False).apply(bands)


def _bytes(bands: NDArray[np.floating]) -> Rgb:
    return np.ascontiguousarray(np.moveaxis(np.rint(np.nan_to_num(bands)).clip(0, 255).astype(np.uint8), 0, -1))


# ------------------------------------------------------------------------------------------------------- rendered ones


def synthetic(_: Path, *, held_out: bool = False, scenes: int = 80) -> Iterator[Place]:
    """Invented villages with exact labels."""
    first = 90_000_000 if held_out else 0
    for number in range(min(scenes, 8) if held_out else scenes):
        gsd = float(np.exp(np.random.default_rng([7, number]).uniform(math.log(0.3), math.log(0.8))))
        scene = render_scene(
            first + number, height=512, width=512, gsd_m=gsd, change_share=0.12, identical=number % 8 == 7
        )
        labels = []
        for codes in (scene.before_classes, scene.after_classes):
            known = (codes >= 1) & (codes <= 5)
            labels.append(np.where(known, 1 << (np.clip(codes, 1, 5) - 1), UNKNOWN).astype(np.uint8))
        yield Place(f"synthetic {number}", (scene.before, scene.after), tuple(labels), gsd)


READERS: dict[str, Callable[..., Iterator[Place]]] = {
    "dubai": dubai,
    "yinx": yinx,
    "yinx-coarse": yinx,
    "rio": rio,
    "banepa": banepa,
    "chesapeake": chesapeake,
    "california": california,
    "sentinel2": sentinel2,
    "dakota": dakota,
    "pucallpa": pucallpa,
    "synthetic": synthetic,
}


def places(
    data: Path, without: tuple[str, ...] = (), *, held_out: bool = False, share: float = 1.0
) -> dict[str, list[Place]]:
    """All sources but some, by name.

    Args:
        data: where the folders lie.
        without: sources to leave out; ``band``: labels of Dubai up to the outlines of buildings.
        held_out: the places that training never sees, instead of the others.
        share: of the places of each source, the first of them; to rehearse.
    """
    found: dict[str, list[Place]] = {}
    for name in SOURCES:
        if name in without or name.split("-")[0] in without:
            continue
        if name == "yinx-coarse":
            found[name] = found["yinx"]
            continue
        options = {"band_px": 0} if name == "dubai" and "band" in without else {}
        if name == "synthetic":
            options = {"scenes": math.ceil(80 * share)}
        some = list(READERS[name](data, held_out=held_out, **options))
        if some:
            found[name] = some if name == "synthetic" else some[: math.ceil(len(some) * share)]
    return found
