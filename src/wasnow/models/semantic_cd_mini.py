"""Semantic-CD, small: the parts of the paper on a tower of three million parameters, for a machine without a GPU.

    before ─ blocks ─┬─ filter ─┬─ blocks ─ ... ─> pyramid ─> f1 ─┬─ change decoder ─> c ────────────────┐
    after  ─ the same┴────┬─────┴─ blocks ─ ... ─> pyramid ─> f2 ─┤                                      ├─> change
                          └ 3 filters, between blocks             │                                      │
    words ─ table of terms ─ W ─> t ─ cos(f, t) ─ class decoder ──┴─> classes before p1, after p2 ─> q ──┘

What is Semantic-CD (Zhu et al. 2025, arXiv 2501.06808) in it: one tower for both dates with bi-temporal filters between
its blocks, a cost volume of cosines between places and words, a class decoder with weights that all words share, a
change decoder that sees both dates. What is not: the tower is EfficientNet-Lite0 and trained along, the texts are those
of a sentence encoder, kept as a table (`wasnow.nn.terms`), and a matrix W that is learned takes them to the features.

**Change in the words that were asked for.** The change decoder knows no words. Two dates have the same word with the
probability sum_k p1[k] p2[k], so q = 1 - that is the chance that the words differ, and both must agree:

    1 / odds = 1 / odds(c) + 1 / odds(q)^b e^-a            a, b learned

so that grass turned into a road is no change for somebody who asked for water and buildings.

**Other.** A word stands for what it is near to. Of the five kinds of ground that the model was trained on, those that
no word was given for answer together as a last class, "other", so that nothing is forced into a word that does not fit.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from wasnow.errors import UsageError, VocabularyError, did_you_mean
from wasnow.models.contract import ChangeLogits, ModelCard, checked_classes, phrasings_of
from wasnow.models.network import Network
from wasnow.models.registry import MODELS
from wasnow.nn.efficientnet_lite import BLOCKS, OUTPUTS, WIDTHS, EfficientNetLite0
from wasnow.nn.filters import BiTemporalFilter
from wasnow.nn.normalise import Normalise
from wasnow.nn.one_pass import convolved
from wasnow.nn.term_phrasings import PHRASINGS
from wasnow.nn.terms import TermTable

NAME = "semantic-cd-mini"
WORDS = ("building", "road", "water", "vegetation", "bare ground")
"""The class words of the training; the default of ``--classes``."""

OTHER = "other"
SAME_WORD = -8.0
"""The highest log-odds of change where the likeliest word is the same at both dates: below every sensible threshold."""

CHANGES = ("both", "decoder", "classes")
"""What change may be read off: see ``change`` of `SemanticCDMini`."""

BLUR = 0.3
"""In training texts are moved by up to this in a random direction: the words to come lie between those that it saw."""

NEAR = 0.5
"""A word covers the trained kind of ground that it is nearest to, if their cosine (after W) is at least this."""

STRIDE = 32
FINEST = 4
"""Stride of the logits, before they are enlarged."""

CLASSES_AT_ONCE = 8
"""Classes that are answered together where no gradient is kept: bounds memory for long lists of words."""


class SemanticCDMini(Network):
    """The network; with random weights until a checkpoint brings others: a `ChangeModel` for any words.

    Args:
        classes: the words. ``"building|house|rooftop"`` is the class "building" in three phrasings, whose texts are
            averaged.
        filters: numbers of the blocks, 0 to 15, that a filter follows; empty: none.
        filter_grid: (rows, cols) that the filters' gates are stored for; 256 pixels at stride 8 by default.
        cost_volume: whether classes are read off the cosines with words; False: from features alone, for the words
            of training only.
        change: ``both`` as above; ``decoder``: the change decoder alone; ``classes``: q alone, the comparison of two
            single dates.
        width: channels of the pyramid.
        embed: dimensions in which features and words meet.
        head: channels of the decoders.
        threshold: what its card calls the change probability from which on a pixel counts as changed.
        gsd_range_m: the ground sampling distances that its card says it was measured at.
        phrasings: for each class further words for the same; in training, one to three are drawn for each batch, so
            that the words of a class come to lie together. None takes `wasnow.nn.term_phrasings.PHRASINGS`.
        synonyms: phrasings by class word that are averaged, as with ``|``.

    Raises:
        VocabularyError: no words; one empty, there twice, or not to be understood.
        UsageError: options that are unknown or do not fit each other.
    """

    encoder_parts = ("tower", "filters", "pyramid")

    def __init__(
        self,
        classes: Sequence[str] = WORDS,
        *,
        filters: Sequence[int] = (4, 10, 15),
        filter_grid: tuple[int, int] = (32, 32),
        cost_volume: bool = True,
        change: str = "both",
        width: int = 96,
        embed: int = 96,
        head: int = 32,
        threshold: float = 0.5,
        gsd_range_m: tuple[float, float] | None = None,
        phrasings: Mapping[str, Sequence[str]] | None = None,
        synonyms: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__()
        if change not in CHANGES:
            raise UsageError(
                f"change={change} is none of {', '.join(CHANGES)}{did_you_mean(str(change), list(CHANGES))}"
            )
        places = sorted({int(place) for place in filters})
        if len(places) != len(filters) or any(not 0 <= place < BLOCKS for place in places):
            raise UsageError(f"filters={list(filters)} must name different blocks of 0 to {BLOCKS - 1}")
        self._options: dict[str, Any] = {
            "filters": places,
            "filter_grid": list(filter_grid),
            "cost_volume": cost_volume,
            "change": change,
            "width": width,
            "embed": embed,
            "head": head,
            "threshold": threshold,
            "gsd_range_m": None if gsd_range_m is None else list(gsd_range_m),
        }
        rows, cols = filter_grid
        self.normalise = Normalise("lite")
        self.tower = EfficientNetLite0()
        self.filters = nn.ModuleDict({str(place): BiTemporalFilter(WIDTHS[place], (rows, cols)) for place in places})
        self.pyramid = Pyramid([WIDTHS[place] for place in OUTPUTS], width)
        self.terms = TermTable()
        self.words = nn.Linear(self.terms.width, embed, bias=False)
        self.places = nn.Conv2d(width, embed, 1)
        self.scale = nn.Parameter(torch.tensor(10.0))
        self._phrasings = {name: tuple(some) for name, some in (PHRASINGS if phrasings is None else phrasings).items()}
        self._options["phrasings"] = None if phrasings is None else {k: list(v) for k, v in self._phrasings.items()}
        self._base = tuple(classes)
        self._name(classes, synonyms or {}, own=True)
        self.class_decoder = ClassDecoder(width, head) if cost_volume else nn.Conv2d(width, len(self.classes), 1)
        self.change_decoder = ChangeDecoder(width, head) if change != "classes" else None
        self.agree = nn.Parameter(torch.tensor([0.0, 1.0]))  # a, b
        self.register_load_state_dict_post_hook(_forget_texts)  # type: ignore[no-untyped-call]

    # ---------------------------------------------------------------------------------------------- what it is called

    @property
    def card(self) -> ModelCard:
        """Colour images, at the resolutions that it was measured at."""
        gsd = self._options["gsd_range_m"]
        return ModelCard(
            name=NAME,
            summary=MODELS[NAME].summary,
            source="wasnow, after Zhu et al. 2025, arXiv 2501.06808",
            classes=self.classes,
            gsd_range_m=None if gsd is None else (gsd[0], gsd[1]),
            stride=STRIDE,
            threshold=self._options["threshold"],
            # Larger than customary: of a tile of 512 only half of what is looked at is kept.
            tile=1024,
            parameters=self.parameter_count(),
            other_words=tuple(self._base[place] for place in self._rest),
            remarks=self._remarks,
            weights=self.weights_info,
        )

    def config(self) -> dict[str, Any]:
        """The arguments that build this network again, as plain JSON values."""
        return {
            "classes": list(self.classes[: len(self._phrases)]),
            **self._options,
            "synonyms": {name: list(rest) for name, *rest in self._phrases if rest},
        }

    def bind(self, classes: Sequence[str]) -> Self:
        """The same weights, answering with these words (and "other", see above); itself, for the words that it has.

        Raises:
            VocabularyError: a word cannot be understood, or the network has no cost volume and these are others.
        """
        if tuple(classes) == self.classes:
            return self
        if not self._options["cost_volume"]:
            raise VocabularyError(
                f"{NAME} without cost_volume answers {', '.join(self.classes)} alone; leave the class words out"
            )
        other = copy.copy(self)
        # Submodules, parameters and buffers are shared with the original; only the words are its own.
        other._name(classes, {}, own=False)
        return other

    def _name(self, classes: Sequence[str], synonyms: Mapping[str, Sequence[str]], *, own: bool) -> None:
        phrases = phrasings_of(classes, synonyms)
        words = checked_classes([each[0] for each in phrases])
        self._phrases = phrases
        self._remarks: tuple[str, ...] = ()
        self._rest: tuple[int, ...] = ()
        # Its own words are looked up when first needed: a checkpoint brings the table that they are in.
        self._texts: Tensor | None = None
        if not own:
            self._texts, self._remarks = self._texts_of(phrases)
            self._rest = self._uncovered(words, self._texts)
            self._rest_texts = self._base_texts()[list(self._rest)]
            if self._rest and OTHER in [word.casefold() for word in words]:
                raise VocabularyError(f"{OTHER!r} is what this model calls all that no word covers; leave it out")
        self.classes = (*words, OTHER) if self._rest else words

    @torch.no_grad()
    def _uncovered(self, words: Sequence[str], texts: Tensor) -> tuple[int, ...]:
        """Which of the trained words none of these is near to, as places in the order of training."""
        near = self._directions(texts) @ self._directions(self._base_texts()).T
        best = near.argmax(dim=1)
        covered = {int(base) for row, base in enumerate(best) if near[row, base] >= NEAR}
        # The very word of training covers its kind, whatever a projection that learned little says.
        folded = [word.casefold() for word in words]
        covered |= {place for place, word in enumerate(self._base) if word.casefold() in folded}
        return tuple(place for place in range(len(self._base)) if place not in covered)

    def _base_texts(self) -> Tensor:
        """``(K, width of the table)``: the words of training."""
        return self._texts_of([(word,) for word in self._base])[0]

    def _texts_of(self, rows: Sequence[Sequence[str]]) -> tuple[Tensor, tuple[str, ...]]:
        """``(rows, width of the table)`` of unit length, and remarks; a word of training is the mean of its phrasings.

        Raises:
            VocabularyError: a phrase cannot be understood.
        """
        wide = [(*row, *self._phrasings.get(row[0], ())) if len(row) == 1 else row for row in rows]
        found, remarks = self.terms.find([phrase for row in wide for phrase in row])
        return _mean_directions(found, wide), remarks

    def _directions(self, texts: Tensor) -> Tensor:
        """Texts ``(K, width of the table)`` where features are: ``(K, E)`` of unit length."""
        weight = self.words.weight
        return functional.normalize(self.words(texts.to(weight.device, weight.dtype)), dim=-1)

    def _bound(self) -> Tensor:
        """``(K, width of the table)``: the texts of the words that are bound; in training, one to three phrasings."""
        if not self.training or self._rest:
            if self._texts is None:
                self._texts = self._texts_of(self._phrases)[0]
            return self._texts
        rows = []
        for phrases in self._phrases:
            known = tuple(dict.fromkeys((*phrases, *self._phrasings.get(phrases[0], ()))))
            drawn = torch.randint(len(known), (int(torch.randint(1, 4, ())),)).tolist()
            rows.append(tuple(known[i] for i in drawn))
        texts = _mean_directions(self.terms.find([phrase for row in rows for phrase in row])[0], rows)
        noise = functional.normalize(torch.randn_like(texts), dim=-1)
        return functional.normalize(texts + BLUR * torch.rand(len(texts), 1) * noise, dim=-1)

    # ---------------------------------------------------------------------------------------------- what it answers

    def forward(self, before: Tensor, after: Tensor, valid: Tensor | None = None) -> ChangeLogits:
        """Answer a batch of any height and width; it is taken to the device of the weights.

        Args:
            before: ``(B, 3, H, W)``, red, green and blue in 0..1.
            after: the same for AFTER.
            valid: not looked at.
        """
        return self.answer(self.encode(before, after, valid), (before.shape[-2], before.shape[-1]))

    def encode(self, before: Tensor, after: Tensor, valid: Tensor | None = None) -> tuple[Tensor, ...]:
        """The features of both dates, each ``(B, width, H / 4, W / 4)``: all that does not depend on the words."""
        parts = [self._seen(before, "before"), self._seen(after, "after")]
        if self.training:
            parts = [torch.cat(parts)]  # Norms take their statistics of both dates.
        # Twice as fast on a processor: depthwise convolutions over channels that lie last.
        parts = [self.tower.embed(x.contiguous(memory_format=torch.channels_last)) for x in parts]
        maps = []
        for number, block in enumerate(self.tower.blocks):
            # Until the first filter the dates know nothing of each other, and one at a time takes half the memory.
            parts = [block(x) for x in parts]
            if str(number) in self.filters:
                parts = [self._filtered(self.filters[str(number)], torch.cat(parts))]
            if number in OUTPUTS:
                maps.append(torch.cat(parts))
        first, second = self.pyramid(maps).chunk(2)
        return first, second

    def _seen(self, image: Tensor, date: Literal["before", "after"]) -> Tensor:
        """One date as the tower takes it, its sides made multiples of `STRIDE`."""
        # By repeating the last row and column; `answer` cuts them off again.
        missing = [-length % STRIDE for length in image.shape[-2:]]
        x = self.normalise(image, date)
        return functional.pad(x, (0, missing[1], 0, missing[0]), mode="replicate") if any(missing) else x

    def answer(self, features: tuple[Tensor, ...], size: tuple[int, int]) -> ChangeLogits:
        """The answer at ``size`` from what `encode` gave, in the words that are bound."""
        place = self.scale
        first, second = (one.to(place.device, place.dtype) for one in features)
        if self.training:
            before, after = self._classes(torch.cat([first, second])).chunk(2)
        else:
            before, after = self._classes(first), self._classes(second)
        parts = []
        if self.change_decoder is not None:
            parts.append(self.change_decoder(first, second))
        if self._options["change"] != "decoder":
            offset, slope = self.agree
            parts.append(offset + slope * differing(before, after))
        change = parts[0] if len(parts) == 1 else -torch.logaddexp(-parts[0], -parts[1])
        change, before, after = (_enlarged(one, size) for one in (change, before, after))
        if not self.training:
            # A word that is followed by itself is no change of words, however unsure both are.
            same = before.argmax(dim=1, keepdim=True) == after.argmax(dim=1, keepdim=True)
            change = torch.where(same, change.clamp(max=SAME_WORD), change)
        return ChangeLogits(change=change, before=before, after=after)

    def costs(self, features: Tensor) -> Tensor:
        """The cost volume ``(B, K, h, w)`` of ``(B, width, h, w)``: scaled cosines of each place with each word.

        Where "other" is among the classes, the kinds of ground that it stands for come last, one by one.
        """
        texts = self._bound()
        if self._rest:
            texts = torch.cat([texts, self._rest_texts])
        # The length is divided by afterwards: K maps are fewer than the channels of the places.
        places = self.places(features)
        length = torch.linalg.vector_norm(places, dim=1, keepdim=True).clamp(min=1e-12)
        along = functional.conv2d(places, self._directions(texts)[:, :, None, None].to(places))
        cosines: Tensor = along / length
        return self.scale * cosines

    def _classes(self, features: Tensor) -> Tensor:
        """``(B, width, h, w)`` to class logits ``(B, K, h, w)``."""
        if not isinstance(self.class_decoder, ClassDecoder):
            return self.class_decoder(features)  # type: ignore[no-any-return]
        logits: Tensor = self.class_decoder(features, self.costs(features))
        if not self._rest:
            return logits
        own = len(self._phrases)
        return torch.cat([logits[:, :own], logits[:, own:].logsumexp(dim=1, keepdim=True)], dim=1)

    @staticmethod
    def _filtered(block: nn.Module, x: Tensor) -> Tensor:
        """One filter on the maps of both dates, which lie one after the other in the batch."""
        rows, cols = x.shape[-2:]
        tokens = x.flatten(2).transpose(1, 2)
        first, second = block(*tokens.chunk(2), (rows, cols))
        both = torch.cat([first, second]).transpose(1, 2)
        return both.reshape(*both.shape[:2], rows, cols)


# ----------------------------------------------------------------------------------------------------------- the parts


class Pyramid(nn.Module):
    """Maps at four strides to one at the finest: a feature pyramid from the top down (Lin et al. 2017).

    Args:
        inside: channels of the maps, the finest first.
        width: channels of the answer.
    """

    def __init__(self, inside: Sequence[int], width: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in inside)
        self.smooth = nn.Sequential(_conv(width, width, 3), _conv(width, width, 3))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """``(B, ., H / 4, W / 4)`` to ``(B, ., H / 32, W / 32)`` as ``(B, width, H / 4, W / 4)``."""
        sides = [lateral(one) for lateral, one in zip(self.laterals, maps, strict=True)]
        x = sides.pop()
        while sides:
            finer = sides.pop()
            x = finer + functional.interpolate(x, size=finer.shape[-2:], mode="bilinear", align_corners=False)
        smoothed: Tensor = self.smooth(x)
        return smoothed


class ClassDecoder(nn.Module):
    """One logit a class from the class's own cost map and the features around, with weights that all classes share.

    Args:
        width: channels of the features.
        head: channels within.
    """

    def __init__(self, width: int, head: int) -> None:
        super().__init__()
        self.shared = _conv(width, head, 3)
        self.own = nn.Conv2d(1, head, 3, padding=1)
        self.around = nn.Conv2d(head, head, 3, padding=2, dilation=2, groups=head)
        self.logit = nn.Conv2d(head, 1, 1)

    def forward(self, features: Tensor, costs: Tensor) -> Tensor:
        """``(B, width, h, w)`` and ``(B, K, h, w)`` to ``(B, K, h, w)``: the costs, and what the decoder adds."""
        shared = self.shared(features)
        many = costs.shape[1] if torch.is_grad_enabled() else CLASSES_AT_ONCE
        return torch.cat([self._some(shared, some) for some in torch.split(costs, many, dim=1)], dim=1)

    def _some(self, shared: Tensor, costs: Tensor) -> Tensor:
        batch, classes, rows, cols = costs.shape
        # Strides of channels that lie last, which torch does not choose for a single channel: two layouts in one sum
        # take five times as long.
        places = costs.reshape(-1, 1, rows, cols)
        places = places.as_strided(places.shape, (rows * cols, 1, cols, 1)) if places.is_contiguous() else places
        own = self.own(places).unflatten(0, (batch, classes))
        x = self._looked_around(functional.relu(own + shared[:, None], inplace=True).flatten(0, 1))
        added: Tensor = self.logit(x)
        return costs + added.view(costs.shape)

    def _looked_around(self, x: Tensor) -> Tensor:
        """The positive part of ``x + around(x)`` in one convolution: 1 more in the middle of each kernel."""
        middle = functional.pad(self.around.weight.new_ones(1, 1, 1, 1), (1, 1, 1, 1))
        weight, bias = self.around.weight + middle, self.around.bias
        return convolved(x, weight, bias, padding=(2, 2), dilation=(2, 2), groups=self.around.groups, activation="relu")


class ChangeDecoder(nn.Module):
    """Log-odds that the ground changed, from the features of both dates; the same in either order of the dates.

    Args:
        width: channels of the features.
        head: half of the channels within.
    """

    def __init__(self, width: int, head: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _conv(2 * width, 2 * head, 1),
            _conv(2 * head, 2 * head, 3),
            _conv(2 * head, 2 * head, 3, dilation=2),
            nn.Conv2d(2 * head, 1, 1),
        )

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Two of ``(B, width, h, w)`` to ``(B, 1, h, w)``."""
        logits: Tensor = self.layers(torch.cat([(before - after).abs(), before + after], dim=1))
        return logits


