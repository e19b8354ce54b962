"""The workers of a dask scheduler: one that is there already, or a cluster on this machine made for the run.

    this process                             scheduler              each worker
    ────────────                             ─────────              ───────────
    same wasnow? same files? ─────────────────────────────────────> probed before any work
    the order, once ──────────────────────> WorkerPlugin ─────────> kept; model loaded over the first block
    block numbers, 2 a worker at most ────> tasks ────────────────> read (2 at a time) │ answer (1 at a time)
    the journal <──────────────────────── answers <────────────────

Dask sees to it that a task of a worker that went away is done by another; after ``allowed-failures`` deaths it gives
the task up, and here that makes it a suspect. A plugin also reaches workers that join later.
"""

from __future__ import annotations

import logging
import os
import pkgutil
import queue
import threading
import time
import uuid
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import dask
import distributed
from distributed import WorkerPlugin, get_worker
from distributed.scheduler import KilledWorker
from distributed.worker import Worker as DaskWorker

import wasnow
from wasnow._system import keep_memory, patient_threads, release_memory
from wasnow.errors import UsageError, WorkersLost
from wasnow.output.record import ExecutorRecord
from wasnow.pipeline.backends.pool import deaths_told, threads_each
from wasnow.pipeline.worker import TRIES, Answer, Order, Worker, order_received, poisoned, told_plainly

_dask: Any = distributed
"""Partly typed, and not to be trusted in that."""
Task = Any
"""A future of dask."""

IN_FLIGHT = 2
"""Blocks a worker: one is answered while the next is read."""
CONNECT_S = 20.0
"""How long a scheduler may take to answer."""
WORKERS_S = 60.0
"""How long there may be no worker at all, at the start and later."""
LOOK_S = 2.0
"""How often the workers are counted."""

OTHER_NUMBERS = ("torch", "numpy", "rasterio")
"""Packages of which another version may give other last digits."""


