"""A confusion matrix as SVG text: of each true class the shares that were taken for each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nas_seg.plot.colors import AXIS, FAINT_INK, GRID, SERIES
from nas_seg.plot.markup import Markup, element, fit, svg, text, text_width

MOST_CLASSES = 30  # that a drawing shows
_SIZE = 11.0  # of letters
_CELL = (34.0, 22.0)
_MARGIN, _LEGEND = 12.0, 30.0
_LONGEST = 120.0  # room of a name
# Words are read on the strongest shade, on paper and on a dark screen.
_STRONGEST = 0.55
_RIGHT, _WRONG = SERIES[0], SERIES[1]


class Confusion(NamedTuple):
    """Pixels of one class that were taken for another one."""

    truth: str
    prediction: str
    pixels: int
    of_truth: float
    of_mistakes: float


def shares(matrix: np.ndarray) -> np.ndarray:
    """Each row over its sum, NaN for a class that is never true."""
    total = matrix.sum(axis=1, keepdims=True)
    return np.divide(matrix, total, out=np.full(matrix.shape, np.nan), where=total > 0)


def largest(matrix: np.ndarray, names: Sequence[str], count: int) -> list[Confusion]:
    """The pairs of classes with the most mistaken pixels, the worst first.

    Args:
        matrix: pixels [truth, prediction]; columns beyond the classes are left out.
        names: of the classes.
        count: at most so many.
    """
    wrong = matrix[:, : len(names)] * (1 - np.eye(len(names), dtype=matrix.dtype))
    total, found = int(wrong.sum()), []
    for place in np.argsort(-wrong, axis=None, kind="stable")[:count]:
        i, j = divmod(int(place), len(names))
        if wrong[i, j]:
            pixels = int(wrong[i, j])
            found.append(Confusion(names[i], names[j], pixels, pixels / int(matrix[i].sum()), pixels / total))
    return found


def confusion_svg(matrix: np.ndarray, names: Sequence[str]) -> str:
    """The classes, or of more than `MOST_CLASSES` those with the most mistaken pixels; percent of the true class.

    Args:
        matrix: pixels [truth, prediction]; columns beyond the classes are left out.
        names: of the classes.
    """
    chosen = _chosen(matrix[:, : len(names)])
    rates, names = shares(matrix)[np.ix_(chosen, chosen)], [fit(names[i], _LONGEST, _SIZE) for i in chosen]
    left = _MARGIN + max(text_width(name, _SIZE) for name in names) + 8
    width, top = len(names) * _CELL[0], _MARGIN + _LEGEND
    bottom = top + len(names) * _CELL[1]
    below = max(text_width(name, _SIZE) for name in names) + 14
    parts = _legend(left)
    for i, name in enumerate(names):
        y = top + (i + 0.5) * _CELL[1] + 4
        parts.append(text(left - 8, y, name, _SIZE, fill=FAINT_INK, text_anchor="end"))
        parts += [_cell(left + j * _CELL[0], top + i * _CELL[1], i, j, rates[i, j], names) for j in range(len(names))]
        x, y = left + (i + 0.5) * _CELL[0] + 4, bottom + 8
        turn = f"rotate(-90 {x:.2f} {y:.2f})"
        parts.append(text(x, y, name, _SIZE, fill=FAINT_INK, text_anchor="end", transform=turn))
    parts.append(element("rect", x=left, y=top, width=width, height=bottom - top, fill="none", stroke=AXIS))
    wide = max(left + width, left + 330) + _MARGIN
    return str(svg(wide, bottom + below + _MARGIN, "confusion matrix, percent of each true class", *parts))


def _chosen(matrix: np.ndarray) -> np.ndarray:
    """Places of the classes that are drawn, in their order."""
    wrong = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * np.diagonal(matrix)
    return np.sort(np.argsort(-wrong, kind="stable")[:MOST_CLASSES])


def _legend(left: float) -> list[Markup]:
    parts = [text(left, 18, "row: true class, column: taken for; % of the row", _SIZE, fill=FAINT_INK)]
    for x, color, name in ((left, _RIGHT, "right"), (left + 70, _WRONG, "wrong")):
        box = {"fill": color, "fill_opacity": _STRONGEST, "stroke": GRID}
        parts += [element("rect", x=x, y=25, width=11, height=11, **box), text(x + 16, 35, name, _SIZE)]
    return parts


def _cell(x: float, y: float, i: int, j: int, rate: float, names: Sequence[str]) -> Markup | None:
    """A share as a shade and a number; a class that is never true has neither."""
    if not np.isfinite(rate):
        return None
    note = element("title", f"{names[i]} taken for {names[j]}: {100 * rate:.2f} %")
    # A few percent of mistakes are worth seeing, so that their shade rises fast.
    shade = _STRONGEST * (rate if i == j else np.sqrt(rate))
    rect = element(
        "rect", note, x=x, y=y, width=_CELL[0], height=_CELL[1], fill=_RIGHT if i == j else _WRONG,
        fill_opacity=float(shade), stroke=GRID, stroke_width=0.5, class_="share",
    )  # fmt: skip
    if round(100 * rate) == 0:
        return rect
    weight = "bold" if i == j else None
    number = text(x + _CELL[0] / 2, y + 15, f"{100 * rate:.0f}", _SIZE, text_anchor="middle", font_weight=weight)
    return element("g", rect, number)
