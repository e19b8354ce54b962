"""priors.json: the record of a prior folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from wasnow.errors import InputError
from wasnow.storage.atomic import write_atomically

MANIFEST = "priors.json"
FORMAT = 1
DATES: tuple[Literal["before"], Literal["after"]] = ("before", "after")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WordRecord(_Strict):
    """Coverage of one word in the images of one date.

    Attributes:
        share: share of valid pixels, 0..1.
        objects: number of objects, or of connected regions for maskers without objects; None for masks from files.
    """

    share: float
    objects: int | None


class DateRecord(_Strict):
    """One date of a pair: the raster the masks were made from, and its SHA-256 (None for a remote raster)."""

    path: str
    sha256: str | None


class Manifest(_Strict):
    """The content of priors.json."""

    format: int = FORMAT
    wasnow: str
    kind: Literal["pair", "dataset"]
    words: tuple[str, ...]
    masker: dict[str, Any]
    tile: int | None
    margin: int | None
    covered: dict[str, dict[str, WordRecord]]
    dates: dict[str, DateRecord] = {}
    pictures: dict[str, dict[str, str]] = {}

    @field_validator("pictures")
    @classmethod
    def _in_the_folder(cls, pictures: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        # Names in a folder from elsewhere must not lead out of it.
        for split, names in pictures.items():
            for name in (f"{split}/{name}" for name in names):
                if name.startswith("/") or ".." in re.split(r"[/\\]", name) or "\0" in name:
                    raise ValueError(f"{name!r} is not a name in the folder")
        return pictures

    def write(self, folder: Path) -> None:
        """Write it to a folder by an atomic rename."""
        write_atomically(folder / MANIFEST, f"{self.model_dump_json(indent=1)}\n".encode())

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of a finished prior folder.

        Raises:
            InputError: there is none, or this version cannot read it.
        """
        path = folder / MANIFEST
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(
                f"{folder} is not a finished prior folder: it has no {MANIFEST}. Make it with wasnow priors"
            ) from None
        except (OSError, UnicodeDecodeError, ValidationError) as error:
            reason = " ".join(str(error).split())[:120]
            raise InputError(f"{path} cannot be read ({reason}). Make the priors again") from None
