"""TED: three encoder-decoder branches; SSCD-l with output at stride 4 instead of 8.

L. Ding et al., "Joint spatio-temporal modeling for semantic change detection in remote sensing images", IEEE
Transactions on Geoscience and Remote Sensing 62, 2024, section III-A: the basis of SCanNet.

    before ─ ResNet-34 ─┬─────────── decoder ─ 128 ─> 1x1 ─> 1 + K  classes before
                        ├─ 6 blocks ─ decoder ─ 128 ─ 64 ──> 1      change
    after  ─ the same ──┴─────────── decoder ─ 128 ─> 1x1 ─> 1 + K  classes after

A decoder doubles the size of a deep map and joins it with the encoder's first stage (`wasnow.nn.three_maps`). The
network is not symmetric in time, see `sscd_l`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from wasnow.models.contract import ChangeLogits
from wasnow.models.fixed_vocabulary import FixedVocabularyNetwork
from wasnow.models.sscd_l import SECOND_WORDS
from wasnow.nn.layers import resize
from wasnow.nn.three_branches import STRIDE, class_head
from wasnow.nn.three_maps import ThreeMaps


class TED(FixedVocabularyNetwork):
    """The network, with random weights until a checkpoint or `convert` provides others: a `ChangeModel`.

    Args:
        classes: the class words, in logit order.
        normalisation: of `NORMALISATIONS`; ``imagenet`` for training from ImageNet weights or from scratch, ``second``
            for the published weights.

    Raises:
        VocabularyError: no class words, or one is empty or occurs twice.
        UsageError: unknown normalisation.
    """

    name = "ted"
    source = "Ding et al. 2024, IEEE TGRS 62, doi:10.1109/TGRS.2024.3362795"
    stride = STRIDE
    receptive_field = 342

    def __init__(self, classes: Sequence[str] = SECOND_WORDS, *, normalisation: str = "imagenet") -> None:
        super().__init__(classes, normalisation)
        self.maps = ThreeMaps()
        self.classes_before = class_head(len(self.classes))
        self.classes_after = class_head(len(self.classes))

    def forward(self, before: Tensor, after: Tensor, valid: Tensor | None = None) -> ChangeLogits:
        """Predict a batch of any height and width; tensors are moved to the device of the weights.

        Args:
            before: ``(B, 3, H, W)``, red, green and blue in 0..1.
            after: ``(B, 3, H, W)``, the second date.
            valid: ignored.
        """
        first, second, change = self.maps(self.normalise(before, "before"), self.normalise(after, "after"))
        return ChangeLogits(
            change=resize(self.maps.odds(change), before.shape[-2:]),
            before=resize(self.classes_before(first), before.shape[-2:]),
            after=resize(self.classes_after(second), after.shape[-2:]),
            unchanged_channel=True,
        )
