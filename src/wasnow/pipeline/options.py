"""The options of a run, declared once: types, defaults, valid values and help texts.

    Options ──> wasnow.detect(...), wasnow.detect_pairs(...)   keyword arguments, see `OptionValues`
            ├─> wasnow detect, wasnow info, rio wasnow         command line options, see `wasnow.cli.options`
            └─> wasnow detect --pairs LIST                     columns of the list, see `wasnow.batch.table`

The command line imports this module for ``--help``, so it imports nothing heavy.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal, TypedDict, Unpack, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from wasnow.errors import InvalidOption, did_you_mean
from wasnow.pipeline.option_values import (
    PROBABILITY,
    check_date,
    crs_text,
    nodata_text,
    number_text,
    numbers,
    plain,
    stretch_text,
    texts,
    threshold_pairs,
    whole_number,
    with_split_thresholds,
)

GRID, MODEL, POLYGONS, RUN = "Grids", "Model", "Polygons", "Run"
"""Headings of the help."""

AnyPath = str | os.PathLike[str]
DateLike = str | date


@dataclass(frozen=True, slots=True)
class Shown:
    """How an option appears outside Python.

    Attributes:
        panel: heading in the help of the command line.
        valid: what a valid value is, for error messages.
        metavar: placeholder of the value in the help; None for the default of the type.
        flag: whether it is an option of the command line of its own.
        per_pair: whether a list of pairs may set it per row.
        path: whether its value is a path, which a list of pairs resolves against its own folder.
        words: values that are not paths.
    """

    panel: str
    valid: str = ""
    metavar: str | None = None
    flag: bool = True
    per_pair: bool = True
    path: bool = False
    words: tuple[str, ...] = ()


# --- the options -------------------------------------------------------------------------------------------------

Plain = BeforeValidator(plain)
Texts = Annotated[tuple[str, ...] | None, BeforeValidator(texts)]
Probability = Annotated[float, Field(ge=0, lt=1)]


class Options(BaseModel):
    """All options of a run with their defaults.

    Raises:
        InvalidOption: an unknown name, a value that is not valid, or options that exclude each other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: Annotated[Probability | None, Plain, Shown(MODEL, PROBABILITY, metavar="NUMBER | WORD=NUMBER")] = Field(
        None,
        description="Change probability above which a pixel counts as changed; default: the model's. "
        "Per class as building=0.7, repeated.",
    )
    class_thresholds: Annotated[
        tuple[tuple[str, Probability], ...],
        BeforeValidator(threshold_pairs),
        Shown(MODEL, "class words with numbers from 0 to below 1", flag=False, per_pair=False),
    ] = Field(
        (),
        description="Class word -> change probability. A pixel that changes from or to that class must also exceed it.",
    )
    landcover: Annotated[bool, Plain, Shown(MODEL, "yes or no")] = Field(
        False, description="Also write the class maps of both dates, not masked by change."
    )
    priors: Annotated[str | None, Plain, Shown(MODEL, "a path or none", path=True, words=("none",))] = Field(
        None, description="For a model that takes prior masks: the folder written by wasnow priors, or none."
    )
    masker: Annotated[str | None, Plain, Shown(MODEL, "the name of a masker")] = Field(
        None, description="Compute the prior masks during the run: grounded-sam, sam3 or clipseg."
    )
    masker_weights: Annotated[Texts, Shown(MODEL, "folders or names", path=True)] = Field(
        None, description="Weights of the masker, as for wasnow priors --weights."
    )
    masks: Annotated[Texts, Shown(MODEL, "one or two paths", path=True)] = Field(
        None, description="Use these prior masks: a raster, polygons or a folder; repeat for one per date."
    )
    bands: Annotated[
        tuple[int, ...] | None,
        BeforeValidator(lambda value: None if value is None else numbers(value)),
        Shown(MODEL, "numbers from 1, such as 4,3,2"),
    ] = Field(None, description="Bands of both rasters, such as 4,3,2; default: by colour interpretation.")
    stretch: Annotated[str, BeforeValidator(stretch_text), Shown(MODEL, "auto, two or four numbers such as 0,3000")] = (
        Field(
            "auto",
            description="auto, or LOW,HIGH: the values displayed as black and white; LOW,HIGH,LOW,HIGH "
            "for one stretch per date. In physical units where the file declares scale and offset.",
        )
    )
    nodata: Annotated[
        str | None, BeforeValidator(nodata_text), Shown(GRID, "a number, or one per date such as 0,-9999")
    ] = Field(None, description="Nodata value of both rasters, or VALUE,VALUE per date, for files that declare none.")
    align: Annotated[
        str, Plain, Shown(GRID, "before, after, finest or a path", path=True, words=("before", "after", "finest"))
    ] = Field("before", description="Grid of the results: before, after, finest, or a raster file.")
    assume_crs: Annotated[str | None, BeforeValidator(crs_text), Shown(GRID, "a CRS such as EPSG:32631")] = Field(
        None, description="CRS of rasters without one."
    )
    gsd: Annotated[
        Annotated[float, Field(gt=0, allow_inf_nan=False)] | None,
        Plain,
        Shown(GRID, "metres per pixel above 0, such as 0.5"),
    ] = Field(None, description="Working resolution in metres; for images without CRS the size of their pixels.")
    grid: Annotated[Literal["target", "working"], Plain, Shown(GRID, "target or working")] = Field(
        "target", description="Write the results on the target grid or on the working grid."
    )
    tile: Annotated[int | None, Plain, Shown(RUN, "a whole number of pixels")] = Field(
        None, description="Tile side in working pixels; default: the model's."
    )
    margin: Annotated[int | None, Plain, Shown(RUN, "a whole number of pixels")] = Field(
        None, description="Overlap at each side of a tile in pixels, cropped from the output; default: the model's."
    )
    blend: Annotated[bool, Plain, Shown(RUN, "yes or no")] = Field(
        False, description="Blend overlapping tiles with weights instead of cropping them."
    )
    symmetric: Annotated[bool, Plain, Shown(MODEL, "yes or no")] = Field(
        False,
        description="Average the predictions of both orders of the dates: swapped dates give the swapped map. Takes "
        "twice the time.",
    )
    batch: Annotated[Annotated[int, Field(ge=1)], Plain, Shown(RUN, "a whole number from 1")] = Field(
        1, description="Tiles per call of the model."
    )
    min_area: Annotated[
        Annotated[float, Field(ge=0, allow_inf_nan=False)], Plain, Shown(POLYGONS, "a number from 0")
    ] = Field(0.0, description="Smallest polygon in m²; in pixels without CRS.")
    connectivity: Annotated[Literal[4, 8], BeforeValidator(whole_number), Shown(POLYGONS, "4 or 8")] = Field(
        4, description="4, or 8 to join pixels that touch at a corner."
    )
    simplify: Annotated[
        Annotated[float, Field(ge=0, allow_inf_nan=False)] | None, Plain, Shown(POLYGONS, "a number from 0")
    ] = Field(
        None, description="Tolerance of polygon outlines in m; in pixels without CRS. Shared borders stay shared."
    )
    date_before: Annotated[str | None, Plain, Shown(RUN, "a date: YYYY, YYYY-MM or YYYY-MM-DD")] = Field(
        None, description="Date of BEFORE: YYYY, YYYY-MM or YYYY-MM-DD; default: the date in the file."
    )
    date_after: Annotated[str | None, Plain, Shown(RUN, "a date: YYYY, YYYY-MM or YYYY-MM-DD")] = Field(
        None, description="Date of AFTER, the same."
    )
    device: Annotated[str, Plain, Shown(RUN, "auto, cpu, cuda or openvino")] = Field(
        "auto", description="Device of the network: auto, cpu, cuda, openvino."
    )
    precision: Annotated[
        Literal["32", "bf16"],
        BeforeValidator(number_text),
        Shown(RUN, "32 or bf16", metavar="32|bf16"),
    ] = Field("32", description="bf16: about twice as fast on some CPUs and GPUs; results differ slightly.")
    keep_features: Annotated[str | None, Plain, Shown(RUN, "a path", path=True)] = Field(
        None, description="Folder for cached image features: a run with other class words does not encode again."
    )
    features_limit: Annotated[
        Annotated[float, Field(gt=0, allow_inf_nan=False)], Plain, Shown(RUN, "gigabytes above 0, such as 20")
    ] = Field(
        20.0, description="Largest size of that folder in GB (10^9 bytes); the oldest features are removed first."
    )
    workers: Annotated[
        Annotated[int, Field(ge=1)] | None, Plain, Shown(RUN, "a whole number from 1", per_pair=False)
    ] = Field(None, description="Number of worker processes on this machine; default: this process only.")
    scheduler: Annotated[
        str | None,
        Plain,
        Shown(RUN, "an address such as tcp://host:8786, or local", metavar="ADDRESS|local", per_pair=False),
    ] = Field(
        None,
        description="Run on the workers of a dask cluster: tcp://host:8786, or local to start one with --workers.",
    )
    allow_indirect: Annotated[bool, Plain, Shown(RUN, "yes or no", per_pair=False)] = Field(
        False, description="Also read rasters that refer to other files or servers: VRT, WMS, product descriptions."
    )
    keep_going: Annotated[bool, Plain, Shown(RUN, "yes or no")] = Field(
        False, description="Flag parts that cannot be read, finish, and exit with 5."
    )

    def __init__(self, **values: Unpack[OptionValues]) -> None:
        try:
            super().__init__(**with_split_thresholds(cast("dict[str, Any]", values)))
        except ValidationError as error:
            raise _invalid_option(error) from None

    @property
    def nodata_values(self) -> tuple[float | None, float | None]:
        """The nodata values of BEFORE and AFTER; None where none is given."""
        if self.nodata is None:
            return None, None
        values = [float(part) for part in self.nodata.split(",")]
        return values[0], values[-1]

    @model_validator(mode="after")
    def _consistent(self) -> Options:
        sources = [f"{{{name}}}" for name in ("priors", "masker", "masks") if getattr(self, name)]
        if len(sources) > 1:
            raise InvalidOption(
                f"{' and '.join(sources)} exclude each other: each is a source of prior masks; give one"
            )
        if self.masker_weights and self.masker is None:
            raise InvalidOption("{masker_weights} needs {masker}: name the masker that the weights belong to")
        if self.masker is not None:
            from wasnow.priors.maskers import MaskerChoice

            MaskerChoice(self.masker, self.masker_weights or ())
        if self.scheduler is not None and not re.fullmatch(r"local|[a-z]+://\S+", self.scheduler):
            raise InvalidOption(
                f"{{scheduler}} must be an address such as tcp://host:8786, or local for a cluster on this machine, "
                f"not {self.scheduler!r}"
            )
        if self.scheduler not in (None, "local") and self.workers is not None:
            raise InvalidOption(
                f"{{workers}} has no effect with {{scheduler}} {self.scheduler}, which has its own workers: leave it "
                "out, or use the scheduler local"
            )
        for name, value in (("date_before", self.date_before), ("date_after", self.date_after)):
            if value is not None:
                check_date(name, value)
        return self


