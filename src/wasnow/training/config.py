"""The configuration of a training run, as one validated value.

    TrainConfig
      model, its options                    the network
      crop, batch_size, augment, seed       the data
      stages ─> Stage, Stage, ...           trainable parameters, loss and length
      optimizer, schedule, clip, ema        the optimization
      validate_every, select, holdback      selection of the best weights, never on the test split

A recipe (`wasnow.training.recipes`) is a function that returns one, a YAML file holds one, and ``--set a.b=c`` changes
one. Unknown keys are rejected with the nearest name. This module does not import torch.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

LossName = Literal[
    "ding",
    "scannet",
    "scannet-pseudo",
    "changemask",
    "changemamba",
    "change",
    "change-dice",
    "classes",
    "classes-all-pixels",
    "joint",
]
"""Name of the loss of a stage, see `wasnow.training.losses`: ``scannet`` is ``ding`` with a margin of 0.1,
``scannet-pseudo`` adds pseudo-labels; ``change-dice`` is ``change`` plus Dice; ``classes-all-pixels`` is ``classes``
with the denominator of eq. 6 of Semantic-CD; ``joint`` is ``change`` plus ``classes``."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Optimizer(_Strict):
    """Settings of the optimizer."""

    kind: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(default=3e-4, gt=0, description="peak learning rate")
    weight_decay: float = Field(default=1e-2, ge=0, description="decoupled for adamw, in the gradient for sgd")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        default=(0.9, 0.999), description="adamw only"
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="sgd only")
    nesterov: bool = Field(default=True, description="sgd only; needs momentum")

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Optimizer:
        if self.kind == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0; set nesterov=false or momentum=0.9")
        return self


class Schedule(_Strict):
    """The learning rate over a stage; u = 0..1 is the share of the stage after the warm-up.

    ========  =============================================
    constant  1
    poly      (1 - u) ** power
    cosine    (1 + cos(pi u)) / 2
    step      gamma ** (number of ``milestones`` <= u)
    ========  =============================================

    The factor is scaled to fall to ``floor`` instead of 0. It rises linearly to 1 during the first ``warmup`` steps.
    """

    kind: Literal["constant", "poly", "cosine", "step"] = "cosine"
    warmup: int = Field(default=0, ge=0, description="steps")
    floor: float = Field(default=0.0, ge=0, le=1, description="lowest factor; no effect on step and constant")
    power: float = Field(default=0.9, gt=0, description="poly only")
    milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(default=(0.6, 0.9), description="step only")
    gamma: float = Field(default=0.1, gt=0, le=1, description="step only")


class Stage(_Strict):
    """One part of a run: loss, length and trainable parameters.

    Attributes:
        trains: prefixes of parameter names (``"change_decoder"``); other parameters are frozen, and frozen
            normalisation layers keep their statistics. Parts that the model does not have are ignored. Empty: train
            all parameters.
        optimizer: overrides that of the run.
        schedule: overrides that of the run.
    """

    name: str = "train"
    loss: LossName = "ding"
    epochs: float | None = Field(default=None, gt=0, description="passes over the data; alternative to steps")
    steps: int | None = Field(default=None, gt=0, description="optimizer steps; alternative to epochs")
    trains: tuple[str, ...] = ()
    optimizer: Optimizer | None = None
    schedule: Schedule | None = None
    select: str | None = Field(
        default=None,
        description="score that selects the best weights of a stage before the last; None: binary.f1 for the losses "
        "change and change-dice, otherwise that of the run",
    )

    @model_validator(mode="after")
    def _one_length(self) -> Stage:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("a stage needs either epochs or steps")
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
    """Augmentation of pairs: see `wasnow.data.transforms.Augment`."""

    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (1.0, 1.0)
    flips: bool = True
    quarter_turns: bool = True
    swap: float = Field(default=0.5, ge=0, le=1, description="probability that the dates are swapped")
    light: Light | None = None
    shift_px: float = Field(default=0.0, ge=0, le=16, description="largest displacement of the second image, in pixels")
    camera: Camera | None = None

    @model_validator(mode="after")
    def _rising(self) -> Augmentation:
        if self.scale[0] > self.scale[1]:
            raise ValueError(
                f"scale {self.scale[0]:g} to {self.scale[1]:g} is not increasing; write for example [0.8, 1.25]"
            )
        return self


