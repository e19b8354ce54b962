"""The survey of a pair before any block: stretch of each date, fill values, shift, and the fit of a scene model.

A resumed run reads the results of the survey from the workspace, so that all its blocks use the same numbers.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from threadpoolctl import threadpool_limits

from wasnow.models.calibration import moved_threshold
from wasnow.models.contract import ChangeModel, SceneModel
from wasnow.pipeline.block import InputScaling
from wasnow.pipeline.plan import Plan
from wasnow.pipeline.progress import Progress, Timings
from wasnow.raster.pair import PairReader
from wasnow.raster.radiometry import Stretch
from wasnow.raster.survey import BUDGET_PX, LIGHT_BUDGET_PX, Shift, Survey, survey
from wasnow.storage.journal import Workspace

SHIFT_WARNING_PX = 1.0
"""Shift between the dates, in working pixels, above which a run warns."""


@dataclass(frozen=True)
class SurveyResult:
    """What the blocks and the record need from the survey.

    Attributes:
        model: fitted to the scene.
        scaling: how pixel values are prepared for it.
        stretch_before: for pictures, and for models that take display values.
        stretch_after: the same for AFTER.
        threshold: change probability, 0..1.
        shift: None if it could not be estimated.
        diagnostics: of the fit of a scene model.
        warnings: as sentences.
    """

    model: ChangeModel
    scaling: InputScaling
    stretch_before: Stretch
    stretch_after: Stretch
    threshold: float
    shift: Shift | None
    diagnostics: dict[str, Any] | None
    warnings: tuple[str, ...]


def survey_pair(plan: Plan, space: Workspace, reader: PairReader, progress: Progress, timings: Timings) -> SurveyResult:
    """Survey the pair, or read the survey of the interrupted run.

    Args:
        plan: of the run.
        space: its workspace.
        reader: of the pair.
        progress: called at every step.
        timings: gets the time that it took.
    """
    start = time.perf_counter()
    state = space.recall("survey")
    if state is None:
        found = survey(
            reader,
            budget_px=BUDGET_PX if isinstance(plan.model, SceneModel) else LIGHT_BUDGET_PX,
            skip_unreadable=plan.options.keep_going,
            progress=lambda done, total: progress("survey", done, total),
        )
        timings.add_since("survey", start)
        state = _state(plan, found, timings)
        space.remember("survey", state)
        state = cast(dict[str, Any], space.recall("survey"))
    else:
        timings.add_since("survey", start)
    return _result(plan, state)


def _result(plan: Plan, state: dict[str, Any]) -> SurveyResult:
    model = plan.model
    diagnostics = None
    if state["fit"] is not None:
        fitted = cast(SceneModel, plan.model).restore(state["fit"])
        model, diagnostics = fitted, fitted.diagnostics()
    stretch_before, stretch_after = (Stretch(tuple(s["low"]), tuple(s["high"])) for s in state["stretches"])
    display = plan.card.scaling == "display"
    scaling = InputScaling(
        before=stretch_before if display else None,
        after=stretch_after if display else None,
        fill_before=tuple(state["fill"][0]),
        fill_after=tuple(state["fill"][1]),
    )
    bound = cast(ChangeModel, model)
    shift = Shift(**state["shift"]) if state["shift"] is not None else None
    threshold = _threshold(plan, bound)
    return SurveyResult(
        model=bound,
        scaling=scaling,
        stretch_before=stretch_before,
        stretch_after=stretch_after,
        threshold=threshold,
        shift=shift,
        diagnostics=diagnostics,
        warnings=(
            *_validity_warnings(state["valid_px"]),
            *(shift_warnings(plan, shift) if state["valid_px"] else ()),
            *_threshold_warnings(plan, threshold),
        ),
    )


def _threshold(plan: Plan, model: ChangeModel) -> float:
    """The user's threshold as given, or the model's after temperature scaling, which leaves the map unchanged."""
    if plan.threshold is not None:
        return plan.threshold
    return moved_threshold(model.card.threshold, plan.calibration.change_temperature if plan.calibration else 1.0)


def _threshold_warnings(plan: Plan, threshold: float) -> Iterator[str]:
    """A sentence for each class threshold below the common one."""
    for word, own in plan.class_thresholds:
        if own < threshold:
            yield (
                f"--threshold {word}={own:g} is below the common threshold of {threshold:.3g} and has no effect: "
                "lower the common one, and raise it for the other classes"
            )


def _state(plan: Plan, found: Survey, timings: Timings) -> dict[str, Any]:
    """The survey as JSON values; fits a scene model."""
    sources = (plan.pair.before.source, plan.pair.after.source)
    stretches, fills = [], []
    for date, (source, samples) in enumerate(zip(sources, (found.before, found.after), strict=True)):
        if plan.options.stretch == "auto":
            stretch = Stretch.of_samples(samples, display=source.is_display_rgb)
        else:
            stretch = Stretch.declared(plan.options.stretch, source.n_bands, date, source.conversion)
        stretches.append(stretch)
        middle = np.median(samples, axis=0).astype(np.float32) if len(samples) else np.zeros(source.n_bands, np.float32)
        fill = stretch.apply(middle[:, None, None])[:, 0, 0] if plan.card.scaling == "display" else middle
        fills.append([float(value) for value in fill])
    fit = None
    # Without a valid pixel no block calls the model.
    if isinstance(plan.model, SceneModel) and found.valid_px:
        start = time.perf_counter()
        with threadpool_limits(1, user_api="blas"):
            # Products of tall, thin matrices: more threads wait for each other (8 times slower on a busy machine).
            fit = plan.model.fit(found.pixels).state()
        timings.add_since("fit", start)
    return {
        "stretches": [{"low": s.low, "high": s.high} for s in stretches],
        "fill": fills,
        "shift": dataclasses.asdict(found.shift) if found.shift is not None else None,
        "read_px": found.read_px,
        "valid_px": found.valid_px,
        "fit": fit,
    }


def _validity_warnings(valid_px: int) -> Iterator[str]:
    if valid_px == 0:
        yield (
            "no pixel is valid at both dates: all pixels are flagged as not processed; check nodata, masks and overlap "
            "with wasnow info"
        )


def shift_warnings(plan: Plan, shift: Shift | None) -> Iterator[str]:
    """Yield a sentence if the dates are displaced so far that edges appear as change."""
    if shift is None and min(plan.pair.working.shape) >= 256:
        yield (
            "the shift between the dates was not estimated (too little common texture): check that both images are "
            "co-registered"
        )
    # Windows that disagree differ because of seasons or new buildings, not because of a displacement.
    if shift is None or shift.length_px <= SHIFT_WARNING_PX or shift.spread_px > shift.length_px / 5:
        return
    gsd = plan.pair.working.gsd_m
    metres = f" ({shift.length_px * gsd:.1f} m)" if gsd is not None else ""
    yield (
        f"after is displaced by about {shift.length_px:.1f} px{metres} against before ({shift.rows_px:+.1f} rows, "
        f"{shift.cols_px:+.1f} cols): edges will appear as change; co-register the images first"
    )
