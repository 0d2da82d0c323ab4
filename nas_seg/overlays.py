"""Labels as PNG files to look at: class indices with a palette, and colours over the picture with a legend."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nas_seg.utils import colormap
from nas_seg.utils.colormap import Color
from nas_seg.utils.errors import InputError

# Which classes a legend shows.
ALL, PRESENT, NONE = LEGENDS = ("all", "present", "none")

_TEXT = 13  # pixels
_ROW = 20  # pixels from one row of a legend to the next
_GAP = 6
_INK, _PAPER = (20, 20, 20), (255, 255, 255)


def class_names_and_colors(num_classes: int) -> tuple[tuple[str, ...], tuple[Color, ...]]:
    """Names and colours for classes that nothing is known of: PASCAL VOC's table, which has 256 colours."""
    return tuple(f"class {i}" for i in range(num_classes)), colormap.pascal_colormap(num_classes)


def label_png(labels: np.ndarray, colors: Sequence[Color]) -> bytes:
    """A PNG whose pixels are class indices and whose palette are the classes' colours.

    Args:
        labels: integers [H, W], 0 to 255.
        colors: one a class, 256 at most.

    Raises:
        InputError: for an index that a palette cannot hold.
    """
    if labels.size and not 0 <= labels.min() <= labels.max() <= 255:
        raise InputError(f"labels: expected classes 0 to 255, received {labels.min()} to {labels.max()}")
    picture = Image.fromarray(labels.astype(np.uint8), mode="P")
    picture.putpalette([channel for color in colors[:256] for channel in color])
    return _png(picture)


def overlay_png(
    image: np.ndarray,
    labels: np.ndarray,
    colors: Sequence[Color],
    class_names: Sequence[str],
    *,
    opacity: float = 0.6,
    legend: str = ALL,
) -> bytes:
    """A PNG of the picture with the classes' colours over it, and their names below.

    Args:
        image: uint8 RGB [H, W, 3].
        labels: class indices [H, W].
        colors: one a class.
        class_names: one a class.
        opacity: of the colours, 0 to 1.
        legend: a name of `LEGENDS`: ALL classes, so that pictures of one size become ones of one size; those PRESENT
            in the picture, the largest first, with their shares of it; NONE.
    """
    picture = colormap.overlay(image, labels, colors, opacity)
    if legend == NONE:
        return _png(Image.fromarray(picture))
    shown = _entries(labels, class_names, legend)
    return _png(Image.fromarray(np.concatenate([picture, _legend(shown, colors, picture.shape[1])])))


def _entries(labels: np.ndarray, class_names: Sequence[str], legend: str) -> list[tuple[int, str]]:
    """(class, words) in the order of the legend."""
    if legend == ALL:
        return list(enumerate(class_names))
    counts = np.bincount(labels.ravel(), minlength=len(class_names))[: len(class_names)]
    present = sorted(np.flatnonzero(counts), key=lambda index: -counts[index])
    return [(int(i), f"{class_names[i]} {100 * counts[i] / labels.size:.0f}%") for i in present]


def _legend(entries: Sequence[tuple[int, str]], colors: Sequence[Color], width: int) -> np.ndarray:
    """uint8 [h, width, 3]: a swatch and words for each entry, in columns as wide as the longest words."""
    font = ImageFont.load_default(_TEXT)
    longest = max((int(font.getlength(words)) + 1 for _, words in entries), default=0)
    column = longest + _ROW + 2 * _GAP
    per_row = max(1, width // column)
    rows = -(-len(entries) // per_row)
    strip = Image.new("RGB", (width, rows * _ROW + _GAP), _PAPER)
    draw = ImageDraw.Draw(strip)
    for place, (index, words) in enumerate(entries):
        left, top = place % per_row * column + _GAP, place // per_row * _ROW + _GAP // 2
        draw.rectangle((left, top + 3, left + _TEXT, top + 3 + _TEXT), fill=colors[index], outline=_INK)
        draw.text((left + _ROW, top + 1), words, fill=_INK, font=font)
    return np.asarray(strip)


def _png(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, format="PNG")
    return data.getvalue()
