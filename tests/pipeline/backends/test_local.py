"""The backend of this process: one block after the other, or two at the same time."""

import threading
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from making import Toy, pair
from pipeline.backends.crew import small_blocks
from wasnow.models.loading import OPENVINO
from wasnow.pipeline.api import detect
from wasnow.pipeline.backends import local
from wasnow.pipeline.backends.local import CONCURRENT_BLOCKS, concurrent_blocks

OUTPUTS = ("change.tif", "confidence.tif", "changes.parquet")


class Network(nn.Module):
    """The toy as an ``nn.Module``."""

    def __init__(self, toy=None):
        super().__init__()
        self.toy = toy or Toy()

    @property
    def card(self):
        return self.toy.card

    def bind(self, classes):
        return Network(self.toy.bind(classes))

    def forward(self, before, after, valid=None):
        return self.toy(before, after, valid)


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    small_blocks(monkeypatch)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def run(folder, name, model, monkeypatch, concurrency):
    monkeypatch.setattr(local, "concurrent_blocks", lambda spec: concurrency)
    return detect(*pair(folder), output=folder / name, model=model)


def test_two_blocks_at_a_time_give_the_bytes_of_one(tmp_path, monkeypatch):
    one = run(tmp_path, "one", Network(), monkeypatch, 1)
    two = run(tmp_path, "two", Network(), monkeypatch, 2)
    assert len(one.record.blocks) > CONCURRENT_BLOCKS
    for name in OUTPUTS:
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes(), name
    assert [block.block for block in two.record.blocks] == [block.block for block in one.record.blocks]


def test_each_block_gets_its_share_of_the_threads_and_the_thread_count_is_restored(tmp_path, monkeypatch):
    seen = []
    plain = Toy.__call__
    monkeypatch.setattr(
        Toy,
        "__call__",
        lambda *a: seen.append((threading.current_thread().name, torch.get_num_threads())) or plain(*a),
    )
    run(tmp_path, "out", Network(), monkeypatch, 2)
    assert {threads for _, threads in seen} == {1}
    assert all(name.startswith("wasnow-block") for name, _ in seen)
    assert torch.get_num_threads() == 2


def test_an_error_in_one_block_ends_the_run_and_the_next_run_continues(tmp_path, monkeypatch):
    calls = []
    plain = Toy.__call__

    def failing(self, *images):
        calls.append(1)
        if len(calls) == 4:
            raise MemoryError("no memory for this tile")
        return plain(self, *images)

    monkeypatch.setattr(Toy, "__call__", failing)
    with pytest.raises(MemoryError):
        run(tmp_path, "out", Network(), monkeypatch, 2)
    assert torch.get_num_threads() == 2
    assert not [each for each in threading.enumerate() if each.name.startswith("wasnow-block")]
    first = len(calls)
    done = run(tmp_path, "out", Network(), monkeypatch, 2)
    assert len(calls) - first < len(done.record.blocks)
    whole = run(tmp_path, "whole", Network(), monkeypatch, 1)
    assert (done.folder / "change.tif").read_bytes() == (whole.folder / "change.tif").read_bytes()


@pytest.mark.parametrize(
    ("changes", "concurrency"),
    [
        ({}, 2),
        ({"device": OPENVINO}, 1),
        ({"features": object()}, 1),
        ({"model": Toy()}, 1),  # not a network: it may keep state between calls
        ({"model": None}, 1),
        ({"tiling": range(1)}, 1),  # half of the threads would be idle
    ],
)
def test_two_blocks_at_a_time_are_for_networks_on_a_cpu(changes, concurrency, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    spec = SimpleNamespace(**{"model": Network(), "features": None, "device": "auto", "tiling": range(2), **changes})
    assert concurrent_blocks(spec) == concurrency


def test_a_single_thread_and_a_gpu_compute_one_block_at_a_time(monkeypatch):
    spec = SimpleNamespace(model=Network(), features=None, device="auto", tiling=range(2))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert concurrent_blocks(spec) == 1
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    torch.set_num_threads(1)
    assert concurrent_blocks(spec) == 1
