"""The runs that come with wasnow: functions that return a `TrainConfig`, in a literal dict.

Write your own as YAML (``extends: sscd-l``, then what differs) or change single settings with ``--set``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from wasnow.errors import UsageError, did_you_mean
from wasnow.training.config import (
    Augmentation,
    Camera,
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
    50 epochs; flips and quarter turns. The authors began with an encoder trained on ImageNet: give one with
    ``start`` (docs/recipes.md says which files).
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


def semantic_cd_second() -> TrainConfig:
    """Semantic-CD on SECOND as published: change first, then classes, CLIP frozen throughout (section II-F).

    Batch 1, whole images of 512 px, 300 epochs for filters and change decoder, 5 for prompter and class decoder, from
    RemoteCLIP ViT-L/14. The paper does not say its optimizer, schedule and augmentation: AdamW 1e-4 with decay 0.05,
    warm-up and cosine, flips, quarter turns, light, and dates swapped are ours.
    """
    return TrainConfig(
        name="semantic-cd-second",
        summary="Semantic-CD on SECOND as published: change, then classes",
        source="Zhu et al., Semantic-CD, arXiv 2501.06808, section II-F; what it does not say is ours",
        model="semantic-cd",
        start="remoteclip-vit-l-14",
        crop=512,
        augment=Augmentation(swap=0.5, light=_SLIGHT),
        batch_size=1,
        stages=(
            Stage(name="change", loss="change", epochs=300, trains=("filters", "change_decoder")),
            Stage(name="classes", loss="classes", epochs=5, trains=("prompter", "class_decoder")),
        ),
        optimizer=Optimizer(kind="adamw", lr=1e-4, weight_decay=0.05),
        schedule=Schedule(kind="cosine", warmup=1000),
    )


def semantic_cd_baseline() -> TrainConfig:
    """What Semantic-CD is compared with in its paper: the same network without prompter, cost volume and words.

    Its classes are fixed, and their decoder trains for 100 epochs instead of 5, as the paper says.
    """
    published = semantic_cd_second()
    change, classes = published.stages
    return published.model_copy(
        update={
            "name": "semantic-cd-baseline",
            "summary": "Semantic-CD's baseline on SECOND as published: no prompter, fixed classes",
            "model_options": {"prompter": "none"},
            "stages": (change, classes.model_copy(update={"epochs": 100})),
        }
    )


def semantic_cd_practical() -> TrainConfig:
    """Semantic-CD on one GPU: the published stages in bfloat16, batches of 16, far fewer epochs.

    Not published anywhere, and not run to its end by us. Blocks are computed again for the gradient instead of being
    kept, a batch goes through in four parts, and the average of the weights is what is kept.
    """
    return semantic_cd_second().model_copy(
        update={
            "name": "semantic-cd-practical",
            "summary": "Semantic-CD, both stages, shorter: bf16, batches of 16, gradient checkpointing",
            "source": "wasnow",
            "batch_size": 16,
            "accumulate": 4,
            "precision": "bf16",
            "checkpointing": True,
            "stages": (
                Stage(name="change", loss="change", epochs=50, trains=("filters", "change_decoder")),
                Stage(name="classes", loss="classes", epochs=10, trains=("prompter", "class_decoder")),
            ),
            "optimizer": Optimizer(kind="adamw", lr=4e-4, weight_decay=0.05),
            "schedule": Schedule(kind="cosine", warmup=200, floor=0.01),
            "clip": 1.0,
            "ema": 0.998,
        }
    )


def semantic_cd_small() -> TrainConfig:
    """Semantic-CD with small towers that know nothing beforehand: everything trains, in one stage, on a patient CPU.

    Not published anywhere. Without a CLIP that was trained on pictures and texts, words are no more than names: the
    vocabulary is open in form, and knows the words of the data alone.
    """
    return TrainConfig(
        name="semantic-cd-small",
        summary="Semantic-CD with small towers from scratch, for a CPU or to try things out",
        source="wasnow",
        model="semantic-cd",
        model_options={
            "clip": {
                "image_width": 192,
                "image_layers": 8,
                "image_heads": 3,
                "patch": 16,
                "image_size": 224,
                "image_mlp": 768,
                "text_width": 128,
                "text_layers": 4,
                "text_heads": 2,
                "text_mlp": 512,
                "text_positions": 77,
                "vocabulary": 49408,
                "embed": 128,
                "activation": "gelu",
                "eps": 1e-5,
            },
            "context": 16,
            "width": 128,
            "head_width": 64,
            "filter_grid": [16, 16],
        },
        crop=256,
        augment=Augmentation(swap=0.5, light=Light()),
        batch_size=8,
        stages=(Stage(name="joint", loss="joint", steps=2000),),
        optimizer=Optimizer(kind="adamw", lr=5e-4, weight_decay=0.05),
        schedule=Schedule(kind="cosine", warmup=100, floor=0.01),
        clip=1.0,
        ema=0.998,
        validate_every=250,
    )


def semantic_cd_mini() -> TrainConfig:
    """The model that comes with wasnow, as it was trained: see mini/README.md, and ``make mini`` for the whole.

    Everything trains in one stage, from an ImageNet tower (``start``). Two dates of one place are never seen alike:
    light, sky, camera, scale and alignment all differ. For own data, ``start=semantic-cd-mini`` goes on from the
    weights that come with wasnow.
    """
    return TrainConfig(
        name="semantic-cd-mini",
        summary="the small Semantic-CD that comes with wasnow",
        source="wasnow",
        model="semantic-cd-mini",
        crop=256,
        augment=Augmentation(
            scale=(0.6, 1.8),
            swap=0.5,
            light=Light(brightness=0.15, contrast=0.35, gamma=0.45, color=0.12, saturation=0.5),
            shift_px=2.5,
            camera=Camera(),
        ),
        dense=True,
        batch_size=4,
        stages=(
            # The first three blocks see edges and colours, which ImageNet taught them, and take a sixth of the time.
            Stage(
                name="joint",
                loss="joint",
                steps=2400,
                trains=(
                    *(f"tower._blocks.{number}." for number in range(3, 16)),
                    "filters",
                    "pyramid",
                    "words",
                    "places",
                    "scale",
                    "class_decoder",
                    "change_decoder",
                    "agree",
                ),
            ),
        ),
        optimizer=Optimizer(kind="adamw", lr=5e-4, weight_decay=0.02),
        schedule=Schedule(kind="cosine", warmup=150, floor=0.005),
        clip=1.0,
        ema=0.998,
        validate_every=1200,
        select="binary.f1",
    )


def sam_cd_levir() -> TrainConfig:
    """SAM-CD on LEVIR-CD, as far as its abstract tells: one stage, cross-entropy on change, crops of 256 px.

    The abstract names no numbers. AdamW 1e-4, warm-up and cosine, 100 epochs of 8 crops, light and dates swapped are
    ours; so is that local features are kept in the masks, without which masks gave nothing (docs/decisions/0015). The
    encoder begins at random unless ``start`` names weights; from scratch ``optimizer.lr=5e-4``, ``ema=0.998`` and
    ``stages.0.loss=change-dice`` serve better.
    """
    return TrainConfig(
        name="sam-cd-levir",
        summary="SAM-CD, reconstructed, on LEVIR-CD: change of buildings",
        source="SAM-CD (ICASSP 2024), of which only the abstract is public; the numbers are ours",
        model="sam-cd",
        model_options={"words": ["building"], "local": "inside", "empty": "zero"},
        crop=256,
        augment=Augmentation(swap=0.5, light=Light()),
        batch_size=8,
        stages=(Stage(name="change", loss="change", epochs=100),),
        optimizer=Optimizer(kind="adamw", lr=1e-4, weight_decay=0.01),
        schedule=Schedule(kind="cosine", warmup=500, floor=0.01),
        clip=1.0,
        select="binary.f1",
    )


def hrscd() -> TrainConfig:
    """HRSCD, strategy 4, one task after the other: land cover first, then change with the land cover frozen.

    Caye Daudt et al. (2019) found this order best, as no weight between two losses has to be chosen. Their rates were
    not to be had: those of `sscd_l`, with which Ding et al. (2022) trained it for comparison, stand here, for half of
    the 50 epochs each. On SECOND the land cover is labelled on changed pixels alone.
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

    The library holds no recipe for it, and the paper's rates were not to be had: SGD 0.03 with momentum 0.9 and weight
    decay 1e-4, poly 0.9, batches of 16 crops of 256 px and 15,000 steps are ours. The authors began with an encoder
    trained on ImageNet: give one with ``start`` (docs/recipes.md says which files).
    """
    return TrainConfig(
        name="changemask",
        summary="ChangeMask on SECOND: the published loss, our rates",
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
    """TED on SECOND as published by Ding et al. (2024): as `sscd_l` in every number but the network."""
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

    Their code begins to use pseudo-labels once the validation F1 of classes has passed 0.3, and has the best network so
    far make them, averaged over flips. Here they begin after 5 of the 50 epochs, and the network makes its own. The
    rate is theirs throughout: the second stage goes on where poly 1.5 over all 50 epochs stands after 5, and the first
    falls to there along a line which that curve leaves by less than 0.1 %.
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

    The abstract says "multi-task loss" and no numbers: these are those of `common`, with the losses summed.
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
    """MambaSCD on SECOND as published by Chen et al. (2024): its own loss, and a rate that is halved.

    AdamW 1e-4 with weight decay 5e-3, halved every 10,000 of 50,000 steps, batches of 16 crops of 512 px. Flips and
    quarter turns are ours. The authors began with VMamba trained on ImageNet: give one with ``start``.
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
    """One recipe for all networks that answer with change and classes, to compare them: ``--set model=ted``.

    Same crops, light, exchange of dates, loss, optimizer, schedule and number of steps, from random weights; what
    differs is the network alone. No method gets its own tricks, so no published score comes out of it. The other loss
    that all can learn from is one setting: ``stages.0.loss=changemamba``.
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


_SLIGHT = Light(brightness=0.05, contrast=0.1, gamma=0.1, color=0.03, saturation=0.1)
"""Less than the customary change of light: a frozen CLIP knows the light of photographs already."""

RECIPES: Mapping[str, Callable[[], TrainConfig]] = {
    "sscd-l": sscd_l,
    "bisrnet": bisrnet,
    "sscd-l-small": sscd_l_small,
    "semantic-cd-second": semantic_cd_second,
    "semantic-cd-baseline": semantic_cd_baseline,
    "semantic-cd-practical": semantic_cd_practical,
    "semantic-cd-small": semantic_cd_small,
    "semantic-cd-mini": semantic_cd_mini,
    "sam-cd-levir": sam_cd_levir,
    "hrscd": hrscd,
    "changemask": changemask,
    "ted": ted,
    "scannet": scannet,
    "smnet": smnet,
    "mamba-scd": mamba_scd,
    "common": common,
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
