"""Compare one worker with two, and threads with workers, on the same rasters.

    python benchmarks/executors.py                          the default network and irmad, 4,096 px
    python benchmarks/executors.py --side 2048 irmad        smaller, one model

For each model: this process, one worker and two workers with one thread each, then one worker and this process with all
threads. Seconds per block are measured between the first and the last finished block, so they leave out what does not
scale. The whole run goes from start to result folder and includes the start of the processes. The figures are in
docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from engine import make_raster
from wasnow._system import passive_thread_waiting
from wasnow.pipeline.api import detect


class BlockTimes:
    """Records when blocks finish, as a progress callback."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def __call__(self, phase: str, done: int, total: int) -> None:
        if phase == "detect" and done:
            self.at.append(time.perf_counter())

    @property
    def seconds_per_block(self) -> float:
        """Mean time between two finished blocks."""
        return (self.at[-1] - self.at[0]) / max(1, len(self.at) - 1)


def measure(model: str, side: int, cores: int) -> None:
    """Print a row for each way to use the cores, and the ratios.

    Args:
        model: name of a model.
        side: rows and columns of the pair.
        cores: threads of the rows that use all of them.
    """
    settings = {
        "this process, 1 thread": (1, None),
        "1 worker, 1 thread": (1, 1),
        "2 workers, 1 thread each": (1, 2),
        f"1 worker, {cores} threads": (cores, 1),
        f"this process, {cores} threads": (cores, None),
    }
    per_block, whole = {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for file, seed in (("before.tif", 0), ("after.tif", 1)):
            make_raster(folder / file, side, seed)
        for number, (name, (threads, workers)) in enumerate(settings.items()):
            torch.set_num_threads(threads)
            recorder, start = BlockTimes(), time.perf_counter()
            detect(
                folder / "before.tif",
                folder / "after.tif",
                output=folder / f"out{number}",
                model=model,
                workers=workers,
                progress=recorder,
            )
            whole[name], per_block[name] = time.perf_counter() - start, recorder.seconds_per_block
            print(f"{model:18} {name:26} {per_block[name]:7.2f} s per block {whole[name]:8.1f} s in all", flush=True)
    one, two = "1 worker, 1 thread", "2 workers, 1 thread each"
    print(
        f"{model:18} two workers over one: {per_block[one] / per_block[two]:.2f} times the blocks per second, "
        f"{whole[one] / whole[two]:.2f} times the speed of the whole run; "
        f"two workers over one process of {cores} threads: "
        f"{per_block[f'this process, {cores} threads'] / per_block[two]:.2f} times the blocks per second",
        flush=True,
    )


def main() -> None:
    """Measure every model named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["semantic-cd-mini", "irmad"])
    parser.add_argument("--side", type=int, default=4096)
    arguments = parser.parse_args()
    passive_thread_waiting()
    cores = torch.get_num_threads()
    for model in arguments.models:
        measure(model, arguments.side, cores)


if __name__ == "__main__":
    main()
