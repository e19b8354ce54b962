"""One raster file as wasnow sees it: which bands, which pixels are valid, where it lies.

    RasterSource   facts, gathered once by `probe`; plain values, can be sent to another process
    RasterReader   an open handle on a source; one per thread; `read(window) -> (values, valid)`

Validity, in this order, whatever the file offers:
    alpha or mask file   a pixel is missing where it is 0
    nodata               a value at the end of an unsigned type's range (0 or the maximum) is also a colour, so a pixel
                         is missing only where all chosen bands hold it; any other value as soon as one band holds it
    NaN, infinity        a pixel is missing as soon as one band is not finite
"""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.env import ensure_env_with_credentials
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from wasnow.errors import BandsUnclear, RasterUnreadable, RasterUnsuitable, UsageError
from wasnow.raster import trust
from wasnow.raster.grid import Grid
from wasnow.raster.png import check_png
from wasnow.raster.tiff import check_tiff
from wasnow.raster.tiles import Window

MaskRule = Literal["nodata", "alpha", "mask", "none"]

MAX_BLOCK_BYTES = 2**30
"""Of one block of a file with all its bands: GDAL takes that much memory for a single pixel."""

FARTHEST = 1e12
"""No coordinate of a place on Earth is as large, in any unit."""

MAX_BANDS = 4096
"""More is no image, and every pixel of it would take 16 KB."""

CACHE_BYTES = 64 * 2**20
"""GDAL's block cache. rasterio passes the number on as bytes; a plain 64 would mean 64 bytes, and no cache at all."""


