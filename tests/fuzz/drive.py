"""Long fuzzing runs: each target in its own process, with limits on memory and time, from many seeds.

    make fuzz MINUTES=60            or, with PYTHONPATH=tests:
    python -m fuzz.drive --minutes 60 --seed 1 --keep fuzz-found

What ends in anything but an answer or a `WasnowError` is a fault: another exception, a crash, more than the seconds or
the memory that a file may cost. Its input is written to the folder of faults; once fixed, it becomes a small test.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from fuzz.mutations import mutated
from fuzz.targets import TARGETS, attempt, emptied
from wasnow.errors import WasnowError

SECONDS = 10
"""Time limit of one input, on a shared machine."""

MEMORY_BYTES = 2 * 2**30
"""Limit of additional address space for one input."""

START_SECONDS = 600.0
"""Time limit for starting a process, which imports torch, on a shared machine."""


class _TooSlow(BaseException):
    """An input took longer than `SECONDS`; not an `Exception`, so that no handler catches it."""


def _alarm(number: int, frame: object) -> None:
    raise _TooSlow


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * resource.getpagesize()


def _turn(name: str, seed: int, seconds: float, folder: Path, to: Connection) -> None:
    """Run inputs in this process until the time is over; the current input is in the file ``current``."""
    target = TARGETS[name]
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    seeds = target.seeds(emptied(folder / "seeds"))
    for content in seeds:
        with suppress(WasnowError):
            attempt(target, content, folder / "work")
    limit = _address_space() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGALRM, _alarm)
    rng = random.Random(f"{name} {seed}")
    done = refused = 0
    faults: dict[str, tuple[str, bytes]] = {}
    to.send((0, 0, {}))  # ready: time is measured from here
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        content = mutated(seeds, rng)
        (folder / "current").write_bytes(content)
        signal.alarm(SECONDS)
        try:
            attempt(target, content, folder / "work")
        except WasnowError as error:
            refused += 1
            if "\n" in str(error):
                faults.setdefault(f"two lines {type(error).__name__}", (str(error), content))
        except BaseException as error:  # any other exception is a fault
            place = traceback.extract_tb(error.__traceback__)[-1]
            faults.setdefault(
                f"{type(error).__name__} {Path(place.filename).name}:{place.lineno}", (traceback.format_exc(), content)
            )
        finally:
            signal.alarm(0)
        done += 1
        if done % 20 == 0:
            to.send((done, refused, {}))
    to.send((done, refused, faults))
    to.close()
    # Errors of libraries at interpreter shutdown are not tested here.
    os._exit(0)


def turn(name: str, seed: int, seconds: float) -> tuple[int, int, dict[str, tuple[str, bytes]]]:
    """Run one turn of a target; return inputs, rejected inputs, and faults with the inputs that caused them."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="wasnow-fuzz-") as place:
        receiving, sending = context.Pipe(duplex=False)
        process = context.Process(target=_turn, args=(name, seed, seconds, Path(place), sending))
        process.start()
        sending.close()
        last: tuple[int, int, dict[str, tuple[str, bytes]]] = (0, 0, {})
        started = receiving.poll(START_SECONDS)
        until = time.monotonic() + seconds + 3 * SECONDS
        try:
            while receiving.poll(max(0.0, until - time.monotonic())):
                last = receiving.recv()
        except EOFError:
            pass
        process.join(max(1.0, until - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
        done, refused, faults = last
        if not started:
            faults = {**faults, "did not begin": (f"not ready after {START_SECONDS:g} s", b"")}
        elif process.exitcode:
            current = Path(place) / "current"
            content = current.read_bytes() if current.exists() else b""
            faults = {**faults, f"process ended with {process.exitcode}": ("killed, or crashed", content)}
        return done, refused, faults


def main() -> int:
    """Run turns until the time is over and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--turn", type=float, default=60.0, help="seconds of each turn of a target")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-found"), help="folder for the inputs that made faults")
    parser.add_argument("--only", action="append", choices=sorted(TARGETS), help="this target; repeat for more")
    arguments = parser.parse_args()
    names = arguments.only or list(TARGETS)
    counts = {name: {"turns": 0, "inputs": 0, "refused": 0} for name in names}
    kinds: dict[str, dict[str, str]] = {name: {} for name in names}
    until, number = time.monotonic() + 60 * arguments.minutes, 0
    while time.monotonic() < until:
        name = names[number % len(names)]
        seconds = min(arguments.turn, max(1.0, until - time.monotonic()))
        done, refused, faults = turn(name, arguments.seed + number // len(names), seconds)
        counts[name] = {
            "turns": counts[name]["turns"] + 1,
            "inputs": counts[name]["inputs"] + done,
            "refused": counts[name]["refused"] + refused,
        }
        for kind, (text, content) in faults.items():
            if kind not in kinds[name]:
                arguments.keep.mkdir(parents=True, exist_ok=True)
                file = arguments.keep / f"{name.replace(' ', '-')}-{hashlib.sha256(content).hexdigest()[:12]}"
                file.write_bytes(content)
                kinds[name][kind] = str(file)
                print(f"FAULT in {name}: {kind}; input in {file}\n{text}", flush=True)
        number += 1
        if number % len(names) == 0:
            print(json.dumps(counts), flush=True)
    for name, count in counts.items():
        print(f"{name:18} {count['inputs']:8} inputs, {count['refused']:8} refused, {len(kinds[name])} kinds of fault")
    print(f"seed {arguments.seed}, {arguments.minutes:g} minutes, {sum(c['inputs'] for c in counts.values())} inputs")
    return 1 if any(kinds.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
