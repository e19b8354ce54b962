"""Any folder, described by a small YAML file: where the files are, and what label values mean.

    # dataset.yaml                                     # the same for binary change
    before: "{split}/T1/{name}.tif"                    before: "before/{name}.tif"
    after: "{split}/T2/{name}.tif"                     after: "after/{name}.tif"
    before_label: "{split}/GT_T1/{name}.png"           change_label: "label/{name}.tif"
    after_label: "{split}/GT_T2/{name}.png"            change_values: {0: unchanged, 1: changed, 3: unchanged}
    values: {0: unchanged, 1: water, 2: building, 255: no label}

Paths are relative to the file. ``{name}`` identifies a sample, ``{split}`` is the name of its split, ``*`` matches
anything within one folder. An unknown key is rejected, with the nearest known one in the message.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from wasnow.data.encodings import MINUS_ONE, LabelEncoding, Raw, encoding_named
from wasnow.data.faults import Fault
from wasnow.data.images import Rendering
from wasnow.data.layouts.layout import Layout, list_files, sorted_entries, split_of
from wasnow.data.layouts.lists import read_lists
from wasnow.data.samples import Entry
from wasnow.data.vectors import Columns, is_vector
from wasnow.errors import DatasetError, did_you_mean
from wasnow.vocabulary import NO_LABEL

FILE_NAME = "dataset.yaml"

UNCHANGED_WORD, CHANGED_WORD, NO_LABEL_WORD = "unchanged", "changed", "no label"


def _raw_value(key: Any) -> Raw:
    """Parse a label value: ``7``, ``-1``, ``"255,255,255"`` or ``"#ff0000"``."""
    if isinstance(key, bool):
        raise ValueError("a label value is a number or a colour, not true or false")
    if isinstance(key, int) and MINUS_ONE <= key <= 255:
        return key
    text = str(key).strip()
    if text == str(MINUS_ONE):
        return MINUS_ONE
    if re.fullmatch(r"\d{1,3}", text) and int(text) <= 255:
        return int(text)
    if re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)
    parts = [part for part in re.split(r"[,\s]+", text.strip("()[]")) if part]
    if len(parts) == 3 and all(part.isdigit() and int(part) <= 255 for part in parts):
        return int(parts[0]), int(parts[1]), int(parts[2])
    raise ValueError(f"{key!r} is not a label value: write a number -1 to 255, or a colour such as '#ff0000'")


def _meaning(word: Any) -> str | tuple[str, str]:
    if isinstance(word, list | tuple) and len(word) == 2:
        return str(word[0]), str(word[1])
    if isinstance(word, str):
        return word
    raise ValueError(f"{word!r} is not a class: write a word, or [from, to] for a label of both dates")


Values = Annotated[
    dict[Any, Any],
    BeforeValidator(
        lambda given: (
            {_raw_value(key): _meaning(word) for key, word in given.items()} if isinstance(given, Mapping) else given
        )
    ),
]


class PolygonColumns(BaseModel):
    """Columns of a polygon file that name the classes; omit both for polygons of binary change."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    before: str | None = None
    after: str | None = None


