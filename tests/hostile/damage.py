"""Damage files of every codec and classify the outcome.

    python tests/hostile/damage.py --flips 2000 --seed 1

prints the table of docs/reliability.md. Outcomes:

    noticed     rejected, or an error that names the file and the position
    harmless    pixels, validity and georeference are unchanged
    wrong       other pixels or another georeference without an error: only a checksum detects it
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from wasnow.errors import RasterUnreadable
from wasnow.raster.gdal import gdal_settings, open_raster
from wasnow.raster.reader import RasterReader
from wasnow.raster.source import probe
from wasnow.raster.tiles import Window

SIDE = 192
TILES = {"tiled": True, "blockxsize": 64, "blockysize": 64}
STRIPS = {"tiled": False, "blockysize": 16}


@dataclass(frozen=True)
class Form:
    """A storage form of pixels.

    Attributes:
        notices: whether every flipped bit in the pixel data was noticed or harmless when measured.
        sidecar: suffix of a header file; None without one.
    """

    suffix: str
    profile: dict[str, Any]
    notices: bool = False
    sidecar: str | None = None


def _tiff(**profile: Any) -> dict[str, Any]:
    return {"driver": "GTiff", "interleave": "pixel", **profile}


FORMS: dict[str, Form] = {
    "raw, tiled": Form("tif", _tiff(**TILES)),
    "raw, striped": Form("tif", _tiff(**STRIPS)),
    "deflate, tiled": Form("tif", _tiff(compress="deflate", **TILES)),
    "deflate, striped": Form("tif", _tiff(compress="deflate", predictor=2, **STRIPS)),
    "zstd, tiled": Form("tif", _tiff(compress="zstd", **TILES)),
    "zstd, striped": Form("tif", _tiff(compress="zstd", predictor=2, **STRIPS)),
    "LZW, tiled": Form("tif", _tiff(compress="lzw", **TILES)),
    "LZW, striped": Form("tif", _tiff(compress="lzw", **STRIPS)),
    "JPEG, tiled": Form("tif", _tiff(compress="jpeg", photometric="ycbcr", **TILES)),
    "JPEG, striped": Form("tif", _tiff(compress="jpeg", photometric="ycbcr", **STRIPS)),
    "WebP, tiled": Form("tif", _tiff(compress="webp", webp_lossless=True, **TILES)),
    "WebP, striped": Form("tif", _tiff(compress="webp", webp_lossless=True, **STRIPS)),
    "LERC, tiled": Form("tif", _tiff(compress="lerc", **TILES), notices=True),
    "LERC, striped": Form("tif", _tiff(compress="lerc_zstd", **STRIPS), notices=True),
    "COG, zstd": Form("tif", {"driver": "COG", "compress": "zstd", "blocksize": 128}),
    "COG, deflate": Form("tif", {"driver": "COG", "compress": "deflate", "blocksize": 128}),
    "PNG": Form("png", {"driver": "PNG"}, notices=True),
    "JPEG file": Form("jpg", {"driver": "JPEG"}),
    "WebP file": Form("webp", {"driver": "WEBP", "lossless": "YES"}),
    "JPEG 2000": Form("jp2", {"driver": "JP2OpenJPEG", "reversible": "YES", "quality": 100}),
    "ENVI": Form("img", {"driver": "ENVI"}, sidecar="hdr"),
}


def picture(seed: int = 0, side: int = SIDE) -> np.ndarray[Any, Any]:
    """Return 3 bands of 8 bits with waves and noise, so that no block is constant."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:side, :side]
    waves = np.stack([np.sin(rows / (9 + 3 * b)) + np.cos(cols / (7 + 2 * b)) for b in range(3)])
    return np.clip(128 + 45 * waves + rng.normal(0, 4, waves.shape), 1, 254).astype(np.uint8)


def write(folder: Path, form: Form) -> Path | None:
    """Write an undamaged file of this form; return None if this GDAL cannot write it."""
    path = folder / f"whole.{form.suffix}"
    values = picture()
    placed = {"crs": "EPSG:32632", "transform": Affine(2, 0, 500_000, 0, -2, 5_500_000)}
    try:
        with warnings.catch_warnings(), rasterio.Env(GDAL_PAM_ENABLED="NO"):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(
                path, "w", width=SIDE, height=SIDE, count=3, dtype="uint8", **placed, **form.profile
            ) as raster:
                raster.write(values)
    except RasterioError:
        return None
    return path


