"""Draw sampling units: the units with the smallest hash keys of each stratum.

The key of a unit depends only on the seed and on its linear index in the raster. So the same units are drawn whatever
the tiles, threads or order of reading; a later, larger sample begins with the earlier one; and anybody who has the map
and the seed can repeat the draw. Units are drawn without replacement, within a stratum with equal probability per unit
or per square metre.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wasnow.areas.strata import FloatArray, IntArray

KeyArray = NDArray[np.uint64]


def keys(seed: int, indices: NDArray[np.integer]) -> KeyArray:
    """A 64-bit key for each linear index: SplitMix64 (Steele, Lea and Flood 2014) of the index, offset by the seed.

    Args:
        seed: any integer from 0 to below 2^64.
        indices: linear indices ``row * width + col``, from 0.
    """
    with np.errstate(over="ignore"):
        start = _mixed(np.asarray([seed], np.uint64))
        return _mixed(np.asarray(indices).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + start)


def _mixed(values: KeyArray) -> KeyArray:
    with np.errstate(over="ignore"):
        x = values + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def order(seed: int, indices: NDArray[np.integer], areas: FloatArray | None = None) -> FloatArray:
    """The number by which units are ranked; the smallest are drawn.

    With areas, ``-ln(u) / area`` for a uniform u of each unit, so that a unit is drawn in proportion to its ground area
    (Efraimidis and Spirakis 2006); without, the same with area 1.

    Args:
        seed: of the keys.
        indices: linear indices of the units.
        areas: ground area of each unit; None where all are equal.
    """
    uniform = (keys(seed, indices).astype(np.float64) + 0.5) / 2.0**64
    rank: FloatArray = -np.log(np.minimum(uniform, 1.0))
    return rank if areas is None else rank / areas


class Draw:
    """Keeps the first units of each stratum while a raster streams by.

    Attributes:
        sizes: units seen per stratum, N_h.
        areas_m2: their ground area per stratum; zeros where no areas were given.

    Args:
        seed: of the keys.
        wanted: units to keep per stratum.
    """

    def __init__(self, seed: int, wanted: IntArray) -> None:
        self._seed = seed
        self._wanted = np.asarray(wanted, np.int64)
        self._ranks: list[FloatArray] = [np.empty(0, np.float64) for _ in self._wanted]
        self._indices: list[IntArray] = [np.empty(0, np.int64) for _ in self._wanted]
        self.sizes: IntArray = np.zeros(len(self._wanted), np.int64)
        self.areas_m2: FloatArray = np.zeros(len(self._wanted))

    def add(self, strata: NDArray[np.integer], indices: IntArray, areas: FloatArray | None = None) -> None:
        """Offer units.

        Args:
            strata: ``(n,)`` position of the stratum of each unit; negative outside the study area.
            indices: ``(n,)`` linear index of each unit in the raster.
            areas: ``(n,)`` ground area of each unit in square metres; None where all are equal.
        """
        inside = strata >= 0
        some, places = strata[inside].astype(np.int64), indices[inside]
        grounds = None if areas is None else areas[inside]
        self.sizes += np.bincount(some, minlength=len(self._wanted)).astype(np.int64)
        if grounds is not None:
            self.areas_m2 += np.bincount(some, weights=grounds, minlength=len(self._wanted))
        ranks = order(self._seed, places, grounds)
        for stratum in np.unique(some).tolist():
            chosen = some == stratum
            self._keep(stratum, ranks[chosen], places[chosen])

    def drawn(self) -> list[IntArray]:
        """Linear indices per stratum, in the order in which they should be labelled."""
        kept = zip(self._ranks, self._indices, strict=True)
        return [indices[np.lexsort((indices, ranks))] for ranks, indices in kept]

    def _keep(self, stratum: int, ranks: FloatArray, places: IntArray) -> None:
        wanted = int(self._wanted[stratum])
        joined = np.concatenate([self._ranks[stratum], ranks])
        indices = np.concatenate([self._indices[stratum], places])
        if len(joined) > wanted:
            first = np.argpartition(joined, wanted - 1)[:wanted] if wanted else np.empty(0, np.int64)
            joined, indices = joined[first], indices[first]
        self._ranks[stratum], self._indices[stratum] = joined, indices
