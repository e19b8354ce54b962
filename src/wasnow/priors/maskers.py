"""Which masker is meant: its name, weights and thresholds, as a command line or a record has them.

MaskerChoice("sam3", score=0.4) ─┬─ key    what it is: digests of the weights are read, the networks are not
                                 └─ load   the networks, ready to look
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wasnow.errors import UsageError, did_you_mean
from wasnow.priors.regions import Key, Masker
from wasnow.priors.weights import FAMILIES, WeightsFolder, find_weights

GROUNDED_SAM, FILES = "grounded-sam", "files"

PARTS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    GROUNDED_SAM: (("grounding-dino",), ("sam", "sam2")),
    "sam3": (("sam3",),),
    "clipseg": (("clipseg",),),
}
"""The networks of each masker, and the families of weights that will do for each."""

MASKERS = (*PARTS, FILES)
"""All that ``--masker`` can say; ``files`` are masks that somebody has already."""


@dataclass(frozen=True, slots=True)
class MaskerChoice:
    """A masker by its name.

    Attributes:
        name: of `PARTS`.
        weights: a folder or name for each of its networks, in order; empty takes those that its documentation names.
        box: see `wasnow.priors.grounded_sam`.
        text: likewise.
        score: of the others.

    Raises:
        UsageError: no such masker, or another number of weights than it has networks.
    """

    name: str = GROUNDED_SAM
    weights: tuple[str, ...] = ()
    box: float = 0.30
    text: float = 0.25
    score: float = 0.5

    def __post_init__(self) -> None:
        if self.name == FILES:
            raise UsageError("masks from files need no masker to find them; name the files with --masks")
        if self.name not in PARTS:
            raise UsageError(
                f"no masker is called {self.name!r}; known are {', '.join(MASKERS)}{did_you_mean(self.name, MASKERS)}"
            )
        most = len(PARTS[self.name])
        if self.weights and len(self.weights) != most:
            raise UsageError(
                f"{len(self.weights)} weights are given, and {self.name} has {most} "
                + ("networks: name the detector, then the segmenter" if most == 2 else "network")
            )

    @property
    def found(self) -> tuple[WeightsFolder, ...]:
        """The folders of its weights.

        Raises:
            CheckpointError: some are missing; says how to get them.
        """
        named = self.weights or tuple(FAMILIES[families[0]].example for families in PARTS[self.name])
        return tuple(find_weights(name, families) for name, families in zip(named, PARTS[self.name], strict=True))

    @property
    def key(self) -> Key:
        """The `Masker.key` of what `load` gives; the weights are read once, and no network is made.

        Raises:
            CheckpointError: as `found`.
        """
        digests = [one.digest() for one in self.found]
        if self.name == GROUNDED_SAM:
            parts = dict(zip(("detector", "segmenter"), digests, strict=True))
            return {"masker": self.name, **parts, "box": self.box, "text": self.text}
        return {"masker": self.name, "weights": digests[0], "score": self.score}

    def load(self, device: str = "cpu") -> Masker:
        """The networks.

        Raises:
            CheckpointError: weights are missing or unfit.
            UsageError: a threshold is no score.
        """
        if self.name == GROUNDED_SAM:
            from wasnow.priors.grounded_sam import GroundedSam

            return GroundedSam.load(*self.weights, box=self.box, text=self.text, device=device)
        if self.name == "sam3":
            from wasnow.priors.sam3 import Sam3

            return Sam3.load(*self.weights, score=self.score, device=device)
        from wasnow.priors.clipseg import ClipSeg

        return ClipSeg.load(*self.weights, score=self.score, device=device)
