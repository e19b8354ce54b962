"""A raster as an 8-bit RGB image, window by window, as expected by the networks that find masks.

    bands      red, green and blue where the file names them, else its first three, else its first one as grey
    values     8-bit as they are; others stretched between the 1st and 99th percentile of the whole raster, or as given

One stretch for the whole raster, so that adjacent tiles agree.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wasnow.errors import UsageError
from wasnow.priors.regions import Mask
from wasnow.raster.gdal import gdal_settings
from wasnow.raster.radiometry import Stretch
from wasnow.raster.reader import RasterReader
from wasnow.raster.source import RasterSource, probe
from wasnow.raster.survey import sample_windows
from wasnow.raster.tiles import Window

_SAMPLES = 2**20
"""Number of pixels from which the percentiles are computed."""


@dataclass(frozen=True)
class RgbRaster:
    """A raster and how it is rendered.

    Attributes:
        source: with the one or three rendered bands.
        stretch: the values that become black and white.
    """

    source: RasterSource
    stretch: Stretch

    @classmethod
    def of(
        cls,
        path: str | os.PathLike[str],
        bands: tuple[int, ...] | None = None,
        stretch: str = "auto",
        *,
        assume_crs: str | None = None,
        allow_indirect: bool = False,
    ) -> RgbRaster:
        """Open a raster and determine how to render it.

        Args:
            path: any raster that GDAL opens.
            bands: counted from 1: red, green, blue, or a single one; None chooses.
            stretch: ``auto``, or ``LOW,HIGH``.
            assume_crs: CRS of a raster without one.
            allow_indirect: also read files that refer to others, such as VRT.

        Raises:
            RasterUnreadable, RasterUnsuitable: missing, damaged, complex.
            BandsUnclear: a band does not exist.
            UsageError: neither one band nor three, or an invalid stretch.
        """
        source = probe(path, assume_crs=assume_crs, allow_indirect=allow_indirect)
        if bands is not None and len(bands) not in (1, 3):
            raise UsageError(f"--bands has {len(bands)} bands. Give three for red, green and blue, or one for grey")
        if source.palette is None:
            source = source.with_bands(bands or _shown(source))
        if stretch != "auto":
            return cls(source, Stretch.declared(stretch, source.n_bands))
        display = source.dtype == "uint8"
        samples = np.zeros((0, source.n_bands), np.float32) if display else _samples(source)
        return cls(source, Stretch.of_samples(samples, display=display))

    @contextmanager
    def open(self) -> Iterator[Callable[[Window], tuple[NDArray[np.uint8], Mask]]]:
        """Open the raster and return a function from a window to ``(h, w, 3)`` uint8 and validity ``(h, w)`` bool."""
        with gdal_settings(), RasterReader(self.source) as reader:

            def read(window: Window) -> tuple[NDArray[np.uint8], Mask]:
                values, valid = reader.read(window)
                grey = np.rint(np.nan_to_num(self.stretch.apply(values)) * 255).astype(np.uint8)
                if len(grey) == 1:
                    grey = np.repeat(grey, 3, axis=0)
                return np.ascontiguousarray(np.moveaxis(grey, 0, -1)), valid

            yield read


def _shown(source: RasterSource) -> tuple[int, ...]:
    named = {color: band for band, color in enumerate(source.colors, 1)}
    if all(color in named for color in ("red", "green", "blue")):
        return tuple(named[color] for color in ("red", "green", "blue"))
    return source.bands[:3] if len(source.bands) >= 3 else source.bands[:1]


def _samples(source: RasterSource) -> NDArray[np.float32]:
    windows = sample_windows(*source.grid.shape)
    every = max(1, sum(window.size for window in windows) // _SAMPLES)
    with gdal_settings(), RasterReader(source) as reader:
        taken = []
        for window in windows:
            values, valid = reader.read(window)
            taken.append(values[:, valid][:, ::every].T)
    return np.concatenate(taken)
