"""Recipes of Semantic-CD and SAM-CD."""

from __future__ import annotations

from wasnow.training.config import Augmentation, Camera, Light, Optimizer, Schedule, Stage, TrainConfig

_WEAK_JITTER = Light(brightness=0.05, contrast=0.1, gamma=0.1, color=0.03, saturation=0.1)
"""Weaker colour jitter than usual: a frozen CLIP is already robust to colour."""


def semantic_cd_second() -> TrainConfig:
    """Semantic-CD on SECOND as published: change first, then classes, CLIP frozen throughout (section II-F).

    Batch 1, whole images of 512 px, 300 epochs for filters and change decoder, 5 for prompter and class decoder, from
    RemoteCLIP ViT-L/14. The paper does not state optimizer, schedule and augmentation: AdamW 1e-4 with decay 0.05,
    warm-up and cosine, flips, quarter turns, colour jitter and swapped dates are ours. The class loss is divided by all
    pixels, as in eq. 6; ``stages.1.loss=classes`` divides by the labelled ones.
    """
    return TrainConfig(
        name="semantic-cd-second",
        summary="Semantic-CD on SECOND as published: change, then classes",
        source="Zhu et al., Semantic-CD, arXiv 2501.06808, section II-F; details that it does not state are ours",
        model="semantic-cd",
        start="remoteclip-vit-l-14",
        crop=512,
        augment=Augmentation(swap=0.5, light=_WEAK_JITTER),
        batch_size=1,
        stages=(
            Stage(name="change", loss="change", epochs=300, trains=("filters", "change_decoder")),
            Stage(name="classes", loss="classes-all-pixels", epochs=5, trains=("prompter", "class_decoder")),
        ),
        optimizer=Optimizer(kind="adamw", lr=1e-4, weight_decay=0.05),
        schedule=Schedule(kind="cosine", warmup=1000),
    )


def semantic_cd_baseline() -> TrainConfig:
    """The baseline of Semantic-CD in its paper: the network without prompter, cost volume and words.

    Its classes are fixed, and their decoder trains for 100 epochs instead of 5, as in the paper.
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

    Not published, and not run to completion by us. Activations are recomputed for the gradient, a batch is split into
    four micro-batches, and averaged weights are saved.
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
    """Semantic-CD with small random towers: all parameters train, in one stage, on a CPU.

    Not published. Without a pretrained CLIP, words are names without meaning: the model accepts any words and knows
    only those of the data.
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
    """The included model as it was trained: see mini/README.md, and ``make mini`` for all steps.

    One stage from an ImageNet tower (``start``). Colour, haze, sensor, scale and alignment differ between dates. For
    own data, ``start=semantic-cd-mini`` continues from the included weights.
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
            # The first three blocks detect edges and colours, learned on ImageNet, and would take a sixth of the time.
            Stage(
                name="joint",
                loss="joint",
                steps=2400,
                trains=(
                    *(f"tower._blocks.{number}." for number in range(3, 16)),
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
    """SAM-CD on LEVIR-CD as far as its abstract describes it: one stage, cross-entropy on change, crops of 256 px.

    The abstract has no numbers. AdamW 1e-4, warm-up and cosine, 100 epochs with batches of 8 crops, colour jitter and
    swapped dates are ours. So are local features inside the masks, without which masks had no effect
    (docs/decisions/0015). The encoder is random unless ``start`` names weights; from scratch ``optimizer.lr=5e-4``,
    ``ema=0.998`` and ``stages.0.loss=change-dice`` are better.
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
