"""Charts as SVG text: a search's curve, rewards against a cost, classes, proxy against full score."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from nas_seg.plot.axes import (
    RIGHT,
    SIZE,
    WIDTH,
    Frame,
    Key,
    format_tick,
    haloed,
    legend,
    look,
    mark,
    nice_ticks,
    polyline,
    scale_unit,
    segment,
)
from nas_seg.plot.colors import AXIS, FAINT_INK, GRID, INK
from nas_seg.plot.labels import around, spread
from nas_seg.plot.markup import Markup, element, fit, svg, text, text_width

_LABEL = SIZE - 1  # size of the labels in a chart
_MARGIN = 136.0  # most that labels at the right take
_LEVEL_DASH, _FRONT_DASH = "6 3", "5 3"
_ROW = 24.0  # height of a class
_BASELINE = Key("baseline", "diamond", hollow=True)

STOPPED, FAILED = "stopped early", "failed"
# Trials without a score are told from scored ones by their shapes.
_UNSCORED = {STOPPED: "down", FAILED: "cross"}


@dataclasses.dataclass(frozen=True)
class Series:
    """Points of one name.

    Attributes:
        name: for the legend.
        xs, ys: of the points, alike in number.
        notes: what each point says when it is pointed at; empty: nothing.
        unscored: what has an x but no y: (STOPPED or FAILED, x, note).
        front: which points are in the Pareto set; None: the chart finds out.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    notes: Sequence[str] = ()
    unscored: Sequence[tuple[str, float, str]] = ()
    front: Collection[int] | None = None


class Point(NamedTuple):
    """A point with its name beside it."""

    name: str
    x: float
    y: float


def search_curve(
    series: Sequence[Series],
    x_label: str = "scored trials",
    y_label: str = "reward",
    levels: Mapping[str, float] | None = None,
    whole: bool = True,
) -> str:
    """Every trial as a dot and the best so far as a line; below them, marks for trials without a score.

    Args:
        series: one a search, its points in the order of x.
        x_label, y_label: names of the axes, with their unit.
        levels: name -> reward of what is drawn as a horizontal line (baselines).
        whole: xs count something.
    """
    levels = levels or {}
    several = len(series) > 1
    ends = {i: (one.name, max(one.ys)) for i, one in enumerate(series) if several and one.ys}
    labels = [_end_label(name, value) for name, value in (*levels.items(), *ends.values())]
    margin = max([RIGHT, *(text_width(label, _LABEL) + 18 for label in labels)])
    laned = [i for i, one in enumerate(series) if one.unscored]
    frame = Frame(
        [x for one in series for x in (*one.xs, *(x for _, x, _ in one.unscored))],
        [*(y for one in series for y in one.ys), *levels.values()],
        (x_label, y_label),
        _curve_keys(series, bool(levels)),
        from_zero=True, whole=whole, margin=margin, lanes=len(laned),
    )  # fmt: skip
    left, right = frame.inner[0], frame.right
    parts = [frame.axes()]
    if laned:
        parts.append(segment(left, frame.bottom, right, frame.bottom, GRID))
    for value in levels.values():
        parts.append(segment(left, frame.y(value), right, frame.y(value), FAINT_INK, _LEVEL_DASH, class_="level"))
    tips = [(right, frame.y(value)) for value in levels.values()]
    colors = [FAINT_INK] * len(levels)
    for number, one in enumerate(series):
        style, best = look(number), list(itertools.accumulate(one.ys, max))
        corners = [(frame.x(x), frame.y(y)) for x, y in zip(one.xs, best, strict=True)]
        dots = _dots(frame, number, one, opacity=0.5)
        parts += [*dots, polyline(_steps(corners), style.color, 2.2, style.dash)]
        if number in ends:
            tips.append(corners[-1])
            colors.append(style.color)
    for row, number in enumerate(laned):
        parts += [
            mark(_UNSCORED[kind], look(number).color, frame.x(x), frame.lane(row), note, hollow=True, class_="unscored")
            for kind, x, note in series[number].unscored
        ]
    parts += _end_labels(frame, tips, labels, colors)
    return str(svg(WIDTH, frame.height, f"{y_label} against {x_label}", *parts))


