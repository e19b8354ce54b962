"""This process, one block after the other or two at a time."""

import threading
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from making import Toy, pair
from pipeline.backends.crew import small_blocks
from wasnow.pipeline.acceleration import OPENVINO
from wasnow.pipeline.backends import here
from wasnow.pipeline.backends.local import LANES, lanes_for
from wasnow.pipeline.run import detect

OUTPUTS = ("change.tif", "confidence.tif", "changes.parquet")


class Network(nn.Module):
    """The toy as a network."""

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


def run(folder, name, model, monkeypatch, lanes):
    monkeypatch.setattr(here, "lanes_for", lambda order: lanes)
    return detect(*pair(folder), output=folder / name, model=model)


def test_two_lanes_write_the_bytes_of_one(tmp_path, monkeypatch):
    one = run(tmp_path, "one", Network(), monkeypatch, 1)
    two = run(tmp_path, "two", Network(), monkeypatch, 2)
    assert len(one.record.blocks) > LANES
    for name in OUTPUTS:
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes(), name
    assert [block.block for block in two.record.blocks] == [block.block for block in one.record.blocks]


def test_each_lane_has_its_share_of_the_threads_and_all_are_back_afterwards(tmp_path, monkeypatch):
    seen = []
    plain = Toy.__call__
    monkeypatch.setattr(
        Toy,
        "__call__",
        lambda *a: seen.append((threading.current_thread().name, torch.get_num_threads())) or plain(*a),
    )
    run(tmp_path, "out", Network(), monkeypatch, 2)
    assert {threads for _, threads in seen} == {1}
    assert all(name.startswith("wasnow-lane") for name, _ in seen)
    assert torch.get_num_threads() == 2


def test_a_fault_in_one_lane_ends_the_run_and_the_next_run_goes_on(tmp_path, monkeypatch):
    calls = []
    plain = Toy.__call__

    def failing(self, *images):
        calls.append(1)
        if len(calls) == 4:
            raise MemoryError("no room for this tile")
        return plain(self, *images)

    monkeypatch.setattr(Toy, "__call__", failing)
    with pytest.raises(MemoryError):
        run(tmp_path, "out", Network(), monkeypatch, 2)
    assert torch.get_num_threads() == 2
    assert not [each for each in threading.enumerate() if each.name.startswith("wasnow-lane")]
    first = len(calls)
    done = run(tmp_path, "out", Network(), monkeypatch, 2)
    assert len(calls) - first < len(done.record.blocks)
    whole = run(tmp_path, "whole", Network(), monkeypatch, 1)
    assert (done.folder / "change.tif").read_bytes() == (whole.folder / "change.tif").read_bytes()


@pytest.mark.parametrize(
    ("changes", "lanes"),
    [
        ({}, 2),
        ({"device": OPENVINO}, 1),
        ({"features": object()}, 1),
        ({"model": Toy()}, 1),  # no network: nobody knows what it keeps between calls
        ({"model": None}, 1),
        ({"tiling": range(1)}, 1),  # half of the threads would stand still
    ],
)
def test_lanes_are_for_networks_on_processors(changes, lanes, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    order = SimpleNamespace(**{"model": Network(), "features": None, "device": "auto", "tiling": range(2), **changes})
    assert lanes_for(order) == lanes


def test_a_single_thread_and_a_graphics_card_have_one_lane(monkeypatch):
    order = SimpleNamespace(model=Network(), features=None, device="auto", tiling=range(2))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert lanes_for(order) == 1
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    torch.set_num_threads(1)
    assert lanes_for(order) == 1
