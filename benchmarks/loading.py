"""Measure how many samples of 512 x 512 px per second are read, transformed, or made from single dates.

    python benchmarks/loading.py [SAMPLES] [--masks FOLDER]

The images are random: smooth texture with noise, so that PNG decodes as slowly as for photographs. ``--masks`` names a
folder of images with land-cover masks, for making pairs.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from scipy import ndimage

from wasnow.data.dataset import open_dataset
from wasnow.data.export import export_second
from wasnow.data.mask_folder import open_masks
from wasnow.data.pairs import GeneratedPairs, PairRecipe
from wasnow.data.samples import Sample
from wasnow.data.transforms import Augment, ColorJitter
from wasnow.vocabulary import SECOND_WORDS, Vocabulary

SIDE, PAIRS = 512, 24


class RandomPairs:
    """A few random pairs in memory."""

    vocabulary = Vocabulary(SECOND_WORDS)
    names = tuple(f"{index:05d}" for index in range(PAIRS))
    fingerprint = "random"

    def __len__(self) -> int:
        return PAIRS

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        coarse = ndimage.zoom(rng.normal(0, 40, (2, SIDE // 16, SIDE // 16, 3)), (1, 16, 16, 1), order=1)
        before, after = np.clip(128 + coarse + rng.normal(0, 6, coarse.shape), 0, 255).astype(np.uint8)
        first, second = (rng.integers(1, 7, (SIDE // 32, SIDE // 32)).repeat(32, 0).repeat(32, 1) for _ in range(2))
        changed = (rng.random((SIDE // 32, SIDE // 32)) < 0.2).repeat(32, 0).repeat(32, 1)
        first, second = (np.where(changed, codes, 0).astype(np.uint8) for codes in (first, second))
        return Sample(self.names[index], before, after, first, second, changed.astype(np.uint8))


def rate(work: Callable[[int], object], samples: int, threads: int) -> float:
    """Samples per second, after three to warm up."""
    for index in range(3):
        work(index)
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, range(samples)):
            pass
    return samples / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", nargs="?", type=int, default=96)
    parser.add_argument("--masks", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        export_second({"train": RandomPairs()}, Path(folder))
        files = open_dataset(folder).splits["train"]
        flips = Augment()
        everything = Augment(crop=448, scale=(0.8, 1.25), light=ColorJitter())

        def augmented(augment: Augment) -> Callable[[int], Sample]:
            return lambda index: augment(files[index % PAIRS], np.random.default_rng(index))

        work: dict[str, Callable[[int], object]] = {
            "files": lambda index: files[index % PAIRS],
            "files, flips and turns": augmented(flips),
            "files, crop, scale, light": augmented(everything),
        }
        if options.masks is not None:
            made = GeneratedPairs(open_masks(options.masks), 1, 0, PairRecipe(size=SIDE))
            work["made from single dates"] = made.pair
        print(f"samples of {SIDE} x {SIDE} px per second, {options.samples} each, {os.cpu_count()} cores")
        for name, threads in itertools.product(work, (1, 2, 4)):
            print(f"{name:>26}  {threads} threads  {rate(work[name], options.samples, threads):6.1f}/s")


if __name__ == "__main__":
    main()
