"""Tiny generated datasets in every layout and encoding."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from making import textured, write_raster
from wasnow.data.encodings import ENCODINGS, LabelEncoding
from wasnow.vocabulary import SECOND_WORDS

SIDE = 24
Rgb = NDArray[np.uint8]


@dataclass(frozen=True)
class Truth:
    """The expected content of one pair: images, and codes of both dates (0 unchanged, 1..K)."""

    name: str
    before: Rgb
    after: Rgb
    first: NDArray[np.uint8]
    second: NDArray[np.uint8]

    @property
    def change(self) -> NDArray[np.uint8]:
        return (self.first != 0).astype(np.uint8)


def truths(names: Sequence[str], classes: int = len(SECOND_WORDS), side: int = SIDE, seed: int = 0) -> list[Truth]:
    """Return pairs in which blocks changed, from any class to any other."""
    rng = np.random.default_rng(seed)
    made = []
    for number, name in enumerate(names):
        changed = rng.random((side // 4, side // 4)) < 0.4
        changed[0, :3] = True
        first = rng.integers(1, classes + 1, changed.shape)
        second = (first + rng.integers(0, classes - 1, changed.shape)) % classes + 1
        # Every class occurs at the first date of the first pairs.
        first[0, :3] = (3 * number + np.arange(3)) % classes + 1
        second[0, :3] = first[0, :3] % classes + 1
        first, second = (
            (np.where(changed, codes, 0)).astype(np.uint8).repeat(4, 0).repeat(4, 1) for codes in (first, second)
        )
        before, after = (
            np.moveaxis(textured(seed + 7 * number + date, side, side), 0, -1).astype(np.uint8) for date in (0, 1)
        )
        made.append(Truth(name, before, after, first, second))
    return made


def encoded(codes: NDArray[np.uint8], encoding: LabelEncoding) -> NDArray[np.uint8]:
    """Return class codes as file values of an encoding; the first value of a code is used."""
    raws = {}
    for raw, code in encoding.codes.items():
        raws.setdefault(code, raw)
    out = np.zeros((*codes.shape, 3) if encoding.of_colors else codes.shape, np.uint8)
    for code in np.unique(codes).tolist():
        out[codes == code] = raws[code]
    return out


def save(path: Path, values: NDArray[Any], **options: Any) -> Path:
    """Write ``(H, W)`` or ``(H, W, 3)`` in the format of the suffix, without georeference."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0)
    driver = {".png": "PNG", ".jpg": "JPEG", ".tif": "GTiff", ".bmp": "BMP"}[path.suffix]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return write_raster(path, np.ascontiguousarray(bands), crs=None, transform=None, driver=driver, **options)


def second(
    root: Path,
    encoding: str = "second-e1",
    *,
    folders: Sequence[str] = ("im1", "im2", "label1", "label2"),
    splits: Sequence[str] = ("train", "test"),
    count: int = 4,
    classes: int = len(SECOND_WORDS),
    suffix: str = ".png",
    side: int = SIDE,
) -> dict[str, list[Truth]]:
    """Write splits of pairs with class labels of both dates."""
    made = {}
    for number, split in enumerate(splits):
        names = [f"{number}{index:04d}" for index in range(count)]
        made[split] = truths(names, classes, side, seed=number)
        for truth in made[split]:
            labels = [encoded(codes, ENCODINGS[encoding]) for codes in (truth.first, truth.second)]
            for folder, values in zip(folders, (truth.before, truth.after, *labels), strict=True):
                save(root / split / folder / f"{truth.name}{suffix}", values)
    return made


def binary(
    root: Path,
    *,
    folders: Sequence[str] = ("A", "B", "label"),
    names: Sequence[str] = ("one", "two", "three"),
    on: int = 255,
    suffix: str = ".png",
    label_suffix: str = ".png",
    seed: int = 0,
) -> list[Truth]:
    """Write pairs with a change mask."""
    made = truths(names, seed=seed)
    for truth in made:
        save(root / folders[0] / f"{truth.name}{suffix}", truth.before)
        save(root / folders[1] / f"{truth.name}{suffix}", truth.after)
        save(root / folders[2] / f"{truth.name}{label_suffix}", truth.change * np.uint8(on))
    return made


def masks(root: Path, groups: Sequence[str] = ("north", "south"), each: int = 2, side: int = 64) -> None:
    """Write images of one date whose colour shows the class, with masks in the colours of dubai-landcover."""
    encoding = ENCODINGS["dubai-landcover"]
    rng = np.random.default_rng(5)
    for group in groups:
        for number in range(each):
            codes = rng.integers(1, 5, (side // 8, side // 8)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
            save(root / group / "images" / f"part_{number}.png", PURE[codes])
            save(root / group / "masks" / f"part_{number}.png", encoded(codes, encoding))


PURE = np.array([[0, 0, 0], [240, 240, 240], [240, 20, 20], [20, 240, 20], [20, 20, 240]], np.uint8)
"""Colours of classes 1 to 4, corners of a tetrahedron: a mixture of two is nearest to its larger component."""


def nearest_pure(picture: Rgb) -> NDArray[np.uint8]:
    """Return the class whose colour is nearest to each pixel."""
    apart = ((picture[..., None, :].astype(np.int64) - PURE[1:].astype(np.int64)) ** 2).sum(-1)
    return (apart.argmin(-1) + 1).astype(np.uint8)


def truncate(path: Path, keep: float = 0.5) -> None:
    """Truncate a file to a share of its size."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


def paletted(path: Path, index: NDArray[np.uint8], colors: dict[int, tuple[int, int, int]]) -> Path:
    """Write a PNG of indices with a palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="PNG", count=1, height=index.shape[0], width=index.shape[1], dtype="uint8"
    ) as raster:
        raster.write(index, 1)
        raster.write_colormap(1, {value: (*color, 255) for value, color in colors.items()})
    return path
