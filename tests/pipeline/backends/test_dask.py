"""The dask backend: the same bytes, and clear errors where cluster and run do not fit."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest

from making import TESTS, pair, write_raster
from pipeline.backends.crew import Guided, Lethal, Traced, children_of, lethal_pair, loads, same_results, small_blocks
from wasnow.errors import UsageError, WorkersLost
from wasnow.pipeline.api import detect

distributed = pytest.importorskip("distributed", reason='needs dask: pip install "wasnow[cluster]"')

from wasnow.pipeline.backends import dask as backend  # noqa: E402 - needs dask

DASK = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
WORKER = [sys.executable, "-m", "distributed.cli.dask_worker"]


@pytest.fixture(autouse=True)
def _many_blocks(monkeypatch):
    small_blocks(monkeypatch)


@contextmanager
def started(command, folder, **more):
    """Run a command in a session of its own; at the end kill it with all its children."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(TESTS),
        "OMP_NUM_THREADS": "1",
        # One crash makes a suspect, so that the tests need not wait for four.
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
        **more,
    }
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def scheduler(folder):
    """The address of a scheduler."""
    file = folder / "scheduler.json"
    command = [*DASK, "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    with started(command, folder) as process:
        deadline = time.monotonic() + 60
        while not file.exists() or not file.read_text().endswith("}"):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield json.loads(file.read_text())["address"], process


@contextmanager
def workers(folder, address, number):
    """Worker processes, each with a nanny that replaces it."""
    command = [*WORKER, address, "--nworkers", str(number), "--nthreads", "2", "--no-dashboard", "--memory-limit", "0"]
    with started(command, folder) as process:
        yield process


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster")
    with scheduler(folder) as (found, _), workers(folder, found, 2):
        yield found


def test_the_workers_load_the_model_once_each_and_give_the_same_bytes(tmp_path, address):
    paths, model = pair(tmp_path), Traced(folder=str(tmp_path))
    alone = detect(*paths, output=tmp_path / "alone", model=model)
    shared = detect(*paths, output=tmp_path / "shared", model=model, scheduler=address)
    same_results(alone.folder, shared.folder)
    found = loads(tmp_path)
    assert os.getpid() not in found
    assert set(found.values()) == {1}
    executor = shared.record.executor
    assert (executor.kind, executor.scheduler, executor.lost) == ("dask", address, 0)
    assert 1 <= len(found) <= len(executor.workers) <= 2


def test_a_fitted_scene_model_and_prior_masks_are_sent_to_the_workers(tmp_path, address):
    paths = pair(tmp_path)
    masks = []
    for name, rows in (("one.tif", slice(0, 30)), ("two.tif", slice(20, 60))):
        values = np.zeros((1, 96, 128), np.uint8)
        values[:, rows, 40:90] = 1
        masks.append(str(write_raster(tmp_path / name, values)))
    for name, options in (
        ("cva", {"model": "cva", "tile": 32}),
        ("guided", {"model": Guided(), "masks": tuple(masks)}),
    ):
        alone = detect(*paths, output=tmp_path / f"{name}-alone", **options)
        shared = detect(*paths, output=tmp_path / f"{name}-shared", **options, scheduler=address)
        assert alone.record.pixels.changed > 0
        same_results(alone.folder, shared.folder)


def test_a_killed_worker_is_replaced(tmp_path, address):
    paths, model = pair(tmp_path), Traced(folder=str(tmp_path), seconds=0.02)
    killed = []

    def kill(phase, done, total):
        if phase == "detect" and done == 5 and not killed:
            killed.append(min(loads(tmp_path)))
            os.kill(killed[0], signal.SIGKILL)

    found = detect(*paths, output=tmp_path / "out", model=model, scheduler=address, progress=kill)
    whole = detect(*paths, output=tmp_path / "whole", model=model)
    assert killed
    assert found.complete
    same_results(whole.folder, found.folder)


@pytest.mark.slow
def test_a_block_that_crashes_every_worker_is_flagged_and_all_others_are_done(tmp_path, address):
    paths = lethal_pair(tmp_path, (10, 40))
    found = detect(*paths, output=tmp_path / "out", model=Lethal(folder=str(tmp_path)), scheduler=address)
    (failed,) = [block for block in found.record.blocks if block.outcome == "failed"]
    assert failed.not_processed == {"its worker died": failed.height * failed.width}
    (tmp_path / "healed").touch()
    model = Lethal(folder=str(tmp_path))
    again = detect(*paths, output=tmp_path / "out", model=model, scheduler=address)
    assert again.complete
    same_results(detect(*paths, output=tmp_path / "whole", model=model).folder, again.folder)


# --- clusters that do not fit the run --------------------------------------------------------------------------------


def test_files_that_a_worker_cannot_open_are_named_before_any_work(tmp_path, address):
    (tmp_path / "mine").write_bytes(b"123")
    with (tmp_path / "mine").open("rb") as file:
        os.dup2(file.fileno(), 789)
    try:
        # Open in this process only.
        with pytest.raises(WorkersLost, match="cannot see /proc/self/fd/789; workers open files by their paths"):
            backend.DaskExecutor(address, None, [tmp_path, Path("/proc/self/fd/789")]).__enter__()
    finally:
        os.close(789)


def test_another_version_on_a_worker_is_an_error(address, monkeypatch):
    monkeypatch.setattr("wasnow.__version__", "9.9")
    with pytest.raises(WorkersLost, match=r"has wasnow .* and this is 9\.9; install the same version"):
        backend.DaskExecutor(address, None).__enter__()


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"wasnow:__version__": ModuleNotFoundError("No module named 'wasnow'")}, "has no wasnow; install wasnow"),
        ({"torch": PackageNotFoundError("torch")}, "has no torch; install wasnow"),
    ],
)
def test_a_package_that_is_missing_on_a_worker_is_named(monkeypatch, answers, message):
    executor = backend.DaskExecutor("tcp://head:8786", None)
    own = {"wasnow:__version__": "0.1.0"}

    def on_workers(function, name):
        return {"tcp://one:1": answers.get(name, own.get(name) or function(name))}

    monkeypatch.setattr("wasnow.__version__", "0.1.0")
    monkeypatch.setattr(executor, "_on_workers", on_workers)
    with pytest.raises(WorkersLost, match=message):
        executor._check_versions()


