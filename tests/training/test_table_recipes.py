"""The recipes of the comparison methods: what is published, and what must be the same for all."""

from __future__ import annotations

import pytest
from torch import nn

from wasnow.models import registry
from wasnow.training.losses import LOSSES
from wasnow.training.optim import schedule_factor
from wasnow.training.recipes import RECIPES, recipe

METHODS = ("hrscd", "changemask", "ted", "scannet", "smnet")


@pytest.mark.parametrize("name", METHODS)
def test_every_stage_has_a_loss_and_parameters_to_train(name):
    config = recipe(name)
    made = registry.build(config.model, classes=("a", "b"), **config.model_options)
    assert isinstance(made, nn.Module)
    names = [each for each, _ in made.named_parameters()]
    for stage in config.stages:
        assert stage.loss in LOSSES
        for part in stage.trains:
            assert any(each.startswith(f"{part}.") for each in names), part


def test_ted_has_the_numbers_of_sscd_l():
    ours, theirs = recipe("ted").identity(), recipe("sscd-l").identity()
    assert {key for key in ours if ours[key] != theirs[key]} == {"name", "model"}


def test_hrscd_learns_land_cover_first_and_all_of_it_in_the_end():
    first, second = recipe("hrscd").stages
    assert (first.loss, second.loss) == ("classes", "change")
    made = registry.build("hrscd", classes=("a", "b"))
    trained = (*first.trains, *second.trains)
    assert all(name.startswith(trained) for name, _ in made.named_parameters())


def test_the_rate_of_scannet_is_poly_over_all_its_epochs():
    config, whole = recipe("scannet"), recipe("ted")
    assert sum(stage.epochs for stage in config.stages) == whole.stages[0].epochs == 50
    steps = 0
    for stage in config.stages:
        count = round(stage.epochs * 100)
        for step in (0, count // 3, count // 2, count - 1):
            rate = (stage.optimizer or config.optimizer).lr * schedule_factor(
                stage.schedule or config.schedule, step, count
            )
            published = whole.optimizer.lr * schedule_factor(whole.schedule, steps + step, 5000)
            assert rate == pytest.approx(published, abs=1e-3 * whole.optimizer.lr)
        steps += count


def test_the_common_recipe_takes_any_network_and_changes_nothing_else():
    base = recipe("common").identity()
    for name, entry in registry.MODELS.items():
        if entry.network:
            other = recipe("common", [f"model={name}"]).identity()
            assert {key for key in other if other[key] != base[key]} <= {"model"}


def test_every_method_of_the_table_has_a_recipe_of_its_name():
    assert set(METHODS) <= set(RECIPES)
    assert all(recipe(name).model == name for name in METHODS)
