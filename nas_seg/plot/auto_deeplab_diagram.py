"""A searched network as drawings: its path through the trellis of levels and layers, and its cell.

In the drawing of the cell every input and every block has a row, and every block a column: what a block puts out
runs to the right along its row, down into the ops that read it, and on to the concatenation. So no two lines
share a piece of their way and none runs behind a box, whatever the cell; where lines cross, a dot tells a branch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nas_seg.auto_deeplab.genotype import FINEST_STRIDE, NUM_LEVELS, AutoDeepLabGenotype
from nas_seg.auto_deeplab.relaxation import beta_probabilities, edge_mask
from nas_seg.plot.colors import (
    BAR_BOX,
    CONCAT_LINE,
    CONV_BOX,
    FAINT_INK,
    INK,
    PAPER,
    POINTWISE_BOX,
    POOLING_BOX,
    SERIES,
)
from nas_seg.plot.markup import Markup, element, fit, svg, text, text_width
from nas_seg.plot.wiring import BAR, LABEL, OP, SMALL, TO_END, Point, end_bar, line, op_box, source_box, wire
from nas_seg.utils.errors import InputError

_MARGIN, _TITLE, _CAPTION = 16.0, 28.0, 26.0  # around everything; heights of a title and of a line below

# The trellis: distances between nodes and where the first stands.
_STEP_X, _STEP_Y, _RADIUS = 62.0, 58.0, 9.0
_LEFT, _TOP = 92.0, 40.0

# The cell: an op, the frame of two of them, the distances between frames, the bars of inputs and concatenation.
_PLUS, _PAD, _NAME = 16.0, 7.0, 22.0
_CARD = (2 * OP[0] + _PLUS + 2 * _PAD, OP[1] + _PAD + _NAME)
_GAP_X, _GAP_Y = 10.0, 22.0
_INPUT = (104.0, 34.0)

# (lines of its name, box, dashes of its outline) by how an op begins; dashes for the holes of an atrous convolution.
_STYLES = {
    "sep_conv": ("sep", CONV_BOX, None),
    "dil_conv": ("atrous", CONV_BOX, "5 3"),
    "max_pool": ("max\npool", POOLING_BOX, None),
    "avg_pool": ("avg\npool", POOLING_BOX, None),
    "skip_connect": ("skip", POINTWISE_BOX, None),
}
_INPUT_NAMES = ("0: H(l-2)", "1: H(l-1)")


class _Panel(NamedTuple):
    width: float
    height: float
    parts: list[Markup]


def network_svg(genotype: AutoDeepLabGenotype, title: str = "", beta: np.ndarray | None = None) -> str:
    """The path and, below it, the cell, as the text of an SVG file; arguments as those of `path_svg`."""
    path, cell = _path_panel(genotype.path, beta), _cell_panel(genotype)
    lower = element("g", *cell.parts, transform=f"translate(0 {path.height:.2f})")
    panel = _Panel(max(path.width, cell.width), path.height + cell.height, [*path.parts, lower])
    return _drawing(panel, f"searched network {genotype.summary()}", title)


def path_svg(genotype: AutoDeepLabGenotype, title: str = "", beta: np.ndarray | None = None) -> str:
    """Draws the path on the trellis: layers to the right, strides downwards, the stem on the left.

    Args:
        genotype: the network.
        title: a line on top.
        beta: logits [layers, 4, 3]: edges are the darker the more probable, and say it when pointed at.

    Returns:
        The text of an SVG file.

    Raises:
        InputError: when beta has another number of layers than the path.
    """
    strides = " ".join(map(str, genotype.strides))
    return _drawing(_path_panel(genotype.path, beta), f"path through strides {strides}", title)


def cell_svg(genotype: AutoDeepLabGenotype, title: str = "") -> str:
    """Draws the cell: the outputs of the two cells before on the left, the concatenation of all blocks on the right."""
    return _drawing(_cell_panel(genotype), f"cell {genotype.summary().split(' @ ')[0]}", title)


def _drawing(panel: _Panel, label: str, title: str) -> str:
    if not title:
        return str(svg(panel.width, panel.height, label, *panel.parts))
    words = fit(title, panel.width - 2 * _MARGIN, 15, True)
    head = text(_MARGIN, _MARGIN + 12, words, 15, font_weight="bold")
    body = element("g", *panel.parts, transform=f"translate(0 {_TITLE:.2f})")
    return str(svg(panel.width, panel.height + _TITLE, label, head, body))


def _path_panel(path: tuple[int, ...], beta: np.ndarray | None) -> _Panel:
    num_layers = len(path)
    if beta is not None and len(beta) != num_layers:
        raise InputError(f"beta: expected {num_layers} layers as the path has, received {len(beta)}")
    weights = None if beta is None else beta_probabilities(np.asarray(beta, np.float64))
    edges, nodes = [], [_node(-1, 0, True)]
    for layer, level, direction in np.argwhere(edge_mask(num_layers)).tolist():
        weight = None if weights is None else float(weights[layer, level, direction])
        edges.append(_edge(layer, level, level + direction - 1, weight))
    steps = zip(range(num_layers), (0, *path), path, strict=False)
    edges += [line(_spot(layer - 1, a), _spot(layer, b), SERIES[0], 4.0, class_="path") for layer, a, b in steps]
    for layer in range(num_layers):
        nodes += [_node(layer, level, level == path[layer]) for level in range(min(layer + 2, NUM_LEVELS))]
    return _Panel(
        max(_spot(num_layers - 1, 0)[0] + _RADIUS + 2 * _MARGIN, 420.0),
        _spot(0, NUM_LEVELS - 1)[1] + _RADIUS + _CAPTION + _MARGIN,
        [*edges, *nodes, *_path_labels(num_layers, beta is not None)],
    )


def _path_labels(num_layers: int, has_beta: bool) -> list[Markup]:
    middle = {"text_anchor": "middle", "fill": FAINT_INK}
    names = ["stem", *(str(number) for number in range(1, num_layers + 1))]
    labels = [text(_spot(i - 1, 0)[0], _TOP - 18, name, LABEL, **middle) for i, name in enumerate(names)]
    for level in range(NUM_LEVELS):
        x, y = _MARGIN, _spot(0, level)[1] + 4
        labels.append(text(x, y, f"stride {FINEST_STRIDE * 2**level}", LABEL, fill=FAINT_INK))
    words = "Layers from left to right; grey: " + (
        "the stronger, the more probable." if has_beta else "possible steps."
    )
    return [*labels, text(_MARGIN, _spot(0, NUM_LEVELS - 1)[1] + _RADIUS + _CAPTION, words, SMALL, fill=FAINT_INK)]


def _spot(layer: int, level: int) -> tuple[float, float]:
    """Where the node of a layer (-1: the stem) stands."""
    return _LEFT + (layer + 1) * _STEP_X, _TOP + level * _STEP_Y


def _edge(layer: int, source: int, target: int, weight: float | None) -> Markup:
    ends = _spot(layer - 1, source), _spot(layer, target)
    if weight is None:
        return line(*ends, CONCAT_LINE, 1.2, stroke_opacity=0.55, class_="edge")
    words = f"layer {layer + 1}, stride {FINEST_STRIDE * 2**source} to {FINEST_STRIDE * 2**target}: {weight:.3f}"
    # Down to a trace that can still be seen, for the edge exists.
    return line(*ends, INK, 2.2, element("title", words), stroke_opacity=0.06 + 0.94 * weight, class_="edge")


def _node(layer: int, level: int, on_path: bool) -> Markup:
    x, y = _spot(layer, level)
    line, fill = (SERIES[0], SERIES[0]) if on_path else (CONCAT_LINE, PAPER)
    if layer < 0:  # the stem, no layer of the path
        side = 2 * _RADIUS
        return element("rect", x=x - _RADIUS, y=y - _RADIUS, width=side, height=side, rx=3, fill=fill, stroke=line)
    return element("circle", cx=x, cy=y, r=_RADIUS, fill=fill, stroke=line, class_="on" if on_path else "off")


def _cell_panel(genotype: AutoDeepLabGenotype) -> _Panel:
    num_sources = 2 + genotype.num_blocks
    rows = [_row(source) for source in range(num_sources)]
    concat_x = _card_x(genotype.num_blocks) + TO_END
    readers: dict[int, list[tuple[float, float]]] = {source: [] for source in range(num_sources)}
    boxes = [source_box(_MARGIN, rows[source], _INPUT, _INPUT_NAMES[source], "input") for source in range(2)]
    for b, block in enumerate(genotype.cell):
        for i, (source, op) in enumerate(block):
            corner = (_card_x(b) + _PAD + i * (OP[0] + _PLUS), rows[2 + b] - _CARD[1] / 2 + _PAD)
            readers[source].append((corner[0] + OP[0] / 2, corner[1]))
            boxes.append(_op_box(op, corner))
    cards = [_card(b, rows[2 + b]) for b in range(genotype.num_blocks)]
    wires = []
    for source, targets in readers.items():
        start = _MARGIN + _INPUT[0] if source < 2 else _card_x(source - 2) + _CARD[0]
        wires += wire(source, (start, rows[source]), targets, concat_x if source >= 2 else None)
    top, bottom = _row(2) - _CARD[1] / 2, rows[-1] + _CARD[1] / 2
    concat = end_bar(concat_x, top, bottom - top, "concat")
    words = "Lines lead to the ops that read; a block adds its two ops up. Dashes: atrous convolution, rate 2."
    caption = text(_MARGIN, bottom + _CAPTION, words, SMALL, fill=FAINT_INK)
    width = max(concat_x + BAR, _MARGIN + text_width(words, SMALL)) + _MARGIN
    return _Panel(width, bottom + _CAPTION + _MARGIN, [*cards, *wires, *boxes, concat, caption])


def _row(source: int) -> float:
    """The height at which the line of a source leaves: the inputs on top, then the blocks."""
    if source < 2:
        return _MARGIN + _INPUT[1] / 2 + source * (_INPUT[1] + 12.0)
    return _row(1) + _INPUT[1] / 2 + _GAP_Y + _CARD[1] / 2 + (source - 2) * (_CARD[1] + _GAP_Y)


def _card_x(block: int) -> float:
    return _MARGIN + _INPUT[0] + _GAP_X + block * (_CARD[0] + _GAP_X)


def _card(block: int, y: float) -> Markup:
    x, top = _card_x(block), y - _CARD[1] / 2
    frame = element(
        "rect", x=x, y=top, width=_CARD[0], height=_CARD[1], rx=6, fill=PAPER, stroke=BAR_BOX[1], class_="block"
    )
    name = text(x + _PAD, top + _CARD[1] - 6, f"{2 + block}: block {block}", SMALL, fill=FAINT_INK)
    plus = text(x + _CARD[0] / 2, top + _PAD + OP[1] / 2 + 5, "+", 15, font_weight="bold", text_anchor="middle")
    return element("g", frame, name, plus)


def _op_box(op: str, corner: Point) -> Markup:
    prefix = next(prefix for prefix in _STYLES if op.startswith(prefix))
    name, box, dashes = _STYLES[prefix]
    words = [*name.splitlines(), *(word for word in op.removeprefix(prefix).split("_") if word)]
    return op_box(words, box, dashes, corner)
