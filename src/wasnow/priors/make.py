"""A pair of rasters, or a dataset, and words -> a prior folder.

    before.tif ─ windows ─┐                                 ┌─ before.tif   (COG, one band per word)
    after.tif  ─ windows ─┼─ CachedMasker ─ tiles ──────────┼─ after.tif
    dataset    ─ pictures ┘  or MaskFiles                   └─ train/NAME.tif, ...      priors.json comes last

What was found lies in the cache from the moment it is found: the same command goes on where it was interrupted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

import wasnow
from wasnow.data.dataset import Dataset
from wasnow.data.images import header, read_picture, reading
from wasnow.data.samples import Entry
from wasnow.errors import InputError, Interrupted, OutputError, VocabularyError
from wasnow.priors.cache import CachedMasker, PriorCache
from wasnow.priors.files import MaskFiles
from wasnow.priors.regions import Mask, Masker, window_slices
from wasnow.priors.rgb_raster import RgbRaster
from wasnow.priors.store import (
    DATES,
    MANIFEST,
    DateRecord,
    Manifest,
    WordRecord,
    pair_digest,
    write_pair_masks,
)
from wasnow.priors.tiles import MARGIN, TILE, MaskCounts, find_tiled
from wasnow.raster.gdal import gdal_settings
from wasnow.raster.grid import Grid
from wasnow.raster.tiles import Window
from wasnow.raster.write import BLOCK, raster_output_errors, to_cog
from wasnow.storage.atomic import atomic_path
from wasnow.storage.hashing import file_sha256
from wasnow.vocabulary import Vocabulary

Progress = Callable[[str, int, int], None]
_BEGUN = ".priors.part"
_STEP = 1024
"""Side of the windows in which masks from files, and counts, are gone through."""


@dataclass(frozen=True)
class PriorResult:
    """What came of it.

    Attributes:
        manifest: as written.
        asked: words of tiles that a network was asked about.
        reused: words of tiles that the cache knew.
        damaged: entries of the cache that were found anew.
        megapixels: looked at, all pictures together.
        seconds: it took.
    """

    folder: Path
    manifest: Manifest
    asked: int
    reused: int
    damaged: int
    megapixels: float
    seconds: float


@dataclass(frozen=True)
class PriorRequest:
    """Where masks come from, and how large pictures are cut.

    Attributes:
        words: asked for.
        masks: a masker, or files.
        cache: of a masker's answers; None keeps none.
        tile: side in pixels.
        margin: see `wasnow.priors.tiles`.
    """

    words: tuple[str, ...]
    masks: Masker | MaskFiles
    cache: PriorCache | None = None
    tile: int = TILE
    margin: int = MARGIN

    def __post_init__(self) -> None:
        if not Vocabulary(self.words).words:
            raise VocabularyError("no class word is given; name those that masks are wanted of: --classes building")


def make_pair(
    before: str | os.PathLike[str],
    after: str | os.PathLike[str],
    output: Path,
    way: PriorRequest,
    *,
    bands: tuple[int, ...] | None = None,
    stretch: str = "auto",
    assume_crs: str | None = None,
    allow_indirect: bool = False,
    progress: Progress = lambda phase, done, total: None,
) -> PriorResult:
    """Masks of two rasters, each on its own grid.

    Args:
        before: any raster.
        after: likewise.
        output: the prior folder; made, or made anew.
        way: see `PriorRequest`.
        bands: see `RgbRaster`.
        stretch: likewise.
        assume_crs: likewise.
        allow_indirect: likewise.
        progress: called with a phase, what is done, and what there is in all.

    Raises:
        InputError: a raster or a file of masks cannot be used.
        OutputError: the folder holds something else, or cannot be written.
        Interrupted: by Ctrl-C; what was found is in the cache.
    """
    began = time.monotonic()
    pictures = [
        RgbRaster.of(path, bands, stretch, assume_crs=assume_crs, allow_indirect=allow_indirect)
        for path in (before, after)
    ]
    with _claimed(output), _interruptible():
        masker = _cached(way)
        covered, dates, pixels = {}, {}, 0
        for index, (date, picture) in enumerate(zip(DATES, pictures, strict=True)):
            grid = picture.source.grid
            covered[date] = _write_raster(output / f"{date}.tif", picture, way, masker, index, progress)
            main = Path(picture.source.files[0])
            dates[date] = DateRecord(
                path=os.fspath((before, after)[index]), sha256=file_sha256(main) if main.is_file() else None
            )
            pixels += grid.width * grid.height
        manifest = _manifest(way, masker, "pair", covered, dates=dates)
        manifest.write(output)
    return _made(output, manifest, masker, pixels, began)


def make_dataset(
    dataset: Dataset, output: Path, way: PriorRequest, *, progress: Progress = lambda phase, done, total: None
) -> PriorResult:
    """Masks of all pairs of a dataset; see `make_pair`.

    Raises:
        InputError: a picture or a file of masks cannot be used.
        OutputError: the folder holds something else, or cannot be written.
        Interrupted: by Ctrl-C; what was found is in the cache.
    """
    began = time.monotonic()
    jobs = [(split, entry) for split, samples in dataset.splits.items() for entry in samples.entries]
    if isinstance(way.masks, MaskFiles):
        # All that is missing shows before the first is read.
        for split, entry in jobs:
            for date in (0, 1):
                way.masks.file_of(date, split, _names(entry, date))
    counts = [np.zeros((2, len(way.words)), np.int64) for _ in DATES]
    digests: dict[str, dict[str, str]] = {split: {} for split in dataset.splits}
    pixels, seen = 0, [0, 0]
    with _claimed(output), _interruptible():
        masker = _cached(way)
        progress("finding masks", 0, len(jobs))
        for done, (split, entry) in enumerate(jobs, 1):
            with reading():
                shown = [
                    read_picture(path, dataset.coding.rendering, entry.window) for path in (entry.before, entry.after)
                ]
            if shown[0][0].shape != shown[1][0].shape:
                raise InputError(
                    f"{entry.before} and {entry.after} differ in size; run wasnow data check for all such faults"
                )
            found = np.zeros((2, len(way.words), *shown[0][0].shape[:2]), np.uint8)
            for index, (rgb, told) in enumerate(shown):
                valid = np.ones(rgb.shape[:2], np.bool_) if told is None else told
                tally = _of_array(found[index], rgb, valid, way, masker, split, entry, index)
                seen[index] += tally.seen
                counts[index] += np.stack([found[index].sum(axis=(1, 2), dtype=np.int64), np.array(tally.objects)])
                pixels += valid.size
            write_pair_masks(output / split / f"{entry.name}.tif", way.words, found)
            digests[split][entry.name] = pair_digest(shown[0][0], shown[1][0])
            progress("finding masks", done, len(jobs))
        covered = {
            str(date): _covered(way, pixels_of, seen_of, objects if masker else None)
            for date, (pixels_of, objects), seen_of in zip(DATES, counts, seen, strict=True)
        }
        manifest = _manifest(way, masker, "dataset", covered, pictures=digests)
        manifest.write(output)
    return _made(output, manifest, masker, pixels, began)


# --- rasters -----------------------------------------------------------------------------------------------------


def _write_raster(
    path: Path, picture: RgbRaster, way: PriorRequest, masker: CachedMasker | None, date: int, progress: Progress
) -> dict[str, WordRecord]:
    grid = picture.source.grid
    plain = path.with_name(f".{path.name}.{os.getpid()}.plain.part")
    profile = {
        "driver": "GTiff",
        "width": grid.width,
        "height": grid.height,
        "count": len(way.words),
        "dtype": "uint8",
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "interleave": "band",
        "BIGTIFF": "IF_SAFER",
        # Blocks in which nothing is found take no room.
        "SPARSE_OK": True,
    }
    if grid.georeferenced:
        profile |= {"crs": grid.crs, "transform": grid.transform}

    def tell(done: int, total: int) -> None:
        progress(f"finding masks {DATES[date]}", done, total)

    try:
        with gdal_settings(), raster_output_errors(path):
            with rasterio.open(plain, "w+", **profile) as raster:
                for band, word in enumerate(way.words, 1):
                    raster.set_band_description(band, word)

                def write(window: Window, masks: Mask) -> None:
                    at = RasterioWindow(window.col, window.row, window.width, window.height)
                    raster.write(raster.read(window=at) | masks, window=at)

                if masker is None:
                    assert isinstance(way.masks, MaskFiles)
                    tally = _from_files(way.masks, way.masks.sources[date], grid, write, tell)
                else:
                    with picture.open() as read:
                        tally = find_tiled(
                            masker,
                            read,
                            write,
                            grid.shape,
                            way.words,
                            tile=way.tile,
                            margin=way.margin,
                            progress=tell,
                        )
                pixels = np.zeros(len(way.words), np.int64)
                for window in _windows(grid.shape):
                    at = RasterioWindow(window.col, window.row, window.width, window.height)
                    pixels += raster.read(window=at).sum(axis=(1, 2), dtype=np.int64)
            with atomic_path(path, shared=True) as temporary:
                to_cog(plain, temporary, overviews="nearest", predictor=False)
    finally:
        plain.unlink(missing_ok=True)
    return _covered(way, pixels, tally.seen, tally.objects if masker else None)


def _from_files(
    files: MaskFiles, path: Path, grid: Grid, write: Callable[[Window, Mask], None], tell: Callable[[int, int], None]
) -> MaskCounts:
    windows = list(_windows(grid.shape))
    for done, window in enumerate(windows):
        tell(done, len(windows))
        masks = files.on(path, grid, window)
        if masks.any():
            write(window, masks)
    tell(len(windows), len(windows))
    return MaskCounts((0,) * len(files.words), grid.height * grid.width)


def _windows(shape: tuple[int, int]) -> Iterator[Window]:
    for row in range(0, shape[0], _STEP):
        for col in range(0, shape[1], _STEP):
            yield Window(row, col, min(_STEP, shape[0] - row), min(_STEP, shape[1] - col))


# --- pictures of a dataset ---------------------------------------------------------------------------------------


def _of_array(
    out: NDArray[np.uint8],
    rgb: NDArray[np.uint8],
    valid: Mask,
    way: PriorRequest,
    masker: CachedMasker | None,
    split: str,
    entry: Entry,
    date: int,
) -> MaskCounts:
    """Masks of one picture in memory into ``out``, ``(W, H, Wd)``."""
    if masker is None:
        assert isinstance(way.masks, MaskFiles)
        path = (entry.before, entry.after)[date]
        with reading():
            head = header(path)
            placed = head.georeferenced
            grid = Grid(head.crs if placed else None, head.transform, head.width, head.height)
            window = entry.window or Window(0, 0, head.height, head.width)
            out[:] = way.masks.on(way.masks.file_of(date, split, _names(entry, date)), grid, window) & valid
        return MaskCounts((0,) * len(way.words), int(valid.sum()))

    def read(window: Window) -> tuple[NDArray[np.uint8], Mask]:
        at = window_slices(window)
        return np.ascontiguousarray(rgb[at]), valid[at]

    def write(window: Window, masks: Mask) -> None:
        out[(slice(None), *window_slices(window))] |= masks

    shape = (rgb.shape[0], rgb.shape[1])
    return find_tiled(masker, read, write, shape, way.words, tile=way.tile, margin=way.margin)


def _names(entry: Entry, date: int) -> list[str]:
    """What a file of masks for a picture may be called."""
    picture = (entry.before, entry.after)[date]
    return list(dict.fromkeys((picture.stem, entry.name, Path(entry.name).name)))


# --- the folder --------------------------------------------------------------------------------------------------


def _cached(way: PriorRequest) -> CachedMasker | None:
    if isinstance(way.masks, MaskFiles):
        return None
    return CachedMasker(way.masks, way.cache)


def _covered(
    way: PriorRequest,
    pixels: Sequence[int] | NDArray[np.int64],
    seen: int,
    objects: Sequence[int] | NDArray[np.int64] | None,
) -> dict[str, WordRecord]:
    return {
        word: WordRecord(
            share=int(pixels[i]) / seen if seen else 0.0, objects=None if objects is None else int(objects[i])
        )
        for i, word in enumerate(way.words)
    }


def _manifest(
    way: PriorRequest,
    masker: CachedMasker | None,
    kind: str,
    covered: Mapping[str, Mapping[str, WordRecord]],
    **more: object,
) -> Manifest:
    return Manifest.model_validate(
        {
            "wasnow": wasnow.__version__,
            "kind": kind,
            "words": way.words,
            "masker": dict(way.masks.key),
            "tile": way.tile if masker else None,
            "margin": way.margin if masker else None,
            "covered": covered,
            **more,
        }
    )


def _made(output: Path, manifest: Manifest, masker: CachedMasker | None, pixels: int, began: float) -> PriorResult:
    return PriorResult(
        output,
        manifest,
        masker.asked if masker else 0,
        masker.reused if masker else 0,
        masker.cache.damaged if masker and masker.cache else 0,
        pixels / 1e6,
        time.monotonic() - began,
    )


@contextmanager
def _claimed(output: Path) -> Iterator[None]:
    """Make the folder, or take one of ours; while it is at work, no old `MANIFEST` speaks of new masks.

    Raises:
        OutputError: it holds something else, which would be overwritten.
    """
    begun = output / _BEGUN
    try:
        if output.exists() and not output.is_dir():
            raise OutputError(f"{output} is a file; choose a folder for the priors")
        if output.is_dir() and any(output.iterdir()) and not (begun.exists() or (output / MANIFEST).exists()):
            raise OutputError(f"{output} is not empty and holds no priors; choose another folder")
        output.mkdir(parents=True, exist_ok=True)
        begun.touch()
        (output / MANIFEST).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{output} cannot be written ({error.strerror}); choose another output folder") from None
    yield
    begun.unlink(missing_ok=True)


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("interrupted; run the same command again to go on, what was found is kept") from None