def pareto_plot(
    series: Sequence[Series], x_label: str, y_label: str = "reward", points: Sequence[Point] = (), ringed: str = ""
) -> str:
    """Rewards against a cost; a line along the points that no other one beats in both, and rings.

    Args:
        series: each with costs as xs and rewards as ys.
        x_label: the cost; its unit is added where the numbers are large.
        y_label: the reward.
        points: named ones beside the series (baselines); they are not on the front.
        ringed: what the rings are, where the series say which of their points have one; else those on the line have.
    """
    factor, unit = scale_unit([*(x for one in series for x in one.xs), *(point.x for point in points)])
    scaled = [dataclasses.replace(one, xs=[x / factor for x in one.xs]) for one in series]
    points = [point._replace(x=point.x / factor) for point in points]
    keys = [Key(one.name, look(i).shape, look(i).color) for i, one in enumerate(series)]
    keys += [_BASELINE] if points else []
    keys += [Key("front of this plot", color=FAINT_INK, dash=_FRONT_DASH)]
    keys += [Key(f"rings: {ringed}")] if ringed else []
    frame = Frame(
        [*(x for one in scaled for x in one.xs), *(point.x for point in points)],
        [*(y for one in scaled for y in one.ys), *(point.y for point in points)],
        (f"{x_label} ({unit})" if unit else x_label, y_label),
        keys,
    )  # fmt: skip
    front = pareto_front([point for one in scaled for point in zip(one.xs, one.ys, strict=True)])
    marked = [(one.xs[i], one.ys[i]) for one in scaled for i in sorted(one.front or ())]
    if all(one.front is None for one in series):
        marked = front
    steps = _steps([(frame.x(x), frame.y(y)) for x, y in front])
    dots = [dot for number, one in enumerate(scaled) for dot in _dots(frame, number, one, opacity=0.75)]
    rings = [
        element(
            "circle", cx=frame.x(x), cy=frame.y(y), r=6.5, fill="none", stroke=INK, stroke_width=1.2, class_="front"
        )
        for x, y in marked
    ]
    parts = [frame.axes(), polyline(steps, FAINT_INK, 1.4, _FRONT_DASH), *dots, *rings]
    parts += [*_diamonds(frame, points), *_beside(frame, points, scaled)]
    return str(svg(WIDTH, frame.height, f"{y_label} against {x_label}", *parts))


def class_chart(names: Sequence[str], series: Mapping[str, Sequence[float | None]], x_label: str, limit: float) -> str:
    """A row for each name with a mark for each series.

    Args:
        names: of the rows, from the top down.
        series: name -> one number in [0, limit] a row; None where there is none.
        x_label: what the numbers are, with their unit.
        limit: where the axis ends.
    """
    left = 16 + min(190.0, max((text_width(name, SIZE) for name in names), default=0.0))
    drawn, top = legend([Key(name, look(i).shape, look(i).color) for i, name in enumerate(series)])
    bottom, ticks = top + len(names) * _ROW, nice_ticks(0.0, limit)
    scale = (WIDTH - left - RIGHT) / ticks[-1]
    parts = []
    for tick in ticks:
        x = left + tick * scale
        parts.append(segment(x, top, x, bottom, GRID))
        parts.append(text(x, bottom + 16, format_tick(tick, ticks), SIZE, fill=FAINT_INK, text_anchor="middle"))
    for row, name in enumerate(names):
        middle = top + (row + 0.5) * _ROW
        parts.append(segment(left, middle, left + ticks[-1] * scale, middle, GRID))
        parts.append(text(left - 8, middle + 4, fit(name, left - 14, SIZE), SIZE, text_anchor="end"))
        for number, values in enumerate(series.values()):
            # A little above one another, so that equal scores are all seen.
            y = middle + (number - (len(series) - 1) / 2) * min(4.0, 0.75 * _ROW / len(series))
            if values[row] is not None:
                style, note = look(number), f"{name}: {values[row]:.1f}"
                parts.append(mark(style.shape, style.color, left + values[row] * scale, y, note, class_="score"))
    parts.append(segment(left, top, left, bottom, AXIS))
    parts.append(text(left, bottom + 35, fit(x_label, WIDTH - left - RIGHT, SIZE), SIZE, fill=FAINT_INK))
    return str(svg(WIDTH, bottom + 46, x_label, *drawn, *parts))


