"""SSCD-l: one encoder for both dates, late fusion, three heads.

L. Ding et al., "Bi-temporal semantic reasoning for the semantic change detection in HR remote sensing images", IEEE
Transactions on Geoscience and Remote Sensing 60, 2022: the baseline of Bi-SRNet.

    before ─ ResNet-34, stride 8 ─ 128 ─┬─────────────────────────> 1x1 ─> 1 + K  classes before
                                        ├─ concat ─ 6 blocks ─ 128 ─ 64 ─> 1      change
    after  ─ the same            ─ 128 ─┴─────────────────────────> 1x1 ─> 1 + K  classes after

The network is not symmetric in time: the change branch reads the dates in order, and each date has its own classifier.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from wasnow.models.contract import ChangeLogits
from wasnow.models.fixed_vocabulary import FixedVocabularyNetwork
from wasnow.nn.layers import resize
from wasnow.nn.three_branches import STRIDE, ChangeBranch, Encoder, class_head
from wasnow.vocabulary import SECOND_WORDS as SECOND_WORDS


class SSCDL(FixedVocabularyNetwork):
    """The network, with random weights until a checkpoint or `convert` provides others: a `ChangeModel`.

    Args:
        classes: the class words, in logit order.
        normalisation: of `NORMALISATIONS`; ``imagenet`` for training from ImageNet weights or from scratch, ``second``
            for the published weights.

    Raises:
        VocabularyError: no class words, or one is empty or occurs twice.
        UsageError: unknown normalisation.
    """

    name = "sscd-l"
    source = "Ding et al. 2022, IEEE TGRS 60, doi:10.1109/TGRS.2022.3154390"
    stride = STRIDE
    receptive_field = 340

    def __init__(self, classes: Sequence[str] = SECOND_WORDS, *, normalisation: str = "imagenet") -> None:
        super().__init__(classes, normalisation)
        self.encoder = Encoder()
        self.change = ChangeBranch()
        self.classes_before = class_head(len(self.classes))
        self.classes_after = class_head(len(self.classes))

    def forward(self, before: Tensor, after: Tensor, valid: Tensor | None = None) -> ChangeLogits:
        """Predict a batch of any height and width; tensors are moved to the device of the weights.

        Args:
            before: ``(B, 3, H, W)``, red, green and blue in 0..1.
            after: ``(B, 3, H, W)``, the second date.
            valid: ignored.
        """
        first = self.encoder(self.normalise(before, "before"))
        second = self.encoder(self.normalise(after, "after"))
        return ChangeLogits(
            change=resize(self.change(first, second), before.shape[-2:]),
            before=resize(self.classes_before(first), before.shape[-2:]),
            after=resize(self.classes_after(second), after.shape[-2:]),
            unchanged_channel=True,
        )
