"""Which pair a network sees at which moment, and how it gets there: a function of (seed, position) alone.

    position   0    1    2    3  |  4    5    6    7  |  8 ...        one endless line of pairs
    epoch      0    0    0    0  |  1    1    1    1  |  2            every epoch shuffles anew: (seed, epoch)
    batch      [ step 0 ]  [ step 1 ]  [ step 2 ]  [ ...              a batch may reach into the next epoch
    device     r0 r1  ...                                             each device takes its share of each batch

What happens to the pair at a position (crop, flip, colours) is drawn from (seed, epoch, place in it). So neither the
number of worker processes, nor of devices, nor where a run was interrupted, can change what is seen.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wasnow.errors import InputError, UsageError
from wasnow.evaluation.metrics import IGNORE
from wasnow.training.losses import NO_CLASS, Target

if TYPE_CHECKING:
    from wasnow.data.samples import Sample, Samples
    from wasnow.vocabulary import Vocabulary

Transform = Callable[["Sample", np.random.Generator], "Sample"]

_ORDER, _AUGMENT, _HOLDBACK, _TORCH = range(4)
"""One stream of random numbers per purpose."""


def draw(seed: int, *key: int) -> np.random.Generator:
    """Random numbers that depend on the seed and the key alone."""
    return np.random.Generator(np.random.PCG64([seed, *key]))


def torch_seed(seed: int, step: int, rank: int) -> int:
    """What torch's own generators are seeded with before a step: dropout has no history that a resume could lose."""
    return int(draw(seed, _TORCH, step, rank).integers(2**63))


def order(seed: int, epoch: int, size: int) -> NDArray[np.intp]:
    """``(size,)``: which sample stands at each place of an epoch; every one exactly once."""
    return draw(seed, _ORDER, epoch).permutation(size).astype(np.intp)


@dataclass(frozen=True)
class Batch:
    """Pairs as they travel: bytes, widened only on the device.

    Attributes:
        before: ``(B, 3, H, W)`` uint8.
        after: ``(B, 3, H, W)`` uint8.
        target: what the labels say.
        priors: ``(B, 2, W, H, Wd)`` uint8, 0 and 1; None for a model that wants none.
    """

    before: Tensor
    after: Tensor
    target: Target
    priors: Tensor | None = None

    def to(self, device: torch.device) -> tuple[Tensor, Tensor, Target]:
        """Images 0..1 float32 and labels, on a device."""
        before, after = (one.to(device, non_blocking=True).float() / 255 for one in (self.before, self.after))
        return before, after, self.target.to(device)


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples of one size as a batch.

    Raises:
        InputError: sizes differ, some lack labels or priors, or some have classes and others not.
    """
    if len(sizes := {one.before.shape[:2] for one in samples}) > 1:
        small = min(sizes)
        raise InputError(
            f"pairs of {small[0]} x {small[1]} px and larger ones cannot share a batch; use --set crop={min(small)}"
        )
    before, after = (
        torch.from_numpy(np.stack([np.moveaxis(getattr(one, date), 2, 0) for one in samples]))
        for date in ("before", "after")
    )
    bare = [one.name for one in samples if one.priors is None]
    if 0 < len(bare) < len(samples):
        raise InputError(f"{bare[0]} has no priors while others of its batch have; make those of the whole dataset")
    return Batch(before, after, target_of(samples), _stacked([one.priors for one in samples]))


def target_of(samples: Sequence[Sample]) -> Target:
    """What the labels of some samples say, for the losses.

    Classes alone: changed is where either date has a class. Change alone: no classes. Both: the change mask says where
    the ground changed, and classes count wherever they are labelled, changed or not.

    Raises:
        InputError: a sample has no labels, or some have classes and others not.
    """
    bare = [one.name for one in samples if one.change is None and one.before_classes is None]
    if bare:
        raise InputError(f"{bare[0]} has no labels to train on; leave it out, or add its label files")
    kinds = {(one.change is None, one.before_classes is None) for one in samples}
    if len(kinds) > 1:
        raise InputError(f"{samples[0].name} and others have different kinds of labels; make separate datasets of them")
    mask = _stacked([one.change for one in samples])
    before, after = _stacked([one.before_classes for one in samples]), _stacked([one.after_classes for one in samples])
    if before is None or after is None:
        assert mask is not None
        return Target.of_change(mask)
    if mask is None:
        return Target.of_codes(before, after, ignore=IGNORE)
    return Target(mask == 1, mask != IGNORE, _classes(before), _classes(after))


def _stacked(maps: Sequence[NDArray[np.uint8] | None]) -> Tensor | None:
    there = [one for one in maps if one is not None]
    return torch.from_numpy(np.stack(there)) if len(there) == len(maps) else None


def _classes(codes: Tensor) -> Tensor:
    """Codes 1..K as indices 0..K-1; unchanged and not labelled as `NO_CLASS`."""
    return torch.where((codes == 0) | (codes == IGNORE), NO_CLASS, codes.long() - 1)


class Line(Dataset["Sample"]):
    """The endless line of augmented pairs: indexed by position."""

    def __init__(self, samples: Samples, transform: Transform, seed: int) -> None:
        self._samples, self._transform, self._seed = samples, transform, seed
        self._epoch, self._order = -1, np.zeros(0, np.intp)

    def __getitem__(self, position: int) -> Sample:
        epoch, place = divmod(position, len(self._samples))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, order(self._seed, epoch, len(self._samples))
        sample = self._samples[int(self._order[place])]
        return self._transform(sample, draw(self._seed, _AUGMENT, epoch, place))


class Feed:
    """Batches from a step on, each in the parts in which it goes through the model; counts the time spent waiting.

    Args:
        samples: to train on.
        transform: a sample and random numbers to a sample of the training size.
        batch_size: pairs per step over all devices.
        parts: micro-batches per step.
        rank: of this device.
        devices: how many there are.
        workers: processes; 0 reads in this one.
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
    ) -> None:
        self._line = Line(samples, transform, seed)
        self._batch, self._parts, self._rank, self._devices = batch_size, parts, rank, devices
        self._workers, self._pin = workers, pin
        self.waited_s = 0.0

    def positions(self, step: int) -> list[list[int]]:
        """What this device sees at a step: one list of positions per part.

        A part of all devices together is contiguous, so that one device with the same parts sees the same.
        """
        size = self._batch // self._parts
        share = size // self._devices
        starts = (step * self._batch + part * size + self._rank * share for part in range(self._parts))
        return [list(range(start, start + share)) for start in starts]

    def batches(self, first: int, stop: int) -> Iterator[list[Batch]]:
        """The parts of each of the steps ``first`` to ``stop - 1``."""
        loader: DataLoader[Sample] = DataLoader(
            self._line,
            batch_sampler=[part for step in range(first, stop) for part in self.positions(step)],
            num_workers=self._workers,
            collate_fn=collate,
            worker_init_fn=_leave_signals_to_parent,
            pin_memory=self._pin,
            generator=torch.Generator(),  # else the loader draws from the generator that dropout uses
            prefetch_factor=max(2, 2 * self._parts) if self._workers else None,
        )
        batches = iter(loader)
        for _ in range(first, stop):
            began = time.perf_counter()
            parts = [next(batches) for _ in range(self._parts)]
            self.waited_s += time.perf_counter() - began
            yield parts


