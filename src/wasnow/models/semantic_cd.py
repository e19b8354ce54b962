"""Semantic-CD: a frozen CLIP for two dates, prompts conditioned on the image, separate decoders of change and classes.

Y. Zhu et al., "Semantic-CD: remote sensing image semantic change detection towards open-vocabulary setting", arXiv
2501.06808. Section and equation numbers refer to that paper.

    before ─ CLIP image blocks ─┬─ filter ─┬─ blocks ─ ... ─> F1 ─┬─ concat ─ FPN ─> change      (eq. 3)
    after  ─ the same          ─┴────┬─────┴─ blocks ─ ... ─> F2 ─┤
                                     └ 4 filters, between blocks  ├─ FPN ──────────────┐
    words ─ prompter(F1), prompter(F2) ─ CLIP text ─> t1, t2 ─────┴─ cos(F, t) ─ FPN ──┴─> classes before, after
                                                    (eq. 2)                               (eqs. 4, 5)

The filters are `wasnow.nn.filters`, the prompter is `wasnow.nn.prompter`, the pyramids are `wasnow.nn.pyramid`. The
first stage trains filters and change decoder, the second prompter and class decoder; CLIP stays frozen (section II-F).

**Open vocabulary.** As published, the pyramid over the cost volume has one channel per class, so its weights belong to
one list of words: ``vocabulary="fixed"``. With ``"open"`` the cost map of each class goes through a small pyramid whose
weights all classes share (classes form the batch), which gives the logit of that class. Any number of any words works
without further training. All norms are within a pixel, so the words do not influence each other.

**Input.** A token covers ``pixels_per_token`` = 16 pixels: 512 pixels become 448 with patches of 14, so that the
pyramid has strides 4 to 32 exactly. The paper does not state its size; 32 corresponds to CLIP's own 224 for 512 pixels.

**Baseline** of the paper: ``prompter="none"``, classes from F alone.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from wasnow.errors import UsageError, did_you_mean
from wasnow.models.contract import ChangeLogits, ModelCard, checked_classes, phrasings_of, require_own_classes
from wasnow.models.network import Network
from wasnow.models.registry import MODELS
from wasnow.models.semantic_cd_decoders import FixedDecoder, OpenDecoder
from wasnow.models.sscd_l import SECOND_WORDS
from wasnow.nn.clip import Clip
from wasnow.nn.clip_config import PRESETS, ClipConfig
from wasnow.nn.filters import BiTemporalFilter, Start
from wasnow.nn.layers import pad_to_multiple, resize
from wasnow.nn.normalise import Normalise
from wasnow.nn.prompter import Prompter, Words, plain
from wasnow.nn.pyramid import LevelHead, SimpleFPN

PROMPTERS = ("instance", "learned", "words", "none")


class SemanticCD(Network):
    """The network, with random weights until a checkpoint provides others: a `ChangeModel` for any class words.

    Args:
        classes: the class words. ``"building|house|rooftop"`` is the class "building" with three phrasings, whose text
            embeddings are averaged.
        clip: a name of `PRESETS`, or the fields of a `ClipConfig`.
        prompter: ``instance`` as published; ``learned``: a context that all images share; ``words``: the words without
            context; ``none``: no text, the paper's baseline, whose vocabulary is fixed.
        vocabulary: ``open`` or ``fixed``, see above; None: open wherever there is text.
        context: number of context tokens: 4, 16, 64 or 256.
        filters: numbers of the blocks that a filter follows, from 0; ``quarter``: after each quarter of the blocks (5,
            11, 17, 23 of 24); ``all``; ``none``.
        filter_start: see `BiTemporalFilter`.
        filter_grid: (rows, cols) of tokens that the gates of the filters are stored for; that of 512 pixels by default.
        logit_scale: factor of the cosines before the decoder; ``clip`` takes CLIP's own; 1 is eq. 2.
        cost_pyramid: whether the cost volume gets a pyramid; otherwise it is joined at the stride of the tokens only.
        pixels_per_token: side of a token in pixels of the input.
        width: channels of the pyramids.
        head_width: channels between pyramid and logits.
        cost_width: channels per class of the open decoder.
        templates: texts with ``{}`` for the word, averaged; ``("{}",)`` is the word alone.
        synonyms: further phrasings by class word, as in ``classes``.

    Raises:
        VocabularyError: no words; or one is empty, occurs twice, or is too long for the text tower.
        UsageError: unknown or incompatible options.
    """

    encoder_parts = ("clip.image", "filters")

    def __init__(
        self,
        classes: Sequence[str] = SECOND_WORDS,
        *,
        clip: str | Mapping[str, Any] = "vit-l-14",
        prompter: Literal["instance", "learned", "words", "none"] = "instance",
        vocabulary: Literal["open", "fixed"] | None = None,
        context: int = 256,
        filters: Sequence[int] | Literal["quarter", "all", "none"] = "quarter",
        filter_start: Start = "identity",
        filter_grid: tuple[int, int] = (32, 32),
        logit_scale: float | Literal["clip"] = 10.0,
        cost_pyramid: bool = True,
        pixels_per_token: int = 16,
        width: int = 512,
        head_width: int = 256,
        cost_width: int = 32,
        templates: Sequence[str] = ("{}",),
        synonyms: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__()
        config = _clip_config(clip)
        _one_of("prompter", prompter, PROMPTERS)
        _one_of("filter_start", filter_start, ("identity", "published"))
        _one_of("vocabulary", vocabulary, (None, "open", "fixed"))
        if prompter == "none" and vocabulary == "open":
            raise UsageError("prompter=none uses no text, so its vocabulary cannot be open; leave vocabulary out")
        if pixels_per_token < 1 or (logit_scale != "clip" and (isinstance(logit_scale, str) or logit_scale <= 0)):
            raise UsageError("pixels_per_token and logit_scale must be above 0 (or logit_scale=clip)")
        self._options: dict[str, Any] = {
            "clip": config.dict(),
            "prompter": prompter,
            "vocabulary": vocabulary or ("fixed" if prompter == "none" else "open"),
            "context": context,
            "filters": places(filters, config.image_layers),
            "filter_start": filter_start,
            "filter_grid": list(filter_grid),
            "logit_scale": logit_scale,
            "cost_pyramid": cost_pyramid,
            "pixels_per_token": pixels_per_token,
            "width": width,
            "head_width": head_width,
            "cost_width": cost_width,
            "templates": list(templates),
        }
        depth = config.image_width
        self.normalise = Normalise("clip")
        self.clip = Clip(config)
        rows, cols = filter_grid
        self.filters = nn.ModuleDict(
            {
                str(place): BiTemporalFilter(depth, (rows, cols), start=filter_start)
                for place in self._options["filters"]
            }
        )
        self.change_decoder = nn.Sequential(SimpleFPN(2 * depth, width), LevelHead(width, head_width, 1))
        self.prompter = (
            Prompter(depth, config.text_width, context, conditional=prompter == "instance")
            if prompter in ("instance", "learned")
            else None
        )
        self._name(classes, synonyms or {})
        self.class_decoder: OpenDecoder | FixedDecoder = (
            OpenDecoder(depth, width, cost_width, pyramid=cost_pyramid)
            if self._options["vocabulary"] == "open"
            else FixedDecoder(
                depth, width, head_width, len(self.classes), cost=prompter != "none", pyramid=cost_pyramid
            )
        )

    # ----------------------------------------------------------------------------------------------- card and words

    @property
    def card(self) -> ModelCard:
        """Colour images at their own resolution."""
        return ModelCard(
            name="semantic-cd",
            summary=MODELS["semantic-cd"].summary,
            source="Zhu et al. 2025, arXiv 2501.06808",
            classes=self.classes,
            stride=2 * self._options["pixels_per_token"],
            parameters=self.parameter_count(),
            weights=self.weights_info,
        )

    def config(self) -> dict[str, Any]:
        """Return the arguments that build this network again, as JSON values."""
        return {
            "classes": list(self.classes),
            **self._options,
            "synonyms": {k: list(rest) for k, (_, *rest) in zip(self.classes, self._phrases, strict=True) if rest},
        }

    def bind(self, classes: Sequence[str]) -> Self:
        """Return the same weights bound to these words; itself for the words that it has.

        Raises:
            VocabularyError: the vocabulary is fixed and differs, or a word is not usable.
        """
        if tuple(classes) == self.classes:
            return self
        if self._options["vocabulary"] == "fixed":
            require_own_classes(self.card, classes)
            return self
        other = copy.copy(self)
        # The copy shares submodules, parameters and buffers with the original; only the words differ.
        other._name(classes, {})
        return other

    def _name(self, classes: Sequence[str], synonyms: Mapping[str, Sequence[str]]) -> None:
        phrases = phrasings_of(classes, synonyms)
        self.classes = checked_classes([each[0] for each in phrases])
        self._phrases = phrases
        self._words: Words | None = None
        if self._options["prompter"] != "none":
            self._words = Words(phrases, self._options["templates"])
            positions = self.clip.text.config.text_positions
            self._words.check_room(positions - 2 if self.prompter is None else self.prompter.room(positions))

    @property
    def checkpointing(self) -> bool:
        """Whether the towers recompute the activations of their blocks in the backward pass."""
        return self.clip.image.checkpointing

    @checkpointing.setter
    def checkpointing(self, on: bool) -> None:
        self.clip.image.checkpointing = on
        self.clip.text.checkpointing = on

    # ----------------------------------------------------------------------------------------------------- inference

    def forward(self, before: Tensor, after: Tensor, valid: Tensor | None = None) -> ChangeLogits:
        """Predict a batch of any height and width; tensors are moved to the device of the weights.

        Args:
            before: ``(B, 3, H, W)``, red, green and blue in 0..1.
            after: ``(B, 3, H, W)``, the second date.
            valid: ignored.
        """
        return self.answer(self.encode(before, after, valid), (before.shape[-2], before.shape[-1]))

    def encode(self, before: Tensor, after: Tensor, valid: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return the features of both dates, each ``(B, D, h, w)``, which do not depend on the words."""
        side, tower = self._options["pixels_per_token"], self.clip.image
        # `answer` crops the padding again.
        first, second = (
            pad_to_multiple(self.normalise(images, date), 2 * side)
            for images, date in ((before, "before"), (after, "after"))
        )
        rows, cols = (length // side for length in first.shape[-2:])
        size = rows * tower.config.patch, cols * tower.config.patch
        first, second = (tower.embed(_resampled(images, size)) for images in (first, second))
        for number, block in enumerate(tower.blocks):
            both = block(torch.cat([first, second]))
            first, second = both.chunk(2)
            if str(number) in self.filters:
                seen = self.filters[str(number)](first[:, 1:], second[:, 1:], (rows, cols))
                first, second = (
                    torch.cat([one[:, :1], patches], dim=1) for one, patches in zip((first, second), seen, strict=True)
                )
        maps = [torch.unflatten(one[:, 1:].transpose(1, 2), 2, (rows, cols)) for one in (first, second)]
        return tuple(each.contiguous() for each in maps)

    def answer(self, features: tuple[Tensor, ...], size: tuple[int, int]) -> ChangeLogits:
        """Return the prediction for the bound words at ``size`` from the features of `encode`."""
        place = next(self.parameters())
        first, second = (one.to(place.device, place.dtype) for one in features)
        change = self.change_decoder(torch.cat([first, second], dim=1))
        both = torch.cat([first, second])
        classes = self.class_decoder(both, self.costs(both))
        logits = [self._to_pixels(one, size) for one in (change, *classes.chunk(2))]
        return ChangeLogits(change=logits[0], before=logits[1], after=logits[2])

    def costs(self, features: Tensor) -> Tensor | None:
        """Return the cost volume ``(B, K, h, w)``: scaled cosines of each place with each word; None without text.

        Args:
            features: ``(B, D, h, w)`` of one date or of both.
        """
        if self._words is None:
            return None
        if self.prompter is None:
            texts = plain(self._words, self.clip.text, features.device).expand(len(features), -1, -1)
        else:
            texts = self.prompter.embed(features, self._words, self.clip.text)
        seen = functional.normalize(self.clip.image.project(features.flatten(2).transpose(1, 2)), dim=-1)
        scale = self._options["logit_scale"]
        factor = self.clip.logit_scale.exp() if scale == "clip" else scale
        costs: Tensor = factor * (texts @ seen.mT)
        return costs.view(*costs.shape[:2], *features.shape[-2:])

    def _to_pixels(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Resize logits from a quarter of a token's side to pixels and crop the padding that `encode` added."""
        side = self._options["pixels_per_token"]
        full = resize(logits, [length * side // 4 for length in logits.shape[-2:]])
        return full[..., : size[0], : size[1]]


# -------------------------------------------------------------------------------------------------------------- details


def places(filters: Sequence[int] | str, blocks: int) -> list[int]:
    """Return the numbers of the blocks that filters follow, in ascending order.

    Raises:
        UsageError: a block does not exist or is named twice.
    """
    if isinstance(filters, str):
        named = {
            "quarter": sorted({max(0, blocks * quarter // 4 - 1) for quarter in (1, 2, 3, 4)}),
            "all": list(range(blocks)),
            "none": [],
        }
        if filters not in named:
            raise UsageError(
                f"filters={filters} is none of {', '.join(named)}, nor a list such as [5, 11, 17, 23]"
                + did_you_mean(filters, list(named))
            )
        return named[filters]
    chosen = sorted(int(place) for place in filters)
    if len(set(chosen)) != len(chosen) or any(not 0 <= place < blocks for place in chosen):
        raise UsageError(f"filters={list(filters)} must name different blocks of 0 to {blocks - 1}")
    return chosen


def _clip_config(clip: str | Mapping[str, Any]) -> ClipConfig:
    if not isinstance(clip, str):
        return ClipConfig.from_dict(clip)
    if clip not in PRESETS:
        raise UsageError(f"unknown CLIP {clip!r}; use one of {', '.join(PRESETS)}{did_you_mean(clip, list(PRESETS))}")
    return PRESETS[clip]


def _one_of(option: str, value: Any, known: Sequence[Any]) -> None:
    if value not in known:
        names = [str(one) for one in known if one is not None]
        raise UsageError(f"{option}={value} is none of {', '.join(names)}{did_you_mean(str(value), names)}")


def _resampled(images: Tensor, size: tuple[int, int]) -> Tensor:
    if images.shape[-2:] == size:
        return images
    # Antialiased resizing does not exist in half precision on every device.
    exact = images.to(torch.promote_types(images.dtype, torch.float32))
    return functional.interpolate(exact, size=size, mode="bilinear", align_corners=False, antialias=True).to(images)
