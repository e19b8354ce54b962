"""Plan a run from file headers alone: bands, grids, working resolution, tiles.

    probe before, after -> overlap? -> bands -> target grid -> working grid -> tiling -> Plan

``wasnow info`` prints a plan; `wasnow.pipeline.run` carries it out. No pixels are read here, except where the images do
not state their pixel size and the model can estimate it (`wasnow.pipeline.pixel_size`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wasnow.errors import InvalidOption, VocabularyError, did_you_mean
from wasnow.models import loading, registry
from wasnow.models.contract import ChangeModel, FeatureModel, ModelCard, PixelSizeEstimator, SceneModel, WeightsInfo
from wasnow.models.loading import OPENVINO, ModelReference
from wasnow.output.record import CalibrationRecord
from wasnow.pipeline.acceleration import require_openvino
from wasnow.pipeline.bands import choose_bands
from wasnow.pipeline.grids import target_grid, working_grid
from wasnow.pipeline.options import Options
from wasnow.pipeline.pixel_size import estimated_gsd
from wasnow.priors.manifest import DATES
from wasnow.priors.store import WITHOUT, Priors, open_priors
from wasnow.raster.align import check_overlap
from wasnow.raster.examine import examine
from wasnow.raster.grid import Grid
from wasnow.raster.pair import Pair
from wasnow.raster.source import probe
from wasnow.raster.tiles import Tiling
from wasnow.vocabulary import Vocabulary

INTERPOLATION_MARGIN = 8
"""Smallest default margin where predictions are resampled: interpolation needs pixels beyond each core."""


@dataclass(frozen=True)
class Plan:
    """All decisions before the first pixel is read.

    Attributes:
        model: bound to its class words.
        options: of the run.
        pair: both rasters, placed on the working grid.
        target: the grid that `Options.align` names.
        result: the grid of the result rasters.
        tiling: of the working grid.
        vocabulary: the classes of the results.
        threshold: change probability, 0..1; None for the model's.
        dates: of both rasters, from the options or the files.
        warnings: possible problems, as sentences.
        words: the classes as the user wrote them: "house|home" where the class is called "house".
        class_thresholds: (class, change probability), in the order of the vocabulary.
        fingerprint: of the weights; None for a model without a checkpoint.
        calibration: the temperatures of the model.
        about: what the weights were trained on and where they fall short; None if unknown.
        other_words: the trained classes that the class "other" combines; empty without such a class.
        wants_priors: the class words whose prior masks the model takes; empty for most models.
        priors: the prior masks of a prior folder; None if there are none, or they are computed during the run.
        learned_priors: how the prior masks of the training data were made; None if unknown.
        reference: how another process loads the model; None for one created in Python and for scene models.
    """

    model: ChangeModel | SceneModel
    options: Options
    pair: Pair
    target: Grid
    result: Grid
    tiling: Tiling
    vocabulary: Vocabulary
    threshold: float | None
    dates: tuple[str | None, str | None]
    warnings: tuple[str, ...]
    words: tuple[str, ...] = ()
    class_thresholds: tuple[tuple[str, float], ...] = ()
    fingerprint: str | None = None
    calibration: CalibrationRecord | None = None
    about: str | None = None
    other_words: tuple[str, ...] = ()
    wants_priors: tuple[str, ...] = ()
    priors: Priors | None = None
    learned_priors: Mapping[str, Any] | None = None
    reference: ModelReference | None = None

    @property
    def card(self) -> ModelCard:
        """The card of the bound model."""
        return self.model.card

    @property
    def factor(self) -> float:
        """Result pixels per working pixel, in length."""
        if self.result == self.pair.working:
            return 1.0
        return math.sqrt(abs(self.pair.working.transform.determinant / self.result.transform.determinant))


def make_plan(
    before: str | os.PathLike[str],
    after: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | ChangeModel | SceneModel = registry.DEFAULT,
    classes: str | Sequence[str] | None = None,
    options: Options | None = None,
) -> Plan:
    """Plan the comparison of two rasters; reads their headers and a decimated copy.

    Args:
        before: the earlier raster.
        after: the later raster.
        model: a name, a checkpoint, or a model.
        classes: class words; None for the model's own.
        options: of the run.

    Raises:
        InputError: a file is unreadable or unsuitable, or the two do not overlap.
        UsageError: options that do not fit each other, the files or the model.
    """
    options = options or Options()
    # The files first: opening them is quick, loading a network is not.
    opening: dict[str, Any] = {
        "assume_crs": options.assume_crs,
        "allow_indirect": options.allow_indirect,
        "allow_truncated": options.keep_going,
    }
    sources = probe(before, **opening), probe(after, **opening)
    warnings = check_overlap(
        sources[0].grid,
        sources[1].grid,
        (sources[0].path, sources[1].path),
        (sources[0].has_transform, sources[1].has_transform),
    )
    sources, examined = examine(*sources, options.nodata_values)
    warnings += examined
    if sources[0].path == sources[1].path or _same_file(sources[0].path, sources[1].path):
        warnings.append(f"before and after are the same file, {sources[0].path}: no change can be found")
    loaded = loading.load(model, device=options.device) if isinstance(model, str | os.PathLike) else model
    # These belong to the weights; a network bound to other words need not carry them along.
    weights, own = loaded.card.weights, loaded.card.classes
    calibration = _calibration(weights)
    words = None if classes is None else Vocabulary.parse(classes).words
    bound = loaded if words is None else loaded.bind(words)
    card = bound.card
    warnings += card.remarks
    if calibration is not None:
        calibration = calibration.model_copy(update={"for_these_classes": own == card.classes})
    _check_model_options(bound, options)
    wanted = card.wants_priors
    priors = _prior_folder(wanted, options)
    class_thresholds = _class_thresholds(card, dict(options.class_thresholds))
    chosen, band_warnings = choose_bands(*sources, options.bands, card)
    warnings += band_warnings
    target = target_grid(options.align, *chosen, options.allow_indirect)
    if options.align not in ("before", "after", "finest"):
        for source in chosen:
            check_overlap(target, source.grid, (options.align, source.path))
    estimate = None
    if target.gsd_m is None and options.gsd is None and isinstance(bound, PixelSizeEstimator):
        estimate = estimated_gsd(bound, chosen)
    working, scale_warnings = working_grid(target, card, options.gsd, estimate)
    warnings += scale_warnings
    result = working if options.grid == "working" else target
    dates = (options.date_before or chosen[0].date, options.date_after or chosen[1].date)
    for source, given, option in zip(
        chosen, (options.date_before, options.date_after), ("before", "after"), strict=True
    ):
        if given is None and source.date_doubt is not None:
            warnings.append(f"{source.path}: {source.date_doubt}; give the acquisition date with --date-{option}")
    if dates[0] is not None and dates[1] is not None and dates[0][: len(dates[1])] > dates[1][: len(dates[0])]:
        warnings.append(f"before is dated {dates[0]}, after {dates[1]}: are the two files swapped?")
    reference = None
    if isinstance(model, str | os.PathLike) and not isinstance(bound, SceneModel):
        reference = ModelReference.of(model, words, weights.fingerprint)
    return Plan(
        model=bound,
        options=options,
        pair=Pair.of(*chosen, working),
        target=target,
        result=result,
        tiling=_tiling(working, card, options, resampled=result != working),
        vocabulary=Vocabulary(card.classes),
        threshold=options.threshold,
        dates=dates,
        warnings=tuple(warnings),
        words=_as_written(words, card.classes),
        class_thresholds=class_thresholds,
        fingerprint=weights.fingerprint,
        calibration=calibration,
        about=weights.about,
        other_words=card.other_words,
        wants_priors=wanted,
        priors=priors,
        learned_priors=weights.learned_priors if wanted else None,
        reference=reference,
    )


def _same_file(before: str, after: str) -> bool:
    try:
        return os.path.samefile(before, after)  # noqa: PTH121 - one of them may be a URL
    except OSError:
        return False


def _tiling(working: Grid, card: ModelCard, options: Options, *, resampled: bool) -> Tiling:
    tile = card.tile if options.tile is None else options.tile
    margin = card.margin if options.margin is None else options.margin
    if options.margin is None and options.tile is not None:
        margin = min(margin, (tile - 1) // 4)
    if resampled:
        margin = max(margin, INTERPOLATION_MARGIN) if options.margin is None else margin
        tile = max(tile, 4 * margin) if options.tile is None else tile
    return Tiling(*working.shape, tile=tile, margin=margin, stride=card.stride, blend=options.blend)


def _as_written(words: tuple[str, ...] | None, names: tuple[str, ...]) -> tuple[str, ...]:
    """The words that the user wrote; a word that differs from its class in case only is the class."""
    # A model without classes may ignore the words, and an open-vocabulary model may add "other".
    if words is None or len(words) > len(names):
        return names
    own = tuple(name if word.casefold() == name.casefold() else word for word, name in zip(words, names, strict=False))
    return (*own, *names[len(own) :])


def _calibration(weights: WeightsInfo) -> CalibrationRecord | None:
    found = weights.calibration
    return None if found is None else CalibrationRecord.model_validate(found, from_attributes=True)


def _check_model_options(model: ChangeModel | SceneModel, options: Options) -> None:
    """Refuse options that this model does not support, before any pixel is read.

    Raises:
        InvalidOption: there is one.
    """
    card = model.card
    if options.precision != "32" and isinstance(model, SceneModel):
        raise InvalidOption(
            f"{card.name} is not a network and always computes in full precision: leave {{precision}} out"
        )
    if options.symmetric and isinstance(model, SceneModel):
        raise InvalidOption(f"{card.name} fits both dates together and is symmetric already: leave {{symmetric}} out")
    if options.device == OPENVINO:
        if isinstance(model, SceneModel):
            raise InvalidOption(f"{card.name} is not a network, and OpenVINO runs networks: leave {{device}} out")
        require_openvino()
    if options.landcover and not card.classes:
        raise InvalidOption(f"{card.name} has no classes: leave {{landcover}} out, or choose a model with classes")
    wanted = card.wants_priors
    if not wanted and (options.priors or options.masker or options.masks):
        given = "priors" if options.priors else "masker" if options.masker else "masks"
        raise InvalidOption(
            f"{card.name} takes no prior masks: leave {{{given}}} out, or choose a model that does, such as sam-cd"
        )
    if wanted and options.keep_features is not None:
        raise InvalidOption(
            f"the features of {card.name} depend on prior masks and cannot be cached: leave {{keep_features}} out"
        )
    if options.keep_features is not None and not isinstance(model, FeatureModel):
        raise InvalidOption(
            f"{card.name} has no image features to cache: {{keep_features}} is for networks that compute the features "
            "independently of the class words, such as semantic-cd; leave it out"
        )


def _prior_folder(wanted: tuple[str, ...], options: Options) -> Priors | None:
    """The prior folder that the options name.

    Raises:
        InputError: it is not a prior folder.
        UsageError: it belongs to a dataset.
        VocabularyError: it lacks a word that the model needs.
    """
    if not wanted or options.priors in (None, WITHOUT):
        return None
    priors = open_priors(str(options.priors), wanted)
    for date in DATES:
        priors.grid(date)
    return priors


def _class_thresholds(card: ModelCard, wanted: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    """Thresholds by the class names of the model, matched without regard to case.

    Raises:
        InvalidOption: the model has no classes.
        VocabularyError: a word is not a class, or is given twice.
    """
    known = {word.casefold(): word for word in card.classes}
    found: dict[str, float] = {}
    for word, value in wanted.items():
        if not known:
            raise InvalidOption(
                f"{card.name} has no classes, and {{class_thresholds}} {word}={value:g} names one; "
                "give a number only, or choose a model with classes"
            )
        name = known.get(" ".join(word.split()).casefold())
        if name is None:
            near = did_you_mean(word.casefold(), list(known))
            raise VocabularyError(
                f"--threshold {word}={value:g} names no class of this run ({', '.join(card.classes)}){near}"
            )
        if name in found:
            raise VocabularyError(f"--threshold names the class {name!r} twice; give each class one threshold")
        found[name] = value
    return tuple((word, found[word]) for word in card.classes if word in found)
