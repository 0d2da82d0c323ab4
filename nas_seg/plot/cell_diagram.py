"""A dense prediction cell as a drawing: features at the bottom, the concatenation on top, as in the paper's figure.

Every branch has a column of its own, in the order in which a walk through the cell meets it (a branch, then all
that reads it), and stands as high as its chain is long. A branch has one input, so with these columns no two lines
cross and no line runs behind a box.
"""

from __future__ import annotations

import textwrap
from typing import Any, NamedTuple

from nas_seg.dpc.genotype import CONV, FEATURES, PYRAMID_POOLING, Branch, DPCGenotype
from nas_seg.plot.colors import BAR_BOX, CONCAT_LINE, CONV_BOX, FAINT_INK, INK, PAPER, POINTWISE_BOX, POOLING_BOX
from nas_seg.plot.markup import Markup, element, fit, svg, text, text_width
from nas_seg.utils.dimension import pooling_window
from nas_seg.utils.errors import InputError

MAP_SIZE = (33, 33)  # a crop of 513 x 513 at output stride 16
# Rates are in positions of the map at this output stride; at a finer one they grow with the map.
_REFERENCE_STRIDE = 16

_MARGIN, _GAP, _GUTTER = 16.0, 18.0, 34.0  # around everything; between columns; between rows
_BAR = 34.0
_PICTURE = (132.0, 88.0)  # the largest width and height of a map
_PICTURE_TOP = 58.0
_CARD_HEIGHT = _PICTURE_TOP + _PICTURE[1] + 24.0
_SMALLEST_CARD = 152.0
_LABEL, _SMALL = 12.5, 10.5  # font sizes
_SMALLEST_DOT, _LARGEST_DOT = 0.9, 3.0  # radii
_BOXES = {CONV: CONV_BOX, PYRAMID_POOLING: POOLING_BOX}


class _Place(NamedTuple):
    column: int
    row: int


def dpc_svg(
    genotype: DPCGenotype, map_size: tuple[int, int] = MAP_SIZE, output_stride: int = 16, title: str = ""
) -> str:
    """Draws a dense prediction cell.

    Args:
        genotype: the cell.
        map_size: (height, width) of the feature map, in positions, to which taps and windows are drawn to scale.
        output_stride: 16 or 8; at 8 the rates double, as they do in the cell.
        title: a line on top.

    Returns:
        The text of an SVG file.

    Raises:
        InputError: on a map without positions or a stride that cells are not defined at.
    """
    if len(map_size) != 2 or min(map_size) < 1:
        raise InputError(f"map_size: expected height,width of at least 1, received {list(map_size)}")
    if output_stride not in (8, _REFERENCE_STRIDE):
        raise InputError(f"output_stride: a dense prediction cell expects 8 or 16, received {output_stride}")
    rate_scale, branches, places = _REFERENCE_STRIDE // output_stride, genotype.branches, _places(genotype)
    lines = [line for branch in branches for line in _label_lines(branch)]
    card = max([_SMALLEST_CARD, *(text_width(line, _LABEL, bold=True) + 16 for line in lines)])
    width = max(len(branches) * (card + _GAP) - _GAP, 320.0) + 2 * _MARGIN
    left = (width - len(branches) * (card + _GAP) + _GAP) / 2
    top = _MARGIN + (28.0 if title else 0.0)
    rows = 1 + max(place.row for place in places)
    bottom = top + _BAR + rows * (_GUTTER + _CARD_HEIGHT) + _GUTTER  # where the bar of the features starts
    corners = [
        (left + p.column * (card + _GAP), bottom - (p.row + 1) * (_GUTTER + _CARD_HEIGHT)) for p in places
    ]  # fmt: skip
    parts = (
        [text(_MARGIN, top - 12, fit(title, width - 2 * _MARGIN, 15, True), 15, font_weight="bold")] if title else []
    )
    parts += [_to_concat(x + card / 2, y, top + _BAR) for x, y in corners]
    for branch, (x, y) in zip(branches, corners, strict=True):
        source = (x + card / 2, bottom) if branch.input == FEATURES else _middle(corners[branch.input], card)
        parts.append(_arrow(source, (x + card / 2, y + _CARD_HEIGHT)))
    parts += [_bar(left, top, width - 2 * left, "concat → 1x1"), _bar(left, bottom, width - 2 * left, "F: features")]
    for number, (branch, corner) in enumerate(zip(branches, corners, strict=True)):
        parts.append(_card(number, branch, corner, card, map_size, rate_scale))
    height, caption = _caption(map_size, rate_scale, width, bottom + _BAR)
    return str(svg(width, height, f"dense prediction cell {genotype.summary()}", *parts, *caption))


