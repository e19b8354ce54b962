"""What a run will do, decided from headers alone: bands, grids, working resolution, tiles.

    probe before, after -> same ground? -> which bands -> target grid -> working grid -> tiling -> Plan

``wasnow info`` prints a plan; the engine carries one out. No pixel is read here.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, cast

from wasnow.errors import BandsUnclear, CheckpointError, UsageError, VocabularyError, did_you_mean
from wasnow.models import registry
from wasnow.models.contract import ChangeModel, FeatureModel, ModelCard, SceneModel, WeightsInfo
from wasnow.output.record import CalibrationRecord
from wasnow.pipeline.acceleration import OPENVINO, require_openvino
from wasnow.priors.maskers import MaskerChoice
from wasnow.priors.store import DATES, WITHOUT, Priors, open_priors
from wasnow.raster.align import check_overlap, finest
from wasnow.raster.grid import Grid
from wasnow.raster.pair import Pair
from wasnow.raster.source import RasterSource, probe
from wasnow.raster.tiles import Tiling
from wasnow.vocabulary import Vocabulary

SAME_GSD = 0.05
"""A working resolution this close (relative) to the target grid is the target grid: resampling would only blur."""


ANY_BANDS = "use --model irmad, which compares any bands"
"""What to do about bands that a model of colours cannot use."""

RADAR_BANDS = frozenset(("vv", "vh", "hh", "hv", "sigma0", "gamma0", "beta0", "backscatter"))
"""Words in the names of bands that no camera made."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Everything a user may choose about a run, with its defaults. All of it is part of what a resume must match.

    Attributes:
        align: the grid of the results: ``before``, ``after``, ``finest``, or a raster file that has the grid.
        assume_crs: the CRS of rasters that do not say theirs.
        bands: 1-based band numbers used of both dates; None chooses by colour interpretation.
        gsd: working resolution in metres; for images without CRS the size of their pixels on the ground.
        grid: write results on the ``target`` grid or on the ``working`` grid.
        stretch: ``auto``, or ``LOW,HIGH`` for models that want display values.
        tile, margin: in working pixels; None takes the model's.
        blend: weighted blending of overlapping tiles instead of centre crop.
        batch: tiles per call of the model.
        threshold: change probability; None takes the model's.
        class_thresholds: class word -> change probability, as a mapping or pairs; what turns from or to that class
            must exceed it too.
        landcover: also write the class maps of both dates, not masked by change.
        min_area: smallest polygon in square metres (pixels where there is no CRS).
        connectivity: 4 or 8: whether pixels that touch at a corner are one polygon.
        simplify: tolerance in metres (pixels where there is no CRS) for polygon outlines; None keeps the pixels' edges.
        date_before, date_after: YYYY, YYYY-MM or YYYY-MM-DD; None takes the file's own.
        keep_going: flag what cannot be read and go on.
        device: ``auto``, ``cpu``, ``cuda``... for checkpoints, ``openvino`` for any network; a resume may choose
            another.
        precision: ``bf16`` lets a network multiply in bfloat16: about twice as fast, slightly other numbers.
        keep_features: a folder for image features, from which other class words are answered without looking at the
            images again; a resume may name another.
        features_limit: what that folder may take, in GB (10^9 bytes); likewise.
        priors: for a model that wants masks: a prior folder of this pair, or ``none`` to do without.
        masker: instead: what finds them on the way, a name of `wasnow.priors.maskers.PARTS`.
        masker_weights: its weights, each a folder or a name; None takes those that its documentation names.
        masks: instead: files that have them, as ``wasnow priors --masks``: one for both dates, or one for each.
        allow_indirect: also read rasters that point to other files or servers (VRT, WMS...); see `wasnow.raster.trust`.
        workers: processes on this machine that answer the blocks; None: this process does. A resume may have others.
        scheduler: instead: the address of a dask scheduler whose workers do, or ``local`` for a cluster of ``workers``
            processes made for this run; likewise.
    """

    align: str = "before"
    assume_crs: str | None = None
    bands: tuple[int, ...] | None = None
    gsd: float | None = None
    grid: Literal["target", "working"] = "target"
    stretch: str = "auto"
    tile: int | None = None
    margin: int | None = None
    blend: bool = False
    batch: int = 1
    threshold: float | None = None
    class_thresholds: Mapping[str, float] | tuple[tuple[str, float], ...] = ()
    landcover: bool = False
    min_area: float = 0.0
    connectivity: int = 4
    simplify: float | None = None
    date_before: str | None = None
    date_after: str | None = None
    keep_going: bool = False
    device: str = "auto"
    precision: Literal["32", "bf16"] = "32"
    keep_features: str | os.PathLike[str] | None = None
    features_limit: float = 20.0
    priors: str | os.PathLike[str] | None = None
    masker: str | None = None
    masker_weights: tuple[str, ...] | None = None
    masks: tuple[str, ...] | None = None
    allow_indirect: bool = False
    workers: int | None = None
    scheduler: str | None = None

    def __post_init__(self) -> None:
        # A mapping cannot be part of a frozen value; the order in which thresholds were named means nothing.
        object.__setattr__(self, "class_thresholds", tuple(sorted(dict(self.class_thresholds).items())))
        if self.keep_features is not None:
            object.__setattr__(self, "keep_features", os.fspath(self.keep_features))
        if self.priors is not None:
            object.__setattr__(self, "priors", os.fspath(self.priors))
        for name in ("masker_weights", "masks"):
            object.__setattr__(self, name, tuple(os.fspath(each) for each in getattr(self, name) or ()) or None)
        ways = [f"--{name}" for name in ("priors", "masker", "masks") if getattr(self, name)]
        if len(ways) > 1:
            raise UsageError(f"{' and '.join(ways)} all say where masks come from; give one of them")
        if self.masker_weights and self.masker is None:
            raise UsageError("--masker-weights is given without --masker; name the masker that they are of")
        if self.masker is not None:
            MaskerChoice(self.masker, self.masker_weights or ())
        if self.gsd is not None and not (math.isfinite(self.gsd) and self.gsd > 0):
            raise UsageError(f"--gsd {self.gsd} is no length; give metres above 0, such as 0.5")
        if self.threshold is not None and not 0 <= self.threshold < 1:
            raise UsageError(f"--threshold {self.threshold} is no probability; give a number from 0 to below 1")
        for word, value in dict(self.class_thresholds).items():
            if not 0 <= value < 1:
                raise UsageError(f"--threshold {word}={value} is no probability; give a number from 0 to below 1")
        if not (math.isfinite(self.features_limit) and self.features_limit > 0):
            raise UsageError(f"--features-limit {self.features_limit} is no size; give gigabytes above 0, such as 20")
        if self.precision not in ("32", "bf16"):
            raise UsageError(f"--precision {self.precision!r} is neither 32 nor bf16")
        if self.grid not in ("target", "working"):
            raise UsageError(f"--grid {self.grid!r} is neither target nor working")
        if self.connectivity not in (4, 8):
            raise UsageError(f"--connectivity {self.connectivity} is neither 4 nor 8")
        if self.min_area < 0 or (self.simplify is not None and self.simplify < 0):
            raise UsageError("--min-area and --simplify cannot be negative")
        if self.batch < 1:
            raise UsageError(f"--batch {self.batch} is less than one tile")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--workers {self.workers} is nobody to do the work; give 1 or more, or leave it out")
        if self.scheduler is not None and not re.fullmatch(r"local|[a-z]+://\S+", self.scheduler):
            raise UsageError(
                f"--scheduler {self.scheduler!r} is no address; write it as tcp://host:8786, or local for a cluster on "
                "this machine"
            )
        if self.scheduler not in (None, "local") and self.workers is not None:
            raise UsageError(
                f"--workers is given with --scheduler {self.scheduler}, which has the workers that it has: leave it "
                "out, or write --scheduler local"
            )
        for option, date in (("--date-before", self.date_before), ("--date-after", self.date_after)):
            if date is not None:
                check_date(option, date)


def check_date(option: str, text: str) -> None:
    """Accept YYYY, YYYY-MM or YYYY-MM-DD of a day that exists.

    Raises:
        UsageError: anything else.
    """
    for pattern in ("%Y", "%Y-%m", "%Y-%m-%d"):
        try:
            parsed = datetime.strptime(text, pattern)
        except ValueError:
            continue
        if parsed.strftime(pattern) == text:
            return
    raise UsageError(f"{option} {text!r} is no date; write YYYY, YYYY-MM or YYYY-MM-DD")


@dataclass(frozen=True)
class ModelReference:
    """How another process comes by the network of a run: from its file, instead of through a pipe.

    Attributes:
        name: of ``wasnow models``, or the absolute path of a checkpoint or a run folder.
        words: what it was bound to; None: its own.
        fingerprint: of its weights.
    """

    name: str
    words: tuple[str, ...] | None
    fingerprint: str | None

    @property
    def path(self) -> Path | None:
        """The file or folder that must be there; None for what comes with wasnow."""
        return None if self.name in registry.MODELS else Path(self.name)

    def load(self, device: str) -> ChangeModel:
        """The network, bound to its words.

        Raises:
            CheckpointError: it cannot be read, or its weights are others.
        """
        built = cast(ChangeModel, named_model(self.name, device))
        if built.card.weights.fingerprint != self.fingerprint:
            raise CheckpointError(
                self.name,
                "holds other weights where a worker reads it than where the run was started",
                "let all workers see the same file, and the same version of wasnow",
            )
        return built if self.words is None else built.bind(self.words)


@dataclass(frozen=True)
class Plan:
    """All that is decided before the first pixel is answered.

    Attributes:
        pair: both rasters, placed on the working grid.
        target: the grid that `Options.align` names.
        result: the grid of the result rasters.
        tiling: of the working grid.
        warnings: what looks wrong, in words.
        words: the classes as they were asked for: "house|home" where the class is called "house".
        fingerprint: what tells the model from others, its words left aside; None where it does not say.
        calibration: the temperatures that the model came with.
        about: what its weights were trained on and where they fall short, in its own words; None where it does not say.
        other_words: what its class "other" stands for; empty for a model that has none.
        wants_priors: the words whose masks it wants to be told; empty for most.
        priors: the masks that were made beforehand; None where there are none, or they are made on the way.
        learned_priors: what the masks were that it learned from; None where nobody knows.
        reference: how another process comes by the network; None for one that was made in Python, and for methods
            that fit themselves to the scene.
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
        """The bound model's card."""
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
    model: str | ChangeModel | SceneModel = registry.DEFAULT,
    classes: str | Sequence[str] | None = None,
    options: Options | None = None,
) -> Plan:
    """Look at two rasters and decide how they would be compared; reads headers only.

    Raises:
        InputError: a file is unreadable or unsuitable, or the two share no ground.
        UsageError: options that do not fit each other, the files or the model.
    """
    options = options or Options()
    # Files first: to look at them takes no time, and to load a network does.
    opening: dict[str, Any] = {"assume_crs": options.assume_crs, "allow_indirect": options.allow_indirect}
    sources = probe(before, **opening), probe(after, **opening)
    warnings = check_overlap(sources[0].grid, sources[1].grid, (sources[0].path, sources[1].path))
    built = named_model(model, options.device) if isinstance(model, str) else model
    # These belong to the weights; a network bound to other words need not carry them along.
    weights, own = built.card.weights, built.card.classes
    calibrated = _calibration(weights)
    words = None if classes is None else Vocabulary.parse(classes).words
    if words is not None:
        built = built.bind(words)
    card = built.card
    warnings += card.remarks
    if calibrated is not None:
        calibrated = calibrated.model_copy(update={"for_these_classes": own == card.classes})
    _check_model_options(built, options)
    wanted = card.wants_priors
    priors = _opened_priors(wanted, options)
    class_thresholds = _class_thresholds(card, dict(options.class_thresholds))
    chosen, remark = choose_bands(*sources, options.bands, card)
    warnings += remark
    target = _target_grid(options.align, *chosen, options.allow_indirect)
    if options.align not in ("before", "after", "finest"):
        for source in chosen:
            check_overlap(target, source.grid, (options.align, source.path))
    working, remark = _working_grid(target, card, options.gsd)
    warnings += remark
    result = working if options.grid == "working" else target
    dates = (options.date_before or chosen[0].date, options.date_after or chosen[1].date)
    if dates[0] is not None and dates[1] is not None and dates[0][: len(dates[1])] > dates[1][: len(dates[0])]:
        warnings.append(f"before is dated {dates[0]}, after {dates[1]}: are the two files swapped?")
    tile = card.tile if options.tile is None else options.tile
    margin = card.margin if options.margin is None else options.margin
    if options.margin is None and options.tile is not None:
        margin = min(margin, (tile - 1) // 4)
    if result != working:
        # Interpolating the answer to another grid looks a little beyond each core.
        margin = max(margin, 8) if options.margin is None else margin
        tile = max(tile, 4 * margin) if options.tile is None else tile
    tiling = Tiling(*working.shape, tile=tile, margin=margin, stride=card.stride, blend=options.blend)
    return Plan(
        model=built,
        options=options,
        pair=Pair.of(*chosen, working),
        target=target,
        result=result,
        tiling=tiling,
        vocabulary=Vocabulary(card.classes),
        threshold=options.threshold,
        dates=dates,
        warnings=tuple(warnings),
        words=_as_named(words, card.classes),
        class_thresholds=class_thresholds,
        fingerprint=weights.fingerprint,
        calibration=calibrated,
        about=weights.about,
        other_words=card.other_words,
        wants_priors=wanted,
        priors=priors,
        learned_priors=weights.learned_priors if wanted else None,
        reference=_reference(model, words, weights.fingerprint) if not isinstance(built, SceneModel) else None,
    )


def _reference(
    model: str | ChangeModel | SceneModel, words: tuple[str, ...] | None, fingerprint: str | None
) -> ModelReference | None:
    if not isinstance(model, str):
        return None
    name = model if model in registry.MODELS else os.path.abspath(model)  # noqa: PTH100 - links stay as the user named them
    return ModelReference(name, words, fingerprint)


def _as_named(asked: tuple[str, ...] | None, names: tuple[str, ...]) -> tuple[str, ...]:
    """The words that were asked for; a word that differs from its class in case alone is the class."""
    # A model without classes may answer as it always does, whatever words it is given; an open one may add "other".
    if asked is None or len(asked) > len(names):
        return names
    own = tuple(name if word.casefold() == name.casefold() else word for word, name in zip(asked, names, strict=False))
    return (*own, *names[len(own) :])


def _calibration(weights: WeightsInfo) -> CalibrationRecord | None:
    found = weights.calibration
    return None if found is None else CalibrationRecord.model_validate(found, from_attributes=True)


def _check_model_options(model: ChangeModel | SceneModel, options: Options) -> None:
    """Refuse options that only some models can carry out, before any pixel is read."""
    card = model.card
    if options.precision != "32" and isinstance(model, SceneModel):
        raise UsageError(f"{card.name} is no network and counts in full precision: leave --precision out")
    if options.device == OPENVINO:
        if isinstance(model, SceneModel):
            raise UsageError(f"{card.name} is no network, and OpenVINO runs networks: leave --device out")
        require_openvino()
    if options.landcover and not card.classes:
        raise UsageError(f"{card.name} answers without classes: no --landcover; choose a model with classes")
    wanted = card.wants_priors
    if not wanted and (options.priors or options.masker or options.masks):
        given = "priors" if options.priors else "masker" if options.masker else "masks"
        raise UsageError(f"{card.name} takes no masks: leave --{given} out, or choose a model that does, as sam-cd")
    if wanted and options.keep_features is not None:
        raise UsageError(f"{card.name} looks at masks as well as at images, and keeps no features: no --keep-features")
    if options.keep_features is not None and not isinstance(model, FeatureModel):
        raise UsageError(
            f"{card.name} keeps no image features: --keep-features is for networks that answer any words from one "
            "look at the images, such as semantic-cd; leave it out"
        )


def _opened_priors(wanted: tuple[str, ...], options: Options) -> Priors | None:
    """The prior folder that the options name.

    Raises:
        InputError: it is none.
        UsageError: it is of a dataset.
        VocabularyError: it lacks a word that the model wants.
    """
    if not wanted or options.priors in (None, WITHOUT):
        return None
    priors = open_priors(str(options.priors), wanted)
    for date in DATES:
        priors.grid(date)
    return priors


def _class_thresholds(card: ModelCard, wanted: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    """Thresholds by the words of the model, whatever their case was.

    Raises:
        UsageError: the model has no classes.
        VocabularyError: a word is none of them, or there twice.
    """
    known = {word.casefold(): word for word in card.classes}
    found: dict[str, float] = {}
    for word, value in wanted.items():
        if not known:
            raise UsageError(
                f"{card.name} answers without classes, and --threshold {word}={value:g} names one; "
                "give a number alone, or choose a model with classes"
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


def named_model(name: str, device: str = "auto") -> ChangeModel | SceneModel:
    """The model that ``--model`` means: a name of ``wasnow models``, a checkpoint, or the folder of a training run.

    Raises:
        UnknownModel: neither a name nor a path; says which are near.
        UsageError: a network without weights.
        CheckpointError: the checkpoint cannot be used.
    """
    if device == OPENVINO:
        # It takes the weights from the processor.
        device = "cpu"
    looks_like_path = Path(name).exists() or "/" in name or name.endswith(".safetensors")
    if registry.shipped(name) is not None:
        return registry.ready(name, chosen_device(device))
    if name in registry.MODELS or not looks_like_path:
        return registry.ready(name)
    from wasnow.models import checkpoint

    return checkpoint.load(name, device=chosen_device(device))


def chosen_device(device: str) -> str:
    """``auto`` is a GPU where torch finds one.

    Raises:
        UsageError: torch does not have that device.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {device} is not to be had here ({reason}); use --device cpu") from None
    return device


def choose_bands(
    before: RasterSource, after: RasterSource, bands: tuple[int, ...] | None, card: ModelCard
) -> tuple[tuple[RasterSource, RasterSource], list[str]]:
    """Which bands of each date the model gets, and remarks on how sure that is.

    Raises:
        BandsUnclear: they cannot be told, or are none that the model could look at; says what to do instead.
    """
    wanted = card.bands
    if bands is not None:
        if wanted == "rgb" and len(bands) != 3:
            raise BandsUnclear(
                f"--bands names {len(bands)} band{'s' * (len(bands) != 1)}, and {card.name} takes red, green, blue; "
                f"name three, or {ANY_BANDS}"
            )
        return (before.with_bands(bands), after.with_bands(bands)), []
    if wanted == "rgb":
        for source in (before, after):
            _check_colourful(source, card.name)
        chosen = _rgb(before), _rgb(after)
        remarks = []
        for source, (_, sure) in zip((before, after), chosen, strict=True):
            if not sure:
                remarks.append(
                    f"{source.path} does not say its colours: bands 1, 2, 3 taken as red, green, blue; "
                    "if they are others, name them with --bands"
                )
            elif source.n_bands == 1 and source.palette is None:
                remarks.append(
                    f"{source.path} has one band: shown to {card.name} as grey, and it knows colours; expect less of "
                    f"it, or {ANY_BANDS}"
                )
        return (before.with_bands(chosen[0][0]), after.with_bands(chosen[1][0])), remarks
    if before.n_bands == after.n_bands:
        return (before, after), []
    colours = _rgb(before), _rgb(after)
    if colours[0][1] and colours[1][1]:
        remark = f"before has {before.n_bands} bands, after {after.n_bands}: red, green, blue of both are compared"
        return (before.with_bands(colours[0][0]), after.with_bands(colours[1][0])), [remark]
    raise BandsUnclear(
        f"before has {before.n_bands} bands, after {after.n_bands}; say which to compare, such as --bands 1,2,3"
    )


def _check_colourful(source: RasterSource, name: str) -> None:
    """Refuse what no model of colours can look at.

    Raises:
        BandsUnclear: two bands, or radar.
    """
    if source.n_bands == 2:
        what = f"has 2 bands ({', '.join(source.band_names)})"
    elif RADAR_BANDS & {word for each in source.band_names for word in re.split(r"[^a-z0-9]+", each.casefold())}:
        what = f"is radar, by the names of its bands ({', '.join(source.band_names[:4])})"
    else:
        return
    raise BandsUnclear(f"{source.path} {what}, and {name} looks at red, green, blue; {ANY_BANDS}")


def _rgb(source: RasterSource) -> tuple[tuple[int, ...], bool]:
    """(bands of red, green, blue; whether the file itself says so)."""
    if source.palette is not None:
        return source.bands, True
    names = [name.strip().casefold() for name in source.band_names]
    for known in (list(source.colors), names):
        if all(color in known for color in ("red", "green", "blue")):
            places = [known.index(color) for color in ("red", "green", "blue")]
            return tuple(p + 1 if known is not names else source.bands[p] for p in places), True
    if source.n_bands >= 3:
        return source.bands[:3], False
    if source.n_bands == 1:
        return source.bands * 3, True
    raise BandsUnclear(f"{source.path} has {source.n_bands} bands and names no colours; name three with --bands")


def _target_grid(align: str, before: RasterSource, after: RasterSource, allow_indirect: bool) -> Grid:
    if align == "before":
        return before.grid
    if align == "after":
        return after.grid
    if align == "finest":
        return finest(before.grid, after.grid)
    if not Path(align).exists():
        raise UsageError(f"--align {align!r} is neither before, after, finest nor a raster file")
    return probe(align, allow_indirect=allow_indirect).grid


def _working_grid(target: Grid, card: ModelCard, gsd: float | None) -> tuple[Grid, list[str]]:
    """The grid on which the model sees the pair, and warnings about its scale.

    A model that was measured on a range of scales sees finer images at the fine end of it, unless the user says
    otherwise: a house that is ten times as wide as any that it has seen is no house to it.
    """
    warnings = []
    here = target.gsd_m
    wanted = card.gsd_m if gsd is None else gsd
    if here is None:
        # Without a CRS, gsd says how large the pixels are; the model's own resolution is the goal.
        here, wanted = gsd, card.gsd_m
    serves = card.gsd_range_m
    if here is None and (card.gsd_m is not None or serves is not None):
        at = f"{card.gsd_m:g}" if serves is None else f"{serves[0]:g} to {serves[1]:g}"
        warnings.append(
            f"{card.name} works at {at} m per pixel and these images do not say their scale: "
            "taken as they are; give their pixel size with --gsd"
        )
    if wanted is None and here is not None and serves is not None and here < serves[0] / (1 + SAME_GSD):
        wanted = serves[0]
        otherwise = f"; --gsd {here:.3g} shows it as it is" if target.gsd_m is not None else ""
        warnings.append(
            f"{card.name} sees this pair at {wanted:g} m per pixel, the finest that it was trained for, "
            f"and not at {here:.3g} m{otherwise}"
        )
    factor = wanted / here if wanted is not None and here is not None else 1.0
    if abs(factor - 1) <= SAME_GSD:
        factor = 1.0
    seen = here * factor if here is not None else None
    if serves is not None and seen is not None and here is not None:
        low, high = serves
        native = max(seen, here)
        if not low / (1 + SAME_GSD) <= native <= high * (1 + SAME_GSD):
            advice = "compare imagery this coarse with --model irmad" if native > high else "leave --gsd out"
            warnings.append(
                f"{card.name} was measured on {low:g} to {high:g} m per pixel, this pair is seen at {native:.3g} m: "
                f"expect less of it, or {advice}"
            )
    return target.scaled(_snapped(factor, target, card.stride)), warnings


def _snapped(factor: float, target: Grid, stride: int) -> float:
    """A factor close to this one by which the longer side becomes a whole number of pixels, of strides if possible.

    Pixel sizes on the ellipsoid are never round: 512 px of 0.2 m are 256.5 of 0.4 m. The half pixel would be padded to
    a whole stride that shows nothing. A working resolution within `SAME_GSD` of the wanted one serves as well.
    """
    if factor == 1:
        return factor
    length = max(target.shape)
    for step in (stride, 1):
        pixels = round(length / factor / step) * step
        if pixels and abs(length / pixels / factor - 1) <= SAME_GSD:
            return length / pixels
    return factor
