"""Rates against torch's own schedulers, averages against their formula, and who is frozen."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from training.tiny import Tiny
from wasnow.errors import UsageError
from wasnow.training.config import Optimizer, Schedule
from wasnow.training.optim import (
    WeightAverage,
    freeze,
    make_optimizer,
    optimizer_tensors,
    restore_optimizer,
    schedule_factor,
    set_learning_rate,
    training_mode,
)

STEPS = 20


def torchs(make, steps: int = STEPS) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("schedule", "make"),
    [
        (Schedule(kind="poly", power=1.5), lambda o: lr_scheduler.PolynomialLR(o, STEPS, power=1.5)),
        (Schedule(kind="cosine"), lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS)),
        (Schedule(kind="cosine", floor=0.2), lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS, eta_min=0.2)),
        (Schedule(kind="step", milestones=(0.5, 0.75)), lambda o: lr_scheduler.MultiStepLR(o, [10, 15], gamma=0.1)),
        (Schedule(kind="constant"), lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
    ],
)
def test_learning_rates_equal_those_of_torch_schedulers(schedule: Schedule, make):
    ours = [schedule_factor(schedule, step, STEPS) for step in range(STEPS)]
    assert ours == pytest.approx(torchs(make), abs=1e-12)


def test_the_warm_up_rises_by_equal_steps_to_the_full_rate():
    schedule = Schedule(kind="poly", power=1.0, warmup=4)
    rates = [schedule_factor(schedule, step, 14) for step in range(14)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[4:] == pytest.approx([1 - i / 10 for i in range(10)])


def test_only_the_named_parameters_learn():
    net = Tiny()
    assert freeze(net, ("change", "classes.weight")) == ["change.weight", "change.bias", "classes.weight"]
    assert not net.encoder[0].weight.requires_grad
    assert len(freeze(net, ())) == len(list(net.parameters()))


def test_an_unknown_parameter_prefix_is_rejected():
    with pytest.raises(UsageError, match="the names start with change, classes, encoder; did you mean 'encoder'"):
        freeze(Tiny(), ("encode",))


def test_frozen_normalisation_keeps_its_statistics():
    net = Tiny(norm="batch")
    image = torch.rand(2, 3, 8, 8)
    mean = net.encoder[1].running_mean.clone()
    freeze(net, ("change",))
    training_mode(net)
    net(image, image)
    assert torch.equal(net.encoder[1].running_mean, mean)
    freeze(net, ())
    training_mode(net)
    net(image, image)
    assert not torch.equal(net.encoder[1].running_mean, mean)


def test_the_average_follows_its_formula():
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 1.0)
    average = WeightAverage(net, 0.5)
    expected = 1.0
    for updates, value in enumerate((3.0, -1.0, 4.0, 0.5, 2.0, 2.0, 9.0, 1.0, 1.0, 5.0), 1):
        nn.init.constant_(net.weight, value)
        average.update(net, updates)
        decay = min(0.5, (1 + updates) / (10 + updates))
        expected = decay * expected + (1 - decay) * value
    assert float(average.module.weight) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("settings", [Optimizer(lr=0.1), Optimizer(kind="sgd", lr=0.1)])
def test_an_optimizer_remembers_bit_for_bit(settings: Optimizer):
    torch.manual_seed(0)
    net, twin = nn.Linear(4, 3), nn.Linear(4, 3)
    images = torch.rand(6, 5, 4)

    def steps(model: nn.Module, optimizer: torch.optim.Optimizer, some: torch.Tensor) -> None:
        for image in some:
            optimizer.zero_grad()
            model(image).square().sum().backward()
            optimizer.step()

    first = make_optimizer(net, settings)
    set_learning_rate(first, 0.01)
    steps(net, first, images[:3])
    twin.load_state_dict(net.state_dict())
    second = make_optimizer(twin, settings)
    set_learning_rate(second, 0.01)
    restore_optimizer(second, {name: one.clone() for name, one in optimizer_tensors(first).items()})
    steps(net, first, images[3:])
    steps(twin, second, images[3:])
    assert torch.equal(net.weight, twin.weight)


def test_poly_falls_to_nothing_and_never_below():
    rates = [schedule_factor(Schedule(kind="poly", power=1.5), step, 100) for step in range(100)]
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 0.01
    assert math.isclose(rates[50], 0.5**1.5)
