"""Semantic-CD, small: the parts of the paper on a tower of three million parameters, for a machine without a GPU.

    before ─ tower ─> pyramid ─> f1 ─┬─ change decoder ─> c ────────────────┐
    after  ─ tower ─> pyramid ─> f2 ─┤                                      ├─> change
                                     │                                      │
    words ─ table of terms ─ W ─> t ─ cos(f, t) ─ class decoder ─> p1, p2 ─> q ┘

From Semantic-CD (Zhu et al. 2025, arXiv 2501.06808) come a cost volume of cosines between places and words, a class
decoder with weights that all words share, and a change decoder that sees both dates. The tower is EfficientNet-Lite0
and trained along; the texts are those of a sentence encoder, kept as a table (`wasnow.nn.terms`), and a learned
matrix W takes them to the features. The paper's bi-temporal filters are left out: their gates see a whole tile, so
the answer for a pixel depended on where tiles fall, and an ablation found no gain (docs/experiments.md). Every date
is therefore encoded alone, and the answer is the same in either order of the dates.

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
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from wasnow.errors import UsageError, VocabularyError, did_you_mean
from wasnow.models.contract import ChangeLogits, ModelCard, checked_classes, phrasings_of
from wasnow.models.network import Network
from wasnow.models.registry import MODELS
from wasnow.nn.efficientnet_lite import OUTPUTS, WIDTHS, EfficientNetLite0
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
        cost_volume: whether classes are read off the cosines with words; False: from features alone, for the words
            of training only.
        change: ``both`` as above; ``decoder``: the change decoder alone; ``classes``: q alone, the comparison of two
            single dates.
        width: channels of the pyramid at the strides 8 to 32.
        fine: channels of its answer, at stride 4.
        embed: dimensions in which features and words meet.
        head: channels of the decoders.
        coarser: the pixel size, as a multiple of the given one, at which the images are seen a second time: change is
            the higher of the two probabilities, classes the mean. 1: once only.
        threshold: what its card calls the change probability from which on a pixel counts as changed.
        offsets: log-odds that are added to change, for each word of ``classes``, where a pixel has that word at one
            date and another word at the other: some words are found with more confidence than others, and one
            threshold serves all. A bound word takes that of the word it is nearest to. None: nothing is added.
        gsd_range_m: the ground sampling distances that its card says it was measured at.
        phrasings: for each class further words for the same; in training, one to three are drawn for each batch, so
            that the words of a class come to lie together. None takes `wasnow.nn.term_phrasings.PHRASINGS`.
        synonyms: phrasings by class word that are averaged, as with ``|``.

    Raises:
        VocabularyError: no words; one empty, there twice, or not to be understood.
        UsageError: options that are unknown or do not fit each other.
    """

    encoder_parts = ("tower", "pyramid")

    def __init__(
        self,
        classes: Sequence[str] = WORDS,
        *,
        cost_volume: bool = True,
        change: str = "both",
        width: int = 96,
        fine: int = 64,
        embed: int = 96,
        head: int = 24,
        coarser: int = 1,
        threshold: float = 0.5,
        offsets: Sequence[float] | None = None,
        gsd_range_m: tuple[float, float] | None = None,
        phrasings: Mapping[str, Sequence[str]] | None = None,
        synonyms: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__()
        if change not in CHANGES:
            raise UsageError(
                f"change={change} is none of {', '.join(CHANGES)}{did_you_mean(str(change), list(CHANGES))}"
            )
        self._options: dict[str, Any] = {
            "cost_volume": cost_volume,
            "change": change,
            "width": width,
            "fine": fine,
            "embed": embed,
            "head": head,
            "coarser": coarser,
            "threshold": threshold,
            "offsets": None if offsets is None else list(offsets),
            "gsd_range_m": None if gsd_range_m is None else list(gsd_range_m),
        }
        self.normalise = Normalise("lite")
        self.tower = EfficientNetLite0()
        self.pyramid = Pyramid([WIDTHS[place] for place in OUTPUTS], width, fine)
        self.pixel_size = nn.Linear(2 * sum(WIDTHS[place] for place in OUTPUTS), 1)
        self.terms = TermTable()
        self.words = nn.Linear(self.terms.width, embed, bias=False)
        self.places = nn.Conv2d(fine, embed, 1)
        self.scale = nn.Parameter(torch.tensor(10.0))
        self._phrasings = {name: tuple(some) for name, some in (PHRASINGS if phrasings is None else phrasings).items()}
        self._options["phrasings"] = None if phrasings is None else {k: list(v) for k, v in self._phrasings.items()}
        self._base = tuple(classes)
        self._name(classes, synonyms or {}, own=True)
        self.class_decoder = ClassDecoder(fine, head) if cost_volume else nn.Conv2d(fine, len(self.classes), 1)
        self.change_decoder = ChangeDecoder(fine, head) if change != "classes" else None
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
    def _offsets(self, classes: int, place: Tensor) -> Tensor | None:
        """``(K,)``: what is added to the log-odds of change for each class that is bound; None where nothing is."""
        own = self._options["offsets"]
        if own is None:
            return None
        known = torch.tensor(own, device=place.device, dtype=place.dtype)
        near = (self._directions(self._bound()) @ self._directions(self._base_texts()).T).argmax(dim=1)
        return torch.cat([known[near], known.new_zeros(classes - len(near))])  # "other" comes last

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
        """The features of both dates, each ``(B, fine, H / 4, W / 4)``: all that does not depend on the words.

        Where the network looks twice (``coarser``), those of the coarser images follow.
        """
        if self.training:
            first, second = self.features(torch.cat([before, after])).chunk(2)  # Norms see both dates.
            return first, second
        found = [self.features(before), self.features(after)]
        side = self._options["coarser"]
        if side > 1:
            # Strides of the coarser grid must fit too: its sides are padded by `features`.
            found += [
                self.features(functional.avg_pool2d(_on(self.scale, x), side, ceil_mode=True)) for x in (before, after)
            ]
        return tuple(found)

    def features(self, image: Tensor) -> Tensor:
        """``(B, 3, H, W)``, 0..1, of one date to ``(B, fine, h, w)`` at stride 4 of the padded image."""
        features: Tensor = self.pyramid(self.tower(self._seen(image)))
        return features

    def log2_gsd(self, image: Tensor) -> Tensor:
        """``(B,)``: log2 of the pixel size in metres of ``(B, 3, H, W)``, 0..1, judged by what the images show."""
        guess: Tensor = self.pixel_size(self.statistics(image))[:, 0]
        return guess

    def statistics(self, image: Tensor) -> Tensor:
        """``(B, D)``: what `log2_gsd` is judged by: mean and log of the deviation of each channel at four strides."""
        maps = [each.float().flatten(2) for each in self.tower(self._seen(image))]
        return torch.cat([part for x in maps for part in (x.mean(2), x.std(2).clamp(min=1e-3).log())], dim=1)

    def _seen(self, image: Tensor) -> Tensor:
        """One date as the tower takes it, its sides made multiples of `STRIDE`."""
        # By reflection; `answer` cuts the rows and columns off again.
        missing = [-length % STRIDE for length in image.shape[-2:]]
        x: Tensor = self.normalise(image, "before")
        if any(missing):
            smallest = min(image.shape[-2:])
            mode = "reflect" if max(missing) < smallest else "replicate"
            x = functional.pad(x, (0, missing[1], 0, missing[0]), mode=mode)
        # Twice as fast on a processor: depthwise convolutions over channels that lie last.
        return x.contiguous(memory_format=torch.channels_last)

    def answer(self, features: tuple[Tensor, ...], size: tuple[int, int]) -> ChangeLogits:
        """The answer at ``size`` from what `encode` gave, in the words that are bound."""
        features = tuple(_on(self.scale, one) for one in features)
        looks = [self._look(*features[place : place + 2]) for place in range(0, len(features), 2)]
        change, before, after = (_enlarged(part, size, FINEST) for part in looks[0])
        for look in looks[1:]:
            coarse = [_enlarged(part, size, FINEST * self._options["coarser"]) for part in look]
            change = torch.maximum(change, coarse[0])
            before, after = (before + coarse[1]) / 2, (after + coarse[2]) / 2
        if not self.training:
            first, second = before.argmax(dim=1, keepdim=True), after.argmax(dim=1, keepdim=True)
            offsets = self._offsets(before.shape[1], change)
            if offsets is not None:
                change = change + offsets[first] + offsets[second]
            # A word that is followed by itself is no change of words, however unsure both are.
            same = first == second
            change = torch.where(same, change.clamp(max=SAME_WORD), change)
        return ChangeLogits(change=change, before=before, after=after)

    def _look(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-odds of change and the class logits of both dates, at stride 4."""
        if self.training:
            before, after = self._classes(torch.cat([first, second])).chunk(2)
        else:
            before, after = self._classes(first), self._classes(second)
        decided = None if self.change_decoder is None else self.change_decoder(first, second)
        return self.fused(decided, differing(before, after)), before, after

    def fused(self, decided: Tensor | None, differ: Tensor) -> Tensor:
        """Both must say so: see the head of the module.

        Args:
            decided: log-odds by the change decoder.
            differ: log-odds that the words differ.
        """
        if decided is not None and self._options["change"] == "decoder":
            return decided
        offset, slope = self.agree
        by_words = offset + slope * differ
        return by_words if decided is None else -torch.logaddexp(-decided, -by_words)

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


# ----------------------------------------------------------------------------------------------------------- the parts


class Pyramid(nn.Module):
    """Maps at four strides to one at the finest: a feature pyramid from the top down (Lin et al. 2017).

    Smoothing at full width happens at stride 8, where it costs a quarter of what it costs at stride 4.

    Args:
        inside: channels of the maps, the finest first.
        width: channels at the strides 8 to 32.
        fine: channels of the answer.
    """

    def __init__(self, inside: Sequence[int], width: int, fine: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in inside[1:])
        self.smooth = _conv(width, width, 3)
        self.narrow = nn.Conv2d(width, fine, 1, bias=False)
        self.finest = nn.Conv2d(inside[0], fine, 1)
        self.sharpen = _conv(fine, fine, 3)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """``(B, ., H / 4, W / 4)`` to ``(B, ., H / 32, W / 32)`` as ``(B, fine, H / 4, W / 4)``."""
        sides = [lateral(one) for lateral, one in zip(self.laterals, maps[1:], strict=True)]
        x = sides.pop()
        while sides:
            x = sides.pop() + _doubled(x)
        x = self.finest(maps[0]) + _doubled(self.narrow(self.smooth(x)))
        sharp: Tensor = self.sharpen(functional.relu(x, inplace=True))
        return sharp


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


def _on(place: Tensor, x: Tensor) -> Tensor:
    """The same where the weights are, in their precision."""
    return x.to(place.device, place.dtype)


def _doubled(x: Tensor) -> Tensor:
    """Twice as many rows and columns."""
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


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
    # Sums of slices: OpenVINO cannot convert index_add.
    parts = torch.split(texts, [len(row) for row in rows])
    return functional.normalize(torch.stack([part.sum(dim=0) for part in parts]), dim=-1)


def _enlarged(logits: Tensor, size: tuple[int, int], times: int) -> Tensor:
    """Logits at a stride of ``times`` to pixels, without the rows and columns that `encode` added."""
    full = functional.interpolate(logits, scale_factor=times, mode="bilinear", align_corners=False)
    return full[..., : size[0], : size[1]]
