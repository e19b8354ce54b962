"""The words that a model knows without a text encoder: terms with their sentence embeddings, in every checkpoint.

    names       (bytes,)  uint8     "building\\nroad\\nwater\\n..."
    embeddings  (N, 384)  float16   all-MiniLM-L6-v2, unit length

    "Parking-Lots" ── folded: case, hyphens, plurals, British spelling ──> a term: its embedding
    "brick hovel"  ── none of the terms ──┬─ the extra [text] is there ──> the encoder embeds it
                                          ├─ terms inside it, slips ─────> their weighted mean, and a remark
                                          └─ nothing near ───────────────> VocabularyError, with suggestions

The packaged table is made by ``mini/make_terms.py`` from the lists in ``mini/terms``. Terms are English.
"""

from __future__ import annotations

import difflib
import functools
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from wasnow.errors import VocabularyError
from wasnow.nn import sentence
from wasnow.vocabulary import join_words

PHRASINGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "building": (
            "building", "house", "rooftop", "roof", "warehouse", "residential building", "apartment block",
            "apartment building", "block of flats", "office building", "commercial building", "industrial building",
            "factory", "school building", "hospital", "shopping mall", "hotel", "skyscraper", "garage", "hangar",
            "church", "mosque", "temple", "farmhouse", "barn", "bungalow", "hut", "cottage", "terraced house",
            "detached house", "row house", "public building", "built structure", "dwelling", "home", "shop",
            "housing", "residential house", "flat roof", "tiled roof", "metal roof", "storage building",
            "brick building", "concrete building", "tall building", "small house",
        ),
        "road": (
            "road", "street", "highway", "motorway", "asphalt", "paved road", "asphalt road", "car park",
            "parking lot", "lane", "avenue", "roundabout", "road intersection", "driveway", "tarmac",
            "paved surface", "freeway", "expressway", "dual carriageway", "main road", "side street",
            "residential street", "alley", "slip road", "road junction", "crossroads", "overpass", "flyover",
            "boulevard", "access road", "service road", "country road", "ring road", "concrete road",
            "parking area", "city street", "two-lane road", "traffic lane", "road surface", "pavement",
        ),
        "water": (
            "water", "lake", "river", "pond", "swimming pool", "sea", "ocean", "reservoir", "canal", "stream",
            "lagoon", "bay", "water body", "open water", "creek", "harbour basin", "estuary", "coastal water",
            "fish pond", "water surface", "shallow water", "deep water", "pool", "dam reservoir", "flood water",
            "river channel", "artificial lake", "inland water", "waterway", "fjord", "marina basin", "brook",
            "flooded area", "standing water", "muddy water", "drainage canal", "seawater", "retention pond",
        ),
        "vegetation": (
            "vegetation", "tree", "forest", "grass", "crop field", "lawn", "shrub", "bush", "woodland", "meadow",
            "grassland", "orchard", "low vegetation", "garden", "park", "crops", "palm tree", "pasture", "hedge",
            "cropland", "farmland", "plantation", "vineyard", "tree canopy", "deciduous forest",
            "coniferous forest", "mangrove", "shrubland", "green space", "row of trees", "street tree", "scrub",
            "green field", "golf course grass", "wheat field", "palm grove", "plants", "greenery", "marsh plants",
            "rice field", "turf",
        ),
        "bare ground": (
            "bare ground", "soil", "sand", "desert", "unpaved ground", "bare soil", "bare land", "dirt",
            "bare earth", "sandy ground", "gravel", "sand dune", "barren land", "unpaved area", "exposed soil",
            "vacant lot", "cleared land", "ploughed field", "fallow field", "construction site", "dry soil",
            "beach", "rocky ground", "rock", "earthworks", "quarry", "wasteland", "dusty ground", "excavated earth",
            "dry riverbed", "undeveloped land", "ground", "land", "sandy desert", "dirt track", "mudflat",
            "open ground", "levelled ground", "sandbank",
        ),
    }
)  # fmt: skip
"""By default word: what people call it, or a kind of it. The shipped model was trained on these."""

