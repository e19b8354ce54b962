"""The options of a run as command line options, generated from `wasnow.pipeline.options.Options`.

with_run_options   replaces ``**options`` of a typer verb by one parameter per option
click_options      the same for a click command (``rio wasnow``)
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Sequence
from types import UnionType
from typing import Annotated, Any, TypeVar

import typer
from pydantic.fields import FieldInfo

from wasnow.pipeline.options import Shown, fields, shown

F = TypeVar("F", bound=Callable[..., Any])

LAST = ("allow_indirect", "overwrite", "fail_fast", "quiet", "as_json", "debug")
"""Parameters that the help lists after all others."""


def flag_name(name: str) -> str:
    """Return an option as the command line spells it: ``--min-area``."""
    # Class thresholds have no option of their own: --threshold WORD=NUMBER sets them.
    return "--threshold" if name == "class_thresholds" else f"--{name.replace('_', '-')}"


def with_run_options(*names: str) -> Callable[[F], F]:
    """Replace ``**options`` of a verb by the options of a run.

    Args:
        names: the options; all of them if empty.
    """

    def decorate(function: F) -> F:
        signature = inspect.signature(function, eval_str=True)
        own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
        added = [_parameter(name, field) for name, field in _chosen(names)]
        parameters = [each for each in (*own, *added) if each.name not in LAST]
        parameters += sorted((each for each in (*own, *added) if each.name in LAST), key=lambda p: LAST.index(p.name))
        parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
        function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        function.__annotations__ = {each.name: each.annotation for each in parameters}
        return function

    return decorate


def click_options(function: F, *names: str) -> F:
    """Add the options of a run to a click command.

    Args:
        function: the command.
        names: the options; all of them if empty.
    """
    import click

    for name, field in reversed(_chosen(names)):
        kind, default = _command_line_type(field), field.default
        more: dict[str, Any] = {"help": field.description, "default": default}
        if kind is bool:
            more["is_flag"] = True
        elif typing.get_origin(kind) is list:
            more["multiple"] = True
            more["default"] = ()
        else:
            more["type"] = kind
            more["show_default"] = default is not None
        function = click.option(flag_name(name), name, **more)(function)
    return function


def option_values(given: dict[str, Any]) -> dict[str, Any]:
    """Return the values for `Options`, without repeated options that were not given."""
    return {name: value for name, value in given.items() if value is not None and value != () and value != []}


def _chosen(names: Sequence[str]) -> list[tuple[str, FieldInfo]]:
    return [(name, field) for name, field in fields().items() if shown(field).flag and (not names or name in names)]


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    kind, about = _command_line_type(field), shown(field)
    declarations = (flag_name(name),)
    option = typer.Option(
        *declarations,
        help=field.description,
        rich_help_panel=about.panel,
        metavar=about.metavar,
        show_default=field.default is not None and kind is not bool,
    )
    repeated = typing.get_origin(kind) is list
    optional = field.default is None or repeated
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None if optional else field.default,
        annotation=Annotated[kind | None if optional else kind, option],
    )


def _command_line_type(field: FieldInfo) -> Any:
    """bool, int, float, str, or list[str] for options that may be repeated."""
    kinds = _plain_types(field.annotation)
    if _is_repeated(shown(field), field):
        return list[str]
    for kind in (bool, float, int):
        if kind in kinds:
            return kind
    return str


def _is_repeated(about: Shown, field: FieldInfo) -> bool:
    return tuple[str, ...] in _plain_types(field.annotation) or "WORD=NUMBER" in (about.metavar or "")


def _plain_types(annotation: Any) -> set[Any]:
    """The types of an annotation without None and metadata; those of the values of a Literal."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _plain_types(typing.get_args(annotation)[0])
    if origin in (typing.Union, UnionType):
        return {kind for each in typing.get_args(annotation) for kind in _plain_types(each)} - {type(None)}
    if origin is typing.Literal:
        return {type(value) for value in typing.get_args(annotation)}
    return {annotation}
