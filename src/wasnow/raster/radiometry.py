"""From a file's numbers to the 0..1 that a model sees or the 0..255 that a person sees.

    shown = clip((value - low) / (high - low), 0, 1)

One (low, high) per date and band for the whole raster, so that neighbouring tiles agree. 8-bit RGB is left as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wasnow.errors import UsageError

PERCENTILES = (1.0, 99.0)


@dataclass(frozen=True)
class Stretch:
    """Per band the numbers shown as black and as white.

    Raises:
        UsageError: low is not below high.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of_samples(cls, samples: NDArray[np.float32], *, as_it_is: bool) -> Stretch:
        """From ``(N, C)`` valid samples: 0..255 where ``as_it_is``, else the 1st and 99th percentile of each band."""
        bands = samples.shape[1]
        if as_it_is or samples.shape[0] == 0:
            return cls((0.0,) * bands, (255.0,) * bands)
        low, high = np.percentile(samples.astype(np.float64), PERCENTILES, axis=0)
        flat = high <= low
        return cls(tuple(low.tolist()), tuple(np.where(flat, low + 1, high).tolist()))

    @classmethod
    def declared(cls, text: str, bands: int) -> Stretch:
        """From ``"LOW,HIGH"`` as the user wrote it, the same for all bands."""
        try:
            low, high = (float(part) for part in text.split(","))
        except ValueError:
            raise UsageError(f"--stretch {text!r} is not understood; write auto, or two numbers as 0,3000") from None
        if not low < high:
            raise UsageError(f"--stretch {text} goes from {low:g} to {high:g}; write the smaller number first")
        return cls((low,) * bands, (high,) * bands)

    def apply(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """``(C, h, w)`` to 0..1 float32; NaN stays NaN."""
        low = np.asarray(self.low, np.float32)[:, None, None]
        scale = 1 / (np.asarray(self.high, np.float64) - np.asarray(self.low, np.float64))
        shown = (values - low) * scale.astype(np.float32)[:, None, None]
        return np.clip(shown, 0, 1, out=shown)

    def pairs(self) -> tuple[tuple[float, float], ...]:
        """((low, high), ...), for the record."""
        return tuple(zip(self.low, self.high, strict=True))
