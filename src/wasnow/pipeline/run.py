"""Carry out a plan: from two rasters to a result folder, safe against interruption at any moment.

    lock the folder, start or resume -> prior masks for a model that takes them -> survey (stretch, fit, shift)
        -> blocks: read ahead | predict, in this process or others (`wasnow.pipeline.backends`) | journal
        -> assemble the results, rename them into place

A run that was killed continues with the same command.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wasnow._system import retained_heap
from wasnow.errors import Interrupted, OutputError
from wasnow.models.registry import MODELS
from wasnow.output.change_map import ChangeMap
from wasnow.output.facts import OutlineOptions, RunFacts
from wasnow.output.folder import (
    check_outputs,
    claim_outputs,
    finished_record,
    polygons_edited,
    refuse_lost_edits,
    remove_results,
)
from wasnow.output.layout import CHANGE, RECORD_NAME
from wasnow.output.record import ModelRecord, PriorsRecord, RunRecord
from wasnow.output.writer import write_results
from wasnow.pipeline import priors as run_priors
from wasnow.pipeline.backends import Executor, executor_for
from wasnow.pipeline.block import InferenceSettings
from wasnow.pipeline.cost import check_free_space, check_path_length
from wasnow.pipeline.feature_cache import FeatureStore, model_identity
from wasnow.pipeline.identity import (
    InputSums,
    check_inputs_unchanged,
    environment,
    identity,
    input_states,
    input_sums,
    model_fingerprint,
    same_run,
)
from wasnow.pipeline.plan import Plan
from wasnow.pipeline.priors import MaskSource, mask_source, mask_warnings, prior_masks
from wasnow.pipeline.progress import Progress, Timings, no_progress
from wasnow.pipeline.survey import SurveyResult, survey_pair
from wasnow.pipeline.worker import FeatureCacheSpec, RunSpec, local_paths
from wasnow.priors.manifest import DATES
from wasnow.priors.store import Priors
from wasnow.storage.journal import Workspace, workspace


def run(
    plan: Plan,
    output: Path,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    command: Sequence[str] | None = None,
) -> ChangeMap:
    """Carry out a plan; see `wasnow.pipeline.api.detect` for the errors.

    Args:
        plan: from `make_plan`.
        output: the result folder; created if missing.
        overwrite: remove the results of an earlier run in the folder.
        progress: called with (phase, done, total).
        command: what the user typed, for the record.
    """
    progress = progress or no_progress
    timings = Timings()
    check_path_length(output)
    source = mask_source(plan)
    started = datetime.now(UTC)
    states = input_states(plan)
    check_outputs(output, landcover=plan.options.landcover, inputs=states)
    start = time.perf_counter()
    origin = source.origin if source is not None else None
    known: InputSums | None = None
    # Before the lock, so that a finished folder on a read-only disk can be used.
    if not overwrite and (output / RECORD_NAME).is_file() and (finished := finished_record(output)) is not None:
        known = input_sums(plan, progress)
        if _is_finished(output, finished, identity(plan, known, origin)):
            return ChangeMap(output, finished, reused=True)
    check_free_space(plan, output)
    with workspace(output) as space, retained_heap():
        inputs = known if known is not None else input_sums(plan, progress)
        if plan.priors is not None:
            for date, files in zip(DATES, inputs, strict=True):
                plan.priors.check(date, files[0].sha256)
        timings.add_since("checksums", start)
        wanted = identity(plan, inputs, origin)
        kept: tuple[str, ...] = ()
        if overwrite:
            kept = remove_results(output)
            space.clear()
        elif space.plan is None and (output / CHANGE).exists():
            raise OutputError(
                f"{output} contains the {CHANGE} of another run; choose another folder, or pass --overwrite"
            )
        # Again under the lock: another process may have finished the run meanwhile.
        if (finished := finished_record(output)) is not None and _is_finished(output, finished, wanted):
            return ChangeMap(output, finished, reused=True)
        if space.plan is None:
            claim_outputs(output, ())
        resumed = space.begin(wanted)
        refuse_lost_edits(output)
        space.expect(len(plan.tiling))
        space.prepare()
        space.forget_failed()
        if not resumed:
            shutil.rmtree(space.folder / run_priors.FOLDER, ignore_errors=True)
        store = _feature_store(plan)
        executor = executor_for(
            plan.options.workers,
            plan.options.scheduler,
            blocks=len(plan.tiling) - len(space.done),
            paths=local_paths(plan.pair, plan.priors, plan.reference, store.folder if store is not None else None),
        )
        try:
            with executor:
                priors = prior_masks(plan, space, source, progress, timings)
                with plan.pair.open() as reader:
                    surveyed = survey_pair(plan, space, reader, progress, timings)
                spec = _run_spec(plan, surveyed, priors, store)
                notes = _compute_blocks(space, executor, spec, store, progress, timings)
            check_inputs_unchanged(plan, states, inputs)
            facts = _run_facts(plan, surveyed, source, store, executor, inputs, started, command, (*kept, *notes))
            record = write_results(facts, space, progress, timings.seconds)
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted after {len(space.done)} of {len(plan.tiling)} blocks; run the same command again to "
                "continue"
            ) from None
        if record.status == "complete":
            space.drop_blocks()
        return ChangeMap(output, record)


def _is_finished(output: Path, record: RunRecord, wanted: dict[str, Any]) -> bool:
    """Whether a folder contains the finished results of this run, made by any version of wasnow.

    Flagged blocks of a partial result are tried again, but only by the version that made it, and not if a person edited
    its polygons.
    """
    found = Workspace(output).plan
    if not same_run(found, wanted):
        return False
    if record.status == "complete" or found is None or found.get("wasnow") != wanted["wasnow"]:
        return True
    return polygons_edited(output) is not None


def _feature_store(plan: Plan) -> FeatureStore | None:
    folder = plan.options.keep_features
    return None if folder is None else FeatureStore(Path(folder), int(plan.options.features_limit * 1e9))


def _run_spec(plan: Plan, surveyed: SurveyResult, priors: Priors | None, store: FeatureStore | None) -> RunSpec:
    of_class, calibration, options = dict(plan.class_thresholds), plan.calibration, plan.options
    settings = InferenceSettings(
        vocabulary=plan.vocabulary,
        threshold=surveyed.threshold,
        factor=plan.factor,
        result_shape=plan.result.shape,
        working_shape=plan.pair.working.shape,
        blend=options.blend,
        batch=options.batch,
        bf16=options.precision == "bf16",
        symmetric=options.symmetric and not plan.card.symmetric,
        class_thresholds=tuple(of_class.get(word, 0.0) for word in plan.vocabulary.words) if of_class else (),
        change_temperature=calibration.change_temperature if calibration else 1.0,
        class_temperature=calibration.class_temperature if calibration else 1.0,
        landcover=options.landcover,
    )
    features = None
    if store is not None:
        # Features of one precision differ from those of the other.
        name = f"{model_identity(surveyed.model, plan.fingerprint)}, precision {options.precision}"
        features = FeatureCacheSpec(store.folder, store.limit_bytes, name)
    return RunSpec(
        pair=plan.pair,
        tiling=plan.tiling,
        scaling=surveyed.scaling,
        settings=settings,
        model=surveyed.model,
        reference=plan.reference,
        device=options.device,
        precision=options.precision,
        keep_going=options.keep_going,
        priors=priors,
        features=features,
    )


def _compute_blocks(
    space: Workspace,
    executor: Executor,
    spec: RunSpec,
    store: FeatureStore | None,
    progress: Progress,
    timings: Timings,
) -> tuple[str, ...]:
    """Compute every block that the journal does not have yet; only this process writes the journal.

    Returns:
        Warnings of the workers, each once.
    """
    notes: dict[str, None] = {}
    total = len(spec.tiling)
    progress("detect", len(space.done), total)
    # A list, made before the first result: a block that crashed its workers must not be computed again in this run.
    missing = [block for block in range(total) if block not in space.done]
    with closing(executor.results(spec, missing)) as results:
        for result in results:
            timings.add(result.seconds)
            notes.update(dict.fromkeys(result.notes))
            if store is not None:
                for reason, count in result.not_cached.items():
                    store.not_cached[reason] = store.not_cached.get(reason, 0) + count
            start = time.perf_counter()
            space.add(result.record, result.arrays)
            timings.add_since("journal", start)
            progress("detect", len(space.done), total)
    return tuple(notes)


def _run_facts(
    plan: Plan,
    surveyed: SurveyResult,
    source: MaskSource | None,
    store: FeatureStore | None,
    executor: Executor,
    inputs: InputSums,
    started: datetime,
    command: Sequence[str] | None,
    notes: tuple[str, ...],
) -> RunFacts:
    cache_warning = store.warning() if store is not None else None
    options, display = plan.options, plan.card.scaling == "display"
    return RunFacts(
        vocabulary=plan.vocabulary,
        pair=plan.pair,
        result=plan.result,
        dates=plan.dates,
        blocks=len(plan.tiling),
        landcover=options.landcover,
        outlines=OutlineOptions(options.min_area, options.connectivity, options.simplify),
        model=_model_record(plan, surveyed),
        options={
            **options.model_dump(),
            "classes": list(plan.words),
            "class_thresholds": dict(plan.class_thresholds),
            "tile": plan.tiling.tile,
            "margin": plan.tiling.margin,
        },
        feature_cache=None if options.keep_features is None else (options.keep_features, options.features_limit),
        stretches=(surveyed.stretch_before, surveyed.stretch_after) if display else (None, None),
        shift=surveyed.shift,
        inputs=inputs,
        warnings=(
            *plan.warnings,
            *surveyed.warnings,
            *mask_warnings(plan, source),
            *([cache_warning] if cache_warning else []),
            *executor.warnings,
            *notes,
        ),
        started=started,
        command=tuple(command) if command is not None else (),
        environment=environment(),
        priors=None if source is None else PriorsRecord.model_validate(source.origin),
        executor=executor.record,
    )


def _model_record(plan: Plan, surveyed: SurveyResult) -> ModelRecord:
    card, entry = plan.card, MODELS.get(plan.card.name)
    if plan.threshold is not None:
        threshold_from = "option"
    else:
        threshold_from = "model default, calibrated" if plan.calibration is not None else "model default"
    return ModelRecord(
        name=card.name,
        summary=card.summary,
        source=card.source,
        fingerprint=model_fingerprint(plan),
        classes=card.classes,
        threshold=surveyed.threshold,
        threshold_from=threshold_from,
        class_thresholds=dict(plan.class_thresholds),
        calibration=plan.calibration,
        about=plan.about,
        gsd_range_m=card.gsd_range_m,
        other_words=plan.other_words,
        fit=surveyed.diagnostics,
        shipped=entry is not None and entry.shipped is not None,
    )
