"""Converting published weights: names change, nothing else does, and nothing in a file runs.

The networks have 23 million parameters, so what needs one is tried on Bi-SRNet's smallest differences; that the answers
are the published ones is in ``tests/parity``.
"""

from __future__ import annotations

import argparse
import os
import pickle

import pytest
import torch
import typer
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

from wasnow.cli.convert import convert as verb
from wasnow.errors import CheckpointError, OutputError, UnknownModel, UsageError
from wasnow.models import checkpoint
from wasnow.models.published.convert import convert, fit, load_backbone, ours_of, read_weights
from wasnow.models.published.names import UPSTREAMS
from wasnow.models.registry import build
from wasnow.models.sscd_l import SECOND_WORDS
from wasnow.nn.resnet import ResNet34

BISRNET = UPSTREAMS["bisrnet"].names
BLOCK = {"a.weight": torch.ones(3, 2), "a.bias": torch.zeros(3)}


def published(model: str, **options) -> dict[str, torch.Tensor]:
    """A random network's weights under the names of its newest publication."""
    torch.manual_seed(0)
    names = UPSTREAMS[model].names
    theirs = {}
    for ours, tensor in build(model, **options).state_dict().items():
        begins, here = next((b, o) for b, places in names.items() for o in places if ours.startswith(o))
        theirs[begins + ours.removeprefix(here)] = tensor
    return theirs


@pytest.fixture(scope="module")
def sscd_l():
    return published("sscd-l")


@pytest.fixture(scope="module")
def bisrnet():
    return published("bisrnet")


# ------------------------------------------------------------------------------------------------------- reading files


