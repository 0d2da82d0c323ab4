"""What drawings of found networks share: boxes of ops and inputs, the bar at the end, and lines to what reads.

Each output has a row, along which its line runs to the right, and from which it goes down into whatever reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nas_seg.plot.colors import BAR_BOX, INK, SERIES
from nas_seg.plot.markup import Markup, element, text

# Font sizes: a drawing is up to 1100 wide and is to be read where 800 pixels have to do.
LABEL, SMALL = 14.0, 12.5
OP = (70.0, 56.0)
BAR = 34.0  # width of what stands at the end
TO_END = 12.0  # before it, for the head of the last line
_LINE = 16.0  # from one line of words to the next
_WIRES = (INK, *SERIES)
_WIRE_WIDTH = 1.7

Point = tuple[float, float]


def op_box(words: Sequence[str], box: tuple[str, str], dashes: str | None, corner: Point) -> Markup:
    """A box of an op, up to three lines in it.

    Args:
        words: its lines.
        box: colours of the inside and of the outline.
        dashes: of the outline.
        corner: the upper left one.
    """
    (x, y), (fill, line) = corner, box
    frame = element(
        "rect", x=x, y=y, width=OP[0], height=OP[1], rx=5, fill=fill, stroke=line, stroke_width=1.3,
        stroke_dasharray=dashes, class_="op",
    )  # fmt: skip
    first = y + OP[1] / 2 + 5.0 - _LINE / 2 * (len(words) - 1)
    lines = [
        text(x + OP[0] / 2, first + _LINE * i, word, LABEL, font_weight="bold", text_anchor="middle")
        for i, word in enumerate(words)
    ]
    return element("g", frame, *lines)


def source_box(x: float, y: float, size: Point, words: str, class_: str) -> Markup:
    """A box with bold words around the height `y`, for what comes from outside."""
    width, height = size
    box = element(
        "rect", x=x, y=y - height / 2, width=width, height=height, rx=6, fill=BAR_BOX[0], stroke=BAR_BOX[1],
        class_=class_,
    )  # fmt: skip
    return element("g", box, text(x + width / 2, y + 5.0, words, LABEL, font_weight="bold", text_anchor="middle"))


def end_bar(x: float, y: float, height: float, words: str) -> Markup:
    """The upright bar on the right in which rows end."""
    box = element("rect", x=x, y=y, width=BAR, height=height, rx=6, fill=BAR_BOX[0], stroke=BAR_BOX[1], class_="concat")
    middle = (x + BAR / 2 + 5.0, y + height / 2)
    turn = f"rotate(-90 {middle[0]:.2f} {middle[1]:.2f})"
    return element("g", box, text(*middle, words, LABEL, font_weight="bold", text_anchor="middle", transform=turn))


def wire(number: int, start: Point, targets: Sequence[Point], bar_x: float | None) -> list[Markup]:
    """The line of an output along its row, and from it down to what reads it.

    Args:
        number: of the output; it chooses the colour.
        start: where the row begins.
        targets: where readers are entered from above.
        bar_x: where the bar stands in which the row ends; None where it does not.
    """
    (_, y), color = start, _WIRES[number % len(_WIRES)]
    end = bar_x if bar_x is not None else max((x for x, _ in targets), default=None)
    if end is None:
        return []
    parts = [line(start, (end, y), color, _WIRE_WIDTH, class_="row")]
    if bar_x is not None:
        parts.append(_head((end, y), color, sideways=True))
    for x, below in targets:
        parts += [line((x, y), (x, below - 5), color, _WIRE_WIDTH, class_="read"), _head((x, below), color)]
        if x < end:
            parts.append(element("circle", cx=x, cy=y, r=3.2, fill=color))
    return parts


def line(start: Point, end: Point, color: str, width: float, *inner: Any, **more: Any) -> Markup:
    """A straight line; `inner` and `more` are children and attributes."""
    return element(
        "line", *inner, x1=start[0], y1=start[1], x2=end[0], y2=end[1], stroke=color, stroke_width=width, **more
    )


def _head(tip: Point, color: str, sideways: bool = False) -> Markup:
    (x, y), back, half = tip, 7.0, 4.0
    base = [(x - back, y - half), (x - back, y + half)] if sideways else [(x - half, y - back), (x + half, y - back)]
    return element("polygon", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in (tip, *base)), fill=color)
