"""What a worker receives and returns: run specifications, results, errors; and the distribution of blocks."""

import os
import pickle
import platform
import subprocess
import sys
from collections import deque
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from making import Toy, pair
from pipeline.backends.crew import Traced, small_blocks
from wasnow import errors
from wasnow.errors import CheckpointError, RasterUnreadable, ResumeRefused, UsageError, WorkersLost
from wasnow.models.loading import ModelReference
from wasnow.pipeline import run
from wasnow.pipeline.api import detect
from wasnow.pipeline.backends import executor_for, pool
from wasnow.pipeline.backends.local import LocalExecutor
from wasnow.pipeline.feature_cache import FeatureStore
from wasnow.pipeline.options import Options
from wasnow.pipeline.plan import make_plan
from wasnow.pipeline.worker import ATTEMPTS, Worker, deserialise


@pytest.mark.parametrize(
    "error",
    [
        RasterUnreadable("a.tif", "is cut off", "Copy it again"),
        CheckpointError("c.safetensors", "is damaged"),
        ResumeRefused("out", ["tile was 1, is now 2"]),
        errors.UnknownModel("irmat", ["irmad"]),
        errors.DatasetError("two faults", ["one", "other"]),
    ],
)
def test_a_wasnow_error_is_the_same_after_pickling(error):
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))


class Captured(Exception):
    """Takes a run specification out of a run."""


def spec_of(monkeypatch, *paths, output, **options):
    """The specification that a run gives to its workers."""

    class Capturing(LocalExecutor):
        def results(self, spec, blocks):
            raise Captured(spec)
            yield

    monkeypatch.setattr(run, "executor_for", lambda *a, **k: Capturing())
    with pytest.raises(Captured) as caught:
        detect(*paths, output=output, **options)
    return caught.value.args[0]


def test_a_named_network_is_sent_as_its_name_without_weights(tmp_path, monkeypatch):
    spec = spec_of(
        monkeypatch, *pair(tmp_path), output=tmp_path / "out", model="semantic-cd-mini", classes="house, lake"
    )
    data = spec.serialise(workers=2, threads=1)
    assert len(data) < 20_000
    arrived = deserialise(data)
    assert arrived.model is None
    assert arrived.reference.classes == ("house", "lake")
    one, other = (worker.predict(worker.read(0)) for worker in (Worker(arrived), Worker(spec)))
    assert one.record.model_copy(update={"seconds": 0}) == other.record.model_copy(update={"seconds": 0})
    assert all((one.arrays[name] == other.arrays[name]).all() for name in other.arrays)


def test_a_network_created_in_python_is_pickled(tmp_path, monkeypatch):
    spec = spec_of(monkeypatch, *pair(tmp_path), output=tmp_path / "out", model=Toy(seed=7))
    assert deserialise(spec.serialise(workers=1, threads=None), threads=3).model == Toy(seed=7)
    assert deserialise(spec.serialise(workers=1, threads=None), threads=3).threads == 3
    assert deserialise(spec.serialise(workers=1, threads=2), threads=3).threads == 2


def test_relative_paths_become_absolute_for_workers(tmp_path, monkeypatch):
    before, after = pair(tmp_path)
    monkeypatch.chdir(tmp_path)
    spec = spec_of(monkeypatch, before.name, after.name, output=tmp_path / "out", model=Toy())
    assert set(spec.paths()) == {before, after}
    data = spec.serialise(workers=1, threads=None)
    monkeypatch.chdir("/")
    worker = Worker(deserialise(data))
    assert worker.read(0).window.valid.all()
    worker.close()


def test_a_model_that_cannot_be_pickled_is_refused_with_advice(tmp_path, monkeypatch):
    class Local(Toy):
        """A class that is not in a module."""

    spec = spec_of(monkeypatch, *pair(tmp_path), output=tmp_path / "out", model=Local())
    with pytest.raises(UsageError, match=r"toy cannot be sent to other processes .* save it as a checkpoint"):
        spec.serialise(workers=2, threads=1)


def test_another_version_or_other_weights_at_a_worker_are_an_error(tmp_path, monkeypatch):
    spec = spec_of(monkeypatch, *pair(tmp_path), output=tmp_path / "out", model="semantic-cd-mini")
    monkeypatch.setattr("wasnow.__version__", "9.9")
    with pytest.raises(WorkersLost, match=r"a worker has wasnow 9\.9"):
        Worker(spec)
    with pytest.raises(CheckpointError, match="a worker reads other weights here"):
        ModelReference("semantic-cd-mini", None, "sha256 of another").load("cpu")


def test_a_plan_says_how_another_process_loads_its_model(tmp_path):
    paths = pair(tmp_path)
    assert make_plan(*paths, model="irmad").reference is None
    assert make_plan(*paths, model=Toy()).reference is None
    named = make_plan(*paths, model="semantic-cd-mini")
    assert named.reference == ModelReference("semantic-cd-mini", None, named.fingerprint)
    assert named.reference.path is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers must be a whole number from 1, not 0"),
        ({"scheduler": "head"}, "scheduler must be an address such as tcp://host:8786"),
        ({"scheduler": "tcp://head:8786", "workers": 2}, "workers has no effect with scheduler tcp://head:8786"),
    ],
)
def test_invalid_workers_and_schedulers_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        Options(**options)


