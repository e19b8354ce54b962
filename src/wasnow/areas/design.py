"""The design of a sample: everything that makes it repeatable and auditable, as ``design.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wasnow.areas.strata import Strata
from wasnow.errors import InputError

DESIGN, POINTS, POINTS_CSV, KEY, LABELS = "design.json", "points.gpkg", "points.csv", "strata.csv", "labels.csv"
FORMAT = 1


UNCHANGED, ANY_CHANGE = "no change", "any change"
"""Labels of pixels that did not change, and of all that did."""

ARROW = " → "


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StratumRecord(_Strict):
    """One stratum of a design."""

    name: str
    units: int = Field(gt=0, description="sampling units (pixels), N_h")
    area_m2: float | None = Field(description="ground area; None without a CRS")
    points: int = Field(ge=0, description="points drawn, n_h")


class MappedArea(_Strict):
    """How much of the study area the map gives one transition."""

    name: str
    share: float


class ExpectedMargin(_Strict):
    """The precision that was expected of a class before the draw."""

    name: str
    share: float
    margin: float | None = Field(description="half width of the 95 % interval relative to the area; None if infinite")
    hits: float


class Design(_Strict):
    """The content of design.json."""

    format: int = FORMAT
    wasnow: str
    created: str
    map: str = Field(description="the result folder, as it was named")
    map_sha256: str = Field(description="of its change.tif")
    confidence_sha256: str
    dates: tuple[str | None, str | None]
    classes: tuple[str, ...]
    crs: str | None
    transform: tuple[float, float, float, float, float, float]
    width: int
    height: int
    seed: int
    unit: Literal["pixel"] = "pixel"
    probability: Literal["per unit", "per square metre"]
    allocation: str
    buffer_px: float
    evidence: float
    strata: tuple[StratumRecord, ...]
    mapped: tuple[MappedArea, ...] = Field(description="every transition of the map, by ground area where known")
    expected: tuple[ExpectedMargin, ...]
    excluded_units: int = Field(description="pixels that were not processed; they are outside the study area")
    excluded_area_m2: float | None

    def as_strata(self) -> Strata:
        """The strata for the estimators."""
        areas = [row.area_m2 for row in self.strata]
        known = tuple(area for area in areas if area is not None)
        return Strata(
            tuple(row.name for row in self.strata),
            tuple(float(row.units) for row in self.strata),
            known if len(known) == len(areas) else None,
        )

    def mapped_share(self, name: str) -> float:
        """Share of the study area that the map gives a transition, or a class gains or loses (``"→ water"``)."""
        if name == UNCHANGED:
            return 1.0 - sum(row.share for row in self.mapped)
        return sum(row.share for row in self.mapped if name in (ANY_CHANGE, row.name, *_gain_and_loss(row.name)))

    @classmethod
    def read(cls, folder: Path) -> Design:
        """The design of a sample folder.

        Raises:
            InputError: the folder has no design, or one that this version cannot read.
        """
        path = folder / DESIGN
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(f"{folder}: no {DESIGN}; make a sample with wasnow sample RESULT -o {folder}") from None
        except (ValidationError, UnicodeDecodeError) as error:
            first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error).splitlines()[0]
            raise InputError(f"{path}: not a design that this version reads ({first})") from None


def _gain_and_loss(transition: str) -> tuple[str, str]:
    before, _, after = transition.partition(ARROW)
    return gain(after), loss(before)


def gain(word: str) -> str:
    """The label of all transitions to a class."""
    return f"→ {word}"


def loss(word: str) -> str:
    """The label of all transitions from a class."""
    return f"{word} →"
