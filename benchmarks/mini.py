"""Measure the default model: megapixels of pair per second, memory, and time to the first result.

    python benchmarks/mini.py [--side 4096] [--repeat 3] [parts ...]

Targets: 1 megapixel per second on two cores from file to file, 2 with OpenVINO, under 2 GB, and 6 seconds from the
command to the result of a pair of 512 px. Compared variants are measured in turns in one run. Parts:

    network   one tile through the network alone: plain, norms folded, activations fused, bfloat16, OpenVINO;
              several sizes, batches, numbers of threads
    wait      the same tile with OpenMP threads that sleep, spin, or spin briefly while they wait; memory kept or not
    whole     `wasnow.detect` on a pair of GeoTIFFs of SIDE px in a separate process: time inside and outside, peak
    start     `wasnow detect` on a pair of 512 px, from the shell

OpenVINO is left out where it is not installed. Rasters are generated in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from engine import make_raster
from timing import in_turns
from wasnow._system import passive_thread_waiting, retained_heap
from wasnow.models import loading
from wasnow.models.contract import ChangeModel
from wasnow.nn import one_pass
from wasnow.nn.fused import fused
from wasnow.pipeline.acceleration import accelerated
from wasnow.pipeline.api import detect
from wasnow.pipeline.backends import local

OPENVINO = find_spec("openvino") is not None
WAITING: Mapping[str, Mapping[str, str]] = {
    "threads sleep (the setting of the command)": {"OMP_WAIT_POLICY": "passive"},
    "threads spin (OpenMP's default)": {},
    "threads spin for 10,000 turns": {"GOMP_SPINCOUNT": "10000"},
    "threads sleep, memory is returned": {"OMP_WAIT_POLICY": "passive", "MALLOC_TRIM_THRESHOLD_": "131072"},
}
"""Environment variables of the process, by description."""

RUNS: Mapping[str, Mapping[str, object]] = {
    "tile 512": {"tile": 512},
    "tile 768": {"tile": 768},
    "tile 1024": {"tile": 1024},
    "tile 1024, one block at a time": {"tile": 1024, "concurrent": 1},
    "tile 1024, two processes": {"tile": 1024, "workers": 2},
    "tile 1024, bf16": {"tile": 1024, "precision": "bf16"},
    "tile 1024, openvino": {"tile": 1024, "device": "openvino"},
    "tile 1024, openvino bf16": {"tile": 1024, "device": "openvino", "precision": "bf16"},
}
"""Options of a run, by description."""


def peak_mb() -> float:
    """Peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# --- one tile ---------------------------------------------------------------------------------------------------------


def answer(model: ChangeModel, side: int, batch: int, mode: Callable[[], AbstractContextManager[object]]) -> object:
    """Call the model as the pipeline does.

    Args:
        model: the network.
        side: rows and columns of the tile.
        batch: tiles per call.
        mode: context of the call, for example autocast.
    """
    tiles = torch.rand(2, batch, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), mode():
        return model(tiles[0], tiles[1], torch.ones(batch, 1, side, side, dtype=torch.bool))


@contextmanager
def two_passes() -> Iterator[None]:
    """Switch the fused operator off: plain convolutions, then activations."""
    operator, one_pass._operator = one_pass._operator, lambda: None
    try:
        yield
    finally:
        one_pass._operator = operator


def network(repeat: int) -> None:
    """Print the time of each variant of the network for several sizes, batches and numbers of threads."""
    cores = torch.get_num_threads()
    plain = loading.load("semantic-cd-mini")
    assert isinstance(plain, nn.Module)
    bf16 = partial(torch.autocast, "cpu", torch.bfloat16)
    shapes = [(side, 1, cores) for side in (512, 768, 1024)] + [(512, 2, cores), (512, 4, cores), (512, 1, 1)]
    for side, batch, threads in shapes:
        torch.set_num_threads(threads)
        last = loading.load("semantic-cd-mini").to(memory_format=torch.channels_last)  # type: ignore[union-attr]
        variants: dict[str, tuple[ChangeModel, Callable[[], AbstractContextManager[object]]]] = {
            "plain float32": (plain, nullcontext),
            "weights with channels last": (last, nullcontext),
            "norms folded": (fused(plain), two_passes),
            "and activations fused": (fused(plain), nullcontext),
            "and activations fused, bf16": (fused(plain), bf16),
        }
        if OPENVINO:
            variants["openvino"] = (accelerated(plain, device="openvino"), nullcontext)
            variants["openvino, bf16"] = (accelerated(plain, device="openvino", precision="bf16"), nullcontext)
        work = {name: partial(answer, model, side, batch, mode) for name, (model, mode) in variants.items()}
        times = in_turns(work, repeat)
        print(f"  {side} px, batch {batch}, {threads} threads")
        for name, seconds in times.items():
            print(
                f"    {name:28} {seconds:7.3f} s   {batch * side * side / seconds / 1e6:5.2f} Mpx/s   "
                f"{times['plain float32'] / seconds:5.2f} x plain"
            )
    torch.set_num_threads(cores)
    print(f"  peak memory of all variants together {peak_mb():.0f} MB")