class TrainConfig(_Strict):
    """A training run. The defaults suit a first trial on one GPU."""

    name: str = Field(description="name of the recipe")
    summary: str = ""
    source: str = Field(default="", description="publication of these settings")

    model: str = Field(description="see wasnow models")
    model_options: dict[str, Any] = Field(default_factory=dict)
    start: str | None = Field(
        default=None,
        description="initial weights: a checkpoint (or the included semantic-cd-mini), a published encoder (ResNet-34, "
        "EfficientNet-B0, VMamba, SegFormer), or CLIP weights (wasnow weights); None: random",
    )

    data: str | None = Field(default=None, description="dataset folder, if the command line has none")
    encoding: str | None = Field(default=None, description="class encoding, if it cannot be inferred from the values")
    tile: int | None = Field(default=None, ge=8, description="cut the images into tiles of this size")
    split: str | None = Field(default=None, description="text file with the ids of the training folder that form val")
    priors: str | None = Field(
        default=None, description="prior folder (wasnow priors), labels, or none; for a model with prior masks"
    )
    output: str | None = Field(default=None, description="run folder, if the command line has none")

    crop: int = Field(default=256, ge=8, description="size of the training crops, in pixels")
    augment: Augmentation = Augmentation()
    batch_size: int = Field(default=8, ge=1, description="pairs per optimizer step, over all devices")
    accumulate: int = Field(default=1, ge=1, description="micro-batches per batch, to save memory")
    seed: int = Field(default=0, ge=0, lt=2**63)
    workers: int = Field(default=2, ge=0, description="loader processes; results do not depend on it")

    stages: tuple[Stage, ...]
    continue_from: Literal["last", "best"] = Field(
        default="last", description="weights of a stage that the next stage starts from"
    )
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    clip: float | None = Field(default=None, gt=0, description="largest gradient norm")
    ema: float | None = Field(
        default=None, gt=0, lt=1, description="decay of the averaged weights that are validated and saved"
    )
    # YAML parses 32 as a number.
    precision: Annotated[Literal["32", "bf16"], BeforeValidator(lambda value: "32" if value == 32 else value)] = "32"
    checkpointing: bool = Field(
        default=False, description="recompute activations for the gradient instead of storing them"
    )
    cache_features: bool = Field(
        default=False,
        description="cache the features of a frozen encoder on disk; no colour or scale augmentation",
    )
    dense: bool = Field(
        default=False,
        description="also learn the classes of unchanged pixels, if the labels have them",
    )
    leave_out: tuple[str, ...] = Field(
        default=(), description="class words withheld from training and validation; changed pixels stay changed"
    )

    validate_every: int | None = Field(
        default=None, ge=1, description="steps between validations; None: once per epoch"
    )
    save_every: int | None = Field(default=None, ge=1, description="steps between states; None: at each validation")
    log_every: int = Field(default=10, ge=1, description="steps between rows of log.csv")
    select: str | None = Field(
        default=None,
        description="score that selects the best weights; None: stacked.score, or binary.f1 without classes",
    )
    holdback: float = Field(
        default=0.1, ge=0, lt=1, description="share of the training pairs to validate on if there is no val split"
    )
    samples: int = Field(default=4, ge=0, description="validation pairs shown on the report page")
    tensorboard: bool = False

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = Field(default=1, ge=1, description="number of devices, one process each (DDP)")

    @model_validator(mode="after")
    def _whole(self) -> TrainConfig:
        if not self.stages:
            raise ValueError("a run needs at least one stage")
        parts = self.accumulate * self.devices
        if self.batch_size % parts:
            raise ValueError(
                f"batch_size={self.batch_size} is not a multiple of accumulate * devices = {parts}; "
                f"use batch_size={-(-self.batch_size // parts) * parts}"
            )
        return self

    def identity(self) -> dict[str, Any]:
        """Return the settings that the weights depend on, as plain JSON values. A resumed run must match them."""
        values = self.model_dump(mode="json", exclude=_NO_INFLUENCE)
        # Runs from before these settings existed have the same identity.
        if self.continue_from == "last":
            del values["continue_from"]
        for stage in values["stages"]:
            if stage["select"] is None:
                del stage["select"]
        return values


_NO_INFLUENCE = {
    *("data", "priors", "output", "workers", "log_every", "save_every", "tensorboard", "samples", "summary", "source")
}
"""Settings that a resumed run may change. The path of prior masks is one; their content is recorded separately."""
