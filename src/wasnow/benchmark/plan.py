"""The rows of a table and the source of their weights, decided before anything runs.

    name          means                                    budget "published"           budget 2000
    sscd-l        a model of `MODELS`                      its recipe as published      the common recipe, 2000 steps
    sscd-l-small  a recipe of `RECIPES`, or a YAML file    this recipe                  its network, the common recipe
    irmad         a model without training                 unchanged                    unchanged
    NAME@shipped  the weights included in wasnow           unchanged                    unchanged
    runs/a        a checkpoint or a run folder             unchanged                    unchanged

Models and recipes are looked up by their own entries, so a new one needs no change here. A row that cannot be trained
(no recipe, an invalid setting) stays in the table with its reason. This module does not import torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wasnow.errors import UnknownModel, UsageError, did_you_mean
from wasnow.models.registry import MODELS, ModelEntry, shipped
from wasnow.training.config import Stage, TrainConfig
from wasnow.training.recipes import RECIPES, recipe
from wasnow.training.settings import with_settings

ALL = "all"
PUBLISHED = "published"
SHIPPED = "@shipped"
COMMON = "common"
"""The recipe for equal budgets."""

DEVICES = ("auto", "cpu", "cuda", "mps")
"""Devices for training and inference."""

BASELINES = {"semantic-cd": ("semantic-cd-baseline",)}
"""Baseline recipes of a network in its paper, as additional rows."""

CHANGE_ALONE = ("change", "change-dice")
"""Losses without classes."""

SAYS_PUBLISHED = "as published"
"""Text in the summary of a recipe with the settings of a paper."""

_TRAINED_ELSEWHERE = "trained elsewhere: the test pairs may have been among its training pairs"

_INSTEAD = {
    "seed": "--seeds",
    "device": "--device",
    "data": "--data",
    "output": "-o",
    "encoding": "--encoding",
    "tile": "--tile",
    "priors": "--priors",
    "model": "--models",
    "devices": "nothing, because a benchmark trains on one device",
    "split": "folders named train, val and test",
}
"""Settings that ``--set`` may not change, and what to use instead."""


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        name: unique name in the table.
        folder: unique name of its folder.
        summary: description.
        model: name in `MODELS`; None for a checkpoint, which holds the name.
        entry: of `MODELS`, passed to the process of the row, which may not have it.
        config: of the training; None without training.
        weights: a checkpoint, a run folder or the name of an included model; None if trained or without weights.
        notes: remarks for the reader.
        problem: why the row cannot run.
    """

    name: str
    folder: str
    summary: str = ""
    model: str | None = None
    entry: ModelEntry | None = None
    config: TrainConfig | None = None
    weights: str | None = None
    notes: tuple[str, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class Trial:
    """A row with one seed; ``seed`` is None without randomness."""

    row: Row
    seed: int | None

    @property
    def name(self) -> str:
        """Name such as ``sscd-l, seed 0``."""
        return self.row.name if self.seed is None else f"{self.row.name}, seed {self.seed}"

    @property
    def folder(self) -> str:
        """Folder below ``runs``, such as ``sscd-l-seed0``."""
        return self.row.folder if self.seed is None else f"{self.row.folder}-seed{self.seed}"

    @property
    def config(self) -> TrainConfig | None:
        """Configuration with this seed."""
        found = self.row.config
        return found if found is None or self.seed is None else found.model_copy(update={"seed": self.seed})


@dataclass(frozen=True)
class Plan:
    """All rows and seeds of a benchmark.

    Attributes:
        rows: in the order of the table.
        budget: ``published`` or, for example, ``2000 steps``.
        seeds: of every trained row.
        settings: shared by all rows, as ``key=value``.
    """

    rows: tuple[Row, ...]
    budget: str
    seeds: tuple[int, ...]
    settings: tuple[str, ...]

    def trials(self, only: Sequence[str] = ()) -> Iterator[Trial]:
        """Yield every row with every seed, or only those of some rows.

        Raises:
            UsageError: ``only`` names no row.
        """
        known = [row.name for row in self.rows]
        for name in only:
            if name not in known:
                raise UsageError(
                    f"--only {name} is not a row of this table{did_you_mean(name, known)}; rows are {', '.join(known)}"
                )
        for row in self.rows:
            if not only or row.name in only:
                yield from (Trial(row, seed) for seed in (self.seeds if row.config is not None else (None,)))


def make_plan(
    names: Sequence[str],
    budget: str,
    *,
    seeds: Sequence[int] = (0,),
    settings: Sequence[str] = (),
    device: str = "auto",
) -> Plan:
    """Return the plan of some rows.

    Args:
        names: see the module; ``all`` is every network of `MODELS` with its `BASELINES`.
        budget: ``published``, or a number of steps as text.
        seeds: of every trained row, without repetition.
        settings: ``key=value`` for every recipe.
        device: one of `DEVICES`.

    Raises:
        UnknownModel: a name is unknown.
        UsageError: budget, seeds, device or a setting are invalid, or every row rejects a setting.
    """
    steps = _steps(budget)
    if device not in DEVICES:
        raise UsageError(f"--device {device} is not one of {', '.join(DEVICES)}{did_you_mean(device, DEVICES)}")
    for text in settings:
        key = text.partition("=")[0].strip()
        if key in _INSTEAD or (steps is not None and key in ("steps", "epochs", "stages")):
            raise UsageError(f"--set {text} is not available here; use {_INSTEAD.get(key, '--budget')} instead")
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UsageError(
            f"seeds {', '.join(map(str, seeds)) or 'none'}: use distinct numbers of 0 or more, as --seeds 0,1"
        )
    wanted = [one for name in names for one in (_networks() if name == ALL else [name])]
    if not wanted:
        raise UsageError(f"no models to compare; use --models {ALL} or names from wasnow models and wasnow recipes")
    rows = []
    for name in dict.fromkeys(wanted):
        row = _row(name, steps)
        rows.append(_adjusted(row, (*settings, f"device={device}"), steps))
    trained = [row for row in rows if row.config is not None or row.problem is not None]
    if settings and trained and all(row.problem is not None for row in trained):
        raise UsageError(trained[0].problem or "")
    budget_text = PUBLISHED if steps is None else f"{steps} steps"
    return Plan(_distinct(rows), budget_text, tuple(seeds), tuple(settings))


def step_counts(config: TrainConfig, pairs: int) -> tuple[int, ...]:
    """Return the steps of each stage for a number of training pairs."""
    return tuple(
        stage.steps or max(1, math.ceil((stage.epochs or 0) * pairs / config.batch_size - 1e-9))
        for stage in config.stages
    )


def own_recipe(model: str) -> tuple[TrainConfig, str | None] | None:
    """Return the recipe of a model: "as published" if there is one, else the one of its name, else the first.

    Returns:
        The recipe, and a note if it is not published; None if no recipe trains the model.
    """
    every = {name: make() for name, make in RECIPES.items() if name != COMMON}
    found = {name: config for name, config in every.items() if config.model == model}
    for config in found.values():
        if SAYS_PUBLISHED in config.summary.casefold():
            return config, None
    if not found:
        return None
    config = found.get(model) or next(iter(found.values()))
    return config, f"its recipe {config.name} is not a published one"


# ------------------------------------------------------------------------------------------------------------- one row


def _row(name: str, steps: int | None) -> Row:
    """Return the row of a name; it may have a problem."""
    if name.endswith(SHIPPED):
        model = name.removesuffix(SHIPPED)
        if model not in MODELS:
            raise UnknownModel(model, sorted(MODELS))
        if shipped(model) is None:
            raise UsageError(f"{model} has no included weights; remove {SHIPPED} to train it")
        return Row(name, "", MODELS[model].summary, model, MODELS[model], weights=model, notes=(_TRAINED_ELSEWHERE,))
    if name in MODELS:
        entry = MODELS[name]
        if not entry.network:
            return Row(name, "", entry.summary, name, entry, notes=("fitted to each pair separately; no training",))
        own = own_recipe(name)
        if own is None and steps is None:
            reason = f"no recipe trains {name}; use --budget STEPS, or a .yaml file"
            return Row(name, "", entry.summary, name, entry, problem=reason)
        config, note = own or (None, None)
        return _trained(name, entry, config, steps, note)
    if name in RECIPES or Path(name).suffix.lower() in (".yaml", ".yml"):
        config = recipe(name)
        if config.model not in MODELS:
            raise UnknownModel(config.model, sorted(MODELS))
        return _trained(config.name, MODELS[config.model], config, steps, None)
    path = Path(name)
    if path.exists() or path.suffix == ".safetensors":
        return Row(
            path.name.removesuffix(".safetensors"), "", "trained elsewhere", weights=name, notes=(_TRAINED_ELSEWHERE,)
        )
    raise UnknownModel(name, sorted({*MODELS, *RECIPES}))


def _trained(name: str, entry: ModelEntry, own: TrainConfig | None, steps: int | None, note: str | None) -> Row:
    model = own.model if own is not None else name
    if steps is None:
        assert own is not None
        return Row(name, "", entry.summary, model, entry, own, notes=() if note is None else (note,))
    return Row(name, "", entry.summary, model, entry, _equal_budget(model, entry, own, steps))


def _equal_budget(model: str, entry: ModelEntry, own: TrainConfig | None, steps: int) -> TrainConfig:
    """Return the common recipe for a network, with the model options and the structure of its own recipe.

    If the stages of the recipe train different parts (Semantic-CD, HRSCD), they are kept with their losses in
    proportion to their lengths, and so are the initial weights, because a frozen part has no other source.

    Args:
        model: name in `MODELS`.
        entry: of the model.
        own: its own recipe, if any.
        steps: budget.
    """
    shared = RECIPES[COMMON]()
    stage = shared.stages[0].model_copy(update={"steps": steps, "epochs": None})
    if "classes" not in entry.answers:
        stage = stage.model_copy(update={"loss": CHANGE_ALONE[0]})
    stages: tuple[Stage, ...] = (stage,)
    start = None
    if own is not None and len(own.stages) > 1 and all(one.trains for one in own.stages) and steps >= len(own.stages):
        stages, start = _in_proportion(own.stages, steps), own.start
    # The warm-up of a long run would be most of a short one.
    warmup = min(shared.schedule.warmup, *(one.steps // 10 for one in stages if one.steps is not None))
    return shared.model_copy(
        update={
            "name": COMMON,
            "summary": f"the common recipe, {steps} steps",
            "model": model,
            "model_options": {} if own is None else own.model_options,
            "stages": stages,
            "start": start,
            "schedule": shared.schedule.model_copy(update={"warmup": warmup}),
        }
    )


def _in_proportion(stages: Sequence[Stage], steps: int) -> tuple[Stage, ...]:
    """Return stages with a total of ``steps``, at least one each, in proportion to their epochs or steps.

    Stages in epochs and stages in steps cannot be compared; then all are equally long.
    """
    lengths = [one.epochs for one in stages]
    if None in lengths:
        lengths = [None if one.steps is None else float(one.steps) for one in stages]
    weights = [1.0 if None in lengths or one is None else one for one in lengths]
    parts = [max(1, round(steps * weight / sum(weights))) for weight in weights]
    parts[parts.index(max(parts))] += steps - sum(parts)
    return tuple(
        one.model_copy(update={"steps": part, "epochs": None, "optimizer": None, "schedule": None})
        for one, part in zip(stages, parts, strict=True)
    )


def _adjusted(row: Row, settings: Iterable[str], steps: int | None) -> Row:
    """Return the row with the shared settings and notes about them, or with the error as its problem.

    Args:
        row: of the plan.
        settings: ``key=value`` texts.
        steps: of an equal budget; None for published recipes.
    """
    if row.config is None:
        return row
    try:
        config = with_settings(row.config, settings)
    except UsageError as error:
        return replace(row, config=None, problem=str(error))
    return replace(row, config=config, notes=(*row.notes, *_notes(row, config, steps)))


def _notes(row: Row, config: TrainConfig, steps: int | None) -> list[str]:
    """Return remarks about the initial weights and stages of the final configuration."""
    if steps is None or row.model is None:
        return []
    own = RECIPES[row.name]() if row.name in RECIPES else next(iter(own_recipe(row.model) or ()), None)
    notes = []
    if isinstance(own, TrainConfig) and own.start != config.start:
        before = own.start or "random weights"
        notes.append(f"starts from {config.start or 'random weights'}; its own recipe starts from {before}")
    if len(config.stages) > 1:
        parts = " + ".join(f"{one.steps} {one.name}" for one in config.stages)
        notes.append(f"its stages are kept in proportion: {parts}")
    return notes


def _steps(budget: str) -> int | None:
    if budget == PUBLISHED:
        return None
    if not budget.isascii() or not budget.isdigit() or int(budget) < 1:
        raise UsageError(f"--budget {budget} is not a number of steps or {PUBLISHED}; write for example --budget 2000")
    return int(budget)


def _networks() -> list[str]:
    networks = (name for name, entry in MODELS.items() if entry.network)
    return [one for name in networks for one in (name, *BASELINES.get(name, ()))]


def _distinct(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Return the rows with distinct names and distinct, portable folder names."""
    names: set[str] = set()
    folders: set[str] = set()
    distinct = []
    for row in rows:
        name = _unused(row.name, names, " ({})")
        slug = re.sub(r"[^a-z0-9._-]+", "-", row.name.casefold()).strip("-.")[:60]
        distinct.append(replace(row, name=name, folder=_unused(slug or "row", folders, "-{}")))
    return tuple(distinct)


def _unused(text: str, taken: set[str], pattern: str) -> str:
    number, found = 2, text
    while found in taken:
        found, number = text + pattern.format(number), number + 1
    taken.add(found)
    return found
