"""Disks that fill up, fail, or may not be written; clocks that jump; Ctrl-C twice: nothing partial, nothing lost.

Every attempt is a fork of one process that has imported everything. What fails:

    a full tmpfs          the kernel's own ENOSPC, at many sizes           where mounting is allowed
    a limit on file size  the kernel's own EFBIG                           everywhere but Windows
    a failing file layer  write, pwrite, fwrite, fsync answer EIO or       where there is a C compiler: a library that
                          ENOSPC from the n-th call on                     is loaded before the C library

After each: no final is there in part; the message names the cause; the same call again gives the same bytes as an
undisturbed run; and wasnow verify calls the folder right.
"""

import json
import os
import shutil
import subprocess
import sys

import pytest

from making import TESTS, pair

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork") or sys.platform != "linux", reason="needs fork, /proc, Linux"),
    pytest.mark.timeout(1800),
]

LAYER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

/* From the n-th call on, everything that writes below one folder fails: a disk that has died. Or only that call. */
static long left = -1;
static int code = EIO, once = 0;
static char folder[4096];

void fail_after(long calls, int error, const char *below, int only) {
    left = calls; code = error; once = only; strncpy(folder, below, sizeof folder - 1);
}
long calls_left(void) { return left; }

static int due(int fd) {
    char link[64], path[4096];
    if (left < 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    if (strncmp(path, folder, strlen(folder))) return 0;
    if (left > 0) { left--; return 0; }
    if (once) left = -1;
    errno = code;
    return 1;
}
#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)
ssize_t write(int fd, const void *b, size_t n) {
    REAL(ssize_t, "write", int, const void *, size_t); return due(fd) ? -1 : real(fd, b, n); }
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) {
    REAL(ssize_t, "pwrite", int, const void *, size_t, off_t); return due(fd) ? -1 : real(fd, b, n, o); }
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t); return due(fd) ? -1 : real(fd, b, n, o); }
int fsync(int fd) { REAL(int, "fsync", int); return due(fd) ? -1 : real(fd); }
int fdatasync(int fd) { REAL(int, "fdatasync", int); return due(fd) ? -1 : real(fd); }
size_t fwrite(const void *b, size_t s, size_t n, FILE *f) {
    REAL(size_t, "fwrite", const void *, size_t, size_t, FILE *); return due(fileno(f)) ? 0 : real(b, s, n, f); }
"""

HARNESS = """
import ctypes, datetime, errno, json, os, resource, signal, subprocess, sys, time, traceback
import rasterio, torch, scipy, shapely, pyogrio, pyarrow, jinja2, skimage.registration
from pathlib import Path
from wasnow.pipeline import plan
from wasnow.output import writer
from wasnow.pipeline import api
from wasnow.storage import journal
from wasnow.output.report import html, stac, style
from wasnow.errors import WasnowError, InputError
from wasnow.output.verify import verify
import wasnow.output.vector
from making import Toy

before, after, folder, many, layer = sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4] == "many", sys.argv[5]
small = plan.Tiling
plan.Tiling = lambda *a, **k: small(*a, **k, block_side=32)
SAME = [name for name in writer.OUTPUTS if name not in ("run.json", "item.json", "report.html", "SHA256SUMS")]

def attempt(output, meddle=lambda: None, progress=None):
    # How a run in a fork ended: with an error, as (class, message), or None.
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        # Should a second Ctrl-C come while the first is put into words, this is what is said.
        said = ["BUG KeyboardInterrupt", ""]
        try:
            try:
                torch.set_num_threads(1)
                meddle()
                api.detect(before, after, output=output, model=Toy(tile=32), progress=progress)
                said = None
            except BaseException as error:
                known = isinstance(error, WasnowError)
                said = [type(error).__name__ if known else "BUG " + traceback.format_exc()[-1500:], str(error)]
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        except KeyboardInterrupt:
            pass
        os.write(write, json.dumps(said).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else ["KILLED", ""]

whole = folder / "whole"
assert attempt(whole) is None

def partial(output):
    # Finals that are not, byte for byte, those of an undisturbed run.
    bad = [n for n in SAME if (output / n).exists() and (output / n).read_bytes() != (whole / n).read_bytes()]
    if (output / "run.json").exists():
        bad += [str(each) for each in verify(output).findings]
    return bad

def afterwards(output, error, **about):
    again = attempt(output)
    same = again is None and all((output / n).read_bytes() == (whole / n).read_bytes() for n in SAME)
    sound = [str(each) for each in verify(output).findings] if again is None else None
    return {"error": error, "again": again, "same": same, "findings": sound, **about}

def spread(total, number):
    return sorted({max(1, round(total * (i + 0.5) / number)) for i in range(number)})

found = {}

# --- a limit on file size
sizes = spread(max((whole / name).stat().st_size for name in writer.OUTPUTS), 12 if many else 4)
found["limit"] = []
for size in [600, *sizes]:
    output = folder / f"limit{size}"
    error = attempt(output, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY)))
    found["limit"].append(afterwards(output, error, at=size, partial=partial(output)))

