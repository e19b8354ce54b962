"""Encoders that others trained on ImageNet: their files, in the layout that is published, begin a training."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from parity import published
from training import tiny
from wasnow.errors import CheckpointError, UsageError
from wasnow.models import registry
from wasnow.models.checkpoint import read_header
from wasnow.models.mamba_scd import MambaSCD
from wasnow.models.published.convert import fit
from wasnow.models.published.names import UPSTREAMS
from wasnow.nn.efficientnet import EfficientNetB0
from wasnow.nn.resnet import ResNet34
from wasnow.nn.vmamba import PRESETS, VMamba, VMambaConfig
from wasnow.training.config import Stage, TrainConfig
from wasnow.training.initial_weights import build_network, find_initial_weights, load_initial_weights
from wasnow.training.logging import LineLogger
from wasnow.training.trainer import train
from wasnow.vocabulary import Vocabulary

WORDS = ("water", "building")
SMALL = {"width": 16, "depths": (1, 1, 1, 1), "drop_path": 0.0}
OF_RESNET = ("sscd-l", "bisrnet", "ted", "scannet")


def config(model: str, **options: Any) -> TrainConfig:
    return tiny.config(model=model, model_options=options)


def begun(path: Path, model: str, **options: Any) -> tuple[nn.Module, str]:
    """A network that took over a file, and what was said about it."""
    start = find_initial_weights(str(path))
    made = build_network(config(model, **options), Vocabulary(WORDS), start)
    return made, load_initial_weights(made, start)


def lived(module: nn.Module, seed: int = 1) -> nn.Module:
    """With weights that no new network has."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                low, high = (0.5, 1.5) if name.endswith(("running_var", "A_logs")) else (-0.1, 0.1)
                tensor.copy_(torch.empty_like(tensor).uniform_(low, high, generator=generator))
    return module.eval()