def read_everything(path: Path) -> tuple[Any, ...]:
    """Return georeference, pixels and validity of a file, read in windows that cross its blocks.

    Raises:
        RasterUnreadable: the damage is detected.
    """
    with warnings.catch_warnings(), gdal_settings():
        warnings.simplefilter("ignore")
        source = probe(path)
        grid = source.grid
        if grid.shape != (SIDE, SIDE):
            return (grid.shape,)
        with RasterReader(source) as reader:
            parts = [reader.read(Window(row, col, 96, 96)) for row in (0, 96) for col in (0, 96)]
    values = np.stack([values for values, _ in parts])
    return grid.crs_name, tuple(grid.transform)[:6], values.shape, values.tobytes(), np.stack([v for _, v in parts])


def same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Whether two results of `read_everything` are equal."""
    return len(one) == len(other) and one[:4] == other[:4] and (len(one) < 5 or bool((one[4] == other[4]).all()))


def pixel_bytes(path: Path) -> list[tuple[int, int]]:
    """Return byte ranges [start, stop) of the pixels of a GeoTIFF; of other formats the whole file."""
    with warnings.catch_warnings(), open_raster(str(path)) as raster:
        if raster.driver != "GTiff":
            return [(0, path.stat().st_size)]
        rows, cols = raster.block_shapes[0]
        found = []
        for row in range(-(-raster.height // rows)):
            for col in range(-(-raster.width // cols)):
                at = int(raster.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=1))
                found.append((at, at + int(raster.get_tag_item(f"BLOCK_SIZE_{col}_{row}", "TIFF", bidx=1))))
        return found


def flipped(content: bytes, ranges: list[tuple[int, int]], rng: np.random.Generator) -> bytes:
    """Return the content with one random bit inside the ranges flipped."""
    lengths = np.array([stop - start for start, stop in ranges])
    at = int(rng.integers(lengths.sum()))
    which = int(np.searchsorted(np.cumsum(lengths), at, side="right"))
    place = ranges[which][0] + at - int(lengths[:which].sum())
    broken = bytearray(content)
    broken[place] ^= 1 << int(rng.integers(8))
    return bytes(broken)


def outcome(path: Path, whole: tuple[Any, ...]) -> str:
    """Return ``noticed``, ``harmless`` or ``wrong``; a message must name the file."""
    try:
        found = read_everything(path)
    except RasterUnreadable as error:
        return "noticed" if path.name in str(error) and "\n" not in str(error) else f"bad message: {error}"
    return "harmless" if same(found, whole) else "wrong"


def damages(path: Path, change: Callable[[bytes], Iterator[bytes]]) -> Counter[str]:
    """Count the outcomes of a file over changes of its content."""
    content, whole = path.read_bytes(), read_everything(path)
    target = path.with_name(f"damaged{path.suffix}")
    side = path.with_suffix(".hdr")
    if side.exists():
        target.with_suffix(".hdr").write_bytes(side.read_bytes())
    found: Counter[str] = Counter()
    for broken in change(content):
        target.write_bytes(broken)
        found[outcome(target, whole)] += 1
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=500, help="damaged copies of each form")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print("| stored as | noticed | harmless | wrong, unnoticed | cut short: wrong |\n|---|---|---|---|---|")
    for name, form in FORMS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = write(Path(folder), form)
            if path is None:
                print(f"| {name} | not supported by this GDAL | | | |")
                continue
            rng, ranges = np.random.default_rng(arguments.seed), pixel_bytes(path)
            flips = damages(path, lambda c, g=rng, r=ranges: (flipped(c, r, g) for _ in range(arguments.flips)))
            cuts = damages(path, lambda c: (c[: len(c) * k // 200] for k in range(1, 200)))
        shares = [f"{flips[each] / arguments.flips:.1%}" for each in ("noticed", "harmless", "wrong")]
        print(f"| {name} | {' | '.join(shares)} | {cuts['wrong']} of 199 |")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
