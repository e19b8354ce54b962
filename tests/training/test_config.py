"""Recipes, settings and YAML files: what is accepted, and what is refused with which advice."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.tiny import config
from wasnow.errors import InputError, UsageError
from wasnow.training.config import Optimizer, Stage, TrainConfig
from wasnow.training.recipes import RECIPES, recipe
from wasnow.training.settings import from_yaml, to_yaml, with_settings


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_written_as_yaml_reads_back_as_itself(name: str, tmp_path: Path):
    path = tmp_path / "own.yaml"
    path.write_text(to_yaml(recipe(name)))
    assert recipe(str(path)) == recipe(name)


@pytest.mark.parametrize("name", ["sscd-l", "bisrnet"])
def test_the_published_recipes_have_the_published_numbers(name: str):
    found = recipe(name)
    assert (found.model, found.batch_size, found.crop, found.stages[0].epochs) == (name, 8, 512, 50)
    sgd = found.optimizer
    assert (sgd.kind, sgd.lr, sgd.momentum, sgd.nesterov, sgd.weight_decay) == ("sgd", 0.1, 0.9, True, 5e-4)
    assert (found.schedule.kind, found.schedule.power, found.schedule.warmup) == ("poly", 1.5, 0)


def test_settings_are_typed_by_the_configuration():
    found = recipe("sscd-l", ["batch_size=4", "optimizer.lr=1e-4", "ema=null", "augment.light.color=0.1", "clip=2"])
    assert (found.batch_size, found.optimizer.lr, found.ema, found.clip) == (4, 1e-4, None, 2.0)
    assert found.augment.light is not None
    assert found.augment.light.color == 0.1


@pytest.mark.parametrize("written", ["32", "'32'", "bf16"])
def test_a_precision_may_be_written_as_a_number(written: str):
    assert recipe("sscd-l", [f"precision={written}"]).precision == written.strip("'")


def test_options_of_the_model_are_set_by_its_name():
    found = recipe("semantic-cd-second", ["model.prompter=none", "model.filters=[5, 11]", "model.context=4"])
    assert found.model == "semantic-cd"
    assert found.model_options == {"prompter": "none", "filters": [5, 11], "context": 4}
    assert recipe("sscd-l", ["model=bisrnet"]).model == "bisrnet"


def test_semantic_cd_has_the_published_stages():
    found = recipe("semantic-cd-second")
    first, second = found.stages
    assert (first.loss, first.epochs, first.trains) == ("change", 300, ("filters", "change_decoder"))
    assert (second.loss, second.epochs, second.trains) == ("classes-all-pixels", 5, ("prompter", "class_decoder"))
    assert (found.batch_size, found.crop, found.start) == (1, 512, "remoteclip-vit-l-14")


def test_epochs_and_steps_replace_each_other():
    assert recipe("sscd-l", ["steps=100"]).stages[0] == Stage(loss="ding", steps=100)
    assert recipe("sscd-l", ["steps=100", "epochs=3"]).stages[0] == Stage(loss="ding", epochs=3)


@pytest.mark.parametrize(
    ("setting", "advice"),
    [
        ("batchsize=4", "did you mean 'batch_size'"),
        ("optimizer.momentun=0.5", "optimizer.momentun is not a setting; did you mean 'momentum'"),
        ("stages.0.los=change", "stages.0.los is not a setting; did you mean 'loss'"),
        ("stages.0.schedule.kin=poly", "did you mean 'kind'"),
        ("stages.4.loss=change", "stages.4 is not an index of 1"),
        ("stages.0.loss=dice", "'change-dice', 'classes', 'classes-all-pixels' or 'joint', not 'dice'"),
        ("batch_size", "write --set batch_size=4"),
        ("batch_size=many", "batch_size: .*integer.*not 'many'"),
        ("seed.deeper=1", "seed is a single value"),
        ("accumulate=3", "use batch_size=9"),
        ("stages=[]", "needs at least one stage"),
        ("optimizer.momentum=0", "nesterov needs a momentum"),
    ],
)
def test_an_invalid_setting_is_rejected_with_advice(setting: str, advice: str):
    with pytest.raises(UsageError, match=advice):
        recipe("sscd-l", [setting])


def test_epochs_of_a_run_with_two_stages_need_the_number_of_the_stage():
    two = config(stages=(Stage(name="change", epochs=1, loss="change"), Stage(epochs=2)))
    with pytest.raises(UsageError, match=r"write stages\.0\.epochs=3 for 'change'"):
        with_settings(two, ["epochs=3"])


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'bisrnet'"):
        recipe("bisernet")


def test_a_users_file_starts_from_a_recipe_and_changes_what_it_says(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: sscd-l\nbatch_size: 4\noptimizer: {lr: 0.05}\ndata: somewhere\n")
    found = recipe(str(path), ["seed=3"])
    assert (found.name, found.batch_size, found.seed, found.data) == ("mine", 4, 3, "somewhere")
    assert found.optimizer == recipe("sscd-l").optimizer.model_copy(update={"lr": 0.05})


def test_a_users_file_may_stand_alone(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("model: sscd-l\nstages: [{loss: change, epochs: 2}]\n")
    assert recipe(str(path)) == TrainConfig(name="mine", model="sscd-l", stages=(Stage(loss="change", epochs=2),))


@pytest.mark.parametrize(
    ("text", "error", "advice"),
    [
        ("extends: sscd", UsageError, "did you mean 'sscd-l'"),
        ("extends: other.yaml", UsageError, "recipes are sscd-l"),
        ("extends: sscd-l\nbatchsize: 3", UsageError, "did you mean 'batch_size'"),
        ("- a list", InputError, "start it with 'extends: sscd-l'"),
        ("a: [", InputError, "not a valid YAML"),
    ],
)
def test_an_invalid_file_is_rejected_with_advice(text: str, error: type[Exception], advice: str, tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(error, match=advice):
        from_yaml(path, {name: make() for name, make in RECIPES.items()})


def test_what_has_no_influence_on_the_weights_is_no_part_of_the_identity():
    base = config()
    same = with_settings(base, ["workers=3", "log_every=7", "save_every=9", "data=elsewhere"])
    assert base.identity() == same.identity()
    assert base.identity() != with_settings(base, ["seed=1"]).identity()


def test_a_stage_lasts_for_epochs_or_for_steps_and_not_both():
    with pytest.raises(ValueError, match="needs either epochs or steps"):
        Stage(epochs=1, steps=2)
    with pytest.raises(ValueError, match="needs either epochs or steps"):
        Stage()


def test_an_optimizer_needs_a_rate_above_0():
    with pytest.raises(ValueError, match="greater than 0"):
        Optimizer(lr=0)
