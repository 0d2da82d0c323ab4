"""What charts are made of: ticks, axes, the marks of points, legends."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from nas_seg.plot.colors import AXIS, FAINT_INK, GRID, INK, PAPER, SERIES
from nas_seg.plot.markup import Markup, element, fit, text, text_width

WIDTH = 560.0
SIZE = 11.5  # of letters
LANE = 15.0  # height of a row of marks below the smallest y
_HEIGHT = 250.0  # of the part that points lie in
_LEFT, RIGHT, _BOTTOM = 62.0, 24.0, 48.0
_LEGEND_LINE = 19.0
_SHAPES = ("circle", "square", "triangle", "diamond", "down", "plus")
_DASHES = ("", "8 4", "2 3", "9 3 2 3")
_CORNERS = {
    "triangle": ((-4.2, 3.4), (4.2, 3.4), (0, -4.2)),
    "down": ((-4.2, -3.4), (4.2, -3.4), (0, 4.2)),
    "diamond": ((-4.4, 0), (0, -4.4), (4.4, 0), (0, 4.4)),
    "square": ((-3.2, -3.2), (3.2, -3.2), (3.2, 3.2), (-3.2, 3.2)),
}
_STROKES = {
    "plus": (("M", -4.2, 0), ("L", 4.2, 0), ("M", 0, -4.2), ("L", 0, 4.2)),
    "cross": (("M", -3.4, -3.4), ("L", 3.4, 3.4), ("M", -3.4, 3.4), ("L", 3.4, -3.4)),
}
_TIMES = ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
_UNITS = ((1e9, "B"), (1e6, "M"), (1e3, "K"))


class Look(NamedTuple):
    """How the points and the line of a series are told from others without their colour, and in it."""

    shape: str
    color: str
    dash: str


class Key(NamedTuple):
    """An entry of a legend: words behind a mark (`shape`), a piece of a line (`dash`), both or nothing."""

    name: str
    shape: str | None = None
    color: str = INK
    dash: str | None = None
    hollow: bool = False


def look(number: int) -> Look:
    """The look of the series `number`; six shapes in six colours, then the same colours with other shapes."""
    colors, shapes = len(SERIES), len(_SHAPES)
    return Look(_SHAPES[(number + number // colors) % shapes], SERIES[number % colors], _DASHES[number % len(_DASHES)])


class Frame:
    """The axes of points: where a value lies in the drawing.

    Attributes:
        top, bottom, right: edges of the part that values lie in.
        floor: the x axis: `bottom`, or below it where there are lanes.
        height: of the whole drawing.
    """

    def __init__(
        self,
        xs: Sequence[float],
        ys: Sequence[float],
        labels: tuple[str, str],
        keys: Sequence[Key],
        *,
        from_zero: bool = False,
        whole: bool = False,
        margin: float = RIGHT,
        lanes: int = 0,
    ):
        """Axes for the given values.

        Args:
            xs, ys: all that is to have room.
            labels: names of the x axis and the y axis.
            keys: the legend.
            from_zero: the x axis starts at 0 and ends at the largest value, not at a tick.
            whole: xs are numbers of something, and ticks too.
            margin: what is kept free on the right.
            lanes: rows for marks without a y.
        """
        self.labels = labels
        self.legend, self.top = legend(keys)
        self.bottom = self.top + _HEIGHT
        self.floor = self.bottom + lanes * LANE
        self.height = self.floor + _BOTTOM
        self.right = WIDTH - margin
        self.empty = not ys
        x_low, x_high = 0.0 if from_zero else min(xs, default=0.0), max(xs, default=1.0)
        self.x_ticks = nice_ticks(x_low, x_high, whole=whole)
        self.y_ticks = nice_ticks(min(ys, default=0.0), max(ys, default=1.0))
        self.x_range = self.x_ticks[0], x_high if from_zero and x_high > self.x_ticks[0] else self.x_ticks[-1]

    def x(self, value: float) -> float:
        low, high = self.x_range
        return _LEFT + (value - low) / (high - low) * (self.right - _LEFT)

    def y(self, value: float) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)

    def lane(self, number: int) -> float:
        """The y of the middle of a lane."""
        return self.bottom + (number + 0.5) * LANE

    @property
    def inner(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) of the part that values lie in."""
        return _LEFT, self.top, self.right, self.bottom

    def axes(self) -> Markup:
        parts = []
        for tick in self.y_ticks:
            y, label = self.y(tick), format_tick(tick, self.y_ticks)
            parts.append(segment(_LEFT, y, self.right, y, GRID))
            parts.append(text(_LEFT - 7, y + 4, label, SIZE, fill=FAINT_INK, text_anchor="end"))
        for tick in (tick for tick in self.x_ticks if tick <= self.x_range[1]):
            x, label = self.x(tick), format_tick(tick, self.x_ticks)
            parts.append(segment(x, self.floor, x, self.floor + 4, AXIS))
            parts.append(text(x, self.floor + 18, label, SIZE, fill=FAINT_INK, text_anchor="middle"))
        parts.append(segment(_LEFT, self.floor, self.right, self.floor, AXIS))
        parts.append(segment(_LEFT, self.top, _LEFT, self.floor, AXIS))
        middle_x, middle_y = (_LEFT + self.right) / 2, (self.top + self.bottom) / 2
        x_label = fit(self.labels[0], self.right - _LEFT, SIZE)
        y_label = fit(self.labels[1], self.bottom - self.top, SIZE)
        parts.append(text(middle_x, self.height - 10, x_label, SIZE, text_anchor="middle"))
        turn = f"rotate(-90 14 {middle_y:.1f})"
        parts.append(text(14, middle_y, y_label, SIZE, text_anchor="middle", transform=turn))
        if self.empty:
            parts.append(text(middle_x, middle_y, "nothing to show yet", 13, fill=FAINT_INK, text_anchor="middle"))
        return element("g", *parts, *self.legend)


