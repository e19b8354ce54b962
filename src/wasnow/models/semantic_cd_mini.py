"""Semantic-CD, small: the parts of the paper on a tower of three million parameters, for a machine without a GPU.

    before ─ tower ─> pyramid ─> f1 ─┬─ change decoder ─> c ────────────────┐
    after  ─ tower ─> pyramid ─> f2 ─┤                                      ├─> change
                                     │                                      │
    words ─ table of terms ─ W ─> t ─ cos(f, t) ─ class decoder ─> p1, p2 ─> q ┘

From Semantic-CD (Zhu et al. 2025, arXiv 2501.06808) come a cost volume of cosines between places and words, a class
decoder with weights that all words share, and a change decoder that sees both dates. The tower is EfficientNet-Lite0
is trained too. The text embeddings are those of a sentence encoder, stored as a table (`wasnow.nn.terms`), and a
learned matrix W projects them to the features. The paper's bi-temporal filters are left out: their gates see a whole
tile, so the result of a pixel depended on the tiling, and an ablation found no gain (docs/experiments.md). Each date
is encoded separately, and swapped dates give the same change.

**Change of the given classes.** The change decoder does not depend on the class words. Two dates have the same class
with probability sum_k p1[k] p2[k]; q is 1 minus that. Change is reported where both agree:

    1 / odds = 1 / odds(c) + 1 / odds(q)^b e^-a            a, b learned

With the classes water and building, grass that became a road is therefore not a change.

**Other.** Trained classes that none of the given words is close to form a last class, "other", so that pixels are not
forced into a class that does not fit.
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
from wasnow.models.semantic_cd_mini_decoders import (
    ChangeDecoder,
    ClassDecoder,
    Pyramid,
    differing,
    mean_directions,
    upsample_cropped,
)
from wasnow.nn.efficientnet_lite import OUTPUTS, WIDTHS, EfficientNetLite0
from wasnow.nn.normalise import Normalise
from wasnow.nn.term_phrasings import PHRASINGS
from wasnow.nn.terms import TermTable

NAME = "semantic-cd-mini"
WORDS = ("building", "road", "water", "vegetation", "bare ground")
"""The class words of the training; the default of ``--classes``."""

OTHER = "other"
SAME_WORD = -8.0
"""Largest log-odds of change where the most probable class is the same at both dates; below any usual threshold."""

CHANGES = ("both", "decoder", "classes")
"""Sources of change; see ``change`` of `SemanticCDMini`."""

BLUR = 0.3
"""Largest random displacement of text embeddings in training, because new words lie between the trained ones."""

NEAR = 0.5
"""Least cosine (after W) at which a word covers the trained class that it is closest to."""

STRIDE = 32
FINEST = 4
"""Stride of the logits before they are upsampled."""


class SemanticCDMini(Network):
    """A `ChangeModel` for any class words. Its weights are random until a checkpoint is loaded.

    Args:
        classes: the class words. ``"building|house|rooftop"`` is the class "building" with the mean embedding of three
            phrasings.
        cost_volume: predict classes from cosines with the words; False: from features alone, for the trained words
            only.
        change: ``both`` as above; ``decoder``: the change decoder alone; ``classes``: q alone, the comparison of two
            single dates.
        width: channels of the pyramid at strides 8 to 32.
        fine: channels of its output at stride 4.
        embed: dimensions of the common space of features and words.
        head: channels of the decoders.
        coarser: factor of a second, coarser pixel size; change is the larger of the two probabilities, classes are the
            mean. 1: one size only.
        threshold: default change probability above which a pixel is changed, in the card.
        offsets: log-odds added to change per word of ``classes``, where a pixel has that class at exactly one date, so
            that one threshold suits all classes. A bound word uses the offset of the closest trained word.
        gsd_range_m: pixel sizes at which the model was evaluated, in the card.
        phrasings: further phrasings of each class; in training one to three are drawn per batch. None takes
            `wasnow.nn.term_phrasings.PHRASINGS`.
        synonyms: phrasings by class word that are averaged, as with ``|``.

    Raises:
        VocabularyError: the list of words is empty, or a word is empty, repeated or unknown.
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

    # ---------------------------------------------------------------------------------------------- class words

    @property
    def card(self) -> ModelCard:
        """Input and defaults: RGB at the resolutions at which the model was evaluated."""
        gsd = self._options["gsd_range_m"]
        return ModelCard(
            name=NAME,
            summary=MODELS[NAME].summary,
            source="wasnow, after Zhu et al. 2025, arXiv 2501.06808",
            classes=self.classes,
            gsd_range_m=None if gsd is None else (gsd[0], gsd[1]),
            stride=STRIDE,
            threshold=self._options["threshold"],
            # Larger than usual: with a tile of 512 half of the computed pixels are discarded.
            tile=1024,
            parameters=self.parameter_count(),
            other_words=tuple(self._base[place] for place in self._rest),
            remarks=self._remarks,
            weights=self.weights_info,
        )

    def config(self) -> dict[str, Any]:
        """Return the arguments that build this network again, as JSON values."""
        return {
            "classes": list(self.classes[: len(self._phrases)]),
            **self._options,
            "synonyms": {name: list(rest) for name, *rest in self._phrases if rest},
        }

    def bind(self, classes: Sequence[str]) -> Self:
        """Return a network with the same weights for these words (and "other", see above).

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
        # Submodules, parameters and buffers are shared with the original.
        other._name(classes, {}, own=False)
        return other

    def _name(self, classes: Sequence[str], synonyms: Mapping[str, Sequence[str]], *, own: bool) -> None:
        phrases = phrasings_of(classes, synonyms)
        words = checked_classes([each[0] for each in phrases])
        self._phrases = phrases
        self._remarks: tuple[str, ...] = ()
        self._rest: tuple[int, ...] = ()
        # The trained words are looked up when first needed, because a checkpoint contains their table.
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
        """Return ``(K,)`` offsets of the log-odds of change per class; None without offsets."""
        own = self._options["offsets"]
        if own is None:
            return None
        known = torch.tensor(own, device=place.device, dtype=place.dtype)
        near = (self._directions(self._bound()) @ self._directions(self._base_texts()).T).argmax(dim=1)
        return torch.cat([known[near], known.new_zeros(classes - len(near))])  # "other" comes last

    @torch.no_grad()
    def _uncovered(self, words: Sequence[str], texts: Tensor) -> tuple[int, ...]:
        """Return the indices of the trained classes that no word is close to."""
        near = self._directions(texts) @ self._directions(self._base_texts()).T
        best = near.argmax(dim=1)
        covered = {int(base) for row, base in enumerate(best) if near[row, base] >= NEAR}
        # A trained word always covers its own class, also with an untrained projection.
        folded = [word.casefold() for word in words]
        covered |= {place for place, word in enumerate(self._base) if word.casefold() in folded}
        return tuple(place for place in range(len(self._base)) if place not in covered)

    def _base_texts(self) -> Tensor:
        """Return ``(K, width of the table)`` embeddings of the trained words."""
        return self._texts_of([(word,) for word in self._base])[0]

    def _texts_of(self, rows: Sequence[Sequence[str]]) -> tuple[Tensor, tuple[str, ...]]:
        """Return ``(rows, width of the table)`` unit embeddings and remarks.

        A trained word is the mean of its phrasings.

        Raises:
            VocabularyError: a phrase cannot be understood.
        """
        wide = [(*row, *self._phrasings.get(row[0], ())) if len(row) == 1 else row for row in rows]
        found, remarks = self.terms.find([phrase for row in wide for phrase in row])
        return mean_directions(found, wide), remarks

    def _directions(self, texts: Tensor) -> Tensor:
        """Project embeddings ``(K, width of the table)`` to unit vectors ``(K, E)`` in feature space."""
        weight = self.words.weight
        return functional.normalize(self.words(texts.to(weight.device, weight.dtype)), dim=-1)

    def _bound(self) -> Tensor:
        """Return ``(K, width of the table)`` embeddings of the bound words; in training of one to three phrasings."""
        if not self.training or self._rest:
            if self._texts is None:
                self._texts = self._texts_of(self._phrases)[0]
            return self._texts
        rows = []
        for phrases in self._phrases:
            known = tuple(dict.fromkeys((*phrases, *self._phrasings.get(phrases[0], ()))))
            drawn = torch.randint(len(known), (int(torch.randint(1, 4, ())),)).tolist()
            rows.append(tuple(known[i] for i in drawn))
        texts = mean_directions(self.terms.find([phrase for row in rows for phrase in row])[0], rows)
        noise = functional.normalize(torch.randn_like(texts), dim=-1)
        return functional.normalize(texts + BLUR * torch.rand(len(texts), 1) * noise, dim=-1)

    # ---------------------------------------------------------------------------------------------- inference

    def forward(self, before: Tensor, after: Tensor, valid: Tensor | None = None) -> ChangeLogits:
        """Predict a batch of any height and width; it is moved to the device of the weights.

        Args:
            before: ``(B, 3, H, W)``, red, green and blue in 0..1.
            after: the same for AFTER.
            valid: not looked at.
        """
        return self.answer(self.encode(before, after, valid), (before.shape[-2], before.shape[-1]))

    def encode(self, before: Tensor, after: Tensor, valid: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return the features of both dates, each ``(B, fine, H / 4, W / 4)``; they do not depend on the words.

        Where the network looks twice (``coarser``), those of the coarser images follow.
        """
        if self.training:
            first, second = self.features(torch.cat([before, after])).chunk(2)  # Batch norms see both dates.
            return first, second
        found = [self.features(before), self.features(after)]
        side = self._options["coarser"]
        if side > 1:
            # `features` pads the sides of the coarser grid to its stride.
            found += [
                self.features(functional.avg_pool2d(_on(self.scale, x), side, ceil_mode=True)) for x in (before, after)
            ]
        return tuple(found)

    def features(self, image: Tensor) -> Tensor:
        """Return ``(B, fine, h, w)`` features at stride 4 of the padded ``(B, 3, H, W)`` image with values 0..1."""
        features: Tensor = self.pyramid(self.tower(self._seen(image)))
        return features

    def log2_gsd(self, image: Tensor) -> Tensor:
        """Estimate ``(B,)`` log2 of the pixel size in metres from ``(B, 3, H, W)`` images with values 0..1."""
        guess: Tensor = self.pixel_size(self.statistics(image))[:, 0]
        return guess

    def statistics(self, image: Tensor) -> Tensor:
        """Return ``(B, D)`` mean and log deviation of each channel at four strides, the input of `log2_gsd`."""
        maps = [each.float().flatten(2) for each in self.tower(self._seen(image))]
        return torch.cat([part for x in maps for part in (x.mean(2), x.std(2).clamp(min=1e-3).log())], dim=1)

    def _seen(self, image: Tensor) -> Tensor:
        """Normalise one date and pad its sides to multiples of `STRIDE`."""
        # Mirrored padding; `answer` crops it.
        missing = [-length % STRIDE for length in image.shape[-2:]]
        x: Tensor = self.normalise(image, "before")
        if any(missing):
            smallest = min(image.shape[-2:])
            mode = "reflect" if max(missing) < smallest else "replicate"
            x = functional.pad(x, (0, missing[1], 0, missing[0]), mode=mode)
        # Depthwise convolutions are twice as fast on a CPU with channels last.
        return x.contiguous(memory_format=torch.channels_last)

    def answer(self, features: tuple[Tensor, ...], size: tuple[int, int]) -> ChangeLogits:
        """Predict at ``size`` from the features of `encode`, for the bound words."""
        features = tuple(_on(self.scale, one) for one in features)
        looks = [self._look(*features[place : place + 2]) for place in range(0, len(features), 2)]
        change, before, after = (upsample_cropped(part, size, FINEST) for part in looks[0])
        for look in looks[1:]:
            coarse = [upsample_cropped(part, size, FINEST * self._options["coarser"]) for part in look]
            change = torch.maximum(change, coarse[0])
            before, after = (before + coarse[1]) / 2, (after + coarse[2]) / 2
        if not self.training:
            first, second = before.argmax(dim=1, keepdim=True), after.argmax(dim=1, keepdim=True)
            offsets = self._offsets(before.shape[1], change)
            if offsets is not None:
                change = change + offsets[first] + offsets[second]
            # The same class at both dates is not a change of class, also where both are uncertain.
            same = first == second
            change = torch.where(same, change.clamp(max=SAME_WORD), change)
        return ChangeLogits(change=change, before=before, after=after)

    def _look(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-odds of change and the class logits of both dates, at stride 4."""
        if self.training:
            before, after = self._classes(torch.cat([first, second])).chunk(2)
        else:
            before, after = self._classes(first), self._classes(second)
        decided = None if self.change_decoder is None else self.change_decoder(first, second)
        return self.fused(decided, differing(before, after)), before, after

    def fused(self, decided: Tensor | None, differ: Tensor) -> Tensor:
        """Combine both sources of change by the equation at the top of the module.

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
        """Return the cost volume ``(B, K, h, w)``: scaled cosines of each pixel of ``(B, width, h, w)`` with each word.

        Where "other" is among the classes, the kinds of ground that it stands for come last, one by one.
        """
        texts = self._bound()
        if self._rest:
            texts = torch.cat([texts, self._rest_texts])
        # Divide by the length afterwards: there are fewer words than channels.
        places = self.places(features)
        length = torch.linalg.vector_norm(places, dim=1, keepdim=True).clamp(min=1e-12)
        along = functional.conv2d(places, self._directions(texts)[:, :, None, None].to(places))
        cosines: Tensor = along / length
        return self.scale * cosines

    def _classes(self, features: Tensor) -> Tensor:
        """Return class logits ``(B, K, h, w)`` of features ``(B, width, h, w)``."""
        if not isinstance(self.class_decoder, ClassDecoder):
            return self.class_decoder(features)  # type: ignore[no-any-return]
        logits: Tensor = self.class_decoder(features, self.costs(features))
        if not self._rest:
            return logits
        own = len(self._phrases)
        return torch.cat([logits[:, :own], logits[:, own:].logsumexp(dim=1, keepdim=True)], dim=1)


def _on(place: Tensor, x: Tensor) -> Tensor:
    """Move a tensor to the device and the precision of the weights."""
    return x.to(place.device, place.dtype)


def _forget_texts(model: SemanticCDMini, _: Any) -> None:
    """Forget embeddings that were looked up in the previous table; called after a checkpoint was loaded."""
    model._texts = None
