"""Transfer of batches from loader processes to the training process.

    enough shared memory   tensors in /dev/shm                      (default of torch, no copy)
    otherwise              numpy arrays through a pipe              (slower, needs no shared memory)

torch allocates shared memory in a background thread of the loader process. If that fails, for example because a
container has 64 MB, the batch is lost and the training process waits forever. `pack` therefore allocates in the main
thread of the loader process, where a failure is an exception, and switches that batch to the pipe.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wasnow.training.batches import Batch
from wasnow.training.losses import Target

SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class PackedBatch:
    """A batch as numpy arrays, which processes exchange through a pipe; None for absent tensors."""

    arrays: tuple[NDArray[np.generic] | None, ...]

    def unpack(self) -> Batch:
        """Return the batch."""
        tensors = [None if one is None else torch.from_numpy(one) for one in self.arrays]
        before, after, change, valid = tensors[:4]
        assert before is not None
        assert after is not None
        assert change is not None
        assert valid is not None
        return Batch(before, after, Target(change, valid, tensors[4], tensors[5]), tensors[6])


def pack(batch: Batch, *, share: bool) -> Batch | PackedBatch:
    """Prepare a batch for the training process.

    Args:
        batch: of a loader process.
        share: whether to try shared memory.

    Returns:
        The batch in shared memory, or its arrays if shared memory is not used or not sufficient.
    """
    tensors = _tensors(batch)
    if share:
        try:
            for one in tensors:
                if one is not None:
                    one.share_memory_()  # type: ignore[no-untyped-call]
        except RuntimeError:
            # Partly shared tensors are copied to plain arrays below, which frees the shared memory.
            pass
        else:
            return batch
    return PackedBatch(tuple(None if one is None else np.array(one.numpy()) for one in tensors))


def free_shared_memory() -> int | None:
    """Return the free bytes of shared memory; None where it is not a file system of its own."""
    if not hasattr(os, "statvfs"):
        return None
    try:
        state = os.statvfs(SHARED_MEMORY)
    except OSError:
        return None
    return state.f_bavail * state.f_frsize


def shortage(batch_bytes: int, batches: int) -> str | None:
    """Return a warning if prefetched batches do not fit into shared memory; None if they do.

    Args:
        batch_bytes: size of one micro-batch.
        batches: micro-batches in memory at a time.
    """
    free, needed = free_shared_memory(), batch_bytes * batches
    if free is None or free >= needed:
        return None
    return (
        f"{SHARED_MEMORY} has {free / 2**20:.0f} MB free and the loader processes need {needed / 2**20:.0f} MB: "
        "batches are sent through pipes, which is slower; enlarge it (docker run --shm-size=2g) or use --set workers=0"
    )


def batch_bytes(batch: Batch) -> int:
    """Return the size of the tensors of a batch in bytes."""
    return sum(one.numel() * one.element_size() for one in _tensors(batch) if one is not None)


def _tensors(batch: Batch) -> tuple[Tensor | None, ...]:
    target = batch.target
    return batch.before, batch.after, target.change, target.valid, target.before, target.after, batch.priors