def test_without_dask_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match=r'pip install "wasnow\[cluster\]"'):
        executor_for(None, "local", blocks=4)


def test_no_backend_is_started_when_no_block_is_left():
    assert isinstance(executor_for(8, "tcp://no.such.host:1", blocks=0), LocalExecutor)
    assert isinstance(executor_for(None, None, blocks=3), LocalExecutor)


# --- distribution of blocks, with simulated processes --------------------------------------------------------


class SimulatedSlot:
    """A slot whose process crashes in some blocks a number of times, or before it is ready."""

    def __init__(self, crashes, failing_starts, submitted):
        self.current = self.upcoming = None
        self.failed_starts = 0
        self.processes = []
        self.crashes, self.failing_starts, self.submitted = crashes, failing_starts, submitted
        self.is_ready = False

    def start(self):
        self.is_ready = False

    def kill(self):
        pass

    def stop(self):
        self.is_ready = False

    def submit(self, data, block):
        self.current = block
        future = Future()
        if not self.is_ready and self.failing_starts:
            self.failing_starts.popleft()
            future.set_exception(BrokenProcessPool())
            return future
        self.is_ready = True
        self.submitted.append(block)
        if self.crashes.get(block, 0) > 0:
            self.crashes[block] -= 1
            future.set_exception(BrokenProcessPool())
        else:
            future.set_result(SimpleNamespace(block=block))
        return future

    def result(self, future):
        result = future.result()
        self.current, self.failed_starts = None, 0
        return result


def computed(workers, blocks, crashes, failing_starts=0):
    """(blocks computed, blocks given up, blocks submitted, executor), with the real executor and simulated slots."""
    executor, submitted = pool.PoolExecutor(workers), []
    left = deque(range(failing_starts))
    executor._slots = [SimulatedSlot(crashes, left, submitted) for _ in range(workers)]
    spec = SimpleNamespace(serialise=lambda **facts: b"", given_up=[])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "crashed_block", lambda spec, block: spec.given_up.append(block))
        results = [result.block for result in executor.results(spec, range(blocks)) if result is not None]
    return results, spec.given_up, submitted, executor


@given(
    workers=st.integers(1, 5),
    blocks=st.integers(0, 30),
    crashes=st.dictionaries(st.integers(0, 29), st.integers(1, ATTEMPTS + 3), max_size=5),
)
def test_every_block_is_computed_once_and_only_blocks_that_keep_crashing_are_given_up(workers, blocks, crashes):
    left = dict(crashes)
    results, given_up, submitted, executor = computed(workers, blocks, left)
    assert sorted(results + given_up) == list(range(blocks))
    # Alone three times; and once beside other blocks, unless it was only read when its neighbour crashed.
    crashing = {block for block, times in crashes.items() if block < blocks and times > ATTEMPTS}
    assert crashing <= set(given_up) <= {block for block, times in crashes.items() if times >= ATTEMPTS}
    assert all(submitted.count(block) in (ATTEMPTS, ATTEMPTS + 1) for block in given_up)
    assert executor.record.lost == sum(crashes.values()) - sum(left.values())


@given(workers=st.integers(1, 4), blocks=st.integers(1, 12), failing=st.integers(0, 2))
def test_processes_that_crash_before_they_are_ready_make_no_block_a_suspect(workers, blocks, failing):
    results, given_up, submitted, _ = computed(workers, blocks, {}, failing)
    assert (sorted(results), given_up) == (list(range(blocks)), [])
    assert sorted(submitted) == list(range(blocks))


def test_the_run_ends_with_advice_when_no_process_becomes_ready():
    with pytest.raises(WorkersLost, match="lower --workers"):
        computed(2, 4, {}, failing_starts=100)


# --- cached features and memory ----------------------------------------------------------


def test_processes_that_fill_one_cache_exceed_its_limit_by_a_twentieth_at_most(tmp_path):
    limit = 400_000
    stores = [FeatureStore(tmp_path, limit, writers=2) for _ in range(2)]
    for number in range(200):
        key = f"{number:040x}"
        stores[number % 2].put(key, (torch.rand(1, 1000),))
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert limit / 2 < size <= limit * 1.05
    assert all(store.not_cached for store in stores)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_variables_of_dask_do_not_prevent_retaining_the_heap_and_those_of_the_user_do():
    code = (
        "from wasnow._system import retain_heap\nprint(retain_heap(), retain_heap(ignoring=['MALLOC_TRIM_THRESHOLD_']))"
    )

    def printed(**more):
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
        done = subprocess.run([sys.executable, "-c", code], env={**clean, **more}, capture_output=True, text=True)
        return done.stdout.split()

    assert printed() == ["True", "True"]
    assert printed(MALLOC_TRIM_THRESHOLD_="65536") == ["False", "True"]
    assert printed(MALLOC_TRIM_THRESHOLD_="65536", MALLOC_ARENA_MAX="1") == ["False", "False"]


def test_the_traced_model_predicts_as_the_toy(tmp_path, monkeypatch):
    small_blocks(monkeypatch)
    paths = pair(tmp_path)
    traced, toy = (
        detect(*paths, output=tmp_path / name, model=model)
        for name, model in (("traced", Traced(folder=str(tmp_path))), ("toy", Toy(tile=32)))
    )
    assert traced.change.read_bytes() == toy.change.read_bytes()
    assert traced.record.executor.kind == "this process"
