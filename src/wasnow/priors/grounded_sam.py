"""Grounding DINO finds boxes of a word, SAM or SAM 2 segments the content of each box.

    image ─ backbone of Grounding DINO ──┬─ "building ." ─ boxes ─┐          once per image │ once per word
    image ─ encoder of SAM ──────────────┼────────────────────────┴─> one mask per box
                                         └─ "solar panel ." ─ boxes ─> ...

Liu et al., *Grounding DINO* (arXiv 2303.05499); Kirillov et al., *Segment Anything* (arXiv 2304.02643); Ravi et al.,
*SAM 2* (arXiv 2408.00714). Combined as in *Grounded SAM* (arXiv 2401.14159).

Each word has its own prompt, ``word .``, although one prompt could hold all words. In a common prompt, image features
attend to all words at once, so the masks of *building* would depend on whether *road* is in it, and a box whose phrase
mixes two words belongs to neither. With its own prompt, the result of a word is independent and can be cached. The
backbone, which does not use the text, still runs once.

A box is accepted if its best token score exceeds ``box``, and if every part of the word (*solar*, *panel*) has a token
score above ``text``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wasnow.errors import UsageError
from wasnow.priors import prepare
from wasnow.priors.regions import Key, Mask, Masker, Region, boxes_to_pixels, suppress_boxes
from wasnow.priors.weights import WeightsFolder, find_weights, load_network, load_tokenizer

BOX, TEXT = 0.30, 0.25
SAME_BOX = 0.8
"""Boxes with a larger intersection over union are the same object."""
BOXES_AT_ONCE = 16
"""Boxes that are segmented in one batch: a scene of 300 buildings must not need 300 times the memory."""

Picture = NDArray[np.uint8]


class BoxDetector:
    """Grounding DINO: boxes of a word in an image.

    Args:
        found: weights of the family ``grounding-dino``.
        box: see the module docstring, 0..1.
        text: see the module docstring, 0..1.
        device: of torch.

    Raises:
        UsageError: a threshold is not in 0..1.
    """

    def __init__(self, found: WeightsFolder, *, box: float = BOX, text: float = TEXT, device: str = "cpu") -> None:
        for name, value in (("--box", box), ("--text", text)):
            if not 0 <= value < 1:
                raise UsageError(f"{name} {value} must be from 0 to below 1, such as 0.3")
        self.box, self.text, self.device = box, text, device
        self.digest = found.digest()
        self.prepare = prepare.GROUNDING_DINO.configured_by(found.preprocessor())
        self.network = load_network(found, device)
        self._tokenizer = load_tokenizer(found)
        self._backbone = _CachedModule(self.network.model.backbone)
        self.network.model.backbone = self._backbone

    def encode(self, rgb: Picture) -> Callable[[str], tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Return a function from a word to its boxes ``(N, 4)`` in pixels and their scores ``(N,)``, best first.

        It applies to this image; the backbone runs at the first word only.
        """
        self._backbone.forget()
        pixels = self.prepare(rgb, self.device)
        shape = (rgb.shape[0], rgb.shape[1])

        def boxes_of(word: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            ids, parts = self.prompt(word)
            with torch.inference_mode():
                answer = self.network(pixel_values=pixels, input_ids=torch.tensor([ids], device=self.device))
            return self.chosen(answer.logits[0].float().sigmoid(), answer.pred_boxes[0].float(), parts, shape)

        return boxes_of

    def prompt(self, word: str) -> tuple[list[int], list[list[int]]]:
        """Return the token ids of ``word .``, and the token positions of each of its parts.

        Raises:
            UsageError: the word is too long, or has letters that the tokenizer does not know.
        """
        plain = " ".join(word.casefold().replace(".", " ").split())
        tokens = self._tokenizer(f"{plain} .", return_offsets_mapping=True)
        starts = [0, *(place + 1 for place, letter in enumerate(plain) if letter == " ")] if plain else []
        parts: list[list[int]] = [[] for _ in starts]
        unknown = self._tokenizer.unk_token_id
        for place, (token, (begin, end)) in enumerate(zip(tokens["input_ids"], tokens["offset_mapping"], strict=True)):
            # The dot and the special tokens are outside the word.
            if begin < end <= len(plain) and token != unknown:
                parts[sum(start <= begin for start in starts) - 1].append(place)
        longest = self.network.config.max_text_len
        if not parts or not all(parts) or len(tokens["input_ids"]) > longest:
            why = (
                "too long"
                if len(tokens["input_ids"]) > longest
                else "written in letters that its tokenizer does not know"
            )
            raise UsageError(f"class word {word!r} is {why}. Choose another word")
        return list(tokens["input_ids"]), parts

    def chosen(
        self, scores: Tensor, boxes: Tensor, parts: Sequence[Sequence[int]], shape: tuple[int, int]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Select the boxes that are accepted.

        Args:
            scores: ``(Q, T)`` of each box and token, 0..1.
            boxes: ``(Q, 4)``, relative (cx, cy, w, h).
            parts: token positions of each part of the word.
            shape: rows and columns of the image.

        Returns:
            Boxes ``(N, 4)`` in pixels and scores ``(N,)``, best first.
        """
        of_parts = torch.stack([scores[:, list(places)].amax(dim=1) for places in parts], dim=1)
        best = of_parts.amax(dim=1)
        keep = (best > self.box) & (of_parts > self.text).all(dim=1)
        at = boxes_to_pixels(boxes[keep].cpu().numpy(), shape)
        best_of = best[keep].cpu().numpy().astype(np.float32)
        kept = [i for i in suppress_boxes(at, best_of, SAME_BOX) if (at[i, 2:] > at[i, :2]).all()]
        return at[kept], best_of[kept]


class BoxSegmenter:
    """SAM or SAM 2: the mask of the content of a box.

    Args:
        found: weights of the family ``sam`` or ``sam2``.
        device: of torch.
    """

    def __init__(self, found: WeightsFolder, *, device: str = "cpu") -> None:
        self.device = device
        self.digest = found.digest()
        self.prepare = (prepare.SAM if found.family == "sam" else prepare.SAM2).configured_by(found.preprocessor())
        self.network = load_network(found, device)

    def encode(self, rgb: Picture) -> Callable[[NDArray[np.float32]], Mask]:
        """Return a function from boxes ``(N, 4)`` to masks ``(N, H, W)`` bool. The encoder runs here, once."""
        height, width = rgb.shape[0], rgb.shape[1]
        with torch.inference_mode():
            features = self.network.get_image_embeddings(self.prepare(rgb, self.device))

        def masks_in(boxes: NDArray[np.float32]) -> Mask:
            scaled = self.prepare.boxes(torch.from_numpy(boxes).to(self.device), height, width)
            drawn = [np.zeros((0, height, width), np.bool_)]
            with torch.inference_mode():
                for some in torch.split(scaled, BOXES_AT_ONCE):
                    if len(some):
                        answer = self.network(image_embeddings=features, input_boxes=some[None], multimask_output=False)
                        resized = self.prepare.masks(answer.pred_masks[0, :, 0], height, width)
                        drawn.append((resized > 0).cpu().numpy())
            return np.concatenate(drawn)

        return masks_in


class GroundedSam(Masker):
    """A `Masker` of two networks; see the module docstring."""

    def __init__(self, detector: BoxDetector, segmenter: BoxSegmenter) -> None:
        self.detector = detector
        self.segmenter = segmenter

    @classmethod
    def load(
        cls,
        detector: str = "grounding-dino-tiny",
        segmenter: str = "sam-vit-base",
        *,
        box: float = BOX,
        text: float = TEXT,
        device: str = "cpu",
    ) -> GroundedSam:
        """Load both networks from folders or names; see `find_weights`.

        Args:
            detector: folder or name of Grounding DINO weights.
            segmenter: folder or name of SAM or SAM 2 weights.
            box: see the module docstring, 0..1.
            text: see the module docstring, 0..1.
            device: of torch.

        Raises:
            CheckpointError: weights are missing or unsuitable.
            UsageError: a threshold is not in 0..1.
        """
        # Both are located before either is loaded.
        one, other = find_weights(detector, ("grounding-dino",)), find_weights(segmenter, ("sam", "sam2"))
        return cls(BoxDetector(one, box=box, text=text, device=device), BoxSegmenter(other, device=device))

    @property
    def knows_objects(self) -> bool:
        """See `Masker`."""
        return True

    @property
    def key(self) -> Key:
        """See `Masker`."""
        return {
            "masker": "grounded-sam",
            "detector": self.detector.digest,
            "segmenter": self.segmenter.digest,
            "box": self.detector.box,
            "text": self.detector.text,
        }

    def find(self, rgb: Picture, words: Sequence[str]) -> tuple[tuple[Region, ...], ...]:
        """See `Masker`."""
        boxes_of = self.detector.encode(rgb)
        masks_in = None
        found: list[tuple[Region, ...]] = []
        for word in words:
            boxes, scores = boxes_of(word)
            if not len(boxes):
                # Most tiles contain nothing of a rare class: SAM's encoder, the larger part of the work, is skipped.
                found.append(())
                continue
            masks_in = masks_in or self.segmenter.encode(rgb)
            drawn = (Region.of(mask, score) for mask, score in zip(masks_in(boxes), scores.tolist(), strict=True))
            found.append(tuple(piece for piece in drawn if piece is not None))
        return tuple(found)


class _CachedModule(nn.Module):
    """A submodule that caches its last output until `forget`."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part
        self.calls = 0
        self._output: Any = None

    def forget(self) -> None:
        """Discard the cached output, because the next input is another image."""
        self._output = None

    def forward(self, *inputs: Any) -> Any:
        """Return the output for the first input since `forget`."""
        if self._output is None:
            self.calls += 1
            self._output = self.part(*inputs)
        return self._output

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            # The network also uses attributes of the submodule (its position embedding).
            return getattr(super().__getattr__("part"), name)
