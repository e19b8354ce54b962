"""This process answers, and its threads read ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from types import TracebackType

import torch

from wasnow.record import ExecutorRecord
from wasnow.work import Answer, Order, ReadAhead, Worker

READ_AHEAD = 2
"""Blocks that are read while the model works on another."""


class Here:
    """An `Executor` without any other process."""

    warnings: tuple[str, ...] = ()

    def __enter__(self) -> Here:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass

    def answers(self, order: Order, blocks: Iterable[int]) -> Generator[Answer, None, None]:
        """See `Executor`; in the order of the blocks."""
        ahead = ReadAhead(Worker(order), READ_AHEAD)
        waiting: deque[int] = deque()
        try:
            for block in blocks:
                waiting.append(block)
                if len(waiting) > READ_AHEAD:
                    yield ahead.answer(waiting.popleft(), waiting)
            while waiting:
                yield ahead.answer(waiting.popleft(), waiting)
        finally:
            ahead.close()

    @property
    def record(self) -> ExecutorRecord:
        """See `Executor`."""
        return ExecutorRecord(kind="this process", threads=torch.get_num_threads())
