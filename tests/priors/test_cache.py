"""The cache of regions on disk."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from priors.stand_ins import Bright
from wasnow.errors import OutputError
from wasnow.priors import cache as caches
from wasnow.priors.cache import CachedMasker, PriorCache, picture_digest
from wasnow.priors.regions import connected_regions, union_masks

KEY = {"masker": "m", "box": 0.3}


@pytest.fixture
def cache(tmp_path):
    return PriorCache(tmp_path / "kept")


def a_picture(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@given(arrays(np.bool_, st.tuples(st.integers(1, 20), st.integers(1, 20))))
def test_unpacking_inverts_packing(mask):
    pieces = connected_regions(mask)
    found = caches._unpacked(caches._packed(b"{}", pieces), b"{}")
    assert [p.window for p in found] == [p.window for p in pieces]
    np.testing.assert_array_equal(union_masks([found], mask.shape)[0], mask)


def test_an_entry_is_identified_by_image_word_and_key(cache):
    pieces = connected_regions(np.eye(5, dtype=bool))
    cache.put("p", "building", KEY, pieces)
    assert len(cache.get("p", "building", KEY)) == 1
    assert cache.get("q", "building", KEY) is None
    assert cache.get("p", "road", KEY) is None
    assert cache.get("p", "building", {**KEY, "box": 0.31}) is None
    assert cache.get("p", "building", dict(reversed(KEY.items()))) is not None


def test_an_empty_result_is_cached(cache):
    cache.put("p", "building", KEY, ())
    assert cache.get("p", "building", KEY) == ()


def test_the_digest_of_an_image_depends_on_content_and_shape():
    one = a_picture()
    other = one.copy()
    other[3, 4, 1] ^= 1
    digests = {picture_digest(each) for each in (one, other, one.reshape(30, 20, 3))}
    assert len(digests) == 3
    assert picture_digest(one[:, ::-1][:, ::-1]) == picture_digest(one)


@pytest.mark.parametrize("harm", ["cut", "flip", "empty", "other", "header"])
def test_a_damaged_entry_is_replaced(cache, harm):
    masker = CachedMasker(Bright(), cache)
    expected = masker.masks(a_picture(), ["red"])
    path = cache.path(picture_digest(a_picture()), "red", masker.key)
    data = path.read_bytes()
    path.write_bytes(
        {
            "cut": data[:-3],
            "flip": data[:-1] + bytes([data[-1] ^ 1]),
            "empty": b"",
            # Intact, but of another word, as if the file had been renamed.
            "other": caches._packed(caches._canonical("p", "blue", KEY), ()),
            "header": b"X" + data[1:],
        }[harm]
    )
    again = CachedMasker(Bright(), PriorCache(cache.folder))
    np.testing.assert_array_equal(again.masks(a_picture(), ["red"]), expected)
    assert (again.asked, again.reused, again.cache.damaged) == (1, 0, 1)
    third = CachedMasker(Bright(), PriorCache(cache.folder))
    np.testing.assert_array_equal(third.masks(a_picture(), ["red"]), expected)
    assert (third.asked, third.reused, third.cache.damaged) == (0, 1, 0)


def test_an_entry_that_can_be_neither_read_nor_removed_is_ignored(cache):
    cache.path("p", "building", KEY).mkdir(parents=True)
    assert cache.get("p", "building", KEY) is None
    assert cache.damaged == 1


def test_a_decompression_bomb_is_discarded(cache, monkeypatch):
    monkeypatch.setattr(caches, "_MAX_BYTES", 1000)
    cache.put("p", "red", KEY, connected_regions(np.random.default_rng(0).random((200, 200)) < 0.5))
    assert cache.get("p", "red", KEY) is None
    assert cache.damaged == 1


def test_a_further_word_is_searched_alone(cache):
    bright = Bright()
    masker = CachedMasker(bright, cache)
    masker.find(a_picture(), ["red", "green"])
    masker.find(a_picture(), ["blue", "red", "green"])
    assert bright.calls == [("red", "green"), ("blue",)]
    assert (masker.asked, masker.reused) == (3, 2)


def test_without_a_cache_everything_is_searched():
    masker = CachedMasker(Bright(), None)
    masker.find(a_picture(), ["red"])
    masker.find(a_picture(), ["red"])
    assert (masker.asked, masker.reused) == (2, 0)


def _fill(folder, seeds, results):
    masker = CachedMasker(Bright(), PriorCache(folder))
    for seed in seeds:
        masker.find(a_picture(seed), ["red", "green"])
    results.put(masker.cache.damaged)


def test_two_processes_share_a_folder(tmp_path):
    spawn = multiprocessing.get_context("fork")
    results = spawn.Queue()
    workers = [spawn.Process(target=_fill, args=(tmp_path / "kept", range(12), results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=60) for _ in workers] == [0, 0]
    for worker in workers:
        worker.join()
    assert not list((tmp_path / "kept").glob("*/.*"))
    masker = CachedMasker(Bright(), PriorCache(tmp_path / "kept"))
    for seed in range(12):
        np.testing.assert_array_equal(masker.masks(a_picture(seed), ["red"]), Bright().masks(a_picture(seed), ["red"]))
    assert masker.asked == 0


def test_two_processes_with_the_same_id_can_write_one_entry_at_once(tmp_path, monkeypatch):
    """As in two containers that share a folder: the other writes the entry while the first is writing it."""
    one, other = PriorCache(tmp_path), PriorCache(tmp_path)
    pieces, write = connected_regions(np.eye(5, dtype=bool)), Path.write_bytes
    monkeypatch.setattr("os.getpid", lambda: 7)

    def interleaved(path, data):
        monkeypatch.setattr(Path, "write_bytes", write)
        count = write(path, data)
        other.put("p", "building", KEY, pieces)
        return count

    monkeypatch.setattr(Path, "write_bytes", interleaved)
    one.put("p", "building", KEY, pieces)
    assert len(one.get("p", "building", KEY)) == 1
    assert not list(tmp_path.glob("*/.*"))


def test_a_cache_opens_while_another_process_renames_a_file(tmp_path):
    (tmp_path / "ab").mkdir()
    # Listed, and gone when it is looked at: what a link to nothing looks like too.
    (tmp_path / "ab/.entry.part").symlink_to(tmp_path / "gone")
    assert PriorCache(tmp_path).get("p", "building", KEY) is None


def test_a_cache_path_that_is_a_file_is_rejected(tmp_path):
    (tmp_path / "kept").write_text("")
    with pytest.raises(OutputError, match="--cache"):
        PriorCache(tmp_path / "kept")
