"""Loading of training pairs: which pair is used at which step depends on (seed, position) only.

    position   0    1    2    3  |  4    5    6    7  |  8 ...        one endless sequence of pairs
    epoch      0    0    0    0  |  1    1    1    1  |  2            every epoch is shuffled by (seed, epoch)
    batch      [ step 0 ]  [ step 1 ]  [ step 2 ]  [ ...              a batch may extend into the next epoch
    device     r0 r1  ...                                             each device loads its share of each batch

The augmentation of the pair at a position (crop, flip, colours) is drawn from (seed, epoch, place in the epoch).
Therefore the data does not depend on the number of worker processes or devices, or on where a run was interrupted.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from wasnow.training.batches import Batch, collate
from wasnow.training.shared_memory import PackedBatch, batch_bytes, free_shared_memory, pack, shortage

if TYPE_CHECKING:
    from wasnow.data.samples import Sample, Samples

Transform = Callable[["Sample", np.random.Generator], "Sample"]
"""Augmentation: a sample and random numbers to a sample of the training size."""

ORDER, AUGMENT, HOLDBACK, TORCH = range(4)
"""First element of the key of `draw`, one per purpose."""


def draw(seed: int, *key: int) -> np.random.Generator:
    """Return a generator that depends on the seed and the key only."""
    return np.random.Generator(np.random.PCG64([seed, *key]))


def torch_seed(seed: int, step: int, rank: int) -> int:
    """Return the seed of torch's generators before a step, so that dropout does not depend on earlier steps.

    Args:
        seed: of the run.
        step: 0..steps - 1.
        rank: of the device.
    """
    return int(draw(seed, TORCH, step, rank).integers(2**63))


def epoch_order(seed: int, epoch: int, size: int) -> NDArray[np.intp]:
    """Return ``(size,)``: the sample at each place of an epoch, each exactly once.

    Args:
        seed: of the run.
        epoch: 0, 1, ...
        size: number of samples.
    """
    return draw(seed, ORDER, epoch).permutation(size).astype(np.intp)


class AugmentedSequence(Dataset["Sample"]):
    """The endless sequence of augmented pairs, indexed by position."""

    def __init__(self, samples: Samples, transform: Transform, seed: int) -> None:
        self._samples, self._transform, self._seed = samples, transform, seed
        self._epoch, self._order = -1, np.zeros(0, np.intp)

    def __getitem__(self, position: int) -> Sample:
        epoch, place = divmod(position, len(self._samples))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, epoch_order(self._seed, epoch, len(self._samples))
        sample = self._samples[int(self._order[place])]
        return self._transform(sample, draw(self._seed, AUGMENT, epoch, place))


class BatchLoader:
    """Loads the batches of consecutive steps, each split into micro-batches, and measures the waiting time.

    Args:
        samples: training pairs.
        transform: augmentation.
        seed: of the run.
        batch_size: pairs per step over all devices.
        parts: micro-batches per step.
        rank: of this device.
        devices: number of devices.
        workers: loader processes; 0 loads in this process.
        pin: copy batches to pinned memory, for a GPU.
        warn: receives a warning if shared memory is too small.
    """

    def __init__(
        self,
        samples: Samples,
        transform: Transform,
        *,
        seed: int,
        batch_size: int,
        parts: int = 1,
        rank: int = 0,
        devices: int = 1,
        workers: int = 0,
        pin: bool = False,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._sequence = AugmentedSequence(samples, transform, seed)
        self._batch, self._parts, self._rank, self._devices = batch_size, parts, rank, devices
        self._workers, self._pin, self._warn = workers, pin, warn
        self.waited_s = 0.0

    def positions(self, step: int) -> list[list[int]]:
        """Return the positions that this device loads at a step, one list per micro-batch.

        A micro-batch over all devices is contiguous, so one device with the same parts loads the same pairs.
        """
        size = self._batch // self._parts
        share = size // self._devices
        starts = (step * self._batch + part * size + self._rank * share for part in range(self._parts))
        return [list(range(start, start + share)) for start in starts]

    def batches(self, first: int, stop: int) -> Iterator[list[Batch]]:
        """Yield the micro-batches of each step from ``first`` to ``stop - 1``.

        Raises:
            LoaderDied: a loader process ended.
        """
        loader: DataLoader[Sample] = DataLoader(
            self._sequence,
            batch_sampler=[part for step in range(first, stop) for part in self.positions(step)],
            num_workers=self._workers,
            collate_fn=partial(_collate_and_pack, share=self._shares(first)) if self._workers else collate,
            worker_init_fn=_leave_signals_to_parent,
            pin_memory=self._pin,
            generator=torch.Generator(),  # otherwise the loader would draw from the generator of dropout
            prefetch_factor=self._prefetched if self._workers else None,
        )
        batches = iter(loader)
        for _ in range(first, stop):
            began = time.perf_counter()
            parts = [self._next(batches) for _ in range(self._parts)]
            self.waited_s += time.perf_counter() - began
            yield parts

    def _next(self, batches: Iterator[Any]) -> Batch:
        try:
            batch = next(batches)
        except RuntimeError as error:
            # torch has no exception class of its own for this.
            if "DataLoader worker" not in str(error) or ("exited" not in str(error) and "killed" not in str(error)):
                raise
            raise LoaderDied(" ".join(str(error).split())) from error
        return batch.unpack() if isinstance(batch, PackedBatch) else batch

    @property
    def _prefetched(self) -> int:
        """Micro-batches that each loader process prepares in advance."""
        return max(2, 2 * self._parts)

    def _shares(self, step: int) -> bool:
        """Return whether prefetched batches fit into shared memory; warn if they do not."""
        if free_shared_memory() is None:
            return True
        position = self.positions(step)[0][0]
        pair = batch_bytes(collate([self._sequence[position]]))
        share = self._batch // self._parts // self._devices
        # Each process prefetches, and holds one more batch while it is being filled.
        warning = shortage(pair * share, self._workers * (self._prefetched + 1))
        if warning is not None:
            self._warn(warning)
        return warning is None


class LoaderDied(Exception):
    """A loader process ended before the run did."""


def _collate_and_pack(samples: Sequence[Sample], *, share: bool) -> Batch | PackedBatch:
    return pack(collate(samples), share=share)


def _leave_signals_to_parent(worker: int) -> None:
    """Ignore Ctrl-C, which reaches the whole process group; the parent stops the workers after saving its state."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
