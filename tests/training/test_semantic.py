"""What decoupled training needs: frozen parts that stay as they are, are not stored, and are not computed twice.

With the towers of a small Semantic-CD, whose weights are random: what is claimed holds for any.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from making import TINY_SEMANTIC_CD
from training.tiny import Blobs, Tiny, config, mirror, register, splits
from wasnow.errors import CheckpointError, Interrupted, ResumeRefused, UsageError
from wasnow.models.checkpoint import load, read_header
from wasnow.models.sealed import read_sealed, write_sealed
from wasnow.models.semantic_cd import SemanticCD
from wasnow.training.batches import collate
from wasnow.training.config import Augmentation, Stage, TrainConfig
from wasnow.training.initial_weights import check_options, digest
from wasnow.training.loader import AugmentedSequence
from wasnow.training.logging import LineLogger, NullLogger, Progress
from wasnow.training.losses import joint_loss
from wasnow.training.optim import WeightAverage, freeze, never_trained
from wasnow.training.recipes import recipe
from wasnow.training.run_folder import RunFolder
from wasnow.training.trainer import TrainResult, train

OPTIONS = {**TINY_SEMANTIC_CD, "filter_grid": [4, 4], "pixels_per_token": 8}
STAGES = (
    Stage(name="change", loss="change", steps=3, trains=("filters", "change_decoder")),
    Stage(name="classes", loss="classes", steps=3, trains=("prompter", "class_decoder")),
)


@pytest.fixture(autouse=True)
def _registered() -> None:
    register()


def semantic(*settings: str, **changes: Any) -> TrainConfig:
    """A run of two stages, in a second."""
    values = {"model": "semantic-cd", "model_options": OPTIONS, "stages": STAGES, "crop": 32, "batch_size": 2}
    return config("validate_every=6", "save_every=6", *settings, **{**values, **changes})


def run(
    folder: Path, settings: TrainConfig, *, logger: Any = None, resume: bool = False, data: Any = None
) -> TrainResult:
    return train(settings, data or splits(), folder, logger=logger, resume=resume)


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return read_sealed(path)[0]


def clip_file(path: Path, **changes: Any) -> Path:
    """CLIP weights as the cache holds them."""
    torch.manual_seed(7)
    model = SemanticCD(("a",), **{**OPTIONS, "clip": {**OPTIONS["clip"], **changes}})
    towers = {name: one for name, one in model.state_dict().items() if name.startswith("clip.")}
    header = {"kind": "clip", "config": model.clip.config.dict(), "source": "tests", "name": path.stem}
    write_sealed(path, towers, header)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip_file(tmp_path_factory.mktemp("weights") / "small.safetensors")


# ----------------------------------------------------------------------------------------------------- what is frozen


def test_each_stage_trains_its_own_parts_and_clip_stays_as_it_was_bit_for_bit(weights: Path, tmp_path: Path):
    run(tmp_path, semantic(f"start={weights}"))
    first, last = tensors(weights), tensors(tmp_path / "last.safetensors")
    assert all(torch.equal(first[name], last[name]) for name in first)
    told = json.loads((tmp_path / "run.json").read_text())["stages"]
    model = SemanticCD(("water", "building", "field"), **OPTIONS)

    def size(*parts: str) -> int:
        return sum(one.numel() for part in parts for one in getattr(model, part).parameters())

    assert [stage["parameters"] for stage in told] == [
        size("filters", "change_decoder"),
        size("prompter", "class_decoder"),
    ]
    assert size("clip", "filters", "change_decoder", "prompter", "class_decoder") == size_of(model)


def size_of(model: nn.Module) -> int:
    return sum(one.numel() for one in model.parameters())


def test_the_second_stage_leaves_what_the_first_one_learnt(weights: Path, tmp_path: Path):
    run(tmp_path / "first", semantic(f"start={weights}", "ema=null", stages=STAGES[:1]))
    run(tmp_path / "both", semantic(f"start={weights}", "ema=null"))
    one, both = (tensors(tmp_path / name / "last.safetensors") for name in ("first", "both"))
    moved = {name.partition(".")[0] for name in one if not torch.equal(one[name], both[name])}
    assert moved == {"prompter", "class_decoder"}


def test_a_state_leaves_out_what_no_stage_trains_and_a_checkpoint_does_not(weights: Path, tmp_path: Path):
    run(tmp_path, semantic(f"start={weights}"))
    state, _ = RunFolder(tmp_path).latest()
    assert state is not None
    clip = set(tensors(weights))
    for part in ("model", "average"):
        stored = set(state.part(part))
        assert not stored & clip
        assert stored | clip == set(tensors(tmp_path / "last.safetensors"))
    assert load(tmp_path / "last.safetensors").card.name == "semantic-cd"


@pytest.mark.parametrize(("stop", "random"), [(2, False), (3, True), (5, False)])
def test_a_stopped_run_takes_its_frozen_parts_from_the_start_again(
    stop: int, random: bool, weights: Path, tmp_path: Path
):
    class Stopper(NullLogger):
        def step(self, progress: Progress) -> None:
            if progress.step == stop:
                os.kill(os.getpid(), signal.SIGTERM)

    settings = semantic("start=null" if random else f"start={weights}")
    run(tmp_path / "whole", settings)
    with pytest.raises(Interrupted):
        run(tmp_path / "stopped", settings, logger=Stopper())
    run(tmp_path / "stopped", settings, resume=True)
    for name in ("last.safetensors", "states/00000006.safetensors"):
        one, other = (tensors(tmp_path / folder / name) for folder in ("whole", "stopped"))
        assert list(one) == list(other)
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_resumed_run_rejects_changed_initial_weights(tmp_path: Path):
    start = clip_file(tmp_path / "clip.safetensors")
    run(tmp_path / "run", semantic(f"start={start}"))
    towers, header = read_sealed(start)
    towers[min(towers)] += 1
    write_sealed(start, towers, {key: value for key, value in header.items() if key != "digest"})
    with pytest.raises(ResumeRefused, match=r"does not train .*were different"):
        run(tmp_path / "run", semantic(f"start={start}"), resume=True)


def test_the_average_shares_frozen_parameters_and_follows_the_others():
    net = Tiny()
    frozen = never_trained(net, [freeze(net, ("change",))])
    average = WeightAverage(net, 0.9, frozen=frozen)
    own = dict(average.module.named_parameters())
    for name, one in net.named_parameters():
        assert (own[name].data_ptr() == one.data_ptr()) == (not name.startswith("change."))
    with torch.no_grad():
        net.change.weight += 1
    average.update(net, 1)
    assert not torch.equal(own["change.weight"], net.change.weight)


def test_a_part_that_the_model_does_not_have_is_ignored(tmp_path: Path):
    run(tmp_path, semantic("model.prompter=none"))
    assert read_header(tmp_path).model.options["prompter"] == "none"
    told = json.loads((tmp_path / "run.json").read_text())["stages"]
    assert told[1]["parameters"] > 0
    with pytest.raises(UsageError, match="names only parts that this model does not have"):
        run(tmp_path / "no", semantic("model.prompter=none", "stages.1.trains=[prompter]"))


# ------------------------------------------------------------------------------------------------ options and weights


def test_an_option_that_the_model_has_not_names_the_nearest_and_all(tmp_path: Path):
    with pytest.raises(UsageError, match=r"no option 'promter'; did you mean 'prompter'.*options are clip, prompter"):
        run(tmp_path, semantic("model.promter=none", "start=not-even-looked-for"))


def test_tower_sizes_come_from_the_weights(weights: Path, tmp_path: Path):
    options = {name: value for name, value in OPTIONS.items() if name != "clip"}
    told: list[str] = []
    run(tmp_path, semantic(f"start={weights}", model_options=options), logger=LineLogger(0, told.append))
    assert read_header(tmp_path).model.options["clip"]["image_width"] == OPTIONS["clip"]["image_width"]
    assert any(f"{len(tensors(weights))} tensors of CLIP" in line for line in told)


def test_options_that_contradict_the_weights_are_rejected(weights: Path, tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"its image_layers is 4, model\.clip says 5"):
        run(tmp_path, semantic(f"start={weights}", "model.clip.image_layers=5"))


def test_weights_of_another_clip_name_the_first_key_that_differs(weights: Path, tmp_path: Path):
    towers, header = read_sealed(weights)
    header.pop("digest")
    name = sorted(towers)[3]
    cut = tmp_path / "cut.safetensors"
    write_sealed(cut, {key: one for key, one in towers.items() if key != name}, header)
    shape = re.escape(str(tuple(towers[name].shape)))
    with pytest.raises(CheckpointError, match=rf"{name} is missing in the file and {shape} in the model"):
        run(tmp_path / "a", semantic(f"start={cut}"))
    write_sealed(cut, {**towers, name: torch.zeros(3, 2)}, header)
    with pytest.raises(CheckpointError, match=rf"{name} is \(3, 2\) in the file and {shape} in the model"):
        run(tmp_path / "b", semantic(f"start={cut}"))
    with pytest.raises(UsageError, match="tiny has no CLIP"):
        train(config(f"start={weights}"), splits(), tmp_path / "c", transform=mirror)


@pytest.mark.parametrize(
    ("start", "advice"),
    [
        ("remoteclip-vit-l-14", "not in the cache yet; get them with wasnow weights get remoteclip-vit-l-14"),
        ("remoteclip-vit-l14", "did you mean 'remoteclip-vit-l-14'"),
        ("nowhere/weights.safetensors", "no such file"),
    ],
)
def test_missing_weights_name_the_command_that_gets_them(
    start: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("wasnow.models.clip_weights.store.cache", lambda: tmp_path)
    with pytest.raises(CheckpointError, match=rf"{advice}.*; or use another file with --set start=FILE.*start=null$"):
        run(tmp_path / "run", semantic(f"start={start}"))


def test_weights_as_others_publish_them_are_to_be_brought_in_first(tmp_path: Path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "clip.pt")
    with pytest.raises(CheckpointError, match=r"wasnow weights get --from .*clip\.pt"):
        run(tmp_path / "run", semantic(f"start={tmp_path / 'clip.pt'}"))


# ------------------------------------------------------------------------------------------ what is not computed twice


def batch(count: int = 2) -> Any:
    line = AugmentedSequence(Blobs(4), lambda sample, rng: sample, 0)
    return collate([line[i] for i in range(count)]).to(torch.device("cpu"))


def gradients(model: nn.Module, forward: Any) -> dict[str, torch.Tensor]:
    before, after, target = batch()
    model.zero_grad()
    joint_loss(forward(before, after), target).total.backward()
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


def test_an_encoder_that_rests_keeps_no_graph_and_changes_no_gradient():
    from wasnow.training.devices import TensorOutputs

    torch.manual_seed(0)
    model = SemanticCD(("water", "building", "field"), **OPTIONS)
    freeze(model, ("prompter", "class_decoder"))
    found = []
    for rests in (False, True):
        answers = TensorOutputs(model, encoder_frozen=rests)
        found.append(gradients(model, lambda *images, a=answers: a.logits(a(*images))))
    assert list(found[0]) == list(found[1])
    assert found[0]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_checkpointing_changes_neither_loss_nor_gradient(weights: Path, tmp_path: Path):
    for on in ("false", "true"):
        run(tmp_path / on, semantic(f"start={weights}", f"checkpointing={on}"))
    one, other = (tensors(tmp_path / name / "states/00000006.safetensors") for name in ("false", "true"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(UsageError, match="tiny has no gradient checkpointing; use --set accumulate=2"):
        train(config("checkpointing=true"), splits(), tmp_path / "tiny", transform=mirror)


PLAIN = Augmentation(quarter_turns=False, swap=0.0)


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_a_run_with_features_kept_ends_as_one_without(precision: str, weights: Path, tmp_path: Path):
    """Bit for bit with batches of one pair; in larger ones a product of matrices may round in another order."""
    stages = (STAGES[0].model_copy(update={"steps": 1}), STAGES[1].model_copy(update={"steps": 15}))
    told: list[str] = []
    for kept in ("false", "true"):
        settings = semantic(f"start={weights}", f"cache_features={kept}", "batch_size=1", augment=PLAIN, stages=stages)
        settings = settings.model_copy(update={"validate_every": 16, "save_every": 16, "precision": precision})
        run(tmp_path / kept, settings, logger=LineLogger(0, told.append))
    one, other = (tensors(tmp_path / name / "states/00000016.safetensors") for name in ("false", "true"))
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)
    (line,) = (line for line in told if "features:" in line)
    found, computed = (int(word) for word in line.replace(",", "").split() if word.isdigit())
    assert found + computed == 15
    assert found > 0
    assert not any((tmp_path / "true/features").rglob("*.safetensors"))


def test_read_features_equal_computed_ones(weights: Path, tmp_path: Path, monkeypatch: Any):
    """A full disk keeps nothing, so that all are computed each time; the weights end up the same, bit for bit."""
    from wasnow.training import features

    settings = semantic(f"start={weights}", "cache_features=true", augment=PLAIN)
    settings = settings.model_copy(update={"stages": (STAGES[1].model_copy(update={"steps": 8}),), "save_every": 8})
    run(tmp_path / "kept", settings)
    monkeypatch.setattr(features, "SHARE_OF_DISK", 1e-12)
    told: list[str] = []
    run(tmp_path / "full", settings, logger=LineLogger(0, told.append))
    assert any("0 read, 16 computed" in line for line in told)
    one, other = (tensors(tmp_path / name / "states/00000008.safetensors") for name in ("kept", "full"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        (["augment.light={}"], r"add --set augment\.light=null"),
        (["augment.scale=[0.8, 1.2]"], r"add --set augment\.scale=\[1,1\]"),
        (["crop=16"], r"pairs of 32 x 32 px would not recur unchanged; add --set crop=32"),
        (["stages.1.trains=[filters]"], r"every stage trains parts of the encoder \(clip\.image, filters"),
        (["model=tiny", "model_options={}", "stages=[{steps: 2}]"], "tiny has no separate encoder"),
    ],
)
def test_features_are_cached_only_if_pairs_recur(settings: list[str], advice: str, tmp_path: Path):
    with pytest.raises(UsageError, match=advice):
        run(tmp_path, semantic("cache_features=true", *settings))


# ------------------------------------------------------------------------------------------------------ words left out


def test_training_without_a_word_knows_the_others_and_all_of_the_change(weights: Path, tmp_path: Path):
    trained = run(tmp_path, semantic(f"start={weights}", "leave_out=[Building]"))
    header = read_header(trained.folder)
    assert header.model.classes == ("water", "field")
    assert header.provenance.recipe is not None
    assert header.provenance.recipe["leave_out"] == ["Building"]
    assert header.provenance.trained_on == "train (6 pairs), without Building"
    assert load(trained.folder).bind(("water", "building")).card.classes == ("water", "building")


def test_a_fixed_vocabulary_may_be_trained_without_a_word_too(tmp_path: Path):
    trained = train(config("leave_out=[water]", "steps=2"), splits(), tmp_path, transform=mirror)
    assert read_header(trained.folder).model.classes == ("building", "field")


def test_a_joint_stage_trains_both(tmp_path: Path):
    run(tmp_path, semantic("stages=[{name: joint, loss: joint, steps: 2}]"))
    assert {"change", "classes"} <= set((tmp_path / "log.csv").read_text().splitlines()[0].split(","))


def test_a_digest_tells_names_shapes_and_single_bits():
    one = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    other = {**one, "a": torch.zeros(3, 2)}
    bit = {**one, "b": torch.nextafter(torch.ones(1), torch.full((1,), 2.0))}
    assert len({digest(each.items()) for each in (one, other, bit, {"c": one["a"], "b": one["b"]})}) == 4
    assert digest(one.items()) == digest(reversed(list(one.items())))


# --------------------------------------------------------------------------------------------------- what docs promise


def ablations() -> list[list[str]]:
    """Every setting in the table of ablations in docs/recipes.md, as its words."""
    page = (Path(__file__).parents[2] / "docs/recipes.md").read_text(encoding="utf-8")
    heading = next(line for line in page.splitlines() if line.startswith("|") and line.endswith("| setting |"))
    table = page.partition(heading)[2].partition("\n\n")[0]
    return [[word for word in shlex.split(line) if word != "--set"] for line in re.findall(r"`(--set [^`]*)`", table)]


def test_the_docs_list_ablations():
    assert len(ablations()) > 15


@pytest.mark.parametrize("settings", ablations(), ids=lambda settings: settings[0][:40])
def test_every_ablation_of_the_docs_is_a_network_that_can_be_made_and_trained(settings: list[str]):
    found = recipe("semantic-cd-second", settings)
    check_options(found)
    small = {**OPTIONS, "clip": {**OPTIONS["clip"], "image_layers": 24}, **found.model_options}
    model = SemanticCD(("water", "building"), **small)
    assert all(freeze(model, stage.trains) for stage in found.stages)
    assert not any(name.startswith("clip.") for stage in found.stages for name in freeze(model, stage.trains))


def test_the_small_recipe_trains_everything():
    found = recipe("semantic-cd-small")
    check_options(found)
    model = SemanticCD(("water", "building"), **found.model_options)
    assert len(freeze(model, found.stages[0].trains)) == len(list(model.parameters()))
    assert 5e6 < size_of(model) < 30e6
