"""Compute the blocks in worker processes of this machine. Each slot is a pool of one process.

    slot 1   ProcessPoolExecutor(1): computes 7, reads 9     ──┐
    slot 2   ProcessPoolExecutor(1): computes 8, reads 10    ──┼──> block results
    slot 3   crashed in 5, had read 6: both are suspects; a new process continues with 11

With one pool for all workers, the crash of one process would break the pool: blocks of the other workers would be lost
and become suspects too.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from types import TracebackType

from wasnow._system import blocked_interrupts, initialise_worker, passive_thread_waiting
from wasnow.errors import WorkersLost
from wasnow.output.record import ExecutorRecord
from wasnow.pipeline.worker import (
    ATTEMPTS,
    BlockResult,
    ReadAhead,
    RunSpec,
    Worker,
    crashed_block,
    deserialise,
    with_picklable_errors,
)

FAILED_STARTS = 3
"""Processes that may crash in a slot, one after the other, before they are ready: then the slot stays empty."""


class PoolExecutor:
    """An `Executor` with worker processes of its own.

    Args:
        workers: number of processes, at least 1.
    """

    def __init__(self, workers: int) -> None:
        self._slots = [_Slot() for _ in range(workers)]
        self._threads = 1
        self._pids: dict[int, None] = {}
        self._lost = 0

    def __enter__(self) -> PoolExecutor:
        # They import their libraries during the survey.
        for slot in self._slots:
            slot.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            # Their results are not needed any more, and a second Ctrl-C must not find them running.
            for slot in self._slots:
                slot.kill()
        for slot in self._slots:
            slot.stop()

    @property
    def record(self) -> ExecutorRecord:
        """See `Executor`."""
        workers = tuple(str(pid) for pid in self._pids)
        return ExecutorRecord(kind="processes", workers=workers, threads=self._threads, lost=self._lost)

    @property
    def warnings(self) -> tuple[str, ...]:
        """See `Executor`."""
        return lost_workers_warning(self._lost)

    def results(self, spec: RunSpec, blocks: Iterable[int]) -> Generator[BlockResult, None, None]:
        """See `Executor`."""
        self._threads = threads_per_worker(len(self._slots))
        data = spec.serialise(workers=len(self._slots), threads=self._threads)
        suspects: list[int] = []
        yield from self._all_slots(data, deque(), iter(blocks), suspects)
        if suspects:
            # One process computes them, and the memory of the others is free.
            for slot in self._slots[1:]:
                slot.kill()
                slot.stop()
        for block in suspects:
            yield self._alone(spec, data, block)

    def _all_slots(
        self, data: bytes, returned: deque[int], blocks: Iterator[int], suspects: list[int]
    ) -> Generator[BlockResult, None, None]:
        """Results of all slots; the blocks of a crashed process go to ``suspects``."""
        busy: dict[Future[BlockResult], _Slot] = {}

        def next_block() -> int | None:
            return returned.popleft() if returned else next(blocks, None)

        def submit_to(slot: _Slot) -> None:
            block = slot.upcoming if slot.upcoming is not None else next_block()
            slot.upcoming = None
            if block is None:
                # No block is left except those that other slots would compute next.
                other = next((each for each in self._slots if each.upcoming is not None), slot)
                block, other.upcoming = other.upcoming, None
            if block is not None:
                slot.upcoming = next_block()
                busy[slot.submit(data, block)] = slot

        while True:
            for slot in self._slots:
                if slot.current is None and slot.failed_starts < FAILED_STARTS:
                    submit_to(slot)
            if not busy:
                break
            done, _ = wait(busy, return_when=FIRST_COMPLETED)
            for future in done:
                slot = busy.pop(future)
                try:
                    result = slot.result(future)
                except BrokenProcessPool:
                    held = [block for block in (slot.current, slot.upcoming) if block is not None]
                    (suspects if slot.is_ready else returned).extend(held)
                    self._replace(slot)
                    continue
                self._note(slot)
                # Submit the next block before this result is written to the journal.
                submit_to(slot)
                yield result

    def _alone(self, spec: RunSpec, data: bytes, block: int) -> BlockResult:
        """The result of a suspect while no other block runs."""
        crashes = 0
        while crashes < ATTEMPTS:
            slot = next(each for each in self._slots if each.failed_starts < FAILED_STARTS)
            try:
                result = slot.result(slot.submit(data, block))
            except BrokenProcessPool:
                crashes += slot.is_ready
                self._replace(slot)
                continue
            self._note(slot)
            return result
        return crashed_block(spec, block)

    def _replace(self, slot: _Slot) -> None:
        """Let another process take the place of a crashed one, unless none becomes ready there.

        Raises:
            WorkersLost: no slot is left.
        """
        self._lost += 1
        slot.failed_starts = 0 if slot.is_ready else slot.failed_starts + 1
        slot.current = slot.upcoming = None
        # The next `submit` starts a new process.
        slot.stop()
        if all(each.failed_starts >= FAILED_STARTS for each in self._slots):
            raise WorkersLost(
                "worker processes crash before they start any block; check the memory (each process loads the model: "
                "lower --workers), and in a script call wasnow under if __name__ == '__main__'"
            )

    def _note(self, slot: _Slot) -> None:
        for process in slot.processes:
            if process.pid is not None:
                self._pids.setdefault(process.pid)


def lost_workers_warning(lost: int) -> tuple[str, ...]:
    """Return a sentence if workers crashed or left and others took over."""
    if not lost:
        return ()
    count = "1 worker" if lost == 1 else f"{lost} workers"
    return (f"{count} crashed or left during the run; the blocks in progress were computed again",)


def threads_per_worker(workers: int) -> int:
    """Return torch's thread count in each worker: that of this process, divided by the number of workers.

    More threads than cores slow each other down. Torch's own count respects ``OMP_NUM_THREADS``.
    """
    import torch

    return max(1, torch.get_num_threads() // workers)


class _Slot:
    """A place for one worker process, and the blocks that it has.

    Attributes:
        current: the block that it computes.
        upcoming: the block that it computes next.
        failed_starts: processes that crashed here one after the other before they were ready.
        processes: the process, for `kill`.
    """

    def __init__(self) -> None:
        self.current: int | None = None
        self.upcoming: int | None = None
        self.failed_starts = 0
        self.processes: list[BaseProcess] = []
        self._pool: ProcessPoolExecutor | None = None
        self._ready: Future[None] | None = None

    def start(self) -> None:
        """Start a process; it imports its libraries."""
        self.stop()
        passive_thread_waiting()
        self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=initialise_worker)
        with blocked_interrupts():
            self._pool.submit(_import_libraries)
        # A private attribute of Python, and the only way to end a busy process; Python 3.14 has kill_workers.
        self.processes = list((self._pool._processes or {}).values())
        self._ready = None

    @property
    def is_ready(self) -> bool:
        """Whether the process has loaded the run, so that a block can have crashed it."""
        return self._ready is not None and self._ready.done() and self._ready.exception() is None

    def submit(self, data: bytes, block: int) -> Future[BlockResult]:
        """Compute a block and read the upcoming one."""
        if self._pool is None:
            self.start()
        pool = self._pool
        if pool is None:
            raise AssertionError("start() did not create a pool")
        self.current = block
        try:
            if self._ready is None:
                self._ready = pool.submit(_load_run, data)
            return pool.submit(_compute, block, self.upcoming)
        except BrokenProcessPool as error:
            # It crashed while it was idle.
            broken: Future[BlockResult] = Future()
            broken.set_exception(error)
            return broken

    def result(self, future: Future[BlockResult]) -> BlockResult:
        """Wait for the result of the current block; then the slot is free.

        Raises:
            BrokenProcessPool: the process crashed; `current` and `upcoming` are the blocks that it had.
            WasnowError, RuntimeError: raised by the worker.
        """
        wait([future])
        if self._ready is not None and (error := self._ready.exception()) is not None:
            raise error
        result = future.result()
        self.current, self.failed_starts = None, 0
        return result

    def kill(self) -> None:
        """End the process now."""
        for process in self.processes:
            process.kill()

    def stop(self) -> None:
        """Let an idle process end, and wait for it."""
        if not self.is_ready:
            self.kill()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool, self._ready, self.processes = None, None, []


# --- in the worker process --------------------------------------------------------------------------------------

_worker: ReadAhead | None = None


def _import_libraries() -> int:
    """Do nothing else: unpickling this function imports this module."""
    return os.getpid()


def _load_run(data: bytes) -> None:
    """Load the model and open the rasters; once in the life of a process.

    Raises:
        WasnowError, RuntimeError: the run cannot be loaded here.
    """
    global _worker
    _worker = with_picklable_errors(lambda: ReadAhead(Worker(deserialise(data)), 1))


def _compute(block: int, upcoming: int | None) -> BlockResult:
    worker = _worker
    if worker is None:
        raise RuntimeError("the run was not loaded")
    return with_picklable_errors(lambda: worker.predict(block, () if upcoming is None else (upcoming,)))
