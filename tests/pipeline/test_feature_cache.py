"""Features kept on disk change no byte of a result: they only spare the second look at the images."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch
from torch import nn

from making import Toy, ToyEncoding, pair
from wasnow.errors import Interrupted, OutputError, ResumeRefused, UsageError
from wasnow.models import network
from wasnow.models.contract import WeightsInfo
from wasnow.models.semantic_cd import SemanticCD
from wasnow.pipeline import feature_cache
from wasnow.pipeline.feature_cache import FREE_BYTES, FeatureStore, Remembering, model_identity
from wasnow.pipeline.run import detect

TINY = {"width": 16, "layers": 1, "heads": 2, "mlp": 16}
BYTES = ("change.tif", "confidence.tif", "changes.gpkg", "changes.parquet")
OTHER = ("pond", "building", "meadow", "quarry")


def key(number: int) -> str:
    return f"{number:040x}"


def some(seed: int = 0, side: int = 16) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(seed)
    return torch.randn(1, 4, side, side), torch.arange(6).reshape(1, 6), torch.randn(1, 3).double()


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def age(folder, seconds: int = 3600) -> None:
    """As if everything there had been used so long ago."""
    for path in folder.iterdir():
        os.utime(path, (path.stat().st_mtime - seconds,) * 2)


# --- the store --------------------------------------------------------------------------------------------------


def test_what_is_found_is_what_keeping_answered_rounded_to_bfloat16(tmp_path):
    store, given = FeatureStore(tmp_path / "kept", 10**9), some()
    kept = store.keep(key(1), given)
    found = FeatureStore(tmp_path / "kept", 10**9).find(key(1))
    assert store.find(key(2)) is None
    for mine, theirs, own in zip(kept, found, given, strict=True):
        assert mine.dtype == theirs.dtype == own.dtype
        assert torch.equal(mine, theirs)
        assert torch.equal(mine, own.bfloat16().to(own.dtype) if own.is_floating_point() else own)
    assert store.held_bytes == sum(path.stat().st_size for path in (tmp_path / "kept").iterdir())


@pytest.mark.parametrize("place", [3, 200, -5])
def test_a_damaged_file_is_dropped_and_not_believed(tmp_path, place):
    store = FeatureStore(tmp_path, 10**9)
    store.keep(key(1), some())
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    data[place] ^= 0xFF
    path.write_bytes(data)
    assert store.find(key(1)) is None
    assert store.damaged == 1
    assert files(tmp_path) == []
    assert store.held_bytes == 0


def test_a_file_cut_short_and_one_of_another_kind_are_dropped(tmp_path):
    store = FeatureStore(tmp_path, 10**9)
    for number, data in ((1, b""), (2, b"not at all"), (3, None)):
        store.keep(key(number), some())
        path = tmp_path / f"tile-{key(number)}.safetensors"
        path.write_bytes(path.read_bytes()[:-10] if data is None else data)
        assert store.find(key(number)) is None
    assert store.damaged == 3


def test_what_was_used_longest_ago_goes_first_and_the_limit_holds(tmp_path):
    first = FeatureStore(tmp_path, 10**9)
    for number in range(10):
        first.keep(key(number), some(number))
    one = first.held_bytes // 10
    age(tmp_path)
    os.utime(tmp_path / f"tile-{key(0)}.safetensors", (1, 1))
    store = FeatureStore(tmp_path, 10 * one + 50)
    assert store.find(key(1)) is not None
    store.keep(key(99), some(99))
    assert store.held_bytes <= 10 * one + 50
    left = files(tmp_path)
    assert f"tile-{key(0)}.safetensors" not in left
    assert {f"tile-{key(number)}.safetensors" for number in (1, 99)} <= set(left)
    assert store.held_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_what_this_run_uses_is_not_evicted_by_this_run(tmp_path):
    """Else a scene beyond the limit would drop each tile just before the next run asks for it."""
    FeatureStore(tmp_path / "measure", 10**9).keep(key(0), some())
    one = next((tmp_path / "measure").iterdir()).stat().st_size
    for _ in range(2):
        store = FeatureStore(tmp_path / "kept", 3 * one + 50)
        hits = 0
        for number in range(6):
            hits += store.find(key(number)) is not None
            if f"tile-{key(number)}.safetensors" not in files(tmp_path / "kept"):
                store.keep(key(number), some(number))
        assert len(files(tmp_path / "kept")) == 3
        assert "3 (the limit" in (store.warning() or "")
    assert hits == 3


def test_other_peoples_files_are_left_alone_and_abandoned_halves_are_not(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    (tmp_path / "tile-map.safetensors").write_text("precious")
    half = tmp_path / f".tile-{key(1)}.123.part"
    half.write_bytes(b"half")
    age(tmp_path, 7200)
    store = FeatureStore(tmp_path, 1000)
    store.keep(key(1), some())
    assert files(tmp_path) == ["thesis.txt", "tile-map.safetensors"]
    assert store.held_bytes == 0


def test_a_nearly_full_disk_keeps_nothing_more_and_fails_nothing(tmp_path, monkeypatch):
    store = FeatureStore(tmp_path, 10**12)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=FREE_BYTES + 10))
    assert torch.equal(store.keep(key(1), some())[1], some()[1])
    assert files(tmp_path) == []
    assert "GiB would be left" in (store.warning() or "")


def test_a_write_that_fails_leaves_nothing_half_written(tmp_path, monkeypatch):
    store = FeatureStore(tmp_path, 10**9)

    def refuse(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(feature_cache.Path, "replace", refuse)
    store.keep(key(1), some())
    assert files(tmp_path) == []
    assert store.held_bytes == 0
    assert "No space left" in (store.warning() or "")


def test_a_folder_that_cannot_be_made_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another folder"):
        FeatureStore(tmp_path / "file" / "kept", 1)


# --- the network ------------------------------------------------------------------------------------------------


class Network(network.Network):
    """Encoder and head with weights, to be told apart by them."""

    encoder_parts = ("encoder",)
    card = Toy().card

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.encoder, self.head = nn.Linear(2, 2), nn.Linear(2, 2)
        self.activation = "gelu"

    def config(self):
        return {"classes": ["water"], "activation": self.activation}


def test_networks_are_told_apart_by_their_encoders_and_options_not_by_heads_or_words():
    one, same, other = Network(), Network(), Network(1)
    with torch.no_grad():
        same.head.weight += 1
    same.config = lambda: {"classes": ["fire"], "synonyms": {"fire": ["blaze"]}, "activation": "gelu"}
    assert model_identity(one, None) == model_identity(same, None) != model_identity(other, None)
    same.activation, same.config = "quickgelu", lambda: {"activation": "quickgelu"}
    assert model_identity(one, None) != model_identity(same, None)
    assert model_identity(one, "digest 1") != model_identity(one, "digest 2")


def test_a_model_that_nothing_tells_from_others_is_refused():
    with pytest.raises(UsageError, match="put a fingerprint"):
        model_identity(ToyEncoding(), None)


def test_only_the_missing_tiles_of_a_batch_are_encoded_and_each_comes_back_in_its_place(tmp_path):
    network = ToyEncoding(radius=2)
    model = Remembering(network, FeatureStore(tmp_path, 10**9), "toy")
    torch.manual_seed(0)
    before, after, valid = torch.rand(4, 3, 16, 16), torch.rand(4, 3, 16, 16), torch.ones(4, 1, 16, 16).bool()
    model(before[1:3], after[1:3], valid[1:3])
    alone = [model(before[i : i + 1], after[i : i + 1], valid[i : i + 1]) for i in (0, 1, 2, 3)]
    together = model(before, after, valid)
    assert network.seen == [2, 1, 1]
    assert (model.encoded, model.reused) == (4, 6)
    for index, one in enumerate(alone):
        torch.testing.assert_close(one.change[0], together.change[index])
        torch.testing.assert_close(one.before[0], together.before[index])
    exact = network(before, after, valid)
    assert (exact.change - together.change).abs().max() < 0.5


def test_every_array_that_the_network_is_shown_is_part_of_the_name(tmp_path):
    model = Remembering(ToyEncoding(radius=2), FeatureStore(tmp_path, 10**9), "toy")
    given = [torch.full((1, 3, 8, 8), 0.25), torch.full((1, 3, 8, 8), 0.5), torch.ones(1, 1, 8, 8).bool()]
    model(*given)
    for index in range(3):
        changed = [each.clone() for each in given]
        changed[index][..., 5, 5] = 0
        model(*changed)
    model(given[1], given[0], given[2])
    assert (model.encoded, model.reused) == (5, 0)


# --- whole runs -------------------------------------------------------------------------------------------------


def run(paths, folder, output, model, **options):
    return detect(*paths, output=folder / output, model=model, keep_features=folder / "kept", **options)


def same_bytes(one, other):
    for name in BYTES:
        assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes(), name


@pytest.mark.parametrize("options", [{}, {"blend": True, "batch": 2}], ids=["cropped", "blended"])
def test_a_second_run_with_other_words_encodes_nothing_and_the_same_words_give_the_same_bytes(tmp_path, options):
    paths = pair(tmp_path)
    first, second = ToyEncoding(), ToyEncoding()
    one = run(paths, tmp_path, "one", first, **options)
    other = run(paths, tmp_path, "other", second, classes=OTHER, **options)
    again = run(paths, tmp_path, "again", second, landcover=True, **options)
    assert sum(first.seen) > 4
    assert second.seen == []
    assert one.record.features.tiles_encoded == sum(first.seen)
    if not options:
        assert one.record.features.tiles_reused == 0
    assert other.record.features.tiles_encoded == 0
    assert other.record.features.tiles_reused == again.record.features.tiles_reused > 4
    assert other.record.model.classes == OTHER
    same_bytes(one, again)
    fresh = detect(*paths, output=tmp_path / "fresh", model=ToyEncoding(), classes=OTHER, **options)
    with rasterio.open(fresh.change) as exact, rasterio.open(other.change) as rounded:
        assert (exact.read() != rounded.read()).mean() < 0.02


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (ToyEncoding(weights=WeightsInfo(fingerprint="toy 2")), {}),
        (ToyEncoding(), {"stretch": "0,300"}),
        (ToyEncoding(), {"gsd": 3.0}),
        (ToyEncoding(), {"bands": (3, 2, 1)}),
    ],
    ids=["weights", "stretch", "resolution", "bands"],
)
def test_whatever_changes_what_the_network_sees_is_encoded_anew(tmp_path, model, options):
    paths = pair(tmp_path)
    run(paths, tmp_path, "one", ToyEncoding())
    other = run(paths, tmp_path, "other", model, **options)
    assert other.record.features.tiles_reused == 0


def test_features_that_were_damaged_are_made_again_to_the_same_bytes(tmp_path):
    paths = pair(tmp_path)
    one = run(paths, tmp_path, "one", ToyEncoding())
    victims = sorted((tmp_path / "kept").iterdir())[:2]
    for path in victims:
        path.write_bytes(path.read_bytes()[:-7])
    model = ToyEncoding()
    again = run(paths, tmp_path, "again", model)
    assert sum(model.seen) == again.record.features.tiles_encoded == 2
    same_bytes(one, again)


def test_a_limit_too_small_costs_time_and_says_so(tmp_path):
    result = run(pair(tmp_path), tmp_path, "out", ToyEncoding(), features_limit=1e-6)
    assert files(tmp_path / "kept") == []
    assert any("will be computed again" in warning for warning in result.record.warnings)


def test_an_interrupted_run_goes_on_and_counts_all_its_tiles(tmp_path, monkeypatch):
    from wasnow.pipeline import plan

    small = plan.Tiling
    monkeypatch.setattr(plan, "Tiling", lambda *a, **k: small(*a, **k, block_side=32))

    def stop(phase, done, total):
        if phase == "detect" and done >= 3:
            raise KeyboardInterrupt

    paths, model = pair(tmp_path), ToyEncoding(tile=32)
    with pytest.raises(Interrupted):
        run(paths, tmp_path, "out", model, progress=stop)
    with pytest.raises(ResumeRefused, match="keep_features was true, is now false"):
        detect(*paths, output=tmp_path / "out", model=model)
    (tmp_path / "kept").rename(tmp_path / "moved")
    result = detect(*paths, output=tmp_path / "out", model=model, keep_features=tmp_path / "moved")
    assert result.record.features.tiles_encoded == sum(model.seen)
    same_bytes(result, run(paths, tmp_path, "whole", replace(model)))


@pytest.mark.parametrize("model", ["irmad", Toy()], ids=["irmad", "toy"])
def test_a_model_that_has_nothing_to_keep_says_so(tmp_path, model):
    with pytest.raises(UsageError, match="keeps no image features"):
        run(pair(tmp_path), tmp_path, "out", model)
    assert not (tmp_path / "out").exists()


def test_the_report_says_how_many_tiles_were_answered_from_kept_features(tmp_path):
    paths = pair(tmp_path)
    run(paths, tmp_path, "one", ToyEncoding())
    again = run(paths, tmp_path, "again", ToyEncoding(), classes=OTHER)
    tiles = again.record.features.tiles_reused
    assert f"{tiles} of {tiles} tiles answered from" in again.report.read_text()


def test_two_processes_may_share_a_folder(tmp_path):
    """Each writes aside under its own name: the other's half is never renamed."""
    code = (
        "import sys, torch; from pathlib import Path; from wasnow.pipeline.feature_cache import FeatureStore\n"
        "store = FeatureStore(Path(sys.argv[1]), 10**9)\n"
        "for number in range(60):\n"
        "    store.keep(f'{number % 6:040x}', (torch.full((1, 4, 32, 32), float(number % 6)),))\n"
        "assert store.warning() is None, store.warning()\n"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(2)]
    assert [each.wait() for each in both] == [0, 0]
    store = FeatureStore(tmp_path, 10**9)
    assert [np.unique(store.find(key(number))[0]).tolist() for number in range(6)] == [[n] for n in range(6)]


def test_the_open_vocabulary_network_answers_other_words_from_what_it_kept(tmp_path):
    tower = {f"{name}_{each}": size for name in ("image", "text") for each, size in TINY.items()}
    clip = {**tower, "patch": 8, "image_size": 16, "embed": 8}
    network = SemanticCD(("water", "building"), clip=clip, context=4, width=8, head_width=8, cost_width=4).eval()
    paths = pair(tmp_path, height=64, width=64)
    one = run(paths, tmp_path, "one", network)
    other = run(paths, tmp_path, "other", network, classes="pond, house|home, meadow")
    again = run(paths, tmp_path, "again", network)
    assert one.record.features.tiles_encoded > 0
    assert other.record.features.tiles_encoded == again.record.features.tiles_encoded == 0
    assert other.record.model.classes == ("pond", "house", "meadow")
    same_bytes(one, again)
    # Another phrasing is another run, though the class is called the same.
    with pytest.raises(ResumeRefused, match=r"house\|home"):
        run(paths, tmp_path, "other", network, classes="pond, house, meadow")
