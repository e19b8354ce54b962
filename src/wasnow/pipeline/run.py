"""Two rasters and a model in, a result folder out: the only waist of wasnow.

    probe both -> plan (grids, bands, tiles; pure) -> lock the folder, begin or resume
        -> masks for a model that wants them -> survey (stretch, fit, shift)
        -> blocks: read ahead | answer, by this process or others (`wasnow.pipeline.backends`) | journal
        -> results assembled, renamed

Everything up to the lock only looks. Everything after it can be killed at any moment and run again.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
from threadpoolctl import threadpool_limits

import wasnow
from wasnow._system import kept_memory
from wasnow.errors import Interrupted, OutputError, UsageError, did_you_mean
from wasnow.models.calibration import moved_threshold
from wasnow.models.contract import ChangeModel, SceneModel
from wasnow.models.registry import DEFAULT, MODELS
from wasnow.output.change_map import ChangeMap
from wasnow.output.facts import OutlineOptions, RunFacts
from wasnow.output.folder import finished_record, remove_results
from wasnow.output.layout import CHANGE
from wasnow.output.record import FileSum, ModelRecord, PriorsRecord
from wasnow.output.writer import write_results
from wasnow.pipeline.acceleration import OPENVINO
from wasnow.pipeline.backends import Executor, executor_for
from wasnow.pipeline.block import Feed, Rules
from wasnow.pipeline.feature_cache import FeatureStore, model_identity
from wasnow.pipeline.plan import Options, Plan, chosen_device, make_plan
from wasnow.pipeline.worker import KeptFeatures, Order, paths_of
from wasnow.priors.cache import PriorCache, prior_cache
from wasnow.priors.files import MaskFiles
from wasnow.priors.make import PriorRequest, make_pair
from wasnow.priors.maskers import MaskerChoice
from wasnow.priors.regions import Masker
from wasnow.priors.store import DATES, MANIFEST, WITHOUT, Priors, open_priors, other_masker
from wasnow.raster.gdal import gdal_settings
from wasnow.raster.pair import PairReader
from wasnow.raster.radiometry import Stretch
from wasnow.raster.survey import BUDGET_PX, LIGHT_BUDGET_PX, Shift, Survey, survey
from wasnow.storage.checksums import checked_sha256
from wasnow.storage.journal import Workspace, workspace
from wasnow.vocabulary import join_words

SHIFT_WARNING_PX = 1.0
NOT_IDENTITY = (
    "device",
    "keep_features",
    "features_limit",
    "priors",
    "masker",
    "masker_weights",
    "masks",
    "workers",
    "scheduler",
    "allow_indirect",
)
"""Options that do not say what a run is: another machine may finish it, or several, with its features and masks kept
elsewhere. Which masks they are is told by themselves."""

PRIORS = "priors"
"""The folder of the workspace for masks that are made on the way."""

Progress = Callable[[str, int, int], None]
"""Called with (phase, done, total) at every step; phases are ``checksums``, ``survey``, ``detect``, ``results``; and
``finding masks before`` and ``after``, where masks are made on the way."""


@dataclass
class _Clock:
    """Seconds per phase."""

    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, phase: str, since: float) -> float:
        now = time.perf_counter()
        self.add_all({phase: now - since})
        return now

    def add_all(self, seconds: Mapping[str, float]) -> None:
        for phase, each in seconds.items():
            self.seconds[phase] = self.seconds.get(phase, 0.0) + each


def detect(
    before: str | os.PathLike[str],
    after: str | os.PathLike[str],
    *,
    output: str | os.PathLike[str],
    model: str | ChangeModel | SceneModel = DEFAULT,
    classes: str | Sequence[str] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    command: Sequence[str] | None = None,
    **options: Any,
) -> ChangeMap:
    """Find what changed between two rasters, and write it to a result folder.

    The same call on an unfinished folder goes on where it stopped; on a finished one it returns at once.

    Args:
        before: the earlier raster, anything GDAL opens.
        after: the later one; warped onto the target grid where it differs.
        output: the result folder; made if need be.
        model: a name of ``wasnow models``, a checkpoint, or any model of the contract; by default the small network
            that comes with wasnow.
        classes: words for a model with an open vocabulary, as ``"water, building"`` or a sequence; None takes its own.
        overwrite: drop what an earlier run left in the folder.
        progress: called with (phase, done, total).
        command: what the user typed, for the record.
        **options: see `Options`.

    Returns:
        Paths, statistics and record of the result.

    Raises:
        UsageError, InputError, OutputError, Interrupted: see `wasnow.errors`.
    """
    unknown = set(options) - {each.name for each in dataclasses.fields(Options)}
    if unknown:
        known = [each.name for each in dataclasses.fields(Options)]
        raise UsageError(f"detect() has no option {min(unknown)!r}{did_you_mean(min(unknown), known)}")
    with gdal_settings():
        plan = make_plan(before, after, model=model, classes=classes, options=Options(**options))
        return run(plan, Path(output), overwrite=overwrite, progress=progress, command=command)


def run(
    plan: Plan,
    output: Path,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    command: Sequence[str] | None = None,
) -> ChangeMap:
    """Carry out a plan; see `detect`."""
    tell = progress or (lambda phase, done, total: None)
    clock = _Clock()
    source = _mask_source(plan)
    started = datetime.now(UTC)
    with workspace(output) as space, kept_memory():
        at = time.perf_counter()
        inputs = _input_sums(plan, tell)
        if plan.priors is not None:
            for date, files in zip(DATES, inputs, strict=True):
                plan.priors.check(date, files[0].sha256)
        clock.add("checksums", at)
        if overwrite:
            space.clear()
            remove_results(output)
        elif space.plan is None and (output / CHANGE).exists():
            raise OutputError(f"{output} already holds a {CHANGE} that no run here made; choose another folder")
        resumed = space.begin(_identity(plan, inputs, source))
        if resumed and (finished := finished_record(output)) is not None and finished.status == "complete":
            return ChangeMap(output, finished, reused=True)
        space.expect(len(plan.tiling))
        space.prepare()
        space.forget_failed()
        if not resumed:
            shutil.rmtree(space.folder / PRIORS, ignore_errors=True)
        store = _feature_store(plan)
        executor = executor_for(
            plan.options.workers,
            plan.options.scheduler,
            blocks=len(plan.tiling) - len(space.done),
            paths=paths_of(plan.pair, plan.priors, plan.reference, store.folder if store is not None else None),
        )
        try:
            with executor:
                priors = _prior_masks(plan, space, source, tell, clock)
                with plan.pair.open() as reader:
                    found = _surveyed(plan, space, reader, tell, clock)
                _answer_blocks(plan, space, executor, _order(plan, found, priors, store), store, tell, clock)
            facts = _run_facts(plan, found, source, store, executor, inputs, started, command)
            record = write_results(facts, space, tell, clock.seconds)
        except KeyboardInterrupt:
            done = len(space.done)
            raise Interrupted(
                f"interrupted after {done} of {len(plan.tiling)} blocks; run the same command again to go on from there"
            ) from None
        if record.status == "complete":
            space.drop_blocks()
        return ChangeMap(output, record)


# --- what this run is ------------------------------------------------------------------------------------------


def _input_sums(plan: Plan, tell: Progress) -> tuple[tuple[FileSum, ...], tuple[FileSum, ...]]:
    """Every local file of both inputs with its SHA-256; remote ones by name only."""
    sources = (plan.pair.before.source, plan.pair.after.source)
    names = sum(len(source.files) for source in sources)
    done = 0
    sums: list[tuple[FileSum, ...]] = []
    for source in sources:
        mine = []
        for name in source.files:
            tell("checksums", done, names)
            path = Path(name)
            local = path.is_file()
            mine.append(
                FileSum(
                    name=path.name if local else name,
                    size=path.stat().st_size if local else None,
                    sha256=checked_sha256(path) if local else None,
                )
            )
            done += 1
        sums.append(tuple(mine))
    tell("checksums", names, names)
    return sums[0], sums[1]


def _identity(
    plan: Plan, inputs: tuple[tuple[FileSum, ...], tuple[FileSum, ...]], source: _MaskSource | None
) -> dict[str, Any]:
    """What a resumed run must have in common with the one it resumes, in words that an error can show."""
    options = {name: value for name, value in dataclasses.asdict(plan.options).items() if name not in NOT_IDENTITY}
    options["class_thresholds"] = dict(plan.class_thresholds)
    # Answers from kept features are rounded: that is another run, wherever they are kept.
    options["keep_features"] = plan.options.keep_features is not None
    calibration = plan.calibration
    return {
        "wasnow": wasnow.__version__,
        "before": {each.name: each.sha256 or each.size for each in inputs[0]},
        "after": {each.name: each.sha256 or each.size for each in inputs[1]},
        "model": _fingerprint(plan),
        "classes": list(plan.words),
        "calibration": [calibration.change_temperature, calibration.class_temperature] if calibration else None,
        "priors": source.origin if source is not None else None,
        "option": options,
        "tile": plan.tiling.tile,
        "margin": plan.tiling.margin,
    }


def _fingerprint(plan: Plan) -> str:
    return plan.fingerprint if plan.fingerprint is not None else f"{plan.card.name} of wasnow {wasnow.__version__}"


# --- masks for a model that wants them --------------------------------------------------------------------------


@dataclass(frozen=True)
class _MaskSource:
    """Where a run has its masks from.

    Attributes:
        origin: what they are, as JSON values: part of what the run is.
        made: on the way, by these; None for a prior folder, and for a run without masks.
    """

    origin: dict[str, Any]
    made: MaskerChoice | MaskFiles | None = None


def _mask_source(plan: Plan) -> _MaskSource | None:
    """Of a plan; None for a model that wants no masks.

    Raises:
        UsageError: the model wants masks, and nothing says where they come from.
        InputError: files of masks, or weights of a masker, are missing.
    """
    words, options = plan.wants_priors, plan.options
    if not words:
        return None
    if plan.priors is not None:
        return _MaskSource(plan.priors.origin)
    if options.priors == WITHOUT:
        return _MaskSource({"words": list(words), "masker": {"masker": WITHOUT}})
    made: MaskerChoice | MaskFiles
    if options.masks:
        made = MaskFiles.of_pair([Path(path) for path in options.masks], words)
    elif options.masker is not None:
        made = MaskerChoice(options.masker, options.masker_weights or ())
    else:
        raise UsageError(
            f"{plan.card.name} wants masks of {join_words(words)} at both dates: make them with wasnow priors BEFORE "
            f"AFTER --classes '{', '.join(words)}' -o priors/ and give --priors priors/, or have them made on the way "
            "with --masker grounded-sam or --masks FILE, or do without: --priors none"
        )
    return _MaskSource({"words": list(words), "masker": dict(made.key)}, made)


def _prior_masks(
    plan: Plan, space: Workspace, source: _MaskSource | None, tell: Progress, clock: _Clock
) -> Priors | None:
    """The masks of a run: those of the plan, or made now in the workspace, where a resumed run finds them."""
    if source is None or source.made is None:
        return plan.priors
    folder, options = space.folder / PRIORS, plan.options
    at = time.perf_counter()
    if not (folder / MANIFEST).exists():
        masker: Masker | MaskFiles
        if isinstance(source.made, MaskFiles):
            masker, cache = source.made, None
        else:
            masker = source.made.load(chosen_device("cpu" if options.device == OPENVINO else options.device))
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
            progress=tell,
        )
    clock.add("masks", at)
    return open_priors(folder, plan.wants_priors)


def _mask_warnings(plan: Plan, source: _MaskSource | None) -> Iterator[str]:
    """A sentence where the model learned from masks of another kind."""
    remark = other_masker(plan.learned_priors, source.origin if source is not None else None)
    if remark is not None:
        yield f"{remark}: expect less of it"


def _feature_store(plan: Plan) -> FeatureStore | None:
    folder = plan.options.keep_features
    return None if folder is None else FeatureStore(Path(folder), int(plan.options.features_limit * 1e9))


def _environment() -> dict[str, str]:
    import rasterio
    import torch

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cores": str(os.cpu_count()),
        "torch": torch.__version__,
        "gdal": rasterio.__gdal_version__,
        "rasterio": rasterio.__version__,
        "numpy": np.__version__,
    }


# --- the look before --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """What the survey gave, new or remembered."""

    model: ChangeModel
    feed: Feed
    stretch_before: Stretch
    stretch_after: Stretch
    threshold: float
    shift: Shift | None
    diagnostics: dict[str, Any] | None
    warnings: tuple[str, ...]


def _surveyed(plan: Plan, space: Workspace, reader: PairReader, tell: Progress, clock: _Clock) -> _Found:
    """Survey the pair, or go on with what the interrupted run found."""
    at = time.perf_counter()
    state = space.recall("survey")
    if state is None:
        looked = survey(
            reader,
            budget_px=BUDGET_PX if isinstance(plan.model, SceneModel) else LIGHT_BUDGET_PX,
            skip_unreadable=plan.options.keep_going,
            progress=lambda done, total: tell("survey", done, total),
        )
        clock.add("survey", at)
        state = _survey_state(plan, looked, clock)
        space.remember("survey", state)
        state = cast(dict[str, Any], space.recall("survey"))
    else:
        clock.add("survey", at)
    model = plan.model
    diagnostics = None
    if state["fit"] is not None:
        fitted = cast(SceneModel, plan.model).restore(state["fit"])
        model, diagnostics = fitted, fitted.diagnostics()
    stretch_before, stretch_after = (Stretch(tuple(s["low"]), tuple(s["high"])) for s in state["stretches"])
    display = plan.card.scaling == "display"
    feed = Feed(
        before=stretch_before if display else None,
        after=stretch_after if display else None,
        fill_before=tuple(state["fill"][0]),
        fill_after=tuple(state["fill"][1]),
    )
    bound = cast(ChangeModel, model)
    shift = Shift(**state["shift"]) if state["shift"] is not None else None
    return _Found(
        model=bound,
        feed=feed,
        stretch_before=stretch_before,
        stretch_after=stretch_after,
        threshold=(threshold := _threshold(plan, bound)),
        shift=shift,
        diagnostics=diagnostics,
        warnings=(*shift_warnings(plan, shift), *_idle_thresholds(plan, threshold)),
    )


def _threshold(plan: Plan, model: ChangeModel) -> float:
    """The user's as it is written; the model's own where calibration has moved it, so that the map stays."""
    if plan.threshold is not None:
        return plan.threshold
    return moved_threshold(model.card.threshold, plan.calibration.change_temperature if plan.calibration else 1.0)


def _idle_thresholds(plan: Plan, threshold: float) -> Iterator[str]:
    """A sentence for each threshold of a class that the common one hides."""
    for word, own in plan.class_thresholds:
        if own < threshold:
            yield (
                f"--threshold {word}={own:g} is below the common threshold of {threshold:.3g} and does nothing: "
                "lower the common one, and raise it for the other classes"
            )


def _survey_state(plan: Plan, looked: Survey, clock: _Clock) -> dict[str, Any]:
    """The survey as JSON values; fits a scene model on the way."""
    sources = (plan.pair.before.source, plan.pair.after.source)
    stretches, fills = [], []
    for source, samples in zip(sources, (looked.before, looked.after), strict=True):
        if plan.options.stretch == "auto":
            stretch = Stretch.of_samples(samples, display=source.is_display_rgb)
        else:
            stretch = Stretch.declared(plan.options.stretch, source.n_bands)
        stretches.append(stretch)
        middle = np.median(samples, axis=0).astype(np.float32)
        fill = stretch.apply(middle[:, None, None])[:, 0, 0] if plan.card.scaling == "display" else middle
        fills.append([float(value) for value in fill])
    fit = None
    if isinstance(plan.model, SceneModel):
        at = time.perf_counter()
        with threadpool_limits(1, user_api="blas"):
            # Products of tall, thin matrices: threads only wait for each other (8 times slower on a busy machine).
            fit = plan.model.fit(looked.pixels).state()
        clock.add("fit", at)
    return {
        "stretches": [{"low": s.low, "high": s.high} for s in stretches],
        "fill": fills,
        "shift": dataclasses.asdict(looked.shift) if looked.shift is not None else None,
        "read_px": looked.read_px,
        "valid_px": looked.valid_px,
        "fit": fit,
    }


def shift_warnings(plan: Plan, shift: Shift | None) -> Iterator[str]:
    """A sentence where the dates lie so far apart that edges will look like change."""
    # Windows that disagree saw seasons or new buildings, not a displacement.
    if shift is None or shift.length_px <= SHIFT_WARNING_PX or shift.spread_px > shift.length_px / 5:
        return
    gsd = plan.pair.working.gsd_m
    metres = f" ({shift.length_px * gsd:.1f} m)" if gsd is not None else ""
    yield (
        f"after lies about {shift.length_px:.1f} px{metres} off before ({shift.rows_px:+.1f} rows, "
        f"{shift.cols_px:+.1f} cols): edges will look like change; co-register the images first"
    )


def _run_facts(
    plan: Plan,
    found: _Found,
    source: _MaskSource | None,
    store: FeatureStore | None,
    executor: Executor,
    inputs: tuple[tuple[FileSum, ...], tuple[FileSum, ...]],
    started: datetime,
    command: Sequence[str] | None,
) -> RunFacts:
    left_out = store.warning() if store is not None else None
    options, display = plan.options, plan.card.scaling == "display"
    return RunFacts(
        vocabulary=plan.vocabulary,
        pair=plan.pair,
        result=plan.result,
        dates=plan.dates,
        blocks=len(plan.tiling),
        landcover=options.landcover,
        outlines=OutlineOptions(options.min_area, options.connectivity, options.simplify),
        model=_model_record(plan, found),
        options={
            **dataclasses.asdict(options),
            "classes": list(plan.words),
            "class_thresholds": dict(plan.class_thresholds),
            "tile": plan.tiling.tile,
            "margin": plan.tiling.margin,
        },
        feature_cache=None if options.keep_features is None else (str(options.keep_features), options.features_limit),
        stretches=(found.stretch_before, found.stretch_after) if display else (None, None),
        shift=found.shift,
        inputs=inputs,
        warnings=(
            *plan.warnings,
            *found.warnings,
            *_mask_warnings(plan, source),
            *([left_out] if left_out else []),
            *executor.warnings,
        ),
        started=started,
        command=tuple(command) if command is not None else (),
        environment=_environment(),
        priors=None if source is None else PriorsRecord.model_validate(source.origin),
        executor=executor.record,
    )


def _model_record(plan: Plan, found: _Found) -> ModelRecord:
    card, entry = plan.card, MODELS.get(plan.card.name)
    if plan.threshold is not None:
        threshold_from = "option"
    else:
        threshold_from = "model default, calibrated" if plan.calibration is not None else "model default"
    return ModelRecord(
        name=card.name,
        summary=card.summary,
        source=card.source,
        fingerprint=_fingerprint(plan),
        classes=card.classes,
        threshold=found.threshold,
        threshold_from=threshold_from,
        class_thresholds=dict(plan.class_thresholds),
        calibration=plan.calibration,
        about=plan.about,
        gsd_range_m=card.gsd_range_m,
        other_words=plan.other_words,
        fit=found.diagnostics,
        shipped=entry is not None and entry.shipped is not None,
    )


# --- blocks -----------------------------------------------------------------------------------------------------


def _order(plan: Plan, found: _Found, priors: Priors | None, store: FeatureStore | None) -> Order:
    """What whoever answers the blocks must know."""
    of_class, calibration, options = dict(plan.class_thresholds), plan.calibration, plan.options
    rules = Rules(
        vocabulary=plan.vocabulary,
        threshold=found.threshold,
        factor=plan.factor,
        result_shape=plan.result.shape,
        working_shape=plan.pair.working.shape,
        blend=options.blend,
        batch=options.batch,
        bf16=options.precision == "bf16",
        class_thresholds=tuple(of_class.get(word, 0.0) for word in plan.vocabulary.words) if of_class else (),
        change_temperature=calibration.change_temperature if calibration else 1.0,
        class_temperature=calibration.class_temperature if calibration else 1.0,
        landcover=options.landcover,
    )
    features = None
    if store is not None:
        # What one precision encoded is not what the other would have.
        identity = f"{model_identity(found.model, plan.fingerprint)}, precision {options.precision}"
        features = KeptFeatures(store.folder, store.limit_bytes, identity)
    return Order(
        pair=plan.pair,
        tiling=plan.tiling,
        feed=found.feed,
        rules=rules,
        model=found.model,
        reference=plan.reference,
        device=options.device,
        precision=options.precision,
        keep_going=options.keep_going,
        priors=priors,
        features=features,
    )


def _answer_blocks(
    plan: Plan,
    space: Workspace,
    executor: Executor,
    order: Order,
    store: FeatureStore | None,
    tell: Progress,
    clock: _Clock,
) -> None:
    """Have every block answered that the journal does not have yet, and write it down: nobody else does."""
    total = len(plan.tiling)
    tell("detect", len(space.done), total)
    # Fixed before the first answer comes: who is asked for a block that was tried in vain must not be asked twice.
    waiting = [block for block in range(total) if block not in space.done]
    with closing(executor.answers(order, waiting)) as answers:
        for answer in answers:
            clock.add_all(answer.seconds)
            if store is not None:
                for reason, count in answer.left_out.items():
                    store.left_out[reason] = store.left_out.get(reason, 0) + count
            at = time.perf_counter()
            space.add(answer.record, answer.arrays)
            clock.add("journal", at)
            tell("detect", len(space.done), total)
