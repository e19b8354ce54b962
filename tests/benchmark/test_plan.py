"""What names, budgets and settings come to, before anything runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import wasnow.models.registry
from benchmark.contest import HOSTILE, enter, planned, recipe
from training.tiny import Blobs
from wasnow.benchmark.pairs import split_pairs
from wasnow.benchmark.plan import Row, _distinct, make_plan, own_recipe, step_counts
from wasnow.errors import UnknownModel, UsageError
from wasnow.models.registry import MODELS, ModelEntry
from wasnow.training.config import Stage
from wasnow.training.recipes import RECIPES
from wasnow.training.stages import stage_spans

NETWORKS = [name for name, entry in MODELS.items() if entry.network]


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    enter(monkeypatch, "tiny", "wide")


def test_all_are_the_networks_that_wasnow_has():
    rows = {row.name: row for row in make_plan(["all"], "7").rows}
    assert [name for name in rows if name != "semantic-cd-baseline"] == [*NETWORKS, "tiny", "wide"]
    baseline, whole = rows["semantic-cd-baseline"].config, rows["semantic-cd"].config
    assert baseline is not None
    assert whole is not None
    assert (baseline.model_options["prompter"], whole.model_options.get("prompter")) == ("none", None)


def test_every_network_has_a_recipe_of_its_own():
    assert all(row.problem is None for row in make_plan(NETWORKS, "published").rows)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_of_wasnow_can_be_planned_in_equal_steps(name: str):
    (row,) = make_plan([name], "7").rows
    assert row.problem is None
    assert row.config is not None
    assert row.config.model == name
    assert sum(step_counts(row.config, 100)) == 7


@pytest.mark.parametrize("name", NETWORKS)
def test_published_uses_the_published_recipe_and_notes_any_other(name: str):
    (row,) = make_plan([name], "published").rows
    saying = [one() for one in RECIPES.values() if one().model == name and "as published" in one().summary.casefold()]
    if saying:
        assert row.config is not None
        assert row.config.name in [one.name for one in saying]
        assert not row.notes
    elif row.config is None:
        assert "no recipe trains" in (row.problem or "")
    else:
        assert "is not a published one" in row.notes[0]


def test_a_recipe_as_published_goes_before_one_of_the_same_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(RECIPES, "tiny", lambda: recipe("tiny", "smaller"))
    found = own_recipe("tiny")
    assert found is not None
    assert (found[0].name, found[1]) == ("tiny-recipe", None)


def test_equal_budgets_differ_in_the_network_alone():
    rows = make_plan(["sscd-l", "bisrnet", "semantic-cd-small"], "500", settings=["crop=64", "batch_size=2"]).rows
    first, *others = (row.config for row in rows)
    assert first is not None
    assert (first.crop, first.batch_size, first.schedule.warmup <= 50) == (64, 2, True)
    for other in others:
        assert other is not None
        same = {"model": first.model, "model_options": first.model_options}
        assert other.model_copy(update=same) == first
    assert others[-1] is not None
    assert others[-1].model_options == RECIPES["semantic-cd-small"]().model_options


def test_an_equal_budget_keeps_the_stages_and_initial_weights_of_a_method_that_freezes_parts():
    semantic, hrscd = make_plan(["semantic-cd", "hrscd"], "2000").rows
    assert semantic.config is not None
    assert [(one.name, one.steps, one.epochs) for one in semantic.config.stages] == [
        ("change", 1967, None),
        ("classes", 33, None),
    ]
    published = RECIPES["semantic-cd-second"]()
    assert [one.trains for one in semantic.config.stages] == [one.trains for one in published.stages]
    assert [one.loss for one in semantic.config.stages] == [one.loss for one in published.stages]
    assert semantic.config.start == published.start
    assert semantic.config.schedule.warmup <= 3
    assert semantic.notes == ("its stages are kept in proportion: 1967 change + 33 classes",)
    assert hrscd.config is not None
    assert [one.steps for one in hrscd.config.stages] == [1000, 1000]
    for steps in ("2", "3", "7", "500"):
        config = make_plan(["semantic-cd"], steps).rows[0].config
        assert config is not None
        assert sum(one.steps or 0 for one in config.stages) == int(steps)
        assert all(one.steps for one in config.stages)


def test_notes_describe_the_initial_weights_after_the_settings(tmp_path: Path):
    (row,) = make_plan(["semantic-cd"], "500", settings=["start=null"]).rows
    assert "starts from random weights; its own recipe starts from remoteclip-vit-l-14" in row.notes
    (row,) = make_plan(["sscd-l"], "500", settings=["start=resnet34.pth"]).rows
    assert row.notes == ("starts from resnet34.pth; its own recipe starts from random weights",)
    (row,) = make_plan(["semantic-cd"], "500").rows
    assert not any("random weights" in note for note in row.notes)


def test_a_network_without_classes_learns_change_alone(monkeypatch: pytest.MonkeyPatch):
    entry = ModelEntry("a test network", "change", "train it", "training.tiny:TinyChange", network=True)
    monkeypatch.setitem(wasnow.models.registry.MODELS, "bare", entry)  # type: ignore[arg-type]
    config = make_plan(["bare"], "5").rows[0].config
    assert config is not None
    assert config.stages[0].loss == "change"


def test_names_may_be_recipes_files_shipped_weights_methods_and_checkpoints(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text("extends: tiny-recipe\ncrop: 24\n")
    (tmp_path / "a").mkdir()
    names = [str(tmp_path / "mine.yaml"), "semantic-cd-mini@shipped", "irmad", str(tmp_path / "a"), "b.safetensors"]
    plan = make_plan(names, "published", seeds=(0, 3))
    assert [row.name for row in plan.rows] == ["mine", "semantic-cd-mini@shipped", "irmad", "a", "b"]
    assert plan.rows[0].config is not None
    assert plan.rows[0].config.crop == 24
    assert [trial.folder for trial in plan.trials()] == [
        "mine-seed0", "mine-seed3", "semantic-cd-mini-shipped", "irmad", "a", "b",
    ]  # fmt: skip
    assert [trial.config.seed for trial in plan.trials(["mine"]) if trial.config] == [0, 3]


@pytest.mark.parametrize(
    ("names", "budget", "options", "text"),
    [
        (["sscd"], "published", {}, "did you mean 'sscd-l'"),
        (["sscd-l@shipped"], "published", {}, "has no included weights"),
        (["tiny"], "many", {}, "for example --budget 2000"),
        (["tiny"], "0", {}, "for example --budget 2000"),
        ([], "5", {}, "no models to compare"),
        (["tiny"], "5", {"seeds": (0, 0)}, "use distinct numbers"),
        (["tiny"], "5", {"seeds": (-1,)}, "of 0 or more"),
        (["irmad"], "5", {"device": "cdua"}, "did you mean 'cuda'"),
        (["tiny"], "5", {"settings": ["seed=1"]}, "use --seeds instead"),
        (["tiny"], "5", {"settings": ["steps=1"]}, "use --budget instead"),
        (["tiny"], "5", {"settings": ["batchsize=1"]}, "did you mean 'batch_size'"),
    ],
)
def test_invalid_arguments_are_rejected(names: list[str], budget: str, options: dict[str, Any], text: str):
    with pytest.raises((UsageError, UnknownModel), match=re.escape(text)):
        make_plan(names, budget, **options)


def test_a_row_that_rejects_a_setting_keeps_the_reason(monkeypatch: pytest.MonkeyPatch):
    two = (Stage(steps=1), Stage(name="more", steps=2))
    monkeypatch.setitem(RECIPES, "wide-recipe", lambda: recipe("wide", stages=two))
    first, second = planned("tiny", "wide", settings=["steps=9"]).rows
    assert first.problem is None
    assert second.config is None
    assert "there are several stages" in (second.problem or "")


def test_rows_are_run_alone_by_name():
    plan = planned("tiny", "wide", "irmad", seeds=(1, 2))
    assert [trial.name for trial in plan.trials(["wide"])] == ["wide, seed 1", "wide, seed 2"]
    with pytest.raises(UsageError, match="did you mean 'wide'"):
        list(plan.trials(["wied"]))


@given(st.lists(st.integers(1, 200), min_size=1, max_size=3), st.integers(1, 9), st.floats(0.1, 9))
def test_steps_are_those_that_training_will_take(pairs: list[int], batch: int, epochs: float):
    config = recipe("tiny", batch_size=batch, stages=(Stage(epochs=epochs), Stage(name="b", steps=3)))
    for count in pairs:
        assert step_counts(config, count) == tuple(one.stop - one.first for one in stage_spans(config, count))


@given(st.lists(st.text(max_size=80), max_size=6))
def test_every_row_has_a_folder_of_its_own_whatever_it_is_called(names: list[str]):
    rows = _distinct([Row(name, "") for name in [*names, HOSTILE, "../x", "A", "a"]])
    assert len({row.name for row in rows}) == len({row.folder for row in rows}) == len(rows)
    assert all(re.fullmatch(r"[a-z0-9_-][a-z0-9._-]*", row.folder) for row in rows)


@pytest.mark.parametrize(
    "present", [("train", "test"), ("train", "val", "test"), ("train", "val"), ("train",), ("all",)]
)
def test_what_scores_is_neither_trained_on_nor_selects(present: tuple[str, ...]):
    splits = {name: Blobs(5 + place, seed=place) for place, name in enumerate(present)}
    found = split_pairs(splits, "blobs")  # type: ignore[arg-type]
    own = {(one.fingerprint, name) for one in found.training.values() for name in one.names}
    scored = {(found.test.fingerprint, name) for name in found.test.names}
    assert scored
    assert not own & scored
    assert found.test_split in present
    assert ("val" in found.training) == ("val" in present and "test" in present)
    assert found.identity() == split_pairs(splits, "blobs").identity()  # type: ignore[arg-type]


@dataclass(frozen=True)
class Tiles(Blobs):
    """Five tiles of each picture, named as datasets name them."""

    @property
    def names(self) -> Sequence[str]:
        return [f"picture-{i // 5}@{32 * (i % 5)},0" for i in range(self.count)]


def test_tiles_of_a_picture_all_score_or_all_teach():
    found = split_pairs({"all": Tiles(30)}, "tiles")
    scored, taught = ({name.partition("@")[0] for name in part.names} for part in (found.test, found.train))
    assert len(scored) == 1
    assert len(taught) == 5
    assert not scored & taught
    assert len(found.test) + len(found.train) == 30
    assert found.notes == ()
    (note,) = split_pairs({"all": Tiles(5)}, "tiles").notes
    assert "all pairs are tiles of picture-0" in note


def test_pairs_that_select_are_part_of_what_results_depend_on():
    splits = {name: Blobs(5, seed=place) for place, name in enumerate(("train", "val", "test"))}
    found = split_pairs(splits, "blobs").identity()  # type: ignore[arg-type]
    assert found != split_pairs({**splits, "val": Blobs(5, seed=9)}, "blobs").identity()  # type: ignore[dict-item]
    # If val is the test part, the description says so.
    assert "val_fingerprint" not in split_pairs({"train": Blobs(5), "val": Blobs(5, seed=1)}, "blobs").identity()


def test_rows_that_were_trained_elsewhere_say_that_they_may_have_seen_what_scores(tmp_path: Path):
    (tmp_path / "a.safetensors").touch()
    for row in planned("semantic-cd-mini@shipped", str(tmp_path / "a.safetensors")).rows:
        assert "may have been among" in row.notes[0]


def test_data_with_too_few_pairs_is_rejected():
    with pytest.raises(UsageError, match="no training pairs"):
        split_pairs({"test": Blobs(3)}, "blobs")
    with pytest.raises(UsageError, match="3 or more are required"):
        split_pairs({"all": Blobs(2)}, "blobs")