HELD_OUT_PHRASINGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "building": (
            "villa", "mansion", "tower block", "depot", "farm building", "supermarket", "cabin", "high-rise", "shed",
            "man-made structure",
        ),
        "road": (
            "roadway", "thoroughfare", "trunk road", "asphalt surface", "carriageway", "highway interchange",
            "paved street", "parking space", "turnpike",
        ),
        "water": (
            "body of water", "water basin", "tidal inlet", "irrigation pond", "river water", "gulf", "surface water",
            "tarn", "water channel", "strait",
        ),
        "vegetation": (
            "woods", "foliage", "thicket", "grassy area", "agricultural field", "shrubbery", "grove", "herbage",
            "tall grass", "undergrowth",
        ),
        "bare ground": (
            "earth", "dirt ground", "unvegetated ground", "sandy soil", "arid land", "dune field", "empty lot",
            "bare field", "stony ground",
        ),
    }
)  # fmt: skip
"""Likewise, and never trained on: for measuring whether new words land near."""

PACKAGED = Path(__file__).with_name("terms.safetensors")
"""The table that comes with wasnow."""

HEAD_WEIGHT = 1.5
"""What the noun that a phrase is about weighs, where each other term inside the phrase weighs 1.

Against what the encoder itself makes of 27 such phrases: mean cosine 0.84 with 1 and 1.5, 0.83 with 2, 0.80 with 4.
"""


