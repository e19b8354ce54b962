"""What a training run is, as one validated value.

    TrainConfig
      model, its options                    which network
      crop, batch_size, augment, seed       what it sees, in which order
      stages ─> Stage, Stage, ...           which parameters learn, from which loss, for how long
      optimizer, schedule, clip, ema        how they learn
      validate_every, select, holdback      what chooses the best weights: never the test split

A recipe (recipes.py) is a function that returns one; a YAML file is one; ``--set a.b=c`` changes one. Unknown keys are
refused with the nearest name. Nothing here imports torch.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from wasnow.errors import InputError, UsageError, did_you_mean

LossName = Literal[
    "ding", "scannet", "scannet-pseudo", "changemask", "changemamba", "change", "change-dice", "classes", "joint"
]
"""Which function of `wasnow.training.losses` a stage minimises: ``scannet`` is ``ding`` with a margin of 0.1, and
``scannet-pseudo`` learns pseudo-labels besides; ``joint`` is ``change`` and ``classes`` together, ``change-dice`` is
``change`` and Dice."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Optimizer(_Strict):
    """How a gradient becomes a step."""

    kind: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(default=3e-4, gt=0, description="the highest rate of the schedule")
    weight_decay: float = Field(default=1e-2, ge=0, description="decoupled for adamw, in the gradient for sgd")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        default=(0.9, 0.999), description="adamw alone"
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="sgd alone")
    nesterov: bool = Field(default=True, description="sgd alone; needs momentum")

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Optimizer:
        if self.kind == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0; set nesterov=false or momentum=0.9")
        return self


class Schedule(_Strict):
    """How the rate moves over a stage; with u = 0..1 the share of the stage after its warm-up.

    ========  =============================================
    constant  1
    poly      (1 - u) ** power
    cosine    (1 + cos(pi u)) / 2
    step      gamma ** (how many of ``milestones`` are <= u)
    ========  =============================================

    The factor is scaled to fall to ``floor`` instead of 0. During the first ``warmup`` steps it rises linearly to 1.
    """

    kind: Literal["constant", "poly", "cosine", "step"] = "cosine"
    warmup: int = Field(default=0, ge=0, description="steps")
    floor: float = Field(default=0.0, ge=0, le=1, description="the lowest factor; of no effect on step and constant")
    power: float = Field(default=0.9, gt=0, description="poly alone")
    milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(default=(0.6, 0.9), description="step alone")
    gamma: float = Field(default=0.1, gt=0, le=1, description="step alone")


class Stage(_Strict):
    """One part of a run: which loss, for how long, and which parameters it trains.

    Attributes:
        trains: beginnings of parameter names (``"change_decoder"``); the rest is frozen, and frozen normalisation
            layers keep their statistics. A part that the model was made without is passed over. Empty trains
            everything.
        optimizer: instead of the run's.
        schedule: instead of the run's.
    """

    name: str = "train"
    loss: LossName = "ding"
    epochs: float | None = Field(default=None, gt=0, description="passes over the data; or give steps")
    steps: int | None = Field(default=None, gt=0, description="of the optimizer; or give epochs")
    trains: tuple[str, ...] = ()
    optimizer: Optimizer | None = None
    schedule: Schedule | None = None

    @model_validator(mode="after")
    def _one_length(self) -> Stage:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("a stage lasts for epochs or for steps; give one of the two")
        return self


Share = Annotated[float, Field(ge=0, lt=1)]


class Light(_Strict):
    """How much the light of each date varies: see `wasnow.data.transforms.ColorJitter`."""

    brightness: Share = 0.10
    contrast: Share = 0.20
    gamma: Share = 0.20
    color: Share = 0.06
    saturation: Share = 0.25


class Camera(_Strict):
    """How much the camera and the sky of each date vary: see `wasnow.data.transforms.SensorJitter`."""

    grey: float = Field(default=0.1, ge=0, le=1)
    haze: Share = 0.3
    blur_px: float = Field(default=1.2, ge=0)
    noise: float = Field(default=6.0, ge=0)


class Augmentation(_Strict):
    """How a pair is seen anew each time: see `wasnow.data.transforms.Augment`."""

    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (1.0, 1.0)
    flips: bool = True
    quarter_turns: bool = True
    swap: float = Field(default=0.5, ge=0, le=1, description="probability that the dates change places")
    light: Light | None = None
    shift_px: float = Field(default=0.0, ge=0, le=16, description="the second picture is displaced by up to this")
    camera: Camera | None = None

    @model_validator(mode="after")
    def _rising(self) -> Augmentation:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale {self.scale[0]:g} to {self.scale[1]:g} does not rise; write such as [0.8, 1.25]")
        return self


