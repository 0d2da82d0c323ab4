"""Where labels stand so that none covers another: beside the ends of lines, and around points."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from nas_seg.plot.markup import text_width

# (left, top, right, bottom)
Box = tuple[float, float, float, float]
# A label's own corner stands this far from its point, first choice first: right and left of it, then around it,
# then farther away.
_OFFSETS = [
    *((dx, dy) for distance in (8, 20) for dy in (0, -11, 11) for dx in (distance, -distance)),
    *((dx, dy) for dy in (-24, 24, -38, 38, -52, 52) for dx in (8, -8)),
]


class Placed(NamedTuple):
    """The start of a label's line of text (its end, where `anchor` is "end"), and the room it takes."""

    x: float
    y: float
    anchor: str
    box: Box


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions as near the wanted ones as can be (in the least squares) and at least `gap` apart, in [low, high].

    Where the range is too short for all, they share it evenly.
    """
    if not wanted:
        return []
    gap = min(gap, (high - low) / max(len(wanted) - 1, 1))
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    # Less its share of the gaps each position is to be no lower than the one before: neighbours that are
    # become one group at their mean.
    groups: list[list[float]] = []
    for rank, i in enumerate(order):
        groups.append([wanted[i] - rank * gap])
        while len(groups) > 1 and _mean(groups[-2]) > _mean(groups[-1]):
            groups[-2:] = [groups[-2] + groups[-1]]
    top = high - gap * (len(wanted) - 1)
    levels = itertools.chain.from_iterable([min(max(_mean(group), low), top)] * len(group) for group in groups)
    placed = [0.0] * len(wanted)
    for rank, (i, level) in enumerate(zip(order, levels, strict=True)):
        placed[i] = level + rank * gap
    return placed


def around(
    points: Sequence[tuple[float, float]], labels: Sequence[str], dots: Sequence[tuple[float, float]], within: Box,
    size: float,
) -> list[Placed | None]:  # fmt: skip
    """A place for the label of each point.

    Args:
        points: (x, y) that the labels belong to.
        labels: one a point.
        dots: what else is drawn; the fewer of them a label covers, the better.
        within: where labels may stand.
        size: of the letters.

    Returns:
        for each point the place, or None where every one is taken by other labels.
    """
    placed: list[Placed | None] = []
    taken: list[Box] = []
    marks = [(x - 5, y - 5, x + 5, y + 5) for x, y in [*points, *dots]]
    for point, label in zip(points, labels, strict=True):
        choices = [_candidate(point, offset, label, size) for offset in _OFFSETS]
        choices = [c for c in choices if _inside(c.box, within) and not any(_overlap(c.box, box) for box in taken)]
        # min keeps the first of equals.
        best = min(choices, key=lambda c: sum(_overlap(c.box, mark) for mark in marks), default=None)
        placed.append(best)
        taken += [best.box] if best else []
    return placed


def _candidate(point: tuple[float, float], offset: tuple[float, float], label: str, size: float) -> Placed:
    x, y, width = point[0] + offset[0], point[1] + offset[1] + 0.35 * size, text_width(label, size)
    left, anchor = (x, "start") if offset[0] > 0 else (x - width, "end")
    return Placed(x, y, anchor, (left, y - 0.8 * size, left + width, y + 0.25 * size))


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _inside(inner: Box, outer: Box) -> bool:
    return inner[0] >= outer[0] and inner[1] >= outer[1] and inner[2] <= outer[2] and inner[3] <= outer[3]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
