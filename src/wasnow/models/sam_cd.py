"""SAM-CD, a reconstruction from its abstract: masks of what a word means say where a second look at the features goes.

"Segment anything model guided semantic knowledge learning for remote sensing change detection", ICASSP 2024. Only the
abstract is public: a transformer encoder, masks from SAM prompted with text, a masked attention module (MAM), fusion of
local and global features, an MLP decoder, trained end to end. Everything below that sentence is chosen by us, each part
after a published design. It is not the SAM-CD of github.com/ggsDing/SAM-CD, another method of the same name.

    before ─ encoder ───── F1 ─┬─────────────────── |F1 - F2| ─┐
                               ├─ MAM(F1, P1) ─ L1 ─┐          ├─ Conv3x3 BN ReLU ─ MLP decoder ─> change
    P1, P2, a mask per word    │                    ├ |L1 - L2| ┘
                               ├─ MAM(F2, P2) ─ L2 ─┘  largest of the words         all this at strides 4, 8, 16, 32
    after  ─ the same ──── F2 ─┘

    beyond the paper, with classes:    F_t ─ MLP decoder ─> K logits a date: by sight
                                       L_t ─ MLP decoder ─ + a P_t ─> one more for each word: by its mask

==========  ======================================================================================================
encoder     SegFormer's MiT-B1 (Xie et al. 2021), shared by the dates: `wasnow.nn.segformer`
MAM         Mask2Former's masked attention (Cheng et al. 2022) on MiT's heads and grids: `wasnow.nn.masked_attention`;
            P max-pooled to each stride and to the grid of its keys
fusion      absolute differences, as of siamese networks since FC-Siam-diff (Daudt et al. 2018)
decoder     SegFormer's; one logit of change, the difference of its two: the same cross-entropy
==========  ======================================================================================================

**Priors** P are masks of both dates and of each word (``words``), from wherever: see `SAMCD.forward`. Without any, all
masks are empty: by the rule for empty masks the local features then read everything (``empty="global"``) or are 0.

**Several words.** The MAM has one set of weights for all. Each word has its own mask and its own local features, and of
their differences the largest counts (``fusion="max"``), or their sum: the order of words does not matter to the change,
and neither does a word that is nowhere, where ``empty="zero"``.

**Inside** (``local="inside"``, ours): a word's local features are kept in its mask and are 0 elsewhere, so that
|L1 - L2| says where a mask came or went. By the equation alone they are answered everywhere, with F in them, and say
little of it.

**Classes** go beyond the paper, which answers with change alone. With K ``classes`` each date gets K logits from the
global features by sight. A word that is also a class adds to its logit what the local features and the mask itself say,
on images where its mask is not empty.

**Controls.** ``priors="none"``: no masks and no MAM. ``"channel"``: no MAM, masks as further channels of the image, the
weights of which begin at 0. Ground truth instead of predicted masks is ``"attention"`` with other masks; with none, it
is a network of equal size without priors.

All is symmetric: exchanged dates give the same change and exchanged classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from wasnow.errors import InputError, UsageError, VocabularyError, did_you_mean
from wasnow.models.contract import ChangeLogits, ModelCard, checked_classes, require_no_classes, require_own_classes
from wasnow.models.network import Network
from wasnow.models.registry import MODELS
from wasnow.nn.masked_attention import Empty, MaskedAttention, pooled
from wasnow.nn.normalise import Normalise
from wasnow.nn.segformer import PRESETS, STRIDE, STRIDES, MitConfig, MixTransformer, MLPDecoder, initialise

DEFAULT_WORDS = ("building",)
"""What LEVIR-CD and WHU-CD are about."""

OPTIONS: Mapping[str, tuple[str, ...]] = {
    "priors": ("attention", "channel", "none"),
    "empty": ("global", "zero"),
    "local": ("everywhere", "inside"),
    "fusion": ("max", "sum"),
}

OF_INTEREST = 0.5
"""A prior of at least this is of interest to the attention."""


class SAMCD(Network):
    """The network, with random weights until a checkpoint brings others: a `ChangeModel` that wants priors.

    Args:
        classes: the words that it answers with, in logit order; none: change alone, as the paper.
        encoder: a name of `PRESETS`, or the fields of a `MitConfig`.
        words: whose masks it wants, in this order; None: the classes, or "building" without any.
        priors: ``attention``, or a control: ``channel``, ``none``.
        empty: what an empty mask gives, see `MaskedAttention`.
        local: where a word has local features: ``everywhere``, as the attention answers every place; ``inside``, in its
            mask alone, and 0 elsewhere. An empty mask goes by ``empty``.
        fusion: of the words' differences: ``max`` or ``sum``.
        reductions: how much coarser the grids of the MAM's keys are at the four strides; None: as the encoder's, which
            puts all of them at 32 px; smaller numbers look at smaller pieces of a mask, and cost more.
        width: channels of the decoder.
        dropout: of the decoder.

    Attributes:
        classes: likewise.
        words: likewise.

    Raises:
        VocabularyError: a word or class is empty or there twice, or there are no words.
        UsageError: options that are unknown or do not fit each other.
    """

    def __init__(
        self,
        classes: Sequence[str] = (),
        *,
        encoder: str | Mapping[str, Any] = "mit-b1",
        words: Sequence[str] | None = None,
        priors: Literal["attention", "channel", "none"] = "attention",
        empty: Empty = "global",
        local: Literal["everywhere", "inside"] = "everywhere",
        fusion: Literal["max", "sum"] = "max",
        reductions: Sequence[int] | None = None,
        width: int = 256,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        for option, value in (("priors", priors), ("empty", empty), ("local", local), ("fusion", fusion)):
            if value not in OPTIONS[option]:
                near = did_you_mean(str(value), OPTIONS[option])
                raise UsageError(f"{option}={value} is none of {', '.join(OPTIONS[option])}{near}")
        if width < 1 or not 0 <= dropout < 1:
            raise UsageError(f"width={width} and dropout={dropout}: wanted 1 or more channels, and a share below 1")
        config = MitConfig.named(encoder)
        coarser = _reductions(config.reductions if reductions is None else reductions)
        self.classes = checked_classes(classes) if classes else ()
        self.words = _prior_words(self.classes or DEFAULT_WORDS if words is None else words)
        self._wants_priors = () if priors == "none" else self.words
        self._options: dict[str, Any] = {
            "encoder": next((name for name, each in PRESETS.items() if each == config), config.dict()),
            "words": list(self.words),
            "priors": priors,
            "empty": empty,
            "local": local,
            "fusion": fusion,
            "reductions": list(coarser),
            "width": width,
            "dropout": dropout,
        }
        attends = priors == "attention"
        self.normalise = Normalise("imagenet")
        self.encoder = MixTransformer(config)
        # As if the masks were channels of the image, with the image's own weights left as they were published.
        self.prior_stem = (
            nn.Conv2d(len(self.words), config.widths[0], 7, 4, 3, bias=False) if priors == "channel" else None
        )
        if self.prior_stem is not None:
            nn.init.zeros_(self.prior_stem.weight)
        self.attention = nn.ModuleList(
            MaskedAttention(channels, heads, by, empty=empty)
            for channels, heads, by in zip(config.widths, config.heads, coarser, strict=True)
            if attends
        )
        self.fuse = nn.ModuleList(_fusion(channels * (1 + attends), channels) for channels in config.widths)
        self.decoder = MLPDecoder(config.widths, width, 1, dropout=dropout)
        self.class_decoder: MLPDecoder | None = None
        self.word_decoder: MLPDecoder | None = None
        if self.classes:
            self.class_decoder = MLPDecoder(config.widths, width, len(self.classes), dropout=dropout)
            # Which class each word speaks for: (W, K), rows of 0 for words that are no class.
            same = [[word.casefold() == each.casefold() for each in self.classes] for word in self.words]
            self.register_buffer("speaks_for", torch.tensor(same).float(), persistent=False)
        if self.classes and attends:
            self.word_decoder = MLPDecoder(config.widths, max(1, width // 4), 1, dropout=dropout)
            self.mask_weight = nn.Parameter(torch.ones(()))

    # ---------------------------------------------------------------------------------------------- what it is called

    @property
    def card(self) -> ModelCard:
        """Colour images, at the resolution that they have."""
        return ModelCard(
            name="sam-cd",
            summary=MODELS["sam-cd"].summary,
            source="SAM-CD, ICASSP 2024 (abstract): Segment anything model guided semantic knowledge learning for "
            "remote sensing change detection",
            classes=self.classes,
            stride=STRIDE,
            parameters=self.parameter_count(),
            wants_priors=self._wants_priors,
            weights=self.weights_info,
        )

    def bind(self, classes: Sequence[str]) -> Self:
        """Itself, for the classes that it was trained with.

        Raises:
            VocabularyError: these are others, or it answers with change alone.
        """
        if self.classes:
            require_own_classes(self.card, classes)
        else:
            require_no_classes(self.card, classes)
        return self

    def config(self) -> dict[str, Any]:
        """The arguments that build this network again, as plain JSON values."""
        return {"classes": list(self.classes), **self._options}

    # ---------------------------------------------------------------------------------------------- what it answers

    def forward(
        self, before: Tensor, after: Tensor, valid: Tensor | None = None, priors: Tensor | None = None
    ) -> ChangeLogits:
        """Answer a batch of any height and width; it is taken to the device of the weights.

        Args:
            before: ``(B, 3, H, W)``, red, green and blue in 0..1.
            after: likewise.
            valid: not looked at.
            priors: ``(B, 2, words, H, W)``, masks of both dates and of each word of `wants_priors`: bool, or numbers
                0..1; None: none are at hand, the same as empty masks. Not looked at where none are wanted.

        Raises:
            InputError: there are not three bands, or the priors are not of that shape.
        """
        size = (before.shape[-2], before.shape[-1])
        images = _whole(torch.cat([self.normalise(before, "before"), self.normalise(after, "after")]))
        masks = _whole(self._masks(priors, before).to(images)) if self._wants_priors else None
        beside = self.prior_stem(masks) if self.prior_stem is not None and masks is not None else None
        seen = self.encoder(images, beside)
        local = self._local(seen, masks) if self.attention and masks is not None else []
        fused = []
        for level, (fuse, features) in enumerate(zip(self.fuse, seen, strict=True)):
            differences = [_difference(features)]
            if local:
                of_words = _difference(local[level])
                differences.append(of_words.amax(1) if self._options["fusion"] == "max" else of_words.sum(1))
            fused.append(fuse(torch.cat(differences, dim=1)))
        change = _enlarged(self.decoder(fused), size)
        if self.class_decoder is None:
            return ChangeLogits(change)
        classes = _enlarged(self.class_decoder(seen), size)
        if self.word_decoder is not None and masks is not None:
            classes = classes + self._spoken(self.word_decoder, local, masks, size)
        first, second = classes.chunk(2)
        return ChangeLogits(change, first, second)

    def _masks(self, priors: Tensor | None, before: Tensor) -> Tensor:
        """``(2B, words, H, W)``: all of the first date, then all of the second, as the images stand."""
        batch, (height, width) = len(before), before.shape[-2:]
        wanted = (batch, 2, len(self.words), height, width)
        if priors is None:
            return before.new_zeros((2 * batch, *wanted[2:]))
        if priors.shape != wanted:
            raise InputError(
                f"the priors are {tuple(priors.shape)}, and this network takes {wanted}: "
                f"(batch, dates, words, rows, cols), the words {', '.join(self.words)}; make them for these words"
            )
        return priors.transpose(0, 1).flatten(0, 1)

    def _local(self, seen: list[Tensor], masks: Tensor) -> list[Tensor]:
        """``(2B, words, C, h, w)`` at each of the four strides."""
        interest = masks >= OF_INTEREST
        pools = [pooled(interest, stride) for stride in STRIDES]
        found = [attend(*each) for attend, *each in zip(self.attention, seen, pools, strict=True)]
        if self._options["local"] == "everywhere":
            return found
        empty = ~interest.flatten(2).any(-1)[..., None, None]
        return [each * (pool | empty)[:, :, None] for each, pool in zip(found, pools, strict=True)]

    def _spoken(self, decode: MLPDecoder, local: list[Tensor], masks: Tensor, size: tuple[int, int]) -> Tensor:
        """``(2B, K, H, W)``: what the words say to the classes that they are; 0 for a word whose mask is empty."""
        flat = decode([each.flatten(0, 1) for each in local])
        said = _enlarged(flat.view(*masks.shape[:2], *flat.shape[-2:]), size)
        said = said + self.mask_weight * masks[..., : size[0], : size[1]]
        there = (masks >= OF_INTEREST).flatten(2).any(-1)[..., None, None]
        classes: Tensor = torch.einsum("bwij,wk->bkij", torch.where(there, said, 0), self.get_buffer("speaks_for"))
        return classes


# -------------------------------------------------------------------------------------------------------------- details


def _prior_words(words: Sequence[str]) -> tuple[str, ...]:
    if isinstance(words, str) or not words:
        raise VocabularyError(
            f"words={words!r}: wanted a list of at least one word whose masks are priors; priors=none does without"
        )
    return checked_classes(words)


def _reductions(given: Sequence[int]) -> tuple[int, ...]:
    fit = len(given) == len(STRIDES) and all(
        isinstance(by, int) and by > 0 and STRIDE // stride % by == 0 for by, stride in zip(given, STRIDES, strict=True)
    )
    if not fit:
        raise UsageError(f"reductions={list(given)} must be four numbers that divide 8, 4, 2 and 1, as [8, 4, 2, 1]")
    return tuple(given)


def _fusion(inside: int, out: int) -> nn.Sequential:
    fuse = nn.Sequential(nn.Conv2d(inside, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True))
    initialise(fuse)
    return fuse


def _difference(both: Tensor) -> Tensor:
    """``(2B, ...)`` of both dates to ``(B, ...)``: how far apart they are."""
    first, second = both.chunk(2)
    return (first - second).abs()


def _whole(images: Tensor) -> Tensor:
    """Multiples of the stride, by repeating the last row and column; `_enlarged` cuts them off again."""
    height, width = images.shape[-2:]
    return functional.pad(images, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")


def _enlarged(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits at a quarter of the images' side to pixels, without the rows and columns that `_whole` added."""
    full = functional.interpolate(logits, scale_factor=STRIDES[0], mode="bilinear", align_corners=False)
    return full[..., : size[0], : size[1]]
