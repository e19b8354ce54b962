"""Which rows the table will have, and how each comes to its weights: decided before anything runs.

    name          means                                    budget "published"           budget 2000
    sscd-l        a model of `MODELS`                      its recipe as published      the common recipe, 2000 steps
    sscd-l-small  a recipe of `RECIPES`, or a YAML file    this recipe                  its network, the common recipe
    irmad         a model that needs no training           as it is                     as it is
    NAME@shipped  the weights that come with wasnow        as they are                  as they are
    runs/a        a checkpoint or a run folder             as it is                     as it is

Models and recipes are looked up by what they say of themselves, so one that is added later needs nothing here. A row
that cannot be trained (no recipe, a setting that it refuses) stays a row, with its reason. Nothing here imports torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wasnow.errors import UnknownModel, UsageError, did_you_mean
from wasnow.models.registry import MODELS, ModelEntry, shipped
from wasnow.training.config import TrainConfig, with_settings
from wasnow.training.recipes import RECIPES, recipe

ALL = "all"
PUBLISHED = "published"
SHIPPED = "@shipped"
COMMON = "common"
"""The recipe for equal budgets."""

DEVICES = ("auto", "cpu", "cuda", "mps")
"""On which rows can be trained and run."""

BASELINES = {"semantic-cd": ("semantic-cd-baseline",)}
"""Recipes of the same network that its paper compares it with: rows of their own."""

CHANGE_ALONE = ("change", "change-dice")
"""Losses that need no classes, and teach none."""

SAYS_PUBLISHED = "as published"
"""What the summary of a recipe says that keeps to the numbers of a paper."""

_ELSEWHERE = "trained elsewhere: the pairs that score may have been among those that it learned from"

_OTHERWISE = {
    "seed": "--seeds",
    "device": "--device",
    "data": "--data",
    "output": "-o",
    "encoding": "--encoding",
    "tile": "--tile",
    "priors": "--priors",
    "model": "--models",
    "devices": "nothing: a benchmark trains on one device",
    "split": "folders named train, val and test",
}
"""Settings that ``--set`` may not name, and what says the same."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: as the table shows it; unique.
        folder: the same as the name of a folder; unique.
        summary: what it is.
        model: its name in `MODELS`; None for a checkpoint, which names its own.
        entry: of `MODELS`; travels with the row, because a process of its own knows only the models of wasnow.
        config: what to train; None where nothing is trained.
        weights: a checkpoint, a run folder, or the name of a model that ships; None where trained or without weights.
        notes: what a reader of its numbers must know.
        problem: why it cannot be run at all.
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
class Turn:
    """A row under one seed; ``seed`` is None where nothing is drawn."""

    row: Row
    seed: int | None

    @property
    def name(self) -> str:
        """``sscd-l, seed 0``."""
        return self.row.name if self.seed is None else f"{self.row.name}, seed {self.seed}"

    @property
    def folder(self) -> str:
        """``sscd-l-seed0``, below the folder of runs."""
        return self.row.folder if self.seed is None else f"{self.row.folder}-seed{self.seed}"

    @property
    def config(self) -> TrainConfig | None:
        """What to train, with this seed."""
        found = self.row.config
        return found if found is None or self.seed is None else found.model_copy(update={"seed": self.seed})


@dataclass(frozen=True)
class Plan:
    """Everything that will be run.

    Attributes:
        rows: of the table, in its order.
        budget: ``published``, or ``2000 steps``.
        seeds: of every training.
        settings: that all rows share, as ``key=value``.
    """

    rows: tuple[Row, ...]
    budget: str
    seeds: tuple[int, ...]
    settings: tuple[str, ...]

    def turns(self, only: Sequence[str] = ()) -> Iterator[Turn]:
        """Every row under every seed, or those of some rows alone.

        Raises:
            UsageError: ``only`` names no row.
        """
        known = [row.name for row in self.rows]
        for name in only:
            if name not in known:
                raise UsageError(
                    f"--only {name} is no row of this table: {', '.join(known)}{did_you_mean(name, known)}"
                )
        for row in self.rows:
            if not only or row.name in only:
                yield from (Turn(row, seed) for seed in (self.seeds if row.config is not None else (None,)))


def make_plan(
    names: Sequence[str],
    budget: str,
    *,
    seeds: Sequence[int] = (0,),
    settings: Sequence[str] = (),
    device: str = "auto",
) -> Plan:
    """The rows that some names mean.

    Args:
        names: see the module; ``all`` is every network of `MODELS`, and `BASELINES`.
        budget: ``published``, or a number of steps as text.
        seeds: of every training, each once.
        settings: ``key=value`` for every recipe.
        device: of `DEVICES`.

    Raises:
        UnknownModel: a name that means nothing.
        UsageError: a budget, seed, device or setting that cannot be meant; a setting that every row refuses.
    """
    steps = _steps(budget)
    if device not in DEVICES:
        raise UsageError(f"--device {device} is none of {', '.join(DEVICES)}{did_you_mean(device, DEVICES)}")
    for text in settings:
        key = text.partition("=")[0].strip()
        if key in _OTHERWISE or (steps is not None and key in ("steps", "epochs", "stages")):
            raise UsageError(f"--set {text} is not for a benchmark; use {_OTHERWISE.get(key, '--budget')} instead")
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UsageError(f"seeds {', '.join(map(str, seeds)) or 'none'}: give each once, from 0 on, as --seeds 0,1")
    wanted = [one for name in names for one in (_networks() if name == ALL else [name])]
    if not wanted:
        raise UsageError(f"no models to compare; use --models {ALL}, or names from wasnow models and wasnow recipes")
    rows = []
    for name in dict.fromkeys(wanted):
        row = _row(name, steps)
        rows.append(_adjusted(row, (*settings, f"device={device}")))
    trained = [row for row in rows if row.config is not None or row.problem is not None]
    if settings and trained and all(row.problem is not None for row in trained):
        raise UsageError(trained[0].problem or "")
    told = PUBLISHED if steps is None else f"{steps} steps"
    return Plan(_apart(rows), told, tuple(seeds), tuple(settings))


