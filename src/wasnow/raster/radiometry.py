"""Linear stretch of raster values to 0..1 for models and quicklooks.

    stretched = clip((value - low) / (high - low), 0, 1)

One (low, high) per date and band for the whole raster, so that neighbouring tiles agree. 8-bit RGB is not stretched.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wasnow.errors import UsageError

PERCENTILES = (1.0, 99.0)


@dataclass(frozen=True)
class Conversion:
    """Stored values to the float32 values of a reader: ``(stored * scale + offset - base) / unit``, in float64.

    Attributes:
        scales: as declared, one per band.
        offsets: as declared, one per band.
        base: subtracted so that float32 resolves small differences of large values; the same for both dates.
        unit: divisor for values that float32 cannot represent; the same for both dates.
    """

    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    base: float = 0.0
    unit: float = 1.0

    @property
    def is_identity(self) -> bool:
        """Whether values are only cast to float32."""
        declared = all(scale == 1 for scale in self.scales) and not any(self.offsets)
        return declared and self.base == 0 and self.unit == 1

    def physical(self, stored: NDArray[Any]) -> NDArray[np.float64]:
        """Return ``(C, ...)`` stored values with declared scale and offset applied."""
        shape = (-1,) + (1,) * (stored.ndim - 1)
        scales, offsets = (np.asarray(each, np.float64).reshape(shape) for each in (self.scales, self.offsets))
        return np.asarray(stored.astype(np.float64) * scales + offsets)

    def apply(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Return ``(C, ...)`` stored values as a reader returns them."""
        if self.is_identity:
            return stored.astype(np.float32)
        return ((self.physical(stored) - self.base) / self.unit).astype(np.float32)


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
    def declared(cls, text: str, bands: int, date: int = 0, conversion: Conversion | None = None) -> Stretch:
        """Parse ``"LOW,HIGH"``, or ``"LOW,HIGH,LOW,HIGH"`` for one stretch per date; the same for all bands.

        Args:
            text: in physical units: after the declared scale and offset of the file.
            bands: number of bands.
            date: 0 for before, 1 for after.
            conversion: of the raster; None for plain values.

        Raises:
            UsageError: not two numbers, or low is not below high.
        """
        try:
            numbers = [float(part) for part in text.split(",")]
            if len(numbers) not in (2, 4) or not all(map(math.isfinite, numbers)):
                raise ValueError
            low, high = numbers[2 * date : 2 * date + 2] if len(numbers) == 4 else numbers
        except ValueError:
            raise UsageError(
                f"invalid --stretch {text!r}; write auto, two numbers such as 0,3000, or four for one stretch per date"
            ) from None
        if not low < high:
            raise UsageError(f"invalid --stretch {text}: {low:g} is not below {high:g}; write the smaller number first")
        if conversion is not None:
            low, high = ((number - conversion.base) / conversion.unit for number in (low, high))
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
