"""The part of the dask backend that runs on the workers: a plugin that holds the run, and the task of a block."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import dask
from distributed import WorkerPlugin, get_worker
from distributed.worker import Worker as DaskWorker

from wasnow._system import release_heap, retain_heap
from wasnow.pipeline.worker import BlockResult, Worker, deserialise, with_picklable_errors

IN_FLIGHT = 2
"""Blocks per worker: one is predicted while the next is read."""


def file_sizes(paths: Sequence[str]) -> list[int | None]:
    """Return the bytes of each file, -1 for a folder, None for a missing path."""
    found: list[int | None] = []
    for path in paths:
        try:
            found.append(-1 if Path(path).is_dir() else Path(path).stat().st_size)
        except OSError:
            found.append(None)
    return found


def compute_block(plugin_name: str, block: int) -> BlockResult:
    """Compute a block of the run that a plugin of this worker holds."""
    plugin = cast(BlockPlugin, get_worker().plugins[plugin_name])
    return with_picklable_errors(lambda: plugin.compute(block))


class BlockPlugin(WorkerPlugin):
    """Holds the run specification on each worker. The model is loaded with the first block and released at the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def setup(self, worker: DaskWorker) -> None:
        """Called in the event loop of the worker, so it must be quick."""
        self._threads = int(worker.state.nthreads)
        self._free = threading.BoundedSemaphore(IN_FLIGHT)
        self._lock = threading.Lock()
        self._worker: Worker | None = None
        self._users, self._ended = 0, False

    def teardown(self, worker: DaskWorker) -> None:
        """The run has ended; the last block in progress closes the files."""
        with self._lock:
            self._ended = True
            self._close_if_unused()

    def compute(self, block: int) -> BlockResult:
        """Compute a block; at most two are in progress, and one of them is only read."""
        with self._free, self._using() as worker:
            return worker.predict(worker.read(block))

    @contextmanager
    def _using(self) -> Iterator[Worker]:
        with self._lock:
            if self._worker is None:
                # Dask sets this variable itself; it returns freed memory to the system at once, which takes a third of
                # the run time.
                own = dask.config.get("distributed.nanny.pre-spawn-environ", {})
                trim = "MALLOC_TRIM_THRESHOLD_"
                retain_heap(ignoring=(trim,) if os.environ.get(trim) == str(own.get(trim)) else ())
                # The thread count of a dask worker is the number of cores assigned to it.
                self._worker = Worker(deserialise(self._data, threads=self._threads))
            self._users += 1
        try:
            yield self._worker
        finally:
            with self._lock:
                self._users -= 1
                self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._ended and not self._users and self._worker is not None:
            self._worker.close()
            self._worker = None
            release_heap()