def step_counts(config: TrainConfig, pairs: int) -> tuple[int, ...]:
    """Steps of each stage when trained on so many pairs: an epoch is as many as it takes to see them all."""
    return tuple(
        stage.steps or max(1, math.ceil((stage.epochs or 0) * pairs / config.batch_size - 1e-9))
        for stage in config.stages
    )


def own_recipe(model: str) -> tuple[TrainConfig, str | None] | None:
    """The recipe of a model that says "as published", or else the one of its name, or else its first.

    Returns:
        The recipe, and a note where it is not a published one; None where no recipe trains the model.
    """
    every = {name: make() for name, make in RECIPES.items() if name != COMMON}
    found = {name: config for name, config in every.items() if config.model == model}
    for config in found.values():
        if SAYS_PUBLISHED in config.summary.casefold():
            return config, None
    if not found:
        return None
    config = found.get(model) or next(iter(found.values()))
    return config, f"its recipe {config.name} does not claim to be as published"


# ------------------------------------------------------------------------------------------------------------- one row


def _row(name: str, steps: int | None) -> Row:
    """What a name means; the row may have a problem."""
    if name.endswith(SHIPPED):
        model = name.removesuffix(SHIPPED)
        if model not in MODELS:
            raise UnknownModel(model, sorted(MODELS))
        if shipped(model) is None:
            raise UsageError(f"{model} comes without weights; leave {SHIPPED} out to train it")
        return Row(name, "", MODELS[model].summary, model, MODELS[model], weights=model, notes=(_ELSEWHERE,))
    if name in MODELS:
        entry = MODELS[name]
        if not entry.network:
            return Row(name, "", entry.summary, name, entry, notes=("fitted to each pair by itself; no training",))
        own = own_recipe(name)
        if own is None and steps is None:
            reason = f"no recipe trains {name}; give --budget STEPS for the common one, or a .yaml file of your own"
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
        return Row(path.name.removesuffix(".safetensors"), "", "trained elsewhere", weights=name, notes=(_ELSEWHERE,))
    raise UnknownModel(name, sorted({*MODELS, *RECIPES}))


def _trained(name: str, entry: ModelEntry, own: TrainConfig | None, steps: int | None, note: str | None) -> Row:
    model = own.model if own is not None else name
    if steps is None:
        assert own is not None
        return Row(name, "", entry.summary, model, entry, own, notes=() if note is None else (note,))
    began = own.start if own is not None else None
    notes = () if began is None else (f"from random weights, where its own recipe begins with {began}",)
    return Row(name, "", entry.summary, model, entry, _equal(model, entry, own, steps), notes=notes)


def _equal(model: str, entry: ModelEntry, own: TrainConfig | None, steps: int) -> TrainConfig:
    """The common recipe for a network: its options are the method's own, all else is shared."""
    shared = RECIPES[COMMON]()
    stage = shared.stages[0].model_copy(update={"steps": steps, "epochs": None})
    if "classes" not in entry.answers:
        stage = stage.model_copy(update={"loss": CHANGE_ALONE[0]})
    # A warm-up made for long runs would be most of a short one.
    warmup = min(shared.schedule.warmup, steps // 10)
    return shared.model_copy(
        update={
            "name": COMMON,
            "summary": f"the common recipe, {steps} steps",
            "model": model,
            "model_options": {} if own is None else own.model_options,
            "stages": (stage,),
            "schedule": shared.schedule.model_copy(update={"warmup": warmup}),
        }
    )


def _adjusted(row: Row, settings: Iterable[str]) -> Row:
    """The row with the shared settings, or with the reason why it refuses them."""
    if row.config is None:
        return row
    try:
        return replace(row, config=with_settings(row.config, settings))
    except UsageError as error:
        return replace(row, config=None, problem=str(error))


def _steps(budget: str) -> int | None:
    if budget == PUBLISHED:
        return None
    if not budget.isascii() or not budget.isdigit() or int(budget) < 1:
        raise UsageError(f"--budget {budget} is neither {PUBLISHED} nor a number of steps; write --budget 2000")
    return int(budget)


def _networks() -> list[str]:
    networks = (name for name, entry in MODELS.items() if entry.network)
    return [one for name in networks for one in (name, *BASELINES.get(name, ()))]


def _apart(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Names and folders that differ from each other; folders in letters that every disk takes, in any case."""
    names: set[str] = set()
    folders: set[str] = set()
    apart = []
    for row in rows:
        name = _other(row.name, names, " ({})")
        slug = re.sub(r"[^a-z0-9._-]+", "-", row.name.casefold()).strip("-.")[:60]
        apart.append(replace(row, name=name, folder=_other(slug or "row", folders, "-{}")))
    return tuple(apart)


def _other(text: str, taken: set[str], pattern: str) -> str:
    number, found = 2, text
    while found in taken:
        found, number = text + pattern.format(number), number + 1
    taken.add(found)
    return found
