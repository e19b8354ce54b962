"""Linear stretch of raster values to 0..1 for models and quicklooks.

    stretched = clip((value - low) / (high - low), 0, 1)

One (low, high) per date and band for the whole raster, so that neighbouring tiles agree. 8-bit RGB is not stretched.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wasnow.errors import UsageError

PERCENTILES = (1.0, 99.0)


@dataclass(frozen=True)
class Stretch:
    """Per band, the values that map to 0 and to 1."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of_samples(cls, samples: NDArray[np.float32], *, display: bool) -> Stretch:
        """Fit to ``(N, C)`` valid samples: 0..255 if ``display``, else the 1st and 99th percentile of each band."""
        bands = samples.shape[1]
        if display or samples.shape[0] == 0:
            return cls((0.0,) * bands, (255.0,) * bands)
        low, high = np.percentile(samples.astype(np.float64), PERCENTILES, axis=0)
        flat = high <= low
        return cls(tuple(low.tolist()), tuple(np.where(flat, low + 1, high).tolist()))

    @classmethod
    def declared(cls, text: str, bands: int) -> Stretch:
        """Parse ``"LOW,HIGH"``, the same for all bands.

        Raises:
            UsageError: not two numbers, or low is not below high.
        """
        try:
            low, high = (float(part) for part in text.split(","))
        except ValueError:
            raise UsageError(f"invalid --stretch {text!r}; write auto, or two numbers such as 0,3000") from None
        if not low < high:
            raise UsageError(f"invalid --stretch {text}: {low:g} is not below {high:g}; write the smaller number first")
        return cls((low,) * bands, (high,) * bands)

    def apply(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Stretch ``(C, h, w)`` values to 0..1 float32; NaN stays NaN."""
        low = np.asarray(self.low, np.float32)[:, None, None]
        scale = 1 / (np.asarray(self.high, np.float64) - np.asarray(self.low, np.float64))
        stretched = (values - low) * scale.astype(np.float32)[:, None, None]
        return np.clip(stretched, 0, 1, out=stretched)

    def pairs(self) -> tuple[tuple[float, float], ...]:
        """Return ((low, high), ...) for ``run.json``."""
        return tuple(zip(self.low, self.high, strict=True))
