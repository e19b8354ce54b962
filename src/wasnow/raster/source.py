"""Facts about a raster file, read once from its header: bands, types, nodata, georeference.

probe(path) -> RasterSource     plain values that can be sent to another process; opened by `RasterReader`
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError

from wasnow.errors import BandsUnclear, RasterUnreadable, RasterUnsuitable
from wasnow.raster import trust
from wasnow.raster.dates import file_date
from wasnow.raster.gaps import Gap
from wasnow.raster.gdal import open_failure, open_raster, require_regular_file
from wasnow.raster.georeference import georeference
from wasnow.raster.grid import Grid
from wasnow.raster.png import check_png
from wasnow.raster.radiometry import Conversion
from wasnow.raster.tiff import check_tiff

MaskRule = Literal["nodata", "alpha", "mask", "none"]

MAX_BLOCK_BYTES = 2**30
"""Largest block of a file, all bands: GDAL allocates a whole block to read a single pixel."""

MAX_BANDS = 4096
"""Most bands of a raster; more would take over 16 KB per pixel."""


@dataclass(frozen=True)
class RasterSource:
    """Facts about a raster, known before any pixel is read. Created by `probe`.

    Attributes:
        path: of the file, as given.
        driver: GDAL's name of the format.
        grid: CRS, transform and upright shape.
        dtype: common type of the bands in use.
        count: number of bands in the file.
        bands: 1-based indices of the bands in use, in order; with ``palette`` the one index band.
        band_names: one per band after palette expansion.
        colors: colour interpretation of each band of the file (``red``, ``alpha``, ``gray``, ``undefined``...).
        nodata: declared value per band in use; None where none is declared.
        mask: source of validity besides NaN.
        overviews: decimations available for all bands.
        palette: RGBA 0..255 of each index value; None without a palette.
        orientation: EXIF orientation 1..8 that is undone on reading (1: upright as stored).
        date: acquisition date in ISO form, from the file's tags; None if unknown.
        date_doubt: why the date may be wrong, or why a tag was ignored; None without doubt.
        files: the file and its side files.
        has_transform: whether the file has an affine transform.
        overview: decimation that readers open; None for full resolution.
        every: readers return every n-th pixel (nearest neighbour); above 1 only for quicklooks of large rasters.
        stored_shape: rows and columns as stored in the file, before orientation.
        allow_indirect: whether the file may refer to other files; see `wasnow.raster.trust`.
        scales: declared per band in use; empty for 1.
        offsets: declared per band in use; empty for 0.
        base: see `wasnow.raster.radiometry.Conversion`.
        unit: the same.
        opaque: smallest alpha value of a valid pixel.
        gaps: undeclared nodata values; see `wasnow.raster.examine`.
        display: whether values of another type than uint8 are 8-bit display values.
        nodata_given: whether ``nodata`` is an option of the run and not declared in the file.
    """

    path: str
    driver: str
    grid: Grid
    dtype: str
    count: int
    bands: tuple[int, ...]
    band_names: tuple[str, ...]
    colors: tuple[str, ...]
    nodata: tuple[float | None, ...]
    mask: MaskRule
    overviews: tuple[int, ...]
    palette: tuple[tuple[int, int, int, int], ...] | None
    orientation: int
    date: str | None
    files: tuple[str, ...]
    has_transform: bool
    overview: int | None = None
    every: int = 1
    stored_shape: tuple[int, int] = (0, 0)
    allow_indirect: bool = False
    scales: tuple[float, ...] = ()
    offsets: tuple[float, ...] = ()
    base: float = 0.0
    unit: float = 1.0
    opaque: float = 1.0
    gaps: tuple[Gap, ...] = ()
    display: bool = False
    nodata_given: bool = False
    date_doubt: str | None = None

    @property
    def conversion(self) -> Conversion:
        """Conversion from stored values to those of a reader."""
        n = len(self.bands)
        return Conversion(self.scales or (1.0,) * n, self.offsets or (0.0,) * n, self.base, self.unit)

    @property
    def n_bands(self) -> int:
        """Number of bands that a reader returns."""
        return len(self.band_names)

    @property
    def is_display_rgb(self) -> bool:
        """Whether it is 8-bit red, green, blue, displayed and given to models without a stretch."""
        return (self.dtype == "uint8" or self.display) and self.n_bands == 3 and self.conversion.is_identity

    def with_bands(self, bands: tuple[int, ...]) -> RasterSource:
        """Return the same raster with other bands in use (1-based). A selected alpha band is used as data.

        Raises:
            BandsUnclear: a band does not exist.
        """
        if self.palette is not None:
            return self
        wrong = [band for band in bands if not 1 <= band <= self.count]
        if wrong or not bands:
            raise BandsUnclear(
                f"{self.path}: has bands 1 to {self.count}, --bands asks for {', '.join(map(str, wrong)) or 'none'}; "
                "correct --bands"
            )
        with open_raster(self.path, allow_indirect=self.allow_indirect) as raster:
            return replace(
                self,
                bands=bands,
                band_names=tuple(_band_name(raster, band) for band in bands),
                nodata=self.nodata[:1] * len(bands)
                if self.nodata_given
                else tuple(raster.nodatavals[band - 1] for band in bands),
                mask=_mask_rule(
                    raster, [i for i, color in enumerate(self.colors, 1) if color == "alpha" and i not in bands]
                ),
                scales=_declared(raster.scales, bands, 1.0),
                offsets=_declared(raster.offsets, bands, 0.0),
            )

    def with_nodata(self, value: float) -> RasterSource:
        """Return the same raster with a nodata value for all bands in place of the declared one."""
        mask: MaskRule = "nodata" if self.mask == "none" else self.mask
        return replace(self, nodata=(value,) * len(self.nodata), mask=mask, nodata_given=True)

    def with_alpha(self, alpha: tuple[int, ...]) -> RasterSource:
        """Return the same raster with these bands (1-based) as alpha, and all others in use."""
        colors = tuple(
            "alpha" if band in alpha else "undefined" if color == "alpha" else color
            for band, color in enumerate(self.colors, 1)
        )
        bands = tuple(band for band in range(1, self.count + 1) if band not in alpha)
        return replace(self, colors=colors).with_bands(bands)

    def at_overview(self, decimation: int) -> RasterSource:
        """Return the same raster read from one of its `overviews`: a coarser grid of the same extent."""
        level = self.overviews.index(decimation)
        with open_raster(self.path, overview_level=level, allow_indirect=self.allow_indirect) as raster:
            grid = Grid(self.grid.crs, raster.transform, raster.width, raster.height)
            return replace(self, grid=grid, overview=decimation, stored_shape=(raster.height, raster.width))

    def thinned(self, every: int) -> RasterSource:
        """Return the same raster with only every n-th pixel, for quicklooks that need little memory."""
        if every <= 1 or self.orientation != 1:
            return self
        return replace(self, grid=self.grid.scaled(every), every=every)

    def finest_overview_for(self, scale: float) -> int | None:
        """Return the coarsest overview decimation that is not above ``scale`` (pixel sides of the target); or None."""
        if self.orientation != 1 or self.gaps:
            # Overviews mix undeclared nodata with data.
            return None
        usable = [decimation for decimation in self.overviews if decimation <= scale * (1 + 1e-6)]
        return max(usable, default=None)


def _band_name(raster: Any, band: int) -> str:
    description = raster.descriptions[band - 1]
    if description:
        return str(description)
    color = raster.colorinterp[band - 1]
    return color.name if color in (ColorInterp.red, ColorInterp.green, ColorInterp.blue) else f"band {band}"


def probe(
    path: str | os.PathLike[str],
    *,
    assume_crs: str | None = None,
    allow_indirect: bool = False,
    allow_truncated: bool = False,
) -> RasterSource:
    """Read the header of a raster; all bands but alpha are in use.

    Args:
        path: anything that GDAL opens; a local file is checked for truncation first.
        assume_crs: the CRS of files that do not declare a usable one.
        allow_truncated: accept a TIFF whose header is complete and whose last blocks are missing.
        allow_indirect: also open formats that refer to other files, such as a VRT.

    Raises:
        RasterUnreadable: missing, truncated, damaged.
        RasterUnsuitable: complex values, no bands or too many, only ground control points, a degenerate transform,
            blocks that do not fit into memory, or pixels that are in other files.
    """
    path = os.fspath(path)
    require_regular_file(path)
    try:
        check_tiff(path, allow_missing_blocks=allow_truncated)
        check_png(path)
    except OSError as error:
        raise RasterUnreadable(
            path, f"cannot be read: {error.strerror}", "Check the disk and its permissions"
        ) from None
    with open_raster(path, allow_indirect=allow_indirect) as raster:
        try:
            return _describe(path, raster, assume_crs=assume_crs, allow_indirect=allow_indirect)
        except (RasterioError, CPLE_BaseError, ValueError, OverflowError) as error:
            # GDAL opens some headers whose values it then rejects: a CRS that it may not fetch, numbers out of range.
            raise RasterUnreadable(path, *open_failure(path, error)) from None


def _describe(path: str, raster: Any, *, assume_crs: str | None, allow_indirect: bool) -> RasterSource:
    """Return the facts of an open raster."""
    if raster.count == 0:
        parts = [name.rsplit("/", 1)[-1] for name in raster.subdatasets[:3]]
        hint = f"Give one of its subdatasets, such as {raster.subdatasets[0]}" if parts else "Give a raster with bands"
        raise RasterUnsuitable(path, "has no bands", hint)
    if raster.count > MAX_BANDS:
        raise RasterUnsuitable(
            path,
            f"has {raster.count} bands, the limit is {MAX_BANDS}",
            "Extract some of them: gdal_translate -b 1 IN OUT",
        )
    trust.check_length(path, raster)
    if any("complex" in dtype for dtype in raster.dtypes):
        raise RasterUnsuitable(path, f"has complex values ({raster.dtypes[0]})", "Convert it to amplitude or intensity")
    _check_block_sizes(path, raster)
    alpha = _alpha_bands(raster)
    bands = tuple(i for i in range(1, raster.count + 1) if i not in alpha)
    if not bands:
        raise RasterUnsuitable(path, "has only an alpha band", "Give a raster with image bands")
    palette = _palette(raster)
    orientation = _exif_orientation(raster)
    crs, transform, has_transform = georeference(path, raster, assume_crs)
    height, width = (raster.width, raster.height) if orientation >= 5 else (raster.height, raster.width)
    names = ("red", "green", "blue") if palette is not None else tuple(_band_name(raster, band) for band in bands)
    dated = file_date({**raster.tags(), **raster.tags(ns="IMAGERY")})
    return RasterSource(
        path=path,
        driver=raster.driver,
        grid=Grid(crs, transform, width, height),
        dtype=_common_dtype(raster, bands),
        count=raster.count,
        bands=bands,
        band_names=names,
        colors=tuple(color.name for color in raster.colorinterp),
        nodata=tuple(raster.nodatavals[band - 1] for band in bands),
        mask=_mask_rule(raster, alpha),
        overviews=_common_overviews(raster),
        palette=palette,
        orientation=orientation,
        date=dated.date,
        date_doubt=dated.doubt,
        files=tuple(raster.files) or (path,),
        has_transform=has_transform,
        stored_shape=(raster.height, raster.width),
        allow_indirect=allow_indirect,
        scales=_declared(raster.scales, bands, 1.0),
        offsets=_declared(raster.offsets, bands, 0.0),
    )


def _declared(values: Sequence[float], bands: tuple[int, ...], neutral: float) -> tuple[float, ...]:
    """Return the declared scale or offset of each band; unusable values become neutral."""
    chosen = (float(values[band - 1]) for band in bands)
    return tuple(value if math.isfinite(value) and (value != 0 or neutral == 0) else neutral for value in chosen)


def _check_block_sizes(path: str, raster: Any) -> None:
    # A single tag item instead of `raster.interleaving`, which reads all of them: GDAL then walks through the boxes of
    # a JPEG 2000 file and does not stop at a box of length 0.
    bands_per_block = raster.count if raster.get_tag_item("INTERLEAVE", "IMAGE_STRUCTURE") == "PIXEL" else 1
    for (rows, cols), dtype in zip(raster.block_shapes, raster.dtypes, strict=True):
        if rows * cols * np.dtype(dtype).itemsize * bands_per_block > MAX_BLOCK_BYTES:
            raise RasterUnsuitable(
                path,
                f"is stored in blocks of {cols} x {rows} px of more than 1 GiB each",
                "Rewrite it in tiles: gdal_translate -co TILED=YES IN OUT",
            )
    if raster.driver == "PNG" and Path(path).exists():
        # Deflate compresses by at most 1032:1; a larger declared size is a false header or a decompression bomb.
        declared = raster.width * raster.height * raster.count * np.dtype(raster.dtypes[0]).itemsize
        if declared > 1100 * Path(path).stat().st_size + 2**20:
            raise RasterUnreadable(
                path, f"declares {raster.width} x {raster.height} px, more than its bytes can encode"
            )


def _common_dtype(raster: Any, bands: tuple[int, ...]) -> str:
    return str(np.result_type(*(np.dtype(raster.dtypes[band - 1]) for band in bands)))


def _palette(raster: Any) -> tuple[tuple[int, int, int, int], ...] | None:
    if raster.count != 1 or raster.colorinterp[0] != ColorInterp.palette:
        return None
    try:
        table = raster.colormap(1)
    except ValueError:
        return None
    return tuple(table.get(value, (0, 0, 0, 255)) for value in range(max(table) + 1))


def _exif_orientation(raster: Any) -> int:
    if raster.driver not in ("JPEG", "PNG", "WEBP"):
        return 1
    text = raster.tags().get("EXIF_Orientation") or raster.tags(ns="EXIF").get("EXIF_Orientation") or "1"
    return int(text) if text.isdigit() and 1 <= int(text) <= 8 else 1


def _alpha_bands(raster: Any) -> list[int]:
    return [i for i, color in enumerate(raster.colorinterp, 1) if color == ColorInterp.alpha]


def _mask_rule(raster: Any, alpha: list[int]) -> MaskRule:
    if alpha:
        return "alpha"
    flags = raster.mask_flag_enums[0]
    if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
        return "mask"
    return "nodata" if any(value is not None for value in raster.nodatavals) else "none"


def _common_overviews(raster: Any) -> tuple[int, ...]:
    sets = [tuple(raster.overviews(band)) for band in range(1, raster.count + 1)]
    return sets[0] if all(each == sets[0] for each in sets) else ()
