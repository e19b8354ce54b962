"""The stages of a run in steps, when to validate, and which score selects the best weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from wasnow.errors import UsageError, did_you_mean
from wasnow.evaluation.metrics import Confusion
from wasnow.training.config import Stage, TrainConfig
from wasnow.training.optim import schedule_factor
from wasnow.vocabulary import Vocabulary

MIN_VALIDATION_STEPS = 50
"""Without ``validate_every``, validations are at least this many steps apart, also for a small dataset."""


@dataclass(frozen=True)
class StageSpan:
    """A stage and its steps ``first`` to ``stop - 1``."""

    stage: Stage
    first: int
    stop: int

    def learning_rate(self, config: TrainConfig, step: int) -> float:
        """Return the learning rate of a step of the run that lies in this stage."""
        settings = self.stage.optimizer or config.optimizer
        schedule = self.stage.schedule or config.schedule
        return settings.lr * schedule_factor(schedule, step - self.first, self.stop - self.first)


def stage_spans(config: TrainConfig, size: int) -> list[StageSpan]:
    """Return the steps of each stage.

    Args:
        config: of the run.
        size: training pairs; an epoch has as many steps as are needed to use each pair once.
    """
    spans: list[StageSpan] = []
    for stage in config.stages:
        first = spans[-1].stop if spans else 0
        pairs = 0 if stage.epochs is None else stage.epochs * size
        steps = stage.steps or max(1, math.ceil(pairs / config.batch_size - 1e-9))
        spans.append(StageSpan(stage, first, first + steps))
    return spans


def validation_due(step: int, config: TrainConfig, size: int) -> bool:
    """Return whether to validate.

    Args:
        step: completed steps.
        config: of the run.
        size: training pairs.
    """
    if config.validate_every is not None:
        return step % config.validate_every == 0
    epochs = math.ceil(MIN_VALIDATION_STEPS * config.batch_size / size)
    every = epochs * size  # pairs between validations
    return step * config.batch_size // every > (step - 1) * config.batch_size // every


CHANGE_LOSSES = ("change", "change-dice")
"""Losses that do not train classes."""


def stage_scores(config: TrainConfig, vocabulary: Vocabulary) -> list[str]:
    """Return the selecting score of each stage: one that the stage can improve.

    The last stage has the score of the run. Earlier stages have their own, `Stage.select`; without one, a stage with a
    change loss has ``binary.f1``, because its class decoder is untrained, and other stages have the score of the run.

    Args:
        config: of the run.
        vocabulary: classes of the model.

    Raises:
        UsageError: a score does not exist, or needs classes that the model does not have.
    """
    final = selecting_score(config.select, vocabulary)
    earlier = []
    for stage in config.stages[:-1]:
        change_only = stage.loss in CHANGE_LOSSES
        earlier.append(selecting_score(stage.select or ("binary.f1" if change_only else final), vocabulary))
    return [*earlier, final]


def selecting_score(wanted: str | None, vocabulary: Vocabulary) -> str:
    """Return the name of the score that selects the best weights.

    Args:
        wanted: a name of `Scores.headline`; None: the default.
        vocabulary: classes of the model.

    Raises:
        UsageError: the score does not exist, or needs classes that the model does not have.
    """
    name = wanted or ("stacked.score" if len(vocabulary) else "binary.f1")
    empty = Confusion.of_change(np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8))
    known = list(empty.scores().headline())
    if name not in known:
        raise UsageError(
            f"there is no score {name!r}{did_you_mean(name, known) or '; known scores are ' + ', '.join(known)}"
        )
    if not len(vocabulary) and not name.startswith("binary."):
        raise UsageError(f"{name} needs classes and there are none; use --set select=binary.f1")
    return name
