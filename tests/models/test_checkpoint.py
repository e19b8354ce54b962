"""A checkpoint needs nothing but itself, and nothing but a whole one of ours is read."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from training.tiny import Tiny, register
from wasnow.errors import CheckpointError, OutputError, UsageError
from wasnow.models.calibration import Calibration
from wasnow.models.checkpoint import FORMAT, Provenance, load, read_header, save, set_calibration
from wasnow.models.model_card import describe
from wasnow.models.registry import MODELS, build
from wasnow.models.sealed import read_sealed, read_sealed_header, write_sealed

CALIBRATION = Calibration(change_temperature=2.0, ece_change_before=0.2, ece_change_after=0.1, split="val", pairs=3)
MADE_HERE = Provenance(origin="made in a test", seed=7, data="blobs", trained_on="train (6 pairs)")


@pytest.fixture(autouse=True)
def _tiny() -> None:
    register()


def saved(path: Path, **changes: Any) -> Tiny:
    torch.manual_seed(3)
    model = Tiny(("lake", "house"), width=4, norm="batch")
    save(
        path,
        model,
        **{"scores": {"val": {"stacked.sek": 0.25, "from_to.sek": float("nan")}}, "provenance": MADE_HERE} | changes,
    )
    return model


def rewritten(path: Path, **changes: Any) -> None:
    """The same file with another header, with a valid digest: as another version would write it."""
    tensors, header = read_sealed(path)
    header.pop("digest")
    write_sealed(path, tensors, {**header, **changes})


def test_a_checkpoint_restores_words_options_and_weights(tmp_path: Path):
    model = saved(tmp_path / "a.safetensors")
    again = load(tmp_path / "a.safetensors")
    assert isinstance(again, Tiny)
    assert again.card.classes == ("lake", "house")
    assert again.config() == model.config()
    assert not again.training
    assert all(torch.equal(one, again.state_dict()[name]) for name, one in model.state_dict().items())


def test_the_header_has_scores_and_provenance(tmp_path: Path):
    saved(tmp_path / "a.safetensors")
    header = read_header(tmp_path / "a.safetensors")
    assert header.scores == {"val": {"stacked.sek": 0.25, "from_to.sek": None}}
    assert header.provenance == MADE_HERE
    assert header.model.options == {"width": 4, "norm": "batch", "dropout": 0.1}


def test_the_same_weights_give_the_same_bytes(tmp_path: Path):
    saved(tmp_path / "a.safetensors")
    saved(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_run_folder_means_its_best_checkpoint_or_else_its_last(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"neither best\.safetensors nor last\.safetensors"):
        load(tmp_path)
    saved(tmp_path / "last.safetensors")
    assert read_header(tmp_path).scores
    saved(tmp_path / "best.safetensors", scores={})
    assert not read_header(tmp_path).scores


def test_every_flipped_byte_of_the_weights_and_of_the_header_is_noticed(tmp_path: Path):
    saved(tmp_path / "a.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    draw = np.random.default_rng(0)
    places = {*draw.integers(start, len(content), 12).tolist(), *draw.integers(8, start, 12).tolist()}
    for place in places:
        broken = bytearray(content)
        broken[place] ^= 1
        (tmp_path / "b.safetensors").write_bytes(broken)
        with pytest.raises(CheckpointError):
            load(tmp_path / "b.safetensors")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.99])
def test_a_truncated_checkpoint_is_rejected(share: float, tmp_path: Path):
    saved(tmp_path / "a.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "b.safetensors").write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match="use another copy"):
        load(tmp_path / "b.safetensors")


def test_pickles_are_rejected_without_reading_them(tmp_path: Path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was run",))

    torch.save({"weights": Bomb()}, tmp_path / "new.pth")
    torch.save({"weights": Bomb()}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Bomb()))
    for name in ("new.pth", "old.pth", "plain.pkl"):
        with pytest.raises(CheckpointError, match=r"a pickle, which can run code .* wasnow convert"):
            load(tmp_path / name)


def test_a_newer_format_asks_for_an_update_and_an_older_one_for_the_version_that_wrote_it(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    saved(path)
    rewritten(path, format=FORMAT + 1, wasnow="9.0", new_field=1)
    with pytest.raises(CheckpointError, match=r"format 2, written by wasnow 9\.0; this version reads 1; update"):
        read_header(path)
    rewritten(path, format=FORMAT - 1, wasnow="0.0.1")
    with pytest.raises(CheckpointError, match=r"format 0; this version reads 1; read it with wasnow 0\.0\.1"):
        load(path)


def test_a_header_that_is_not_valid_names_the_field(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    saved(path)
    rewritten(path, parameters="many")
    with pytest.raises(CheckpointError, match="its header is not valid \\(parameters"):
        load(path)


def test_other_safetensors_files_are_rejected_with_advice(tmp_path: Path):
    save_file({"w": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="without a wasnow header; convert published weights with wasnow convert"):
        load(tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="no such file"):
        load(tmp_path / "missing.safetensors")
    write_sealed(tmp_path / "state.safetensors", {}, {"format": 1, "step": 3})
    with pytest.raises(CheckpointError, match="not a model checkpoint"):
        load(tmp_path / "state.safetensors")


def test_weights_that_do_not_fit_their_model_are_rejected(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    saved(path)
    rewritten(path, model={"name": "tiny", "options": {"width": 8}, "classes": ["lake", "house"]})
    with pytest.raises(CheckpointError, match="its weights do not fit its model"):
        load(path)
    rewritten(path, model={"name": "tiny", "options": {"depth": 8}, "classes": ["lake"]})
    with pytest.raises(CheckpointError, match="its model rejects its options"):
        load(path)
    rewritten(path, model={"name": "gone", "options": {}, "classes": []})
    with pytest.raises(CheckpointError, match="its model 'gone' is unknown to this version"):
        load(path)


def test_a_method_without_weights_cannot_be_saved(tmp_path: Path):
    with pytest.raises(UsageError, match="only networks have checkpoints"):
        save(tmp_path / "a.safetensors", build("irmad"), provenance=MADE_HERE)  # type: ignore[arg-type]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.safetensors"
    saved(path)
    before = path.read_bytes()

    def fails(*args: Any, **kwargs: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("wasnow.models.sealed.save_file", fails)
    with pytest.raises(OutputError, match="no space left on the disk"):
        saved(path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["a.safetensors"]


def test_every_kind_of_number_and_tied_weights_survive(tmp_path: Path):
    tied = torch.arange(6.0)
    tensors = {
        "bf16": torch.randn(3, 2).bfloat16(),
        "count": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "a": tied,
        "b": tied,
        "turned": torch.arange(6).reshape(2, 3).T,
    }
    write_sealed(tmp_path / "t", tensors, {"x": 1})
    again, header = read_sealed(tmp_path / "t")
    assert header["x"] == 1
    assert read_sealed_header(tmp_path / "t") == header
    for name, tensor in tensors.items():
        assert torch.equal(again[name], tensor)
        assert again[name].dtype == tensor.dtype


def test_the_card_has_origin_training_data_and_scores(tmp_path: Path):
    saved(tmp_path / "a.safetensors")
    card = describe(tmp_path / "a.safetensors")
    assert card["model"]["classes"] == "lake, house"
    assert card["where it comes from"]["origin"] == "made in a test"
    assert card["scores on val"] == {"stacked.sek": "25.00", "from_to.sek": "undefined"}
    json.dumps(card)


def test_the_text_about_a_checkpoint_is_stored_shown_and_survives_calibration(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    saved(path)
    assert load(path).card.weights.about is None
    assert "about" not in describe(path)
    saved(path, about="Learned from blobs.\nKnows no clouds.")
    set_calibration(path, CALIBRATION)
    assert load(path).card.weights.about == read_header(path).about == "Learned from blobs.\nKnows no clouds."
    assert list(describe(path)["about"].values()) == ["Learned from blobs. Knows no clouds."]


def test_the_card_keeps_long_options_short(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    saved(path)
    _, header = read_sealed(path)
    rewritten(
        path, model={**header["model"], "options": {"long": ["word"] * 500, "none": None, "empty": {}, "off": False}}
    )
    lines = describe(path)["model"]
    assert len(lines["option long"]) == 200
    assert lines["option long"].endswith("…")
    assert lines["option off"] == "false"
    assert not {"option none", "option empty"} & set(lines)


def test_loading_draws_no_initial_weights(tmp_path: Path):
    saved(tmp_path / "a.safetensors")
    before = torch.get_rng_state()
    load(tmp_path / "a.safetensors")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_checkpoint_has_default_file_permissions(tmp_path: Path):
    saved(tmp_path / "a.safetensors")
    (tmp_path / "ordinary").touch()
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_the_card_of_a_model_without_weights_is_what_the_list_of_models_states():
    irmad, network = describe("irmad")["model"], describe("semantic-cd")["model"]
    assert irmad["weights"].startswith("none")
    assert "Nielsen 2007" in irmad["source"]
    assert "every band" in irmad["input"]
    assert network == {
        "name": "semantic-cd",
        "what it is": MODELS["semantic-cd"].summary,
        "answers": "change, classes",
        "weights": "train",
    }
    with pytest.raises(CheckpointError, match="no such file"):
        describe("irmat")
