"""What becomes of a genotype when it is built: channels and strides of every map, and the network's cost.

The decoder is built from this plan, and what it costs is counted on it before anything is built. Source: the authors'
code, for how strides and channels go on from one application of a template to the next; of it the paper says little.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from nas_seg.template.genotype import NUM_ENCODER_MAPS, TemplateGenotype
from nas_seg.utils.errors import InputError, unknown

STRIDE_RULES = ("peer", "once")

# (kernel, rate) of the separable convolutions.
SEPARABLE = {"sep_conv_3x3": (3, 1), "sep_conv_5x5": (5, 1), "sep_conv_5x5_dil6": (5, 6)}
# These leave the map's size as it is, whatever their stride.
_STRIDELESS = ("global_average_pool", "skip_connect")

# The encoder: filters and stride of the stem, then (filters, stride, expansion, repeats) of its inverted residuals, the
# first rows of MobileNet-v2's Table 2. After which of them a map goes to the pool.
ENCODER_STEM = (32, 2)
ENCODER_BLOCKS = ((16, 1, 1, 1), (24, 2, 6, 2), (32, 2, 6, 3))


class Map(NamedTuple):
    """A map of the network: its channels, and input pixels a position, a power of 2."""

    channels: int
    stride: int

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the map for an image of this size: rounded up, as every stride rounds."""
        return -(-height // self.stride), -(-width // self.stride)


ENCODER_MAPS = (Map(24, 4), Map(32, 8))


class Op(NamedTuple):
    """An op where it stands.

    Attributes:
        name: of `nas_seg.template.genotype.OPS`.
        source: what it reads.
        strides: of each repeat of a separable convolution, one a repeat; one number for all other ops.
        output: what it puts out.
    """

    name: str
    source: Map
    strides: tuple[int, ...]
    output: Map


class Application(NamedTuple):
    """One application of a template: two ops and what makes one map of their outputs.

    Attributes:
        ops: on the first and the second input.
        aggregation: "psum" or "cat".
        output: of the aggregation.
    """

    ops: tuple[Op, Op]
    aggregation: str
    output: Map


class Count(NamedTuple):
    """What a network costs: trainable parameters, and multiply-adds for one image."""

    params: int
    madds: int


def plan(genotype: TemplateGenotype, sep_repeats: int = 2, stride_rule: str = "peer") -> list[list[Application]]:
    """The applications of every layer, in order.

    Application 0 of a layer reads the layer's inputs; application t > 0 reads what the second op of application t - 1
    read, and the output of application t - 1. At application 0 each op multiplies its input's channels by the stride;
    later ones keep them. Layers of the first half (index < layers // 2) bring the outputs of their two ops to the
    size of the smaller, the others to that of the larger.

    Args:
        genotype: the network.
        sep_repeats: how often a separable convolution is applied in a row.
        stride_rule: "peer": every application, and in it every repeat of a separable convolution, has the layer's
            stride, as in the authors' code; "once": the first repeat of the first application alone.

    Raises:
        InputError: on an unknown rule or a number of repeats below 1.
    """
    check(sep_repeats, stride_rule)
    pool, layers = list(ENCODER_MAPS), []
    for i, layer in enumerate(genotype.layers):
        template = genotype.templates[layer.template]
        first, second, applications = pool[layer.input1], pool[layer.input2], []
        for t in range(layer.repeats):
            factor = layer.stride if t == 0 else 1
            once = (factor, *(1,) * (sep_repeats - 1))
            strides = (layer.stride,) * sep_repeats if stride_rule == "peer" else once
            ops = tuple(
                _op(name, source, strides, source.channels * factor)
                for name, source in ((template.op1, first), (template.op2, second))
            )
            scale = max if i < len(genotype.layers) // 2 else min
            output = Map(max(op.output.channels for op in ops), scale(op.output.stride for op in ops))
            applications.append(Application(ops, template.aggregation, output))
            first, second = second, output
        layers.append(applications)
        pool.append(second)
    return layers


def _op(name: str, source: Map, strides: tuple[int, ...], channels: int) -> Op:
    if name not in SEPARABLE:
        strides = (1,) if name in _STRIDELESS else strides[:1]
    return Op(name, source, strides, Map(channels, source.stride * math.prod(strides)))


def output_maps(genotype: TemplateGenotype, layers: list[list[Application]]) -> list[Map]:
    """The maps that the classifier takes, in order."""
    return [layers[number - NUM_ENCODER_MAPS][-1].output for number in genotype.outputs]


def check(sep_repeats: int, stride_rule: str, agg_size: int = 1) -> None:
    """InputError, naming it, for an option that no network can be built with."""
    for name, value in (("sep_repeats", sep_repeats), ("agg_size", agg_size)):
        if value < 1:
            raise InputError(f"{name}: expected at least 1, received {value}")
    if stride_rule not in STRIDE_RULES:
        raise InputError(f"stride_rule: {unknown('rule', stride_rule, STRIDE_RULES)}")


def check_size(height: int, width: int) -> None:
    """InputError for an image without pixels; from one row or column on no map becomes empty, sizes are rounded up."""
    if height < 1 or width < 1:
        raise InputError(f"image: expected a height and a width of at least 1, received {height}x{width}")


def count(
    genotype: TemplateGenotype,
    num_classes: int,
    agg_size: int = 64,
    sep_repeats: int = 2,
    height: int = 360,
    width: int = 480,
    stride_rule: str = "peer",
) -> Count:
    """Counts a network, the encoder included, before it is built.

    Multiply-adds are those of convolutions; normalisation, pooling, resizes and weighted sums are left out, as in the
    numbers of its authors.

    Args:
        genotype: the network.
        num_classes: of the logits.
        agg_size: channels before the last convolution.
        sep_repeats, stride_rule: see `plan`.
        height, width: of the image.

    Raises:
        InputError: on an image without pixels or an option that no network can be built with.
    """
    check(sep_repeats, stride_rule, agg_size)
    check_size(height, width)
    if num_classes < 1:
        raise InputError(f"num_classes: expected at least 1, received {num_classes}")
    layers = plan(genotype, sep_repeats, stride_rule)
    params = madds = 0
    for weights, others, at in _parts(genotype, layers, num_classes, agg_size):
        params += weights + others
        madds += weights * (math.prod(at.size(height, width)) if at else 1)
    return Count(params, madds)


# Weights of a convolution, further trainable numbers beside it, and the map that it runs on; None: a single position.
_Part = tuple[int, int, Map | None]


def _parts(genotype, layers, num_classes: int, agg_size: int) -> Iterator[_Part]:
    yield from _encoder_parts()
    for applications in layers:
        for application in applications:
            for op in application.ops:
                yield from _op_parts(op)
            yield from _aggregation_parts(application)
    maps = output_maps(genotype, layers)
    finest = Map(agg_size, min(m.stride for m in maps))
    yield _conv(sum(m.channels for m in maps), agg_size, finest)
    yield 9 * agg_size * num_classes, num_classes, finest


def _encoder_parts() -> Iterator[_Part]:
    channels, stride = ENCODER_STEM
    yield 9 * 3 * channels, 2 * channels, Map(channels, stride)
    for filters, first_stride, expansion, repeats in ENCODER_BLOCKS:
        for repeat in range(repeats):
            wide = channels * expansion
            yield _conv(channels, wide, Map(wide, stride))
            stride *= 1 if repeat else first_stride
            yield 9 * wide, 2 * wide, Map(wide, stride)
            yield _conv(wide, filters, Map(filters, stride))
            channels = filters


def _op_parts(op: Op) -> Iterator[_Part]:
    channels = op.output.channels
    if op.name == "global_average_pool":
        yield _conv(op.source.channels, channels, None)
    elif op.name == "max_pool_3x3":
        # The convolution comes before the pooling.
        yield _conv(op.source.channels, channels, op.source)
    elif op.name in SEPARABLE:
        kernel, wide, stride = SEPARABLE[op.name][0], op.source.channels, op.source.stride
        for step in op.strides:
            stride *= step
            yield kernel * kernel * wide, 0, Map(wide, stride)
            yield _conv(wide, channels, Map(channels, stride))
            wide = channels


def _aggregation_parts(application: Application) -> Iterator[_Part]:
    channels = application.output.channels
    for op in application.ops:
        if op.output.channels != channels:
            yield _conv(op.output.channels, channels, op.output)
    if application.aggregation == "psum":
        yield 0, 2 * channels, None
    else:
        # The normalisation stands before the convolution.
        yield 2 * channels * channels, 4 * channels, application.output


def _conv(channels: int, filters: int, at: Map | None) -> _Part:
    """A 1x1 convolution with batch normalisation."""
    return channels * filters, 2 * filters, at
