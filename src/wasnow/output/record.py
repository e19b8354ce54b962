"""``run.json``: inputs, options, model and outcome of a run. Reports, verification and Python read nothing else.

Paths are recorded as the user gave them. Counts are in pixels of the result grid, areas in square metres on the
ellipsoid (None without georeference).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from wasnow.errors import InputError
from wasnow.output.layout import RECORD_NAME
from wasnow.storage.journal import BlockRecord

FORMAT = 1
"""Increased when a field changes its meaning; new fields with a default keep the format."""


class _Strict(BaseModel):
    """Values that later versions add to a format have a default here and are ignored where they are unknown."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class FileSum(_Strict):
    """A file that was read or written: name, size in bytes, SHA-256 (both None for a remote file)."""

    name: str
    size: int | None
    sha256: str | None


class GridRecord(_Strict):
    """A grid; ``transform`` is (a, b, c, d, e, f) as in rasterio: x = a col + b row + c, y = d col + e row + f."""

    crs: str | None = Field(description="AUTHORITY:CODE if there is one, else WKT; None for pixel coordinates")
    transform: tuple[float, float, float, float, float, float]
    width: int
    height: int
    gsd_m: float | None = Field(description="pixel side on the ground, in metres, at the centre")


class InputRecord(_Strict):
    """One of the two input rasters, and how it was brought onto the working grid."""

    path: str
    files: tuple[FileSum, ...]
    driver: str
    grid: GridRecord
    dtype: str
    bands: tuple[int, ...] = Field(description="1-based, in the order given to the model")
    band_names: tuple[str, ...]
    nodata: tuple[float | None, ...] = Field(description="NaN is written as the string 'nan' in JSON")
    mask: str = Field(description="source of the valid pixels: nodata, alpha, mask, none")
    date: str | None
    date_doubt: str | None = Field(default=None, description="why the date may not be that of the acquisition")
    alignment: str = Field(description="how it is resampled to the working grid, in words")
    overview: int | None = Field(description="decimation of the overview that was read; None for full resolution")
    stretch: tuple[tuple[float, float], ...] | None = Field(description="per band (low, high) for display scaling")


class CalibrationRecord(_Strict):
    """Temperatures of a calibrated model, and its expected calibration error (ECE, 0..1) before and after."""

    change_temperature: float = Field(gt=0, description="divides the log-odds of change")
    class_temperature: float = Field(gt=0, description="divides the class logits")
    ece_change_before: float | None = Field(default=None, description="expected calibration error on ``split``")
    ece_change_after: float | None = None
    ece_class_before: float | None = None
    ece_class_after: float | None = None
    split: str
    pairs: int
    for_these_classes: bool = Field(default=True, description="whether it was fitted with the class words of this run")


class ModelRecord(_Strict):
    """The model, its thresholds, and its fit."""

    name: str
    summary: str
    source: str
    fingerprint: str
    classes: tuple[str, ...]
    threshold: float
    threshold_from: str = Field(description="'model default', 'model default, calibrated' or 'option'")
    class_thresholds: dict[str, float] = Field(
        default_factory=dict, description="by class word; only those above the common one have an effect"
    )
    calibration: CalibrationRecord | None = None
    about: str | None = Field(
        default=None, description="training data and limits of its weights, as its checkpoint describes them"
    )
    gsd_range_m: tuple[float, float] | None = Field(default=None, description="pixel sizes at which it was evaluated")
    other_words: tuple[str, ...] = Field(
        default=(), description="the classes that 'other' stands for, if there is such a class"
    )
    fit: dict[str, Any] | None = Field(default=None, description="diagnostics of a model that is fitted to the scene")
    shipped: bool = Field(default=False, description="whether its weights are part of the wasnow package")


class ShiftRecord(_Strict):
    """Displacement of after relative to before, estimated by phase correlation over sampled windows."""

    rows_px: float
    cols_px: float
    spread_px: float = Field(description="median absolute deviation over the windows")
    windows: int


class TransitionRecord(_Strict):
    """One row of the table of transitions; only transitions that occur are listed."""

    code: int
    before: str | None
    after: str
    color: tuple[int, int, int]
    pixels: int
    area_m2: float | None
    polygons: int | None


class LandcoverRecord(_Strict):
    """Pixels and area of one class (before, after) in the unmasked class maps; every class has a row."""

    code: int
    word: str
    color: tuple[int, int, int]
    pixels: tuple[int, int]
    area_m2: tuple[float, float] | None


