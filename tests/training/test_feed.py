"""What a network sees is a function of (seed, position): not of workers, devices, or where a run began."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.tiny import Blobs, mirror
from wasnow.data.samples import Sample
from wasnow.errors import InputError, UsageError
from wasnow.training.batches import Batch, collate, target_of
from wasnow.training.loader import BatchLoader, epoch_order
from wasnow.training.losses import NO_CLASS
from wasnow.training.roles import Subset, assign_roles, hold_back

SEEDS = st.integers(0, 2**63 - 1)


@given(SEEDS, st.integers(0, 1000), st.integers(1, 50))
def test_an_epoch_holds_every_sample_once(seed: int, epoch: int, size: int):
    assert sorted(epoch_order(seed, epoch, size)) == list(range(size))


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {tuple(epoch_order(seed, epoch, 20)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 9))
def test_the_devices_together_see_what_one_would(devices: int, parts: int, share: int, step: int):
    batch = devices * parts * share

    def feed(rank: int, devices: int) -> BatchLoader:
        return BatchLoader(Blobs(), mirror, seed=0, batch_size=batch, parts=parts, rank=rank, devices=devices)

    alone = feed(0, 1).positions(step)
    together = [feed(rank, devices).positions(step) for rank in range(devices)]
    for part in range(parts):
        assert [at for rank in range(devices) for at in together[rank][part]] == alone[part]
    flat = [at for part in alone for at in part]
    assert flat == list(range(step * batch, (step + 1) * batch))


def seen(first: int, stop: int, workers: int) -> list[Batch]:
    feed = BatchLoader(Blobs(5), mirror, seed=4, batch_size=4, parts=2, workers=workers)
    return [part for parts in feed.batches(first, stop) for part in parts]


def equal(one: Batch, other: Batch) -> bool:
    return torch.equal(one.before, other.before) and torch.equal(one.target.change, other.target.change)


def test_the_number_of_workers_and_the_step_begun_at_do_not_matter():
    whole = seen(0, 4, workers=0)
    assert all(map(equal, whole, seen(0, 4, workers=2)))
    assert all(map(equal, whole[4:], seen(2, 4, workers=0)))
    assert not any(equal(one, other) for one, other in pairwise(whole))


def test_reading_leaves_torchs_own_generator_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    seen(0, 2, workers=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_pixels_travel_as_bytes_and_arrive_as_0_to_1():
    batch = collate([Blobs()[0]])
    assert batch.before.dtype == torch.uint8
    before, _, _ = batch.to(torch.device("cpu"))
    assert torch.equal(before[0], torch.from_numpy(Blobs()[0].before.copy()).movedim(2, 0) / 255)


def sample(change: list[int] | None, before: list[int] | None, after: list[int] | None, size: int = 4) -> Sample:
    photo = np.zeros((1, size, 3), np.uint8)
    maps = (None if one is None else np.array([one], np.uint8) for one in (before, after, change))
    return Sample("s", photo, photo, *maps)


def test_classes_alone_say_where_it_changed():
    target = target_of([sample(None, [0, 1, 255, 2], [0, 2, 1, 3])])
    assert target.change.tolist() == [[[False, True, False, True]]]
    assert target.valid.tolist() == [[[True, True, False, True]]]


def test_with_a_mask_classes_count_wherever_they_are_labelled():
    target = target_of([sample([0, 1, 255, 1], [1, 2, 1, 255], [1, 3, 1, 2])])
    assert target.change.tolist() == [[[False, True, False, True]]]
    assert target.valid.tolist() == [[[True, True, False, True]]]
    assert target.before is not None
    assert target.before.tolist() == [[[0, 1, 0, NO_CLASS]]]


def test_a_mask_alone_has_no_classes():
    target = target_of([sample([0, 1, 255, 1], None, None)])
    assert target.before is None
    assert target.valid.sum() == 3


def test_samples_without_labels_or_with_different_kinds_are_rejected():
    with pytest.raises(InputError, match="has no labels; remove it from"):
        target_of([sample(None, None, None)])
    with pytest.raises(InputError, match="different kinds of labels"):
        target_of([sample([0] * 4, None, None), sample(None, [0] * 4, [0] * 4)])


def test_pictures_of_unlike_size_name_the_crop_that_would_fit():
    with pytest.raises(InputError, match="--set crop=16"):
        collate([Blobs(height=16, width=32)[0], Blobs()[0]])


@given(st.integers(2, 40), st.floats(0.01, 0.99), SEEDS)
@settings(max_examples=50)
def test_pairs_held_back_are_not_trained_on(size: int, share: float, seed: int):
    kept, held = hold_back(Blobs(size), share, seed)
    assert sorted([*kept.chosen, *held.chosen]) == list(range(size))
    assert len(kept)
    assert len(held)
    assert hold_back(Blobs(size), share, seed) == (kept, held)


def test_the_test_split_has_no_role():
    whole = {"train": Blobs(6), "val": Blobs(2), "test": Blobs(9)}
    found = assign_roles(whole, holdback=0.5, seed=0)
    assert (found.train, found.select, found.untouched) == (whole["train"], whole["val"], ("test",))
    assert (found.trained_on, found.selected_on) == ("train (6 pairs)", "val (2 pairs)")


def test_without_a_validation_split_a_part_of_the_training_pairs_selects():
    found = assign_roles({"all": Blobs(10)}, holdback=0.2, seed=0)
    assert isinstance(found.select, Subset)
    assert (len(found.train), len(found.select)) == (8, 2)
    assert "held back from all (2 of 10 pairs, seed 0)" in found.selected_on
    assert assign_roles({"all": Blobs(10)}, holdback=0.0, seed=0).select is None


def test_data_without_training_pairs_is_rejected():
    with pytest.raises(UsageError, match="the data has test; train or all is required"):
        assign_roles({"test": Blobs(3)}, holdback=0.1, seed=0)
    with pytest.raises(UsageError, match="--set holdback=0"):
        assign_roles({"train": Blobs(1)}, holdback=0.1, seed=0)
