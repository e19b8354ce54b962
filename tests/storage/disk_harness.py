"""Runs under disk faults, each in a fork of this process; prints what happened as JSON. See test_disks.py.

usage: disk_harness.py BEFORE AFTER FOLDER some|many LAYER|none
"""

import ctypes
import datetime
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

# Imported before the forks, so that a fork starts in milliseconds.
import jinja2  # noqa: F401
import pyarrow  # noqa: F401
import pyogrio  # noqa: F401
import rasterio  # noqa: F401
import scipy  # noqa: F401
import shapely  # noqa: F401
import skimage.registration  # noqa: F401
import torch

from making import Toy
from wasnow.errors import WasnowError
from wasnow.output import build_record
from wasnow.output import folder as result_folder
from wasnow.output.layout import OUTPUTS
from wasnow.output.report import html, stac, style  # noqa: F401
from wasnow.output.verify import verify
from wasnow.pipeline import api, plan, run
from wasnow.storage import lock

BEFORE, AFTER, FOLDER, MANY, LAYER = sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4] == "many", sys.argv[5]
WHOLE = FOLDER / "whole"
SAME = [name for name in OUTPUTS if name not in ("run.json", "item.json", "report.html", "SHA256SUMS")]
"""Files that equal runs write byte for byte."""

large_blocks = plan.Tiling
plan.Tiling = lambda *a, **k: large_blocks(*a, **k, block_side=32)


