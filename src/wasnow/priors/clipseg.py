"""CLIPSeg: text to a probability map to a mask; small and coarse.

    image ─ CLIP image tower ─ three of its layers ─┬─ "building" ─ decoder ─ sigmoid > threshold ─> one mask
                  once                              └─ "road" ─ ...              all words in one batch

Lüddecke & Ecker, *Image Segmentation Using Text and Image Prompts* (CVPR 2022, arXiv 2112.10003), through transformers'
``CLIPSegForImageSegmentation``. It finds areas, not objects: a region is a connected part of the mask, and its score
the mean probability in it. Images are scaled to 352 x 352 px, so small tiles work better than large ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wasnow.priors import prepare
from wasnow.priors.regions import Region, connected_regions, window_slices
from wasnow.priors.single_network import SingleNetworkMasker


class ClipSeg(SingleNetworkMasker):
    """A `Masker` with CLIPSeg; ``score`` is the probability above which a pixel is in the mask."""

    family = "clipseg"
    preparation = prepare.CLIPSEG

    @property
    def knows_objects(self) -> bool:
        """See `Masker`."""
        return False

    def logits(self, rgb: NDArray[np.uint8], words: Sequence[str]) -> Tensor:
        """Return logits ``(len(words), h, w)`` at the resolution of the network; the image tower runs once."""
        network = self.network
        texts = [self._tokenizer(word, truncation=True, max_length=self._longest) for word in words]
        with torch.inference_mode():
            token_ids = [torch.tensor([text["input_ids"]], device=self.device) for text in texts]
            # One text at a time: with padding, results would depend on the attention mask.
            embeddings = torch.cat([network.clip.get_text_features(ids).pooler_output for ids in token_ids])
            features = network.clip.get_image_features(self.prepare(rgb, self.device), output_hidden_states=True)
            # The first hidden state is the input of the first layer.
            layers = [features.hidden_states[i + 1].expand(len(words), -1, -1) for i in network.extract_layers]
            logits: Tensor = network.decoder(layers, embeddings).logits
        return logits.reshape(len(words), *logits.shape[-2:])

    @property
    def _longest(self) -> int:
        return int(self.network.config.text_config.max_position_embeddings)

    def find(self, rgb: NDArray[np.uint8], words: Sequence[str]) -> tuple[tuple[Region, ...], ...]:
        """See `Masker`."""
        if not words:
            return ()
        height, width = rgb.shape[0], rgb.shape[1]
        maps = self.prepare.masks(self.logits(rgb, words).float().sigmoid(), height, width).cpu().numpy()
        return tuple(
            tuple(
                Region(part.window, part.mask, float(one[window_slices(part.window)][part.mask].mean()))
                for part in connected_regions(one > self.score)
            )
            for one in maps
        )