def test_other_versions_of_libraries_on_a_worker_are_a_warning(monkeypatch):
    executor = backend.DaskExecutor("tcp://head:8786", None)
    monkeypatch.setattr(
        executor,
        "_on_workers",
        lambda function, name: {"tcp://one:1": "1.0+cu128" if name == "torch" else function(name)},
    )
    executor._check_versions()
    (warning,) = executor.warnings
    assert "has torch 1.0+cu128" in warning


def test_a_scheduler_that_does_not_respond_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(backend, "CONNECT_S", 0.5)
    with pytest.raises(WorkersLost, match=r"no dask scheduler responds at tcp://127\.0\.0\.1:1 "):
        detect(*pair(tmp_path), output=tmp_path / "out", model="cva", scheduler="tcp://127.0.0.1:1")
    with pytest.raises(UsageError, match="is not an address that dask accepts"):
        detect(*pair(tmp_path), output=tmp_path / "out", model="cva", scheduler="spam://127.0.0.1:1")


def test_a_scheduler_without_workers_and_a_lost_one_are_errors_and_the_run_can_continue_without_dask(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(backend, "CONNECT_S", 3.0)
    logged: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: logged.append(record.getMessage())
    monkeypatch.setattr(logging.getLogger("distributed"), "handlers", [handler])
    paths, model = pair(tmp_path), Traced(folder=str(tmp_path), seconds=0.02)
    with scheduler(tmp_path) as (address, process):
        with monkeypatch.context() as patch:
            patch.setattr(backend, "WORKERS_S", 1.0)
            with pytest.raises(WorkersLost, match=r"no worker joined .* start some: dask worker tcp://"):
                backend.DaskExecutor(address, None).__enter__()
        with workers(tmp_path, address, 1):

            def kill(phase, done, total):
                if phase == "detect" and done == 3:
                    os.killpg(process.pid, signal.SIGKILL)

            with pytest.raises(WorkersLost, match="lost the connection to the dask scheduler"):
                detect(*paths, output=tmp_path / "out", model=model, scheduler=address, progress=kill)
    assert logged == []
    steps = []
    again = detect(
        *paths,
        output=tmp_path / "out",
        model=model,
        progress=lambda phase, done, total: steps.append(done) if phase == "detect" else None,
    )
    assert steps[0] >= 3
    same_results(detect(*paths, output=tmp_path / "whole", model=model).folder, again.folder)


def test_a_cluster_started_for_the_run_ends_with_it(tmp_path):
    paths, model = pair(tmp_path), Traced(folder=str(tmp_path))
    alone = detect(*paths, output=tmp_path / "alone", model=model)
    before = set(children_of(os.getpgid(0)))
    shared = detect(*paths, output=tmp_path / "shared", model=model, scheduler="local", workers=2)
    same_results(alone.folder, shared.folder)
    assert shared.record.executor.scheduler == "local"
    assert len(shared.record.executor.workers) == 2
    left = {pid for pid in set(children_of(os.getpgid(0))) - before if "spawn_main" in command_of(pid)}
    assert left == set()


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
