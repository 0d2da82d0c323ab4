"""Settings as a page tells them: the sections of a config.json as names and lines of words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def title(name: str) -> str:
    """A field's name as a heading: "train_crop_size" -> "Train crop size"."""
    return name[:1].upper() + name[1:].replace("_", " ")


def words(value: Any) -> str:
    """A JSON value on a line: "steps 200 · batch_size 8"."""
    if isinstance(value, Mapping):
        return " · ".join(f"{key} {words(item)}" for key, item in value.items() if item is not None)
    if isinstance(value, (list, tuple)):
        return ", ".join(words(item) for item in value)
    return str(value)


def flat(sections: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Sections by name; one that has sections of its own is followed by them."""
    rows = []
    for name, value in sections.items():
        inner = {k: v for k, v in value.items() if isinstance(v, Mapping)} if isinstance(value, Mapping) else {}
        rows.append((name, {k: v for k, v in value.items() if k not in inner} if inner else value))
        rows += inner.items()
    return rows