def differing(before: Tensor, after: Tensor) -> Tensor:
    """Log-odds that two dates have different classes, were they independent: logit(1 - sum_k p1[k] p2[k]).

    Args:
        before: ``(B, K, h, w)`` class logits.
        after: the same for AFTER.

    Returns:
        ``(B, 1, h, w)``, finite for all finite logits.
    """
    first, second = (each.float().log_softmax(dim=1) for each in (before, after))
    same = (first + second).logsumexp(dim=1, keepdim=True).clamp(max=-1e-6)
    return torch.log(-torch.expm1(same)) - same


def _conv(inside: int, out: int, kernel: int, *, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, out, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(inplace=True),
    )


def _forget_texts(model: SemanticCDMini, _: Any) -> None:
    """A checkpoint has brought its own table: what was looked up before is no longer it."""
    model._texts = None


def _mean_directions(texts: Tensor, rows: Sequence[Sequence[str]]) -> Tensor:
    """Texts ``(n, D)`` of unit length, row after row, to ``(rows, D)``: the mean of each row, of unit length."""
    owner = torch.tensor([k for k, row in enumerate(rows) for _ in row])
    summed = texts.new_zeros(len(rows), texts.shape[1]).index_add(0, owner, texts)
    return functional.normalize(summed, dim=-1)


def _enlarged(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits at a quarter of the resolution to pixels, without the rows and columns that `encode` added."""
    whole = [length * FINEST for length in logits.shape[-2:]]
    full = functional.interpolate(logits, size=whole, mode="bilinear", align_corners=False)
    return full[..., : size[0], : size[1]]
