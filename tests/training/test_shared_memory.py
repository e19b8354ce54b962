"""Batches reach the training process whatever the size of /dev/shm, and a loader that dies ends the run."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from training.tiny import Blobs, config, mirror, register
from wasnow.data.samples import Sample
from wasnow.errors import OutOfMemory
from wasnow.training import loader, shared_memory
from wasnow.training.batches import Batch, collate
from wasnow.training.shared_memory import PackedBatch, pack, shortage
from wasnow.training.trainer import train

SCRIPT = Path(__file__).with_name("small_shared_memory.py")


def tensors(batch: Batch) -> list[torch.Tensor | None]:
    target = batch.target
    return [batch.before, batch.after, target.change, target.valid, target.before, target.after, batch.priors]


def equal(one: Batch, other: Batch) -> bool:
    pairs = zip(tensors(one), tensors(other), strict=True)
    return all((a is None and b is None) or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)


def refuse(tensor: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("unable to allocate shared memory(shm) for file: No space left on device (28)")


def test_a_batch_is_packed_as_arrays_if_shared_memory_is_full(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.Tensor, "share_memory_", refuse)
    batch = collate([Blobs()[i] for i in range(3)])
    packed = pack(batch, share=True)
    assert isinstance(packed, PackedBatch)
    assert equal(packed.unpack(), batch)


def test_a_batch_stays_in_shared_memory_if_it_fits():
    batch = collate([Blobs()[0]])
    packed = pack(batch, share=True)
    assert packed is batch
    assert batch.before.is_shared()


def test_a_small_shared_memory_gives_a_warning_with_the_remedies(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shared_memory, "free_shared_memory", lambda: 64 << 20)
    assert shortage(batch_bytes=1 << 20, batches=64) is None
    warning = shortage(batch_bytes=1 << 20, batches=65)
    assert warning is not None
    assert "64 MB free and the loader processes need 65 MB" in warning
    assert "--shm-size" in warning
    assert "workers=0" in warning


def test_batches_through_pipes_equal_those_of_this_process(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loader, "free_shared_memory", lambda: 0)
    monkeypatch.setattr(shared_memory, "free_shared_memory", lambda: 0)
    warnings: list[str] = []
    own = loader.BatchLoader(Blobs(), mirror, seed=0, batch_size=4)
    piped = loader.BatchLoader(Blobs(), mirror, seed=0, batch_size=4, workers=1, warn=warnings.append)
    for (one,), (other,) in zip(own.batches(0, 3), piped.batches(0, 3), strict=True):
        assert equal(one, other)
    assert len(warnings) == 1


def with_small_shared_memory(*options: str) -> subprocess.CompletedProcess[str]:
    """Run the script with a /dev/shm of 1 MB, in a mount namespace of its own."""
    mount = "mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "
    command = f"{mount} {sys.executable} {SCRIPT} {' '.join(options)}"
    path = os.pathsep.join([str(SCRIPT.parent.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", command],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": path},
    )


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    trial = ["unshare", "-m", "sh", "-c", "mount -t tmpfs -o size=1m tmpfs /dev/shm"]
    return subprocess.run(trial, capture_output=True).returncode == 0


def test_training_data_is_loaded_with_a_shared_memory_of_one_megabyte():
    if not can_mount():
        pytest.skip("mounting a tmpfs needs privileges")
    expected = with_small_shared_memory("--no-workers")
    assert expected.returncode == 0, expected.stderr
    checked = with_small_shared_memory()
    assert checked.stdout == expected.stdout
    assert "are sent through pipes" in checked.stderr
    unchecked = with_small_shared_memory("--no-check")
    assert unchecked.stdout == expected.stdout


@dataclass(frozen=True)
class Deadly(Blobs):
    """Pairs of which one kills the process that loads it."""

    def __getitem__(self, index: int) -> Sample:
        if index == 3 and multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def test_a_loader_that_dies_ends_the_run_with_the_remedies(tmp_path: Path):
    register()
    data = {"train": Deadly(6), "val": Blobs(3, seed=1)}
    with pytest.raises(OutOfMemory, match=r"a process that loads pairs ended at step 1 .*workers=1 .*--shm-size"):
        train(config("steps=4", "workers=1"), data, tmp_path, transform=mirror)
