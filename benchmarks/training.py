"""Measure the share of training time that is spent waiting for the next batch.

    python benchmarks/training.py [--crop 256] [--steps 20] [--workers 0 1 2] [--model sscd-l]

Pairs of 512 x 512 px are written as PNG in the layout of SECOND, read, cropped, rotated and relit as in training. The
script also prints the speed of training and that of reading without a network: their quotient states how much faster a
device could be before data loading limits it.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio

from wasnow.data.dataset import open_dataset
from wasnow.data.samples import Samples
from wasnow.data.transforms import Augment, ColorJitter
from wasnow.synthetic import CLASSES, render_scene
from wasnow.training.config import Stage
from wasnow.training.loader import BatchLoader
from wasnow.training.logging import NullLogger, Progress
from wasnow.training.recipes import sscd_l_small
from wasnow.training.trainer import train

COLORS = np.array([[255, 255, 255], [128, 0, 0], [128, 128, 128], [0, 0, 255], [0, 128, 0], [255, 0, 0]], np.uint8)


class Last(NullLogger):
    """Keeps the progress of the last step."""

    seen: Progress

    def step(self, progress: Progress) -> None:
        """Keep it."""
        self.seen = progress


def write_pairs(folder: Path, count: int, side: int = 512) -> None:
    """Write synthetic scenes in the layout of SECOND."""
    assert len(CLASSES) + 1 == len(COLORS)
    for i in range(count):
        scene = render_scene(i, height=side, width=side)
        parts = {"im1": scene.before, "im2": scene.after}
        for name, codes in (("label1", scene.before_classes), ("label2", scene.after_classes)):
            parts[name] = COLORS[np.where(scene.changed, codes, 0)]
        for name, rgb in parts.items():
            path = folder / "train" / name / f"{i:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            with rasterio.open(path, "w", driver="PNG", width=side, height=side, count=3, dtype="uint8") as file:
                file.write(np.moveaxis(rgb, 2, 0))


def read_alone(samples: Samples, crop: int, workers: int, steps: int, batch: int) -> float:
    """Pairs per second without a network.

    Args:
        samples: the pairs.
        crop: side of the crops in px.
        workers: processes that read.
        steps: batches to read.
        batch: pairs per batch.
    """
    loader = BatchLoader(samples, Augment(crop=crop, light=ColorJitter()), seed=0, batch_size=batch, workers=workers)
    began = time.perf_counter()
    for _ in loader.batches(0, steps):
        pass
    return steps * batch / (time.perf_counter() - began)


def main() -> None:
    """Print one line for each number of workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sscd-l")
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="32")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        write_pairs(Path(folder) / "data", given.pairs)
        samples = open_dataset(Path(folder) / "data").splits["train"]
        for workers in given.workers:
            alone = read_alone(samples, given.crop, workers, given.steps, given.batch)
            config = sscd_l_small().model_copy(
                update={
                    "model": given.model,
                    "crop": given.crop,
                    "batch_size": given.batch,
                    "workers": workers,
                    "holdback": 0.0,
                    "device": given.device,
                    "precision": given.precision,
                    "stages": (Stage(loss="ding", steps=given.steps),),
                }
            )
            last = Last()
            train(config, {"train": samples}, Path(folder) / f"run{workers}", logger=last)
            print(
                f"{workers} workers: {100 * last.seen.waiting:5.1f} % of the time waiting, "
                f"{last.seen.pairs_per_s:6.2f} pairs/s trained, {alone:6.2f} pairs/s read alone"
            )


if __name__ == "__main__":
    main()
