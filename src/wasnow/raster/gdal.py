"""Open rasters with GDAL: settings, allowed formats, and errors as one line.

Every raster that wasnow reads is opened by `open_raster`, inside `gdal_settings`.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.env import ensure_env_with_credentials
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from wasnow.errors import RasterUnreadable, RasterUnsuitable
from wasnow.raster import remote, trust
from wasnow.storage.content import describe_content, read_head, special_file

CACHE_BYTES = 64 * 2**20
"""Size of GDAL's block cache in bytes, as rasterio expects it (GDAL itself would read small numbers as megabytes)."""


@contextlib.contextmanager
def gdal_settings() -> Iterator[None]:
    """Set up GDAL: a small block cache, since reading is sequential, and an error for incomplete JPEG files.

    Python code in a VRT never runs, whatever the environment says. Rasters without a CRS are supported, so rasterio's
    warning about them is silenced.
    """
    settings = {"GDAL_CACHEMAX": CACHE_BYTES, "GDAL_ERROR_ON_LIBJPEG_WARNING": True, "GDAL_VRT_ENABLE_PYTHON": "NO"}
    with rasterio.Env(**settings), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def open_raster(path: str, *, overview_level: int | None = None, allow_indirect: bool = False) -> Any:
    """Open a raster with rasterio; every failure is a one-line `RasterUnreadable`.

    Args:
        path: of a file, in an archive or on a server.
        overview_level: GDAL's number of the overview to open, from 0; None for full resolution.
        allow_indirect: also open formats that refer to other files; see `wasnow.raster.trust`.

    Returns:
        An open ``rasterio.DatasetReader``; the caller closes it.

    Raises:
        RasterUnreadable: missing, damaged, or not a raster.
        RasterUnsuitable: it refers, or may refer, to other files.
    """
    options = {} if overview_level is None else {"OVERVIEW_LEVEL": overview_level}
    require_regular_file(path)
    path = remote.resolve_redirects(path, allow_other_hosts=allow_indirect)
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
            what = f"is {kind}, which may refer to other files"
            raise RasterUnsuitable(path, what, trust.ADVICE) from None
        raise RasterUnreadable(path, *open_failure(path, error)) from None
    except (ValueError, OverflowError, UnicodeError) as error:
        # A path that contains NUL, or header values that Python cannot convert.
        reason = f"cannot be read as a raster: {' '.join(str(error).split())}"
        raise RasterUnreadable(path, reason, "Check it with `rio info`, or copy it again") from None
    try:
        trust.check_opened(path, raster)
    except (RasterUnsuitable, RasterioError, CPLE_BaseError) as error:
        raster.close()
        if isinstance(error, RasterUnsuitable):
            raise
        raise RasterUnreadable(path, *open_failure(path, error)) from None
    return raster


@ensure_env_with_credentials  # type: ignore[untyped-decorator]
def _open_allowed(path: str, **options: Any) -> Any:
    """Like `rasterio.open`, but with a list of drivers (`rasterio.open` accepts only one)."""
    return DatasetReader(path, driver=trust.drivers(False), sharing=False, **options)


def require_regular_file(path: str) -> None:
    """Reject a pipe, a device or a file of ``/proc`` before GDAL opens it: reading it could block or never end.

    Raises:
        RasterUnreadable: the path is one of these.
    """
    if trust.is_plain(path) and (kind := special_file(path)) is not None:
        raise RasterUnreadable(path, f"is {kind}, not a regular file", "Give a raster file")


def open_failure(path: str, error: Exception) -> tuple[str, str]:
    """Return (reason, advice) for a raster that GDAL could not open."""
    local = Path(path)
    if trust.is_plain(path):
        if not local.exists():
            return "no such file", ""
        if local.is_dir():
            if any((local / name).exists() for name in (".zgroup", ".zarray", "zarr.json")):
                return "is a Zarr store, which may refer to other files", trust.ADVICE
            return "is a folder", "Give the raster file inside it"
        if not os.access(local, os.R_OK):
            return "cannot be read (permission denied)", "Change its permissions"
        if local.stat().st_size == 0:
            return "is empty (0 bytes)", "Copy or download it again"
        found = describe_content(read_head(path))
        if found is not None:
            return f"is {found[0]}", found[1]
        if local.suffix.casefold() in (".ecw", ".sid"):
            name = "ECW" if local.suffix.casefold() == ".ecw" else "MrSID"
            return f"is an {name} image, which this GDAL cannot read", "Convert it to GeoTIFF where the driver exists"
    reason = " ".join(str(error).split()).replace(f"'{path}' ", "").replace(f"{path}: ", "")
    return f"cannot be read as a raster: {reason}", "Check it with `rio info`, or copy it again"
