"""Words to boxes to masks: Grounding DINO finds boxes, SAM or SAM 2 draws what each box holds.

    picture ─ backbone of Grounding DINO ──┬─ "building ." ─ boxes ─┐          once per picture │ once per word
    picture ─ encoder of SAM ──────────────┼────────────────────────┴─> one mask per box
                                           └─ "solar panel ." ─ boxes ─> ...

Liu et al., *Grounding DINO* (arXiv 2303.05499); Kirillov et al., *Segment Anything* (arXiv 2304.02643); Ravi et al.,
*SAM 2* (arXiv 2408.00714). Put together as in *Grounded SAM* (arXiv 2401.14159).

Each word is asked by itself, as ``word .``, though one prompt could hold them all. In one prompt the image attends to
all words at once, so that the masks of *building* would depend on whether *road* was asked too, and a box whose phrase
mixes two words belongs to neither. Asked by itself, a word has one answer, which can be kept; the backbone, which sees
no text, still runs once.

A box counts if its best token exceeds ``box``, and if every part of the word (*solar*, *panel*) has a token above
``text``: a panel that nothing solar speaks for is not found.
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
"""Boxes that overlap by more (intersection over union) show the same object."""
BOXES_AT_ONCE = 16
"""Masks are drawn for so many boxes at a time: a scene of 300 buildings must not take 300 times the memory."""

Picture = NDArray[np.uint8]


class BoxDetector:
    """Grounding DINO: boxes of a word in a picture.

    Args:
        found: of the family ``grounding-dino``.
        box: see the module, 0..1.
        text: likewise.
    """

    def __init__(self, found: WeightsFolder, *, box: float = BOX, text: float = TEXT, device: str = "cpu") -> None:
        for name, value in (("--box", box), ("--text", text)):
            if not 0 <= value < 1:
                raise UsageError(f"{name} {value} is no score; give a number from 0 to below 1, such as 0.3")
        self.box, self.text, self.device = box, text, device
        self.digest = found.digest()
        self.prepare = prepare.GROUNDING_DINO.configured_by(found.preprocessor())
        self.network = load_network(found, device)
        self._tokenizer = load_tokenizer(found)
        self._backbone = _CachedModule(self.network.model.backbone)
        self.network.model.backbone = self._backbone

    def look(self, rgb: Picture) -> Callable[[str], tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """A function from a word to its boxes ``(N, 4)`` in pixels and their scores ``(N,)``, best first.

        Which picture it speaks of is fixed now; the backbone runs at the first word and not again.
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
        """Token ids of ``word .``, and the places of the tokens of each of its parts.

        Raises:
            UsageError: the tokenizer knows nothing of the word, or it is too long for the network.
        """
        plain = " ".join(word.casefold().replace(".", " ").split())
        told = self._tokenizer(f"{plain} .", return_offsets_mapping=True)
        starts = [0, *(place + 1 for place, letter in enumerate(plain) if letter == " ")] if plain else []
        parts: list[list[int]] = [[] for _ in starts]
        unknown = self._tokenizer.unk_token_id
        for place, (token, (begin, end)) in enumerate(zip(told["input_ids"], told["offset_mapping"], strict=True)):
            # Beyond the word lie the dot and the tokens that frame every text; those have no letters.
            if begin < end <= len(plain) and token != unknown:
                parts[sum(start <= begin for start in starts) - 1].append(place)
        longest = self.network.config.max_text_len
        if not parts or not all(parts) or len(told["input_ids"]) > longest:
            why = "too long" if len(told["input_ids"]) > longest else "not spelt with letters that its text model knows"
            raise UsageError(f"class word {word!r} is {why}; choose another word")
        return list(told["input_ids"]), parts

    def chosen(
        self, scores: Tensor, boxes: Tensor, parts: Sequence[Sequence[int]], shape: tuple[int, int]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Which of the network's boxes count.

        Args:
            scores: ``(Q, T)`` of each box and token, 0..1.
            boxes: ``(Q, 4)``, relative (cx, cy, w, h).
            parts: places of the tokens of each part of the word.
            shape: of the picture, (rows, cols).
        """
        of_parts = torch.stack([scores[:, list(places)].amax(dim=1) for places in parts], dim=1)
        best = of_parts.amax(dim=1)
        keep = (best > self.box) & (of_parts > self.text).all(dim=1)
        at = boxes_to_pixels(boxes[keep].cpu().numpy(), shape)
        best_of = best[keep].cpu().numpy().astype(np.float32)
        kept = [i for i in suppress_boxes(at, best_of, SAME_BOX) if (at[i, 2:] > at[i, :2]).all()]
        return at[kept], best_of[kept]


class BoxSegmenter:
    """SAM or SAM 2: the mask of what a box holds.

    Args:
        found: of the family ``sam`` or ``sam2``.
    """

    def __init__(self, found: WeightsFolder, *, device: str = "cpu") -> None:
        self.device = device
        self.digest = found.digest()
        self.prepare = (prepare.SAM if found.family == "sam" else prepare.SAM2).configured_by(found.preprocessor())
        self.network = load_network(found, device)

    def look(self, rgb: Picture) -> Callable[[NDArray[np.float32]], Mask]:
        """A function from boxes ``(N, 4)`` to masks ``(N, H, W)`` bool. The encoder runs here, and not again."""
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
                        grown = self.prepare.masks(answer.pred_masks[0, :, 0], height, width)
                        drawn.append((grown > 0).cpu().numpy())
            return np.concatenate(drawn)

        return masks_in


class GroundedSam(Masker):
    """A `Masker` of two networks; see the module."""

    def __init__(self, finder: BoxDetector, drawer: BoxSegmenter) -> None:
        self.finder = finder
        self.drawer = drawer

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
        """From two folders or names; see `find_weights`.

        Raises:
            CheckpointError: weights are missing or unfit.
            UsageError: a threshold is no score.
        """
        # Both are looked for before either is loaded.
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
            "detector": self.finder.digest,
            "segmenter": self.drawer.digest,
            "box": self.finder.box,
            "text": self.finder.text,
        }

    def find(self, rgb: Picture, words: Sequence[str]) -> tuple[tuple[Region, ...], ...]:
        """See `Masker`."""
        boxes_of = self.finder.look(rgb)
        masks_in = None
        found: list[tuple[Region, ...]] = []
        for word in words:
            boxes, scores = boxes_of(word)
            if not len(boxes):
                # Most tiles hold nothing of a rare class: SAM's encoder, the larger part of the work, is spared.
                found.append(())
                continue
            masks_in = masks_in or self.drawer.look(rgb)
            drawn = (Region.of(mask, score) for mask, score in zip(masks_in(boxes), scores.tolist(), strict=True))
            found.append(tuple(piece for piece in drawn if piece is not None))
        return tuple(found)


class _CachedModule(nn.Module):
    """A part of a network that remembers its last answer until it is told to forget."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part
        self.calls = 0
        self._answer: Any = None

    def forget(self) -> None:
        """The next input is another one."""
        self._answer = None

    def forward(self, *inputs: Any) -> Any:
        """The part's answer to the first input since `forget`."""
        if self._answer is None:
            self.calls += 1
            self._answer = self.part(*inputs)
        return self._answer

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            # The network also reaches for parts of this part (its position embedding).
            return getattr(super().__getattr__("part"), name)
