"""A job in a separate process, so that a crash or an exhausted memory ends only that job."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from multiprocessing import get_all_start_methods, get_context
from typing import Any

from wasnow.benchmark.job import Job, run_in_worker
from wasnow.errors import Interrupted

_KILLED = 9


def run_in_process(task: Callable[[Job], None], job: Job) -> tuple[str | None, str]:
    """Run a task of `wasnow.benchmark.job` in a separate process.

    Returns:
        None or the reason of the failure in one line, and the traceback of an unexpected error.

    Raises:
        Interrupted: the child or this process was interrupted; the child has saved its state.
    """
    forked = "forkserver" in get_all_start_methods()
    context: Any = get_context("forkserver" if forked else "spawn")
    if forked:
        # The server imports torch once and computes nothing, so its forks start fast with fresh memory.
        context.set_forkserver_preload(["wasnow.benchmark.job"])
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=partial(run_in_worker, task), args=(job, sender))
    try:
        child.start()
        sender.close()
        try:
            answer = receiver.recv()
        except EOFError:
            answer = ("silent", "", "")
        child.join()
    except KeyboardInterrupt:
        if child.pid is not None:
            child.terminate()
            child.join()
        raise Interrupted("interrupted; finished runs are kept, and the same command continues") from None
    kind, reason, details = answer
    if kind == "interrupted":
        raise Interrupted(f"{job.trial.name} was interrupted and its state saved; the same command continues")
    if kind == "silent" and child.exitcode == -_KILLED:
        reason = "its process was killed, probably because memory ran out; lower --set batch_size or --set crop"
    elif kind == "silent":
        reason = f"its process ended without a result (exit code {child.exitcode})"
    return (None if kind == "done" else reason), details
