"""What travels to a worker and back: orders, errors, and the sum of work whoever does it."""

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
from pipeline.backends.crew import Told, small_blocks
from wasnow import errors
from wasnow.errors import CheckpointError, RasterUnreadable, ResumeRefused, UsageError, WorkersLost
from wasnow.pipeline import run
from wasnow.pipeline.backends import executor_for, pool
from wasnow.pipeline.backends.local import Here
from wasnow.pipeline.feature_cache import FeatureStore
from wasnow.pipeline.plan import ModelReference, Options, make_plan
from wasnow.pipeline.run import detect
from wasnow.pipeline.worker import TRIES, Worker, order_received


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
def test_an_error_of_ours_survives_the_way_back_from_another_process(error):
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))


class Captured(Exception):
    """Carries an order out of a run."""


def order_of(monkeypatch, *paths, output, **options):
    """The order that a run would give."""

    class Taken(Here):
        def answers(self, order, blocks):
            raise Captured(order)
            yield

    monkeypatch.setattr(run, "executor_for", lambda *a, **k: Taken())
    with pytest.raises(Captured) as caught:
        detect(*paths, output=output, **options)
    return caught.value.args[0]


def test_a_network_with_a_name_travels_as_its_name_and_not_as_its_weights(tmp_path, monkeypatch):
    order = order_of(
        monkeypatch, *pair(tmp_path), output=tmp_path / "out", model="semantic-cd-mini", classes="house, lake"
    )
    sent = order.sent(workers=2, threads=1)
    assert len(sent) < 20_000
    arrived = order_received(sent)
    assert arrived.model is None
    assert arrived.reference.words == ("house", "lake")
    answered = Worker(arrived)
    expected = Worker(order)
    one, other = (worker.answer(worker.read(0)) for worker in (answered, expected))
    assert one.record.model_copy(update={"seconds": 0}) == other.record.model_copy(update={"seconds": 0})
    assert all((one.arrays[name] == other.arrays[name]).all() for name in other.arrays)


def test_a_network_made_in_python_travels_itself(tmp_path, monkeypatch):
    order = order_of(monkeypatch, *pair(tmp_path), output=tmp_path / "out", model=Toy(seed=7))
    assert order_received(order.sent(workers=1, threads=None), threads=3).model == Toy(seed=7)
    assert order_received(order.sent(workers=1, threads=None), threads=3).threads == 3
    assert order_received(order.sent(workers=1, threads=2), threads=3).threads == 2


def test_paths_that_were_typed_relative_hold_wherever_the_order_goes(tmp_path, monkeypatch):
    before, after = pair(tmp_path)
    monkeypatch.chdir(tmp_path)
    order = order_of(monkeypatch, before.name, after.name, output=tmp_path / "out", model=Toy())
    assert set(order.paths()) == {before, after}
    sent = order.sent(workers=1, threads=None)
    monkeypatch.chdir("/")
    worker = Worker(order_received(sent))
    assert worker.read(0).window.valid.all()
    worker.close()


def test_a_model_that_cannot_travel_is_refused_with_advice(tmp_path, monkeypatch):
    class Local(Toy):
        """Of no module."""

    order = order_of(monkeypatch, *pair(tmp_path), output=tmp_path / "out", model=Local())
    with pytest.raises(UsageError, match=r"toy cannot be sent to other processes .* save it as a checkpoint"):
        order.sent(workers=2, threads=1)


def test_another_version_or_other_weights_at_the_worker_are_an_error(tmp_path, monkeypatch):
    order = order_of(monkeypatch, *pair(tmp_path), output=tmp_path / "out", model="semantic-cd-mini")
    monkeypatch.setattr("wasnow.__version__", "9.9")
    with pytest.raises(WorkersLost, match=r"a worker has wasnow 9\.9"):
        Worker(order)
    with pytest.raises(CheckpointError, match="holds other weights where a worker reads it"):
        ModelReference("semantic-cd-mini", None, "sha256 of another").load("cpu")


def test_a_plan_says_how_another_process_comes_by_its_model(tmp_path):
    paths = pair(tmp_path)
    assert make_plan(*paths, model="irmad").reference is None
    assert make_plan(*paths, model=Toy()).reference is None
    named = make_plan(*paths, model="semantic-cd-mini")
    assert named.reference == ModelReference("semantic-cd-mini", None, named.fingerprint)
    assert named.reference.path is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "--workers 0 is nobody to do the work"),
        ({"scheduler": "head"}, "'head' is no address; write it as tcp://host:8786"),
        ({"scheduler": "tcp://head:8786", "workers": 2}, "has the workers that it has"),
    ],
)
def test_options_that_name_nobody_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        Options(**options)


def test_without_dask_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match=r'pip install "wasnow\[cluster\]"'):
        executor_for(None, "local", blocks=4)


def test_where_nothing_is_left_to_do_nobody_is_called():
    assert isinstance(executor_for(8, "tcp://no.such.host:1", blocks=0), Here)
    assert isinstance(executor_for(None, None, blocks=3), Here)


