"""Bilinear resize with aligned corners: corner pixels keep their values (TF1 `align_corners=True`).

`keras.ops.image.resize`, `tf.image.resize` and UpSampling2D all use half-pixel centres and give other
numbers; DeepLab's networks need this one. Only this file resizes.
"""

from __future__ import annotations

import keras
from keras import ops


def resize_bilinear(inputs, size):
    """Resizes [B, h, w, C] to [B, H, W, C]; a 1x1 map is tiled.

    Args:
        inputs: a tensor of floats.
        size: (H, W), each an int or a scalar tensor.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # The kernel computes and returns float32 whatever comes in.
        resized = tf.raw_ops.ResizeBilinear(images=inputs, size=tf.stack(size), align_corners=True)
        return tf.cast(resized, inputs.dtype)
    rows = _hat_matrix(ops.shape(inputs)[1], size[0], inputs.dtype)
    columns = _hat_matrix(ops.shape(inputs)[2], size[1], inputs.dtype)
    return ops.einsum("pw,bowc->bopc", columns, ops.einsum("oh,bhwc->bowc", rows, inputs))


def _hat_matrix(size_in, size_out, dtype):
    """[size_out, size_in] weights of linear interpolation between aligned corners."""
    step = (size_in - 1) / max(size_out - 1, 1)
    positions = ops.arange(size_out, dtype="float32") * step
    distance = ops.abs(ops.expand_dims(positions, 1) - ops.arange(size_in, dtype="float32"))
    return ops.cast(ops.maximum(0.0, 1.0 - distance), dtype)


@keras.saving.register_keras_serializable("nas_seg")
class ResizeLike(keras.layers.Layer):
    """Resizes its first input to the height and width of its second: call as `layer([inputs, reference])`."""

    def call(self, inputs):
        values, reference = inputs
        # Static sizes where they are known, so that a compiled graph sees constants.
        static, dynamic = reference.shape, ops.shape(reference)
        size = tuple(static[axis] if static[axis] is not None else dynamic[axis] for axis in (1, 2))
        if tuple(values.shape[1:3]) == size:
            return values
        return resize_bilinear(values, size)

    def compute_output_spec(self, inputs):
        values, reference = inputs
        return keras.KerasTensor((values.shape[0], *reference.shape[1:3], values.shape[3]), values.dtype)

    def compute_output_shape(self, input_shape):
        values, reference = input_shape
        return (values[0], *reference[1:3], values[3])
