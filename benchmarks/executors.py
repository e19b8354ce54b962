"""One worker against two, and threads against workers, on the same rasters in one go.

    python benchmarks/executors.py                          the default network and irmad, 4,096 px
    python benchmarks/executors.py --side 2048 irmad        smaller, one model

For each model: this process, then one worker and two with one thread each, then one worker and this process with all
threads. Seconds a block are those between answers, from the first to the last: what scales. The whole run goes from
start to result folder, with the start of the processes in it. Figures for docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from engine import make_raster
from wasnow._system import patient_threads
from wasnow.pipeline.run import detect


class Watch:
    """When the first and the last block were answered."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def __call__(self, phase: str, done: int, total: int) -> None:
        if phase == "detect" and done:
            self.at.append(time.perf_counter())

    @property
    def seconds_a_block(self) -> float:
        """Between answers, once they come."""
        return (self.at[-1] - self.at[0]) / max(1, len(self.at) - 1)


def measure(model: str, side: int, cores: int) -> None:
    """Print a row for each way to use the cores, and the ratios."""
    ways = {
        "this process, 1 thread": (1, None),
        "1 worker, 1 thread": (1, 1),
        "2 workers, 1 thread each": (1, 2),
        f"1 worker, {cores} threads": (cores, 1),
        f"this process, {cores} threads": (cores, None),
    }
    a_block, whole = {}, {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, seed in (("before.tif", 0), ("after.tif", 1)):
            make_raster(folder / file, side, seed)
        for number, (way, (threads, workers)) in enumerate(ways.items()):
            torch.set_num_threads(threads)
            watch, at = Watch(), time.perf_counter()
            detect(
                folder / "before.tif",
                folder / "after.tif",
                output=folder / f"out{number}",
                model=model,
                workers=workers,
                progress=watch,
            )
            whole[way], a_block[way] = time.perf_counter() - at, watch.seconds_a_block
            print(f"{model:18} {way:26} {a_block[way]:7.2f} s a block {whole[way]:8.1f} s in all", flush=True)
    one, two = "1 worker, 1 thread", "2 workers, 1 thread each"
    print(
        f"{model:18} two workers against one: {a_block[one] / a_block[two]:.2f} times the blocks, "
        f"{whole[one] / whole[two]:.2f} times the whole run; two workers against one process of {cores} threads: "
        f"{a_block[f'this process, {cores} threads'] / a_block[two]:.2f} times the blocks",
        flush=True,
    )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["semantic-cd-mini", "irmad"])
    parser.add_argument("--side", type=int, default=4096)
    arguments = parser.parse_args()
    patient_threads()
    cores = torch.get_num_threads()
    for model in arguments.models:
        measure(model, arguments.side, cores)


if __name__ == "__main__":
    main()
