"""Make a prior folder: a pair of rasters, or a dataset, and class words -> masks.

    before.tif ─ windows ─┐                                 ┌─ before.tif   (COG, one band per word)
    after.tif  ─ windows ─┼─ CachedMasker ─ tiles ──────────┼─ after.tif
    dataset    ─ images ──┘  or MaskFiles                   └─ train/NAME.tif, ...      priors.json is written last

Results are cached as soon as they are found, so that an interrupted command continues when it is repeated.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import wasnow
from wasnow.data.dataset import Dataset
from wasnow.data.images import header, read_picture, reading
from wasnow.data.samples import Entry
from wasnow.errors import InputError, Interrupted, OutputError, VocabularyError, redacted
from wasnow.priors.cache import CachedMasker, PriorCache
from wasnow.priors.files import MaskFiles
from wasnow.priors.manifest import DATES, MANIFEST, DateRecord, Manifest, WordRecord
from wasnow.priors.raster_masks import write_raster_masks
from wasnow.priors.regions import Mask, Masker, window_slices
from wasnow.priors.rgb_raster import RgbRaster
from wasnow.priors.store import pair_digest, write_pair_masks
from wasnow.priors.tiles import MARGIN, TILE, MaskCounts, find_tiled
from wasnow.raster.grid import Grid
from wasnow.raster.tiles import Window
from wasnow.storage.hashing import file_sha256
from wasnow.storage.ownership import check_claim
from wasnow.vocabulary import Vocabulary

Progress = Callable[[str, int, int], None]
_STARTED = ".priors.part"


@dataclass(frozen=True)
class PriorResult:
    """The result of making a prior folder.

    Attributes:
        folder: the prior folder.
        manifest: as written.
        asked: words of tiles that were given to a network.
        reused: words of tiles that were in the cache.
        damaged: damaged entries of the cache that were replaced.
        megapixels: processed, all images together.
        seconds: run time.
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
    """Which masks to make, and how.

    Attributes:
        words: class words.
        masks: a masker, or mask files.
        cache: of the masker's results; None for no cache.
        tile: side of the tiles of a masker, pixels.
        margin: overlap of the tiles to each side, pixels.

    Raises:
        VocabularyError: words are missing or invalid.
    """

    words: tuple[str, ...]
    masks: Masker | MaskFiles
    cache: PriorCache | None = None
    tile: int = TILE
    margin: int = MARGIN

    def __post_init__(self) -> None:
        if not Vocabulary(self.words).words:
            raise VocabularyError("no class words are given. Name those to find, such as --classes building")


def make_pair(
    before: str | os.PathLike[str],
    after: str | os.PathLike[str],
    output: Path,
    request: PriorRequest,
    *,
    bands: tuple[int, ...] | None = None,
    stretch: str = "auto",
    assume_crs: str | None = None,
    allow_indirect: bool = False,
    progress: Progress = lambda phase, done, total: None,
) -> PriorResult:
    """Make the masks of two rasters, each on its own grid.

    Args:
        before: any raster.
        after: any raster.
        output: the prior folder; created if missing, replaced if it is one.
        request: which masks to make.
        bands: see `RgbRaster.of`.
        stretch: see `RgbRaster.of`.
        assume_crs: see `RgbRaster.of`.
        allow_indirect: see `RgbRaster.of`.
        progress: called with a phase, steps done, and their number.

    Raises:
        InputError: a raster or a mask file cannot be used.
        OutputError: the folder holds other files, or cannot be written.
        Interrupted: by Ctrl-C; results so far are in the cache.
    """
    start = time.monotonic()
    rasters = [
        RgbRaster.of(path, bands, stretch, assume_crs=assume_crs, allow_indirect=allow_indirect)
        for path in (before, after)
    ]
    names = (MANIFEST, *(f"{date}.tif" for date in DATES))
    check_claim(output, names, proven=names, inputs=[before, after])
    with _claimed(output), _interruptible():
        masker = _cached_masker(request)
        covered, dates, pixels = {}, {}, 0
        for index, (date, raster) in enumerate(zip(DATES, rasters, strict=True)):
            phase = f"finding masks {date}"
            masks = masker or (_files(request), _files(request).sources[index])
            mask_pixels, counts = write_raster_masks(
                output / f"{date}.tif",
                raster,
                request.words,
                masks,
                tile=request.tile,
                margin=request.margin,
                progress=lambda done, total, phase=phase: progress(phase, done, total),  # type: ignore[misc]
            )
            covered[date] = _coverage(request, mask_pixels, counts.valid_pixels, counts.objects if masker else None)
            main = Path(raster.source.files[0])
            dates[date] = DateRecord(
                path=redacted(os.fspath((before, after)[index])), sha256=file_sha256(main) if main.is_file() else None
            )
            pixels += raster.source.grid.width * raster.source.grid.height
        manifest = _manifest(request, masker, "pair", covered, dates=dates)
        manifest.write(output)
    return _result(output, manifest, masker, pixels, start)


