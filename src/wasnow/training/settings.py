"""Configurations from YAML files and ``--set`` settings."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from wasnow.errors import InputError, UsageError, did_you_mean
from wasnow.training.config import TrainConfig


def validated(values: Mapping[str, Any], *, where: str = "the recipe") -> TrainConfig:
    """Return a configuration from plain values.

    Args:
        values: of `TrainConfig`.
        where: source of the values, for error messages.

    Raises:
        UsageError: unknown keys (with the nearest name), wrong types or values out of range, all in one line.
    """
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{where}: {'; '.join(_fault(one) for one in error.errors())}") from None


def with_settings(config: TrainConfig, settings: Iterable[str]) -> TrainConfig:
    """Return the configuration with ``key=value`` settings, such as ``optimizer.lr=0.01`` or ``stages.0.loss=change``.

    Values are parsed as YAML. ``epochs`` and ``steps`` without a stage refer to the only stage; each replaces the
    other. ``model.width=64`` sets an option of the model: ``model_options.width``.

    Raises:
        UsageError: a setting is not ``key=value``, a key is unknown, or a value is invalid.
    """
    values = config.model_dump(mode="json")
    texts = list(settings)
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set {text} is not KEY=VALUE; write --set batch_size=4 or --set optimizer.lr=0.01")
        _put(values, key.strip().split("."), _parsed(value), text)
    return validated(values, where=" ".join(f"--set {text}" for text in texts) or "the recipe")


def from_yaml(path: Path, recipes: Mapping[str, TrainConfig]) -> TrainConfig:
    """Return the configuration in a YAML file.

        extends: sscd-l          # optional: a recipe of wasnow; not another file
        batch_size: 4            # other keys as in TrainConfig; mappings are merged, lists replaced

    Args:
        path: of the file.
        recipes: by name, for ``extends``.

    Raises:
        InputError: the file is missing or not a YAML mapping.
        UsageError: a key is unknown, or a value is invalid.
    """
    try:
        own = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; use a YAML file or a recipe (wasnow recipes)") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a valid YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(own, dict):
        raise InputError(f"{path} is not a mapping of settings; start it with 'extends: sscd-l' and add settings below")
    start = own.pop("extends", None)
    if start is None:
        return validated({"name": path.stem, **own}, where=str(path))
    if not isinstance(start, str) or start not in recipes:
        raise UsageError(
            f"{path} extends {start!r}, which is not a recipe{did_you_mean(str(start), list(recipes))}; "
            f"recipes are {', '.join(recipes)}"
        )
    base = recipes[start].model_dump(mode="json")
    return validated(_merged(base, {"name": path.stem, **own}), where=str(path))


def to_yaml(config: TrainConfig) -> str:
    """Return the configuration as YAML for `from_yaml`."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _parsed(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text
    # YAML 1.1 parses 1e-4 as text, because it has no decimal point.
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _put(values: Any, keys: Sequence[str], value: Any, text: str) -> None:
    if len(keys) == 1 and keys[0] in ("epochs", "steps"):
        stages = values["stages"]
        if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
            raise UsageError(f"--set {text}: stages={stages!r} is not a list of stages; remove that setting")
        if len(stages) != 1:
            first = repr(stages[0].get("name", "the first")) if stages else "the first"
            raise UsageError(f"--set {text}: there are several stages; write stages.0.{text} for {first}")
        keys = ("stages", "0", keys[0])
    if keys[0] == "model" and len(keys) > 1:
        keys = ("model_options", *keys[1:])
    for depth, key in enumerate(keys[:-1]):
        try:
            inner = values[int(key)] if isinstance(values, list) else values.setdefault(key, {})
        except (ValueError, IndexError):
            raise UsageError(
                f"--set {text}: {'.'.join(keys[: depth + 1])} is not an index of {len(values)} entries (from 0)"
            ) from None
        if inner is None:
            inner = values[key] = {}
        if not isinstance(inner, dict | list):
            raise UsageError(f"--set {text}: {'.'.join(keys[: depth + 1])} is a single value without keys")
        values = inner
    last = keys[-1]
    if isinstance(values, list):
        try:
            values[int(last)] = value
        except (ValueError, IndexError):
            raise UsageError(f"--set {text}: {last} is not an index of {len(values)} entries (from 0)") from None
        return
    values[last] = value
    other = {"epochs": "steps", "steps": "epochs"}.get(last)
    if other in values and value is not None:
        values[other] = None


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` updated with ``own``: mappings are merged, other values replaced."""
    both = dict(base)
    for key, value in own.items():
        inner = both.get(key)
        both[key] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return both


def _fault(error: Any) -> str:
    """Return one error of pydantic as text, with the nearest name for an unknown key."""
    where = [str(part) for part in error["loc"]]
    if error["type"] == "extra_forbidden":
        known = _names(where[:-1])
        near = did_you_mean(where[-1], known) or f"; known are {', '.join(known)}"
        return f"{'.'.join(where)} is not a setting{near}"
    message = error["msg"].removeprefix("Value error, ")
    given = "" if isinstance(error["input"], dict | BaseModel) else f", not {error['input']!r}"
    return f"{'.'.join(where)}: {message}{given}" if where else message


def _names(path: Sequence[str]) -> list[str]:
    """Return the valid keys at a path into `TrainConfig`."""
    kind: Any = TrainConfig
    for key in path:
        if isinstance(kind, type) and issubclass(kind, BaseModel) and key in kind.model_fields:
            kind = kind.model_fields[key].annotation
        for _ in range(3):  # Stage | None and tuple[Stage, ...] contain one model each
            if typing.get_origin(kind) in (types.UnionType, typing.Union, tuple):
                kind = typing.get_args(kind)[0]
    return sorted(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []
