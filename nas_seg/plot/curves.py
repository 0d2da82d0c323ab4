"""Numbers by step or epoch as lines."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from nas_seg.plot.axes import WIDTH, Frame, Key, look, mark, polyline, segment
from nas_seg.plot.colors import FAINT_INK
from nas_seg.plot.markup import svg

_MARKED = 40  # a line of more points has no marks
MOST_POINTS = 400  # a line of more points is drawn through the means of neighbours

Points = Sequence[tuple[float, float]]


def line_chart(lines: Mapping[str, Points], x_label: str, y_label: str, at: float | None = None) -> str:
    """A line for each name, with a mark at each point where these are few.

    Args:
        lines: name -> (x, y) in the order of x; x counts something.
        x_label: what it counts.
        y_label: what the numbers are, with their unit.
        at: x of a dashed line upright, where something changes.
    """
    drawn = {name: thinned(points) for name, points in lines.items()}
    marked = {name: len(points) <= _MARKED for name, points in drawn.items()}
    keys = [
        Key(name, look(i).shape if marked[name] else None, look(i).color, look(i).dash) for i, name in enumerate(drawn)
    ]
    xs, ys = ([point[axis] for points in drawn.values() for point in points] for axis in (0, 1))
    frame = Frame([0, *xs], ys, (x_label, y_label), keys, from_zero=True, whole=True)
    parts = [frame.axes()]
    if at is not None and 0 < at <= frame.x_range[1]:
        parts.append(segment(frame.x(at), frame.top, frame.x(at), frame.bottom, FAINT_INK, "5 3", class_="frozen"))
    for number, (name, points) in enumerate(drawn.items()):
        style, spots = look(number), [(frame.x(x), frame.y(y)) for x, y in points]
        parts.append(polyline(spots, style.color, 1.8, style.dash))
        if marked[name]:
            parts += [
                mark(style.shape, style.color, *spot, f"{x_label} {x:g}, {name}: {y:.4f}", class_="point")
                for spot, (x, y) in zip(spots, points, strict=True)
            ]
    return str(svg(WIDTH, frame.height, f"{y_label} by {x_label}", *parts))


def thinned(points: Points, most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """At most so many points: of more, the means of neighbours, at the last x of each group."""
    if len(points) <= most:
        return list(points)
    bounds = [round(i * len(points) / most) for i in range(most + 1)]
    groups = [points[low:high] for low, high in itertools.pairwise(bounds)]
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]
