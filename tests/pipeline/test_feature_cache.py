"""Cached features save the encoding of the images and change no byte of a result."""

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
from wasnow.pipeline.api import detect
from wasnow.pipeline.feature_cache import FREE_BYTES, CachedFeatureModel, FeatureStore, model_identity

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


def make_older(folder, seconds: int = 3600) -> None:
    """Set the time of last use of all files back."""
    for path in folder.iterdir():
        os.utime(path, (path.stat().st_mtime - seconds,) * 2)


# --- the store --------------------------------------------------------------------------------------------------


def test_get_returns_what_put_returned_rounded_to_bfloat16(tmp_path):
    store, given = FeatureStore(tmp_path / "kept", 10**9), some()
    stored = store.put(key(1), given)
    found = FeatureStore(tmp_path / "kept", 10**9).get(key(1))
    assert store.get(key(2)) is None
    for mine, theirs, own in zip(stored, found, given, strict=True):
        assert mine.dtype == theirs.dtype == own.dtype
        assert torch.equal(mine, theirs)
        assert torch.equal(mine, own.bfloat16().to(own.dtype) if own.is_floating_point() else own)
    assert store.size_bytes == sum(path.stat().st_size for path in (tmp_path / "kept").iterdir())


@pytest.mark.parametrize("place", [3, 200, -5])
def test_a_damaged_file_is_removed(tmp_path, place):
    store = FeatureStore(tmp_path, 10**9)
    store.put(key(1), some())
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    data[place] ^= 0xFF
    path.write_bytes(data)
    assert store.get(key(1)) is None
    assert store.damaged == 1
    assert files(tmp_path) == []
    assert store.size_bytes == 0


def test_truncated_files_and_files_of_another_kind_are_removed(tmp_path):
    store = FeatureStore(tmp_path, 10**9)
    for number, data in ((1, b""), (2, b"not at all"), (3, None)):
        store.put(key(number), some())
        path = tmp_path / f"tile-{key(number)}.safetensors"
        path.write_bytes(path.read_bytes()[:-10] if data is None else data)
        assert store.get(key(number)) is None
    assert store.damaged == 3


def test_least_recently_used_features_are_removed_first_and_the_limit_holds(tmp_path):
    first = FeatureStore(tmp_path, 10**9)
    for number in range(10):
        first.put(key(number), some(number))
    one = first.size_bytes // 10
    make_older(tmp_path)
    os.utime(tmp_path / f"tile-{key(0)}.safetensors", (1, 1))
    store = FeatureStore(tmp_path, 10 * one + 50)
    assert store.get(key(1)) is not None
    store.put(key(99), some(99))
    assert store.size_bytes <= 10 * one + 50
    left = files(tmp_path)
    assert f"tile-{key(0)}.safetensors" not in left
    assert {f"tile-{key(number)}.safetensors" for number in (1, 99)} <= set(left)
    assert store.size_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_features_that_this_run_uses_are_not_removed(tmp_path):
    """With a scene larger than the limit, each tile would otherwise be removed just before the next run needs it."""
    FeatureStore(tmp_path / "measure", 10**9).put(key(0), some())
    one = next((tmp_path / "measure").iterdir()).stat().st_size
    for _ in range(2):
        store = FeatureStore(tmp_path / "kept", 3 * one + 50)
        hits = 0
        for number in range(6):
            hits += store.get(key(number)) is not None
            if f"tile-{key(number)}.safetensors" not in files(tmp_path / "kept"):
                store.put(key(number), some(number))
        assert len(files(tmp_path / "kept")) == 3
        assert "3 (the limit" in (store.warning() or "")
    assert hits == 3


def test_other_files_are_kept_and_stale_temporary_files_are_removed(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    (tmp_path / "tile-map.safetensors").write_text("precious")
    stale = tmp_path / f".tile-{key(1)}.safetensors.0123abcd.part"
    stale.write_bytes(b"half")
    make_older(tmp_path, 7200)
    store = FeatureStore(tmp_path, 1000)
    store.put(key(1), some())
    assert files(tmp_path) == ["thesis.txt", "tile-map.safetensors"]
    assert store.size_bytes == 0


def test_nothing_is_cached_on_a_nearly_full_disk(tmp_path, monkeypatch):
    store = FeatureStore(tmp_path, 10**12)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=FREE_BYTES + 10))
    assert torch.equal(store.put(key(1), some())[1], some()[1])
    assert files(tmp_path) == []
    assert "GiB would be left" in (store.warning() or "")


