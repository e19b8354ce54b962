"""Recipes of the comparison methods, and the common recipe for equal budgets."""

from __future__ import annotations

from wasnow.training.config import Augmentation, Light, Optimizer, Schedule, Stage, TrainConfig


def sscd_l() -> TrainConfig:
    """SSCD-l on SECOND as published by Ding et al. (2022): the whole network, one stage.

    SGD 0.1 with Nesterov momentum 0.9 and weight decay 5e-4, poly 1.5 down to 0, batches of 8 whole images of 512 px,
    50 epochs; flips and quarter turns. The authors started from an encoder pretrained on ImageNet: set one with
    ``start`` (docs/recipes.md lists the files).
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
    """Bi-SRNet on SECOND as published by Ding et al. (2022): as `sscd_l` with another network."""
    return sscd_l().model_copy(
        update={"name": "bisrnet", "summary": "Bi-SRNet on SECOND as published", "model": "bisrnet"}
    )


def sscd_l_small() -> TrainConfig:
    """SSCD-l for a first model on own data: small crops, colour jitter, AdamW with warm-up, averaged weights.

    Not published: chosen to be robust. It needs no pretrained encoder and fits a GPU of 8 GB, or a CPU with
    ``--set crop=128``.
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


def hrscd() -> TrainConfig:
    """HRSCD, strategy 4: land cover first, then change with the land cover frozen.

    Caye Daudt et al. (2019) found this order best, because no weight between two losses is needed. Their learning rates
    were not available: the settings are those of `sscd_l`, which Ding et al. (2022) used for the comparison, with half
    of the 50 epochs per stage. On SECOND the land cover is labelled on changed pixels only.
    """
    return sscd_l().model_copy(
        update={
            "name": "hrscd",
            "summary": "HRSCD, strategy 4: land cover, then change",
            "source": "Caye Daudt et al., CVIU 187, 2019, section 4, the order; Ding et al. 2022, the numbers",
            "model": "hrscd",
            "stages": (
                Stage(name="classes", loss="classes", epochs=25, trains=("land_encoder", "land_decoder")),
                Stage(name="change", loss="change", epochs=25, trains=("change_encoder", "change_decoder")),
            ),
        }
    )


def changemask() -> TrainConfig:
    """ChangeMask with the loss of its authors' library: cross-entropy and Dice of every branch, and their agreement.

    The library has no recipe for it, and the learning rates of the paper were not available: SGD 0.03 with momentum 0.9
    and weight decay 1e-4, poly 0.9, batches of 16 crops of 256 px and 15,000 steps are ours. The authors started from
    an encoder pretrained on ImageNet: set one with ``start`` (docs/recipes.md lists the files).
    """
    return TrainConfig(
        name="changemask",
        summary="ChangeMask on SECOND: the published loss, our learning rates",
        source="Zheng et al., ISPRS JPRS 183, 2022, and torchange, the loss; the other numbers are ours",
        model="changemask",
        crop=256,
        augment=Augmentation(scale=(0.75, 1.33), swap=0.5),
        batch_size=16,
        stages=(Stage(loss="changemask", steps=15_000),),
        optimizer=Optimizer(kind="sgd", lr=0.03, momentum=0.9, nesterov=False, weight_decay=1e-4),
        schedule=Schedule(kind="poly", power=0.9),
    )


def ted() -> TrainConfig:
    """TED on SECOND as published by Ding et al. (2024): as `sscd_l` with another network."""
    return sscd_l().model_copy(
        update={
            "name": "ted",
            "summary": "TED on SECOND as published",
            "source": "Ding et al., Joint Spatio-Temporal Modeling, IEEE TGRS 62, 2024, section IV, and their code",
            "model": "ted",
        }
    )


def scannet() -> TrainConfig:
    """SCanNet on SECOND as published by Ding et al. (2024): as `ted`, with margin 0.1 and pseudo-labels.

    Their code uses pseudo-labels once the validation F1 of classes exceeds 0.3, from the best network so far, averaged
    over flips. Here they start after 5 of the 50 epochs and come from the network in training. The learning rate is
    theirs: the second stage continues poly 1.5 over all 50 epochs from epoch 5, and the first stage decreases linearly
    to that value, within 0.1 % of the curve.
    """
    labelled, epochs, power = 5, 50, 1.5
    reached = (1 - labelled / epochs) ** power
    start = ted()
    return start.model_copy(
        update={
            "name": "scannet",
            "summary": "SCanNet on SECOND: pseudo-labels for unchanged pixels after 5 epochs",
            "model": "scannet",
            "stages": (
                Stage(
                    name="labels",
                    loss="scannet",
                    epochs=labelled,
                    schedule=Schedule(kind="poly", power=1.0, floor=reached),
                ),
                Stage(
                    name="pseudo",
                    loss="scannet-pseudo",
                    epochs=epochs - labelled,
                    optimizer=start.optimizer.model_copy(update={"lr": start.optimizer.lr * reached}),
                ),
            ),
        }
    )


def smnet() -> TrainConfig:
    """SMNet, reconstructed, on SECOND: cross-entropy of change and classes, from scratch.

    The abstract says "multi-task loss" without numbers: the settings are those of `common`, with the losses summed.
    """
    return common().model_copy(
        update={
            "name": "smnet",
            "summary": "SMNet, reconstructed, on SECOND",
            "source": "after Niu et al., Remote Sensing 15(4), 949, 2023; the numbers are ours",
            "model": "smnet",
            "stages": (Stage(loss="joint", steps=10_000),),
        }
    )


def mamba_scd() -> TrainConfig:
    """MambaSCD on SECOND as published by Chen et al. (2024): its own loss, with a halving learning rate.

    AdamW 1e-4 with weight decay 5e-3, halved every 10,000 of 50,000 steps, batches of 16 crops of 512 px. Flips and
    quarter turns are ours. The authors started from VMamba pretrained on ImageNet: set one with ``start``.
    """
    return TrainConfig(
        name="mamba-scd",
        summary="MambaSCD on SECOND as published; --set model.size=small or base",
        source="Chen et al., ChangeMamba, IEEE TGRS 62, 2024, and its code",
        model="mamba-scd",
        crop=512,
        augment=Augmentation(swap=0.0),
        batch_size=16,
        stages=(Stage(loss="changemamba", steps=50_000),),
        optimizer=Optimizer(kind="adamw", lr=1e-4, weight_decay=5e-3),
        schedule=Schedule(kind="step", milestones=(0.2, 0.4, 0.6, 0.8), gamma=0.5),
    )


def common() -> TrainConfig:
    """One recipe to compare all networks with change and classes: ``--set model=ted``.

    Crops, augmentation, loss, optimizer, schedule and steps are equal, from random weights; only the network differs.
    No method has its own training details, so published scores are not reproduced. The other loss that suits all
    networks is ``stages.0.loss=changemamba``.
    """
    return TrainConfig(
        name="common",
        summary="any network, all else equal, for comparison: --set model=NAME",
        source="wasnow",
        model="sscd-l",
        crop=256,
        augment=Augmentation(swap=0.5, light=Light()),
        batch_size=8,
        stages=(Stage(loss="ding", steps=10_000),),
        optimizer=Optimizer(kind="adamw", lr=5e-4, weight_decay=1e-2),
        schedule=Schedule(kind="cosine", warmup=200, floor=0.01),
        clip=1.0,
        ema=0.998,
    )
