"""Optimization: trainable parameters, learning rates, optimizer state and averaged weights.

Learning rates are a function of the step, so a resumed run does not need to store them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from wasnow.errors import UsageError, did_you_mean
from wasnow.training.config import Optimizer, Schedule


def schedule_factor(schedule: Schedule, step: int, steps: int) -> float:
    """Return the schedule_factor of the learning rate at a step of a stage; `Schedule` gives the equations.

    Args:
        schedule: of the stage.
        step: 0..steps - 1, within the stage.
        steps: of the stage.
    """
    if step < schedule.warmup:
        return (step + 1) / (schedule.warmup + 1)
    u = (step - schedule.warmup) / max(1, steps - schedule.warmup)
    if schedule.kind == "constant":
        return 1.0
    if schedule.kind == "step":
        return schedule.gamma ** sum(one <= u for one in schedule.milestones)
    falling = (1 - u) ** schedule.power if schedule.kind == "poly" else (1 + math.cos(math.pi * u)) / 2
    return float(schedule.floor + (1 - schedule.floor) * falling)


def freeze(module: nn.Module, trains: Sequence[str]) -> list[str]:
    """Make the parameters with one of the prefixes trainable and freeze the others; no prefixes: train all.

    A prefix of a part that is None in this module (Semantic-CD without its prompter) is ignored.

    Returns:
        Names of the trainable parameters.

    Raises:
        UsageError: no parameter has a prefix, or none is trainable.
    """
    names = [name for name, _ in module.named_parameters()]
    for prefix in trains:
        if not any(has_prefix(name, prefix) for name in names) and not hasattr(module, prefix):
            heads = sorted({name.partition(".")[0] for name in names})
            raise UsageError(
                f"no parameter name starts with {prefix!r}; the names start with {', '.join(heads)}"
                f"{did_you_mean(prefix, heads)}"
            )
    learning = []
    for name, parameter in module.named_parameters():
        wanted = not trains or any(has_prefix(name, prefix) for prefix in trains)
        parameter.requires_grad_(wanted)
        if wanted:
            learning.append(name)
    if not learning:
        raise UsageError(f"trains={list(trains)} names only parts that this model does not have; name others")
    return learning


def never_trained(module: nn.Module, learning: Iterable[Iterable[str]]) -> list[str]:
    """Return the names of the parameters that no stage trains, including aliases of shared parameters.

    Args:
        module: the model.
        learning: the result of `freeze` for each stage.
    """
    moving = {name for names in learning for name in names}
    trained = {id(parameter) for name, parameter in module.named_parameters() if name in moving}
    every = module.named_parameters(remove_duplicate=False)
    return [name for name, parameter in every if id(parameter) not in trained]


def training_mode(module: nn.Module) -> None:
    """Set training mode, except for frozen normalisation layers, whose statistics belong to their weights."""
    module.train()
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._NormBase) and part.affine and not part.weight.requires_grad:
            part.eval()


def make_optimizer(module: nn.Module, settings: Optimizer) -> torch.optim.Optimizer:
    """Return an optimizer of the trainable parameters."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if settings.kind == "sgd":
        return torch.optim.SGD(
            learning,
            lr=settings.lr,
            momentum=settings.momentum,
            nesterov=settings.nesterov and settings.momentum > 0,
            weight_decay=settings.weight_decay,
        )
    return torch.optim.AdamW(learning, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state tensors of an optimizer by parameter number and name: ``0.momentum_buffer``."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": value if isinstance(value, Tensor) else torch.tensor(value)
        for index, entries in state.items()
        for name, value in entries.items()
        if value is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore the state tensors of an optimizer; its settings are unchanged."""
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


class WeightAverage:
    """Exponential moving average of a module: ``mean <- d mean + (1 - d) current``.

    d rises with the number of updates n as min(decay, (1 + n) / (10 + n)), so the initial weights are forgotten quickly
    (the usual warm-up). Buffers (statistics of normalisation) are copied.

    Args:
        module: in its state before the first step.
        decay: upper limit of d, 0..1.
        frozen: names of parameters that no stage trains; they are shared with the module and not copied.
    """

    def __init__(self, module: nn.Module, decay: float, *, frozen: Collection[str] = ()) -> None:
        self._averaged = AveragedModel(module, multi_avg_fn=partial(_blend, decay))
        self.module = self._averaged.module.eval()
        own, current = dict(self.module.named_parameters()), dict(module.named_parameters())
        for name, parameter in own.items():
            if name in frozen:
                parameter.data = current[name].data
            parameter.requires_grad_(name in frozen and current[name].requires_grad)

    @torch.no_grad()
    def update(self, module: nn.Module, updates: int) -> None:
        """Add the state of the module after ``updates`` steps."""
        # torch copies the module at its first update; here the initial weights count as the first.
        self._averaged.n_averaged.fill_(updates)
        self._averaged.update_parameters(module)


def _blend(decay: float, averaged: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int) -> None:
    d = min(decay, (1 + int(updates)) / (10 + int(updates)))
    for mean, one in zip(averaged, current, strict=True):
        if mean.data_ptr() != one.data_ptr():  # frozen parameters are shared
            mean.lerp_(one, 1 - d)


def has_prefix(name: str, prefix: str) -> bool:
    """Return whether a parameter name is in a part: ``change`` contains ``change.weight``, not ``changes.weight``."""
    return name == prefix or name.startswith(f"{prefix.rstrip('.')}.")


def restore_module(module: nn.Module, tensors: Mapping[str, Tensor], frozen: Sequence[str]) -> None:
    """Load a part of a state, which contains everything but the frozen parameters.

    Args:
        module: whose state is replaced.
        tensors: all but the frozen ones, by name.
        frozen: names of parameters that keep their values.
    """
    own = module.state_dict()
    module.load_state_dict({**tensors, **{name: own[name] for name in frozen}})