class Dask:
    """An `Executor` with the workers of a dask scheduler.

    Args:
        address: of a scheduler that runs; None starts a cluster on this machine.
        workers: processes of that cluster; None: one a core.
        paths: files and folders that workers must see.
    """

    def __init__(self, address: str | None, workers: int | None, paths: Sequence[Path] = ()) -> None:
        self._address = address
        self._n = workers or os.cpu_count() or 1
        self._paths = paths
        self._cluster: Any = None
        self._client: Any = None
        self._run = f"wasnow-{uuid.uuid4().hex[:12]}"
        self._threads: int | None = None
        self._futures: dict[str, tuple[Task, int]] = {}
        self._finished: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._seen: dict[str, None] = {}
        self._here: set[str] = set()
        self._looked = self._last_seen = time.monotonic()
        self._remarks: list[str] = []
        self._quiet = ExitStack()

    # --- coming and going -------------------------------------------------------------------------------------------

    def __enter__(self) -> Dask:
        self._quiet.enter_context(_silenced("distributed"))
        try:
            self._connect()
            self._same_everywhere()
            self._check_paths(self._paths)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        client, cluster = self._client, self._cluster
        self._client = self._cluster = None
        if client is not None and client.status == "running":
            with suppress(Exception):
                # Whoever is at a block of ours finishes it in vain; nobody begins one.
                client.cancel([future for future, _ in self._futures.values()])
                client.unregister_worker_plugin(self._run)
        self._futures.clear()
        if client is not None:
            with suppress(Exception):
                client.close(timeout=5)
        if cluster is not None:
            with suppress(Exception):
                cluster.close(timeout=10)
        self._quiet.close()

    def _connect(self) -> None:
        if self._address is None:
            self._start()
        where = self._cluster if self._cluster is not None else self._address
        try:
            self._client = _dask.Client(where, timeout=CONNECT_S, set_as_default=False, name="wasnow")
        except (OSError, TimeoutError) as error:
            raise WorkersLost(
                f"no dask scheduler answers at {self._address} ({_first_line(error)}); check address and port, and "
                "that it runs"
            ) from None
        except (ValueError, TypeError) as error:
            raise UsageError(
                f"--scheduler {self._address} is no address that dask knows ({_first_line(error)}); write it as "
                "tcp://host:8786"
            ) from None
        try:
            self._client.wait_for_workers(self._n if self._address is None else 1, timeout=WORKERS_S)
        except TimeoutError:
            raise WorkersLost(
                f"no worker joined the scheduler at {self._where} within {WORKERS_S:g} s; start some: "
                f"dask worker {self._where}"
            ) from None
        self._look()

    def _start(self) -> None:
        """A cluster of this run's own."""
        patient_threads()
        self._threads = threads_each(self._n)
        try:
            self._cluster = _dask.LocalCluster(
                n_workers=self._n,
                threads_per_worker=IN_FLIGHT,
                processes=True,
                host="127.0.0.1",
                # Any free port; without it dask takes 8787, and complains where that is taken.
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
                memory_limit=0,
                # One death makes a suspect, as with processes of our own.
                scheduler_kwargs={"allowed_failures": 0},
            )
        except (RuntimeError, OSError, TimeoutError) as error:
            raise WorkersLost(
                f"a dask cluster could not be started here ({_first_line(error)}); in a script of your own call wasnow "
                "under if __name__ == '__main__', or use --workers"
            ) from None

    @property
    def _where(self) -> str:
        return self._address if self._address is not None else str(self._live.scheduler.address)

    @property
    def _live(self) -> Any:
        if self._client is None:
            raise AssertionError("entered before it is used")
        return self._client

    # --- are they like us -------------------------------------------------------------------------------------------

    def _same_everywhere(self) -> None:
        """Nothing, if all workers have this very wasnow; remarks where libraries are others.

        Raises:
            WorkersLost: one has another or none; or lacks a package.
        """
        own = wasnow.__version__
        # Functions of Python's own library, so that they arrive where wasnow is missing.
        for worker, found in self._asked(pkgutil.resolve_name, "wasnow:__version__").items():
            if isinstance(found, ImportError | AttributeError):
                raise WorkersLost(f"the worker {worker} has no wasnow; install wasnow {own} where the workers run")
            if found != own:
                raise WorkersLost(
                    f"the worker {worker} has wasnow {found}, and this is {own}; install the same version"
                )
        for package in OTHER_NUMBERS:
            mine = _public(version(package))
            for worker, found in self._asked(version, package).items():
                if isinstance(found, PackageNotFoundError):
                    raise WorkersLost(
                        f"the worker {worker} has no {package}; install wasnow {own} and all it needs there"
                    )
                if isinstance(found, str) and _public(found) != mine:
                    self._remarks.append(
                        f"the worker {worker} has {package} {found}, and here it is {mine}: last digits may differ"
                    )
                    break

    def _check_paths(self, paths: Sequence[Path]) -> None:
        """Nothing, if all workers see these files.

        Raises:
            WorkersLost: one does not, or sees others in their place.
        """
        own = _sizes([str(path) for path in paths])
        for worker, found in self._asked(_sizes, [str(path) for path in paths]).items():
            if isinstance(found, Exception):
                continue
            for path, here, there in zip(paths, own, found, strict=True):
                if here != there:
                    what = "cannot see" if there is None else "sees another file at"
                    raise WorkersLost(
                        f"the worker {worker} {what} {path}; workers open files by their paths: put them on a file "
                        "system that all share, under the same path"
                    )

    def _asked(self, function: Any, *arguments: Any) -> dict[str, Any]:
        """What each worker gives, or raises; a worker that leaves meanwhile is left out."""
        found: Mapping[str, Any] = self._live.run(function, *arguments, on_error="return")
        return {worker: each for worker, each in sorted(found.items()) if not isinstance(each, OSError)}

    # --- blocks -----------------------------------------------------------------------------------------------------

    def answers(self, order: Order, blocks: Iterable[int]) -> Generator[Answer, None, None]:
        """See `Executor`."""
        self._check_paths(order.paths())
        sent = order.sent(workers=len(self._here), threads=self._threads)
        with self._going_on():
            self._live.register_plugin(_Answering(sent), name=self._run)
            suspects: list[int] = []
            yield from self._together(iter(blocks), suspects)
            for block in suspects:
                yield self._alone(order, block)
            self._look()

    def _together(self, blocks: Iterator[int], suspects: list[int]) -> Generator[Answer, None, None]:
        while True:
            while len(self._futures) < IN_FLIGHT * max(1, len(self._here)):
                block = next(blocks, None)
                if block is None:
                    break
                self._submit(block)
            if not self._futures:
                return
            future = self._next()
            _, block = self._futures.pop(future.key)
            try:
                answer = self._result(future)
            except KilledWorker:
                suspects.append(block)
            else:
                yield answer

    def _alone(self, order: Order, block: int) -> Answer:
        """A suspect, with nothing else of ours under way."""
        deaths = 0
        while deaths < TRIES:
            self._submit(block)
            future = self._next()
            del self._futures[future.key]
            try:
                return self._result(future)
            except KilledWorker as error:
                deaths += error.allowed_failures + 1
        return poisoned(order, block)

    def _submit(self, block: int) -> None:
        key = f"{self._run}-{block}-{uuid.uuid4().hex[:6]}"
        future = self._live.submit(_answer, self._run, block, key=key, pure=False)
        self._futures[key] = (future, block)
        future.add_done_callback(self._finished.put)

    def _next(self) -> Task:
        """The next future that is done, whatever became of it."""
        while True:
            if time.monotonic() - self._looked > LOOK_S:
                self._look()
            try:
                future = self._finished.get(timeout=LOOK_S)
            except queue.Empty:
                continue
            if future.key in self._futures:
                return future

    def _result(self, future: Task) -> Answer:
        """Of a future that is done; it may be computed again where its worker died before it was fetched."""
        while True:
            if future.cancelled():
                raise self._scheduler_lost()
            try:
                answer: Answer = future.result(timeout=LOOK_S * 5)
            except TimeoutError:
                self._look()
                continue
            future.release()
            return answer

    # --- who is there -----------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Count the workers.

        Raises:
            WorkersLost: the scheduler is gone, or there has been no worker for too long.
        """
        if self._live.status != "running":
            raise self._scheduler_lost()
        self._looked = time.monotonic()
        self._here = set(self._live.scheduler_info()["workers"])
        self._seen.update(dict.fromkeys(sorted(self._here)))
        if self._here:
            self._last_seen = self._looked
        elif self._looked - self._last_seen > WORKERS_S:
            raise WorkersLost(
                f"the scheduler at {self._where} has had no worker for {WORKERS_S:g} s; start some and run the same "
                "command again to go on"
            )

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """What dask raises when the connection is lost, as what it means."""
        try:
            yield
        except (OSError, TimeoutError) as error:
            raise self._scheduler_lost() from error
        except Exception as error:
            if self._client is not None and self._client.status != "running" and not isinstance(error, WorkersLost):
                raise self._scheduler_lost() from error
            raise

    def _scheduler_lost(self) -> WorkersLost:
        where = self._address or "this machine"
        return WorkersLost(
            f"the dask scheduler at {where} went away; start it, and run the same command again to go on"
        )

    @property
    def record(self) -> ExecutorRecord:
        """See `Executor`."""
        return ExecutorRecord(
            kind="dask",
            scheduler=self._address or "local",
            workers=tuple(self._seen),
            threads=self._threads,
            lost=len(set(self._seen) - self._here),
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """See `Executor`."""
        return (*self._remarks, *deaths_told(len(set(self._seen) - self._here)))


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _public(found: str) -> str:
    """A version without what a build has added: 2.13.0 of 2.13.0+cpu."""
    return found.partition("+")[0]


# --- in the worker ----------------------------------------------------------------------------------------------


def _sizes(paths: Sequence[str]) -> list[int | None]:
    """Bytes of each file, -1 for a folder, None for what is not there."""
    found: list[int | None] = []
    for path in paths:
        try:
            found.append(-1 if Path(path).is_dir() else Path(path).stat().st_size)
        except OSError:
            found.append(None)
    return found


@contextmanager
def _silenced(name: str) -> Iterator[None]:
    """No log below it: of a scheduler that went away dask prints tracebacks, and we say one line."""
    # Those below it may have levels of their own.
    every = [name, *(key for key in logging.root.manager.loggerDict if key.startswith(f"{name}."))]
    levels = [(logger, logger.level) for logger in map(logging.getLogger, every)]
    for logger, _ in levels:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in levels:
            logger.setLevel(level)


def _answer(run: str, block: int) -> Answer:
    """A task."""
    plugin = cast(_Answering, get_worker().plugins[run])
    return told_plainly(lambda: plugin.answer(block))


class _Answering(WorkerPlugin):
    """The order, wherever there is a worker; the model is loaded over the first block, and goes with the run."""

    def __init__(self, sent: bytes) -> None:
        self._sent = sent

    def setup(self, worker: DaskWorker) -> None:
        """In the event loop of the worker: nothing that takes time."""
        self._threads = int(worker.state.nthreads)
        self._places = threading.BoundedSemaphore(IN_FLIGHT)
        self._lock = threading.Lock()
        self._worker: Worker | None = None
        self._users, self._over = 0, False

    def teardown(self, worker: DaskWorker) -> None:
        """The run is over; whoever is still at a block closes the files."""
        with self._lock:
            self._over = True
            self._close_if_unused()

    def answer(self, block: int) -> Answer:
        """A block; at most two are under way, and one of them is only read."""
        with self._places, self._using() as worker:
            return worker.answer(worker.read(block))

    @contextmanager
    def _using(self) -> Iterator[Worker]:
        with self._lock:
            if self._worker is None:
                # That variable is dask's: small pieces go back to the system at once, which costs a third of the time.
                own = dask.config.get("distributed.nanny.pre-spawn-environ", {})
                trim = "MALLOC_TRIM_THRESHOLD_"
                keep_memory(despite=(trim,) if os.environ.get(trim) == str(own.get(trim)) else ())
                # The threads of a dask worker are the cores that it was given.
                self._worker = Worker(order_received(self._sent, threads=self._threads))
            self._users += 1
        try:
            yield self._worker
        finally:
            with self._lock:
                self._users -= 1
                self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._over and not self._users and self._worker is not None:
            self._worker.close()
            self._worker = None
            release_memory()