def test_a_failed_write_leaves_no_temporary_file(tmp_path, monkeypatch):
    store = FeatureStore(tmp_path, 10**9)

    def refuse(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(feature_cache.Path, "replace", refuse)
    store.put(key(1), some())
    assert files(tmp_path) == []
    assert store.size_bytes == 0
    assert "No space left" in (store.warning() or "")


def test_a_folder_that_cannot_be_created_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another one"):
        FeatureStore(tmp_path / "file" / "kept", 1)


# --- the network ------------------------------------------------------------------------------------------------


class Network(network.Network):
    """An encoder and a head with weights."""

    encoder_parts = ("encoder",)
    card = Toy().card

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.encoder, self.head = nn.Linear(2, 2), nn.Linear(2, 2)
        self.activation = "gelu"

    def config(self):
        return {"classes": ["water"], "activation": self.activation}


def test_the_identity_depends_on_encoder_and_options_not_on_head_or_words():
    one, same, other = Network(), Network(), Network(1)
    with torch.no_grad():
        same.head.weight += 1
    same.config = lambda: {"classes": ["fire"], "synonyms": {"fire": ["blaze"]}, "activation": "gelu"}
    assert model_identity(one, None) == model_identity(same, None) != model_identity(other, None)
    same.activation, same.config = "quickgelu", lambda: {"activation": "quickgelu"}
    assert model_identity(one, None) != model_identity(same, None)
    assert model_identity(one, "digest 1") != model_identity(one, "digest 2")


def test_a_model_without_fingerprint_and_weights_is_refused():
    with pytest.raises(UsageError, match="put a fingerprint"):
        model_identity(ToyEncoding(), None)


def test_only_missing_tiles_of_a_batch_are_encoded_and_the_order_is_kept(tmp_path):
    network = ToyEncoding(radius=2)
    model = CachedFeatureModel(network, FeatureStore(tmp_path, 10**9), "toy")
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


def test_every_input_array_of_the_network_is_part_of_the_key(tmp_path):
    model = CachedFeatureModel(ToyEncoding(radius=2), FeatureStore(tmp_path, 10**9), "toy")
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
def test_a_run_with_other_words_encodes_nothing_and_the_same_words_give_the_same_bytes(tmp_path, options):
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
def test_any_change_of_the_network_or_its_input_is_encoded_again(tmp_path, model, options):
    paths = pair(tmp_path)
    run(paths, tmp_path, "one", ToyEncoding())
    other = run(paths, tmp_path, "other", model, **options)
    assert other.record.features.tiles_reused == 0


def test_damaged_features_are_encoded_again_with_the_same_bytes(tmp_path):
    paths = pair(tmp_path)
    one = run(paths, tmp_path, "one", ToyEncoding())
    victims = sorted((tmp_path / "kept").iterdir())[:2]
    for path in victims:
        path.write_bytes(path.read_bytes()[:-7])
    model = ToyEncoding()
    again = run(paths, tmp_path, "again", model)
    assert sum(model.seen) == again.record.features.tiles_encoded == 2
    same_bytes(one, again)


def test_a_limit_that_is_too_small_causes_a_warning(tmp_path):
    result = run(pair(tmp_path), tmp_path, "out", ToyEncoding(), features_limit=1e-6)
    assert files(tmp_path / "kept") == []
    assert any("will be computed again" in warning for warning in result.record.warnings)


def test_an_interrupted_run_continues_and_counts_all_its_tiles(tmp_path, monkeypatch):
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
def test_a_model_without_features_to_cache_is_refused(tmp_path, model):
    with pytest.raises(UsageError, match="has no image features to cache"):
        run(pair(tmp_path), tmp_path, "out", model)
    assert not (tmp_path / "out").exists()


def test_the_report_gives_the_number_of_tiles_with_cached_features(tmp_path):
    paths = pair(tmp_path)
    run(paths, tmp_path, "one", ToyEncoding())
    again = run(paths, tmp_path, "again", ToyEncoding(), classes=OTHER)
    tiles = again.record.features.tiles_reused
    assert f"{tiles} of {tiles} tiles from the cache" in again.report.read_text()


def test_two_processes_may_share_a_folder(tmp_path):
    """Each writes temporary files of its own name, so that neither renames an incomplete file of the other."""
    code = (
        "import sys, torch; from pathlib import Path; from wasnow.pipeline.feature_cache import FeatureStore\n"
        "store = FeatureStore(Path(sys.argv[1]), 10**9)\n"
        "for number in range(60):\n"
        "    store.put(f'{number % 6:040x}', (torch.full((1, 4, 32, 32), float(number % 6)),))\n"
        "assert store.warning() is None, store.warning()\n"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(2)]
    assert [each.wait() for each in both] == [0, 0]
    store = FeatureStore(tmp_path, 10**9)
    assert [np.unique(store.get(key(number))[0]).tolist() for number in range(6)] == [[n] for n in range(6)]


def test_semantic_cd_predicts_other_words_from_cached_features(tmp_path):
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
    # Another phrasing is another run, although the class has the same name.
    with pytest.raises(ResumeRefused, match=r"house\|home"):
        run(paths, tmp_path, "other", network, classes="pond, house, meadow")
