"""Compute the blocks in this process: one after the other with reading ahead, or two at the same time.

    one at a time    read ahead ─> block ─> block ─>    torch's threads share the work of each convolution
    two at a time    read ─> block ─> read ─> block ─>  each block has half of torch's threads; while one is read,
                     read ─> block ─> read ─> block ─>  the other one uses the cores

Two at a time is for networks on a CPU. There is one on a GPU, with OpenVINO, with a feature cache, and for a pair that
consists of one block.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType

import torch
from torch import nn

from wasnow.models.loading import OPENVINO, resolve_device
from wasnow.output.record import ExecutorRecord
from wasnow.pipeline.worker import BlockResult, ReadAhead, RunSpec, Worker

READ_AHEAD = 2
"""Blocks that are read while the model works on another."""

CONCURRENT_BLOCKS = 2
"""Blocks that are predicted at the same time, at most: each needs memory for the widest feature maps of a tile."""


class LocalExecutor:
    """An `Executor` without other processes."""

    warnings: tuple[str, ...] = ()

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass

    def results(self, spec: RunSpec, blocks: Iterable[int]) -> Generator[BlockResult, None, None]:
        """See `Executor`; in the order of the blocks."""
        concurrency = concurrent_blocks(spec)
        return _one_at_a_time(spec, blocks) if concurrency == 1 else _concurrently(spec, blocks, concurrency)

    @property
    def record(self) -> ExecutorRecord:
        """See `Executor`."""
        return ExecutorRecord(kind="this process", threads=torch.get_num_threads())


def concurrent_blocks(spec: RunSpec) -> int:
    """Return how many blocks of a run this process predicts at the same time."""
    network = isinstance(spec.model, nn.Module) and spec.features is None and spec.device != OPENVINO
    # Counts all blocks, not only the remaining ones: a resumed run must round like one that was never interrupted.
    enough = min(torch.get_num_threads(), len(spec.tiling)) >= CONCURRENT_BLOCKS
    return CONCURRENT_BLOCKS if network and enough and resolve_device(spec.device) == "cpu" else 1


def _one_at_a_time(spec: RunSpec, blocks: Iterable[int]) -> Generator[BlockResult, None, None]:
    ahead = ReadAhead(Worker(spec), READ_AHEAD)
    waiting: deque[int] = deque()
    try:
        for block in blocks:
            waiting.append(block)
            if len(waiting) > READ_AHEAD:
                yield ahead.predict(waiting.popleft(), waiting)
        while waiting:
            yield ahead.predict(waiting.popleft(), waiting)
    finally:
        ahead.close()


def _concurrently(spec: RunSpec, blocks: Iterable[int], concurrency: int) -> Generator[BlockResult, None, None]:
    threads = torch.get_num_threads()
    worker: Worker | None = None
    pool = ThreadPoolExecutor(concurrency, thread_name_prefix="wasnow-block")
    in_progress: deque[Future[BlockResult]] = deque()
    try:
        worker = Worker(replace(spec, threads=threads // concurrency), concurrency)
        for block in blocks:
            in_progress.append(pool.submit(_read_and_predict, worker, block))
            # One more than run at the same time, so that no thread waits while a result is written to the journal.
            if len(in_progress) > concurrency:
                yield in_progress.popleft().result()
        while in_progress:
            yield in_progress.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        if worker is not None:
            worker.close()
        torch.set_num_threads(threads)


def _read_and_predict(worker: Worker, block: int) -> BlockResult:
    return worker.predict(worker.read(block))
