"""How label pictures say which class a pixel has: by its index, by another number, or by a colour."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from nas_seg.datasets import pictures
from nas_seg.datasets.descriptors import DatasetDescriptor
from nas_seg.utils.colormap import Color
from nas_seg.utils.errors import InputError, unknown

# Names that stand for the ignored label in a file of colours.
VOID_NAMES = ("void", "ignore", "ignored", "unlabeled", "unlabelled")
# What is void in coloured labels unless it is the colour of a class: black, and the rims of PASCAL VOC.
_VOID_COLORS: tuple[Color, ...] = ((0, 0, 0), (224, 224, 192))
# The value of --label_colors that means the data set's own colours.
KNOWN_COLORS = "known"


@dataclasses.dataclass(frozen=True)
class Coding:
    """What a label picture holds.

    Attributes:
        values: the class of each stored value 0, 1, ..., or -1 for a value that no picture may have; None: the stored
            values are the classes.
        colors: the class of each colour. With it, pictures are read by their colours whatever their mode: a palette
            may be in any order, and a mask may be black and white. None: pictures in colours are refused.
    """

    values: tuple[int, ...] | None = None
    colors: Mapping[Color, int] | None = None


# The plain case.
INDICES = Coding()


class Label(NamedTuple):
    """A decoded label: class indices [H, W], Pillow's mode, and whether the file itself may be stored in a record."""

    array: np.ndarray
    mode: str
    storable: bool


def decode(data: bytes, where: object, coding: Coding, descriptor: DatasetDescriptor | None = None) -> Label:
    """Decodes a PNG label.

    Args:
        data: the file.
        where: names it in messages.
        coding: what it holds.
        descriptor: whose colours a refusal of coloured labels looks at.

    Raises:
        InputError: naming `where`, if it is no PNG, is in colours without `coding.colors`, or holds values or colours
            that say no class.
    """
    if coding.colors is not None:
        picture = pictures.decode_label_colors(data, where)
        return Label(_from_colors(picture.array, coding.colors, where), picture.mode, False)
    try:
        picture = pictures.decode_label(data, where)
    except pictures.ColoredLabel as problem:
        raise InputError(f"{problem}; {_offer(data, where, descriptor)}") from None
    if coding.values is not None:
        return Label(_from_values(picture.array, coding.values, where), picture.mode, False)
    return Label(picture.array, picture.mode, picture.note == "" and picture.mode == "L")


def _offer(data: bytes, where: object, descriptor: DatasetDescriptor | None) -> str:
    """How a user of coloured labels goes on."""
    colors = np.unique(pictures.decode_label_colors(data, where).array.reshape(-1, 3), axis=0)
    if descriptor is not None and {tuple(color) for color in colors.tolist()} <= {*descriptor.colors, *_VOID_COLORS}:
        return f"its colours are those of {descriptor.name}: --label_colors={KNOWN_COLORS} reads them"
    shown = " ".join(str(tuple(color)).replace(" ", "") for color in colors[:3].tolist())
    return (
        f"--label_colors=FILE, with lines such as '128 64 128 road', says what its colours mean "
        f"({len(colors)} colours: {shown}{' ...' if len(colors) > 3 else ''})"
    )


def _from_values(array: np.ndarray, values: Sequence[int], where: object) -> np.ndarray:
    table = np.asarray(values, np.int32)
    found = np.unique(array)
    outside = [int(v) for v in found if not 0 <= v < len(table) or table[v] < 0]
    if outside:
        allowed = [i for i, value in enumerate(values) if value >= 0]
        raise InputError(
            f"{where}: expected stored values {_ranges(allowed)}, received {', '.join(map(str, outside[:8]))}"
        )
    return table[array]