def make_dataset(
    dataset: Dataset, output: Path, request: PriorRequest, *, progress: Progress = lambda phase, done, total: None
) -> PriorResult:
    """Make the masks of all pairs of a dataset.

    Args:
        dataset: opened.
        output: the prior folder; created if missing, replaced if it is one.
        request: which masks to make.
        progress: called with a phase, pairs done, and their number.

    Raises:
        InputError: an image or a mask file cannot be used.
        OutputError: the folder holds other files, or cannot be written.
        Interrupted: by Ctrl-C; results so far are in the cache.
    """
    start = time.monotonic()
    jobs = [(split, entry) for split, samples in dataset.splits.items() for entry in samples.entries]
    if isinstance(request.masks, MaskFiles):
        # Report missing files before any work.
        for split, entry in jobs:
            for date in (0, 1):
                request.masks.file_of(date, split, _mask_names(entry, date))
    counts = [np.zeros((2, len(request.words)), np.int64) for _ in DATES]
    digests: dict[str, dict[str, str]] = {split: {} for split in dataset.splits}
    pixels, valid_pixels = 0, [0, 0]
    with _claimed(output), _interruptible():
        masker = _cached_masker(request)
        progress("finding masks", 0, len(jobs))
        for done, (split, entry) in enumerate(jobs, 1):
            with reading():
                rendering = dataset.coding.rendering
                images = [
                    read_picture(entry.before, rendering, entry.window),
                    read_picture(entry.after, rendering.of_after, entry.window),
                ]
            if images[0][0].shape != images[1][0].shape:
                raise InputError(
                    f"{entry.before} and {entry.after} differ in size. Run wasnow data check for all such faults"
                )
            found = np.zeros((2, len(request.words), *images[0][0].shape[:2]), np.uint8)
            for index, (rgb, mask) in enumerate(images):
                valid = np.ones(rgb.shape[:2], np.bool_) if mask is None else mask
                one = _masks_of_image(found[index], rgb, valid, request, masker, (split, entry, index))
                valid_pixels[index] += one.valid_pixels
                counts[index] += np.stack([found[index].sum(axis=(1, 2), dtype=np.int64), np.array(one.objects)])
                pixels += valid.size
            write_pair_masks(output / split / f"{entry.name}.tif", request.words, found)
            digests[split][entry.name] = pair_digest(images[0][0], images[1][0])
            progress("finding masks", done, len(jobs))
        covered = {
            str(date): _coverage(request, mask_pixels, valid, objects if masker else None)
            for date, (mask_pixels, objects), valid in zip(DATES, counts, valid_pixels, strict=True)
        }
        manifest = _manifest(request, masker, "dataset", covered, pictures=digests)
        manifest.write(output)
    return _result(output, manifest, masker, pixels, start)


