"""Draw sampling units: the units with the smallest hash keys of each stratum.

The key of a unit depends only on the seed and on its linear index in the raster. So the same units are drawn whatever
the tiles, threads or order of reading; a later, larger sample begins with the earlier one; and anybody who has the map
and the seed can repeat the draw. Units are drawn without replacement and with equal probability within a stratum.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wasnow.areas.strata import IntArray

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


class Draw:
    """Keeps the smallest keys of each stratum while a raster streams by.

    Args:
        seed: of the keys.
        wanted: units to keep per stratum.
    """

    def __init__(self, seed: int, wanted: IntArray) -> None:
        self._seed = seed
        self._wanted = np.asarray(wanted, np.int64)
        self._keys: list[KeyArray] = [np.empty(0, np.uint64) for _ in self._wanted]
        self._indices: list[IntArray] = [np.empty(0, np.int64) for _ in self._wanted]
        self.sizes: IntArray = np.zeros(len(self._wanted), np.int64)

    def add(self, strata: NDArray[np.integer], indices: IntArray) -> None:
        """Offer units.

        Args:
            strata: ``(n,)`` position of the stratum of each unit; negative outside the study area.
            indices: ``(n,)`` linear index of each unit in the raster.
        """
        inside = strata >= 0
        some, places = strata[inside], indices[inside]
        self.sizes += np.bincount(some, minlength=len(self._wanted)).astype(np.int64)
        order = keys(self._seed, places)
        for stratum in np.unique(some).tolist():
            chosen = some == stratum
            self._keep(stratum, order[chosen], places[chosen])

    def drawn(self) -> list[IntArray]:
        """Linear indices per stratum, in the order in which they should be labelled."""
        return [
            indices[np.argsort(order, kind="stable")] for order, indices in zip(self._keys, self._indices, strict=True)
        ]

    def _keep(self, stratum: int, order: KeyArray, places: IntArray) -> None:
        wanted = int(self._wanted[stratum])
        joined = np.concatenate([self._keys[stratum], order])
        indices = np.concatenate([self._indices[stratum], places])
        if len(joined) > wanted:
            nearest = np.argpartition(joined, wanted - 1)[:wanted] if wanted else np.empty(0, np.int64)
            joined, indices = joined[nearest], indices[nearest]
        self._keys[stratum], self._indices[stratum] = joined, indices
