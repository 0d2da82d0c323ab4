"""Flags from a search's settings, one a field: a dataclass says each once, with its default and its help."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, TypeVar

from absl import flags

from nas_seg.utils import app
from nas_seg.utils.errors import InputError

# The flags belong to the tool that calls, whose --help shows them.
flags.disclaim_key_flags()

_DEFINE = {
    bool: flags.DEFINE_boolean,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
    tuple[int, int]: flags.DEFINE_list,
    tuple[str, ...]: flags.DEFINE_list,
}
Settings = TypeVar("Settings")


def flag(default: Any, text: str, least: float | None = None, most: float | None = None) -> Any:
    """A field of a settings class: the default and the help of its flag, the least and the largest number it takes."""
    return dataclasses.field(default=default, metadata={"help": text, "lower_bound": least, "upper_bound": most})


def required(text: str) -> Any:
    """A field without which there are no settings."""
    return dataclasses.field(metadata={"help": text})


def define(settings: type) -> None:
    """Defines a flag for every field of a settings class."""
    for field, kind in _fields(settings):
        default = None if field.default is dataclasses.MISSING else field.default
        if isinstance(default, tuple):
            default = list(default)
        limits = {name: value for name, value in field.metadata.items() if name != "help" and value is not None}
        _DEFINE[kind](field.name, default, field.metadata["help"], **limits)


def read(settings: type[Settings]) -> Settings:
    """The settings that the parsed flags say.

    Raises:
        InputError: naming a flag that is missing, or that is not two numbers where it should be.
    """
    values = {}
    for field, kind in _fields(settings):
        value = flags.FLAGS[field.name].value
        if value is not None and kind == tuple[int, int]:
            value = app.height_width(field.name, value)
        values[field.name] = tuple(value) if kind == tuple[str, ...] else value
    missing = [f"--{field.name}" for field, _ in _fields(settings) if field.default is dataclasses.MISSING]
    if any(not values[name.removeprefix("--")] for name in missing):
        raise InputError(f"{' and '.join(missing)}: expected two folders")
    return settings(**values)


def _fields(settings: type) -> list[tuple[dataclasses.Field, Any]]:
    """Each field with the type of its flag's value: what stands beside None."""
    hints = typing.get_type_hints(settings)
    return [(field, _without_none(hints[field.name])) for field in dataclasses.fields(settings)]


def _without_none(hint: Any) -> Any:
    if isinstance(hint, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not types.NoneType)
    return hint