class FeaturesRecord(_Strict):
    """Cached image features: tiles that were predicted from them, and tiles that had to be encoded."""

    folder: str
    limit_gb: float
    tiles_reused: int
    tiles_encoded: int


class PriorsRecord(_Strict):
    """The prior masks that a model was given: their words, what made them, and their digest."""

    words: tuple[str, ...]
    masker: dict[str, Any] = Field(description="its name, and everything else that its masks depend on")
    digest: str | None = Field(default=None, description="of all masks; None if they were made during the run")


class ExecutorRecord(_Strict):
    """The processes that computed the blocks of the last command; the result does not depend on them."""

    kind: Literal["this process", "processes", "dask"]
    scheduler: str | None = Field(default=None, description="address of the dask scheduler; None without one")
    workers: tuple[str, ...] = Field(default=(), description="addresses or process ids of all workers")
    threads: int | None = Field(
        default=None, description="threads of each worker for the network; None: its own default"
    )
    lost: int = Field(default=0, description="workers that died or left; their blocks were computed again")


class PixelRecord(_Strict):
    """Pixels of the result grid by outcome: changed + unchanged + all not_processed = total."""

    total: int
    changed: int
    unchanged: int
    not_processed: dict[str, int]


class AreaRecord(_Strict):
    """Areas by outcome, in square metres."""

    total: float
    changed: float
    unchanged: float
    not_processed: float


class RunRecord(_Strict):
    """The content of run.json."""

    format: int = FORMAT
    wasnow: str
    status: Literal["complete", "partial"]
    started: str
    finished: str
    command: tuple[str, ...]
    environment: dict[str, str]
    before: InputRecord
    after: InputRecord
    grid: GridRecord = Field(description="the grid of the result rasters")
    working_grid: GridRecord = Field(description="the grid on which the model ran")
    options: dict[str, Any]
    model: ModelRecord
    shift: ShiftRecord | None
    transitions: tuple[TransitionRecord, ...]
    pixels: PixelRecord
    areas_m2: AreaRecord | None
    polygons: int
    blocks: tuple[BlockRecord, ...]
    landcover: tuple[LandcoverRecord, ...] = Field(default=(), description="empty without class maps")
    features: FeaturesRecord | None = Field(default=None, description="None if none were cached")
    priors: PriorsRecord | None = Field(default=None, description="None for a model that takes no prior masks")
    executor: ExecutorRecord | None = Field(default=None, description="None in records of earlier versions")
    warnings: tuple[str, ...]
    timings_s: dict[str, float]
    outputs: tuple[FileSum, ...]

    @field_validator("outputs")
    @classmethod
    def _in_the_folder(cls, outputs: tuple[FileSum, ...]) -> tuple[FileSum, ...]:
        # A record from elsewhere must not name files outside its folder.
        for each in outputs:
            if each.name in ("", ".", "..") or set(each.name) & set("/\\\0"):
                raise ValueError(f"{each.name!r} is not a plain file name")
        return outputs

    def write(self, path: Path) -> None:
        """Write as indented JSON; the caller renames the file into place."""
        path.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        """Return the record of a finished result folder.

        Raises:
            InputError: there is none, or this version cannot read it.
        """
        path = Path(folder) / RECORD_NAME
        try:
            text = path.read_text(encoding="utf-8")
            if (newer := _newer_format(text)) is not None:
                raise InputError(
                    f"{path} has format {newer}, this version of wasnow reads formats up to {FORMAT}; upgrade wasnow"
                )
            return cls.model_validate_json(text)
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(
                f"{folder} is not a finished result folder: it has no {RECORD_NAME}; run wasnow detect"
            ) from None
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}); check its permissions") from None
        except (ValidationError, UnicodeDecodeError) as error:
            if isinstance(error, ValidationError):
                first = f"{'.'.join(map(str, error.errors()[0]['loc']))}: {error.errors()[0]['msg']}"
            else:
                first = str(error).splitlines()[0]
            raise InputError(
                f"{path} is not a record that this version can read ({first}); run wasnow detect again"
            ) from None


def _newer_format(text: str) -> int | None:
    """Return the format of a record that a later version wrote; None for a known format or no record at all."""
    try:
        number = json.loads(text)["format"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return number if isinstance(number, int) and not isinstance(number, bool) and number > FORMAT else None