def wait(repeat: int) -> None:
    """Print the time of a tile in separate processes whose environments differ."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "MALLOC_"))}
    times: dict[str, list[float]] = {name: [] for name in WAITING}
    for _ in range(repeat):
        for name, environment in WAITING.items():
            command = [sys.executable, __file__, "tile"]
            done = subprocess.run(command, env={**clean, **environment}, capture_output=True, text=True, check=True)
            times[name].append(float(done.stdout))
    first = statistics.median(next(iter(times.values())))
    for name, each in times.items():
        seconds = statistics.median(each)
        print(f"  {name:44} {seconds:7.3f} s per tile of 512 px   {seconds / first:5.2f} x the first")


def tile() -> None:
    """Print the median time of a tile of 512 px in the environment of this process."""
    model = fused(loading.load("semantic-cd-mini"))  # type: ignore[type-var]
    with retained_heap():
        print(in_turns({"tile": partial(answer, model, 512, 1, nullcontext)}, 7)["tile"])


# --- whole runs -------------------------------------------------------------------------------------------------------


def rasters(folder: Path, side: int) -> None:
    """Write a pair with three bands that differs in a few places."""
    for file, seed in (("before.tif", 0), ("after.tif", 1)):
        make_raster(folder / file, side, seed)


def whole(side: int, repeat: int) -> None:
    """Print time and memory of runs from file to file, each in a separate process."""
    with tempfile.TemporaryDirectory() as name:
        rasters(Path(name), side)
        for _ in range(repeat):
            for what, options in RUNS.items():
                if options.get("device") == "openvino" and not OPENVINO:
                    continue
                start = time.perf_counter()
                command = [sys.executable, __file__, "one", name, json.dumps(options)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                outside, found = time.perf_counter() - start, json.loads(done.stdout.splitlines()[-1])
                print(
                    f"  {what:26} inside {found['seconds']:6.1f} s, {side * side / found['seconds'] / 1e6:5.2f} Mpx/s; "
                    f"process {outside:6.1f} s, {side * side / outside / 1e6:5.2f} Mpx/s; peak {found['peak_mb']:.0f} "
                    f"MB; phases {json.dumps(found['phases'])}",
                    flush=True,
                )


def one(folder: Path, options: dict[str, object]) -> None:
    """Run once in this process and print its time, memory and phases."""
    local.CONCURRENT_BLOCKS = options.pop("concurrent", local.CONCURRENT_BLOCKS)  # type: ignore[assignment]
    with tempfile.TemporaryDirectory(dir=folder) as output:
        start = time.perf_counter()
        result = detect(folder / "before.tif", folder / "after.tif", output=Path(output) / "out", **options)
        seconds = time.perf_counter() - start
        phases = {name: round(each, 2) for name, each in result.record.timings_s.items()}
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb(), "phases": phases}))


def start(repeat: int) -> None:
    """Print the time of a whole command, from start to written results."""
    script = Path(sysconfig.get_path("scripts")) / "wasnow"
    if not script.exists():
        sys.exit(f"{script} not found. Install wasnow into this environment (make env)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rasters(folder, 512)
        took = []
        for attempt in range(repeat + 1):
            command = [str(script), "detect", str(folder / "before.tif"), str(folder / "after.tif"), "--quiet"]
            at = time.perf_counter()
            subprocess.run([*command, "--output", str(folder / f"out{attempt}")], check=True)
            took.append(time.perf_counter() - at)
    print(f"  first run {took[0]:.1f} s, then median {statistics.median(took[1:]):.1f} s of {repeat}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", default=["network", "wait", "whole", "start"])
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--repeat", type=int, default=3)
    chosen = parser.parse_args()
    openvino = "installed" if OPENVINO else "not installed"
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, OpenVINO {openvino}")
    for part in chosen.parts:
        print(part, flush=True)
        if part == "whole":
            whole(chosen.side, chosen.repeat)
        else:
            {"network": network, "wait": wait, "start": start}[part](chosen.repeat)


if __name__ == "__main__":
    if sys.argv[1:2] == ["tile"]:
        tile()
    elif sys.argv[1:2] == ["one"]:
        one(Path(sys.argv[2]), json.loads(sys.argv[3]))
    elif "OMP_WAIT_POLICY" not in os.environ:
        # Torch is already loaded with spinning threads: start again with the settings of the command.
        passive_thread_waiting()
        os.execv(sys.executable, [sys.executable, *sys.argv])
    else:
        main()