# --- a full disk
def mount(*options):
    return subprocess.run(["mount", *options], capture_output=True).returncode == 0

disk = folder / "disk"
disk.mkdir()
if os.geteuid() == 0 and mount("-t", "tmpfs", "-o", "size=64m", "none", str(disk)):
    try:
        def full_size(output):
            return sum(path.stat().st_blocks * 512 for path in output.rglob("*"))
        found["full"], found["read_only"] = [], []
        # A raw raster takes whole blocks of 512 px, six bands of them here, before it is compressed.
        peak = 2 * full_size(whole) + 6 * 512**2
        for number, size in enumerate(spread(peak, 24 if many else 6)):
            output = disk / f"run{number}"
            assert mount("-o", f"remount,size={max(8192, size)}", str(disk))
            error = attempt(output)
            left = partial(output)
            assert mount("-o", "remount,size=64m", str(disk))
            found["full"].append(afterwards(output, error, at=size, partial=left))
            subprocess.run(["rm", "-rf", str(output)])
        # --- read-only from the start
        assert mount("-o", "remount,ro", str(disk))
        error = attempt(disk / "out")
        assert mount("-o", "remount,rw", str(disk))
        found["read_only"].append(afterwards(disk / "out", error, partial=[]))
    finally:
        subprocess.run(["umount", "-l", str(disk)])

# --- a failing file layer
if layer != "none":
    shim = ctypes.CDLL(layer)
    shim.fail_after.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
    shim.calls_left.restype = ctypes.c_long
    counter = folder / "calls"
    def counted():
        shim.fail_after(10**6, errno.EIO, str(folder / "counted").encode(), 0)
        import atexit
        plain = os._exit
        os._exit = lambda code: (counter.write_text(str(10**6 - shim.calls_left())), plain(code))
    assert attempt(folder / "counted", counted) is None
    total = int(counter.read_text())
    found["calls"] = total
    often = {"EIO": (6, 40), "ENOSPC": (4, 20), "EROFS": (2, 6), "EIO once": (8, 40)}
    for name, number in often.items():
        found[name] = []
        code, only = getattr(errno, name.split()[0]), name.endswith("once")
        for n in spread(total, number[many]):
            output = folder / f"{name}{n}"
            error = attempt(output, lambda: shim.fail_after(n, code, str(output).encode(), only))
            found[name].append(afterwards(output, error, at=n, partial=partial(output)))

# --- a clock that jumps
found["clock"] = []
def at_year(year):
    def meddle():
        offset = (year - 2026) * 365.25 * 86400
        real, plain = time.time, datetime.datetime
        time.time = lambda: real() + offset
        class Jumped(plain):
            @classmethod
            def now(cls, tz=None):
                return plain.now(tz) + datetime.timedelta(seconds=offset)
        for module in (engine, results, journal):
            if hasattr(module, "datetime"):
                module.datetime = Jumped
    return meddle

def stop_at(block):
    def progress(phase, done, total):
        if phase == "detect" and done == block:
            raise KeyboardInterrupt
    return progress

for years in ((2026, 1999, 2050), (2050, 2026, 1971)):
    output = folder / f"clock{years[0]}"
    errors = [attempt(output, at_year(year), stop_at(block)) for year, block in zip(years, (2, 4))]
    error = attempt(output, at_year(years[2]))
    found["clock"].append(afterwards(output, error, errors=errors, partial=partial(output)))

