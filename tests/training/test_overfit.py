"""SSCD-l from random weights learns eight real pairs by heart: data, loss, training and scores fit together.

Several minutes on two cores: ``make test-all``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from making import needs_real
from wasnow.data.mask_folder import open_masks
from wasnow.data.pairs import GeneratedPairs, PairRecipe
from wasnow.data.samples import Sample
from wasnow.evaluation import evaluate
from wasnow.models import checkpoint
from wasnow.training.config import Augmentation, Optimizer, Schedule, Stage, TrainConfig
from wasnow.training.trainer import train
from wasnow.vocabulary import Vocabulary


@dataclass(frozen=True)
class Few:
    """Samples in memory."""

    samples: Sequence[Sample]
    vocabulary: Vocabulary
    fingerprint: str = "eight made pairs"

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]

    @property
    def names(self) -> list[str]:
        return [sample.name for sample in self.samples]


def eight_pairs(folder: Path) -> Few:
    """Pairs in which one large segment changed; small ones would ask for outlines finer than the network's stride 8."""
    masks = open_masks(folder)
    recipe = PairRecipe(
        size=64, transplant=1.0, segments=(1, 1), segment_share=(0.25, 0.45), light=None, noise=0.0, shift_px=0.0
    )
    made = GeneratedPairs(masks, 64, seed=3, recipe=recipe)
    changed = [sample for sample in made if sample.change is not None and (sample.change == 1).mean() > 0.15]
    return Few(changed[:8], masks.vocabulary)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_sscd_l_learns_eight_pairs_by_heart(tmp_path: Path) -> None:
    pairs = eight_pairs(needs_real("dubai-landcover"))
    config = TrainConfig(
        name="by-heart",
        model="sscd-l",
        crop=64,
        augment=Augmentation(flips=False, quarter_turns=False, swap=0.0),
        batch_size=8,
        workers=0,
        stages=(Stage(loss="ding", steps=260),),
        optimizer=Optimizer(kind="adamw", lr=1e-3, weight_decay=0.0),
        schedule=Schedule(kind="step", warmup=10, milestones=(0.75,)),
        holdback=0.0,
    )
    trained = train(config, {"train": pairs}, tmp_path / "run")
    scores = evaluate(checkpoint.load(trained.checkpoint), pairs, resamples=0).scores.headline()
    print(scores)
    assert scores["stacked.fscd"] > 0.95