@dataclass(frozen=True)
class RasterSource:
    """What is known of a raster before any pixel is used. Made by `probe`.

    Attributes:
        bands: 1-based indices of the bands in use, in order; with ``palette`` the one index band.
        band_names: one per band after palette expansion.
        colors: what each band of the file shows (``red``, ``alpha``, ``gray``, ``undefined``...).
        nodata: per band in use; None where none is declared.
        mask: where validity comes from besides NaN.
        overviews: decimations available for all bands.
        orientation: EXIF orientation 1..8 that is undone on reading (1: as stored).
        overview: decimation that readers open; None for full resolution.
        every: readers return every n-th pixel of that (nearest neighbour); 1 but for small pictures of large rasters.
        stored_shape: rows and columns as stored in the file, before orientation.
        allow_indirect: whether it may be a file that points to others; see `wasnow.raster.trust`.
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

    @property
    def n_bands(self) -> int:
        """Bands that a reader returns."""
        return len(self.band_names)

    @property
    def is_display_rgb(self) -> bool:
        """8-bit red, green, blue: shown and fed to models as it is."""
        return self.dtype == "uint8" and self.n_bands == 3

    def with_bands(self, bands: tuple[int, ...]) -> RasterSource:
        """The same raster with other bands in use (1-based). An alpha band that is named is a band like any other.

        Raises:
            BandsUnclear: a band that does not exist.
        """
        if self.palette is not None:
            return self
        wrong = [band for band in bands if not 1 <= band <= self.count]
        if wrong or not bands:
            raise BandsUnclear(
                f"{self.path} has bands 1 to {self.count}, not {', '.join(map(str, wrong)) or 'none'}; correct --bands"
            )
        with open_raster(self.path, allow_indirect=self.allow_indirect) as raster:
            return replace(
                self,
                bands=bands,
                band_names=tuple(_band_name(raster, band) for band in bands),
                nodata=tuple(raster.nodatavals[band - 1] for band in bands),
                mask=_mask_rule(raster, [i for i in _alpha_bands(raster) if i not in bands]),
            )

    def at_overview(self, decimation: int) -> RasterSource:
        """The same raster read from one of its `overviews`: a coarser grid over the same ground."""
        level = self.overviews.index(decimation)
        with open_raster(self.path, overview_level=level, allow_indirect=self.allow_indirect) as raster:
            grid = Grid(self.grid.crs, raster.transform, raster.width, raster.height)
            return replace(self, grid=grid, overview=decimation, stored_shape=(raster.height, raster.width))

    def thinned(self, every: int) -> RasterSource:
        """The same raster with only every n-th pixel: for pictures, where memory counts and exactness does not."""
        if every <= 1 or self.orientation != 1:
            return self
        return replace(self, grid=self.grid.scaled(every), every=every)

    def finest_overview_for(self, scale: float) -> int | None:
        """The coarsest overview that is still at least as fine as pixels ``scale`` times as long as ours; or None."""
        if self.orientation != 1:
            return None
        usable = [decimation for decimation in self.overviews if decimation <= scale * (1 + 1e-6)]
        return max(usable, default=None)


def open_raster(path: str, *, overview_level: int | None = None, allow_indirect: bool = False) -> Any:
    """Open with rasterio, every failure a `RasterUnreadable` in one line.

    Args:
        path: of a file, in an archive or on a server.
        overview_level: as GDAL counts overviews.
        allow_indirect: also open what points to other files; see `wasnow.raster.trust`.

    Raises:
        RasterUnreadable: missing, damaged, no raster.
        RasterUnsuitable: it points, or may point, to other files.
    """
    options = {} if overview_level is None else {"OVERVIEW_LEVEL": overview_level}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            if allow_indirect:
                return rasterio.open(path, **options)
            trust.check_side_files(path)
            with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN=trust.readdir(path)):
                raster = _open_allowed(path, **options)
    except (RasterioError, CPLE_BaseError) as error:
        kind = None if allow_indirect else trust.refused_kind(path)
        if kind is not None:
            what = f"is {kind}, which may name other files to read"
            raise RasterUnsuitable(path, what, trust.ADVICE) from None
        raise RasterUnreadable(path, *_why_not_open(path, error)) from None
    except (ValueError, OverflowError, UnicodeError) as error:
        # A path with a NUL in it, a header with numbers that Python does not take.
        reason = f"cannot be read as a raster: {' '.join(str(error).split())}"
        raise RasterUnreadable(path, reason, "Try `rio info` on it, or copy it again") from None
    try:
        trust.check_opened(path, raster)
    except (RasterUnsuitable, RasterioError, CPLE_BaseError) as error:
        raster.close()
        if isinstance(error, RasterUnsuitable):
            raise
        raise RasterUnreadable(path, *_why_not_open(path, error)) from None
    return raster


@ensure_env_with_credentials  # type: ignore[untyped-decorator]
def _open_allowed(path: str, **options: Any) -> Any:
    """As `rasterio.open`, with a list of formats, of which that takes one at most."""
    return DatasetReader(path, driver=trust.drivers(False), sharing=False, **options)


def _why_not_open(path: str, error: Exception) -> tuple[str, str]:
    local = Path(path)
    if "://" not in path and not path.startswith("/vsi"):
        if not local.exists():
            return "no such file", ""
        if local.is_dir():
            return "is a folder", "Give the raster file inside it"
        if not os.access(local, os.R_OK):
            return "may not be read (permission denied)", ""
        if local.stat().st_size == 0:
            return "is empty (0 bytes)", "Copy or download it again"
    reason = " ".join(str(error).split()).replace(f"'{path}' ", "").replace(f"{path}: ", "")
    return f"cannot be read as a raster: {reason}", "Try `rio info` on it, or copy it again"


def _band_name(raster: Any, band: int) -> str:
    description = raster.descriptions[band - 1]
    if description:
        return str(description)
    color = raster.colorinterp[band - 1]
    return color.name if color in (ColorInterp.red, ColorInterp.green, ColorInterp.blue) else f"band {band}"


def probe(path: str | os.PathLike[str], *, assume_crs: str | None = None, allow_indirect: bool = False) -> RasterSource:
    """Look at a raster's header and say what it is; all bands but alpha are in use.

    Args:
        path: anything that GDAL opens; a local file is checked for truncation first.
        assume_crs: the CRS of files that do not say theirs.
        allow_indirect: also open what points to other files, such as a VRT.

    Raises:
        RasterUnreadable: missing, truncated, damaged.
        RasterUnsuitable: complex values, no bands or thousands, only ground control points, a CRS without a transform,
            blocks that do not fit into memory, or pixels that are in other files.
    """
    path = os.fspath(path)
    check_tiff(path)
    check_png(path)
    with open_raster(path, allow_indirect=allow_indirect) as raster:
        try:
            return _described(path, raster, assume_crs=assume_crs, allow_indirect=allow_indirect)
        except (RasterioError, CPLE_BaseError, ValueError, OverflowError) as error:
            # Headers that GDAL opens and then cannot answer for: a CRS that it may not fetch, numbers out of range.
            raise RasterUnreadable(path, *_why_not_open(path, error)) from None


def _described(path: str, raster: Any, *, assume_crs: str | None, allow_indirect: bool) -> RasterSource:
    """What `probe` says of an open raster."""
    if raster.count == 0:
        parts = [name.rsplit("/", 1)[-1] for name in raster.subdatasets[:3]]
        hint = f"Name one of its parts, such as {raster.subdatasets[0]}" if parts else "Choose a raster with bands"
        raise RasterUnsuitable(path, "has no bands of its own", hint)
    if raster.count > MAX_BANDS:
        raise RasterUnsuitable(
            path,
            f"has {raster.count} bands, more than {MAX_BANDS}",
            "Take some out of it: gdal_translate -b 1 IN OUT",
        )
    trust.check_length(path, raster)
    if any("complex" in dtype for dtype in raster.dtypes):
        raise RasterUnsuitable(path, f"holds complex values ({raster.dtypes[0]})", "Give amplitude or intensity")
    _check_block_sizes(path, raster)
    alpha = _alpha_bands(raster)
    bands = tuple(i for i in range(1, raster.count + 1) if i not in alpha)
    if not bands:
        raise RasterUnsuitable(path, "has only an alpha band", "Give a raster with image bands")
    palette = _palette(raster)
    orientation = _exif_orientation(raster)
    crs, transform, has_transform = _georeference(path, raster, assume_crs)
    height, width = (raster.width, raster.height) if orientation >= 5 else (raster.height, raster.width)
    names = ("red", "green", "blue") if palette is not None else tuple(_band_name(raster, band) for band in bands)
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
        date=_date(raster),
        files=tuple(raster.files) or (path,),
        has_transform=has_transform,
        stored_shape=(raster.height, raster.width),
        allow_indirect=allow_indirect,
    )


def _check_block_sizes(path: str, raster: Any) -> None:
    # One item and not all of them, as `raster.interleaving` asks: for that GDAL walks through the boxes of a JPEG 2000,
    # which has no end where one says length 0.
    together = raster.count if raster.get_tag_item("INTERLEAVE", "IMAGE_STRUCTURE") == "PIXEL" else 1
    for (rows, cols), dtype in zip(raster.block_shapes, raster.dtypes, strict=True):
        if rows * cols * np.dtype(dtype).itemsize * together > MAX_BLOCK_BYTES:
            raise RasterUnsuitable(
                path,
                f"is stored in blocks of {cols} x {rows} px, more than 1 GiB each",
                "Rewrite it in tiles: gdal_translate -co TILED=YES",
            )
    if raster.driver == "PNG" and Path(path).exists():
        # Deflate shrinks at most 1032 to 1; more is a header that lies, or a bomb.
        declared = raster.width * raster.height * raster.count * np.dtype(raster.dtypes[0]).itemsize
        if declared > 1100 * Path(path).stat().st_size + 2**20:
            raise RasterUnreadable(path, f"declares {raster.width} x {raster.height} px, more than its bytes can hold")


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


def _georeference(path: str, raster: Any, assume_crs: str | None) -> tuple[CRS | None, Affine, bool]:
    crs, transform = raster.crs, raster.transform
    placed = transform != Affine.identity()
    if crs is None and not placed:
        gcps, _ = raster.gcps
        if gcps or raster.rpcs is not None:
            what = "ground control points" if gcps else "rational polynomial coefficients (RPC)"
            raise RasterUnsuitable(
                path, f"is placed only by {what}, not by a grid", "Rectify it first: gdalwarp -t_srs EPSG:32633 IN OUT"
            )
    if crs is None and assume_crs is not None:
        if not placed:
            raise RasterUnsuitable(
                path, f"has no position at all, so assuming {assume_crs} cannot help", "Georeference it first"
            )
        crs = parse_crs(assume_crs)
    if crs is None or not placed:
        # Coordinates in an unknown system are worth no more than pixel coordinates.
        return None, Affine.identity(), placed
    if not all(map(math.isfinite, transform[:6])) or abs(transform.determinant) < 1e-300:
        raise RasterUnsuitable(path, "has a transform that maps all pixels onto a line", "Georeference it again")
    corners = [transform @ corner for corner in ((0, 0), (raster.width, 0), (0, raster.height), raster.shape[::-1])]
    if not all(abs(number) < FARTHEST for corner in corners for number in corner):
        raise RasterUnsuitable(
            path,
            f"lies farther out than any place on Earth ({transform.c:.6g}, {transform.f:.6g})",
            "Georeference it again",
        )
    return crs, transform, True


def parse_crs(text: str) -> CRS:
    """A CRS from ``EPSG:32633``, WKT or PROJ text.

    Raises:
        UsageError: PROJ does not know it.
    """
    try:
        return CRS.from_user_input(text)
    except CRSError:
        raise UsageError(f"{text!r} is no CRS that PROJ knows; write it as EPSG:32633") from None


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


def _date(raster: Any) -> str | None:
    """The acquisition date that the file's own tags give, as ISO text; None where they give none."""
    tags = {**raster.tags(), **raster.tags(ns="IMAGERY")}
    for key in ("ACQUISITIONDATETIME", "TIFFTAG_DATETIME", "EXIF_DateTimeOriginal", "EXIF_DateTime"):
        text = str(tags.get(key, "")).strip()
        day = text[:10].replace(":", "-").replace("/", "-")
        if len(day) == 10 and day.count("-") == 2 and day.replace("-", "").isdigit() and day > "1800":
            return day
    return None


