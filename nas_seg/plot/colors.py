"""The colours of drawings: each as it is on white paper, and what it becomes on a dark screen.

A drawing has the colours for paper, which every program shows. A page in which it stands, or the drawing itself as a
file of its own (`markup.adaptive`), replaces them where the reader prefers dark screens: see `dark_style`.
"""

from __future__ import annotations

PAPER = "#ffffff"
INK = "#1b1f24"
FAINT_INK = "#545b64"
GRID = "#e1e5ea"
AXIS = "#69717b"
# Told apart and read on either ground: all above 4.5 : 1.
SERIES = ("#1f5fa8", "#b8420b", "#1a7446", "#7a3d9c", "#8a6a00", "#b0245f")
# (fill, line) of the boxes of a cell.
BAR_BOX = ("#eceff3", "#3f4853")
POINTWISE_BOX = ("#f4f4f2", "#6a6a63")
CONV_BOX = ("#e9f1fb", "#1f4f8f")
POOLING_BOX = ("#fdf1e1", "#8a4b00")
CONCAT_LINE = "#7b828c"

DARK = {
    PAPER: "#15191e",
    INK: "#e6e9ed",
    FAINT_INK: "#a3acb7",
    GRID: "#2d343c",
    AXIS: "#8b95a1",
    **dict(zip(SERIES, ("#6fb0f5", "#f39561", "#5cc491", "#c79be6", "#d9b545", "#f286b1"), strict=True)),
    **dict(zip(BAR_BOX, ("#242a31", "#9aa5b1"), strict=True)),
    **dict(zip(POINTWISE_BOX, ("#262a2f", "#b4bac2"), strict=True)),
    **dict(zip(CONV_BOX, ("#1c2733", "#8fbef0"), strict=True)),
    **dict(zip(POOLING_BOX, ("#33271a", "#eab57c"), strict=True)),
    CONCAT_LINE: "#77808b",
}


def dark_style() -> str:
    """CSS rules that give the drawings of a page their dark colours; rules win over the attributes of an element."""
    return "\n".join(
        f'svg [{attribute}="{light}"] {{ {attribute}: {dark}; }}'
        for light, dark in DARK.items()
        for attribute in ("fill", "stroke")
    )