class TrainConfig(_Strict):
    """A whole run; the defaults serve a first try on one ordinary GPU."""

    name: str = Field(description="of the recipe")
    summary: str = ""
    source: str = Field(default="", description="where these numbers are published")

    model: str = Field(description="see wasnow models")
    model_options: dict[str, Any] = Field(default_factory=dict)
    start: str | None = Field(
        default=None,
        description="a checkpoint (or semantic-cd-mini, which comes with wasnow) to take fitting weights from, an "
        "encoder as others publish it (ResNet-34, EfficientNet-B0, VMamba, SegFormer), or CLIP weights (wasnow "
        "weights); None: from scratch",
    )

    data: str | None = Field(default=None, description="dataset folder, where the command line names none")
    encoding: str | None = Field(default=None, description="class encoding, where the values cannot tell it")
    tile: int | None = Field(default=None, ge=8, description="cut the dataset's pictures into tiles of this side")
    split: str | None = Field(default=None, description="a text file of the ids in the training folder that become val")
    priors: str | None = Field(
        default=None, description="prior folder (wasnow priors), labels, or none; for a model that wants masks"
    )
    output: str | None = Field(default=None, description="run folder, where the command line names none")

    crop: int = Field(default=256, ge=8, description="side of the training crops, in pixels")
    augment: Augmentation = Augmentation()
    batch_size: int = Field(default=8, ge=1, description="pairs per step of the optimizer, over all devices")
    accumulate: int = Field(
        default=1, ge=1, description="parts in which a batch goes through the model, to save memory"
    )
    seed: int = Field(default=0, ge=0, lt=2**63)
    workers: int = Field(default=2, ge=0, description="processes that read and augment; results do not depend on it")

    stages: tuple[Stage, ...]
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    clip: float | None = Field(default=None, gt=0, description="largest norm of a gradient")
    ema: float | None = Field(default=None, gt=0, lt=1, description="decay of the average that is validated and kept")
    # YAML reads 32 as a number.
    precision: Annotated[Literal["32", "bf16"], BeforeValidator(lambda value: "32" if value == 32 else value)] = "32"
    checkpointing: bool = Field(
        default=False, description="compute what lies between blocks again for the gradient, instead of keeping it"
    )
    cache_features: bool = Field(
        default=False, description="keep on disk what a frozen encoder answers; needs pictures that come back unchanged"
    )
    dense: bool = Field(
        default=False,
        description="classes are learned from unchanged pixels as well, where the labels name them everywhere",
    )
    leave_out: tuple[str, ...] = Field(
        default=(), description="class words that training and validation do not see; changed pixels stay changed"
    )

    validate_every: int | None = Field(default=None, ge=1, description="steps; None: once an epoch")
    save_every: int | None = Field(default=None, ge=1, description="steps between states; None: with each validation")
    log_every: int = Field(default=10, ge=1, description="steps between lines of log.csv")
    select: str | None = Field(
        default=None, description="the score that chooses the best; None: stacked.score, or binary.f1 without classes"
    )
    holdback: float = Field(
        default=0.1, ge=0, lt=1, description="share of the training pairs to validate on where there is no val split"
    )
    samples: int = Field(default=4, ge=0, description="validation pairs pictured on the training page")
    tensorboard: bool = False

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = Field(default=1, ge=1, description="processes, one per device (DDP)")

    @model_validator(mode="after")
    def _whole(self) -> TrainConfig:
        if not self.stages:
            raise ValueError("a run without stages trains nothing; give at least one")
        parts = self.accumulate * self.devices
        if self.batch_size % parts:
            raise ValueError(
                f"batch_size={self.batch_size} does not divide into accumulate * devices = {parts} equal parts; "
                f"use batch_size={-(-self.batch_size // parts) * parts}"
            )
        return self

    def identity(self) -> dict[str, Any]:
        """Everything that the weights depend on, as plain JSON values: what a resumed run must repeat."""
        return self.model_dump(mode="json", exclude=_NO_INFLUENCE)


_NO_INFLUENCE = {
    *("data", "priors", "output", "workers", "log_every", "save_every", "tensorboard", "samples", "summary", "source")
}
"""Settings that a resumed run may change. Where masks lie is one; which they are is told beside the identity."""


def validated(values: Mapping[str, Any], *, where: str = "the recipe") -> TrainConfig:
    """A configuration from plain values.

    Raises:
        UsageError: unknown keys (with the nearest name), wrong types, or values out of range; all of them in one line.
    """
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{where}: {'; '.join(_fault(one) for one in error.errors())}") from None


