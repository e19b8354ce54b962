"""Execution backends compute the blocks of a run: this process, local worker processes, or a dask cluster.

    block numbers ──> Executor.results ──> block results, in any order ──> the journal, which only the run writes

    backend                  runs in                       a worker crashes                 blocks in progress, at most
    local.LocalExecutor      this process                  the run ends; run it again       READ_AHEAD + 1
    pool.PoolExecutor        spawned processes             another process replaces it      2 per worker
    dask.DaskExecutor        workers of a dask scheduler   dask asks another worker         2 per worker

All backends use the same `Worker`, so a run may be finished with another backend than it was started with. The blocks
in progress when their worker crashed are suspects. Suspects wait until all other blocks are done, then each runs
alone, so that no block is blamed for another one or for the memory of others. A block that crashes its worker
`worker.ATTEMPTS` times alone is flagged, and the next run tries it again.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from wasnow.errors import UsageError
from wasnow.output.record import ExecutorRecord
from wasnow.pipeline.backends.local import LocalExecutor
from wasnow.pipeline.worker import BlockResult, RunSpec

LOCAL_CLUSTER = "local"
"""The value of ``--scheduler`` that starts a cluster on this machine for the run."""


class Executor(Protocol):
    """A context manager: entered before the survey, left when all blocks are done. Leaving it early drops the rest."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...

    def results(self, spec: RunSpec, blocks: Iterable[int]) -> Generator[BlockResult, None, None]:
        """Yield the result of each of these blocks, in the order in which they finish.

        Raises:
            UsageError: the model cannot be sent to the workers.
            WorkersLost: no worker is left.
            WasnowError: raised by a worker.
        """
        ...

    @property
    def record(self) -> ExecutorRecord:
        """The workers that took part; complete after the last result."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """Problems that the backend recovered from."""
        ...


def executor_for(workers: int | None, scheduler: str | None, *, blocks: int, paths: Sequence[Path] = ()) -> Executor:
    """Return the backend that two options select.

    Args:
        workers: number of processes; None selects this process.
        scheduler: the address of a dask scheduler, or ``local``; None for no dask.
        blocks: number of blocks to compute.
        paths: files and folders that all workers must be able to open.

    Raises:
        UsageError: dask is required and not installed.
    """
    if blocks == 0 or (scheduler is None and workers is None):
        return LocalExecutor()
    if scheduler is None:
        from wasnow.pipeline.backends.pool import PoolExecutor

        return PoolExecutor(min(workers or 1, blocks))
    try:
        import distributed  # noqa: F401
    except ImportError:
        raise UsageError('--scheduler needs dask, which is not installed; pip install "wasnow[cluster]"') from None
    from wasnow.pipeline.backends.dask import DaskExecutor

    return DaskExecutor(None if scheduler == LOCAL_CLUSTER else scheduler, workers, paths)