def legend(keys: Iterable[Key]) -> tuple[list[Markup], float]:
    """(what it draws, where the picture below it starts); names go on in a new line where one is full."""
    parts: list[Markup] = []
    x, y = 16.0, 20.0
    for key in keys:
        sample = 34.0 if key.dash is not None else 14.0 if key.shape else 0.0
        shown = fit(key.name, WIDTH - 46 - sample, SIZE)
        width = sample + text_width(shown, SIZE) + 20
        if x > 16 and x + width > WIDTH:
            x, y = 16.0, y + _LEGEND_LINE
        if key.dash is not None:
            parts.append(segment(x, y - 4, x + sample - 6, y - 4, key.color, key.dash, 2.0))
        if key.shape:
            parts.append(mark(key.shape, key.color, x + sample / 2 - 3, y - 4, hollow=key.hollow))
        parts.append(text(x + sample, y, shown, SIZE, fill=INK if sample else FAINT_INK))
        x += width
    return parts, y + 14


def mark(
    shape: str, color: str, x: float, y: float, note: str = "", *, hollow: bool = False, **attributes: Any
) -> Markup:
    """A point: filled, or `hollow`; `note` is what it says when it is pointed at."""
    said = element("title", note) if note else None
    drawn = {"fill": PAPER, "stroke": color, "stroke_width": 1.6} if hollow else {"fill": color}
    if shape == "circle":
        return element("circle", said, cx=x, cy=y, r=3.6, **drawn, **attributes)
    if shape in _STROKES:
        path = " ".join(f"{move}{x + dx:.1f},{y + dy:.1f}" for move, dx, dy in _STROKES[shape])
        return element("path", said, d=path, fill="none", stroke=color, stroke_width=1.9, **attributes)
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in _CORNERS[shape])
    return element("polygon", said, points=points, **drawn, **attributes)


def haloed(x: float, y: float, content: str, size: float, **attributes: Any) -> Markup:
    """A line of text that can be read on top of lines and points."""
    halo = {"stroke": PAPER, "stroke_width": 3, "stroke_linejoin": "round", "paint_order": "stroke"}
    return text(x, y, content, size, **halo, **attributes)


def polyline(points: Sequence[tuple[float, float]], color: str, width: float, dash: str = "") -> Markup | None:
    """Straight pieces from point to point; None for fewer than two."""
    if len(points) < 2:
        return None
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    style = {"stroke_dasharray": dash or None, "stroke_linejoin": "round"}
    return element("polyline", points=path, fill="none", stroke=color, stroke_width=width, **style)


def segment(
    x1: float,
    y1: float,
    x2: float,
    y2: float,
    color: str,
    dash: str = "",
    width: float | None = None,
    **attributes: Any,
) -> Markup:
    """A straight line."""
    style = {"stroke_dasharray": dash or None, "stroke_width": width}
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, stroke=color, **style, **attributes)


def nice_ticks(low: float, high: float, about: int = 5, whole: bool = False) -> list[float]:
    """Round numbers, about `about` steps apart, the first at or below `low` and the last at or above `high`.

    With `whole` they are whole numbers.
    """
    if high <= low:
        pad = 0.1 * abs(low) or 1.0
        low, high = low - pad, low + pad
    rough = max((high - low) / about, 1.0 if whole else 0.0)
    power = 10.0 ** math.floor(math.log10(rough))
    steps = [factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if not whole or (factor * power).is_integer()]
    step = next(step for step in steps if step >= rough * (1 - 1e-9))
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
