"""Included training recipes: functions that return a `TrainConfig`, in a dict.

Write your own as YAML (``extends: sscd-l`` and the settings that differ), or change single settings with ``--set``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from wasnow.errors import UsageError, did_you_mean
from wasnow.training.config import TrainConfig
from wasnow.training.recipes.comparison import (
    bisrnet,
    changemask,
    common,
    hrscd,
    mamba_scd,
    scannet,
    smnet,
    sscd_l,
    sscd_l_small,
    ted,
)
from wasnow.training.recipes.semantic import (
    sam_cd_levir,
    semantic_cd_baseline,
    semantic_cd_mini,
    semantic_cd_practical,
    semantic_cd_second,
    semantic_cd_small,
)
from wasnow.training.settings import from_yaml, with_settings

RECIPES: Mapping[str, Callable[[], TrainConfig]] = {
    "sscd-l": sscd_l,
    "bisrnet": bisrnet,
    "sscd-l-small": sscd_l_small,
    "semantic-cd-second": semantic_cd_second,
    "semantic-cd-baseline": semantic_cd_baseline,
    "semantic-cd-practical": semantic_cd_practical,
    "semantic-cd-small": semantic_cd_small,
    "semantic-cd-mini": semantic_cd_mini,
    "sam-cd-levir": sam_cd_levir,
    "hrscd": hrscd,
    "changemask": changemask,
    "ted": ted,
    "scannet": scannet,
    "smnet": smnet,
    "mamba-scd": mamba_scd,
    "common": common,
}


def recipe(name_or_path: str, settings: Iterable[str] = ()) -> TrainConfig:
    """Return a recipe by name or from a YAML file, with settings.

    Args:
        name_or_path: a name of `RECIPES`, or a YAML file.
        settings: ``key=value`` texts, see `with_settings`.

    Raises:
        UsageError: the recipe does not exist (with the nearest name), or a setting is invalid.
        InputError: the file cannot be read.
    """
    if name_or_path in RECIPES:
        found = RECIPES[name_or_path]()
    elif Path(name_or_path).suffix.lower() in (".yaml", ".yml"):
        found = from_yaml(Path(name_or_path), {name: make() for name, make in RECIPES.items()})
    else:
        raise UsageError(
            f"there is no recipe {name_or_path!r}{did_you_mean(name_or_path, list(RECIPES))}; "
            f"use a .yaml file or one of {', '.join(RECIPES)}"
        )
    return with_settings(found, settings)
