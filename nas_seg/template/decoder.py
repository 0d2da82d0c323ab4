"""A genotype's decoder as a graph of layers: two maps of the encoder to logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from nas_seg.core.conv import BatchNorm
from nas_seg.core.encoder_decoder import LOGITS
from nas_seg.core.resize import ResizeLike
from nas_seg.template.genotype import TemplateGenotype
from nas_seg.template.ops import NORM, ChannelWeightedSum, conv_norm, make_op
from nas_seg.template.plan import Application, Map, output_maps, plan


def decode(
    genotype: TemplateGenotype,
    maps: Sequence[Any],
    num_classes: int,
    agg_size: int = 64,
    sep_repeats: int = 2,
    stride_rule: str = "peer",
):
    """The encoder's maps -> logits at the stride of the finest map that no layer reads.

    Layers are named after where they stand: "layer3_application0_op1" and "..._op2" are the ops, and what makes one map
    of their outputs begins with "layer3_application0_" too; "joined", "before_logits" and "logits" come last.

    Args:
        genotype: the decoder.
        maps: KerasTensors [B, ceil(H / 4), ceil(W / 4), 24] and [B, ceil(H / 8), ceil(W / 8), 32].
        num_classes: channels of the logits.
        agg_size: channels before them.
        sep_repeats, stride_rule: see `nas_seg.template.plan.plan`.

    Returns:
        float32 [B, h, w, num_classes].
    """
    layers, pool = plan(genotype, sep_repeats, stride_rule), list(maps)
    for i, (layer, applications) in enumerate(zip(genotype.layers, layers, strict=True)):
        first, second = pool[layer.input1], pool[layer.input2]
        for t, application in enumerate(applications):
            first, second = second, _apply(application, (first, second), f"layer{i}_application{t}")
        pool.append(second)
    joined = _join([pool[number] for number in genotype.outputs], output_maps(genotype, layers))
    x = keras.layers.ReLU(name="joined_relu")(joined)
    x = conv_norm(agg_size, name="before_logits")(x)
    # float32 also under mixed precision.
    return keras.layers.Conv2D(
        num_classes, 3, padding="same", kernel_initializer="he_normal", dtype="float32", name=LOGITS
    )(x)


def _apply(application: Application, inputs: tuple, name: str):
    """One application of a template: two ops, then both outputs with the channels and the size that one map has."""
    channels, stride = application.output
    outputs, strides = [], [op.output.stride for op in application.ops]
    for k, (op, x) in enumerate(zip(application.ops, inputs, strict=True), 1):
        x = make_op(op, name=f"{name}_op{k}")(x)
        if op.output.channels != channels:
            x = conv_norm(channels, name=f"{name}_adapt{k}")(x)
        outputs.append(x)
    for k in range(2):
        if strides[k] != stride:
            outputs[k] = _resize(outputs[k], outputs[1 - k], f"{name}_resize{k + 1}")
    if application.aggregation == "psum":
        return ChannelWeightedSum(name=f"{name}_psum")(outputs)
    x = keras.layers.Concatenate(name=f"{name}_cat")(outputs)
    x = BatchNorm(**NORM, name=f"{name}_norm")(x)
    x = keras.layers.ReLU(name=f"{name}_relu")(x)
    return keras.layers.Conv2D(channels, 1, use_bias=False, kernel_initializer="he_normal", name=f"{name}_projection")(
        x
    )


def _join(tensors: Sequence[Any], maps: Sequence[Map]):
    """The concatenation of maps one after the other, the coarser resized to the finer at each step.

    A coarse map before finer ones is resized once for each time that the stride falls, as in the authors' code.
    """
    parts, stride = [tensors[0]], maps[0].stride
    for i, (tensor, own) in enumerate(zip(tensors[1:], maps[1:], strict=True), 1):
        if own.stride < stride:
            parts = [_resize(part, tensor, f"joined{k}_resize{i}") for k, part in enumerate(parts)]
            stride = own.stride
        elif own.stride > stride:
            tensor = _resize(tensor, parts[0], f"joined{i}_resize{i}")
        parts.append(tensor)
    return keras.layers.Concatenate(name="joined")(parts) if len(parts) > 1 else parts[0]


def _resize(values, reference, name: str):
    return ResizeLike(align_corners=False, name=name)([values, reference])
