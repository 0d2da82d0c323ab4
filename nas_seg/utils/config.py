"""Frozen dataclasses to JSON and back, strictly, and a digest of their content.

A configuration is a frozen dataclass of bool, int, float, str, None, tuples and further such dataclasses.
A class that stands in a union with others carries `KIND: ClassVar[str]`, written as the key "kind".
Reading refuses unknown and missing fields, wrong types and unknown kinds with an `InputError` that
names the field ("config.json: model.network.output_stride: expected int, received 'a'").
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import pathlib
import tempfile
import types
import typing
from typing import Any

from nas_seg.utils.errors import InputError, unknown

FORMAT_VERSION = 1


def to_json(value: Any) -> Any:
    """The JSON form of a configuration: dicts, lists, strings, numbers, booleans and None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = {"kind": value.KIND} if hasattr(value, "KIND") else {}
        return kind | {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{type(value).__name__} has no JSON form in a configuration: {value!r}")


def from_json(annotation: Any, data: Any, where: str = "config") -> Any:
    """Reads what `to_json` wrote as a value of type `annotation`.

    Args:
        annotation: a dataclass, bool, int, float, str, None, `tuple[...]`, `dict[str, T]` or a union of these.
        data: parsed JSON.
        where: names the place in messages, for example "config.json: model".

    Raises:
        InputError: on an unknown or missing field, a wrong type or an unknown kind.
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return _from_union(args, data, where)
    if origin is tuple:
        if not isinstance(data, list):
            raise InputError(f"{where}: expected a list, received {data!r}")
        if len(args) == 2 and args[1] is Ellipsis:
            args = (args[0],) * len(data)
        if len(args) != len(data):
            raise InputError(f"{where}: expected {len(args)} items, received {len(data)}")
        return tuple(from_json(a, item, f"{where}[{i}]") for i, (a, item) in enumerate(zip(args, data, strict=True)))
    if origin is dict:
        if not isinstance(data, dict):
            raise InputError(f"{where}: expected an object, received {data!r}")
        return {key: from_json(args[1], item, f"{where}.{key}") for key, item in data.items()}
    if dataclasses.is_dataclass(annotation):
        return _from_fields(annotation, data, where)
    return _scalar(annotation, data, where)


def _scalar(annotation: Any, data: Any, where: str) -> Any:
    if annotation is None or annotation is type(None):
        matches = data is None
    elif annotation is float:
        matches = isinstance(data, (int, float)) and not isinstance(data, bool) and _is_finite(data)
        data = float(data) if matches else data
    elif annotation is int:
        matches = isinstance(data, int) and not isinstance(data, bool)
    else:
        matches = isinstance(data, annotation)
    if not matches:
        name = getattr(annotation, "__name__", str(annotation))
        raise InputError(f"{where}: expected {name}, received {data!r}")
    return data


def _is_finite(number: int | float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # An integer beyond the largest float.
        return False


def _from_union(args: tuple, data: Any, where: str) -> Any:
    kinds = {a.KIND: a for a in args if hasattr(a, "KIND")}
    if kinds and isinstance(data, dict):
        kind = data.get("kind")
        if not isinstance(kind, str) or kind not in kinds:
            raise InputError(f"{where}.kind: {unknown('kind', kind, kinds)}")
        return _from_fields(kinds[kind], data, where)
    if data is None and type(None) in args:
        return None
    problems = []
    for arg in (a for a in args if a is not type(None)):
        try:
            return from_json(arg, data, where)
        except InputError as problem:
            problems.append(str(problem))
    raise InputError(problems[0] if len(problems) == 1 else "; or ".join(problems))


def _from_fields(cls: type, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise InputError(f"{where}: expected an object of {cls.__name__}, received {data!r}")
    data = dict(data)
    kind = getattr(cls, "KIND", None)
    if kind is not None and data.pop("kind", kind) != kind:
        raise InputError(f"{where}: expected kind {kind!r}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for name in data:
        if name not in fields:
            raise InputError(f"{where}: {unknown('field', name, fields)}")
    required = (dataclasses.MISSING, dataclasses.MISSING)
    for name, field in fields.items():
        if name not in data and (field.default, field.default_factory) == required:
            raise InputError(f"{where}: field {name!r} is missing")
    values = {name: from_json(hints[name], item, f"{where}.{name}") for name, item in data.items()}
    try:
        return cls(**values)
    except InputError as problem:
        raise InputError(f"{where}: {problem}") from None


def digest(value: Any) -> str:
    """Twelve hexadecimal digits that depend on the content of a configuration alone."""
    canonical = json.dumps(to_json(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def read_json(path: str | os.PathLike) -> Any:
    """Parses a JSON file; a missing file or broken JSON is an InputError that names it."""
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8 text'})") from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError also for integers of thousands of digits.
        raise InputError(f"{path}: expected JSON ({error})") from None


def write_json(path: str | os.PathLike, data: Any) -> None:
    """Writes JSON as a whole or not at all: a reader never sees half a file."""
    write_bytes(path, (json.dumps(data, indent=2) + "\n").encode())


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Writes a file as a whole or not at all, through a temporary file beside it."""
    path = pathlib.Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def save(path: str | os.PathLike, value: Any) -> None:
    """Writes a configuration with its format_version."""
    write_json(path, {"format_version": FORMAT_VERSION} | to_json(value))


def load(path: str | os.PathLike, annotation: Any) -> Any:
    """Reads what `save` wrote; refuses another format_version by name."""
    data = read_json(path)
    check_version(data, path)
    return from_json(annotation, {k: v for k, v in data.items() if k != "format_version"}, str(path))


def check_version(data: Any, path: str | os.PathLike) -> None:
    """Raises InputError unless `data` is an object of this library's format_version."""
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a JSON object, received {type(data).__name__}")
    if data.get("format_version") != FORMAT_VERSION:
        raise InputError(f"{path}: expected format_version {FORMAT_VERSION}, received {data.get('format_version')!r}")
