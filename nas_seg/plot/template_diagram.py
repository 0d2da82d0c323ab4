"""A template network as a drawing: its templates on top, below them the layers and what each of them reads.

Every map has a row and every layer a column: a layer's output runs to the right along its row, down into the layers
that read it, and on to the classifier where none does. So no two lines share a piece of their way and none runs behind
a box, whatever the genotype; where lines cross, a dot tells a branch.
"""

from __future__ import annotations

import textwrap

from nas_seg.plot.colors import BAR_BOX, CONV_BOX, FAINT_INK, PAPER, POINTWISE_BOX, POOLING_BOX
from nas_seg.plot.markup import Markup, element, fit, svg, text, text_width
from nas_seg.plot.wiring import BAR, LABEL, OP, SMALL, TO_END, Point, end_bar, op_box, source_box, wire
from nas_seg.template.genotype import NUM_ENCODER_MAPS, Layer, Template, TemplateGenotype
from nas_seg.template.plan import ENCODER_MAPS, Map, plan

_MARGIN, _TITLE = 16.0, 28.0  # around everything; height of a title

# A template: an op, the room for the aggregation between two of them, the frame around both.
_BETWEEN, _PAD, _NAME, _TEMPLATE_GAP = 60.0, 8.0, 22.0, 20.0
_TEMPLATE = (2 * OP[0] + _BETWEEN + 2 * _PAD, OP[1] + _PAD + _NAME)
# A layer, the distances between layers, the encoder's maps, the classifier; where on a layer its two inputs enter.
_LAYER = (120.0, 64.0)
_GAP_X, _GAP_Y = 10.0, 20.0
_INPUT = (126.0, 34.0)
_PORTS = (0.3, 0.7)

# (words, box, dashes of its outline) of an op; dashes for the holes of an atrous convolution.
_OPS = {
    "sep_conv_3x3": (("sep", "3x3"), CONV_BOX, None),
    "sep_conv_5x5": (("sep", "5x5"), CONV_BOX, None),
    "sep_conv_5x5_dil6": (("sep 5x5", "rate 6"), CONV_BOX, "5 3"),
    "global_average_pool": (("average", "of all"), POOLING_BOX, None),
    "max_pool_3x3": (("max", "pool", "3x3"), POOLING_BOX, None),
    "skip_connect": (("skip",), POINTWISE_BOX, None),
}


def template_svg(genotype: TemplateGenotype, title: str = "", sep_repeats: int = 2, stride_rule: str = "peer") -> str:
    """Draws a network.

    Args:
        genotype: the network.
        title: a line on top.
        sep_repeats, stride_rule: of the network, for the strides of its maps; see `nas_seg.template.plan.plan`.

    Returns:
        The text of an SVG file.
    """
    maps = [*ENCODER_MAPS, *(layer[-1].output for layer in plan(genotype, sep_repeats, stride_rule))]
    top = _MARGIN + (_TITLE if title else 0.0)
    graph_top = top + _TEMPLATE[1] + 2 * _GAP_Y
    classifier_x = _layer_x(len(genotype.layers)) + TO_END
    templates_width = len(genotype.templates) * (_TEMPLATE[0] + _TEMPLATE_GAP) - _TEMPLATE_GAP
    width = max(classifier_x + BAR, _MARGIN + templates_width) + _MARGIN
    first, last = (_row(graph_top, n) for n in (NUM_ENCODER_MAPS, len(maps) - 1))
    bottom = last + _LAYER[1] / 2
    words = fit(title, width - 2 * _MARGIN, 15, True)
    parts = [text(_MARGIN, _MARGIN + 12, words, 15, font_weight="bold")] if title else []
    used = {layer.template for layer in genotype.layers}
    for i, template in enumerate(genotype.templates):
        corner = (_MARGIN + i * (_TEMPLATE[0] + _TEMPLATE_GAP), top)
        parts += _template_card(f"T{i}" if i in used else f"T{i}, which no layer applies", template, corner)
    for number in range(len(maps)):
        parts += _wire(genotype, number, graph_top, classifier_x if number in genotype.outputs else None)
    parts += [
        source_box(_MARGIN, _row(graph_top, number), _INPUT, f"{number}: {channels} at 1/{stride}", "map")
        for number, (channels, stride) in enumerate(ENCODER_MAPS)
    ]
    for i, layer in enumerate(genotype.layers):
        number = NUM_ENCODER_MAPS + i
        parts.append(_layer_card(number, layer, maps[number], _row(graph_top, number)))
    parts.append(end_bar(classifier_x, first - _LAYER[1] / 2, bottom - first + _LAYER[1] / 2, "logits"))
    height, caption = _caption(width, bottom)
    return str(svg(width, height, f"template network {genotype.summary()}", *parts, *caption))


