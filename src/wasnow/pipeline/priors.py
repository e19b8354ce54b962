"""Prior masks of a run, for models that take them: where they come from, and computing them in the workspace."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wasnow.errors import InvalidOption
from wasnow.models.loading import resolve_device
from wasnow.pipeline.plan import Plan
from wasnow.pipeline.progress import Progress, Timings
from wasnow.priors.cache import PriorCache, prior_cache
from wasnow.priors.files import MaskFiles
from wasnow.priors.make import PriorRequest, make_pair
from wasnow.priors.manifest import MANIFEST
from wasnow.priors.maskers import MaskerChoice
from wasnow.priors.regions import Masker
from wasnow.priors.store import WITHOUT, Priors, open_priors, other_masker
from wasnow.storage.journal import Workspace
from wasnow.vocabulary import join_words

FOLDER = "priors"
"""The folder of the workspace for prior masks that are computed during the run."""


@dataclass(frozen=True)
class MaskSource:
    """Where the prior masks of a run come from.

    Attributes:
        origin: their description as JSON values, a part of the identity of the run.
        made_by: computes them during the run; None for a prior folder and for a run without masks.
    """

    origin: dict[str, Any]
    made_by: MaskerChoice | MaskFiles | None = None


def mask_source(plan: Plan) -> MaskSource | None:
    """Return the source of the prior masks; None for a model that takes none.

    Raises:
        InvalidOption: the model needs masks, and no source is given.
        InputError: mask files, or the weights of a masker, are missing.
    """
    words, options = plan.wants_priors, plan.options
    if not words:
        return None
    if plan.priors is not None:
        return MaskSource(plan.priors.origin)
    if options.priors == WITHOUT:
        return MaskSource({"words": list(words), "masker": {"masker": WITHOUT}})
    made_by: MaskerChoice | MaskFiles
    if options.masks:
        made_by = MaskFiles.of_pair([Path(path) for path in options.masks], words)
    elif options.masker is not None:
        made_by = MaskerChoice(options.masker, options.masker_weights or ())
    else:
        raise InvalidOption(
            f"{plan.card.name} needs prior masks of {join_words(words)} at both dates: compute them with wasnow priors "
            f"BEFORE AFTER --classes '{', '.join(words)}' -o priors/ and pass {{priors}} priors/, or compute them "
            "during the run with {masker} grounded-sam or {masks} FILE, or run without them: {priors} none"
        )
    return MaskSource({"words": list(words), "masker": dict(made_by.key)}, made_by)


def prior_masks(
    plan: Plan, space: Workspace, source: MaskSource | None, progress: Progress, timings: Timings
) -> Priors | None:
    """Return the prior masks: those of the plan, or computed in the workspace, where a resumed run finds them.

    Args:
        plan: of the run.
        space: its workspace.
        source: from `mask_source`.
        progress: called at every step.
        timings: gets the time that it took.
    """
    if source is None or source.made_by is None:
        return plan.priors
    folder, options = space.folder / FOLDER, plan.options
    start = time.perf_counter()
    if not (folder / MANIFEST).exists():
        masker: Masker | MaskFiles
        if isinstance(source.made_by, MaskFiles):
            masker, cache = source.made_by, None
        else:
            masker = source.made_by.load(resolve_device(options.device, openvino=True))
            cache = PriorCache(prior_cache())
        make_pair(
            plan.pair.before.source.path,
            plan.pair.after.source.path,
            folder,
            PriorRequest(plan.wants_priors, masker, cache),
            bands=options.bands,
            stretch=options.stretch,
            assume_crs=options.assume_crs,
            allow_indirect=options.allow_indirect,
            progress=progress,
        )
    timings.add_since("masks", start)
    return open_priors(folder, plan.wants_priors)


def mask_warnings(plan: Plan, source: MaskSource | None) -> tuple[str, ...]:
    """Return a sentence if the model was trained with prior masks of another masker."""
    remark = other_masker(plan.learned_priors, source.origin if source is not None else None)
    return () if remark is None else (f"{remark}: expect lower accuracy",)
