"""mini/ on small made-up sources: what is learned from, what is kept away, how pairs and losses come about."""

import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "mini"))

import aims  # noqa: E402
import crops  # noqa: E402
import mix  # noqa: E402
import phrasings  # noqa: E402
import sources  # noqa: E402
import train  # noqa: E402
from making import textured  # noqa: E402
from wasnow.nn.term_phrasings import HELD_OUT_PHRASINGS  # noqa: E402
from wasnow.nn.terms import TermTable  # noqa: E402


def write(path, bands):
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = bands[None] if bands.ndim == 2 else bands
    driver = {".jpg": "JPEG", ".png": "PNG", ".tif": "GTiff"}[path.suffix]
    shape = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2]}
    with rasterio.open(path, "w", driver=driver, dtype="uint8", **shape) as file:
        file.write(bands)


def place(name, seed, side=96, word=mix.VEGETATION):
    picture = np.ascontiguousarray(textured(seed, side, side).astype(np.uint8).transpose(1, 2, 0))
    labels = np.full((side, side), word, np.uint8)
    labels[20:40, 30:60] = mix.BUILDING
    return sources.Place(name, (picture,), (labels,), 0.6)


@pytest.fixture(scope="module")
def pairs():
    return crops.Pairs({"yinx": [place("a", 0), place("b", 1)], "rio": [place("c", 2, word=mix.ROAD)]}, side=64)


@pytest.mark.parametrize("name", mix.FOR_TESTING)
def test_what_is_kept_for_measuring_is_never_read_even_through_a_link(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(SystemExit, match="never trained on"):
        sources.folder_of(tmp_path, name)
    (tmp_path / "rio").symlink_to(tmp_path / name)
    with pytest.raises(SystemExit, match="never trained on"):
        sources.folder_of(tmp_path, "rio")


def test_every_source_says_its_licence_and_what_is_held_out():
    assert set(mix.SOURCES) == set(sources.READERS)
    for source in mix.SOURCES.values():
        assert source.licence
        assert source.held_out
        assert 0 < source.gsd_m[0] < source.gsd_m[1]
    assert sum(source.share for source in mix.SOURCES.values()) == pytest.approx(1, abs=0.05)


def test_training_and_held_out_places_of_ohio_share_no_tile(tmp_path):
    folder = tmp_path / "naip-yinx"
    rows = ["tile,split,left,top"]
    for number, (left, value) in enumerate([(266115.6, 10), (266269.2, 20), (275331.6, 200)]):
        rows.append(f"{number},train,{left},4324399.2")
        write(folder / "rgb" / f"{number}.jpg", np.full((3, 256, 256), value, np.uint8))
        write(folder / "nir" / f"{number}.jpg", np.full((256, 256), 90, np.uint8))
        write(folder / "masks" / f"{number}.png", np.full((256, 256), number, np.uint8))
    (folder / "tiles.csv").write_text("\n".join(rows))
    (seen,), (kept,) = (list(sources.yinx(tmp_path, held_out=each)) for each in (False, True))
    assert seen.pictures[0].shape == (256, 512, 3)  # neighbours are joined
    assert seen.pictures[0].max() < 40
    assert kept.pictures[0].min() > 150
    assert set(np.unique(seen.labels[0][:, :256])) == {mix.VEGETATION}  # not drawn, and green
    assert set(np.unique(seen.labels[0][:, 256:])) == {mix.BUILDING}
    assert set(np.unique(kept.labels[0])) == {mix.ROAD}


def test_nothing_is_said_close_to_the_loose_outlines_of_dubai(tmp_path):
    colours = np.full((60, 60, 3), (132, 41, 246), np.uint8)
    colours[20:40, 20:40] = (60, 16, 152)
    for tile in ("Tile_1", "Tile_6"):
        write(tmp_path / "dubai-landcover" / tile / "images" / "a.jpg", np.full((3, 60, 60), 90, np.uint8))
        write(tmp_path / "dubai-landcover" / tile / "masks" / "a.png", colours.transpose(2, 0, 1))
    (seen,) = sources.dubai(tmp_path)
    assert "Tile_1" in seen.name
    assert set(np.unique(seen.labels[0][25:35, 25:35])) == {mix.BUILDING}
    assert set(np.unique(seen.labels[0][17:23, 17:43])) == {mix.UNKNOWN}
    assert set(np.unique(seen.labels[0][:15])) == {mix.BARE}
    (kept,) = sources.dubai(tmp_path, held_out=True)
    assert set(np.unique(kept.labels[0])) == {mix.BUILDING, mix.BARE}


def test_a_pair_is_the_same_whenever_it_is_drawn(pairs):
    first, again, other = pairs.draw(0, 3), pairs.draw(0, 3), pairs.draw(0, 4)
    assert np.array_equal(first.before, again.before)
    assert np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.before, other.before)


def test_change_is_where_labels_exclude_each_other(pairs):
    changed = 0
    for index in range(40):
        pair = pairs.draw(1, index)
        first, second = pair.labels
        assert ((first & second)[pair.change == 1] == 0).all()
        assert ((first & second)[pair.change == 0] != 0).all()
        changed += int((pair.change == 1).sum())
    assert changed > 0


def test_without_consistency_real_dates_say_nothing_of_unlabelled_ground():
    picture, unknown = place("x", 5).pictures[0], np.full((96, 96), mix.UNKNOWN, np.uint8)
    towns = [sources.Place("town", (picture, picture), (unknown, unknown), 0.6, np.ones((96, 96), np.bool_))]
    shares = [
        np.mean([(crops.Pairs({"california": towns}, 64, consistency).draw(0, i).change == 0).mean() for i in range(8)])
        for consistency in (True, False)
    ]
    assert shares[0] > 0.8
    assert shares[1] == 0


def test_a_shadow_darkens_and_never_brightens():
    picture, rng = np.full((64, 64, 3), 200, np.uint8), np.random.default_rng(0)
    shaded = [crops.shaded(picture, rng) for _ in range(30)]
    assert any((each < 140).any() for each in shaded)
    assert all((each <= 200).all() for each in shaded)


def test_a_set_of_words_costs_what_its_words_cost_together():
    torch.manual_seed(0)
    logits = torch.randn(1, 5, 8, 8)
    both = train.class_loss(logits, torch.full((1, 8, 8), mix.BUILDING | mix.ROAD, dtype=torch.uint8))
    assert torch.allclose(both, -logits.softmax(1)[:, :2].sum(1).log().mean(), atol=1e-5)
    assert train.class_loss(logits, torch.full((1, 8, 8), mix.UNKNOWN, dtype=torch.uint8)).item() == 0


@pytest.mark.parametrize(
    ("first", "second", "same", "expected"),
    [
        (mix.BUILDING, mix.BARE, False, 1),
        (mix.ROAD, mix.BARE, False, 0),
        (mix.BUILDING, mix.BUILDING, False, 0),
        (mix.UNKNOWN, mix.BUILDING, False, 255),
        (mix.ROAD | mix.WATER, mix.VEGETATION | mix.BARE, False, 0),
        (mix.UNKNOWN, mix.UNKNOWN, True, 0),
    ],
)
def test_change_of_buildings_follows_from_sets_of_words(first, second, same, expected):
    labels = torch.tensor([first, second], dtype=torch.uint8).view(2, 1, 1)
    assert train.word_change(labels, torch.full((1, 1, 1), same), mix.BUILDING).item() == expected


def test_phrasings_of_training_leave_the_withheld_ones_out_and_are_in_the_table():
    found, terms = phrasings.phrasings(), TermTable()
    for word, some in found.items():
        assert len(some) > 80
        assert not set(some) & set(HELD_OUT_PHRASINGS[word])
        terms.find(list(some))
    everything = [phrase for some in found.values() for phrase in some]
    assert len(everything) == len(set(everything))


def test_a_training_that_was_interrupted_comes_out_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "begin", lambda model: None)
    monkeypatch.setattr(train, "places", lambda *_, **__: {"yinx": [place("a", 0)], "rio": [place("b", 1)]})
    options = ["--side", "64", "--pairs", "1", "--keep-every", "2"]
    train.main([str(tmp_path), str(tmp_path / "whole"), "--steps", "2", *options])
    monkeypatch.setattr(train, "factor", lambda step, _, factor=train.factor: factor(step, 2))
    train.main([str(tmp_path), str(tmp_path / "parts"), "--steps", "1", *options])
    train.main([str(tmp_path), str(tmp_path / "parts"), "--steps", "2", *options])
    whole, parts = ((tmp_path / run / "ema_000002.safetensors").read_bytes() for run in ("whole", "parts"))
    assert whole == parts


def test_f1_of_a_run_counts_the_word_that_came_or_went(tmp_path):
    codes, confidence = np.zeros((3, 4, 4), np.uint8), np.zeros((3, 4, 4), np.uint8)
    codes[0, 0], codes[1, 0] = 5, 1  # bare ground became building
    codes[0, 1], codes[1, 1] = 4, 3  # vegetation became water
    confidence[0, :2] = 254
    covers = [np.full((4, 4), 4, np.uint8) for _ in range(2)]
    covers[0][0], covers[1][0], covers[1][1] = 5, 1, 3
    write(tmp_path / "change.tif", codes)
    write(tmp_path / "confidence.tif", confidence)
    for date, cover in zip(("before", "after"), covers, strict=True):
        write(tmp_path / f"landcover_{date}.tif", cover)
    truth = np.zeros((4, 4), np.uint8)
    truth[[0, 2]] = 1
    found = aims.measure(aims.Aim(aims.france, 1), [aims.Asked(Path("a"), Path("b"), truth)], [tmp_path])
    assert (found["precision"], found["recall"]) == (1, 0.5)
    assert found["f1"] == pytest.approx(2 / 3)
