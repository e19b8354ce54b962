"""Folders of weights: found, checked and loaded, or one line that says what to download."""

import json
import shutil

import pytest
import torch

from wasnow.errors import CheckpointError
from wasnow.models.clip_weights.store import cache
from wasnow.priors.weights import FAMILIES, PUBLISHED, find_weights, load_network, load_tokenizer


@pytest.fixture
def copy(folders, tmp_path):
    def make(family):
        return shutil.copytree(folders[family], tmp_path / "mine" / family)

    return make


def test_weights_are_found_by_folder_and_by_name(copy):
    folder = copy("sam")
    assert find_weights(folder, ("sam", "sam2")).family == "sam"
    shutil.copytree(folder, cache() / "my-sam")
    assert find_weights("my-sam", ("sam",)).folder == cache() / "my-sam"


def test_folders_in_the_cache_do_not_disturb_the_list_of_clip_weights(copy):
    """`wasnow weights` lists CLIP weights, which are files in the same folder."""
    from wasnow.models.clip_weights.store import stored

    shutil.copytree(copy("sam"), cache() / "sam-vit-base")
    assert stored() == []


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_the_error_for_missing_weights_has_the_download_command(name):
    family = PUBLISHED[name].family
    with pytest.raises(CheckpointError) as caught:
        find_weights(name, (family,))
    message = str(caught.value)
    assert f"hf download {PUBLISHED[name].repo} --local-dir {cache() / name}" in message
    assert PUBLISHED[name].licence in message
    assert ("accepting its licence" in message) == PUBLISHED[name].gated
    assert "\n" not in message


def test_the_example_of_every_family_is_published():
    for name, family in FAMILIES.items():
        assert PUBLISHED[family.example].family == name


def test_a_misspelt_name_is_corrected():
    with pytest.raises(CheckpointError, match="did you mean 'sam-vit-base'"):
        find_weights("sam-vit-bas", ("sam",))


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("config.json", "has no config.json"),
        ("model.safetensors", "has no model.safetensors"),
        ("vocab.txt", "has no tokenizer"),
    ],
)
def test_a_missing_file_is_named_with_the_download_command(copy, gone, message):
    folder = copy("grounding-dino")
    (folder / gone).unlink()
    with pytest.raises(CheckpointError, match=message) as caught:
        find_weights(folder, ("grounding-dino",))
    assert "hf download IDEA-Research/grounding-dino-tiny" in str(caught.value)


def test_pickled_weights_are_not_read(copy):
    folder = copy("clipseg")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is not read: such files can run code"):
        find_weights(folder, ("clipseg",))


def test_weights_of_another_family_are_rejected(copy):
    with pytest.raises(CheckpointError, match="of type 'clipseg'; sam3 is required"):
        find_weights(copy("clipseg"), ("sam3",))


def test_weights_in_parts_are_found_by_their_index(copy):
    folder = copy("sam")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = {"metadata": {}, "weight_map": {"x": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert [path.name for path in find_weights(folder, ("sam",)).files] == ["model-00001-of-00001.safetensors"]
    index["weight_map"]["y"] = "../elsewhere.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"\.\./elsewhere.safetensors of model.safetensors.index.json missing"):
        find_weights(folder, ("sam",))


def test_incomplete_weights_are_rejected_and_not_filled_with_random_values(copy):
    from safetensors.torch import load_file, save_file

    folder = copy("sam")
    tensors = load_file(folder / "model.safetensors")
    name = next(each for each in sorted(tensors) if "mask_decoder" in each)
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="1 weights are missing"):
        load_network(find_weights(folder, ("sam",)))


def test_damaged_weights_are_rejected_in_one_line(copy):
    folder = copy("sam")
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="cannot be loaded") as caught:
        load_network(find_weights(folder, ("sam",)))
    assert "\n" not in str(caught.value)


def test_a_network_is_loaded_in_eval_mode_without_gradients_and_output(folders, capfd):
    network = load_network(find_weights(folders["sam"], ("sam",)))
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert next(network.parameters()).dtype == torch.float32
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_the_digest_changes_with_weights_and_configuration(copy):
    folder = copy("sam")
    one = find_weights(folder, ("sam",)).digest()
    assert one == find_weights(folder, ("sam",)).digest()
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    two = find_weights(folder, ("sam",)).digest()
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    assert len({one, two, find_weights(folder, ("sam",)).digest()}) == 3


def test_tokenizers_are_loaded_from_the_folder_of_the_weights(folders):
    bert = load_tokenizer(find_weights(folders["grounding-dino"], ("grounding-dino",)))
    assert bert("solar panel .")["input_ids"] == [101, 1033, 1034, 1012, 102]
    clip = load_tokenizer(find_weights(folders["clipseg"], ("clipseg",)))
    assert clip("ab")["input_ids"] == [52, 0, 27, 53]