# --- who gets which block, with processes that only pretend --------------------------------------------------------


class Pretended:
    """A seat whose process dies over some blocks: always, or the first so many times; or before it begins."""

    def __init__(self, deaths, stillborn, asked):
        self.now = self.next = None
        self.false_starts = 0
        self.processes = []
        self.deaths, self.stillborn, self.asked = deaths, stillborn, asked
        self.has_begun = False

    def sit_down(self):
        self.has_begun = False

    def kill(self):
        pass

    def leave(self):
        self.has_begun = False

    def ask(self, sent, block):
        self.now = block
        future = Future()
        if not self.has_begun and self.stillborn:
            self.stillborn.popleft()
            future.set_exception(BrokenProcessPool())
            return future
        self.has_begun = True
        self.asked.append(block)
        if self.deaths.get(block, 0) > 0:
            self.deaths[block] -= 1
            future.set_exception(BrokenProcessPool())
        else:
            future.set_result(SimpleNamespace(block=block))
        return future

    def outcome(self, future):
        answer = future.result()
        self.now, self.false_starts = None, 0
        return answer


def carried_out(workers, blocks, deaths, stillborn=0):
    """Blocks answered and blocks given up, by the real executor with pretended seats."""
    executor, asked = pool.Processes(workers), []
    left = deque(range(stillborn))
    executor._seats = [Pretended(deaths, left, asked) for _ in range(workers)]
    order = SimpleNamespace(sent=lambda **facts: b"", given_up=[])
    answers = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "poisoned", lambda order, block: order.given_up.append(block))
        answers = [answer.block for answer in executor.answers(order, range(blocks)) if answer is not None]
    return answers, order.given_up, asked, executor


@given(
    workers=st.integers(1, 5),
    blocks=st.integers(0, 30),
    deaths=st.dictionaries(st.integers(0, 29), st.integers(1, TRIES + 3), max_size=5),
)
def test_every_block_is_answered_once_or_given_up_and_only_murderers_are(workers, blocks, deaths):
    left = dict(deaths)
    answers, given_up, asked, executor = carried_out(workers, blocks, left)
    assert sorted(answers + given_up) == list(range(blocks))
    # Alone three times; and once in company, unless it was only read when its neighbour died.
    murderers = {block for block, times in deaths.items() if block < blocks and times > TRIES}
    assert murderers <= set(given_up) <= {block for block, times in deaths.items() if times >= TRIES}
    assert all(asked.count(block) in (TRIES, TRIES + 1) for block in given_up)
    assert executor.record.lost == sum(deaths.values()) - sum(left.values())


@given(workers=st.integers(1, 4), blocks=st.integers(1, 12), stillborn=st.integers(0, 2))
def test_processes_that_die_before_they_begin_cost_no_block_and_blame_none(workers, blocks, stillborn):
    answers, given_up, asked, _ = carried_out(workers, blocks, {}, stillborn)
    assert (sorted(answers), given_up) == (list(range(blocks)), [])
    assert sorted(asked) == list(range(blocks))


def test_when_no_process_gets_as_far_as_its_order_the_run_ends_with_advice():
    with pytest.raises(WorkersLost, match="lower --workers"):
        carried_out(2, 4, {}, stillborn=100)


# --- what workers share, and what they are told of memory ----------------------------------------------------------


def test_stores_that_fill_one_folder_at_a_time_stay_within_its_limit_and_a_twentieth(tmp_path):
    limit = 400_000
    stores = [FeatureStore(tmp_path, limit, writers=2) for _ in range(2)]
    for number in range(200):
        key = f"{number:040x}"
        stores[number % 2].keep(key, (torch.rand(1, 1000),))
    held = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert limit / 2 < held <= limit * 1.05
    assert all(store.left_out for store in stores)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only GNU's C library can be asked")
def test_memory_is_kept_in_spite_of_what_dask_has_set_but_not_of_what_the_user_has():
    code = (
        "from wasnow._system import keep_memory\nprint(keep_memory(), keep_memory(despite=['MALLOC_TRIM_THRESHOLD_']))"
    )

    def told(**more):
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
        done = subprocess.run([sys.executable, "-c", code], env={**clean, **more}, capture_output=True, text=True)
        return done.stdout.split()

    assert told() == ["True", "True"]
    assert told(MALLOC_TRIM_THRESHOLD_="65536") == ["False", "True"]
    assert told(MALLOC_TRIM_THRESHOLD_="65536", MALLOC_ARENA_MAX="1") == ["False", "False"]


def test_a_told_model_is_a_toy_in_all_but_its_travels(tmp_path, monkeypatch):
    small_blocks(monkeypatch)
    paths = pair(tmp_path)
    told, toy = (
        detect(*paths, output=tmp_path / name, model=model)
        for name, model in (("told", Told(folder=str(tmp_path))), ("toy", Toy(tile=32)))
    )
    assert told.change.read_bytes() == toy.change.read_bytes()
    assert told.record.executor.kind == "this process"