class RasterReader:
    """An open source. Not for use by two threads at once; close it, or use it in a ``with``."""

    def __init__(self, source: RasterSource) -> None:
        self.source = source
        level = None if source.overview is None else source.overviews.index(source.overview)
        self._raster = open_raster(source.path, overview_level=level, allow_indirect=source.allow_indirect)

    def __enter__(self) -> RasterReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._raster.close()

    def read(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Values and validity of a window inside the raster.

        Returns:
            ``(C, h, w)`` float32 with the file's own numbers, and ``(h, w)`` bool. Where not valid, values are NaN.

        Raises:
            RasterUnreadable: the file is damaged there; names the file and the window.
        """
        source = self.source
        stored = _stored_window(window, source.stored_shape, source.orientation)
        shape = (stored.height, stored.width)
        if source.every > 1:
            col, row = stored.col * source.every, stored.row * source.every
            rows, cols = source.stored_shape
            at = RasterioWindow(
                col, row, min(stored.width * source.every, cols - col), min(stored.height * source.every, rows - row)
            )
        else:
            at = RasterioWindow(stored.col, stored.row, stored.width, stored.height)
        try:
            raw: NDArray[Any] = self._raster.read(list(source.bands), window=at, out_shape=(len(source.bands), *shape))
            valid = self._mask(raw, at)
        except (RasterioError, CPLE_BaseError) as error:
            cause = error.__cause__ or error
            raise RasterUnreadable(
                source.path,
                f"rows {window.row}-{window.row_stop - 1}, cols {window.col}-{window.col_stop - 1} cannot be read: "
                + " ".join(str(cause).split()),
                "Copy the file again, or pass --keep-going to flag what cannot be read",
            ) from None
        if source.palette is not None:
            table = np.asarray(source.palette, np.float32)
            index = raw[0].astype(np.int64)
            known = (index >= 0) & (index < len(table))
            rgba = table[np.where(known, index, 0)]
            valid &= known & (rgba[..., 3] > 0)
            values = np.moveaxis(rgba[..., :3], -1, 0)
        else:
            values = raw.astype(np.float32)
            if raw.dtype.kind == "f":
                valid &= np.isfinite(values).all(axis=0)
        values = np.where(valid, values, np.float32(np.nan))
        if source.orientation != 1:
            return _orient(values, source.orientation), _orient(valid, source.orientation)
        return values, valid

    def _mask(self, raw: NDArray[Any], at: RasterioWindow) -> NDArray[np.bool_]:
        source = self.source
        valid = np.ones(raw.shape[1:], np.bool_)
        if source.mask == "alpha":
            alpha = [i for i, color in enumerate(source.colors, 1) if color == "alpha"]
            valid &= (self._raster.read(alpha, window=at, out_shape=(len(alpha), *valid.shape)) != 0).all(axis=0)
        elif source.mask == "mask":
            bands = list(source.bands)
            valid &= (self._raster.read_masks(bands, window=at, out_shape=raw.shape) != 0).all(axis=0)
        if source.palette is not None:
            if source.nodata[0] is not None:
                valid &= raw[0] != source.nodata[0]
            return valid
        missing = [_equals(band, nodata) for band, nodata in zip(raw, source.nodata, strict=True)]
        if not any(nodata is not None for nodata in source.nodata):
            return valid
        if nodata_is_also_a_color(source.nodata, source.dtype):
            valid &= ~np.logical_and.reduce(missing)
        else:
            valid &= ~np.logical_or.reduce(missing)
        return valid


def nodata_is_also_a_color(nodata: tuple[float | None, ...], dtype: str) -> bool:
    """Whether the declared value, the same in all bands, is black or white of an unsigned type."""
    kind = np.dtype(dtype)
    return kind.kind == "u" and len(set(nodata)) == 1 and nodata[0] in (0, np.iinfo(kind).max)


def _equals(band: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    if nodata is None:
        return np.zeros(band.shape, np.bool_)
    if math.isnan(nodata):
        return np.asarray(np.isnan(band)) if band.dtype.kind == "f" else np.zeros(band.shape, np.bool_)
    if band.dtype == np.float32:
        # A float32 file's nodata reaches us as the nearest double: compare in the file's own precision.
        return np.asarray(band == np.float32(nodata))
    return np.asarray(band == nodata)


_FLIPS_ROWS = (3, 4, 6, 7)
_FLIPS_COLS = (2, 3, 7, 8)
_TRANSPOSES = (5, 6, 7, 8)


def _stored_window(window: Window, stored: tuple[int, int], orientation: int) -> Window:
    """The window of the stored image that holds an upright window (EXIF orientation 1..8)."""
    row, col, height, width = window.row, window.col, window.height, window.width
    if orientation in _TRANSPOSES:
        row, col, height, width = col, row, width, height
    if orientation in _FLIPS_ROWS:
        row = stored[0] - row - height
    if orientation in _FLIPS_COLS:
        col = stored[1] - col - width
    return Window(row, col, height, width)


def _orient(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn the last two axes of a stored window upright: flips along the stored axes, then the transpose."""
    if orientation in _FLIPS_ROWS:
        array = array[..., ::-1, :]
    if orientation in _FLIPS_COLS:
        array = array[..., ::-1]
    if orientation in _TRANSPOSES:
        array = np.swapaxes(array, -1, -2)
    return np.ascontiguousarray(array)


@contextlib.contextmanager
def gdal_settings() -> Iterator[None]:
    """GDAL as wasnow wants it: a small block cache, since reading is sequential; half a JPEG is an error.

    A VRT may hold Python code that computes its pixels: it never runs, whatever the environment says. Images without a
    CRS are a case like any other here; rasterio need not warn of each file that has none.
    """
    settings = {"GDAL_CACHEMAX": CACHE_BYTES, "GDAL_ERROR_ON_LIBJPEG_WARNING": True, "GDAL_VRT_ENABLE_PYTHON": "NO"}
    with rasterio.Env(**settings), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield
