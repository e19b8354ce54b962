"""The runs that come with wasnow: functions that return a `TrainConfig`, in a literal dict.

Write your own as YAML (``extends: sscd-l``, then what differs) or change single settings with ``--set``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from wasnow.errors import UsageError, did_you_mean
from wasnow.training.config import (
    Augmentation,
    Light,
    Optimizer,
    Schedule,
    Stage,
    TrainConfig,
    from_yaml,
    with_settings,
)


def sscd_l() -> TrainConfig:
    """SSCD-l on SECOND as published by Ding et al. (2022): the whole network, one stage.

    SGD 0.1 with Nesterov momentum 0.9 and weight decay 5e-4, poly 1.5 down to 0, batches of 8 whole images of 512 px,
    50 epochs; flips and quarter turns. The authors began with an encoder trained on ImageNet: give one with ``start``.
    """
    return TrainConfig(
        name="sscd-l",
        summary="SSCD-l on SECOND as published",
        source="Ding et al., Bi-Temporal Semantic Reasoning, IEEE TGRS 60, 2022, section IV-B, and their code",
        model="sscd-l",
        crop=512,
        augment=Augmentation(swap=0.0),
        batch_size=8,
        stages=(Stage(loss="ding", epochs=50),),
        optimizer=Optimizer(kind="sgd", lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
        schedule=Schedule(kind="poly", power=1.5),
    )


def bisrnet() -> TrainConfig:
    """Bi-SRNet on SECOND as published by Ding et al. (2022): as `sscd_l` in every number but the network."""
    return sscd_l().model_copy(
        update={"name": "bisrnet", "summary": "Bi-SRNet on SECOND as published", "model": "bisrnet"}
    )


def sscd_l_small() -> TrainConfig:
    """SSCD-l for a first model on own data: small crops in changing light, AdamW with warm-up, averaged weights.

    Not published anywhere: chosen to be forgiving. It needs no encoder trained beforehand, and fits a GPU of 8 GB, or a
    patient CPU with ``--set crop=128``.
    """
    return TrainConfig(
        name="sscd-l-small",
        summary="SSCD-l for a first model on own data, from scratch",
        source="wasnow",
        model="sscd-l",
        crop=256,
        augment=Augmentation(swap=0.5, light=Light()),
        batch_size=8,
        stages=(Stage(loss="ding", epochs=100),),
        optimizer=Optimizer(kind="adamw", lr=5e-4, weight_decay=1e-2),
        schedule=Schedule(kind="cosine", warmup=100, floor=0.01),
        clip=1.0,
        ema=0.998,
    )


RECIPES: Mapping[str, Callable[[], TrainConfig]] = {
    "sscd-l": sscd_l,
    "bisrnet": bisrnet,
    "sscd-l-small": sscd_l_small,
}


def recipe(name_or_path: str, settings: Iterable[str] = ()) -> TrainConfig:
    """A recipe by its name or from a YAML file, with settings.

    Raises:
        UsageError: no such recipe (with the nearest name), or a setting that cannot be meant.
        InputError: the file cannot be read.
    """
    if name_or_path in RECIPES:
        found = RECIPES[name_or_path]()
    elif Path(name_or_path).suffix.lower() in (".yaml", ".yml"):
        found = from_yaml(Path(name_or_path), {name: make() for name, make in RECIPES.items()})
    else:
        raise UsageError(
            f"no recipe is called {name_or_path!r}; known are {', '.join(RECIPES)}"
            f"{did_you_mean(name_or_path, list(RECIPES))}; or name a .yaml file"
        )
    return with_settings(found, settings)
