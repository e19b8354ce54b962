"""SSCD-l: change and classes from one encoder for both dates, joined late.

L. Ding et al., "Bi-temporal semantic reasoning for the semantic change detection in HR remote sensing images", IEEE
Transactions on Geoscience and Remote Sensing 60, 2022: the baseline that Bi-SRNet builds on.

    before ─ ResNet-34, stride 8 ─ 128 ─┬─────────────────────────> 1x1 ─> 1 + K  classes before
                                        ├─ concat ─ 6 blocks ─ 128 ─ 64 ─> 1      change
    after  ─ the same            ─ 128 ─┴─────────────────────────> 1x1 ─> 1 + K  classes after

Nothing here is symmetric in time: the change branch reads the dates in order, and each date has its own classifier.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from wasnow.models.contract import ChangeLogits
from wasnow.models.fixed_vocabulary import FixedVocabularyNetwork
from wasnow.nn.three_branches import STRIDE, ChangeBranch, Encoder, class_head, enlarge
from wasnow.vocabulary import SECOND_WORDS as SECOND_WORDS


class SSCDL(FixedVocabularyNetwork):
    """The network, with random weights until a checkpoint or `convert` brings others: a `ChangeModel`.

    Args:
        classes: the words that it answers with, in logit order.
        normalisation: of `NORMALISATIONS`; ``imagenet`` for training from ImageNet weights or from none, and
            ``second`` for the published weights.

    Raises:
        VocabularyError: there are no words, or one is empty or there twice.
        UsageError: no normalisation has that name.
    """

    name = "sscd-l"
    source = "Ding et al. 2022, IEEE TGRS 60, doi:10.1109/TGRS.2022.3154390"
    stride = STRIDE

    def __init__(self, classes: Sequence[str] = SECOND_WORDS, *, normalisation: str = "imagenet") -> None:
        super().__init__(classes, normalisation)
        self.encoder = Encoder()
        self.change = ChangeBranch()
        self.classes_before = class_head(len(self.classes))
        self.classes_after = class_head(len(self.classes))

    def forward(self, before: Tensor, after: Tensor, valid: Tensor | None = None) -> ChangeLogits:
        """Answer a batch of any height and width; it is taken to the device of the weights.

        Args:
            before: ``(B, 3, H, W)``, red, green and blue in 0..1.
            after: likewise.
            valid: not looked at.
        """
        first = self.encoder(self.normalise(before, "before"))
        second = self.encoder(self.normalise(after, "after"))
        return ChangeLogits(
            change=enlarge(self.change(first, second), like=before),
            before=enlarge(self.classes_before(first), like=before),
            after=enlarge(self.classes_after(second), like=after),
            unchanged_channel=True,
        )
