"""Quicklooks: result rasters of any size as small pictures for a page.

    change.tif, 20 000 px     one strip of cells at a time       <= 1200 px
    |. . . 7 . .|. . . . . .|                                   +-----+
    |. . . . . .|. . . . . .|  -> most frequent change, if any ->| 7 . |  -> paletted PNG
    |. . . 7 . 3|. . . . . .|                                   +-----+

Nearest and mode resampling would lose small changes, such as a new house in a scene of 20 km. A cell of the picture
therefore shows a change as soon as one of its pixels changed. The full raster is read once, in strips; memory holds
one strip and the picture. Pictures are encoded in memory by the PNG and JPEG drivers of GDAL.
"""

from __future__ import annotations

import base64
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile
from rasterio.windows import Window

from wasnow.errors import RasterUnreadable
from wasnow.output.layout import CONFIDENCE_MISSING, CONFIDENCE_SCALE
from wasnow.raster.gdal import open_raster

Color = tuple[int, int, int]
Rgba = tuple[int, int, int, int]

CHANGE_SIDE = 1200
"""Longest side of the change picture, in pixels."""

CONFIDENCE_SIDE = 800
"""Longest side of the confidence picture: probabilities compress badly and need less detail."""

PHOTO_BYTES = 400_000
"""Largest size of one JPEG, so that a page stays under 3 MB."""

HATCH: tuple[Rgba, Rgba] = ((128, 128, 134, 235), (176, 176, 182, 235))
"""The two greys of the diagonal stripes that mean *not processed*."""

RAMP: tuple[Color, ...] = ((8, 6, 30), (81, 18, 124), (183, 55, 121), (252, 137, 97), (252, 253, 191))
"""Colours of change probability 0..1 at equal steps, from dark to bright."""

_LEVELS = 32
_STRIP_PIXELS = 1 << 21


