"""SAM 3: text to masks in one network.

    image ─ vision encoder ─┬─ "building" ─ detector ─ score x presence > threshold ─> one mask per object
                once        └─ "road" ─ ...                                                once per word

Carion et al., *SAM 3: Segment Anything with Concepts* (2025), through transformers' ``Sam3Model``. The score of an
object is sigmoid(its logit) x sigmoid(presence), as in that library's post-processing; masks are thresholded at 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wasnow.priors import prepare
from wasnow.priors.regions import Region
from wasnow.priors.single_network import SingleNetworkMasker

TOKENS = 32
"""Length to which words are padded, as in training of the network."""
_MASKS_AT_ONCE = 16


class Sam3(SingleNetworkMasker):
    """A `Masker` with SAM 3; objects with a score below ``score`` are dropped."""

    family = "sam3"
    preparation = prepare.SAM3

    @property
    def knows_objects(self) -> bool:
        """See `Masker`."""
        return True

    def find(self, rgb: NDArray[np.uint8], words: Sequence[str]) -> tuple[tuple[Region, ...], ...]:
        """See `Masker`."""
        shape = (rgb.shape[0], rgb.shape[1])
        if not words:
            return ()
        with torch.inference_mode():
            features = self.network.get_vision_features(self.prepare(rgb, self.device))
            return tuple(self._of_word(word, features, shape) for word in words)

    def _of_word(self, word: str, features: object, shape: tuple[int, int]) -> tuple[Region, ...]:
        tokens = self._tokenizer(word, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt")
        answer = self.network(
            vision_embeds=features,
            input_ids=tokens["input_ids"].to(self.device),
            attention_mask=tokens["attention_mask"].to(self.device),
        )
        scores = answer.pred_logits[0].float().sigmoid()
        if answer.presence_logits is not None:
            scores = scores * answer.presence_logits[0].float().sigmoid()
        return self.chosen(scores, answer.pred_masks[0], shape)

    def chosen(self, scores: Tensor, logits: Tensor, shape: tuple[int, int]) -> tuple[Region, ...]:
        """Select the masks that are accepted, best first.

        Args:
            scores: ``(Q,)`` 0..1.
            logits: ``(Q, h, w)``.
            shape: rows and columns of the image.
        """
        order = torch.argsort(scores, descending=True, stable=True)
        order = order[scores[order] > self.score]
        found = []
        for some in torch.split(order, _MASKS_AT_ONCE):
            # Probabilities are resized, not logits, as in the published post-processing.
            resized = self.prepare.masks(logits[some].float().sigmoid(), *shape)
            for mask, score in zip((resized > 0.5).cpu().numpy(), scores[some].tolist(), strict=True):
                region = Region.of(mask, score)
                if region is not None:
                    found.append(region)
        return tuple(found)
