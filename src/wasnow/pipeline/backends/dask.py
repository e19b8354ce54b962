"""Compute the blocks on the workers of a dask scheduler: a running one, or a cluster started here for the run.

    this process                             scheduler              each worker
    ────────────                             ─────────              ───────────
    same wasnow? same files? ─────────────────────────────────────> checked before any work
    run specification, once ──────────────> WorkerPlugin ─────────> stored; model loaded with the first block
    block numbers, 2 per worker at most ──> tasks ────────────────> read (2 at a time) │ predict (1 at a time)
    the journal <──────────────────────── block results <──────────

Dask gives the task of a lost worker to another one. After ``allowed-failures`` crashes it gives the task up, and the
block becomes a suspect. A plugin also reaches workers that join later.
"""

from __future__ import annotations

import logging
import os
import pkgutil
import queue
import time
import uuid
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

import distributed
from distributed.scheduler import KilledWorker

import wasnow
from wasnow._system import passive_thread_waiting
from wasnow.errors import UsageError, WorkersLost
from wasnow.output.record import ExecutorRecord
from wasnow.pipeline.backends.dask_worker import IN_FLIGHT, BlockPlugin, compute_block, file_sizes
from wasnow.pipeline.backends.pool import lost_workers_warning, threads_per_worker
from wasnow.pipeline.worker import ATTEMPTS, BlockResult, RunSpec, crashed_block

_dask: Any = distributed
"""As Any: dask is typed in part only, and some of its annotations are wrong."""
Task = Any
"""A future of dask."""

CONNECT_S = 20.0
"""Timeout for the connection to the scheduler."""
WORKERS_S = 60.0
"""How long the scheduler may have no worker, at the start and later."""
CHECK_S = 2.0
"""Interval between two checks of the workers."""

NUMERIC_PACKAGES = ("torch", "numpy", "rasterio")
"""Packages whose versions may differ in the last digits of results."""


