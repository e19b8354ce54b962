"""Words to masks in one network: SAM 3.

    picture ─ vision encoder ─┬─ "building" ─ detector ─ score x presence > threshold ─> one mask per object
                  once        └─ "road" ─ ...                                                once per word

Carion et al., *SAM 3: Segment Anything with Concepts* (2025), through transformers' ``Sam3Model``. The score of an
object is sigmoid(its logit) x sigmoid(presence), as in that library's own post-processing; masks count above 0.5.
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
"""Words are padded to so many tokens, as the network was trained."""
_MASKS_AT_ONCE = 16


class Sam3(SingleNetworkMasker):
    """A `Masker` of SAM 3; objects whose score is below ``score`` do not count."""

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
            seen = self.network.get_vision_features(self.prepare(rgb, self.device))
            return tuple(self._of_word(word, seen, shape) for word in words)

    def _of_word(self, word: str, seen: object, shape: tuple[int, int]) -> tuple[Region, ...]:
        told = self._tokenizer(word, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt")
        answer = self.network(
            vision_embeds=seen,
            input_ids=told["input_ids"].to(self.device),
            attention_mask=told["attention_mask"].to(self.device),
        )
        scores = answer.pred_logits[0].float().sigmoid()
        if answer.presence_logits is not None:
            scores = scores * answer.presence_logits[0].float().sigmoid()
        return self.chosen(scores, answer.pred_masks[0], shape)

    def chosen(self, scores: Tensor, logits: Tensor, shape: tuple[int, int]) -> tuple[Region, ...]:
        """Which of the network's masks count: ``(Q,)`` scores 0..1, ``(Q, h, w)`` logits; best first."""
        order = torch.argsort(scores, descending=True, stable=True)
        order = order[scores[order] > self.score]
        found = []
        for some in torch.split(order, _MASKS_AT_ONCE):
            # Probabilities are scaled, not logits: so the published post-processing does it.
            grown = self.prepare.masks(logits[some].float().sigmoid(), *shape)
            for mask, score in zip((grown > 0.5).cpu().numpy(), scores[some].tolist(), strict=True):
                piece = Region.of(mask, score)
                if piece is not None:
                    found.append(piece)
        return tuple(found)
