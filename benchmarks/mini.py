"""The network that comes with wasnow: megapixels of pair per second, memory, and how soon the first result is there.

    python benchmarks/mini.py [--side 4096] [--repeat 3] [parts ...]

Wanted: 1 megapixel a second on two cores from file to file, 2 through OpenVINO, under 2 GB, and 6 seconds from pressing
enter to the result of a pair of 512 px. Every comparison is of things measured in turns in one run. Parts:

    network   one tile through the network alone: plain, norms folded, activations too, bfloat16,
              OpenVINO; sizes, batches, threads
    wait      the same tile where OpenMP's threads sleep, spin, or spin a little while they wait; kept memory
    whole     `wasnow.detect` on a pair of GeoTIFFs of SIDE px, in a process of its own: seconds inside, outside, peak
    start     `wasnow detect` on a pair of 512 px, from the shell and back

OpenVINO is left out where it is not installed. Rasters are made in a temporary folder and removed.
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
from wasnow._system import kept_memory, patient_threads
from wasnow.models import registry
from wasnow.models.contract import ChangeModel
from wasnow.nn import one_pass
from wasnow.nn.fused import fused
from wasnow.pipeline.acceleration import accelerated
from wasnow.pipeline.backends import here
from wasnow.pipeline.run import detect

OPENVINO = find_spec("openvino") is not None
WAITING: Mapping[str, Mapping[str, str]] = {
    "threads sleep (as the command line does)": {"OMP_WAIT_POLICY": "passive"},
    "threads spin (OpenMP's own)": {},
    "threads spin for 10,000 turns": {"GOMP_SPINCOUNT": "10000"},
    "threads sleep, memory goes back": {"OMP_WAIT_POLICY": "passive", "MALLOC_TRIM_THRESHOLD_": "131072"},
}
"""By what is measured: the environment of a process of its own."""

RUNS: Mapping[str, Mapping[str, object]] = {
    "tile 512": {"tile": 512},
    "tile 768": {"tile": 768},
    "tile 1024": {"tile": 1024},
    "tile 1024, one block at a time": {"tile": 1024, "lanes": 1},
    "tile 1024, two processes": {"tile": 1024, "workers": 2},
    "tile 1024, bf16": {"tile": 1024, "precision": "bf16"},
    "tile 1024, openvino": {"tile": 1024, "device": "openvino"},
    "tile 1024, openvino bf16": {"tile": 1024, "device": "openvino", "precision": "bf16"},
}
"""By what is measured: the options of a run."""


def peak_mb() -> float:
    """Most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# --- one tile ---------------------------------------------------------------------------------------------------------


def answer(model: ChangeModel, side: int, batch: int, mode: Callable[[], AbstractContextManager[object]]) -> object:
    """One call, as the engine makes it."""
    tiles = torch.rand(2, batch, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), mode():
        return model(tiles[0], tiles[1], torch.ones(batch, 1, side, side, dtype=torch.bool))


@contextmanager
def two_passes() -> Iterator[None]:
    """Convolutions as plain torch has them, activations afterwards."""
    operator, one_pass._operator = one_pass._operator, lambda: None
    try:
        yield
    finally:
        one_pass._operator = operator


def network(repeat: int) -> None:
    """Every way of running the network, for some sizes, batches and numbers of threads."""
    cores = torch.get_num_threads()
    plain = registry.ready("semantic-cd-mini")
    assert isinstance(plain, nn.Module)
    bf16 = partial(torch.autocast, "cpu", torch.bfloat16)
    shapes = [(side, 1, cores) for side in (512, 768, 1024)] + [(512, 2, cores), (512, 4, cores), (512, 1, 1)]
    for side, batch, threads in shapes:
        torch.set_num_threads(threads)
        last = registry.ready("semantic-cd-mini").to(memory_format=torch.channels_last)  # type: ignore[union-attr]
        ways: dict[str, tuple[ChangeModel, Callable[[], AbstractContextManager[object]]]] = {
            "plain float32": (plain, nullcontext),
            "weights with channels last": (last, nullcontext),
            "norms folded": (fused(plain), two_passes),
            "and activations": (fused(plain), nullcontext),
            "and activations, bf16": (fused(plain), bf16),
        }
        if OPENVINO:
            ways["openvino"] = (accelerated(plain, device="openvino"), nullcontext)
            ways["openvino, bf16"] = (accelerated(plain, device="openvino", precision="bf16"), nullcontext)
        work = {name: partial(answer, model, side, batch, mode) for name, (model, mode) in ways.items()}
        times = in_turns(work, repeat)
        print(f"  {side} px, batch {batch}, {threads} threads")
        for name, seconds in times.items():
            print(
                f"    {name:28} {seconds:7.3f} s   {batch * side * side / seconds / 1e6:5.2f} Mpx/s   "
                f"{times['plain float32'] / seconds:5.2f} x plain"
            )
    torch.set_num_threads(cores)
    print(f"  peak memory, all of it together {peak_mb():.0f} MB")


def wait(repeat: int) -> None:
    """The same work in processes of their own, which differ in their environment."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "MALLOC_"))}
    told: dict[str, list[float]] = {name: [] for name in WAITING}
    for _ in range(repeat):
        for name, environment in WAITING.items():
            command = [sys.executable, __file__, "tile"]
            done = subprocess.run(command, env={**clean, **environment}, capture_output=True, text=True, check=True)
            told[name].append(float(done.stdout))
    first = statistics.median(next(iter(told.values())))
    for name, each in told.items():
        seconds = statistics.median(each)
        print(f"  {name:44} {seconds:7.3f} s a tile of 512 px   {seconds / first:5.2f} x the first")


def tile() -> None:
    """Print the median seconds of a tile of 512 px, in this very environment."""
    model = fused(registry.ready("semantic-cd-mini"))  # type: ignore[type-var]
    with kept_memory():
        print(in_turns({"tile": partial(answer, model, 512, 1, nullcontext)}, 7)["tile"])


# --- whole runs -------------------------------------------------------------------------------------------------------


def rasters(folder: Path, side: int) -> None:
    """A pair of three bands that differ in a few places."""
    for file, seed in (("before.tif", 0), ("after.tif", 1)):
        make_raster(folder / file, side, seed)


def whole(side: int, repeat: int) -> None:
    """File to file, each run in a process of its own."""
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
    """One run, measured from inside."""
    here.LANES = options.pop("lanes", here.LANES)  # type: ignore[assignment]
    with tempfile.TemporaryDirectory(dir=folder) as output:
        start = time.perf_counter()
        result = detect(folder / "before.tif", folder / "after.tif", output=Path(output) / "out", **options)
        seconds = time.perf_counter() - start
        phases = {name: round(each, 2) for name, each in result.record.timings_s.items()}
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb(), "phases": phases}))


def start(repeat: int) -> None:
    """From pressing enter to the prompt, results written."""
    script = Path(sysconfig.get_path("scripts")) / "wasnow"
    if not script.exists():
        sys.exit(f"{script} is not there: install wasnow into this environment (make env)")
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
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, OpenVINO {'there' if OPENVINO else 'absent'}")
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
        # Torch is loaded and its threads spin; once more, as the command line starts.
        patient_threads()
        os.execv(sys.executable, [sys.executable, *sys.argv])
    else:
        main()