class TermTable(nn.Module):
    """Terms and their embeddings; `find` turns the words of a user into vectors.

    A new table is the packaged one. The state dict holds all of it, so that a checkpoint brings its own table, of
    whatever size, and loading it replaces this one.

    Attributes:
        names: ``(bytes,)`` uint8: the terms as UTF-8, a line each.
        embeddings: ``(N, 384)``, a row of unit length for each term.
    """

    names: Tensor
    embeddings: Tensor

    def __init__(self) -> None:
        super().__init__()
        packaged = load_file(PACKAGED)
        self.register_buffer("names", packaged["names"])
        self.register_buffer("embeddings", packaged["embeddings"])
        self._index: _Index | None = None
        self._rows: dict[str, int] | None = None

    @classmethod
    def of(cls, terms: Sequence[str], embeddings: Tensor) -> TermTable:
        """A table of these terms.

        Args:
            terms: without line breaks.
            embeddings: ``(N, width)`` of unit length; stored as they are.
        """
        table = cls()
        table.load_state_dict({"names": pack_names(terms), "embeddings": embeddings})
        return table

    @property
    def terms(self) -> tuple[str, ...]:
        """All of them, in the order of the rows of ``embeddings``."""
        return unpack_names(self.names)

    @property
    def width(self) -> int:
        """How many numbers an embedding has."""
        return int(self.embeddings.shape[1])

    def __len__(self) -> int:
        return int(self.embeddings.shape[0])

    def find(self, phrases: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
        """What a network sees of these phrases, and what a user should know of it.

        Slips of spelling are corrected also where the encoder is installed: it makes nothing of them (the cosine of
        "biulding" and "building" is 0.38), unless it has all words of the phrase whole.

        Args:
            phrases: words or a few words each, in English.

        Returns:
            ``(n, width)`` float32 of unit length, on the device of the table; and a remark for each phrase that had
            to be taken as something else.

        Raises:
            VocabularyError: a phrase is none of the terms, the encoder is not installed, and nothing is near.
        """
        # Most words are written as the table writes them; for all other ways there is an index, which takes a second.
        rows = [self._written.get(phrase) for phrase in phrases]
        if None not in rows:
            return nn.functional.normalize(self._unit(cast(list[int], rows)), dim=1), ()
        index = self._indexed()
        rows = [index.row(phrase) for phrase in phrases]
        unknown = dict.fromkeys(phrase for phrase, row in zip(phrases, rows, strict=True) if row is None)
        remarks: list[str] = []
        vectors: dict[str, Tensor] = {}
        if unknown and self.width == sentence.WIDTH and sentence.available():
            readable = [
                phrase
                for phrase in unknown
                if plain(phrase) and (index.corrected(phrase) is None or sentence.has_words_of(phrase))
            ]
            vectors = dict(zip(readable, sentence.embed(readable).to(self.embeddings.device), strict=True))
        for phrase in unknown:
            if phrase in vectors:
                continue
            weights = index.nearest(phrase)
            if not weights:
                raise VocabularyError(self._refusal(phrase, index.suggestions(phrase)))
            taken = join_words([repr(index.terms[row]) for row in weights])
            remarks.append(f"{_shown(phrase)} is none of the {len(self):,} terms of this model: taken as {taken}")
            shares = torch.tensor(list(weights.values()), device=self.embeddings.device)
            vectors[phrase] = (self._unit(list(weights)) * shares[:, None]).sum(0)
        found = self._unit([row or 0 for row in rows])
        for place, phrase in enumerate(phrases):
            if phrase in vectors:
                found[place] = vectors[phrase]
        return nn.functional.normalize(found, dim=1), tuple(remarks)

    def _unit(self, rows: Sequence[int]) -> Tensor:
        """``(n, width)`` float32: these rows, of unit length again after their rounding to 16 bits."""
        picked = self.embeddings[torch.tensor(rows, dtype=torch.int64, device=self.embeddings.device)]
        return nn.functional.normalize(picked.float(), dim=1)

    def _refusal(self, phrase: str, suggestions: Sequence[str]) -> str:
        instead = f"use {' or '.join(map(repr, suggestions))}" if suggestions else "use another word"
        return (
            f"{_shown(phrase)} is none of the {len(self):,} terms of this model, nor near one; {instead}, "
            f"or let a text encoder read any phrase: {sentence.ADVICE}"
        )

    @property
    def _written(self) -> Mapping[str, int]:
        """Rows by their terms, letter for letter."""
        if self._rows is None:
            self._rows = {term: row for row, term in reversed(list(enumerate(self.terms)))}
        return self._rows

    def _indexed(self) -> _Index:
        if self._index is None:
            self._index = _Index.of(self.terms)
        return self._index

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Take a table of any size; PyTorch alone would insist on the size of this one."""
        names, embeddings = (state_dict.get(prefix + name) for name in ("names", "embeddings"))
        if names is not None and embeddings is not None:
            fault = _fault(names, embeddings)
            if fault:
                error_msgs.append(f"{prefix}names and {prefix}embeddings are no table of terms: {fault}")
                return
            self.names = torch.empty_like(names, device=self.names.device)
            self.embeddings = torch.empty_like(embeddings, device=self.embeddings.device)
            self._index = self._rows = None
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


def _shown(phrase: str) -> str:
    """The phrase in quotes, cut where it would fill a message."""
    return repr(phrase if len(phrase) <= 60 else f"{phrase[:57]}...")


def pack_names(terms: Sequence[str]) -> Tensor:
    """``(bytes,)`` uint8: the terms as UTF-8, a line each."""
    return torch.tensor(list("\n".join(terms).encode()), dtype=torch.uint8)


def unpack_names(names: Tensor) -> tuple[str, ...]:
    """The terms that `pack_names` packed."""
    return tuple(names.cpu().numpy().tobytes().decode().split("\n"))


def _fault(names: Tensor, embeddings: Tensor) -> str:
    """What keeps these two from being a table, or nothing."""
    try:
        count = len(unpack_names(names))
    except UnicodeDecodeError:
        return "the names are no UTF-8"
    if embeddings.ndim != 2 or len(embeddings) != count:
        return f"{count} names for embeddings of shape {tuple(embeddings.shape)}"
    return ""


# ---------------------------------------------------------------------------------------------------- looking words up


@dataclass(frozen=True, slots=True)
class _Index:
    """Where each term stands, by every way to write it.

    Attributes:
        terms: as they are in the table.
        plain: by `plain` form.
        stemmed: by `stemmed` form, and by the same without spaces.
        lexicon: each word that occurs in a term, stemmed, with the shortest term that has it.
        words: the same words as the terms write them, to compare slips with.
        longest: words in the longest term.
    """

    terms: tuple[str, ...]
    plain: Mapping[str, int]
    stemmed: Mapping[str, int]
    lexicon: Mapping[str, int]
    words: frozenset[str]
    longest: int

    @classmethod
    def of(cls, terms: tuple[str, ...]) -> _Index:
        keys = [stemmed(term) for term in terms]
        by_length = sorted(range(len(terms)), key=lambda row: (len(keys[row].split()), row))
        written: dict[str, int] = {}
        joined: dict[str, int] = {}
        lexicon: dict[str, int] = {}
        for row in by_length:
            written.setdefault(keys[row], row)
            joined.setdefault(keys[row].replace(" ", ""), row)
            for word in keys[row].split():
                lexicon.setdefault(word, row)
        return cls(
            terms,
            {plain(term): row for row, term in reversed(list(enumerate(terms)))},
            joined | written,
            lexicon,
            frozenset(word for term in terms for word in plain(term).split()),
            max(len(key.split()) for key in keys),
        )

    def row(self, phrase: str) -> int | None:
        """The term that this phrase is, however it is written; None for none."""
        if not (text := plain(phrase)):
            return None
        if text in self.plain:
            return self.plain[text]
        return self._row_of(stemmed(phrase).split())

    def _row_of(self, words: Sequence[str]) -> int | None:
        text = " ".join(words)
        return self.stemmed.get(text, self.stemmed.get(text.replace(" ", "")))

    def corrected(self, phrase: str) -> int | None:
        """The term that this phrase is but for slips of spelling; None for none."""
        return self._row_of(self._spelt(phrase))

    def nearest(self, phrase: str) -> dict[int, float]:
        """The terms that stand for an unknown phrase, in its order, and their weights; empty where nothing is near."""
        words = self._spelt(phrase)
        if not words:
            return {}
        whole = self.corrected(phrase)
        if whole is not None:
            return {whole: 1.0}
        head = _head(words)
        taken: dict[int, tuple[int, int]] = {}  # start in the phrase -> row, words
        free = [True] * len(words)
        for length in range(min(self.longest, len(words)), 0, -1):
            for start in range(len(words) - length, -1, -1):
                end = start + length
                if not all(free[start:end]) or {words[start], words[end - 1]} & _SMALL_WORDS:
                    continue
                row = self._row_of(words[start:end])
                if row is not None:
                    taken[start] = row, length
                    free[start:end] = [False] * length
        if not taken:
            known = words[head] in self.lexicon and words[head] not in _MODIFIERS
            return {self.lexicon[words[head]]: 1.0} if known else {}
        weights: dict[int, float] = {}
        for start, (row, length) in sorted(taken.items()):
            weight = HEAD_WEIGHT if start <= head < start + length else 1.0
            weights[row] = max(weight, weights.get(row, 0.0))
        return weights

    def suggestions(self, phrase: str) -> list[str]:
        """Up to three terms that share a word with the phrase, or look like it."""
        key = stemmed(phrase)
        words = set(key.split()) - _SMALL_WORDS
        sharing = [term for term in self.terms if words & set(stemmed(term).split())]
        sharing.sort(key=lambda term: len(stemmed(term).split()))
        alike = difflib.get_close_matches(key[:60], list(self.terms), n=3, cutoff=0.7)
        return list(dict.fromkeys([*sharing, *alike]))[:3]

    def _spelt(self, phrase: str) -> list[str]:
        """The words of the phrase, stemmed, slips of words of the lexicon corrected."""
        return [_stem(self._corrected_word(word)) for word in plain(phrase).split()]

    def _corrected_word(self, word: str) -> str:
        if len(word) < 4 or _stem(word) in self.lexicon or _stem(word) in _SMALL_WORDS:
            return word
        for form in (word, _stem(word)):  # the plural of a slip, too
            slips = ((_distance(form, known), known) for known in self.words if _may_be_slip(form, known))
            edits, near = min(slips, default=(9, word))
            if edits <= (1 if len(word) < 8 else 2):
                return near
        return word


def plain(phrase: str) -> str:
    """The phrase without case, accents, punctuation and an article: ``"The  Car-Park"`` -> ``"car park"``."""
    decomposed = unicodedata.normalize("NFKD", phrase.replace("'", "").replace("’", "")).casefold()
    letters = "".join(letter for letter in decomposed if not unicodedata.combining(letter))
    return re.sub(r"^(the|an?) (?=.)", "", re.sub(r"[\W_]+", " ", letters).strip())


def stemmed(phrase: str) -> str:
    """The `plain` phrase, each word in the singular and in American spelling; not for reading, only for comparing."""
    return " ".join(_stem(word) for word in plain(phrase).split())


_SPELLINGS = (
    (r"(col|harb|neighb|vap|lab|arm|parl|arb)our", r"\1or"),
    (r"(cent|met|theat|fib|lit)re", r"\1er"),
    (r"(level|channel|tunnel|travel|gravel|fuel|model|marl)l(ed|ing|er)$", r"\1\2"),
    (r"is(ed|ing|er|ation)$", r"iz\1"),
    (r"^grey", "gray"),
    (r"^plough", "plow"),
    (r"^tyre", "tire"),
    (r"^kerb", "curb"),
    (r"^mould", "mold"),
    (r"^sulph", "sulf"),
    (r"^storey", "story"),
    (r"^draught", "draft"),
    (r"^aluminium", "aluminum"),
    (r"^aeroplane", "airplane"),
    (r"^programme", "program"),
    (r"^armoured", "armored"),
    (r"^dyke", "dike"),
)
"""British to American, each a pattern within one word."""

_PLURALS = {"oases": "oasis", "cacti": "cactus", "strata": "stratum", "fungi": "fungus", "geese": "goose"}
"""Those that no ending tells."""


@functools.lru_cache(maxsize=1 << 13)
def _stem(word: str) -> str:
    for british, american in _SPELLINGS:
        word = re.sub(british, american, word)
    word = _PLURALS.get(word, word)
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    # Both numbers must meet, whatever comes out: factory, factorie(s); bush, bushe(s); house, house(s); leaf, leave(s).
    for ending, instead in (("ie", "y"), ("oe", "o"), ("ve", "f"), ("se", "s"), ("xe", "x"), ("ze", "z")):
        if len(word) > 3 and word.endswith(ending):
            return word[:-2] + instead
    return word[:-1] if word.endswith(("che", "she")) else word


def _words(text: str) -> frozenset[str]:
    return frozenset(_stem(word) for word in text.split())


_PREPOSITIONS = _words("""
    of with without in on at near by under over along for from between beside behind inside around into to and or next
    made covered used full
""")
_MEASURES = _words("""
    row group pile heap stack body stretch patch area piece kind type sort cluster line strip mass expanse bunch clump
    lot bit part section block layer field
""")
"""Before "of", these are not what the phrase is about: a row of houses is houses."""

_SMALL_WORDS = _PREPOSITIONS | _words("a an the very some any other that which is are")

_MODIFIERS = _words("""
    red green blue white black grey brown yellow orange pink purple beige silver golden dark light bright shiny big
    small large tiny tall long short wide narrow high low old new young modern dry wet damp flat round straight single
    double main minor major dense sparse open closed natural artificial public private urban rural abandoned ruined
    unfinished damaged destroyed burnt burned flooded frozen mixed permanent temporary heavy deep shallow clear
    rough smooth empty dead living primary secondary tertiary
""")
"""Words that occur in terms and say nothing about what a thing is."""


def _head(words: Sequence[str]) -> int:
    """Where the word is that the phrase is about: the last before a preposition, as in "house with red roof"."""
    for place, word in enumerate(words):
        if place and word in _PREPOSITIONS:
            if word == "of" and words[place - 1] in _MEASURES and place + 1 < len(words):
                return place + 1 + _head(words[place + 1 :])
            return place - 1
    return len(words) - 1


def _may_be_slip(word: str, known: str) -> bool:
    """Cheap, and before counting edits: people rarely miss the first letter, and short words have many neighbours."""
    if word[0] != known[0] or len(known) < 4 or abs(len(word) - len(known)) > 2:
        return False
    # "horse" is no slip of "house": in a short word letters are swapped, doubled or left out, but not replaced.
    return len(word) > 5 or len(word) != len(known) or sorted(word) == sorted(known)


def _distance(one: str, other: str) -> int:
    """Letters to add, drop, replace or swap with a neighbour: optimal string alignment (Damerau 1964)."""
    before_last: list[int] = []
    last = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        row = [i]
        for j, against in enumerate(other, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (letter != against))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == against:
                cost = min(cost, before_last[j - 2] + 1)
            row.append(cost)
        before_last, last = last, row
    return last[-1]
