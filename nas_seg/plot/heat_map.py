"""Heat maps as SVG text: numbers in rows and columns, one map beside the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nas_seg.plot.colors import AXIS, FAINT_INK, GRID, SERIES
from nas_seg.plot.markup import Markup, element, svg, text, text_width

_SIZE = 11.0  # of letters
_CELL = (22.0, 15.0)
_GAP, _MARGIN = 26.0, 12.0
_TITLE, _LETTER_HEIGHT = 22.0, 12.0


class HeatMap(NamedTuple):
    """A map.

    Attributes:
        title: above it.
        values: [rows, columns]; NaN where there is nothing.
    """

    title: str
    values: np.ndarray


def heat_maps(maps: Sequence[HeatMap], rows: Sequence[str], columns: Sequence[str], label: str) -> str:
    """Maps of the same rows and columns side by side, the darker the larger; a cell says its number when pointed at.

    Args:
        maps: from left to right; one scale for all, from 0 to their largest value.
        rows: names, on the left of the first map.
        columns: names, upright below each map.
        label: what the numbers are.
    """
    largest = max((float(np.nanmax(one.values)) for one in maps if np.isfinite(one.values).any()), default=1.0)
    left = _MARGIN + max(text_width(name, _SIZE) for name in rows) + 8
    top, width = _MARGIN + _TITLE, len(columns) * _CELL[0]
    bottom = top + len(rows) * _CELL[1]
    below = max(text_width(name, _SIZE) for name in columns) + 14
    height = bottom + below + _LETTER_HEIGHT + 8
    # Titles may be wider than a map of few columns.
    step = max([width, *(text_width(one.title, _SIZE) for one in maps)]) + _GAP
    parts = [
        text(left - 8, top + (i + 0.5) * _CELL[1] + 4, name, _SIZE, fill=FAINT_INK, text_anchor="end")
        for i, name in enumerate(rows)
    ]
    for number, one in enumerate(maps):
        parts += _map(one, left + number * step, top, rows, columns, largest or 1.0)
    parts.append(text(_MARGIN, height - 8, f"{label}; strongest: {largest:.3f}", _SIZE, fill=FAINT_INK))
    needed = _MARGIN + text_width(f"{label}; strongest: {largest:.3f}", _SIZE)
    return str(svg(max(left + len(maps) * step, needed) + _MARGIN, height, label, *parts))


def _map(one: HeatMap, x: float, y: float, rows: Sequence[str], columns: Sequence[str], largest: float) -> list[Markup]:
    width, height = len(columns) * _CELL[0], len(rows) * _CELL[1]
    parts = [text(x, y - 7, one.title, _SIZE, font_weight="bold")]
    for (i, j), value in np.ndenumerate(one.values):
        if np.isfinite(value):
            note = element("title", f"{one.title}: {rows[i]}, {columns[j]}: {value:.4f}")
            parts.append(
                element(
                    "rect", note, x=x + j * _CELL[0], y=y + i * _CELL[1], width=_CELL[0], height=_CELL[1],
                    fill=SERIES[0], fill_opacity=max(float(value), 0.0) / largest, stroke=GRID, stroke_width=0.5,
                    class_="heat",
                )
            )  # fmt: skip
    parts.append(element("rect", x=x, y=y, width=width, height=height, fill="none", stroke=AXIS))
    for j, name in enumerate(columns):
        at_x, at_y = x + (j + 0.5) * _CELL[0] + 4, y + height + 8
        turn = f"rotate(-90 {at_x:.2f} {at_y:.2f})"
        parts.append(text(at_x, at_y, name, _SIZE, fill=FAINT_INK, text_anchor="end", transform=turn))
    return parts