def like(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Zeros of any size that take no room."""
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


def pixels(side: int = 32) -> Tensor:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(2))


# ------------------------------------------------------------------------------------------------------- in this layout


def resnet(blocks: tuple[int, ...] = (3, 4, 6, 3), convolutions: int = 2) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a ResNet as torchvision has them since its first release, with classifier."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7), **norm("bn1", 64)}
    expansion, inside = (1, 64) if convolutions == 2 else (4, 64)
    for stage, count in enumerate(blocks):
        narrow = 64 << stage
        wide = narrow * expansion
        for number in range(count):
            block = f"layer{stage + 1}.{number}"
            widths = [(inside, narrow, 3), (narrow, wide, 3)]
            if convolutions == 3:
                widths = [(inside, narrow, 1), (narrow, narrow, 3), (narrow, wide, 1)]
            for place, (there, here, side) in enumerate(widths, start=1):
                shapes |= {f"{block}.conv{place}.weight": (here, there, side, side), **norm(f"{block}.bn{place}", here)}
            if number == 0 and (stage > 0 or expansion > 1):
                shapes |= {f"{block}.downsample.0.weight": (wide, inside, 1, 1), **norm(f"{block}.downsample.1", wide)}
            inside = wide
    return shapes | {"fc.weight": (1000, inside), "fc.bias": (1000,)}


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}


def of_vmamba(encoder: VMamba) -> dict[str, Tensor]:
    """Its weights under the names of VMamba's release of February 2024, with the classifier that is published."""
    names = (
        (r"^stem\.0\.conv", "patch_embed.0"),
        (r"^stem\.0\.norm", "patch_embed.2"),
        (r"^stem\.1\.conv", "patch_embed.5"),
        (r"^stem\.1\.norm", "patch_embed.7"),
        (r"^stages\.(\d)\.", r"layers.\1.blocks."),
        (r"^halves\.(\d)\.conv", r"layers.\1.downsample.1"),
        (r"^halves\.(\d)\.norm", r"layers.\1.downsample.3"),
    )
    found = {}
    for name, tensor in encoder.state_dict().items():
        for ours, theirs in names:
            name = re.sub(ours, theirs, name)
        if not name.startswith("norms."):
            found[name] = tensor.clone()
    last = encoder.config.widths[-1]
    head = {"norm.weight": (last,), "norm.bias": (last,), "head.weight": (1000, last), "head.bias": (1000,)}
    return found | {f"classifier.{name}": torch.zeros(shape) for name, shape in head.items()}


@pytest.fixture(scope="module")
def vmamba() -> VMamba:
    made = lived(VMamba(VMambaConfig(**SMALL)))
    assert isinstance(made, VMamba)
    return made


@pytest.fixture(scope="module")
def resnet34(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("torchvision") / "resnet34.pth"
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for name, shape in resnet().items():
        spread = 1.0 if len(shape) == 1 else (2 / (shape[1] * 9)) ** 0.5
        tensors[name] = torch.randn(shape, generator=generator) * spread
        if name.endswith(("running_var", "bn1.weight", "bn2.weight")):
            tensors[name] = tensors[name].abs() + 0.5
    torch.save(tensors, path)
    return path


# ------------------------------------------------------------------------------------------------------------ ResNet-34


@pytest.mark.parametrize("name", OF_RESNET)
def test_the_resnet_of_imagenet_initialises_the_networks_of_ding_et_al(name: str, resnet34: Path):
    made, told = begun(resnet34, name)
    encoder = next(part for part in made.modules() if isinstance(part, ResNet34))
    theirs = torch.load(resnet34, weights_only=True)
    for key, tensor in encoder.state_dict().items():
        assert key.endswith("num_batches_tracked") or torch.equal(tensor, theirs[key])
    taken = len(theirs) - 2
    left = len(made.state_dict()) - taken - sum(key.endswith("tracked") for key in encoder.state_dict())
    assert told == (
        f"started from resnet34.pth: {taken} tensors of ResNet-34 loaded, without the classifier, {left} are random"
    )


def test_safetensors_files_and_hub_folders_are_read_as_well(resnet34: Path, tmp_path: Path):
    save_file(torch.load(resnet34, weights_only=True), tmp_path / "model.safetensors")
    torch.manual_seed(0)
    wanted, _ = begun(resnet34, "sscd-l")
    for path in (tmp_path / "model.safetensors", tmp_path):
        torch.manual_seed(0)
        found, message = begun(path, "sscd-l")
        assert "180 tensors of ResNet-34 loaded" in message
        assert all(torch.equal(one, other) for one, other in zip(both(found), both(wanted), strict=True))


def both(module: nn.Module) -> list[Tensor]:
    return list(module.state_dict().values())


@torch.inference_mode()
def test_an_encoder_has_the_output_of_the_one_whose_weights_it_loaded(tmp_path: Path):
    theirs = lived(EfficientNetB0())
    head = {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}
    torch.save({**theirs.state_dict(), **head}, tmp_path / "efficientnet-b0-355c32eb.pth")
    made, told = begun(tmp_path / "efficientnet-b0-355c32eb.pth", "changemask")
    assert "358 tensors of EfficientNet-B0 loaded, without the classifier" in told
    encoder = made.eval().encoder
    for one, other in zip(encoder(pixels(64)), theirs(pixels(64)), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("blocks", "convolutions", "told"), [((2, 2, 2, 2), 2, "ResNet-18"), ((3, 4, 6, 3), 3, "ResNet-50")]
)
def test_another_resnet_is_named(blocks: tuple[int, ...], convolutions: int, told: str, tmp_path: Path):
    torch.save(like(resnet(blocks, convolutions)), tmp_path / "another.pth")
    with pytest.raises(CheckpointError, match=rf"layer1.* in the file and .* in the model.*this is {told}") as error:
        begun(tmp_path / "another.pth", "sscd-l")
    assert "\n" not in str(error.value)


def test_a_model_without_such_an_encoder_names_those_that_have_it(resnet34: Path):
    with pytest.raises(UsageError, match=r"ResNet-34 weights.*use sscd-l, bisrnet, ted or scannet, or start=null"):
        begun(resnet34, "hrscd")


# --------------------------------------------------------------------------------------------------------------- VMamba


@torch.inference_mode()
def test_vmamba_of_the_published_names_is_what_a_whole_published_network_brings(tmp_path: Path):
    """The encoder's own file, and `wasnow convert` of the network around it, lead to the same maps."""
    whole = published.weights("mambascd_tiny")
    alone = {name.removeprefix("encoder."): one for name, one in whole.items() if name.startswith("encoder.")}
    alone = {name: one for name, one in alone.items() if not name.startswith("outnorm")}
    torch.save({"model": {**alone, "classifier.head.bias": torch.zeros(1000)}}, tmp_path / "vssm_tiny.pth")
    made, told = begun(tmp_path / "vssm_tiny.pth", "mamba-scd")
    assert f"{len(alone)} tensors of VMamba loaded, without the classifier" in told

    converted = MambaSCD()
    fit(Path("theirs"), converted, whole, UPSTREAMS["mamba-scd-tiny"].names, called="it")
    converted.encoder.norms = made.encoder.norms  # they belong to the surrounding network, and are random
    for one, other in zip(made.eval().encoder(pixels()), converted.eval().encoder(pixels()), strict=True):
        assert torch.equal(one, other)


@torch.inference_mode()
def test_weights_are_taken_and_not_their_average_and_settings_beside_them_are_not_run(
    vmamba: VMamba, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """VMamba's training saves weights, their average and its settings, which are an object of the package yacs."""
    package = ModuleType("yacs.config")

    class CfgNode(dict):
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **settings)
            self.immutable = True

    CfgNode.__module__ = "yacs.config"
    CfgNode.__qualname__ = "CfgNode"
    monkeypatch.setattr(package, "CfgNode", CfgNode, raising=False)
    monkeypatch.setitem(sys.modules, "yacs", ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", package)
    settings = CfgNode(MODEL=CfgNode(NAME="vssm_tiny"), DEPTHS=[1, 1, 1, 1])
    ema = {name: one + 1 for name, one in of_vmamba(vmamba).items()}
    torch.save({"model": of_vmamba(vmamba), "model_ema": ema, "epoch": 262, "config": settings}, tmp_path / "v.pth")
    monkeypatch.delitem(sys.modules, "yacs.config")

    made, _ = begun(tmp_path / "v.pth", "mamba-scd", encoder=SMALL, width=16)
    vmamba.norms = made.encoder.norms
    for one, other in zip(made.eval().encoder(pixels()), vmamba(pixels()), strict=True):
        assert torch.equal(one, other)
    assert "yacs.config" not in sys.modules


def test_linear_layers_stored_as_convolutions_of_one_pixel_fit(vmamba: VMamba, tmp_path: Path):
    layers = ("in_proj.weight", "out_proj.weight", "fc1.weight", "fc2.weight")
    theirs = {name: one[:, :, None, None] if name.endswith(layers) else one for name, one in of_vmamba(vmamba).items()}
    torch.save(theirs, tmp_path / "first.pth")
    made, _ = begun(tmp_path / "first.pth", "mamba-scd", encoder=SMALL, width=16)
    own = vmamba.state_dict()
    assert all(torch.equal(own[name], one) for name, one in made.encoder.state_dict().items() if "norms" not in name)


def test_an_additional_block_is_left_out_with_a_message(tmp_path: Path):
    """ChangeMamba's tiny encoder has four blocks in its third stage; the weights that it begins with have five."""
    theirs = lived(VMamba(VMambaConfig(**{**SMALL, "depths": (1, 1, 2, 1)})))
    torch.save({"model": of_vmamba(theirs)}, tmp_path / "vssm_tiny_0230.pth")
    made, told = begun(tmp_path / "vssm_tiny_0230.pth", "mamba-scd", encoder=SMALL, width=16)
    assert "without the classifier and block 2 of stage 3" in told
    assert torch.equal(made.encoder.stages[2][0].op.Ds, theirs.stages[2][0].op.Ds)


def shapes_of(width: int, depths: tuple[int, ...]) -> dict[str, Tensor]:
    """A file of such sizes, without its numbers."""
    with torch.device("meta"):
        encoder = VMamba(VMambaConfig(width=width, depths=depths, drop_path=0.0))
    return like({name: tuple(one.shape) for name, one in of_vmamba(encoder).items()})


@pytest.mark.parametrize("size", ["small", "base"])
def test_another_size_is_named(size: str, tmp_path: Path):
    preset = PRESETS[size]
    torch.save({"model": shapes_of(preset.width, preset.depths)}, tmp_path / "it.pth")
    with pytest.raises(CheckpointError, match=rf"in the file and .* in the model; .*--set model\.size={size}$"):
        begun(tmp_path / "it.pth", "mamba-scd")


def test_the_suggested_settings_for_other_sizes_work(vmamba: VMamba, tmp_path: Path):
    torch.save({"model": of_vmamba(vmamba)}, tmp_path / "it.pth")
    with pytest.raises(CheckpointError) as error:
        begun(tmp_path / "it.pth", "mamba-scd", width=16)
    settings = re.findall(r"--set (\S+)", str(error.value))
    assert settings == ["model.encoder.width=16", "model.encoder.depths=[1,1,1,1]"]
    start = find_initial_weights(str(tmp_path / "it.pth"))
    told = tiny.config(*settings, model="mamba-scd", model_options={"width": 16, "encoder": {}})
    assert "tensors of VMamba" in load_initial_weights(build_network(told, Vocabulary(WORDS), start), start)


def test_other_releases_of_vmamba_are_rejected(tmp_path: Path):
    """One whose scans are as wide as its maps, and the one before it, whose names are others."""
    narrow = shapes_of(96, (2, 2, 8, 2)) | like({"layers.0.blocks.0.op.in_proj.weight": (96, 96)})
    first = {"patch_embed.proj.weight": (96, 3, 4, 4), "layers.0.blocks.0.self_attention.in_proj.weight": (384, 96)}
    for number, tensors in enumerate((narrow, like(first))):
        torch.save(tensors, tmp_path / f"{number}.pth")
        with pytest.raises(CheckpointError, match=r"another release of VMamba; use vssm_tiny_0230") as error:
            begun(tmp_path / f"{number}.pth", "mamba-scd")
        assert "\n" not in str(error.value)


# ------------------------------------------------------------------------------------------------------------ all of it


def test_a_segformer_may_be_a_torch_file(tmp_path: Path):
    from transformers import SegformerConfig, SegformerForImageClassification

    widths = (8, 8, 8, 8)
    theirs = SegformerForImageClassification(
        SegformerConfig(hidden_sizes=widths, depths=(1, 1, 1, 1), num_attention_heads=(1, 1, 1, 1))
    )
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    encoder = {"widths": widths, "depths": (1, 1, 1, 1), "heads": (1, 1, 1, 1)}
    start = find_initial_weights(str(tmp_path / "pytorch_model.bin"))
    made = registry.build("sam-cd", encoder=encoder, width=8)
    assert isinstance(made, nn.Module)
    assert re.search(
        r"\d+ tensors of SegFormer loaded, without the head, \d+ are random", load_initial_weights(made, start)
    )


def test_a_pickle_that_holds_more_than_tensors_is_refused_in_one_line(tmp_path: Path):
    torch.save({"conv1.weight": torch.zeros(1), "more": Path("x")}, tmp_path / "resnet34.pth")
    with pytest.raises(CheckpointError, match="could run code when it is read") as error:
        find_initial_weights(str(tmp_path / "resnet34.pth"))
    assert "\n" not in str(error.value)


def test_a_file_that_was_cut_short_is_refused_in_one_line(resnet34: Path, tmp_path: Path):
    whole = resnet34.read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError) as error:
        find_initial_weights(str(tmp_path / "cut.pth"))
    assert "\n" not in str(error.value)


def test_a_run_starts_from_them_records_their_source_and_resumes(vmamba: VMamba, tmp_path: Path):
    torch.save({"model": of_vmamba(vmamba)}, tmp_path / "vssm.pth")
    told: list[str] = []
    settings = tiny.config(
        f"start={tmp_path / 'vssm.pth'}",
        "ema=null",
        "holdback=0",
        model="mamba-scd",
        model_options={"width": 16, "encoder": {"width": 16, "depths": [1, 1, 1, 1]}},
        crop=32,
        batch_size=2,
        save_every=1,
        stages=(
            Stage(
                loss="ding", steps=2, trains=("change", "change_head", "classes_before", "classes_after", "class_head")
            ),
        ),
    )
    data = {"all": tiny.Blobs(2, 32, 32)}
    train(settings, data, tmp_path / "run", logger=LineLogger(0, told.append))
    assert any("of VMamba" in line and "are random" in line for line in told)
    last = tmp_path / "run" / "last.safetensors"
    assert str(tmp_path / "vssm.pth") in str(read_header(last).provenance)
    kept = last.read_bytes()
    for state in sorted((tmp_path / "run/states").glob("*2.safetensors")):
        state.unlink()
    train(settings, data, tmp_path / "run", resume=True)
    assert last.read_bytes() == kept