def test_plain_tensors_are_read_from_either_format(tmp_path):
    torch.save(BLOCK, tmp_path / "a.pth")
    torch.save(BLOCK, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(BLOCK, tmp_path / "a.safetensors")
    for name in ("a.pth", "old.pth", "a.safetensors"):
        read = read_weights(tmp_path / name)
        assert read.keys() == BLOCK.keys()
        assert all(torch.equal(read[key], BLOCK[key]) for key in BLOCK)


@pytest.mark.parametrize("around", ["state_dict", "model", "net"])
def test_training_wrappers_are_removed(tmp_path, around):
    parallel = {f"module.{name}": each for name, each in BLOCK.items()}
    torch.save({"epoch": 3, around: parallel, "optimizer": {"lr": 0.1}}, tmp_path / "a.pth")
    assert read_weights(tmp_path / "a.pth").keys() == BLOCK.keys()


def test_a_layer_named_module_keeps_its_name(tmp_path):
    torch.save({"module.a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "a.pth")
    assert read_weights(tmp_path / "a.pth").keys() == {"module.a", "b"}


class Runs:
    """A pickle that leaves a file behind where it is read without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("modern", [True, False])
def test_a_pickle_with_code_is_rejected_and_not_executed(tmp_path, modern):
    trap = tmp_path / "trap"
    torch.save({"weights": Runs(trap)}, tmp_path / "evil.pth", _use_new_zipfile_serialization=modern)
    with pytest.raises(CheckpointError, match=r"has more than tensors \(posix\.mkdir\).*could run code") as caught:
        read_weights(tmp_path / "evil.pth")
    assert "\n" not in str(caught.value)
    assert not trap.exists()


@pytest.mark.parametrize("held", [nn.Linear(2, 2), {"args": argparse.Namespace(lr=1), "state_dict": BLOCK}])
def test_a_pickle_with_more_than_tensors_is_rejected_by_name(tmp_path, held):
    torch.save(held, tmp_path / "more.pth")
    with pytest.raises(CheckpointError, match=r"has more than tensors \((torch\.nn\.modules|argparse\.Namespace)"):
        read_weights(tmp_path / "more.pth")


@pytest.mark.parametrize(
    "content", [b"", b"hello world", b"PK\x03\x04 and then nothing", b"\x80\x02garbage", pickle.dumps({"a": 1})]
)
def test_other_files_than_weights_are_rejected_in_one_line(tmp_path, content):
    (tmp_path / "a.pth").write_bytes(content)
    (tmp_path / "a.safetensors").write_bytes(content)
    for name in ("a.pth", "a.safetensors"):
        with pytest.raises(
            CheckpointError, match=r"cannot be read as weights|has no tensors|an empty file|text instead"
        ) as caught:
            read_weights(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_truncated_file_is_rejected(tmp_path):
    torch.save({"a": torch.zeros(5000)}, tmp_path / "a.pth")
    whole = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="truncated"):
        read_weights(tmp_path / "a.pth")


@pytest.mark.parametrize("held", [{}, [torch.zeros(2)], {"a": 1.0}, torch.zeros(3)])
def test_a_file_without_named_tensors_is_rejected(tmp_path, held):
    torch.save(held, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="has no tensors by name"):
        read_weights(tmp_path / "a.pth")


def test_a_missing_file_and_nan_weights_are_rejected(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        read_weights(tmp_path / "none.pth")
    torch.save({"a.weight": torch.tensor([1.0, float("nan")])}, tmp_path / "nan.pth")
    with pytest.raises(CheckpointError, match=r"a\.weight has NaN"):
        read_weights(tmp_path / "nan.pth")


# --------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("FCN.layer0.0.weight", ["encoder.resnet.conv1.weight"]),
        ("FCN.layer0.1.running_var", ["encoder.resnet.bn1.running_var"]),
        ("FCN.layer3.0.downsample.1.bias", ["encoder.resnet.layer3.0.downsample.1.bias"]),
        ("FCN.head.0.weight", ["encoder.reduce.0.weight"]),
        ("CotSR.key_conv2.bias", ["reason_across.project_after.key.bias"]),
        ("CotSR.gamma1", ["reason_across.gamma_before"]),
        ("SR2.value_conv.weight", ["reason_after.project.value.weight"]),
        ("SiamSR.gamma", ["reason_before.gamma", "reason_after.gamma"]),
        ("classifierCD.3.weight", ["change.head.3.weight"]),
        ("decoder.weight", []),
    ],
)
def test_published_names_map_to_parameters(theirs, ours):
    assert list(ours_of(theirs, BISRNET)) == ours


def earlier(name: str) -> str | None:
    """What a parameter of SCanNet's Bi-SRNet was called in the first code of Bi-SRNet; None where it was not there."""
    if name.startswith("SR2."):
        return None
    for now, then in (("FCN.head.", "head."), ("resCD.", "res1."), ("classifierCD.", "CD."), ("SR1.", "SiamSR.")):
        if name.startswith(now):
            return then + name.removeprefix(now)
    return name


def test_weights_with_shared_attention_are_loaded_twice(bisrnet, tmp_path):
    first = {old: each for name, each in bisrnet.items() if (old := earlier(name))}
    assert {"SiamSR.gamma", "head.0.weight", "res1.0.conv1.weight", "CD.0.weight"} <= first.keys()
    network = build("bisrnet")
    fit(tmp_path, network, first, BISRNET, called="bisrnet")
    state = network.state_dict()
    assert torch.equal(state["reason_before.project.query.weight"], first["SiamSR.query_conv.weight"])
    assert torch.equal(state["reason_after.project.query.weight"], first["SiamSR.query_conv.weight"])
    assert torch.equal(state["change.blocks.5.conv2.weight"], first["res1.5.conv2.weight"])


# ------------------------------------------------------------------------------------------------------- what differs


def test_weights_of_another_network_are_rejected_by_the_first_unknown_name(bisrnet, tmp_path):
    with pytest.raises(CheckpointError, match=r"has SR1\.gamma \(1,\), which sscd-l does not have.*--model"):
        fit(tmp_path, build("sscd-l"), bisrnet, UPSTREAMS["sscd-l"].names, called="sscd-l")


def test_missing_weights_are_named_in_the_published_terms(sscd_l, tmp_path):
    with pytest.raises(CheckpointError, match=r"has no SR1\.gamma \(1,\), which bisrnet requires"):
        fit(tmp_path, build("bisrnet"), sscd_l, BISRNET, called="bisrnet")


def test_a_wrong_shape_is_named_and_leaves_the_network_as_it_was(sscd_l, tmp_path):
    network = build("sscd-l")
    was = {name: each.clone() for name, each in network.state_dict().items()}
    wrong = {**sscd_l, "resCD.0.conv1.weight": torch.zeros(128, 128, 3, 3)}
    message = r"resCD\.0\.conv1\.weight has shape \(128, 128, 3, 3\) instead of \(128, 256, 3, 3\)"
    with pytest.raises(CheckpointError, match=message):
        fit(tmp_path, network, wrong, UPSTREAMS["sscd-l"].names, called="sscd-l")
    assert all(torch.equal(each, was[name]) for name, each in network.state_dict().items())


def test_one_parameter_under_two_names_is_rejected(sscd_l, tmp_path):
    twice = {**sscd_l, "res1.0.bn1.weight": sscd_l["resCD.0.bn1.weight"]}
    with pytest.raises(CheckpointError, match="occurs twice"):
        fit(tmp_path, build("sscd-l"), twice, UPSTREAMS["sscd-l"].names, called="sscd-l")


def test_weights_without_batch_counts_fit(tmp_path):
    resnet = ResNet34()
    old = {name: each for name, each in resnet.state_dict().items() if not name.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth")
    loaded = ResNet34()
    load_backbone(loaded, tmp_path / "old.pth")
    torch.testing.assert_close(loaded.state_dict()["layer4.0.conv1.weight"], old["layer4.0.conv1.weight"])


# ---------------------------------------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def four_classes(tmp_path_factory):
    """SSCD-l for another data set, in half precision, as DataParallel saves it."""
    path = tmp_path_factory.mktemp("weights") / "landsat.pth"
    held = published("sscd-l", classes=("a", "b", "c", "d"))
    torch.save({f"module.{name}": each.half() if each.ndim else each for name, each in held.items()}, path)
    return path


def test_the_command_writes_a_checkpoint_with_its_origin(four_classes, tmp_path):
    app = typer.Typer()
    app.command()(verb)
    output = tmp_path / "m.safetensors"
    words = "farmland, desert, building, water"
    arguments = [str(four_classes), "--model", "sscd-l", "-o", str(output), "--classes", words]
    result = CliRunner().invoke(app, [*arguments, "--normalisation", "landsat-scd"])
    assert result.exit_code == 0, result.output
    assert "sscd-l, 23.31 million parameters" in result.output
    model = checkpoint.load(output)
    assert model.card.classes == ("farmland", "desert", "building", "water")
    assert model.config()["normalisation"] == "landsat-scd"
    theirs = torch.load(four_classes, weights_only=True)["module.classifier2.weight"]
    assert torch.equal(model.state_dict()["classes_after.weight"], theirs.float())
    origin = checkpoint.read_header(output).provenance.origin
    assert "landsat.pth" in origin
    assert "github.com/ggsDing" in origin
    again = CliRunner().invoke(app, [*arguments, "--json"])
    assert again.exit_code == 4  # it exists


def test_a_wrong_number_of_words_is_rejected(four_classes, tmp_path):
    with pytest.raises(
        UsageError, match=r"predicts 4 classes instead of the 6 published ones \(water, .*; give its own"
    ):
        convert(four_classes, "sscd-l", tmp_path / "m.safetensors")
    with pytest.raises(UsageError, match=r"predicts 4 classes instead of the 2 given ones \(water, road"):
        convert(four_classes, "sscd-l", tmp_path / "m.safetensors", classes=("water", "road"))
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_replaced_only_with_overwrite(tmp_path, four_classes):
    output = tmp_path / "m.safetensors"
    output.write_text("mine")
    with pytest.raises(OutputError, match="--overwrite"):
        convert(four_classes, "sscd-l", output, classes=("a", "b", "c", "d"))
    assert output.read_text() == "mine"


def test_a_model_without_published_weights_is_rejected(tmp_path):
    with pytest.raises(UnknownModel, match="did you mean 'bisrnet'"):
        convert(tmp_path / "a.pth", "bisrnett", tmp_path / "m.safetensors")


def test_published_weights_predict_the_words_of_second_in_order():
    assert all(each.classes == SECOND_WORDS for each in UPSTREAMS.values() if each.network != "mamba-scd")
    assert SECOND_WORDS == ("water", "ground", "low vegetation", "tree", "building", "playground")
