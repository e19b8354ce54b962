"""This process answers: one block after the other while its threads read ahead, or two at a time.

    one lane     read ahead ─> block ─> block ─>        torch's threads share the work of each convolution
    two lanes    read ─> block ─> read ─> block ─>      each lane has half of torch's threads, and none waits for the
                 read ─> block ─> read ─> block ─>      other: reading, convolutions, codes all use all cores

Two lanes are for networks on a processor. On a GPU, through OpenVINO, where features are kept, and for a pair that is
one block there is one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType

import torch
from torch import nn

from wasnow.output.record import ExecutorRecord
from wasnow.pipeline.acceleration import OPENVINO
from wasnow.pipeline.plan import chosen_device
from wasnow.pipeline.worker import Answer, Order, ReadAhead, Worker

READ_AHEAD = 2
"""Blocks that are read while the model works on another."""

LANES = 2
"""Blocks that are answered at the same time, at most: each takes the memory of a tile's widest maps."""


class Here:
    """An `Executor` without any other process."""

    warnings: tuple[str, ...] = ()

    def __enter__(self) -> Here:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass

    def answers(self, order: Order, blocks: Iterable[int]) -> Generator[Answer, None, None]:
        """See `Executor`; in the order of the blocks."""
        lanes = lanes_for(order)
        return _in_turn(order, blocks) if lanes == 1 else _abreast(order, blocks, lanes)

    @property
    def record(self) -> ExecutorRecord:
        """See `Executor`."""
        return ExecutorRecord(kind="this process", threads=torch.get_num_threads())


def lanes_for(order: Order) -> int:
    """How many blocks of an order this process should answer at the same time."""
    network = isinstance(order.model, nn.Module) and order.features is None and order.device != OPENVINO
    # Of all blocks, not of those that are left: a resumed run rounds as one that was never interrupted.
    enough = min(torch.get_num_threads(), len(order.tiling)) >= LANES
    return LANES if network and enough and chosen_device(order.device) == "cpu" else 1


def _in_turn(order: Order, blocks: Iterable[int]) -> Generator[Answer, None, None]:
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


def _abreast(order: Order, blocks: Iterable[int], lanes: int) -> Generator[Answer, None, None]:
    threads = torch.get_num_threads()
    worker: Worker | None = None
    pool = ThreadPoolExecutor(lanes, thread_name_prefix="wasnow-lane")
    under_way: deque[Future[Answer]] = deque()
    try:
        worker = Worker(replace(order, threads=threads // lanes), lanes)
        for block in blocks:
            under_way.append(pool.submit(_answered, worker, block))
            # One more than there are lanes: none stands still while an answer is written down.
            if len(under_way) > lanes:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        if worker is not None:
            worker.close()
        torch.set_num_threads(threads)


def _answered(worker: Worker, block: int) -> Answer:
    return worker.answer(worker.read(block))
