"""Class indices as colours: colour tables, coloured labels and overlays, in NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas_seg.utils.errors import InputError

Color = tuple[int, int, int]

BLACK: Color = (0, 0, 0)
_PANEL_ALPHA = 0.6  # weight of the colours over a picture that its bare self stands beside

# Colours of the Cityscapes training ids 0..18 (cityscapesScripts, labels.py).
CITYSCAPES: tuple[Color, ...] = (
    (128, 64, 128),
    (244, 35, 232),
    (70, 70, 70),
    (102, 102, 156),
    (190, 153, 153),
    (153, 153, 153),
    (250, 170, 30),
    (220, 220, 0),
    (107, 142, 35),
    (152, 251, 152),
    (70, 130, 180),
    (220, 20, 60),
    (255, 0, 0),
    (0, 0, 142),
    (0, 0, 70),
    (0, 60, 100),
    (0, 80, 100),
    (0, 0, 230),
    (119, 11, 32),
)


def pascal_colormap(num_colors: int = 256) -> tuple[Color, ...]:
    """The PASCAL VOC table, by its rule: bits 0, 1, 2 of the index go to R, G, B from the top bit down, then bits 3..5.

    Args:
        num_colors: length of the table, at most 256; beyond that colours would repeat.
    """
    index = np.arange(num_colors)[:, None] >> np.arange(3)
    colors = sum(((index >> 3 * group) & 1) << (7 - group) for group in range(8))
    return tuple((int(r), int(g), int(b)) for r, g, b in colors)


def colorize(label: np.ndarray, colors: Sequence[Color], ignore_color: Color = BLACK) -> np.ndarray:
    """Colours a label map.

    Args:
        label: integers of shape [H, W].
        colors: the colour of each class index.
        ignore_color: the colour of every index outside `colors`, such as the ignored one.

    Returns:
        uint8 RGB of shape [H, W, 3].
    """
    label = np.asarray(label)
    if label.ndim != 2 or not np.issubdtype(label.dtype, np.integer):
        raise InputError(f"label: expected integers [H, W], received {label.dtype} {list(label.shape)}")
    table = np.array([*colors, ignore_color], np.uint8).reshape(-1, 3)
    outside = (label < 0) | (label >= len(colors))
    return table[np.where(outside, len(colors), label)]


def overlay(
    image: np.ndarray, label: np.ndarray, colors: Sequence[Color], alpha: float = 0.5, ignore_color: Color | None = None
) -> np.ndarray:
    """Blends a coloured label over its picture.

    Args:
        image: uint8 RGB [H, W, 3].
        label: integers [H, W].
        colors: the colour of each class index.
        alpha: weight of the colours, 0 (picture only) to 1 (colours only).
        ignore_color: colour of indices outside `colors`; None leaves the picture as it is there.

    Returns:
        uint8 RGB [H, W, 3].
    """
    image, label = np.asarray(image), np.asarray(label)
    if image.shape != (*label.shape, 3):
        raise InputError(f"image: expected shape {[*label.shape, 3]} as its label has, received {list(image.shape)}")
    mixed = (1 - alpha) * image + alpha * colorize(label, colors, ignore_color or BLACK)
    mixed = np.rint(mixed).astype(np.uint8)
    if ignore_color is None:
        inside = (label >= 0) & (label < len(colors))
        mixed = np.where(inside[..., None], mixed, image)
    return mixed


def to_uint8(image: np.ndarray) -> np.ndarray:
    """RGB in [0, 255] of any type as the nearest uint8."""
    return np.clip(np.rint(np.asarray(image)), 0, 255).astype(np.uint8)


def panel(image: np.ndarray, labels: Sequence[np.ndarray], colors: Sequence[Color]) -> list[np.ndarray]:
    """The pictures of a panel: the bare one, then one with each label's colours over it.

    Args:
        image: RGB [H, W, 3] in [0, 255].
        labels: integers [H, W] each; indices outside `colors` leave the picture bare.
        colors: the colour of each class index.
    """
    image = to_uint8(image)
    return [image, *(overlay(image, np.asarray(label), colors, _PANEL_ALPHA) for label in labels)]
