"""Read images and label files as arrays through GDAL: PNG, JPEG, TIFF, BMP, JPEG 2000 and other formats.

    image     8-bit RGB (H, W, 3); one band becomes grey, a palette its colours, alpha is dropped. Other data types need
              the values that become black and white (`Rendering.stretch`)
    label     the stored values: numbers (H, W), and colours (H, W, 3) where the file has any

A truncated file is an error; it is never read as a partly grey image.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterioWindow

from wasnow.data.encodings import NOT_GREY, LabelEncoding
from wasnow.errors import RasterUnreadable, RasterUnsuitable
from wasnow.raster.band_names import band_named, names_contradict_rgb, rgb_positions
from wasnow.raster.gaps import find_gaps
from wasnow.raster.gdal import CACHE_BYTES, open_raster
from wasnow.raster.nodata import nodata_is_also_a_color
from wasnow.raster.png import check_png
from wasnow.raster.radiometry import Conversion
from wasnow.raster.tiff import check_tiff
from wasnow.raster.tiles import Window

_COPY_AGAIN = "Copy or download it again"


@dataclass(frozen=True, slots=True)
class Rendering:
    """How the images of a dataset become 8-bit RGB.

    Attributes:
        bands: the bands shown as red, green and blue, by number from 1 or by name. None uses the file's colour
            interpretation, else the band names, else bands 1, 2, 3.
        stretch: the two values that become black and white, after the declared scale and offset of the file; None for
            8-bit images, which are used as they are.
        stretch_after: the same for the second date; None for that of the first.
    """

    bands: tuple[int | str, int | str, int | str] | None = None
    stretch: tuple[float, float] | None = None
    stretch_after: tuple[float, float] | None = None

    @property
    def of_after(self) -> Rendering:
        """How the images of the second date are rendered."""
        return self if self.stretch_after is None else Rendering(self.bands, self.stretch_after)


@dataclass(frozen=True, slots=True)
class Header:
    """Metadata of a raster, read without any pixel."""

    height: int
    width: int
    bands: int
    dtype: str
    driver: str
    crs: CRS | None
    transform: Affine

    @property
    def georeferenced(self) -> bool:
        """Whether the raster has a CRS and a transform."""
        return self.crs is not None and self.transform != Affine.identity()


@dataclass(frozen=True)
class RawLabel:
    """The values of a label file, before decoding.

    Attributes:
        numbers: ``(H, W)``; None for an RGB file.
        colors: ``(H, W, 3)`` uint8, of an RGB file or of the palette; None for a file of plain numbers.
        lossy: whether the file is compressed as JPEG, which changes label values.
    """

    numbers: NDArray[Any] | None
    colors: NDArray[np.uint8] | None
    lossy: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        held = self.numbers if self.numbers is not None else self.colors
        assert held is not None
        return held.shape[0], held.shape[1]

    def values_for(self, encoding: LabelEncoding) -> NDArray[Any]:
        """Return the numbers or the colours, whichever the encoding uses.

        The numbers of an RGB file are its grey levels; see `grey`.
        """
        if encoding.of_colors:
            if self.colors is not None:
                return self.colors
            assert self.numbers is not None
            grey = np.clip(self.numbers, 0, 255).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=2)
        return self.grey

    @property
    def grey(self) -> NDArray[Any]:
        """``(H, W)``: the numbers, or the grey levels of an RGB file, with `NOT_GREY` at coloured pixels."""
        if self.numbers is not None:
            return self.numbers
        assert self.colors is not None
        red = self.colors[..., 0]
        if self.lossy:
            return red
        same = (red == self.colors[..., 1]) & (red == self.colors[..., 2])
        return red if same.all() else np.where(same, red.astype(np.int16), np.int16(NOT_GREY))


@contextmanager
def reading() -> Iterator[None]:
    """Configure GDAL for many small files: no directory scan at every opening, and errors for truncated JPEG."""
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES, GDAL_DISABLE_READDIR_ON_OPEN=True, GDAL_ERROR_ON_LIBJPEG_WARNING=True):
        yield


def header(path: Path) -> Header:
    """Return size, data type and georeference of a raster.

    Raises:
        RasterUnreadable: it cannot be opened, or is truncated.
        RasterUnsuitable: it has no bands.
    """
    check_complete(path)
    with open_raster(str(path)) as raster:
        if not raster.count:
            raise RasterUnsuitable(path, "has no bands of its own", "Give the raster inside the container")
        return Header(
            raster.height, raster.width, raster.count, raster.dtypes[0], raster.driver, raster.crs, raster.transform
        )


def check_complete(path: Path) -> None:
    """Reject a truncated PNG or TIFF. Other formats are left to GDAL.

    Raises:
        RasterUnreadable: the file ends before its last part.
    """
    check_tiff(str(path))
    check_png(str(path))


def read_picture(
    path: Path, rendering: Rendering = Rendering(), window: Window | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """Read an image and its validity mask.

    Args:
        path: any raster.
        rendering: which bands, and how values become grey levels.
        window: the part to read; None for all of it.

    Returns:
        ``(H, W, 3)`` uint8, and ``(H, W)`` bool; None where every pixel is valid.

    Raises:
        RasterUnreadable: missing, damaged or truncated.
        RasterUnsuitable: not 8-bit and no stretch is given; a band does not exist; values are complex.
    """
    check_complete(path)
    with open_raster(str(path)) as raster:
        bands = _rgb_bands(raster, path, rendering)
        if raster.dtypes[0] != "uint8" and rendering.stretch is None:
            raise RasterUnsuitable(
                path,
                f"holds {raster.dtypes[0]}, but images must be 8-bit",
                "Give the values that become black and white: stretch: [0, 3000] in a dataset.yaml",
            )
        at = _window(window)
        values = _read(raster, path, bands, at)
        valid = _validity(raster, path, bands, values, at)
        scales, offsets = (tuple(each[band - 1] for band in bands) for each in (raster.scales, raster.offsets))
        physical = Conversion(scales, offsets)
        if raster.colorinterp[bands[0] - 1] == ColorInterp.palette:
            table = _palette(raster, bands[0])
            return np.ascontiguousarray(table[values[0]][..., :3]), valid
    if rendering.stretch is not None:
        low, high = rendering.stretch
        with np.errstate(invalid="ignore"):
            # Low and high are in physical units: after the declared scale and offset of the file.
            scaled = np.nan_to_num((physical.apply(values) - low) * (255 / (high - low)), posinf=255, neginf=0)
        values = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    if len(bands) == 1:
        return np.repeat(values[0][..., None], 3, axis=2), valid
    return np.ascontiguousarray(np.moveaxis(values, 0, -1)), valid


def read_label(path: Path, window: Window | None = None) -> RawLabel:
    """Read the values of a label raster.

    Raises:
        RasterUnreadable: missing, damaged or truncated.
        RasterUnsuitable: neither one band of numbers nor three of colours.
    """
    check_complete(path)
    with open_raster(str(path)) as raster:
        lossy = raster.driver == "JPEG"
        colors = [i for i, color in enumerate(raster.colorinterp, 1) if color != ColorInterp.alpha]
        at = _window(window)
        if len(colors) == 1:
            numbers = _read(raster, path, colors, at)[0]
            if raster.colorinterp[0] == ColorInterp.palette:
                return RawLabel(numbers, np.ascontiguousarray(_palette(raster, 1)[numbers][..., :3]), lossy)
            return RawLabel(numbers, None, lossy)
        if len(colors) < 3 or raster.dtypes[0] != "uint8":
            raise RasterUnsuitable(
                path,
                f"has {len(colors)} bands of {raster.dtypes[0]}; a label has one band of numbers or three of colours",
                "Save it as one band, or as 8-bit RGB",
            )
        return RawLabel(None, np.ascontiguousarray(np.moveaxis(_read(raster, path, colors[:3], at), 0, -1)), lossy)


def write_png(path: Path, values: NDArray[np.uint8]) -> None:
    """Write ``(H, W)`` or ``(H, W, 3)`` as a PNG without a sidecar file. The same values give the same bytes."""
    bands = values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0)
    with warnings.catch_warnings(), rasterio.Env(GDAL_PAM_ENABLED="NO"):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        count, height, width = bands.shape
        # Level 3 writes photographs twice as fast as the default level 6, and the files are hardly larger.
        with rasterio.open(
            path, "w", driver="PNG", count=count, height=height, width=width, dtype="uint8", ZLEVEL=3
        ) as raster:
            raster.write(np.ascontiguousarray(bands))


def _window(window: Window | None) -> RasterioWindow | None:
    return None if window is None else RasterioWindow(window.col, window.row, window.width, window.height)


def _rgb_bands(raster: Any, path: Path, rendering: Rendering) -> list[int]:
    if np.dtype(raster.dtypes[0]).kind == "c":
        raise RasterUnsuitable(path, f"holds complex values ({raster.dtypes[0]})", "Give amplitude or intensity")
    names = tuple(raster.descriptions)
    if rendering.bands is not None:
        return [_band(raster, path, band, names) for band in rendering.bands]
    # Names first: GDAL declares the first three bands of 8-bit GeoTIFFs as red, green and blue, whatever they are.
    if (positions := rgb_positions([name or "" for name in names])) is not None:
        return [position + 1 for position in positions]
    where = {color: band for band, color in enumerate(raster.colorinterp, 1)}
    declared = [where.get(color) for color in (ColorInterp.red, ColorInterp.green, ColorInterp.blue)]
    bands = [band for band in declared if band]
    if len(bands) < 3:
        bands = [band for band, color in enumerate(raster.colorinterp, 1) if color != ColorInterp.alpha]
        bands = bands[:3] if len(bands) >= 3 else bands[:1]
    if len(bands) == 3 and names_contradict_rgb(names, bands):
        listed = ", ".join(str(name) for name in names[:6])
        raise RasterUnsuitable(
            path,
            f"has bands named {listed}, and it is unclear which are red, green and blue",
            "Set the bands in a dataset.yaml, such as bands: [4, 3, 2] or bands: [B4, B3, B2]",
        )
    return bands


def _band(raster: Any, path: Path, band: int | str, names: tuple[str | None, ...]) -> int:
    """Return the number of a band that is given by number or name."""
    number = band if isinstance(band, int) else band_named(names, band)
    if number is None:
        known = ", ".join(name for name in names if name) or "none has a name"
        raise RasterUnsuitable(path, f"has no band {band!r} ({known})", "Set bands: by number in the dataset.yaml")
    if number > raster.count:
        raise RasterUnsuitable(path, f"has {raster.count} bands, but band {number} is set in bands:")
    return number


def _read(raster: Any, path: Path, bands: list[int], at: RasterioWindow | None) -> NDArray[Any]:
    try:
        values: NDArray[Any] = raster.read(bands, window=at)
    except RasterioError as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise RasterUnreadable(path, f"is damaged: {reason}", _COPY_AGAIN) from None
    return values


def _palette(raster: Any, band: int) -> NDArray[np.uint8]:
    table = np.zeros((256, 4), np.uint8)
    for index, color in raster.colormap(band).items():
        table[index] = color
    return table


def _validity(
    raster: Any, path: Path, bands: list[int], values: NDArray[Any], at: RasterioWindow | None
) -> NDArray[np.bool_] | None:
    """``(H, W)`` from alpha, mask file or nodata, by the rules of `wasnow.raster.reader`; None where all are valid."""
    flags = raster.mask_flag_enums[bands[0] - 1]
    palette = raster.colorinterp[bands[0] - 1] == ColorInterp.palette
    valid: NDArray[np.bool_] = np.ones(values.shape[1:], np.bool_)
    if MaskFlags.nodata in flags:
        nodata = tuple(raster.nodatavals[band - 1] for band in bands)
        missing = np.stack([band == value for band, value in zip(values, nodata, strict=True)])
        both = nodata_is_also_a_color(nodata, raster.dtypes[0])
        valid = np.logical_not(missing.all(axis=0) if both else missing.any(axis=0))
    elif MaskFlags.alpha in flags or MaskFlags.per_dataset in flags:
        try:
            valid = raster.read_masks(bands[0], window=at) != 0
        except RasterioError as error:
            raise RasterUnreadable(path, f"has a damaged mask: {error}", _COPY_AGAIN) from None
    if values.dtype.kind == "f":
        valid &= np.isfinite(values).all(axis=0)
    if values.shape[1:] == (raster.height, raster.width) and MaskFlags.alpha not in flags and not palette:
        # Collars are recognised in whole images only: in a window, a dark object can touch the edge.
        declared = tuple(raster.nodatavals[band - 1] for band in bands)
        lossy = raster.driver in ("JPEG", "WEBP") or "JPEG" in str(
            raster.get_tag_item("COMPRESSION", "IMAGE_STRUCTURE")
        )
        whole = Window(0, 0, raster.height, raster.width)
        for gap in find_gaps(values, declared, valid, lossy=lossy):
            valid &= ~gap.mask(values, whole, values.shape[1:])
    return None if valid.all() else valid
