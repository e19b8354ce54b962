"""``run.json``: what a run did, to what, with what outcome. The only description of a result folder; reports read it.

Paths are as the user gave them. Every count is in pixels of the result grid, every area in square metres on the
ellipsoid (None where the rasters have no georeference).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

RECORD_NAME = "run.json"
FORMAT = 1

BlockOutcome = Literal["done", "empty", "failed"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileSum(_Strict):
    """One file as it was read or written: name, bytes, and SHA-256 (None for remote files)."""

    name: str
    size: int | None
    sha256: str | None


class GridRecord(_Strict):
    """A grid in words that any tool understands; ``transform`` is (a, b, c, d, e, f) as in GDAL-rasterio order."""

    crs: str | None = Field(description="AUTHORITY:CODE where there is one, else WKT; None for pixel coordinates")
    transform: tuple[float, float, float, float, float, float]
    width: int
    height: int
    gsd_m: float | None = Field(description="pixel side on the ground, in metres, at the centre")


class InputRecord(_Strict):
    """One of the two rasters, and how it was brought onto the working grid."""

    path: str
    files: tuple[FileSum, ...]
    driver: str
    grid: GridRecord
    dtype: str
    bands: tuple[int, ...] = Field(description="1-based, in the order given to the model")
    band_names: tuple[str, ...]
    nodata: tuple[float | None, ...] = Field(description="NaN is written as the string 'nan' in JSON")
    mask: str = Field(description="where validity comes from: nodata, alpha, mask, none")
    date: str | None
    alignment: str = Field(description="how its pixels reach the working grid, in words")
    overview: int | None = Field(description="decimation of the overview that was read; None for full resolution")
    stretch: tuple[tuple[float, float], ...] | None = Field(description="per band (low, high) for display scaling")


class CalibrationRecord(_Strict):
    """The temperatures of a calibrated model, and how far its confidence was off before and after, each 0..1."""

    change_temperature: float = Field(gt=0, description="divides the log-odds of change")
    class_temperature: float = Field(gt=0, description="divides the class logits")
    ece_change_before: float | None = Field(default=None, description="expected calibration error on that split")
    ece_change_after: float | None = None
    ece_class_before: float | None = None
    ece_class_after: float | None = None
    split: str
    pairs: int
    for_these_classes: bool = Field(default=True, description="whether it was fitted with the words of this run")


class ModelRecord(_Strict):
    """Which model, fed how, fitted how."""

    name: str
    summary: str
    source: str
    fingerprint: str
    classes: tuple[str, ...]
    threshold: float
    threshold_from: str = Field(description="'model default', 'model default, calibrated' or 'option'")
    class_thresholds: dict[str, float] = Field(default_factory=dict, description="by word; above the common one only")
    calibration: CalibrationRecord | None = None
    about: str | None = Field(default=None, description="what its weights were trained on and where they fall short")
    gsd_range_m: tuple[float, float] | None = Field(default=None, description="pixel sides that it was measured at")
    other_words: tuple[str, ...] = Field(default=(), description="what the class 'other' stands for, if there is one")
    fit: dict[str, Any] | None = Field(default=None, description="diagnostics of a scene model")


class ShiftRecord(_Strict):
    """Estimated displacement of after against before, by phase correlation over sampled windows."""

    rows_px: float
    cols_px: float
    spread_px: float = Field(description="median absolute deviation over the windows")
    windows: int


class TransitionRecord(_Strict):
    """One row of the from-to table; only transitions that occur are listed."""

    code: int
    before: str | None
    after: str
    color: tuple[int, int, int]
    pixels: int
    area_m2: float | None
    polygons: int | None


class LandcoverRecord(_Strict):
    """What one class covers (before, after) in the two unmasked class maps; every class has such a row."""

    code: int
    word: str
    color: tuple[int, int, int]
    pixels: tuple[int, int]
    area_m2: tuple[float, float] | None


class FeaturesRecord(_Strict):
    """Image features kept on disk: tiles that were answered from them, and tiles that had to be encoded."""

    folder: str
    limit_gb: float
    tiles_reused: int
    tiles_encoded: int


class PriorsRecord(_Strict):
    """The masks that a model was told: of which words, made by what, and which they are."""

    words: tuple[str, ...]
    masker: dict[str, Any] = Field(description="its name, and what else its answers depend on")
    digest: str | None = Field(default=None, description="of every mask; None where they were made on the way")


class BlockRecord(_Strict):
    """What became of one block of the result grid."""

    block: int
    row: int
    col: int
    height: int
    width: int
    outcome: BlockOutcome
    seconds: float
    not_processed: dict[str, int] = Field(default_factory=dict, description="reason -> pixels")
    error: str | None = None
    tiles_reused: int = Field(default=0, description="answered from kept features")
    tiles_encoded: int = Field(default=0, description="encoded while features were kept")


class ExecutorRecord(_Strict):
    """Who answered the blocks of the last command: no part of what a run is, since all give the same."""

    kind: Literal["this process", "processes", "dask"]
    scheduler: str | None = Field(default=None, description="its address; None without one")
    workers: tuple[str, ...] = Field(default=(), description="addresses, or process numbers, of all that took part")
    threads: int | None = Field(default=None, description="of each worker, for the network; None: as each has them")
    lost: int = Field(default=0, description="workers that died or left; their blocks were tried anew")


class PixelRecord(_Strict):
    """Where every pixel of the result grid went: changed + unchanged + all not_processed = total."""

    total: int
    changed: int
    unchanged: int
    not_processed: dict[str, int]


class AreaRecord(_Strict):
    """The same in square metres."""

    total: float
    changed: float
    unchanged: float
    not_processed: float


class RunRecord(_Strict):
    """The whole of run.json."""

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
    working_grid: GridRecord = Field(description="the grid that the model saw")
    options: dict[str, Any]
    model: ModelRecord
    shift: ShiftRecord | None
    transitions: tuple[TransitionRecord, ...]
    pixels: PixelRecord
    areas_m2: AreaRecord | None
    polygons: int
    blocks: tuple[BlockRecord, ...]
    landcover: tuple[LandcoverRecord, ...] = Field(default=(), description="empty without class maps")
    features: FeaturesRecord | None = Field(default=None, description="None where none were kept")
    priors: PriorsRecord | None = Field(default=None, description="None for a model that wants no masks")
    executor: ExecutorRecord | None = Field(default=None, description="None in records of earlier versions")
    warnings: tuple[str, ...]
    timings_s: dict[str, float]
    outputs: tuple[FileSum, ...]

    @field_validator("outputs")
    @classmethod
    def _in_the_folder(cls, outputs: tuple[FileSum, ...]) -> tuple[FileSum, ...]:
        # Whoever reads a folder of somebody else's must not be led out of it.
        for each in outputs:
            if each.name in ("", ".", "..") or set(each.name) & set("/\\\0"):
                raise ValueError(f"{each.name!r} is no file of the folder")
        return outputs

    def write(self, path: Path) -> None:
        """Write as indented JSON; the caller renames it into place."""
        path.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        """The record of a finished result folder.

        Raises:
            InputError: there is none, or it is not one that this version reads.
        """
        from pydantic import ValidationError

        from wasnow.errors import InputError

        path = Path(folder) / RECORD_NAME
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(
                f"{folder} is no finished result folder: it has no {RECORD_NAME}; run wasnow detect"
            ) from None
        except (ValidationError, UnicodeDecodeError) as error:
            first = (
                str(error).splitlines()[0]
                if not isinstance(error, ValidationError)
                else (f"{'.'.join(map(str, error.errors()[0]['loc']))}: {error.errors()[0]['msg']}")
            )
            raise InputError(
                f"{path} is not a record that this version reads ({first}); run wasnow detect again"
            ) from None
