"""Strata of a sampling design: names, numbers of units and ground areas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wasnow.errors import InputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Strata:
    """The strata that a sample was drawn from.

    Attributes:
        names: one name per stratum, all different.
        sizes: sampling units (pixels or blocks) per stratum, N_h; used for the finite population correction. Infinite
            where the correction is to be left out.
        areas_m2: ground area per stratum in square metres; None where only shares are wanted. Weights are shares of
            ground area where it is known, because pixels of a geographic CRS differ in size.

    Raises:
        InputError: lengths differ, a name occurs twice, or a size or an area is not above 0.
    """

    names: tuple[str, ...]
    sizes: tuple[float, ...]
    areas_m2: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.names:
            raise InputError("no strata; a design needs at least one stratum with its size")
        if len(set(self.names)) != len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise InputError(f"stratum {twice!r} is listed twice; give each stratum one row")
        given = {"sizes": self.sizes} | ({} if self.areas_m2 is None else {"areas_m2": self.areas_m2})
        for what, values in given.items():
            if len(values) != len(self.names):
                raise InputError(f"{len(self.names)} strata but {len(values)} {what}; give one per stratum")
            for name, value in zip(self.names, values, strict=True):
                if not value > 0:
                    raise InputError(f"stratum {name!r} has {what} {value:g}; it must be greater than 0")
        if self.areas_m2 is None and not np.isfinite(self.sizes).all():
            raise InputError("a stratum has an infinite size and no area; give its ground area")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def weights(self) -> FloatArray:
        """Share of each stratum, W_h; they sum to 1."""
        values = np.asarray(self.sizes if self.areas_m2 is None else self.areas_m2, np.float64)
        shares: FloatArray = values / values.sum()
        return shares

    @property
    def total_area_m2(self) -> float | None:
        """Ground area of all strata together; None where it is unknown."""
        return None if self.areas_m2 is None else float(np.sum(self.areas_m2))

    def indices(self, stratum: Sequence[str] | Sequence[int] | NDArray[np.generic]) -> IntArray:
        """The position of the stratum of each point.

        Args:
            stratum: per point the name of its stratum, or its position.

        Raises:
            InputError: a point names a stratum that does not exist.
        """
        values = np.asarray(stratum)
        if values.dtype.kind in "iu":
            if values.size and (values.min() < 0 or values.max() >= len(self)):
                raise InputError(f"a point is in stratum {values.max()}, and there are strata 0 to {len(self) - 1}")
            return values.astype(np.int64)
        position = {name: index for index, name in enumerate(self.names)}
        unknown = sorted({str(value) for value in values.tolist() if str(value) not in position})
        if unknown:
            raise InputError(f"points are in stratum {unknown[0]!r}, which the design does not have: {self._listed()}")
        return np.array([position[str(value)] for value in values.tolist()], np.int64)

    def sampled(self, indices: IntArray) -> IntArray:
        """Points per stratum, n_h.

        Raises:
            InputError: a stratum has fewer than two points, so that its variance cannot be estimated.
        """
        counts = np.bincount(indices, minlength=len(self)).astype(np.int64)
        for name, count in zip(self.names, counts, strict=True):
            if count < 2:
                raise InputError(
                    f"stratum {name!r} has {count} labelled point{'' if count == 1 else 's'}; at least 2 are required: "
                    "label more points, or merge it with another stratum"
                )
        return counts

    def _listed(self) -> str:
        shown = ", ".join(self.names[:6])
        return shown + (f" and {len(self) - 6} more" if len(self) > 6 else "")
