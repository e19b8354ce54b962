"""SAM-CD, a reconstruction from its abstract: prior masks of class words select what attention reads again.

"Segment anything model guided semantic knowledge learning for remote sensing change detection", ICASSP 2024. Only the
abstract is public: a transformer encoder, masks from SAM prompted with text, a masked attention module (MAM), fusion of
local and global features, an MLP decoder, trained end to end. Everything beyond that sentence is our choice, each part
after a published design. It is not the SAM-CD of github.com/ggsDing/SAM-CD, another method of the same name.

    before ─ encoder ───── F1 ─┬─────────────────── |F1 - F2| ─┐
                               ├─ MAM(F1, P1) ─ L1 ─┐          ├─ Conv3x3 BN ReLU ─ MLP decoder ─> change
    P1, P2, a mask per word    │                    ├ |L1 - L2| ┘
                               ├─ MAM(F2, P2) ─ L2 ─┘  maximum over the words       all this at strides 4, 8, 16, 32
    after  ─ the same ──── F2 ─┘

    beyond the paper, with classes:    F_t ─ MLP decoder ─> K logits per date from the image
                                       L_t ─ MLP decoder ─ + a P_t ─> one more per word from its mask

==========  ======================================================================================================
encoder     SegFormer's MiT-B1 (Xie et al. 2021), shared by the dates: `wasnow.nn.segformer`
MAM         Mask2Former's masked attention (Cheng et al. 2022) on MiT's heads and grids: `wasnow.nn.masked_attention`;
            P max-pooled to each stride and to the grid of its keys
fusion      absolute differences, as in siamese networks since FC-Siam-diff (Daudt et al. 2018)
decoder     SegFormer's; one logit of change, the difference of its two: the same cross-entropy
==========  ======================================================================================================

**Priors** P are masks of both dates and of each word (``words``) from any source, see `SAMCD.forward`. Without priors
all masks are empty. For an empty mask the local features read everything (``empty="global"``) or are 0 (``"zero"``).

**Several words.** The MAM has one set of weights for all words. Each word has its own mask and local features; the
differences of the words are combined by their maximum (``fusion="max"``) or sum. The order of words does not affect the
change, nor does a word with empty masks if ``empty="zero"``.

**Inside** (``local="inside"``, our addition): a word's local features are kept inside its mask and are 0 elsewhere, so
that |L1 - L2| shows where a mask appeared or disappeared. Without it they exist everywhere, include F, and show little
of the mask.

**Classes** go beyond the paper, which detects change only. With K ``classes`` each date gets K logits from the global
features. A word that is also a class adds to its logit a term from the local features and the mask itself, on images
where its mask is not empty.

**Controls.** ``priors="none"``: no masks and no MAM. ``"channel"``: no MAM; masks are further channels of the image
with weights initialised with 0. Ground truth instead of predicted masks is ``"attention"`` with other masks; without
masks, that is a network of equal size without priors.

The network is symmetric in time: swapped dates give the same change and swapped classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from wasnow.errors import InputError, UsageError, VocabularyError, did_you_mean
from wasnow.models.contract import ChangeLogits, ModelCard, checked_classes, require_no_classes, require_own_classes
from wasnow.models.network import Network
from wasnow.models.registry import MODELS
from wasnow.nn.layers import conv_bn_relu, pad_to_multiple, upsample
from wasnow.nn.masked_attention import Empty, MaskedAttention, pooled
from wasnow.nn.normalise import Normalise
from wasnow.nn.segformer import PRESETS, STRIDE, STRIDES, MitConfig, MixTransformer, MLPDecoder, initialise

DEFAULT_WORDS = ("building",)
"""The subject of LEVIR-CD and WHU-CD."""

OPTIONS: Mapping[str, tuple[str, ...]] = {
    "priors": ("attention", "channel", "none"),
    "empty": ("global", "zero"),
    "local": ("everywhere", "inside"),
    "fusion": ("max", "sum"),
}

OF_INTEREST = 0.5
"""The attention reads places where a prior is at least this."""


class SAMCD(Network):
    """The network, with random weights until a checkpoint provides others: a `ChangeModel` that takes prior masks.

    Args:
        classes: the class words, in logit order; none: change only, as in the paper.
        encoder: a name of `PRESETS`, or the fields of a `MitConfig`.
        words: the words of the prior masks, in this order; None: the classes, or "building" without classes.
        priors: ``attention``, or a control: ``channel``, ``none``.
        empty: the local features of an empty mask, see `MaskedAttention`.
        local: where a word has local features: ``everywhere``, or ``inside`` its mask and 0 elsewhere. ``empty``
            applies to empty masks in both cases.
        fusion: how the differences of the words are combined: ``max`` or ``sum``.
        reductions: how much coarser the grids of the MAM's keys are at the four strides; None: as in the encoder, which
            gives 32 px for all. Smaller numbers resolve smaller parts of a mask and cost more.
        width: channels of the decoder.
        dropout: of the decoder, 0..1.

    Attributes:
        classes: the class words.
        words: the words of the prior masks.

    Raises:
        VocabularyError: no words, or a word or class is empty or occurs twice.
        UsageError: unknown or incompatible options.
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
            raise UsageError(f"width={width} and dropout={dropout}: width must be at least 1, dropout 0 to below 1")
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
        # Equivalent to masks as further image channels, with the published weights of the image channels unchanged.
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
            # Which class each word belongs to: (W, K), rows of 0 for words that are not a class.
            same = [[word.casefold() == each.casefold() for each in self.classes] for word in self.words]
            self.register_buffer("class_of_word", torch.tensor(same).float(), persistent=False)
        if self.classes and attends:
            self.word_decoder = MLPDecoder(config.widths, max(1, width // 4), 1, dropout=dropout)
            self.mask_weight = nn.Parameter(torch.ones(()))

    # ----------------------------------------------------------------------------------------------- card and words

    @property
    def card(self) -> ModelCard:
        """Colour images at their own resolution."""
        return ModelCard(
            name="sam-cd",
            summary=MODELS["sam-cd"].summary,
            source="SAM-CD, ICASSP 2024 (abstract): Segment anything model guided semantic knowledge learning for "
            "remote sensing change detection",
            classes=self.classes,
            stride=STRIDE,
            parameters=self.parameter_count(),
            symmetric=True,
            wants_priors=self._wants_priors,
            weights=self.weights_info,
        )

    def bind(self, classes: Sequence[str]) -> Self:
        """Return itself for the classes that it was trained with.

        Raises:
            VocabularyError: these are others, or the network has no classes.
        """
        if self.classes:
            require_own_classes(self.card, classes)
        else:
            require_no_classes(self.card, classes)
        return self

    def config(self) -> dict[str, Any]:
        """Return the arguments that build this network again, as JSON values."""
        return {"classes": list(self.classes), **self._options}

    # ----------------------------------------------------------------------------------------------------- inference

    def forward(
        self, before: Tensor, after: Tensor, valid: Tensor | None = None, priors: Tensor | None = None
    ) -> ChangeLogits:
        """Predict a batch of any height and width; tensors are moved to the device of the weights.

        Args:
            before: ``(B, 3, H, W)``, red, green and blue in 0..1.
            after: ``(B, 3, H, W)``, the second date.
            valid: ignored.
            priors: ``(B, 2, words, H, W)``, masks of both dates and of each word of the card's ``wants_priors``: bool,
                or numbers 0..1; None means empty masks. Ignored by a network without priors.

        Raises:
            InputError: there are not three bands, or the priors have another shape.
        """
        size = (before.shape[-2], before.shape[-1])
        images = pad_to_multiple(torch.cat([self.normalise(before, "before"), self.normalise(after, "after")]), STRIDE)
        masks = pad_to_multiple(self._masks(priors, before).to(images), STRIDE) if self._wants_priors else None
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
        change = upsample(self.decoder(fused), STRIDES[0], size)
        if self.class_decoder is None:
            return ChangeLogits(change)
        classes = upsample(self.class_decoder(seen), STRIDES[0], size)
        if self.word_decoder is not None and masks is not None:
            classes = classes + self._spoken(self.word_decoder, local, masks, size)
        first, second = classes.chunk(2)
        return ChangeLogits(change, first, second)

    def _masks(self, priors: Tensor | None, before: Tensor) -> Tensor:
        """Return ``(2B, words, H, W)``: all masks of the first date, then all of the second."""
        batch, (height, width) = len(before), before.shape[-2:]
        wanted = (batch, 2, len(self.words), height, width)
        if priors is None:
            return before.new_zeros((2 * batch, *wanted[2:]))
        if priors.shape != wanted:
            raise InputError(
                f"the priors have shape {tuple(priors.shape)} instead of {wanted}: "
                f"(batch, dates, words, rows, cols) for the words {', '.join(self.words)}; make them for these words"
            )
        return priors.transpose(0, 1).flatten(0, 1)

    def _local(self, seen: list[Tensor], masks: Tensor) -> list[Tensor]:
        """Return local features ``(2B, words, C, h, w)`` at each of the four strides."""
        interest = masks >= OF_INTEREST
        pools = [pooled(interest, stride) for stride in STRIDES]
        found = [attend(*each) for attend, *each in zip(self.attention, seen, pools, strict=True)]
        if self._options["local"] == "everywhere":
            return found
        empty = ~interest.flatten(2).any(-1)[..., None, None]
        return [each * (pool | empty)[:, :, None] for each, pool in zip(found, pools, strict=True)]

    def _spoken(self, decode: MLPDecoder, local: list[Tensor], masks: Tensor, size: tuple[int, int]) -> Tensor:
        """Return ``(2B, K, H, W)``, the terms that words add to their classes; 0 for a word with an empty mask."""
        flat = decode([each.flatten(0, 1) for each in local])
        terms = upsample(flat.view(*masks.shape[:2], *flat.shape[-2:]), STRIDES[0], size)
        terms = terms + self.mask_weight * masks[..., : size[0], : size[1]]
        present = (masks >= OF_INTEREST).flatten(2).any(-1)[..., None, None]
        owners = self.get_buffer("class_of_word")
        classes: Tensor = torch.einsum("bwij,wk->bkij", torch.where(present, terms, 0), owners)
        return classes


# -------------------------------------------------------------------------------------------------------------- details


def _prior_words(words: Sequence[str]) -> tuple[str, ...]:
    if isinstance(words, str) or not words:
        raise VocabularyError(
            f"words={words!r}: must be a list of at least one word; use priors=none for a network without priors"
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
    fuse = conv_bn_relu(inside, out)
    initialise(fuse)
    return fuse


def _difference(both: Tensor) -> Tensor:
    """Return the absolute difference ``(B, ...)`` of both dates, given as ``(2B, ...)``."""
    first, second = both.chunk(2)
    return (first - second).abs()
