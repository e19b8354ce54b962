"""Full, failing and read-only disks, jumping clocks, Ctrl-C twice: no partial results, no lost work.

disk_harness.py makes every attempt in a fork of one process that has imported everything. The faults:

    a full tmpfs          ENOSPC of the kernel, at many sizes              where mounting is allowed
    a limit on file size  EFBIG of the kernel                              everywhere except Windows
    a failing file layer  write, pwrite, fwrite, fsync fail with EIO or    where there is a C compiler: a library that
                          ENOSPC from the n-th call on                     is loaded before the C library

After each fault, no result exists in part, the message names the cause, the same call again gives the same bytes as an
undisturbed run, and wasnow verify finds no fault.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from making import TESTS, pair

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork") or sys.platform != "linux", reason="needs fork, /proc, Linux"),
    pytest.mark.timeout(1800),
]

HERE = Path(__file__).parent


@pytest.fixture(
    scope="module", params=["some", pytest.param("many", marks=pytest.mark.slow)], ids=["some points", "many points"]
)
def found(request, tmp_path_factory):
    """Run the harness once and return its attempts by kind of fault."""
    folder = tmp_path_factory.mktemp("disks")
    before, after = pair(folder, height=96, width=112)
    compiler, layer = shutil.which("cc") or shutil.which("gcc"), "none"
    if compiler is not None:
        source = HERE / "failing_layer.c"
        done = subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", "layer.so", str(source), "-ldl"], cwd=folder)
        layer = str(folder / "layer.so") if done.returncode == 0 else "none"
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    if layer != "none":
        environment["LD_PRELOAD"] = layer
    done = subprocess.run(
        [sys.executable, str(HERE / "disk_harness.py"), str(before), str(after), str(folder), request.param, layer],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def check_nothing_is_lost(runs, *, failed=None):
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


def test_after_a_file_size_limit_the_next_run_continues(found):
    errors = check_nothing_is_lost(found["limit"], failed=3)
    assert {kind for kind, _ in errors} <= {"OutputError", "DiskFull"}


def test_after_a_full_disk_the_message_gives_advice_and_the_next_run_continues(found):
    if "full" not in found:
        pytest.skip("mounting a tmpfs is not allowed here")
    errors = check_nothing_is_lost(found["full"], failed=3)
    assert {kind for kind, _ in errors} == {"DiskFull"}, errors
    assert all("space" in message or "full" in message for _, message in errors)


def test_a_read_only_disk_is_named(found):
    if "read_only" not in found:
        pytest.skip("mounting a tmpfs is not allowed here")
    errors = check_nothing_is_lost(found["read_only"])
    assert {kind for kind, _ in errors} == {"OutputError"}
    assert all("Read-only file system" in message for _, message in errors), errors


@pytest.mark.parametrize("name", ["EIO", "ENOSPC", "EROFS"])
def test_after_a_failing_file_layer_the_next_run_continues(found, name):
    if name not in found:
        pytest.skip("no C compiler to build the failing file layer")
    assert found["calls"] > 50
    errors = check_nothing_is_lost(found[name])
    assert {kind for kind, _ in errors} <= {"OutputError", "DiskFull"}
    if name == "ENOSPC":
        assert sum(kind == "DiskFull" for kind, _ in errors) >= len(errors) / 2


def test_a_single_failed_call_never_damages_a_result(found):
    if "EIO once" not in found:
        pytest.skip("no C compiler to build the failing file layer")
    # GDAL and SQLite may continue after one failed call. Then every pixel and polygon was read back, or the run would
    # have ended; the bytes of a file may differ.
    runs = [run for run in found["EIO once"] if run["error"] is not None]
    check_nothing_is_lost(runs)
    assert len(runs) >= len(found["EIO once"]) // 2
    for run in found["EIO once"]:
        assert run["again"] is None, run
        assert run["findings"] == [], run


def test_a_clock_that_jumps_between_attempts_changes_no_result(found):
    for run in found["clock"]:
        assert [kind for kind, _ in run["errors"]] == ["Interrupted", "Interrupted"]
    check_nothing_is_lost(found["clock"], failed=0)
    assert [run["error"] for run in found["clock"]] == [None, None]


def test_a_run_can_be_resumed_after_two_interrupts(found):
    for run in found["twice"]:
        if run["error"] is not None and run["error"][0].startswith("BUG"):
            # The second came while the first was handled: Python reports KeyboardInterrupt, the CLI exits with 130.
            assert "KeyboardInterrupt" in run["error"][0]
            run["error"] = None
    check_nothing_is_lost(found["twice"], failed=0)
