"""Who answers the blocks of a run: this process, processes of this machine, or the workers of a dask cluster.

    block numbers ──> Executor.answers ──> answers, in any order ──> the journal, which the run alone writes

                        works in                         a worker that dies               at most on the way
    here.Here           this process                     is the run itself; run again     READ_AHEAD + 1 blocks
    pool.Processes      processes, spawned               another takes its place          2 blocks a worker
    cluster.Dask        workers of a dask scheduler      dask asks another                2 blocks a worker

All three ask the same `Worker` the same questions, so a run may end with another one than it began with. A
block that was under way when its worker died is a suspect. Suspects wait until everything else is done; then each is
tried alone, so that none is blamed for another one or for what memory the others took. After `worker.TRIES` deaths
alone it is flagged, and the next run tries again.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from wasnow.errors import UsageError
from wasnow.output.record import ExecutorRecord
from wasnow.pipeline.backends.local import Here
from wasnow.pipeline.worker import Answer, Order

LOCAL = "local"
"""The ``--scheduler`` that is no address: a cluster on this machine, made for the run."""


class Executor(Protocol):
    """Entered before a run looks at its pixels, left when all is answered; to leave it early drops the rest."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...

    def answers(self, order: Order, blocks: Iterable[int]) -> Generator[Answer, None, None]:
        """An answer to each of these blocks, as they come.

        Raises:
            UsageError: the order cannot be sent there.
            WorkersLost: there is nobody left to work.
            WasnowError: what a worker raised over a block.
        """
        ...

    @property
    def record(self) -> ExecutorRecord:
        """Who it was; complete when the last answer is there."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What went wrong on the way and was mended."""
        ...


def executor_for(workers: int | None, scheduler: str | None, *, blocks: int, paths: Sequence[Path] = ()) -> Executor:
    """The executor that two options name.

    Args:
        workers: processes; None: this one.
        scheduler: an address, or ``local``; None: no dask.
        blocks: how many there are to answer.
        paths: files and folders that whoever answers them must see.

    Raises:
        UsageError: dask is asked for and is not installed.
    """
    if blocks == 0 or (scheduler is None and workers is None):
        return Here()
    if scheduler is None:
        from wasnow.pipeline.backends.pool import Processes

        return Processes(min(workers or 1, blocks))
    try:
        import distributed  # noqa: F401
    except ImportError:
        raise UsageError('--scheduler needs dask, which is not installed; pip install "wasnow[cluster]"') from None
    from wasnow.pipeline.backends.dask import Dask

    return Dask(None if scheduler == LOCAL else scheduler, workers, paths)
