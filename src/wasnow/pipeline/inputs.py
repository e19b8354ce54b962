"""Inputs of `detect` in Python: paths, open rasters of rasterio, xarray arrays, and NumPy arrays with a position.

A run works with files: workers open them, and a resumed run recognises them by their checksums. Rasters in memory are
therefore written to ``OUT/.wasnow/inputs/`` first, under a name that contains the digest of their content.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from wasnow.errors import UsageError
from wasnow.storage.atomic import atomic_path, output_errors
from wasnow.storage.journal import WORKSPACE

FOLDER = "inputs"
"""The folder of the workspace for rasters from memory."""


@dataclass(frozen=True, eq=False)
class Raster:
    """A NumPy array with its position, as an input of `detect`.

    Attributes:
        values: ``(bands, rows, cols)`` or ``(rows, cols)``.
        transform: from (col, row) to coordinates: an ``affine.Affine``, or its six numbers; None for no position.
        crs: anything that rasterio accepts as a CRS; None for none.
        nodata: the value of missing pixels; None for none. NaN is always missing.
    """

    values: NDArray[Any]
    transform: Affine | tuple[float, ...] | None = None
    crs: Any = None
    nodata: float | None = None


RasterInput = str | os.PathLike[str] | Raster | Any
"""A path or URL, a `Raster`, an open dataset of rasterio, or an ``xarray.DataArray`` with rioxarray."""


def raster_path(value: RasterInput, name: str, output: Path) -> str | os.PathLike[str]:
    """Return the path of a raster; one in memory is written to the workspace of the result folder.

    Args:
        value: as `detect` accepts it.
        name: ``before`` or ``after``.
        output: the result folder.

    Raises:
        UsageError: not a raster, or an array without position.
        OutputError: it cannot be written.
    """
    if isinstance(value, str | os.PathLike):
        return value
    if isinstance(value, Raster):
        return _written(value, name, output)
    if isinstance(value, np.ndarray):
        raise UsageError(
            f"{name} is a NumPy array without a position; pass wasnow.Raster(array, transform=..., crs=...), or "
            "wasnow.Raster(array) for images without CRS"
        )
    if hasattr(value, "dims") and hasattr(value, "values"):
        if not hasattr(value, "rio"):
            raise UsageError(f"{name} is an xarray array without a CRS; import rioxarray and set it with rio.write_crs")
        return _written(Raster(value.values, value.rio.transform(), value.rio.crs, value.rio.nodata), name, output)
    if all(hasattr(value, each) for each in ("read", "transform", "crs", "nodata")):
        if getattr(value, "closed", False):
            raise UsageError(f"{name} is a closed raster; open it again, or pass its path")
        # A dataset of a file is opened again by name, so that large rasters are not read into memory.
        path = str(getattr(value, "name", ""))
        if type(value) is rasterio.DatasetReader and (Path(path).is_file() or "://" in path):
            return path
        return _written(Raster(value.read(), value.transform, value.crs, value.nodata), name, output)
    raise UsageError(
        f"{name} must be a path, a wasnow.Raster, an open raster or an xarray.DataArray, not {type(value).__name__}"
    )


def _written(raster: Raster, name: str, output: Path) -> Path:
    values = np.asarray(raster.values)
    values = values[None] if values.ndim == 2 else values
    if values.ndim != 3 or 0 in values.shape:
        raise UsageError(
            f"{name} has the shape {np.shape(raster.values)}; it must be (bands, rows, cols) or (rows, cols)"
        )
    values = np.ascontiguousarray(values.astype(np.uint8) if values.dtype == bool else values)
    transform = None if raster.transform is None else Affine(*tuple(raster.transform)[:6])
    profile: dict[str, Any] = {"transform": transform, "crs": raster.crs, "nodata": raster.nodata}
    profile = {key: value for key, value in profile.items() if value is not None}
    sha = hashlib.sha256(f"{values.dtype} {values.shape} {profile}".encode())
    sha.update(values.data)
    folder = output / WORKSPACE / FOLDER
    path = folder / f"{name}-{sha.hexdigest()[:16]}.tif"
    if path.exists():
        return path
    bands, rows, cols = values.shape
    try:
        with output_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
            with (
                atomic_path(path, shared=True) as temporary,
                rasterio.open(
                    temporary, "w", driver="GTiff", count=bands, height=rows, width=cols, dtype=values.dtype, **profile
                ) as file,
            ):
                file.write(values)
    except (RasterioError, TypeError, ValueError) as error:
        raise UsageError(f"{name} cannot be written as a raster: {' '.join(str(error).split())}") from None
    return path