def _from_colors(rgb: np.ndarray, colors: Mapping[Color, int], where: object) -> np.ndarray:
    table = {_code(np.array(color)): value for color, value in colors.items()}
    keys = np.array(sorted(table))
    values = np.array([table[key] for key in keys.tolist()], np.int32)
    codes = _code(rgb)
    place = np.minimum(np.searchsorted(keys, codes), len(keys) - 1)
    if (keys[place] != codes).any():
        strange = np.unique(rgb[keys[place] != codes], axis=0)
        shown = ", ".join(str(tuple(color)) for color in strange[:4].tolist())
        raise InputError(
            f"{where}: expected the {len(colors)} colours of --label_colors, received {len(strange)} others: "
            f"{shown}{', ...' if len(strange) > 4 else ''}"
        )
    return values[place]


def _code(rgb: np.ndarray) -> np.ndarray | int:
    code = rgb.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    return code if code.ndim else int(code)


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as text: "0 to 33, 255"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in runs)


def read_colors(path: str | os.PathLike) -> list[tuple[Color, str]]:
    """Reads lines `R G B NAME` (blanks or commas between; `#` begins a comment), such as CamVid's label_colors.txt.

    Raises:
        InputError: naming file and line.
    """
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8 text'})") from None
    rows: dict[Color, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.split("#")[0].strip()
        if not line:
            continue
        match = re.fullmatch(r"(\d+)[\s,]+(\d+)[\s,]+(\d+)[\s,]+(.+)", line)
        color = tuple(int(match.group(i)) for i in (1, 2, 3)) if match else ()
        if not match or max(color) > 255:
            raise InputError(
                f"{path}: line {number}: expected 'R G B NAME' with numbers of 0 to 255, received {line!r}"
            )
        if color in rows:
            raise InputError(f"{path}: line {number}: the colour {color} stands there twice")
        rows[color] = match.group(4)
    if not rows:
        raise InputError(f"{path}: expected lines 'R G B NAME', found none")
    return list(rows.items())


def color_coding(label_colors: str, descriptor: DatasetDescriptor) -> Coding:
    """The coding that `--label_colors` means.

    Args:
        label_colors: "known" for the data set's own colours (black is void unless it is a class), or a file of
            `read_colors`, whose names are classes, their indices, the ignored label's number, or "void".
        descriptor: the classes.

    Raises:
        InputError: for a name that is no class, or for own colours that do not tell the classes apart.
    """
    if label_colors == KNOWN_COLORS:
        if len(set(descriptor.colors)) < descriptor.num_classes:
            twice = [c for i, c in enumerate(descriptor.colors) if c in descriptor.colors[:i]]
            raise InputError(
                f"--label_colors: two classes of {descriptor.name} have the colour {twice[0]}, give a FILE"
            )
        void = dict.fromkeys(_VOID_COLORS, descriptor.ignore_label)
        return Coding(colors=void | {color: index for index, color in enumerate(descriptor.colors)})
    classes = {name: index for index, name in enumerate(descriptor.class_names)}
    meaning = {str(index): index for index in (*range(descriptor.num_classes), descriptor.ignore_label)} | classes
    colors = {}
    for color, name in read_colors(label_colors):
        if name not in meaning and name.lower() not in VOID_NAMES:
            raise InputError(f"{label_colors}: {unknown('class', name, [*classes, VOID_NAMES[0]])}")
        colors[color] = meaning.get(name, descriptor.ignore_label)
    return Coding(colors=colors)


def value_coding(pairs: Sequence[str]) -> Coding:
    """The coding that `--label_values=1:0,2:1,3:255` means: stored value 1 is class 0, and so on, no others occur."""
    table = [-1] * 256
    for pair in pairs:
        match = re.fullmatch(r"\s*(\d+)\s*:\s*(\d+)\s*", pair)
        if not match or max(int(match.group(1)), int(match.group(2))) > 255:
            raise InputError(f"--label_values: expected STORED:CLASS pairs such as 1:0,2:1, received {pair!r}")
        table[int(match.group(1))] = int(match.group(2))
    return Coding(values=tuple(table))