class OptionValues(TypedDict, total=False):
    """The keyword arguments of `Options`, `wasnow.detect` and `wasnow.detect_pairs`, for type checkers and editors."""

    threshold: float | str | Sequence[str] | None
    class_thresholds: Mapping[str, float] | Iterable[tuple[str, float]]
    landcover: bool
    priors: AnyPath | None
    masker: str | None
    masker_weights: AnyPath | Sequence[AnyPath] | None
    masks: AnyPath | Sequence[AnyPath] | None
    bands: str | Sequence[int] | None
    stretch: str | tuple[float, ...]
    nodata: float | str | tuple[float, float] | None
    align: AnyPath
    assume_crs: str | int | Any | None
    gsd: float | None
    grid: Literal["target", "working"]
    tile: int | None
    margin: int | None
    blend: bool
    symmetric: bool
    batch: int
    min_area: float
    connectivity: Literal[4, 8]
    simplify: float | None
    date_before: DateLike | None
    date_after: DateLike | None
    device: str
    precision: Literal["32", "bf16"]
    keep_features: AnyPath | None
    features_limit: float
    workers: int | None
    scheduler: str | None
    allow_indirect: bool
    keep_going: bool


def fields() -> Mapping[str, FieldInfo]:
    """Return every option by name, in the order of the help."""
    return Options.model_fields


def shown(field: FieldInfo) -> Shown:
    """Return how an option appears outside Python."""
    return next(each for each in field.metadata if isinstance(each, Shown))


def _invalid_option(error: ValidationError) -> InvalidOption:
    first = error.errors()[0]
    name = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return InvalidOption(f"no option is called {name!r}{did_you_mean(name, list(fields()))}")
    value = first["input"]
    return InvalidOption(f"{{{name}}} must be {shown(fields()[name]).valid}, not {value!r:.80}")
