"""Measure the time to score one pair of 512 x 512 px with six classes, both protocols. Target: 3 ms at most.

    python benchmarks/scores.py [RUNS]

``count`` runs once per image, ``scores`` once per set of images (or once per image for per-image rows).
"""

from __future__ import annotations

import functools
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wasnow.evaluation.metrics import Confusion, bootstrap

SIDE, CLASSES = 512, 6


def pair(seed: int, *, ignored: float = 0.0) -> tuple[NDArray[np.uint8], ...]:
    """Predicted and labelled codes of both dates: blobs of change on a fifth of the pixels, with 10 % errors."""
    draw = np.random.default_rng(seed)

    def blobs(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return values.repeat(16, 0).repeat(16, 1)

    coarse = (SIDE // 16, SIDE // 16)
    changed = blobs((draw.random(coarse) < 0.2).astype(np.uint8))
    labels = [changed * blobs(draw.integers(1, CLASSES + 1, coarse, np.uint8)) for _ in range(2)]
    wrong = draw.random((SIDE, SIDE)) < 0.1
    predictions = [np.where(wrong, draw.integers(0, CLASSES + 1, (SIDE, SIDE), np.uint8), label) for label in labels]
    if ignored:
        hidden = draw.random((SIDE, SIDE)) < ignored
        labels = [np.where(hidden, np.uint8(255), label) for label in labels]
    return (*predictions, *labels)


def milliseconds(work: Callable[[], object], runs: int) -> tuple[float, float]:
    """Median and best of ``runs``, after three to warm up. On a busy machine only the best is reliable."""
    for _ in range(3):
        work()
    took = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        took.append(1000 * (time.perf_counter() - start))
    return statistics.median(took), min(took)


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    print(f"median (best) of {runs} runs, {SIDE} x {SIDE}, {CLASSES} classes")
    for title, share in (("", 0.0), (" (1% of the labels ignored)", 0.01)):
        a, b, c, d = pair(0, ignored=share)
        one = Confusion.of_classes((a, b), (c, d), CLASSES)
        work: dict[str, Callable[[], object]] = {
            "count": functools.partial(Confusion.of_classes, (a, b), (c, d), CLASSES),
            "scores": one.scores,
        }
        times = {name: milliseconds(call, runs) for name, call in work.items()}
        median, best = (sum(both) for both in zip(*times.values(), strict=True))
        parts = "   ".join(f"{name} {mid:5.2f} ({low:5.2f}) ms" for name, (mid, low) in times.items())
        print(f"{parts}   together {median:5.2f} ({best:5.2f}) ms{title}")
    images = [Confusion.of_classes(p[:2], p[2:], CLASSES) for p in map(pair, range(20))] * 85  # type: ignore[arg-type]
    size = sum(one.cells.nbytes + one.counts.nbytes for one in images) / len(images) / 1000
    start = time.perf_counter()
    bootstrap(images)
    took = time.perf_counter() - start
    print(f"bootstrap of {len(images)} images, 1000 resamples: {took:.2f} s; {size:.0f} kB per image")


if __name__ == "__main__":
    main()
