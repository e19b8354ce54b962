"""Labels of a batch (`Target`) and the value of a loss (`Loss`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from wasnow.models.contract import ChangeLogits

NO_CLASS = -1
"""The class index of a pixel without a class label: unchanged in SECOND, or not annotated."""


@dataclass(frozen=True, slots=True)
class Target:
    """The labels of a batch.

    Attributes:
        change: ``(B, H, W)`` bool, True where the ground changed; undefined where not valid.
        valid: ``(B, H, W)`` bool, True where change is labelled.
        before: ``(B, H, W)`` int64 class index 0..K-1 at the first date, `NO_CLASS` where not labelled; None for
            labels of change only.
        after: the same for the second date; None if and only if ``before`` is None.

    Raises:
        ValueError: shapes or types differ from these.
    """

    change: Tensor
    valid: Tensor
    before: Tensor | None = None
    after: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.before is None) != (self.after is None):
            raise ValueError("give class labels of both dates or of neither")
        for name, wanted in (
            ("change", torch.bool),
            ("valid", torch.bool),
            ("before", torch.int64),
            ("after", torch.int64),
        ):
            tensor: Tensor | None = getattr(self, name)
            if tensor is None:
                continue
            if tensor.ndim != 3 or tensor.shape != self.change.shape or tensor.dtype != wanted:
                raise ValueError(
                    f"target {name} is {tuple(tensor.shape)} {tensor.dtype}, wanted (B, H, W) {wanted} "
                    f"like change {tuple(self.change.shape)}"
                )

    @classmethod
    def of_codes(cls, before: Tensor, after: Tensor, *, ignore: int = 255) -> Target:
        """Return the target of class codes as written by `Vocabulary.encode` and stored in datasets such as SECOND.

        Args:
            before: ``(B, H, W)`` integers: 0 unchanged, 1..K the classes, ``ignore`` not labelled.
            after: the same for the second date. A pixel is changed if either date has a class, and not labelled if
                either date is not.
            ignore: the code of pixels without a label.
        """
        valid = (before != ignore) & (after != ignore)
        first, second = (torch.where(valid, codes.long(), 0) for codes in (before, after))
        return cls((first > 0) | (second > 0), valid, first - 1, second - 1)

    @classmethod
    def of_change(cls, change: Tensor, *, ignore: int = 255) -> Target:
        """Return the target of ``(B, H, W)`` codes (0 unchanged, 1 changed, ``ignore`` not labelled) or bool."""
        if change.dtype == torch.bool:
            return cls(change, torch.ones_like(change))
        return cls(change == 1, change != ignore)

    def to(self, device: torch.device | str) -> Target:
        """Return the target on another device."""
        before, after = (None if one is None else one.to(device) for one in (self.before, self.after))
        return Target(self.change.to(device), self.valid.to(device), before, after)


@dataclass(frozen=True, slots=True)
class Loss:
    """A weighted sum of losses and its terms.

    Attributes:
        total: scalar tensor to differentiate.
        parts: each unweighted term by name, detached, for logging.
    """

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)


LossFunction = Callable[[ChangeLogits, Target], Loss]
"""The loss of a training stage."""


def weighted(**terms: tuple[float, Tensor]) -> Loss:
    """Return ``sum of weight * term`` with every term under its name.

    Example:
        ``weighted(change=(1.0, change_dice(output, target)), classes=(0.5, class_dice(output, target)))``

    Raises:
        ValueError: no terms.
    """
    if not terms:
        raise ValueError("a weighted sum needs at least one term")
    summands = [weight * term for weight, term in terms.values()]
    return Loss(torch.stack(summands).sum(), {name: term.detach() for name, (_, term) in terms.items()})