class DateStretch(BaseModel):
    """The values shown as black and white at each date."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    before: tuple[float, float]
    after: tuple[float, float]


class Description(BaseModel):
    """The keys of a dataset.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = ""
    before: str = Field(description="pattern of the first pictures")
    after: str = Field(description="pattern of the second pictures")
    before_label: str | None = Field(None, description="pattern of the class labels of the first date")
    after_label: str | None = Field(None, description="pattern of the class labels of the second date")
    joint_label: str | None = Field(None, description="pattern of labels of both dates in one file")
    change_label: str | None = Field(None, description="pattern of binary change labels")
    classes: tuple[str, ...] | None = Field(None, description="the words in code order; else in order of appearance")
    encoding: str | None = Field(None, description="a known encoding of the class labels, instead of values")
    values: Values | None = Field(None, description="value or colour -> class word, 'unchanged' or 'no label'")
    change_values: Values | None = Field(None, description="value or colour -> 'changed', 'unchanged' or 'no label'")
    columns: PolygonColumns | None = Field(None, description="of labels that are polygons")
    splits: dict[str, str] = Field(default_factory=dict, description="split -> list file of names")
    bands: tuple[int | str, int | str, int | str] | None = Field(
        None, description="red, green, blue, by number from 1 or by name"
    )
    stretch: tuple[float, float] | DateStretch | None = Field(
        None, description="the values shown as black and white; or before: and after: with such values"
    )
    tile: int | None = Field(None, ge=16, description="side of the tiles that pictures are cut into")

    @property
    def stretches(self) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
        """The stretch of the first date, and that of the second if it differs."""
        if isinstance(self.stretch, DateStretch):
            return self.stretch.before, self.stretch.after
        return self.stretch, None

    @model_validator(mode="after")
    def _fits_together(self) -> Description:
        for key in ("before", "after", "before_label", "after_label", "joint_label", "change_label"):
            pattern = getattr(self, key)
            shared = key not in ("before", "after") and pattern is not None and is_vector(Path(pattern))
            if pattern is not None and "{name}" not in pattern and not shared:
                raise ValueError(f"{key}: {pattern!r} has no {{name}} to distinguish the pairs")
        if (self.before_label is None) != (self.after_label is None):
            raise ValueError("before_label and after_label must be given together; for one file use joint_label")
        if self.joint_label is not None and self.before_label is not None:
            raise ValueError("joint_label replaces before_label and after_label: give one or the other")
        if self.encoding is not None and self.values is not None:
            raise ValueError("encoding and values exclude each other: give one of them")
        for stretch in self.stretches:
            if stretch is not None and not stretch[0] < stretch[1]:
                raise ValueError(f"stretch {list(stretch)} must be ascending: [black, white]")
        if self.bands is not None and any(isinstance(band, int) and band < 1 for band in self.bands):
            raise ValueError(f"bands {list(self.bands)} must be counted from 1")
        return self


def read_description(path: Path) -> Description:
    """Read a dataset.yaml.

    Raises:
        DatasetError: not readable, or an unknown key or invalid value; unknown keys with the nearest known one.
    """
    content = load_yaml(path)
    try:
        return Description.model_validate(content)
    except ValidationError as error:
        lines = [readable(one, tuple(Description.model_fields)) for one in error.errors()]
        raise DatasetError(f"{path}: {'; '.join(lines)}") from None