def _row(top: float, number: int) -> float:
    """The height at which the line of a map leaves: the encoder's two on top, then the layers."""
    if number < NUM_ENCODER_MAPS:
        return top + _INPUT[1] / 2 + number * (_INPUT[1] + 12.0)
    before = _row(top, NUM_ENCODER_MAPS - 1) + _INPUT[1] / 2
    return before + _GAP_Y + _LAYER[1] / 2 + (number - NUM_ENCODER_MAPS) * (_LAYER[1] + _GAP_Y)


def _layer_x(layer: int) -> float:
    return _MARGIN + _INPUT[0] + _GAP_X + layer * (_LAYER[0] + _GAP_X)


def _template_card(name: str, template: Template, corner: Point) -> list[Markup]:
    x, y = corner
    frame = element(
        "rect", x=x, y=y, width=_TEMPLATE[0], height=_TEMPLATE[1], rx=6, fill=PAPER, stroke=BAR_BOX[1],
        class_="template",
    )  # fmt: skip
    label = text(x + _PAD, y + _TEMPLATE[1] - 6, name, SMALL, fill=FAINT_INK)
    right = x + _PAD + OP[0] + _BETWEEN
    joint = text(
        right - _BETWEEN / 2, y + _PAD + OP[1] / 2 + 4.5, template.aggregation, LABEL, font_weight="bold",
        text_anchor="middle", class_="aggregation",
    )  # fmt: skip
    ops = [op_box(*_OPS[op], (left, y + _PAD)) for op, left in ((template.op1, x + _PAD), (template.op2, right))]
    return [element("g", frame, label, joint), *ops]


def _layer_card(number: int, layer: Layer, output: Map, y: float) -> Markup:
    x, top = _layer_x(number - NUM_ENCODER_MAPS), y - _LAYER[1] / 2
    frame = element(
        "rect", x=x, y=top, width=_LAYER[0], height=_LAYER[1], rx=6, fill=BAR_BOX[0], stroke=BAR_BOX[1], class_="map"
    )
    repeats = f" × {layer.repeats}" if layer.repeats > 1 else ""
    middle = {"text_anchor": "middle"}
    words, made = f"T{layer.template}{repeats}", f"{number}: {output.channels} at 1/{output.stride}"
    # Far down, the share of the picture is a long number.
    size = min(SMALL, SMALL * (_LAYER[0] - 6) / text_width(made, SMALL))
    lines = [
        text(x + _LAYER[0] / 2, top + 22, words, LABEL, font_weight="bold", class_="applies", **middle),
        text(x + _LAYER[0] / 2, top + 39, f"stride {layer.stride}", SMALL, **middle) if layer.stride > 1 else None,
        text(x + _LAYER[0] / 2, top + 56, made, size, fill=FAINT_INK, **middle),
    ]  # fmt: skip
    return element("g", frame, *lines)


def _wire(genotype: TemplateGenotype, number: int, top: float, classifier_x: float | None) -> list[Markup]:
    """The line of a map along its row, and from it down to the layers that read it."""
    y, is_layer = _row(top, number), number >= NUM_ENCODER_MAPS
    start = _layer_x(number - NUM_ENCODER_MAPS) + _LAYER[0] if is_layer else _MARGIN + _INPUT[0]
    targets = [
        (_layer_x(i) + port * _LAYER[0], _row(top, NUM_ENCODER_MAPS + i) - _LAYER[1] / 2)
        for i, layer in enumerate(genotype.layers)
        for port, source in zip(_PORTS, (layer.input1, layer.input2), strict=True)
        if source == number
    ]
    return wire(number, (start, y), targets, classifier_x)


def _caption(width: float, bottom: float) -> tuple[float, list[Markup]]:
    """(height of the drawing, lines below it)."""
    words = (
        "The left line into a layer leads to the left op of its template, the right one to the right op. Below the "
        "template: the number of the layer's map, its channels and the share of the image's height that it has. An "
        "application after the first reads what the right op read, and what the application before it put out."
    )
    lines = textwrap.wrap(words, int((width - 2 * _MARGIN) / text_width("x", SMALL)))
    marks = [text(_MARGIN, bottom + 26 + 17 * i, line, SMALL, fill=FAINT_INK) for i, line in enumerate(lines)]
    return bottom + 26 + 17 * len(lines), marks