def with_settings(config: TrainConfig, settings: Iterable[str]) -> TrainConfig:
    """The configuration with ``key=value`` settings, keys dotted (``optimizer.lr=0.01``, ``stages.0.loss=change``).

    Values are read as YAML and typed by the configuration. ``epochs`` and ``steps`` alone mean the only stage; either
    replaces the other. ``model.width=64`` is an option of the model: ``model_options.width``.

    Raises:
        UsageError: not ``key=value``, unknown keys, wrong values.
    """
    values = config.model_dump(mode="json")
    texts = list(settings)
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set {text} is no setting; write it as --set batch_size=4 or --set optimizer.lr=0.01")
        _put(values, key.strip().split("."), _parsed(value), text)
    return validated(values, where=" ".join(f"--set {text}" for text in texts) or "the recipe")


def from_yaml(path: Path, recipes: Mapping[str, TrainConfig]) -> TrainConfig:
    """A configuration from a user's file.

        extends: sscd-l          # optional: a recipe of wasnow to start from; no chains
        batch_size: 4            # everything else as in TrainConfig; mappings are merged, lists replaced

    Raises:
        InputError: the file is missing or no YAML mapping.
        UsageError: unknown keys or wrong values.
    """
    try:
        own = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; name a YAML file or a recipe (wasnow recipes)") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is no readable YAML file ({' '.join(str(error).split())}); correct it") from None
    if not isinstance(own, dict):
        raise InputError(f"{path} holds no mapping of settings; begin it with 'extends: sscd-l' and add settings below")
    start = own.pop("extends", None)
    if start is None:
        return validated({"name": path.stem, **own}, where=str(path))
    if not isinstance(start, str) or start not in recipes:
        raise UsageError(
            f"{path} extends {start!r}, wanted one of {', '.join(recipes)}{did_you_mean(str(start), list(recipes))}"
        )
    base = recipes[start].model_dump(mode="json")
    return validated(_merged(base, {"name": path.stem, **own}), where=str(path))


def to_yaml(config: TrainConfig) -> str:
    """The configuration as a file for `from_yaml`."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _parsed(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text
    # YAML 1.1 reads 1e-4 as text, because it has no point.
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _put(values: Any, keys: Sequence[str], value: Any, text: str) -> None:
    if len(keys) == 1 and keys[0] in ("epochs", "steps"):
        stages = values["stages"]
        if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
            raise UsageError(f"--set {text}: stages={stages!r} before it is no list of stages; leave that out")
        if len(stages) != 1:
            first = repr(stages[0].get("name", "the first")) if stages else "the first"
            raise UsageError(f"--set {text}: of which stage? write stages.0.{text} for {first}, and so on")
        keys = ("stages", "0", keys[0])
    if keys[0] == "model" and len(keys) > 1:
        keys = ("model_options", *keys[1:])
    for depth, key in enumerate(keys[:-1]):
        try:
            inner = values[int(key)] if isinstance(values, list) else values.setdefault(key, {})
        except (ValueError, IndexError):
            raise UsageError(
                f"--set {text}: {'.'.join(keys[: depth + 1])} is no entry; there are {len(values)}, counted from 0"
            ) from None
        if inner is None:
            inner = values[key] = {}
        if not isinstance(inner, dict | list):
            raise UsageError(f"--set {text}: {'.'.join(keys[: depth + 1])} is a single value, without keys of its own")
        values = inner
    last = keys[-1]
    if isinstance(values, list):
        try:
            values[int(last)] = value
        except (ValueError, IndexError):
            raise UsageError(f"--set {text}: {last} is no entry; there are {len(values)}, counted from 0") from None
        return
    values[last] = value
    other = {"epochs": "steps", "steps": "epochs"}.get(last)
    if other in values and value is not None:
        values[other] = None


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """``own`` over ``base``: mappings key by key, everything else replaced."""
    both = dict(base)
    for key, value in own.items():
        inner = both.get(key)
        both[key] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return both


def _fault(error: Any) -> str:
    """One fault that pydantic found, with the nearest name for an unknown key."""
    where = [str(part) for part in error["loc"]]
    if error["type"] == "extra_forbidden":
        known = _names(where[:-1])
        near = did_you_mean(where[-1], known) or f"; known are {', '.join(known)}"
        return f"{'.'.join(where)} is no setting{near}"
    message = error["msg"].removeprefix("Value error, ")
    given = "" if isinstance(error["input"], dict | BaseModel) else f", not {error['input']!r}"
    return f"{'.'.join(where)}: {message}{given}" if where else message


def _names(path: Sequence[str]) -> list[str]:
    """The keys that are known at a path into `TrainConfig`."""
    kind: Any = TrainConfig
    for key in path:
        if isinstance(kind, type) and issubclass(kind, BaseModel) and key in kind.model_fields:
            kind = kind.model_fields[key].annotation
        for _ in range(3):  # Stage | None and tuple[Stage, ...] hold one model each
            if typing.get_origin(kind) in (types.UnionType, typing.Union, tuple):
                kind = typing.get_args(kind)[0]
    return sorted(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []
