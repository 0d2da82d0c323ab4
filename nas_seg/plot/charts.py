"""Small charts as SVG text: a search's curve, rewards against a cost with the Pareto front, bars of classes."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from nas_seg.plot.markup import FAINT_INK, INK, Markup, element, fit, svg, text, text_width

WIDTH = 560.0
_HEIGHT = 330.0
_LEFT, _RIGHT, _BOTTOM = 62.0, 24.0, 48.0
_SIZE = 11.5  # of letters
_LEGEND_LINE = 19.0
_GRID, _AXIS = "#e1e5ea", "#69717b"
# Dark enough on white to be told apart (all above 4.5 : 1), and each with a mark of its own for print.
COLORS = ("#1f5fa8", "#b8420b", "#1a7446", "#7a3d9c", "#8a6a00", "#b0245f")
_MARKS = ("circle", "square", "triangle", "diamond")
_SQUARES = ("square",)
_TIMES = ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
_UNITS = ((1e9, "B"), (1e6, "M"), (1e3, "K"))


@dataclasses.dataclass(frozen=True)
class Series:
    """Points of one name.

    Attributes:
        name: for the legend.
        xs, ys: of the points, alike in number.
        notes: what each point says when it is pointed at; empty: nothing.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    notes: Sequence[str] = ()


def search_curve(series: Sequence[Series], x_label: str = "scored trials", y_label: str = "reward") -> str:
    """Every trial as a dot and the best so far as a line.

    Args:
        series: one a search, its points in the order of x.
        x_label, y_label: names of the axes, with their unit.
    """
    frame = _Frame(series, x_label, y_label, extra_legend="line: best so far", x_low=0.0)
    parts = [frame.axes()]
    for number, one in enumerate(series):
        best = list(itertools.accumulate(one.ys, max))
        corners = [(frame.x(x), frame.y(y)) for x, y in zip(one.xs, best, strict=True)]
        # The best stays what it was until the next trial.
        steps = corners[:1] + [p for a, b in itertools.pairwise(corners) for p in ((b[0], a[1]), b)]
        parts += [_polyline(steps, _color(number), 2.0), *frame.marks(number, one, opacity=0.55)]
    return str(svg(WIDTH, frame.height, f"{y_label} against {x_label}", *parts))


def pareto_plot(series: Sequence[Series], x_label: str, y_label: str = "reward") -> str:
    """Rewards against a cost, and the front: the points that no other one beats in both.

    Args:
        series: each with costs as xs and rewards as ys.
        x_label: the cost; its unit is added where the numbers are large.
        y_label: the reward.
    """
    factor, unit = scale_unit([x for one in series for x in one.xs])
    scaled = [dataclasses.replace(one, xs=[x / factor for x in one.xs]) for one in series]
    frame = _Frame(scaled, f"{x_label} ({unit})" if unit else x_label, y_label, extra_legend="rings: Pareto front")
    front = pareto_front([point for one in scaled for point in zip(one.xs, one.ys, strict=True)])
    corners = [(frame.x(x), frame.y(y)) for x, y in front]
    steps = corners[:1] + [p for a, b in itertools.pairwise(corners) for p in ((b[0], a[1]), b)]
    marks = [mark for number, one in enumerate(scaled) for mark in frame.marks(number, one, opacity=0.75)]
    rings = [
        element("circle", cx=x, cy=y, r=6.5, fill="none", stroke=INK, stroke_width=1.2, class_="front")
        for x, y in corners
    ]
    parts = [frame.axes(), _polyline(steps, FAINT_INK, 1.4, stroke_dasharray="5 3"), *marks, *rings]
    return str(svg(WIDTH, frame.height, f"{y_label} against {x_label}", *parts))


def bar_chart(
    names: Sequence[str], series: Mapping[str, Sequence[float | None]], x_label: str, limit: float | None = None
) -> str:
    """Horizontal bars, a group for each name, with their values.

    Args:
        names: of the groups, from the top down.
        series: name -> one number >= 0 a group; None where there is none.
        x_label: what the numbers are, with their unit.
        limit: where the axis ends; None: a little beyond the largest number.
    """
    thick, gap = (15.0 if len(series) == 1 else 11.0), 9.0
    group = len(series) * thick + gap
    left = 16 + min(190.0, max((text_width(name, _SIZE) for name in names), default=0.0))
    legend, top = _legend(list(series), "", _SQUARES) if len(series) > 1 else ([], 10.0)
    bottom = top + len(names) * group
    largest = limit or max((v for values in series.values() for v in values if v is not None), default=1.0)
    ticks = nice_ticks(0.0, largest)
    scale = (WIDTH - left - _RIGHT - 34) / max(ticks[-1], largest)
    parts = []
    for tick in ticks:
        x = left + tick * scale
        parts.append(_segment(x, top, x, bottom, _GRID))
        parts.append(text(x, bottom + 16, format_tick(tick, ticks), _SIZE, fill=FAINT_INK, text_anchor="middle"))
    for row, name in enumerate(names):
        y = top + row * group + gap / 2
        shown = fit(name, left - 14, _SIZE)
        parts.append(text(left - 8, y + (group - gap) / 2 + 4, shown, _SIZE, text_anchor="end"))
        for number, values in enumerate(series.values()):
            parts += _bar(left, y + number * thick, thick - 2, values[row], scale, _color(number))
    parts.append(_segment(left, top, left, bottom, _AXIS))
    parts.append(text(left, bottom + 35, x_label, _SIZE, fill=FAINT_INK))
    return str(svg(WIDTH, bottom + 46, x_label, *legend, *parts))


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The (cost, reward) pairs that no other pair beats or equals in both, from the lowest cost up."""
    front: list[tuple[float, float]] = []
    for cost, reward in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or reward > front[-1][1]:
            front.append((cost, reward))
    return front


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers, about `about` steps apart, the first at or below `low` and the last at or above `high`."""
    if high <= low:
        pad = 0.1 * abs(low) or 1.0
        low, high = low - pad, low + pad
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= rough * (1 - 1e-9))
    # A bound that is a tick but for rounding asks for no further tick.
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def format_tick(value: float, ticks: Sequence[float]) -> str:
    """A tick with as many decimals as tell it from its neighbours."""
    step = ticks[1] - ticks[0]
    decimals = next((n for n in range(9) if abs(round(step, n) - step) <= 1e-6 * step), 9)
    return f"{value:,.{decimals}f}"


def scale_unit(values: Sequence[float]) -> tuple[float, str]:
    """(factor, letter) by which the largest value is a small number: (1e6, "M") for millions."""
    largest = max((abs(value) for value in values), default=0.0)
    return next(((factor, unit) for factor, unit in _UNITS if largest >= factor), (1.0, ""))


def time_unit(seconds: float) -> tuple[float, str]:
    """(seconds in it, name) of the unit in which a span is at least two: (60.0, "minutes") for a quarter of an hour."""
    return next(((factor, name) for factor, name in _TIMES if seconds >= 2 * factor), _TIMES[-1])