# --- Ctrl-C, and again while the first is answered
found["twice"] = []
for number, gap in enumerate((0.0, 0.001, 0.01, 0.05) if many else (0.0, 0.01)):
    output = folder / f"twice{number}"
    def signals(phase, done, total):
        if phase == "detect" and done == 3:
            if os.fork() == 0:
                time.sleep(gap)
                os.kill(os.getppid(), signal.SIGINT)
                os._exit(0)
            os.kill(os.getpid(), signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    error = attempt(output, progress=signals)
    found["twice"].append(afterwards(output, error, partial=partial(output)))

print(json.dumps(found))
"""


@pytest.fixture(
    scope="module", params=["some", pytest.param("many", marks=pytest.mark.slow)], ids=["some points", "many points"]
)
def found(request, tmp_path_factory):
    """All attempts, run once: by kind of fault, how each attempt ended and how it was continued."""
    folder = tmp_path_factory.mktemp("disks")
    before, after = pair(folder, height=96, width=112)
    compiler, layer = shutil.which("cc") or shutil.which("gcc"), "none"
    if compiler is not None:
        (folder / "layer.c").write_text(LAYER)
        done = subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", "layer.so", "layer.c", "-ldl"], cwd=folder)
        layer = str(folder / "layer.so") if done.returncode == 0 else "none"
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    if layer != "none":
        environment["LD_PRELOAD"] = layer
    done = subprocess.run(
        [sys.executable, "-c", HARNESS, str(before), str(after), str(folder), request.param, layer],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def nothing_is_lost(runs, *, failed=None):
    for run in runs:
        assert run["partial"] == [], run
        assert run["again"] is None, run
        assert run["same"], run
        assert run["findings"] == [], run
        if run["error"] is not None:
            assert not run["error"][0].startswith(("BUG", "KILLED")), run
            assert "\n" not in run["error"][1], run
    errors = [run["error"] for run in runs if run["error"] is not None]
    assert len(errors) >= (len(runs) if failed is None else failed), runs
    return errors


def test_a_file_that_may_not_grow_ends_the_run_and_the_next_one_goes_on(found):
    errors = nothing_is_lost(found["limit"], failed=3)
    assert {kind for kind, _ in errors} <= {"OutputError", "DiskFull"}


def test_a_full_disk_ends_the_run_with_advice_and_the_next_one_goes_on(found):
    if "full" not in found:
        pytest.skip("no tmpfs may be mounted here")
    errors = nothing_is_lost(found["full"], failed=3)
    assert {kind for kind, _ in errors} == {"DiskFull"}, errors
    assert all("space" in message or "full" in message for _, message in errors)


def test_a_disk_that_may_not_be_written_is_named(found):
    if "read_only" not in found:
        pytest.skip("no tmpfs may be mounted here")
    errors = nothing_is_lost(found["read_only"])
    assert {kind for kind, _ in errors} == {"OutputError"}
    assert all("Read-only file system" in message for _, message in errors), errors


@pytest.mark.parametrize("name", ["EIO", "ENOSPC", "EROFS"])
def test_a_file_layer_that_fails_at_any_call_ends_the_run_and_the_next_one_goes_on(found, name):
    if name not in found:
        pytest.skip("no C compiler to make the failing file layer with")
    assert found["calls"] > 50
    errors = nothing_is_lost(found[name])
    assert {kind for kind, _ in errors} <= {"OutputError", "DiskFull"}
    if name == "ENOSPC":
        assert sum(kind == "DiskFull" for kind, _ in errors) >= len(errors) / 2


def test_one_failed_call_alone_is_never_passed_over(found):
    if "EIO once" not in found:
        pytest.skip("no C compiler to make the failing file layer with")
    # Where the disk carries on after one failed call, GDAL and SQLite may too. Then every pixel and polygon reads back
    # right, or the run would have ended; the bytes of a file may be others.
    runs = [run for run in found["EIO once"] if run["error"] is not None]
    nothing_is_lost(runs)
    assert len(runs) >= len(found["EIO once"]) // 2
    for run in found["EIO once"]:
        assert run["again"] is None, run
        assert run["findings"] == [], run


def test_a_clock_that_jumps_between_two_attempts_changes_nothing(found):
    for run in found["clock"]:
        assert [kind for kind, _ in run["errors"]] == ["Interrupted", "Interrupted"]
    nothing_is_lost(found["clock"], failed=0)
    assert [run["error"] for run in found["clock"]] == [None, None]


def test_ctrl_c_twice_leaves_a_run_that_goes_on(found):
    for run in found["twice"]:
        if run["error"] is not None and run["error"][0].startswith("BUG"):
            # The second came while the first was being answered: Python says KeyboardInterrupt, the command 130.
            assert "KeyboardInterrupt" in run["error"][0]
            run["error"] = None
    nothing_is_lost(found["twice"], failed=0)
