"""How parameters move: who is trained, at which rate, and the average of where they have been.

Rates are a function of the step alone, so a resumed run needs no memory of them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wasnow.errors import UsageError, did_you_mean
from wasnow.training.config import Optimizer, Schedule


def factor(schedule: Schedule, step: int, steps: int) -> float:
    """What the highest rate is multiplied with at a step of a stage; the equations are `Schedule`'s.

    Args:
        schedule: which.
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
    """Let the parameters whose names begin with one of ``trains`` learn, and no others; all, where it is empty.

    A part that the module knows by name and has nothing in (Semantic-CD without its prompter) is passed over.

    Returns:
        The names of those that learn.

    Raises:
        UsageError: a beginning that no name has.
    """
    names = [name for name, _ in module.named_parameters()]
    for prefix in trains:
        if not any(begins(name, prefix) for name in names) and not hasattr(module, prefix):
            heads = sorted({name.partition(".")[0] for name in names})
            raise UsageError(
                f"no parameter's name begins with {prefix!r}; they begin with {', '.join(heads)}"
                f"{did_you_mean(prefix, heads)}"
            )
    learning = []
    for name, parameter in module.named_parameters():
        wanted = not trains or any(begins(name, prefix) for prefix in trains)
        parameter.requires_grad_(wanted)
        if wanted:
            learning.append(name)
    if not learning:
        raise UsageError(f"trains={list(trains)} names only parts that this model was made without; name others")
    return learning


def never_trained(module: nn.Module, learning: Iterable[Iterable[str]]) -> list[str]:
    """Names of the parameters that no stage trains, under every name that the module has for them.

    Args:
        module: whose parameters.
        learning: of each stage, what `freeze` returned.
    """
    moving = {name for names in learning for name in names}
    trained = {id(parameter) for name, parameter in module.named_parameters() if name in moving}
    every = module.named_parameters(remove_duplicate=False)
    return [name for name, parameter in every if id(parameter) not in trained]


def training_mode(module: nn.Module) -> None:
    """Training mode, except for normalisation layers that are frozen: their statistics belong to frozen weights."""
    module.train()
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._NormBase) and part.affine and not part.weight.requires_grad:
            part.eval()


def make_optimizer(module: nn.Module, settings: Optimizer) -> torch.optim.Optimizer:
    """The optimizer of the parameters that learn."""
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


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The same rate for every parameter."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimizer remembers, by number of parameter and name: ``0.momentum_buffer``."""
    memory = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": value if isinstance(value, Tensor) else torch.tensor(value)
        for index, entries in memory.items()
        for name, value in entries.items()
        if value is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Let an optimizer remember again; its settings stay as they were made."""
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


class Average:
    """An exponential moving average of a module, itself a module: ``mean <- d mean + (1 - d) now``.

    d rises with the number of updates n as min(decay, (1 + n) / (10 + n)), so that the beginning is soon forgotten
    (the customary warm-up). Buffers (statistics of normalisation) are taken as they are.

    Args:
        module: as it is before the first step.
        decay: d.
        still: names of parameters that never move; they are shared with the module and take no memory here.
    """

    def __init__(self, module: nn.Module, decay: float, *, still: Collection[str] = ()) -> None:
        shared = {id(one): one for name, one in module.named_parameters() if name in still}
        self.module = copy.deepcopy(module, dict(shared)).eval()
        for one in self.module.parameters():
            if id(one) not in shared:
                one.requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, updates: int) -> None:
        """Take in the module as it is after ``updates`` steps."""
        decay = min(self._decay, (1 + updates) / (10 + updates))
        for mean, now in zip(self.module.parameters(), module.parameters(), strict=True):
            if mean is not now:
                mean.lerp_(now.detach(), 1 - decay)
        for kept, current in zip(self.module.buffers(), module.buffers(), strict=True):
            kept.copy_(current)


def begins(name: str, prefix: str) -> bool:
    """``change`` begins ``change.weight``, and not ``changes.weight``."""
    return name == prefix or name.startswith(f"{prefix.rstrip('.')}.")