def score_plot(points: Sequence[Point], baselines: Sequence[Point], x_label: str, y_label: str) -> str:
    """A first score against a second one, each point with its name.

    Args:
        points: what was searched.
        baselines: what it is measured by.
        x_label, y_label: names of the axes.
    """
    keys = [Key("searched", look(0).shape, look(0).color)] if points else []
    keys += [_BASELINE] if baselines else []
    xs, ys = [p.x for p in (*points, *baselines)], [p.y for p in (*points, *baselines)]
    frame = Frame(xs, ys, (x_label, y_label), keys)
    searched = Series(
        "searched", [p.x for p in points], [p.y for p in points], [f"{p.name}: {p.y:.4f}" for p in points]
    )
    dots = [*_dots(frame, 0, searched, opacity=0.9), *_diamonds(frame, baselines)]
    names = _beside(frame, [*points, *baselines], [])
    return str(svg(WIDTH, frame.height, f"{y_label} against {x_label}", frame.axes(), *dots, *names))


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The (cost, reward) pairs that no other pair beats or equals in both, from the lowest cost up."""
    front: list[tuple[float, float]] = []
    for cost, reward in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or reward > front[-1][1]:
            front.append((cost, reward))
    return front


def _curve_keys(series: Sequence[Series], leveled: bool) -> list[Key]:
    keys = [Key(one.name, look(i).shape, look(i).color, look(i).dash) for i, one in enumerate(series)]
    keys += [Key("baseline", color=FAINT_INK, dash=_LEVEL_DASH)] if leveled else []
    kinds = {kind for one in series for kind, _, _ in one.unscored}
    keys += [Key(kind, shape, hollow=True) for kind, shape in _UNSCORED.items() if kind in kinds]
    return [*keys, Key("line: best so far")]


def _steps(corners: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A line that stays level until the next corner."""
    return [*corners[:1], *(p for a, b in itertools.pairwise(corners) for p in ((b[0], a[1]), b))]


def _dots(frame: Frame, number: int, one: Series, opacity: float) -> list[Markup]:
    style, notes = look(number), one.notes or [""] * len(one.xs)
    return [
        mark(style.shape, style.color, frame.x(x), frame.y(y), note, opacity=opacity, class_="point")
        for x, y, note in zip(one.xs, one.ys, notes, strict=True)
    ]


def _end_label(name: str, value: float) -> str:
    """Names too long for the margin lose their end and never their number."""
    shown = f" {value:.4f}"
    return fit(name, _MARGIN - text_width(shown, _LABEL), _LABEL) + shown


def _end_labels(
    frame: Frame, tips: Sequence[tuple[float, float]], labels: Sequence[str], colors: Sequence[str]
) -> list[Markup]:
    """Labels in the right margin, each tied to the end of its line."""
    parts = []
    ys = spread([y for _, y in tips], 1.2 * _LABEL, frame.top + 4, frame.bottom - 4)
    for (x, tip), y, label, color in zip(tips, ys, labels, colors, strict=True):
        if x < frame.right:
            parts.append(segment(x, tip, frame.right, tip, color, "1 4", class_="leader"))
        parts.append(polyline([(frame.right, tip), (frame.right + 9, y)], color, 1.0))
        parts.append(text(frame.right + 12, y + 3.5, label, _LABEL, fill=color, class_="end"))
    return parts


def _diamonds(frame: Frame, points: Sequence[Point]) -> list[Markup]:
    return [
        mark("diamond", INK, frame.x(p.x), frame.y(p.y), f"baseline {p.name}: {p.y:.4f}", hollow=True, class_="named")
        for p in points
    ]


def _beside(frame: Frame, points: Sequence[Point], series: Sequence[Series]) -> list[Markup]:
    """The names of points, where there is room, off the dots of the series where that can be."""
    dots = [(frame.x(x), frame.y(y)) for one in series for x, y in zip(one.xs, one.ys, strict=True)]
    names = [fit(point.name, 130.0, _LABEL) for point in points]
    left, top, _, bottom = frame.inner
    places = around([(frame.x(p.x), frame.y(p.y)) for p in points], names, dots, (left, top, WIDTH, bottom), _LABEL)
    return [
        haloed(place.x, place.y, name, _LABEL, text_anchor=place.anchor, class_="label")
        for name, place in zip(names, places, strict=True)
        if place is not None
    ]