def _leave_signals_to_parent(worker: int) -> None:
    """Ctrl-C reaches the whole group of processes: the parent ends the workers when it has saved its state."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


# ----------------------------------------------------------------------------------------------------- who is seen when


@dataclass(frozen=True)
class Subset:
    """Some of a set of samples, as a set of samples."""

    whole: Samples
    chosen: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, i: int) -> Sample:
        return self.whole[self.chosen[i]]

    @property
    def vocabulary(self) -> Vocabulary:
        """That of the whole."""
        return self.whole.vocabulary

    @property
    def names(self) -> Sequence[str]:
        """Of the chosen ones."""
        return [self.whole.names[i] for i in self.chosen]

    @property
    def fingerprint(self) -> str:
        """That of the whole: which were chosen is told elsewhere."""
        return self.whole.fingerprint


def hold_back(samples: Samples, share: float, seed: int) -> tuple[Subset, Subset]:
    """Two parts of a set that has no validation split: to train on, and to validate on. The same seed, the same parts.

    Raises:
        UsageError: there are fewer than two samples.
    """
    size = len(samples)
    if size < 2:
        raise UsageError(f"{size} pair(s) cannot be cut into training and validation; add pairs or --set holdback=0")
    held = min(size - 1, max(1, round(share * size)))
    shuffled = draw(seed, _HOLDBACK).permutation(size).tolist()
    return Subset(samples, tuple(sorted(shuffled[held:]))), Subset(samples, tuple(sorted(shuffled[:held])))


@dataclass(frozen=True)
class Roles:
    """Who is trained on and who chooses the best weights, with their names for the report.

    Attributes:
        train: the pairs that gradients come from.
        select: the pairs whose scores choose the best weights; None where nothing does.
        trained_on: ``train (2375 pairs)``.
        selected_on: likewise; a sentence where nothing selects.
        untouched: the splits that the run does not look at.
        train_split: which split of the data ``train`` is, or a part of.
        select_split: the same of ``select``.
    """

    train: Samples
    select: Samples | None
    trained_on: str
    selected_on: str
    untouched: tuple[str, ...]
    train_split: str = "train"
    select_split: str = "val"


def roles(splits: dict[str, Samples], *, holdback: float, seed: int) -> Roles:
    """Who does what: ``train`` and ``val`` where they are there, else a part of the training pairs is held back.

    The test split is never looked at.

    Raises:
        UsageError: there is nothing to train on.
    """
    name = next((one for one in ("train", "all") if one in splits), None)
    if name is None or len(splits[name]) == 0:
        raise UsageError(f"nothing to train on: the data has {', '.join(splits) or 'no splits'}, wanted train or all")
    train = splits[name]
    rest = tuple(one for one in splits if one not in (name, "val"))
    if "val" in splits and len(splits["val"]):
        val = splits["val"]
        return Roles(train, val, f"{name} ({_pairs(len(train))})", f"val ({_pairs(len(val))})", rest, name, "val")
    if holdback == 0:
        said = "nothing: the last weights are kept"
        return Roles(train, None, f"{name} ({_pairs(len(train))})", said, rest, name, name)
    kept, held = hold_back(train, holdback, seed)
    return Roles(
        kept,
        held,
        f"{name} without the pairs held back ({len(kept)} of {_pairs(len(train))})",
        f"held back from {name} ({len(held)} of {_pairs(len(train))}, seed {seed})",
        rest,
        name,
        name,
    )


def _pairs(count: int) -> str:
    return f"{count} pair{'' if count == 1 else 's'}"
