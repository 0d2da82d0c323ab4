"""Multiply-adds of a network, counted on its traced graph."""

from __future__ import annotations

import math
from typing import Any

_KERNEL_SIZE = {
    # Weights that one output value is a sum over, from the kernel's shape [h, w, in, out or multiplier].
    "Conv2D": lambda kernel: math.prod(kernel[:3]),
    "DepthwiseConv2dNative": lambda kernel: math.prod(kernel[:2]),
}


def count_madds(model: Any, height: int, width: int, atrous_padding: bool = False) -> int:
    """Multiply-adds of all convolutions for one image, as the DeepLab papers count them.

    Products with padding count like all others; resizes, poolings and normalisation do not count.

    Args:
        model: a keras.Model of images [B, H, W, C], on the TensorFlow backend.
        height, width: of the image.
        atrous_padding: count also what TensorFlow adds to an atrous convolution when it cuts the map into phases, as
            the numbers of DeepLab's model zoo do; less than a thousandth at their sizes, much on small maps.
    """
    import tensorflow as tf

    spec = tf.TensorSpec((1, height, width, model.input_shape[-1]), tf.float32)
    graph = tf.function(lambda images: model(images, training=False)).get_concrete_function(spec).graph
    total = 0
    for operation in graph.get_operations():
        if operation.type in _KERNEL_SIZE:
            kernel = _KERNEL_SIZE[operation.type](operation.inputs[1].shape.as_list())
            total += _num_outputs(operation.outputs[0], atrous_padding) * kernel
    return total


def _num_outputs(tensor: Any, atrous_padding: bool) -> int:
    """Values that a convolution puts out; a dilated one may run on a batch of padded phases, put together later."""
    merged = [] if atrous_padding else [op.outputs[0] for op in tensor.consumers() if op.type == "BatchToSpaceND"]
    return (merged or [tensor])[0].shape.num_elements()
