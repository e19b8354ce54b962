"""Processes of this machine, each a pool of one, so that it is known who died and over which block.

    seat 1   ProcessPoolExecutor(1): answers 7, reads 9     ──┐
    seat 2   ProcessPoolExecutor(1): answers 8, reads 10    ──┼──> answers
    seat 3   died over 5, read 6: 5 and 6 are suspects; a new process sits down and goes on with 11

With one pool for all, the death of one process breaks it for the others, whose blocks would be lost and suspected too.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from types import TracebackType

from wasnow._system import become_worker, patient_threads
from wasnow.errors import WorkersLost
from wasnow.output.record import ExecutorRecord
from wasnow.pipeline.worker import TRIES, Answer, Order, ReadAhead, Worker, order_received, poisoned, told_plainly

FALSE_STARTS = 3
"""Processes that may die on a seat, one after the other, before they have their order: then it stays empty."""


class Processes:
    """An `Executor` with processes of its own.

    Args:
        workers: how many, at least 1.
    """

    def __init__(self, workers: int) -> None:
        self._seats = [_Seat() for _ in range(workers)]
        self._threads = 1
        self._seen: dict[int, None] = {}
        self._lost = 0

    def __enter__(self) -> Processes:
        # They load their libraries while the run looks over the pair.
        for seat in self._seats:
            seat.sit_down()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            # What they were doing is of no use to anybody, and a second Ctrl-C shall find them gone already.
            for seat in self._seats:
                seat.kill()
        for seat in self._seats:
            seat.leave()

    @property
    def record(self) -> ExecutorRecord:
        """See `Executor`."""
        workers = tuple(str(pid) for pid in self._seen)
        return ExecutorRecord(kind="processes", workers=workers, threads=self._threads, lost=self._lost)

    @property
    def warnings(self) -> tuple[str, ...]:
        """See `Executor`."""
        return deaths_told(self._lost)

    def answers(self, order: Order, blocks: Iterable[int]) -> Generator[Answer, None, None]:
        """See `Executor`."""
        self._threads = threads_each(len(self._seats))
        sent = order.sent(workers=len(self._seats), threads=self._threads)
        suspects: list[int] = []
        yield from self._together(sent, deque(), iter(blocks), suspects)
        if suspects:
            # One process is enough for them, and the memory of the others is free as well.
            for seat in self._seats[1:]:
                seat.kill()
                seat.leave()
        for block in suspects:
            yield self._alone(order, sent, block)

    def _together(
        self, sent: bytes, returned: deque[int], blocks: Iterator[int], suspects: list[int]
    ) -> Generator[Answer, None, None]:
        """All seats at work; what was under way in a process that died is left to ``suspects``."""
        busy: dict[Future[Answer], _Seat] = {}

        def following() -> int | None:
            return returned.popleft() if returned else next(blocks, None)

        def feed(seat: _Seat) -> None:
            now = seat.next if seat.next is not None else following()
            seat.next = None
            if now is None:
                # Nothing left but what others have put by.
                other = next((each for each in self._seats if each.next is not None), seat)
                now, other.next = other.next, None
            if now is not None:
                seat.next = following()
                busy[seat.ask(sent, now)] = seat

        while True:
            for seat in self._seats:
                if seat.now is None and seat.false_starts < FALSE_STARTS:
                    feed(seat)
            if not busy:
                break
            done, _ = wait(busy, return_when=FIRST_COMPLETED)
            for future in done:
                seat = busy.pop(future)
                try:
                    answer = seat.outcome(future)
                except BrokenProcessPool:
                    held = [block for block in (seat.now, seat.next) if block is not None]
                    (suspects if seat.has_begun else returned).extend(held)
                    self._replace(seat)
                    continue
                self._note(seat)
                # First the next block, then what this one needs of our time.
                feed(seat)
                yield answer

    def _alone(self, order: Order, sent: bytes, block: int) -> Answer:
        """A suspect, with nobody else at work."""
        deaths = 0
        while deaths < TRIES:
            seat = next(each for each in self._seats if each.false_starts < FALSE_STARTS)
            try:
                answer = seat.outcome(seat.ask(sent, block))
            except BrokenProcessPool:
                deaths += seat.has_begun
                self._replace(seat)
                continue
            self._note(seat)
            return answer
        return poisoned(order, block)

    def _replace(self, seat: _Seat) -> None:
        """Another process for one that died, unless none gets as far as its order there.

        Raises:
            WorkersLost: there is no seat left.
        """
        self._lost += 1
        seat.false_starts = 0 if seat.has_begun else seat.false_starts + 1
        seat.now = seat.next = None
        # Whoever asks it next finds a new process.
        seat.leave()
        if all(each.false_starts >= FALSE_STARTS for each in self._seats):
            raise WorkersLost(
                "worker processes die before they take up any block; look for memory (each loads the model for itself: "
                "lower --workers), and in a script of your own call wasnow under if __name__ == '__main__'"
            )

    def _note(self, seat: _Seat) -> None:
        for process in seat.processes:
            if process.pid is not None:
                self._seen.setdefault(process.pid)


def deaths_told(lost: int) -> tuple[str, ...]:
    """A sentence where workers died or left, and others took over."""
    if not lost:
        return ()
    who, held = ("1 worker", "it") if lost == 1 else (f"{lost} workers", "they")
    return (f"{who} died or left on the way, and what {held} had in hand was tried anew",)


def threads_each(workers: int) -> int:
    """Threads of the network in each worker: what torch would take here, shared out.

    More threads than cores wait for each other; and torch's own number respects ``OMP_NUM_THREADS``.
    """
    import torch

    return max(1, torch.get_num_threads() // workers)


class _Seat:
    """A place for one worker process, and the blocks that it has."""

    def __init__(self) -> None:
        self.now: int | None = None
        self.next: int | None = None
        self.false_starts = 0
        self.processes: list[BaseProcess] = []
        self._pool: ProcessPoolExecutor | None = None
        self._begun: Future[None] | None = None

    def sit_down(self) -> None:
        """Start a process; it loads its libraries."""
        self.leave()
        patient_threads()
        self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=become_worker)
        with _ctrl_c_is_ours():
            self._pool.submit(_load_libraries)
        # Of Python's own making, and the only way to end a process that is busy; 3.14 has kill_workers.
        self.processes = list((self._pool._processes or {}).values())
        self._begun = None

    @property
    def has_begun(self) -> bool:
        """Whether the process has had its order, so that a block can have killed it."""
        return self._begun is not None and self._begun.done() and self._begun.exception() is None

    def ask(self, sent: bytes, block: int) -> Future[Answer]:
        """Have a block answered, and the next one read."""
        if self._pool is None:
            self.sit_down()
        pool = self._pool
        if pool is None:
            raise AssertionError("a process sits here")
        self.now = block
        try:
            if self._begun is None:
                self._begun = pool.submit(_begin, sent)
            return pool.submit(_answer, block, self.next)
        except BrokenProcessPool as error:
            # It died while nobody asked it for anything.
            broken: Future[Answer] = Future()
            broken.set_exception(error)
            return broken

    def outcome(self, future: Future[Answer]) -> Answer:
        """What became of the block; the seat is free then.

        Raises:
            BrokenProcessPool: the process died; `now` and `next` say over what.
            WasnowError, RuntimeError: what the worker raised.
        """
        wait([future])
        if self._begun is not None and (error := self._begun.exception()) is not None:
            raise error
        answer = future.result()
        self.now, self.false_starts = None, 0
        return answer

    def kill(self) -> None:
        """End the process now."""
        for process in self.processes:
            process.kill()

    def leave(self) -> None:
        """Let a process that has nothing to do end, and wait for that."""
        if not self.has_begun:
            self.kill()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool, self._begun, self.processes = None, None, []


@contextmanager
def _ctrl_c_is_ours() -> Iterator[None]:
    """Processes that are started here never see Ctrl-C, not even before they could say so themselves."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- in the worker ----------------------------------------------------------------------------------------------

_ahead: ReadAhead | None = None


def _load_libraries() -> int:
    """Nothing but what reaching this function has imported already."""
    return os.getpid()


def _begin(sent: bytes) -> None:
    """Take up an order; once in the life of a process.

    Raises:
        WasnowError, RuntimeError: it cannot be carried out.
    """
    global _ahead
    _ahead = told_plainly(lambda: ReadAhead(Worker(order_received(sent)), 1))


def _answer(block: int, then: int | None) -> Answer:
    ahead = _ahead
    if ahead is None:
        raise RuntimeError("the order was not taken up")
    return told_plainly(lambda: ahead.answer(block, () if then is None else (then,)))
