"""Common parts of maskers with a single network: weights, one threshold, a tokenizer.

folder or name ─ WeightsFolder ─┬─ digest          ─┐
                                ├─ preparation      ├─> SingleNetworkMasker ─ find (of the subclass) ─> regions
                                ├─ network          │
                                └─ tokenizer       ─┘   score: threshold
"""

from __future__ import annotations

from typing import ClassVar, Self

from wasnow.errors import UsageError
from wasnow.priors.prepare import Preparation
from wasnow.priors.regions import Key, Masker
from wasnow.priors.weights import FAMILIES, WeightsFolder, find_weights, load_network, load_tokenizer

SCORE = 0.5
"""The published threshold of both networks."""


class SingleNetworkMasker(Masker):
    """A `Masker` with one network; subclasses implement `find`.

    Args:
        found: weights of the masker's family.
        score: threshold, 0..1.
        device: of torch.

    Raises:
        UsageError: the threshold is not in 0..1.
        CheckpointError: the weights are damaged, or belong to another network.
    """

    family: ClassVar[str]
    preparation: ClassVar[Preparation]

    def __init__(self, found: WeightsFolder, *, score: float = SCORE, device: str = "cpu") -> None:
        if not 0 <= score < 1:
            raise UsageError(f"--score {score} must be from 0 to below 1, such as {SCORE}")
        self.score, self.device = score, device
        self.digest = found.digest()
        self.prepare = self.preparation.configured_by(found.preprocessor())
        self.network = load_network(found, device)
        self._tokenizer = load_tokenizer(found)

    @classmethod
    def load(cls, weights: str | None = None, *, score: float = SCORE, device: str = "cpu") -> Self:
        """Load the network from a folder or a name; see `find_weights`.

        Args:
            weights: None takes the default of the family.
            score: threshold, 0..1.
            device: of torch.

        Raises:
            CheckpointError: weights are missing or unsuitable.
            UsageError: the threshold is not in 0..1.
        """
        return cls(find_weights(weights or FAMILIES[cls.family].example, (cls.family,)), score=score, device=device)

    @property
    def key(self) -> Key:
        """See `Masker`."""
        return {"masker": self.family, "weights": self.digest, "score": self.score}