class _Frame:
    """The axes of points: where a value lies in the drawing."""

    def __init__(self, series: Sequence[Series], x_label: str, y_label: str, extra_legend: str, x_low=math.inf):
        self.labels = (x_label, y_label)
        self.legend, self.top = _legend([one.name for one in series], extra_legend)
        self.height = self.top + _HEIGHT - _LEGEND_LINE
        xs, ys = ([v for one in series for v in getattr(one, axis)] for axis in ("xs", "ys"))
        self.empty = not xs
        self.x_ticks = nice_ticks(min(x_low, min(xs, default=0.0)), max(xs, default=1.0))
        self.y_ticks = nice_ticks(min(ys, default=0.0), max(ys, default=1.0))

    def x(self, value: float) -> float:
        low, high = self.x_ticks[0], self.x_ticks[-1]
        return _LEFT + (value - low) / (high - low) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        bottom = self.height - _BOTTOM
        return bottom - (value - low) / (high - low) * (bottom - self.top)

    def axes(self) -> Markup:
        bottom, right = self.height - _BOTTOM, WIDTH - _RIGHT
        parts = []
        for tick in self.y_ticks:
            y, label = self.y(tick), format_tick(tick, self.y_ticks)
            parts.append(_segment(_LEFT, y, right, y, _GRID))
            parts.append(text(_LEFT - 7, y + 4, label, _SIZE, fill=FAINT_INK, text_anchor="end"))
        for tick in self.x_ticks:
            x, label = self.x(tick), format_tick(tick, self.x_ticks)
            parts.append(_segment(x, bottom, x, bottom + 4, _AXIS))
            parts.append(text(x, bottom + 18, label, _SIZE, fill=FAINT_INK, text_anchor="middle"))
        parts += [_segment(_LEFT, bottom, right, bottom, _AXIS), _segment(_LEFT, self.top, _LEFT, bottom, _AXIS)]
        middle_x, middle_y = (_LEFT + right) / 2, (self.top + bottom) / 2
        x_label, y_label = fit(self.labels[0], right - _LEFT, _SIZE), fit(self.labels[1], bottom - self.top, _SIZE)
        parts.append(text(middle_x, self.height - 10, x_label, _SIZE, text_anchor="middle"))
        turn = f"rotate(-90 14 {middle_y:.1f})"
        parts.append(text(14, middle_y, y_label, _SIZE, text_anchor="middle", transform=turn))
        if self.empty:
            parts.append(text(middle_x, middle_y, "nothing to show yet", 13, fill=FAINT_INK, text_anchor="middle"))
        return element("g", *parts, *self.legend)

    def marks(self, number: int, one: Series, opacity: float) -> list[Markup]:
        notes = one.notes or [""] * len(one.xs)
        return [
            _mark(number, self.x(x), self.y(y), note, fill_opacity=opacity, class_="point")
            for x, y, note in zip(one.xs, one.ys, notes, strict=True)
        ]


def _legend(names: Sequence[str], extra: str, shapes: Sequence[str] = _MARKS) -> tuple[list[Markup], float]:
    """(what it draws, where the picture below it starts); names go on in a new line where one is full."""
    parts: list[Markup] = []
    x, y = 16.0, 20.0
    for number, name in enumerate([*names, *([extra] if extra else [])]):
        shown = fit(name, WIDTH - 60, _SIZE)
        width = text_width(shown, _SIZE) + 34
        if x > 16 and x + width > WIDTH:
            x, y = 16.0, y + _LEGEND_LINE
        marked = number < len(names)
        if marked:
            parts.append(_mark(number, x + 5, y - 4, "", shapes))
        parts.append(text(x + (14 if marked else 0), y, shown, _SIZE, fill=INK if marked else FAINT_INK))
        x += width
    return parts, y + 14


def _bar(x: float, y: float, thick: float, value: float | None, scale: float, color: str) -> list[Markup]:
    if value is None:
        return [text(x + 5, y + thick - 2, "absent", _SIZE - 1.5, fill=FAINT_INK)]
    width = value * scale
    bar = element("rect", x=x, y=y, width=width, height=thick, fill=color, class_="bar")
    return [bar, text(x + width + 5, y + thick / 2 + 4, f"{value:.1f}", _SIZE - 1)]


def _mark(number: int, x: float, y: float, note: str, shapes: Sequence[str] = _MARKS, **attributes: Any) -> Markup:
    """A point of the series `number`, in its colour and shape."""
    shape, attributes = shapes[number % len(shapes)], {"fill": _color(number)} | attributes
    said = element("title", note) if note else None
    if shape == "circle":
        return element("circle", said, cx=x, cy=y, r=3.6, **attributes)
    if shape == "square":
        return element("rect", said, x=x - 3.2, y=y - 3.2, width=6.4, height=6.4, **attributes)
    corners = {"triangle": ((-4.2, 3.4), (4.2, 3.4), (0, -4.2)), "diamond": ((-4.4, 0), (0, -4.4), (4.4, 0), (0, 4.4))}
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners[shape])
    return element("polygon", said, points=points, **attributes)


def _polyline(points: Sequence[tuple[float, float]], color: str, width: float, **attributes: Any) -> Markup | None:
    if len(points) < 2:
        return None
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return element("polyline", points=path, fill="none", stroke=color, stroke_width=width, **attributes)


def _segment(x1: float, y1: float, x2: float, y2: float, color: str) -> Markup:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, stroke=color)


def _color(number: int) -> str:
    return COLORS[number % len(COLORS)]
