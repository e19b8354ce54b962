"""Process settings: heap, threads."""

import json
import os
import platform
import subprocess
import sys

import pytest

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")

ROUNDS = """
import contextlib, json, resource, sys
import numpy as np
from wasnow._system import retained_heap

def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
def resident():
    with open("/proc/self/statm") as file: return int(file.read().split()[1]) * resource.getpagesize() // 1024

def one_round():
    maps = [np.ones(size * 125_000) for size in (4, 48, 8, 2, 40)]   # MB; glibc maps arrays above 32 MB again each time
    del maps[1]
    maps.append(np.ones(36 * 125_000))

with (retained_heap() if sys.argv[1] == "kept" else contextlib.nullcontext()) as had:
    one_round(); one_round()
    first = peak()
    for _ in range(20): one_round()
    report = {"had": had, "first_kb": first, "peak_kb": peak(), "inside_kb": resident()}
report["after_kb"] = resident()
print(json.dumps(report))
"""


def rounds(how: str, **more: str) -> dict:
    """Allocate and free arrays in twenty rounds in a separate process; return its report."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", ROUNDS, how], env={**clean, **more}, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def kept() -> dict:
    return rounds("kept")


@glibc
def test_freed_memory_stays_in_the_process(kept):
    assert kept["had"]
    assert kept["inside_kb"] > rounds("plain")["inside_kb"] + 40_000


@glibc
def test_the_retained_heap_does_not_grow_with_the_length_of_the_run(kept):
    assert kept["peak_kb"] < kept["first_kb"] * 1.1


@glibc
def test_the_heap_is_returned_to_the_system_at_the_end(kept):
    assert kept["after_kb"] < kept["inside_kb"] - 40_000


@glibc
@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_variables_of_the_user_are_respected(name):
    value = "131072" if name.startswith("MALLOC") else "glibc.malloc.trim_threshold=131072"
    assert rounds("kept", **{name: value})["had"] is False


TILES = """
import resource, torch
from wasnow.models import loading
from wasnow.pipeline.acceleration import accelerated
from wasnow._system import retained_heap

torch.set_num_threads(1)
model = accelerated(loading.load("semantic-cd-mini"))
tiles, valid = torch.rand(2, 1, 3, 512, 512), torch.ones(1, 1, 512, 512, dtype=torch.bool)
with retained_heap(), torch.inference_mode():
    for number in range(8):
        model(tiles[0], tiles[1], valid)
        if number in (1, 7):
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_the_default_network_needs_no_more_memory_for_many_tiles_than_for_two():
    done = subprocess.run([sys.executable, "-c", TILES], capture_output=True, text=True, check=True)
    two, eight = map(int, done.stdout.split())
    assert eight < two * 1.05
    assert eight < 2000


def test_nothing_happens_with_another_c_library(monkeypatch):
    from wasnow import _system

    monkeypatch.setattr(_system, "_glibc", lambda: None)
    with _system.retained_heap() as had:
        assert had is False


@pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP prints its settings")
@pytest.mark.parametrize("own", [None, "active"])
def test_waiting_threads_sleep_unless_the_user_sets_another_policy(own):
    code = "from wasnow._system import passive_thread_waiting\npassive_thread_waiting()\nimport torch"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    environment = {**clean, "OMP_DISPLAY_ENV": "true", **({} if own is None else {"OMP_WAIT_POLICY": own})}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    if "OMP_WAIT_POLICY" not in done.stderr:
        pytest.skip("this torch brings another OpenMP")
    assert ("'ACTIVE'" if own else "'PASSIVE'") in done.stderr