def attempt(output, prepare=lambda: None, progress=None):
    """Return the error of a run in a fork as (class, message); None if it succeeded."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        # Reported if a second Ctrl-C comes while the first is being reported.
        outcome = ["BUG KeyboardInterrupt", ""]
        try:
            try:
                torch.set_num_threads(1)
                prepare()
                api.detect(BEFORE, AFTER, output=output, model=Toy(tile=32), progress=progress)
                outcome = None
            except BaseException as error:
                known = isinstance(error, WasnowError)
                kind = type(error).__name__ if known else "BUG " + traceback.format_exc()[-1500:]
                outcome = [kind, str(error)]
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        except KeyboardInterrupt:
            pass
        os.write(write, json.dumps(outcome).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else ["KILLED", ""]


def incomplete(output):
    """Return results that differ from those of an undisturbed run."""
    bad = [n for n in SAME if (output / n).exists() and (output / n).read_bytes() != (WHOLE / n).read_bytes()]
    if (output / "run.json").exists():
        bad += [str(each) for each in verify(output).findings]
    return bad


def after_fault(output, error, **about):
    """Repeat the run without the fault and describe both."""
    again = attempt(output)
    same = again is None and all((output / n).read_bytes() == (WHOLE / n).read_bytes() for n in SAME)
    findings = [str(each) for each in verify(output).findings] if again is None else None
    return {"error": error, "again": again, "same": same, "findings": findings, **about}


def spread(total, number):
    return sorted({max(1, round(total * (i + 0.5) / number)) for i in range(number)})


def limited_file_sizes():
    for size in [600, *spread(max((WHOLE / name).stat().st_size for name in OUTPUTS), 12 if MANY else 4)]:
        output = FOLDER / f"limit{size}"
        limit = (size, resource.RLIM_INFINITY)
        error = attempt(output, lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
        yield after_fault(output, error, at=size, partial=incomplete(output))


def mount(*options):
    return subprocess.run(["mount", *options], capture_output=True).returncode == 0


def full_and_read_only_disks():
    """Return runs on a full and on a read-only tmpfs; None where mounting is not allowed."""
    disk = FOLDER / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or not mount("-t", "tmpfs", "-o", "size=64m", "none", str(disk)):
        return None
    full = []
    try:
        # An uncompressed raster takes whole blocks of 512 px, six bands of them here.
        peak = 2 * sum(path.stat().st_blocks * 512 for path in WHOLE.rglob("*")) + 6 * 512**2
        for number, size in enumerate(spread(peak, 24 if MANY else 6)):
            output = disk / f"run{number}"
            assert mount("-o", f"remount,size={max(8192, size)}", str(disk))
            error = attempt(output)
            left = incomplete(output)
            assert mount("-o", "remount,size=64m", str(disk))
            full.append(after_fault(output, error, at=size, partial=left))
            subprocess.run(["rm", "-rf", str(output)])
        assert mount("-o", "remount,ro", str(disk))
        error = attempt(disk / "out")
        assert mount("-o", "remount,rw", str(disk))
        return full, [after_fault(disk / "out", error, partial=[])]
    finally:
        subprocess.run(["umount", "-l", str(disk)])


def failing_calls():
    """Yield name and run for each failing call of the file layer; first the number of calls."""
    layer = ctypes.CDLL(LAYER)
    layer.fail_after.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
    layer.calls_left.restype = ctypes.c_long
    counter = FOLDER / "calls"

    def count_calls():
        layer.fail_after(10**6, errno.EIO, str(FOLDER / "counted").encode(), 0)
        leave = os._exit
        os._exit = lambda code: (counter.write_text(str(10**6 - layer.calls_left())), leave(code))

    assert attempt(FOLDER / "counted", count_calls) is None
    total = int(counter.read_text())
    yield "calls", total
    often = {"EIO": (6, 40), "ENOSPC": (4, 20), "EROFS": (2, 6), "EIO once": (8, 40)}
    for name, number in often.items():
        code, once = getattr(errno, name.split()[0]), name.endswith("once")
        for n in spread(total, number[MANY]):
            output = FOLDER / f"{name}{n}"
            error = attempt(output, lambda: layer.fail_after(n, code, str(output).encode(), once))  # noqa: B023
            yield name, after_fault(output, error, at=n, partial=incomplete(output))


def clock_in(year):
    """Return a function that moves the clock of this process to another year."""

    def prepare():
        offset = (year - 2026) * 365.25 * 86400
        real_time, real_datetime = time.time, datetime.datetime
        time.time = lambda: real_time() + offset

        class Moved(real_datetime):
            @classmethod
            def now(cls, tz=None):
                return real_datetime.now(tz) + datetime.timedelta(seconds=offset)

        for module in (run, build_record, result_folder, lock):
            assert module.datetime is real_datetime
            module.datetime = Moved

    return prepare


def stop_at(block):
    def progress(phase, done, total):
        if phase == "detect" and done == block:
            raise KeyboardInterrupt

    return progress


def jumping_clocks():
    for years in ((2026, 1999, 2050), (2050, 2026, 1971)):
        output = FOLDER / f"clock{years[0]}"
        first, second, last = years
        errors = [attempt(output, clock_in(year), stop_at(block)) for year, block in ((first, 2), (second, 4))]
        error = attempt(output, clock_in(last))
        yield after_fault(output, error, errors=errors, partial=incomplete(output))


def interrupted_twice():
    for number, gap in enumerate((0.0, 0.001, 0.01, 0.05) if MANY else (0.0, 0.01)):
        output = FOLDER / f"twice{number}"

        def interrupt(phase, done, total, gap=gap):
            if phase == "detect" and done == 3:
                if os.fork() == 0:
                    time.sleep(gap)
                    os.kill(os.getppid(), signal.SIGINT)
                    os._exit(0)
                os.kill(os.getpid(), signal.SIGINT)

        signal.signal(signal.SIGINT, signal.default_int_handler)
        error = attempt(output, progress=interrupt)
        yield after_fault(output, error, partial=incomplete(output))


def main():
    assert attempt(WHOLE) is None
    found = {"limit": list(limited_file_sizes())}
    if (disks := full_and_read_only_disks()) is not None:
        found["full"], found["read_only"] = disks
    if LAYER != "none":
        for name, each in failing_calls():
            if name == "calls":
                found["calls"] = each
            else:
                found.setdefault(name, []).append(each)
    found["clock"] = list(jumping_clocks())
    found["twice"] = list(interrupted_twice())
    print(json.dumps(found))


if __name__ == "__main__":
    main()