@dataclass(frozen=True, slots=True)
class Cells:
    """Assigns ``size`` pixels to ``count`` cells that together cover the same extent."""

    size: int
    count: int

    @property
    def of_pixel(self) -> NDArray[np.intp]:
        """The cell of each pixel, ``(size,)``, never decreasing."""
        return np.arange(self.size, dtype=np.intp) * self.count // self.size

    @property
    def starts(self) -> NDArray[np.intp]:
        """The first pixel of each cell, ``(count,)``, strictly increasing."""
        return -(-np.arange(self.count, dtype=np.intp) * self.size // self.count)


def picture_shape(height: int, width: int, side: int) -> tuple[int, int]:
    """Return ``(rows, cols)`` of a picture with the same aspect whose longest side is at most ``side``.

    Args:
        height: rows of the raster.
        width: columns of the raster.
        side: longest side of the picture.
    """
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def dominant_codes(path: Path, *, band: int, unseen: int, side: int = CHANGE_SIDE) -> NDArray[np.unsignedinteger]:
    """Reduce a raster of codes so that no change is lost.

    Args:
        path: a raster of codes; 0 means no change.
        band: 1-based.
        unseen: the code of pixels that were not processed.
        side: longest side of the result.

    Returns:
        ``(rows, cols)`` with the type of the raster. A cell holds the most frequent code of its *changed* pixels (the
        lowest of equals) if there are any, else ``unseen`` if at least half of its pixels have it, else 0.

    Raises:
        RasterUnreadable: the file is missing, damaged, or lacks the band.
    """
    with _opened(path, band) as source:
        rows, cols = (
            Cells(source.height, (shape := picture_shape(source.height, source.width, side))[0]),
            Cells(source.width, shape[1]),
        )
        out = np.zeros((rows.count, cols.count), source.dtypes[band - 1])
        column, column_starts = cols.of_pixel, cols.starts
        for first, stop, row_starts, pixels in _strips(source, band, rows):
            hidden = _sum_cells(pixels == unseen, row_starts, column_starts)
            heights = np.diff(np.append(row_starts, pixels.shape[0]))
            widths = np.diff(np.append(column_starts, pixels.shape[1]))
            strip = np.where(2 * hidden >= np.outer(heights, widths), unseen, 0).astype(out.dtype)
            at_row, at_col = np.nonzero((pixels != 0) & (pixels != unseen))
            if at_row.size:
                codes = pixels[at_row, at_col]
                present = np.flatnonzero(np.bincount(codes))
                place = np.searchsorted(row_starts, at_row, side="right") - 1
                keys = (place * cols.count + column[at_col]) * present.size + np.searchsorted(present, codes)
                votes = np.bincount(keys, minlength=strip.size * present.size).reshape(*strip.shape, present.size)
                strip = np.where(votes.any(axis=2), present[votes.argmax(axis=2)], strip).astype(out.dtype)
            out[first:stop] = strip
    return out


def common_codes(path: Path, *, band: int = 1, side: int = CHANGE_SIDE) -> NDArray[np.unsignedinteger]:
    """Reduce a raster of codes to the most frequent code of each cell, for maps in which every pixel has a class.

    Args:
        path: a raster of codes; its overviews (by mode) are used where they are fine enough.
        band: 1-based.
        side: longest side of the result.

    Raises:
        RasterUnreadable: the file is missing, damaged, or lacks the band.
    """
    with _opened(path, band) as source:
        shape = picture_shape(source.height, source.width, side)
        try:
            codes: NDArray[np.unsignedinteger] = source.read(band, out_shape=shape, resampling=Resampling.mode)
        except RasterioError as error:
            raise RasterUnreadable(path, f"cannot be read ({error})") from error
    return codes


def mean_probability(path: Path, *, band: int = 1, side: int = CONFIDENCE_SIDE) -> NDArray[np.float32]:
    """Reduce a raster of probabilities to the mean of the processed pixels of each cell, 0..1; NaN without any.

    Args:
        path: a uint8 raster: probability x 254, 255 for pixels that were not processed.
        band: 1-based.
        side: longest side of the result.

    Raises:
        RasterUnreadable: the file is missing, damaged, or lacks the band.
    """
    with _opened(path, band) as source:
        shape = picture_shape(source.height, source.width, side)
        rows, cols = Cells(source.height, shape[0]), Cells(source.width, shape[1])
        out = np.full(shape, np.nan, np.float32)
        for first, stop, row_starts, pixels in _strips(source, band, rows):
            known = pixels != CONFIDENCE_MISSING
            count = _sum_cells(known, row_starts, cols.starts)
            total = _sum_cells(np.where(known, pixels, 0), row_starts, cols.starts)
            np.divide(total, count * float(CONFIDENCE_SCALE), out=out[first:stop], where=count > 0, casting="unsafe")
    return out


def change_png(codes: NDArray[np.unsignedinteger], colors: Mapping[int, Color], *, unseen: int) -> bytes:
    """Return codes as a PNG overlay: no change is transparent, not processed is hatched.

    Args:
        codes: ``(rows, cols)`` as from `dominant_codes`.
        colors: transition code -> RGB. Other codes are transparent.
        unseen: the code of pixels that were not processed.
    """
    palette: list[Rgba] = [(0, 0, 0, 0), *HATCH]
    lookup = np.zeros(int(max(codes.max(initial=0), unseen)) + 1, np.uint8)
    entry: dict[Color, int] = {}
    for code in np.unique(codes):
        color = colors.get(int(code))
        if code in (0, unseen) or color is None:
            continue
        if color not in entry and len(palette) < 256:
            entry[color] = len(palette)
            palette.append((*color, 255))
        lookup[code] = entry.get(color, 255)  # the palette has space for 253 colours; all others share the last
    index = np.where(codes == unseen, 1 + _stripes(codes.shape), lookup[codes]).astype(np.uint8)
    return paletted_png(index, palette)


def probability_png(probability: NDArray[np.float32]) -> bytes:
    """Return probabilities 0..1 as a PNG in the colours of `RAMP`; NaN is hatched."""
    steps = np.linspace(0, 1, _LEVELS)
    stops = np.linspace(0, 1, len(RAMP))
    channels = [np.interp(steps, stops, [color[i] for color in RAMP]).round().astype(int) for i in range(3)]
    palette: list[Rgba] = [(int(red), int(green), int(blue), 255) for red, green, blue in zip(*channels, strict=True)]
    unseen = np.isnan(probability)
    level = np.rint(np.where(unseen, 0, probability) * (_LEVELS - 1))
    index = np.where(unseen, _LEVELS + _stripes(probability.shape), level).astype(np.uint8)
    return paletted_png(index, [*palette, *HATCH])


def photo_jpeg(rgb: NDArray[np.uint8], valid: NDArray[np.bool_] | None = None, *, budget: int = PHOTO_BYTES) -> bytes:
    """Return a photograph as a JPEG of at most ``budget`` bytes; invalid pixels are hatched.

    Args:
        rgb: ``(rows, cols, 3)``.
        valid: ``(rows, cols)``; None if all pixels are valid.
        budget: first the quality is lowered, then the size is halved, until the file is small enough.

    Raises:
        ValueError: the arrays do not have these shapes.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise ValueError(f"a picture has shape {rgb.shape}, required is (rows, cols, 3); move the bands last")
    if valid is not None:
        if valid.shape != rgb.shape[:2]:
            raise ValueError(f"validity has shape {valid.shape}, the picture {rgb.shape[:2]}; both must be equal")
        greys = np.array(HATCH, np.uint8)[:, :3]
        rgb = np.where(valid[..., None], rgb, greys[_stripes(valid.shape)])
    while True:
        for quality in (88, 80, 70, 55):
            coded = _encode("JPEG", np.moveaxis(rgb, 2, 0), QUALITY=quality)
            if len(coded) <= budget:
                return coded
        if min(rgb.shape[:2]) < 64:
            return coded
        rgb = rgb[::2, ::2]


def paletted_png(index: NDArray[np.uint8], palette: Sequence[Rgba]) -> bytes:
    """Return ``(rows, cols)`` indices into at most 256 RGBA colours as a PNG."""
    return _encode("PNG", index[None], dict(enumerate(palette)), ZLEVEL=6)


def photo_png(rgba: NDArray[np.uint8]) -> bytes:
    """Return ``(rows, cols, 4)`` RGBA as a PNG."""
    return _encode("PNG", np.moveaxis(rgba, 2, 0), ZLEVEL=1)


def data_uri(coded: bytes) -> str:
    """Return the bytes of a PNG or JPEG as a ``data:`` URI."""
    kind = "image/png" if coded.startswith(b"\x89PNG") else "image/jpeg"
    return f"data:{kind};base64,{base64.b64encode(coded).decode('ascii')}"


def _stripes(shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Return 0 and 1 in diagonal stripes four pixels wide."""
    row, col = np.indices(shape, sparse=True)
    return (row + col) // 4 % 2


def _sum_cells(pixels: NDArray[Any], row_starts: NDArray[np.intp], col_starts: NDArray[np.intp]) -> NDArray[np.int64]:
    """Return the sum of each cell; columns first, because a strip is wide and low."""
    along = np.add.reduceat(pixels, col_starts, axis=1, dtype=np.int64)
    summed: NDArray[np.int64] = np.add.reduceat(along, row_starts, axis=0)
    return summed


def _strips(
    source: Any, band: int, rows: Cells
) -> Iterator[tuple[int, int, NDArray[np.intp], NDArray[np.unsignedinteger]]]:
    """Yield strips of whole cell rows: first and last cell row, the start of each within the strip, the pixels."""
    starts = np.append(rows.starts, rows.size)
    first = 0
    while first < rows.count:
        stop = first + 1
        while stop < rows.count and (starts[stop + 1] - starts[first]) * source.width <= _STRIP_PIXELS:
            stop += 1
        top, bottom = int(starts[first]), int(starts[stop])
        try:
            pixels = source.read(band, window=Window(0, top, source.width, bottom - top))
        except RasterioError as error:
            raise RasterUnreadable(source.name, f"rows {top} to {bottom} cannot be read ({error})") from error
        yield first, stop, starts[first:stop] - top, pixels
        first = stop


@contextmanager
def _opened(path: Path, band: int) -> Iterator[Any]:
    with _without_georeference_warning():
        try:
            source = open_raster(str(path))
        except RasterUnreadable as error:
            raise RasterUnreadable(path, f"cannot be opened ({error.reason})", "Run wasnow detect again.") from None
    with source:
        if source.count < band:
            raise RasterUnreadable(
                path, f"has {source.count} bands, band {band} is required", "Run wasnow detect again."
            )
        yield source


@contextmanager
def _without_georeference_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def _encode(driver: str, bands: NDArray[np.uint8], colormap: Mapping[int, Rgba] | None = None, **options: int) -> bytes:
    """Return ``(bands, rows, cols)`` uint8 as the bytes of a picture file."""
    count, height, width = bands.shape
    with _without_georeference_warning(), MemoryFile() as memory:
        with memory.open(driver=driver, height=height, width=width, count=count, dtype="uint8", **options) as sink:
            sink.write(np.ascontiguousarray(bands))
            if colormap is not None:
                sink.write_colormap(1, colormap)
        return bytes(memory.read())
