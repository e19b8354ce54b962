"""Preparation of a run: withheld classes, prior masks, gradient checkpointing and augmentation."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from lightning_fabric import Fabric
from torch import nn

from wasnow.data.transforms import Augment, ColorJitter, SensorJitter
from wasnow.errors import UsageError
from wasnow.models.contract import ChangeModel, Checkpointing
from wasnow.priors import samples as prior_samples
from wasnow.training.config import TrainConfig
from wasnow.training.loader import Transform
from wasnow.training.logging import TrainingLogger
from wasnow.training.roles import DataRoles
from wasnow.training.withheld import WithheldWords
from wasnow.vocabulary import join_words

if TYPE_CHECKING:
    from wasnow.priors.store import PairMasks


def withhold(roles: DataRoles, words: tuple[str, ...]) -> DataRoles:
    """Return the same pairs without the labels of some class words, which the descriptions then mention.

    Raises:
        UsageError: a word is not a class of the data, or no class would remain.
    """
    if not words:
        return roles
    remark = f"without {join_words(words)}"
    return replace(
        roles,
        train=WithheldWords(roles.train, words),
        select=None if roles.select is None else WithheldWords(roles.select, words),
        trained_on=f"{roles.trained_on}, {remark}",
        selected_on=roles.selected_on if roles.select is None else f"{roles.selected_on}, {remark}",
    )


def with_priors(
    model: nn.Module, roles: DataRoles, priors: PairMasks | None, logger: TrainingLogger
) -> tuple[DataRoles, dict[str, Any] | None]:
    """Return the pairs with the prior masks that a model needs, and the origin of the masks.

    Args:
        model: a `ChangeModel`; pairs are unchanged for a model without prior masks.
        roles: training and selection pairs.
        priors: masks of the pairs.
        logger: receives a message if masks are not used.

    Raises:
        UsageError: the model needs masks and there are none.
        VocabularyError: the masks have other words than the model needs.
    """
    network = cast(ChangeModel, model)
    if not network.card.wants_priors and priors is not None:
        logger.message(f"{network.card.name} uses no prior masks with these options: --priors is ignored")
    train, masks = prior_samples.with_priors(network, roles.train, roles.train_split, priors)
    select = (
        None
        if roles.select is None
        else prior_samples.with_priors(network, roles.select, roles.select_split, priors)[0]
    )
    return replace(roles, train=train, select=select), None if masks is None else masks.origin


def enable_checkpointing(model: nn.Module, name: str) -> None:
    """Make a model recompute activations for the gradient instead of storing them.

    Raises:
        UsageError: the model has no gradient checkpointing.
    """
    if not isinstance(model, Checkpointing):
        raise UsageError(f"{name} has no gradient checkpointing; use --set accumulate=2 to save memory")
    model.checkpointing = True


def augmentation(config: TrainConfig) -> Transform:
    """Return the augmentation of a recipe."""
    settings = config.augment
    return Augment(
        crop=config.crop,
        scale=settings.scale,
        flips=settings.flips,
        quarter_turns=settings.quarter_turns,
        swap=settings.swap,
        light=None if settings.light is None else ColorJitter(**settings.light.model_dump()),
        shift_px=settings.shift_px,
        camera=None if settings.camera is None else SensorJitter(**settings.camera.model_dump()),
    )


def share_batch_norm(model: nn.Module, fabric: Fabric, logger: TrainingLogger) -> nn.Module:
    """Return the model with batch normalisation over all devices where torch can; otherwise say that it cannot.

    Args:
        model: the network.
        fabric: the devices.
        logger: receives the message.
    """
    if fabric.world_size == 1:
        return model
    if fabric.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call,no-any-return]
    if any(isinstance(one, nn.modules.batchnorm._BatchNorm) for one in model.modules()):
        logger.message("batch normalisation is not shared between CPU processes: results differ from one process")
    return model