def _masks_of_image(
    out: NDArray[np.uint8],
    rgb: NDArray[np.uint8],
    valid: Mask,
    request: PriorRequest,
    masker: CachedMasker | None,
    place: tuple[str, Entry, int],
) -> MaskCounts:
    """Write the masks of one image in memory to ``out``, ``(W, H, Wd)``. ``place`` is its split, pair and date."""
    split, entry, date = place
    if masker is None:
        files, path = _files(request), (entry.before, entry.after)[date]
        with reading():
            head = header(path)
            placed = head.georeferenced
            grid = Grid(head.crs if placed else None, head.transform, head.width, head.height)
            window = entry.window or Window(0, 0, head.height, head.width)
            out[:] = files.on(files.file_of(date, split, _mask_names(entry, date)), grid, window) & valid
        return MaskCounts((0,) * len(request.words), int(valid.sum()))

    def read(window: Window) -> tuple[NDArray[np.uint8], Mask]:
        at = window_slices(window)
        return np.ascontiguousarray(rgb[at]), valid[at]

    def write(window: Window, masks: Mask) -> None:
        out[(slice(None), *window_slices(window))] |= masks

    shape = (rgb.shape[0], rgb.shape[1])
    return find_tiled(masker, read, write, shape, request.words, tile=request.tile, margin=request.margin)


def _mask_names(entry: Entry, date: int) -> list[str]:
    """Possible names of the mask file of an image."""
    image = (entry.before, entry.after)[date]
    return list(dict.fromkeys((image.stem, entry.name, Path(entry.name).name)))


def _files(request: PriorRequest) -> MaskFiles:
    assert isinstance(request.masks, MaskFiles)
    return request.masks


def _cached_masker(request: PriorRequest) -> CachedMasker | None:
    return None if isinstance(request.masks, MaskFiles) else CachedMasker(request.masks, request.cache)


def _coverage(
    request: PriorRequest,
    mask_pixels: Sequence[int] | NDArray[np.int64],
    valid_pixels: int,
    objects: Sequence[int] | NDArray[np.int64] | None,
) -> dict[str, WordRecord]:
    return {
        word: WordRecord(
            share=int(mask_pixels[i]) / valid_pixels if valid_pixels else 0.0,
            objects=None if objects is None else int(objects[i]),
        )
        for i, word in enumerate(request.words)
    }


def _manifest(
    request: PriorRequest,
    masker: CachedMasker | None,
    kind: str,
    covered: Mapping[str, Mapping[str, WordRecord]],
    **more: object,
) -> Manifest:
    return Manifest.model_validate(
        {
            "wasnow": wasnow.__version__,
            "kind": kind,
            "words": request.words,
            "masker": dict(request.masks.key),
            "tile": request.tile if masker else None,
            "margin": request.margin if masker else None,
            "covered": covered,
            **more,
        }
    )


def _result(output: Path, manifest: Manifest, masker: CachedMasker | None, pixels: int, start: float) -> PriorResult:
    return PriorResult(
        output,
        manifest,
        masker.asked if masker else 0,
        masker.reused if masker else 0,
        masker.cache.damaged if masker and masker.cache else 0,
        pixels / 1e6,
        time.monotonic() - start,
    )


@contextmanager
def _claimed(output: Path) -> Iterator[None]:
    """Create the folder, or take a prior folder over. Its old `MANIFEST` is removed while new masks are written.

    Raises:
        OutputError: it holds other files.
    """
    started = output / _STARTED
    try:
        if output.exists() and not output.is_dir():
            raise OutputError(f"{output} is a file. Choose a folder for the priors")
        if output.is_dir() and any(output.iterdir()) and not (started.exists() or (output / MANIFEST).exists()):
            raise OutputError(f"{output} is not empty and is not a prior folder. Choose another folder")
        output.mkdir(parents=True, exist_ok=True)
        started.touch()
        (output / MANIFEST).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{output} cannot be written ({error.strerror}). Choose another output folder") from None
    yield
    started.unlink(missing_ok=True)


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("interrupted. Run the same command again to continue; results so far are cached") from None
