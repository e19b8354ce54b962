"""A masker by its name, weights and thresholds, as in a command line or a record.

MaskerChoice("sam3", score=0.4) ─┬─ key    its identity: digests of the weights are computed, no network is built
                                 └─ load   the networks, ready to use
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
"""The networks of each masker, and the families of weights that each accepts."""

MASKERS = (*PARTS, FILES)
"""Values of ``--masker``; ``files`` are existing masks."""


@dataclass(frozen=True, slots=True)
class MaskerChoice:
    """A masker by its name.

    Attributes:
        name: of `PARTS`.
        weights: a folder or name for each of its networks, in order; empty for the default weights.
        box: see `wasnow.priors.grounded_sam`.
        text: see `wasnow.priors.grounded_sam`.
        score: threshold of the other maskers.

    Raises:
        UsageError: unknown masker, or the wrong number of weights.
    """

    name: str = GROUNDED_SAM
    weights: tuple[str, ...] = ()
    box: float = 0.30
    text: float = 0.25
    score: float = 0.5

    def __post_init__(self) -> None:
        if self.name == FILES:
            raise UsageError("masker 'files' has no networks. Give the mask files with --masks")
        if self.name not in PARTS:
            raise UsageError(
                f"unknown masker {self.name!r}; known are {', '.join(MASKERS)}{did_you_mean(self.name, MASKERS)}"
            )
        most = len(PARTS[self.name])
        if self.weights and len(self.weights) != most:
            raise UsageError(
                f"{len(self.weights)} weights are given, but {self.name} has {most} "
                + ("networks: give the detector, then the segmenter" if most == 2 else "network")
            )

    @property
    def found(self) -> tuple[WeightsFolder, ...]:
        """The folders of its weights.

        Raises:
            CheckpointError: some are missing; the message says how to get them.
        """
        named = self.weights or tuple(FAMILIES[families[0]].example for families in PARTS[self.name])
        return tuple(find_weights(name, families) for name, families in zip(named, PARTS[self.name], strict=True))

    @property
    def key(self) -> Key:
        """The `Masker.key` of the loaded masker. The weights are read once, and no network is built.

        Raises:
            CheckpointError: as for `found`.
        """
        digests = [one.digest() for one in self.found]
        if self.name == GROUNDED_SAM:
            parts = dict(zip(("detector", "segmenter"), digests, strict=True))
            return {"masker": self.name, **parts, "box": self.box, "text": self.text}
        return {"masker": self.name, "weights": digests[0], "score": self.score}

    def load(self, device: str = "cpu") -> Masker:
        """Load the networks.

        Raises:
            CheckpointError: weights are missing or unsuitable.
            UsageError: a threshold is not in 0..1.
        """
        if self.name == GROUNDED_SAM:
            from wasnow.priors.grounded_sam import GroundedSam

            return GroundedSam.load(*self.weights, box=self.box, text=self.text, device=device)
        if self.name == "sam3":
            from wasnow.priors.sam3 import Sam3

            return Sam3.load(*self.weights, score=self.score, device=device)
        from wasnow.priors.clipseg import ClipSeg

        return ClipSeg.load(*self.weights, score=self.score, device=device)
