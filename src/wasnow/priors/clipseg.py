"""Words to a heat map to a mask: CLIPSeg, the small one.

    picture ─ CLIP image tower ─ three of its layers ─┬─ "building" ─ decoder ─ sigmoid > threshold ─> one mask
                    once                              └─ "road" ─ ...              all words in one batch

Lüddecke & Ecker, *Image Segmentation Using Text and Image Prompts* (CVPR 2022, arXiv 2112.10003), through transformers'
``CLIPSegForImageSegmentation``. It knows regions, not objects: a piece is a connected part of the mask, its score the
mean probability on it. Pictures are scaled to 352 x 352 px, so that small tiles suit it better than large ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wasnow.priors import prepare
from wasnow.priors.regions import Region, parts, window_slices
from wasnow.priors.single_network import SingleNetworkMasker


class ClipSeg(SingleNetworkMasker):
    """A `Masker` of CLIPSeg; ``score`` is the probability from which a pixel counts."""

    family = "clipseg"
    preparation = prepare.CLIPSEG

    @property
    def knows_objects(self) -> bool:
        """See `Masker`."""
        return False

    def logits(self, rgb: NDArray[np.uint8], words: Sequence[str]) -> Tensor:
        """``(len(words), h, w)`` at the network's own resolution; the image tower runs once."""
        network = self.network
        texts = [self._tokenizer(word, truncation=True, max_length=self._longest) for word in words]
        with torch.inference_mode():
            told = [torch.tensor([text["input_ids"]], device=self.device) for text in texts]
            # One text at a time: padding would need the attention mask to be exactly neutral.
            meant = torch.cat([network.clip.get_text_features(ids).pooler_output for ids in told])
            seen = network.clip.get_image_features(self.prepare(rgb, self.device), output_hidden_states=True)
            # The first of the hidden states is what went into the first layer.
            layers = [seen.hidden_states[i + 1].expand(len(words), -1, -1) for i in network.extract_layers]
            answer: Tensor = network.decoder(layers, meant).logits
        return answer.reshape(len(words), *answer.shape[-2:])

    @property
    def _longest(self) -> int:
        return int(self.network.config.text_config.max_position_embeddings)

    def find(self, rgb: NDArray[np.uint8], words: Sequence[str]) -> tuple[tuple[Region, ...], ...]:
        """See `Masker`."""
        if not words:
            return ()
        height, width = rgb.shape[0], rgb.shape[1]
        grown = self.prepare.masks(self.logits(rgb, words).float().sigmoid(), height, width).cpu().numpy()
        return tuple(
            tuple(
                Region(part.window, part.mask, float(one[window_slices(part.window)][part.mask].mean()))
                for part in parts(one > self.score)
            )
            for one in grown
        )