def load_yaml(path: Path) -> dict[Any, Any]:
    """Return the keys of a YAML file.

    Raises:
        DatasetError: not readable, or without keys.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise DatasetError(f"{path}: holds {type(content).__name__}, expected keys such as before: and after:")
    return content


def readable(error: Any, keys: Sequence[str]) -> str:
    """Return a pydantic error as one sentence; an unknown key with the nearest of ``keys``."""
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = tuple(PolygonColumns.model_fields) if where.startswith("columns.") else keys
        name = where.rpartition(".")[2]
        return f"unknown key {name!r}{did_you_mean(name, known) or '; known are ' + ', '.join(known)}"
    if error["type"] == "missing":
        return f"the key {where!r} is missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def find(path: Path) -> Layout:
    """Return the pairs that a dataset.yaml describes.

    Raises:
        DatasetError: the description is inconsistent, or no file matches it.
    """
    described = read_description(path)
    listing = list_files(path.parent)
    patterns = {
        "before": described.before,
        "after": described.after,
        "before_label": described.before_label,
        "after_label": described.after_label,
        "joint_label": described.joint_label,
        "change_label": described.change_label,
    }
    wanted = {key: pattern for key, pattern in patterns.items() if pattern is not None}
    shared = {key: path.parent / p for key, p in wanted.items() if "{name}" not in p}
    placed: dict[tuple[str | None, str], dict[str, PurePosixPath]] = defaultdict(dict)
    for key, pattern in wanted.items():
        if key in shared:
            continue
        fits = compiled(pattern)
        for file in (*listing.rasters, *listing.vectors):
            match = fits.fullmatch(str(file))
            if match is not None:
                named = match.groupdict()
                placed[named.get("split"), named["name"]][key] = file
    if not any("before" in files or "after" in files for files in placed.values()):
        raise DatasetError(f"{path}: no file matches before: {described.before!r}. Paths are relative to {path.parent}")
    faults = [Fault(str(file), "no such file") for file in shared.values() if not file.exists()]
    # A label pattern without {split} applies to the pairs of every split.
    for (split, name), files in list(placed.items()):
        if split is None and any(other != split and n == name for other, n in placed):
            for (other, n), theirs in placed.items():
                if n == name and other is not None:
                    theirs.update({key: file for key, file in files.items() if key not in theirs})
            del placed[split, name]
    splits: dict[str, list[Entry]] = defaultdict(list)
    for (split, name), files in placed.items():
        missing = [key for key in wanted if key not in files and key not in shared]
        some = next(iter(files.values()))
        for key in missing:
            expected = wanted[key].replace("{name}", name).replace("{split}", split or "{split}")
            faults.append(Fault(str(some), f"has no {key}: expected {expected}"))
        if not missing:
            paths = {**shared, **{key: listing / file for key, file in files.items()}}
            entry = Entry(
                name,
                paths["before"],
                paths["after"],
                paths.get("before_label"),
                paths.get("after_label"),
                paths.get("joint_label"),
                paths.get("change_label"),
            )
            splits[(split and split_of(split)) or split or "all"].append(entry)
    notes: list[str] = []
    found = {split: sorted_entries(entries) for split, entries in splits.items()}
    if described.splits:
        every = [entry for entries in found.values() for entry in entries]
        lists = {split: path.parent / file for split, file in described.splits.items()}
        by_list = read_lists(listing, every, lists)
        if by_list is not None:
            found, list_faults, notes = by_list
            faults += list_faults
    classes, change = _encodings(path, described)
    columns = None if described.columns is None else Columns(described.columns.before, described.columns.after)
    return Layout(
        f"described by {path.name}" + (f": {described.name}" if described.name else ""),
        found,
        tuple(faults),
        tuple(notes),
        classes=classes,
        change=change,
        words=described.classes if classes is None else classes.words,
        columns=columns,
        rendering=Rendering(described.bands, *described.stretches),
        tile=described.tile,
    )


def compiled(pattern: str) -> re.Pattern[str]:
    """Return ``"{split}/T1/{name}.tif"`` as a regular expression over relative paths."""
    parts = re.split(r"(\{name\}|\{split\}|\*\*/|\*)", pattern.removeprefix("./"))
    known = {"{name}": r"(?P<name>[^/]+)", "{split}": r"(?P<split>[^/]+)", "**/": r"(?:.*/)?", "*": r"[^/]*"}
    return re.compile("".join(known.get(part, re.escape(part)) for part in parts))


def _encodings(path: Path, described: Description) -> tuple[LabelEncoding | None, LabelEncoding | None]:
    classes = change = None
    if described.encoding is not None:
        classes = encoding_named(described.encoding)
    if described.values is not None:
        classes = class_encoding(path, described.values, described.classes, joint=described.joint_label is not None)
    if described.change_values is not None:
        codes: dict[Raw, int] = {}
        for raw, word in described.change_values.items():
            meaning = {UNCHANGED_WORD: 0, CHANGED_WORD: 1, NO_LABEL_WORD: NO_LABEL}.get(str(word))
            if meaning is None:
                raise DatasetError(f"{path}: change_values: {word!r} is not one of unchanged, changed, no label")
            codes[raw] = meaning
        change = LabelEncoding(f"change_values of {path.name}", "described", (), codes)
    return classes, change


def class_encoding(
    path: Path, values: Mapping[Raw, str | tuple[str, str]], given: tuple[str, ...] | None, *, joint: bool
) -> LabelEncoding:
    """Return the encoding that ``values:`` describes.

    Args:
        path: of the description, for messages.
        values: value or colour -> class word, ``unchanged`` or ``no label``; [from, to] where ``joint``.
        given: class words in code order; None takes them in order of appearance.
        joint: whether a label file holds both dates.

    Raises:
        DatasetError: a word is not in ``given``, or has the wrong form.
    """
    special = {UNCHANGED_WORD: 0, NO_LABEL_WORD: NO_LABEL}
    pairs = {raw: (word, word) if isinstance(word, str) else word for raw, word in values.items()}
    if not joint and any(isinstance(word, tuple) for word in values.values()):
        raise DatasetError(f"{path}: values: [from, to] is for joint_label; a label of one date names one class")
    if joint and any(isinstance(word, str) and word not in special for word in values.values()):
        raise DatasetError(f"{path}: values: a joint_label holds both dates; write each class as [from, to]")
    used = list(dict.fromkeys(word for pair in pairs.values() for word in pair if word not in special))
    words = tuple(used) if given is None else given
    unknown = [word for word in used if word not in words]
    if unknown:
        near = did_you_mean(unknown[0], words)
        raise DatasetError(f"{path}: values: unknown class {unknown[0]!r}; the classes are {', '.join(words)}{near}")
    codes = {word: code for code, word in enumerate(words, 1)} | special
    first = {raw: codes[pair[0]] for raw, pair in pairs.items()}
    second = {raw: codes[pair[1]] for raw, pair in pairs.items()}
    return LabelEncoding(f"values of {path.name}", "described", words, first, after=second if joint else None)