class DaskExecutor:
    """An `Executor` with the workers of a dask scheduler.

    Args:
        address: of a running scheduler; None starts a cluster on this machine.
        workers: number of processes of that cluster; None for one per core.
        paths: files and folders that all workers must be able to open.
    """

    def __init__(self, address: str | None, workers: int | None, paths: Sequence[Path] = ()) -> None:
        self._address = address
        self._n = workers or os.cpu_count() or 1
        self._paths = paths
        self._cluster: Any = None
        self._client: Any = None
        self._plugin = f"wasnow-{uuid.uuid4().hex[:12]}"
        self._threads: int | None = None
        self._futures: dict[str, tuple[Task, int]] = {}
        self._finished: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._known: dict[str, None] = {}
        self._present: set[str] = set()
        self._checked = self._last_worker = time.monotonic()
        self._version_warnings: list[str] = []
        self._silenced = ExitStack()

    # --- connection -------------------------------------------------------------------------------------------

    def __enter__(self) -> DaskExecutor:
        self._silenced.enter_context(_silenced("distributed"))
        try:
            self._connect()
            self._check_versions()
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
                # Blocks in progress finish without use; no further block starts.
                client.cancel([future for future, _ in self._futures.values()])
                client.unregister_worker_plugin(self._plugin)
        self._futures.clear()
        if client is not None:
            with suppress(Exception):
                client.close(timeout=5)
        if cluster is not None:
            with suppress(Exception):
                cluster.close(timeout=10)
        self._silenced.close()

    def _connect(self) -> None:
        if self._address is None:
            self._start()
        target = self._cluster if self._cluster is not None else self._address
        try:
            self._client = _dask.Client(target, timeout=CONNECT_S, set_as_default=False, name="wasnow")
        except (OSError, TimeoutError) as error:
            raise WorkersLost(
                f"no dask scheduler responds at {self._address} ({_first_line(error)}); check address and port, "
                "and that it is running"
            ) from None
        except (ValueError, TypeError) as error:
            raise UsageError(
                f"--scheduler {self._address} is not an address that dask accepts ({_first_line(error)}); write it as "
                "tcp://host:8786"
            ) from None
        try:
            self._client.wait_for_workers(self._n if self._address is None else 1, timeout=WORKERS_S)
        except TimeoutError:
            raise WorkersLost(
                f"no worker joined the scheduler at {self._where} within {WORKERS_S:g} s; start some: "
                f"dask worker {self._where}"
            ) from None
        self._check_workers()

    def _start(self) -> None:
        """Start a cluster for this run."""
        passive_thread_waiting()
        self._threads = threads_per_worker(self._n)
        try:
            self._cluster = _dask.LocalCluster(
                n_workers=self._n,
                threads_per_worker=IN_FLIGHT,
                processes=True,
                host="127.0.0.1",
                # Any free port. By default dask uses 8787 and warns if that is in use.
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
                memory_limit=0,
                # One crash makes a suspect, as in the pool of processes.
                scheduler_kwargs={"allowed_failures": 0},
            )
        except (RuntimeError, OSError, TimeoutError) as error:
            raise WorkersLost(
                f"a dask cluster could not be started here ({_first_line(error)}); in a script call wasnow under "
                "if __name__ == '__main__', or use --workers"
            ) from None

    @property
    def _where(self) -> str:
        return self._address if self._address is not None else str(self._live.scheduler.address)

    @property
    def _live(self) -> Any:
        if self._client is None:
            raise AssertionError("the executor was not entered")
        return self._client

    # --- checks of the workers --------------------------------------------------------------------------------------

    def _check_versions(self) -> None:
        """Check that all workers have this version of wasnow; warn about other versions of libraries.

        Raises:
            WorkersLost: a worker has another version or none, or lacks a package.
        """
        own = wasnow.__version__
        # Functions of the standard library, so that they also run where wasnow is missing.
        for worker, found in self._on_workers(pkgutil.resolve_name, "wasnow:__version__").items():
            if isinstance(found, ImportError | AttributeError):
                raise WorkersLost(f"the worker {worker} has no wasnow; install wasnow {own} where the workers run")
            if found != own:
                raise WorkersLost(
                    f"the worker {worker} has wasnow {found}, and this is {own}; install the same version"
                )
        for package in NUMERIC_PACKAGES:
            mine = _public(version(package))
            for worker, found in self._on_workers(version, package).items():
                if isinstance(found, PackageNotFoundError):
                    raise WorkersLost(
                        f"the worker {worker} has no {package}; install wasnow {own} with its dependencies there"
                    )
                if isinstance(found, str) and _public(found) != mine:
                    self._version_warnings.append(
                        f"the worker {worker} has {package} {found}, here it is {mine}: results may differ in the "
                        "last digits"
                    )
                    break

    def _check_paths(self, paths: Sequence[Path]) -> None:
        """Check that all workers can open these files.

        Raises:
            WorkersLost: a worker cannot, or opens another file under the same path.
        """
        own = file_sizes([str(path) for path in paths])
        for worker, found in self._on_workers(file_sizes, [str(path) for path in paths]).items():
            if isinstance(found, Exception):
                continue
            for path, here, there in zip(paths, own, found, strict=True):
                if here != there:
                    what = "cannot see" if there is None else "sees another file at"
                    raise WorkersLost(
                        f"the worker {worker} {what} {path}; workers open files by their paths: put them on a shared "
                        "file system, under the same path"
                    )

    def _on_workers(self, function: Any, *arguments: Any) -> dict[str, Any]:
        """Call a function on each worker; returns its value or exception. Workers that leave meanwhile are omitted."""
        found: Mapping[str, Any] = self._live.run(function, *arguments, on_error="return")
        return {worker: each for worker, each in sorted(found.items()) if not isinstance(each, OSError)}

    # --- blocks -----------------------------------------------------------------------------------------------------

    def results(self, spec: RunSpec, blocks: Iterable[int]) -> Generator[BlockResult, None, None]:
        """See `Executor`."""
        self._check_paths(spec.paths())
        data = spec.serialise(workers=len(self._present), threads=self._threads)
        with self._connection_errors():
            self._live.register_plugin(BlockPlugin(data), name=self._plugin)
            suspects: list[int] = []
            yield from self._all_workers(iter(blocks), suspects)
            for block in suspects:
                yield self._alone(spec, block)
            self._check_workers()

    def _all_workers(self, blocks: Iterator[int], suspects: list[int]) -> Generator[BlockResult, None, None]:
        """Results of all workers; blocks that dask gave up go to ``suspects``."""
        while True:
            while len(self._futures) < IN_FLIGHT * max(1, len(self._present)):
                block = next(blocks, None)
                if block is None:
                    break
                self._submit(block)
            if not self._futures:
                return
            future = self._next()
            _, block = self._futures.pop(future.key)
            try:
                result = self._result(future)
            except KilledWorker:
                suspects.append(block)
            else:
                yield result

    def _alone(self, spec: RunSpec, block: int) -> BlockResult:
        """The result of a suspect while no other block runs."""
        crashes = 0
        while crashes < ATTEMPTS:
            self._submit(block)
            future = self._next()
            del self._futures[future.key]
            try:
                return self._result(future)
            except KilledWorker as error:
                crashes += error.allowed_failures + 1
        return crashed_block(spec, block)

    def _submit(self, block: int) -> None:
        key = f"{self._plugin}-{block}-{uuid.uuid4().hex[:6]}"
        future = self._live.submit(compute_block, self._plugin, block, key=key, pure=False)
        self._futures[key] = (future, block)
        future.add_done_callback(self._finished.put)

    def _next(self) -> Task:
        """Wait for the next future that has finished or failed."""
        while True:
            if time.monotonic() - self._checked > CHECK_S:
                self._check_workers()
            try:
                future = self._finished.get(timeout=CHECK_S)
            except queue.Empty:
                continue
            if future.key in self._futures:
                return future

    def _result(self, future: Task) -> BlockResult:
        """The result of a finished future; dask computes it again if its worker crashed before it was fetched."""
        while True:
            if future.cancelled():
                raise self._scheduler_lost()
            try:
                result: BlockResult = future.result(timeout=CHECK_S * 5)
            except TimeoutError:
                self._check_workers()
                continue
            future.release()
            return result

    # --- presence of the workers ------------------------------------------------------------------------------------

    def _check_workers(self) -> None:
        """Count the workers.

        Raises:
            WorkersLost: the scheduler is gone, or there has been no worker for too long.
        """
        if self._live.status != "running":
            raise self._scheduler_lost()
        self._checked = time.monotonic()
        self._present = set(self._live.scheduler_info()["workers"])
        self._known.update(dict.fromkeys(sorted(self._present)))
        if self._present:
            self._last_worker = self._checked
        elif self._checked - self._last_worker > WORKERS_S:
            raise WorkersLost(
                f"the scheduler at {self._where} has had no worker for {WORKERS_S:g} s; start workers and run the same "
                "command again to continue"
            )

    @contextmanager
    def _connection_errors(self) -> Iterator[None]:
        """Turn the errors that dask raises when the connection is lost into `WorkersLost`."""
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
            f"lost the connection to the dask scheduler at {where}; start it and run the same command again to continue"
        )

    @property
    def record(self) -> ExecutorRecord:
        """See `Executor`."""
        return ExecutorRecord(
            kind="dask",
            scheduler=self._address or "local",
            workers=tuple(self._known),
            threads=self._threads,
            lost=len(set(self._known) - self._present),
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """See `Executor`."""
        return (*self._version_warnings, *lost_workers_warning(len(set(self._known) - self._present)))


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _public(found: str) -> str:
    """The public part of a version: 2.13.0 of 2.13.0+cpu."""
    return found.partition("+")[0]


@contextmanager
def _silenced(name: str) -> Iterator[None]:
    """Silence a logger and its children: dask logs tracebacks for a lost scheduler, and wasnow reports one line."""
    # Children may have levels of their own.
    every = [name, *(key for key in logging.root.manager.loggerDict if key.startswith(f"{name}."))]
    levels = [(logger, logger.level) for logger in map(logging.getLogger, every)]
    for logger, _ in levels:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in levels:
            logger.setLevel(level)
