"""Semantic-CD: a frozen CLIP that sees two dates, words in the context of the image, change and classes apart.

Y. Zhu et al., "Semantic-CD: remote sensing image semantic change detection towards open-vocabulary setting", arXiv
2501.06808. Section and equation numbers are of that paper.

    before ─ CLIP image blocks ─┬─ filter ─┬─ blocks ─ ... ─> F1 ─┬─ concat ─ FPN ─> change      (eq. 3)
    after  ─ the same          ─┴────┬─────┴─ blocks ─ ... ─> F2 ─┤
                                     └ 4 filters, between blocks  ├─ FPN ──────────────┐
    words ─ prompter(F1), prompter(F2) ─ CLIP text ─> t1, t2 ─────┴─ cos(F, t) ─ FPN ──┴─> classes before, after
                                                    (eq. 2)                               (eqs. 4, 5)

The filters are `wasnow.nn.filters`, the prompter `wasnow.nn.prompter`, the pyramids `wasnow.nn.pyramid`. Only filters
and change decoder learn in the first stage, only prompter and class decoder in the second; CLIP never does (section
II-F).

**Open vocabulary.** As published, the pyramid over the cost volume takes one channel a class, so its weights belong to
one list of words: ``vocabulary="fixed"``. With ``"open"`` each class's own map goes through a small pyramid with
weights that all classes share (the class is part of the batch), and gives the logit of that class: any words, any
number of them, without training again. In it all normalisation is within a pixel, so that words do not see each other.

**Input.** A token is ``pixels_per_token`` = 16 pixels wide: 512 pixels become 448 for patches of 14, so that the
pyramid has strides 4 to 32 exactly. The paper does not say its size; 32 is CLIP's own 224 for 512 pixels.

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
from wasnow.models.sscd_l import SECOND_WORDS
from wasnow.nn.clip import PRESETS, Clip, ClipConfig
from wasnow.nn.filters import BiTemporalFilter, Start
from wasnow.nn.normalise import Normalise
from wasnow.nn.prompter import Prompter, Words, plain
from wasnow.nn.pyramid import LEVELS, LayerNorm2d, LevelHead, SimpleFPN

PROMPTERS = ("instance", "learned", "words", "none")
CLASSES_AT_ONCE = 8
"""Classes that the open decoder answers together where no gradient is kept: bounds memory for long lists of words."""


class SemanticCD(Network):
    """The network, with random weights until a checkpoint brings others: a `ChangeModel` for any words.

    Args:
        classes: the words. ``"building|house|rooftop"`` is the class "building" in three phrasings, whose texts are
            averaged.
        clip: a name of `PRESETS`, or the fields of a `ClipConfig`.
        prompter: ``instance`` as published; ``learned``: a context that all images share; ``words``: the words alone;
            ``none``: no text, the paper's baseline, whose vocabulary is fixed.
        vocabulary: ``open`` or ``fixed``, see above; None: open wherever there is text.
        context: context tokens: 4, 16, 64 or 256.
        filters: numbers of the blocks that a filter follows, counted from 0; ``quarter``: after each quarter of the
            blocks (5, 11, 17, 23 of 24); ``all``; ``none``.
        filter_start: see `BiTemporalFilter`.
        filter_grid: (rows, cols) of tokens that the filters' gates are stored for; 512 pixels by default.
        logit_scale: what cosines are multiplied with before the decoder; ``clip`` takes CLIP's own; 1 is eq. 2.
        cost_pyramid: whether the cost volume gets a pyramid; else it is joined at the tokens' stride alone.
        pixels_per_token: side of what a token sees, in pixels of the input.
        width: channels of the pyramids.
        head_width: channels between pyramid and logits.
        cost_width: channels of the open decoder, a class.
        templates: texts with ``{}`` for the word, averaged; ``("{}",)`` is the word alone.
        synonyms: further phrasings by class word, as in ``classes``.

    Raises:
        VocabularyError: no words; one empty, there twice, or too long for the text tower.
        UsageError: options that are unknown or do not fit each other; a preset that does not exist.
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
            raise UsageError("prompter=none knows no words, so its vocabulary cannot be open; leave vocabulary out")
        if pixels_per_token < 1 or (logit_scale != "clip" and (isinstance(logit_scale, str) or logit_scale <= 0)):
            raise UsageError("pixels_per_token and logit_scale are numbers above 0 (or logit_scale=clip)")
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

    # ---------------------------------------------------------------------------------------------- what it is called

    @property
    def card(self) -> ModelCard:
        """Colour images, at the resolution that they have."""
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
        """The arguments that build this network again, as plain JSON values."""
        return {
            "classes": list(self.classes),
            **self._options,
            "synonyms": {k: list(rest) for k, (_, *rest) in zip(self.classes, self._phrases, strict=True) if rest},
        }

    def bind(self, classes: Sequence[str]) -> Self:
        """The same weights, answering with these words; itself, for the words that it has.

        Raises:
            VocabularyError: the vocabulary is fixed and these are others; or a word cannot be one.
        """
        if tuple(classes) == self.classes:
            return self
        if self._options["vocabulary"] == "fixed":
            require_own_classes(self.card, classes)
            return self
        other = copy.copy(self)
        # Submodules, parameters and buffers are shared with the original; only the words are its own.
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
        """Whether the towers forget what lies between their blocks and compute it again for the gradient."""
        return self.clip.image.checkpointing

    @checkpointing.setter
    def checkpointing(self, on: bool) -> None:
        self.clip.image.checkpointing = on
        self.clip.text.checkpointing = on

    # ---------------------------------------------------------------------------------------------- what it answers

    def forward(self, before: Tensor, after: Tensor, valid: Tensor | None = None) -> ChangeLogits:
        """Answer a batch of any height and width; it is taken to the device of the weights.

        Args:
            before: ``(B, 3, H, W)``, red, green and blue in 0..1.
            after: likewise.
            valid: not looked at.
        """
        return self.answer(self.encode(before, after, valid), (before.shape[-2], before.shape[-1]))

    def encode(self, before: Tensor, after: Tensor, valid: Tensor | None = None) -> tuple[Tensor, ...]:
        """The features of both dates, each ``(B, D, h, w)``: all that depends on the images and not on the words."""
        # Multiples of the stride, by repeating the last row and column; `answer` cuts them off again.
        stride, side = self.card.stride, self._options["pixels_per_token"]
        height, width = before.shape[-2:]
        rows, cols = (-(-length // stride) * stride // side for length in (height, width))
        missing = (0, cols * side - width, 0, rows * side - height)
        tower = self.clip.image
        size = rows * tower.config.patch, cols * tower.config.patch
        first = self.normalise(before, "before")
        second = self.normalise(after, "after")
        first, second = (
            tower.embed(_resized(functional.pad(images, missing, mode="replicate"), size)) for images in (first, second)
        )
        for number, block in enumerate(tower.blocks):
            both = block(torch.cat([first, second]))
            first, second = both.chunk(2)
            if str(number) in self.filters:
                seen = self.filters[str(number)](first[:, 1:], second[:, 1:], (rows, cols))
                first, second = (
                    torch.cat([one[:, :1], patches], dim=1) for one, patches in zip((first, second), seen, strict=True)
                )
        maps = [one[:, 1:].transpose(1, 2).unflatten(2, (rows, cols)) for one in (first, second)]
        return tuple(each.contiguous() for each in maps)

    def answer(self, features: tuple[Tensor, ...], size: tuple[int, int]) -> ChangeLogits:
        """The answer at ``size`` from what `encode` gave, in the words that are bound."""
        place = next(self.parameters())
        first, second = (one.to(place.device, place.dtype) for one in features)
        change = self.change_decoder(torch.cat([first, second], dim=1))
        both = torch.cat([first, second])
        classes = self.class_decoder(both, self.costs(both))
        logits = [self._enlarged(one, size) for one in (change, *classes.chunk(2))]
        return ChangeLogits(change=logits[0], before=logits[1], after=logits[2])

    def costs(self, features: Tensor) -> Tensor | None:
        """The cost volume ``(B, K, h, w)``: how near each place is to each word, scaled; None without words.

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

    def _enlarged(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits at a quarter of a token's side to pixels, without the rows and columns that `encode` added."""
        side = self._options["pixels_per_token"]
        whole = [length * side // 4 for length in logits.shape[-2:]]
        full = functional.interpolate(logits, size=whole, mode="bilinear", align_corners=False)
        return full[..., : size[0], : size[1]]


# ------------------------------------------------------------------------------------------------------------- decoders


class FixedDecoder(nn.Module):
    """Class logits as published (eqs. 4, 5): one channel a class, so for one list of words.

    Args:
        depth: channels of the features.
        width: of the pyramids.
        head_width: between pyramid and logits.
        classes: K.
        cost: whether there is a cost volume; False is the paper's baseline.
        pyramid: whether it gets a pyramid; else it is joined at the tokens' stride.
    """

    def __init__(self, depth: int, width: int, head_width: int, classes: int, *, cost: bool, pyramid: bool) -> None:
        super().__init__()
        self.features = SimpleFPN(depth, width)
        self.costs = (SimpleFPN(classes, width) if pyramid else nn.Conv2d(classes, width, 1)) if cost else None
        self.head = LevelHead(width, head_width, classes)

    def forward(self, features: Tensor, costs: Tensor | None) -> Tensor:
        """``(B, D, h, w)`` and ``(B, K, h, w)`` to logits ``(B, K, 4h, 4w)``."""
        levels = self.features(features)
        if self.costs is not None and costs is not None:
            levels = _joined(levels, self.costs(costs))
        logits: Tensor = self.head(levels)
        return logits


class OpenDecoder(nn.Module):
    """One logit a class from the class's own cost map, with weights that all classes share.

    Args:
        depth: channels of the features.
        width: of their pyramid.
        cost_width: channels that a class has of its own.
        pyramid: whether cost maps get a pyramid; else they are joined at the tokens' stride.
    """

    def __init__(self, depth: int, width: int, cost_width: int, *, pyramid: bool) -> None:
        super().__init__()
        self.features = SimpleFPN(depth, width)
        self.narrow = nn.ModuleList(nn.Conv2d(width, cost_width, 1) for _ in range(LEVELS))
        self.embed = nn.Conv2d(1, cost_width, 3, padding=1)
        self.costs = SimpleFPN(cost_width, cost_width) if pyramid else nn.Identity()
        self.head = LevelHead(cost_width, cost_width, 1, norm=LayerNorm2d)

    def forward(self, features: Tensor, costs: Tensor | None) -> Tensor:
        """``(B, D, h, w)`` and ``(B, K, h, w)`` to logits ``(B, K, 4h, 4w)``.

        Raises:
            ValueError: there are no cost maps.
        """
        if costs is None:
            raise ValueError("an open vocabulary needs cost maps")
        shared = [narrow(level) for narrow, level in zip(self.narrow, self.features(features), strict=True)]
        many = costs.shape[1] if torch.is_grad_enabled() else CLASSES_AT_ONCE
        return torch.cat([self._some(shared, some) for some in torch.split(costs, many, dim=1)], dim=1)

    def _some(self, shared: list[Tensor], costs: Tensor) -> Tensor:
        batch, classes = costs.shape[:2]
        own = self.costs(self.embed(costs.flatten(0, 1)[:, None]))
        levels = _joined([each[:, None] for each in shared], _split(own, (batch, classes)))
        both = [each.expand(-1, classes, -1, -1, -1).flatten(0, 1) for each in levels]
        logits: Tensor = self.head(both)
        return logits.view(batch, classes, *logits.shape[-2:])


def _split(costs: list[Tensor] | Tensor, rows: tuple[int, int]) -> list[Tensor] | Tensor:
    """The first dimension of each as two."""
    if isinstance(costs, Tensor):
        return costs.view(*rows, *costs.shape[1:])
    return [each.view(*rows, *each.shape[1:]) for each in costs]


def _joined(levels: list[Tensor], costs: list[Tensor] | Tensor) -> list[Tensor]:
    """Levels of the features plus levels of the costs; costs without a pyramid join the third, the tokens' own."""
    if isinstance(costs, Tensor):
        return [level + costs if i == 2 else level for i, level in enumerate(levels)]
    return [level + cost for level, cost in zip(levels, costs, strict=True)]


# -------------------------------------------------------------------------------------------------------------- details


def places(filters: Sequence[int] | str, blocks: int) -> list[int]:
    """The numbers of the blocks that filters follow, rising.

    Raises:
        UsageError: a block that does not exist, or one twice.
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
        raise UsageError(
            f"no CLIP is called {clip!r}; known are {', '.join(PRESETS)}{did_you_mean(clip, list(PRESETS))}"
        )
    return PRESETS[clip]


def _one_of(option: str, value: Any, known: Sequence[Any]) -> None:
    if value not in known:
        names = [str(one) for one in known if one is not None]
        raise UsageError(f"{option}={value} is none of {', '.join(names)}{did_you_mean(str(value), names)}")


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    if images.shape[-2:] == size:
        return images
    # Not to be had in half precision on every device.
    exact = images.to(torch.promote_types(images.dtype, torch.float32))
    return functional.interpolate(exact, size=size, mode="bilinear", align_corners=False, antialias=True).to(images)
