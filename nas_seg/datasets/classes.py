"""The classes of pictures that are no known data set: from a file, from flags, or from a table of colours."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

from nas_seg.datasets import labels
from nas_seg.datasets.descriptors import KNOWN, DatasetDescriptor
from nas_seg.utils import config
from nas_seg.utils.colormap import Color, pascal_colormap
from nas_seg.utils.errors import InputError, unknown

FILE_NAME = "classes.json"
IGNORE_LABEL = 255


@dataclasses.dataclass(frozen=True)
class Classes:
    """The content of classes.json: {"names": [...], "colors": [[r, g, b], ...], "ignore_label": 255}."""

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...] | None = None
    ignore_label: int = IGNORE_LABEL

    def describe(self, name: str) -> DatasetDescriptor:
        """These classes as a data set of that name; PASCAL's colours where they have none."""
        colors = self.colors or pascal_colormap(len(self.names))
        return DatasetDescriptor(name, len(self.names), self.names, colors, self.ignore_label, splits={})


def read_classes(
    *,
    classes: str | None = None,
    class_names: Sequence[str] = (),
    num_classes: int | None = None,
    ignore_label: int | None = None,
    label_colors: str | None = None,
    file: pathlib.Path | None = None,
    where: str = "classes",
    any_value: bool = False,
) -> Classes:
    """What the first of these says that is there: names, a known data set, a number, the file, the colours.

    Args:
        classes: a known data set, such as "pascal_voc_seg".
        class_names: names of classes 0, 1, ...
        num_classes: how many; beside names it must be their number.
        ignore_label: wins over the file's and the known data set's.
        label_colors: a file of `labels.read_colors`.
        file: classes.json, where there may be one.
        where: begins the message when nothing says it.
        any_value: take every value for a class rather than refuse, when nothing says it.

    Raises:
        InputError: naming what is missing or disagrees.
    """
    if num_classes is not None and not 1 <= num_classes <= 256:
        raise InputError(f"num_classes: expected 1 to 256, received {num_classes}")
    colored = labels.read_colors(label_colors) if label_colors not in (None, labels.KNOWN_COLORS) else None
    if class_names and classes is not None:
        raise InputError(f"--class_names: expected none beside --classes={classes}, which says them")
    if class_names:
        found = Classes(tuple(class_names))
    elif classes is not None:
        if classes not in KNOWN:
            raise InputError(f"--classes: {unknown('data set', classes, KNOWN)}")
        row = KNOWN[classes]
        found = Classes(row.class_names, row.colors, row.ignore_label)
    elif num_classes is not None:
        found = Classes(_numbered(num_classes))
    elif file is not None and file.exists():
        found = config.from_json(Classes, config.read_json(file), str(file))
    elif colored:
        found = _from_colors(colored)
    elif any_value:
        found = Classes(_numbered(256))
    else:
        raise InputError(
            f"{where}: expected {FILE_NAME} in it, or --class_names, or --num_classes, or --classes of a known data "
            "set, or --label_colors"
        )
    if len(set(found.names)) < len(found.names):
        twice = next(name for name in found.names if found.names.count(name) > 1)
        raise InputError(f"class_names: expected different names, received {twice!r} twice")
    if num_classes is not None and num_classes != len(found.names):
        raise InputError(f"num_classes: expected {len(found.names)}, one a class name, received {num_classes}")
    return found if ignore_label is None else dataclasses.replace(found, ignore_label=ignore_label)


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"class_{i}" for i in range(count))


def _from_colors(rows: Sequence[tuple[Color, str]]) -> Classes:
    """Every name is a class, in the order of the file; a name with several colours is drawn in the first."""
    first: dict[str, Color] = {}
    for color, name in rows:
        if name.lower() not in labels.VOID_NAMES:
            first.setdefault(name, color)
    if all(name.isdigit() for name in first):
        by_number = {int(name): color for name, color in first.items()}
        count = max(by_number, default=-1) + 1
        drawn = tuple(by_number.get(i, color) for i, color in enumerate(pascal_colormap(count)))
        return Classes(_numbered(count), drawn)
    return Classes(tuple(first), tuple(first.values()))