def branch_label(branch: Branch) -> str:
    """The operation in the words of the paper's figure: "3x3 sep, rate 6x21", "SPP 1x4", "1x1"."""
    if branch.op == PYRAMID_POOLING:
        return "SPP {}x{}".format(*branch.grid_size)
    if branch.is_pointwise:
        return "1x1"
    return "{}x{} sep, rate {}x{}".format(*branch.kernel, *branch.rate)


def _label_lines(branch: Branch) -> list[str]:
    """The label of a branch as it stands in its card: what it is, and below it the rate."""
    return branch_label(branch).split(", ")


def taps(branch: Branch, map_size: tuple[int, int], rate_scale: int = 1) -> list[tuple[int, int]]:
    """(row, column) on the map of all that a convolution reads for the position in the middle, padding left out.

    The middle of a map of n positions is position (n - 1) // 2, counted from 0.
    """
    rows, columns = (
        [(size - 1) // 2 + (i - (kernel - 1) // 2) * rate * rate_scale for i in range(kernel)]
        for size, kernel, rate in zip(map_size, branch.kernel, branch.rate or (1, 1), strict=True)
    )
    return [(r, c) for r in rows if 0 <= r < map_size[0] for c in columns if 0 <= c < map_size[1]]


def _places(genotype: DPCGenotype) -> list[_Place]:
    """Where each branch stands: columns by a walk from the features up, rows by the length of the chain."""
    rows: list[int] = []
    readers: dict[int, list[int]] = {}
    for number, branch in enumerate(genotype.branches):
        rows.append(0 if branch.input == FEATURES else rows[branch.input] + 1)
        readers.setdefault(branch.input, []).append(number)
    columns: dict[int, int] = {}
    waiting = readers[FEATURES][::-1]
    while waiting:
        number = waiting.pop()
        columns[number] = len(columns)
        waiting += readers.get(number, [])[::-1]
    return [_Place(columns[number], row) for number, row in enumerate(rows)]


def _card(number: int, branch: Branch, corner, width: float, map_size, rate_scale: int) -> Markup:
    x, y = corner
    fill, line = POINTWISE_BOX if branch.is_pointwise else _BOXES[branch.op]
    frame = element("rect", x=x, y=y, width=width, height=_CARD_HEIGHT, rx=6, fill=fill, stroke=line)
    scale = min(_PICTURE[0] / map_size[1], _PICTURE[1] / map_size[0])
    picture_x = x + (width - map_size[1] * scale) / 2
    picture_y = y + _PICTURE_TOP + (_PICTURE[1] - map_size[0] * scale) / 2
    draw = _window if branch.op == PYRAMID_POOLING else _dots
    caption, marks = draw(branch, picture_x, picture_y, scale, map_size, rate_scale, line)
    outline = element(
        "rect", x=picture_x, y=picture_y, width=map_size[1] * scale, height=map_size[0] * scale,
        fill=PAPER, stroke=line, stroke_width=0.8, class_="map",
    )  # fmt: skip
    middle = {"text_anchor": "middle"}
    lines = _label_lines(branch)
    top = y + (34 if len(lines) > 1 else 41)
    label = [
        text(x + width / 2, top + 15 * i, line, _LABEL, font_weight="bold", class_="op", **middle)
        for i, line in enumerate(lines)
    ]
    name = text(x + 9, y + 16, f"branch {number}", _SMALL, fill=FAINT_INK)
    below = text(x + width / 2, y + _CARD_HEIGHT - 9, caption, _SMALL, fill=FAINT_INK, **middle)
    return element("g", frame, name, *label, outline, *marks, below)


def _dots(branch: Branch, x, y, scale, map_size, rate_scale, color) -> tuple[str, list[Markup]]:
    found, total = taps(branch, map_size, rate_scale), branch.kernel[0] * branch.kernel[1]
    # As large as can be without touching one another, where that can be seen.
    gaps = [r * rate_scale for r, k in zip(branch.rate or (1, 1), branch.kernel, strict=True) if k > 1]
    radius = max(_SMALLEST_DOT, min([_LARGEST_DOT, *(0.42 * scale * gap for gap in gaps)]))
    marks = [
        element("circle", cx=x + (column + 0.5) * scale, cy=y + (row + 0.5) * scale, r=radius, fill=color, class_="tap")
        for row, column in found
    ]
    if len(found) < total:
        return f"{len(found)} of {total} taps on the map", marks
    return "1 tap" if total == 1 else f"{total} taps", marks


def _window(branch: Branch, x, y, scale, map_size, rate_scale, color) -> tuple[str, list[Markup]]:
    sides = [pooling_window(size, grid) for size, grid in zip(map_size, branch.grid_size, strict=True)]
    first = [(size - side) // 2 for size, side in zip(map_size, sides, strict=True)]
    window = element(
        "rect", x=x + first[1] * scale, y=y + first[0] * scale, width=sides[1] * scale, height=sides[0] * scale,
        fill=color, fill_opacity=0.35, stroke=color, class_="window",
    )  # fmt: skip
    return "average of {}x{}".format(*sides), [window]


def _bar(x: float, y: float, width: float, label: str) -> Markup:
    box = element("rect", x=x, y=y, width=width, height=_BAR, rx=6, fill=BAR_BOX[0], stroke=BAR_BOX[1])
    return element("g", box, text(x + width / 2, y + 22, label, 13, font_weight="bold", text_anchor="middle"))


def _middle(corner: tuple[float, float], width: float) -> tuple[float, float]:
    return corner[0] + width / 2, corner[1]


def _arrow(source: tuple[float, float], target: tuple[float, float]) -> Markup:
    """From the top of what is read up to the branch that reads it."""
    (x0, y0), (x1, y1) = source, target
    turn = y1 + 0.6 * _GUTTER
    points = [(x0, y0), (x1, y1 + 5)] if x0 == x1 else [(x0, y0), (x0, turn), (x1, turn), (x1, y1 + 5)]
    return _line(points, INK, 1.7, class_="input")


def _to_concat(x: float, y0: float, y1: float) -> Markup:
    return _line([(x, y0), (x, y1 + 5)], CONCAT_LINE, 1.2)


def _line(points: list[tuple[float, float]], color: str, width: float, **attributes: Any) -> Markup:
    """Straight pieces with a head that points up at the end."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    x, y = points[-1]
    head = f"{x - 4:.1f},{y + 3:.1f} {x + 4:.1f},{y + 3:.1f} {x:.1f},{y - 5:.1f}"
    line = element("polyline", points=path, fill="none", stroke=color, stroke_width=width)
    return element("g", line, element("polygon", points=head, fill=color), **attributes)


def _caption(map_size, rate_scale: int, width: float, top: float) -> tuple[float, list[Markup]]:
    """(height of the drawing, lines below it)."""
    words = (
        f"Small maps: {map_size[0]}x{map_size[1]} positions, to scale. Dots: what the position in the middle reads; "
        "taps beyond the edge read zeros and are not drawn. Filled box: the window that an average slides over the map."
    )
    words += f" Rates are drawn times {rate_scale} for the finer map." if rate_scale > 1 else ""
    lines = textwrap.wrap(words, int((width - 2 * _MARGIN) / text_width("x", _SMALL)))
    marks = [text(_MARGIN, top + 20 + 15 * i, line, _SMALL, fill=FAINT_INK) for i, line in enumerate(lines)]
    return top + 20 + 15 * len(lines), marks
