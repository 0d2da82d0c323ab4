"""Resize, bilinear or to the nearest, with aligned corners or with half-pixel centres. Only this file resizes.

With aligned corners the corner pixels keep their values (TF1 `align_corners=True`), which DeepLab's networks need.
`keras.ops.image.resize`, `tf.image.resize` and UpSampling2D have half-pixel centres and give other numbers; so have the
template networks, which were made with PyTorch's `align_corners=False`.
"""

from __future__ import annotations

import keras
from keras import ops


def resize_bilinear(inputs, size, align_corners: bool = True):
    """Resizes [B, h, w, C] to [B, H, W, C]; a 1x1 map is tiled.

    Args:
        inputs: a tensor of floats.
        size: (H, W), each an int or a scalar tensor.
        align_corners: else pixel centres lie at half-pixel positions, those beyond the border are the border's, and a
            smaller map is sampled without a filter (no antialiasing).
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # The kernel computes and returns float32 whatever comes in.
        resized = tf.raw_ops.ResizeBilinear(
            images=inputs, size=tf.stack(size), align_corners=align_corners, half_pixel_centers=not align_corners
        )
        return tf.cast(resized, inputs.dtype)
    rows, columns = _hat_matrices(inputs, size, align_corners)
    return ops.einsum("pw,bowc->bopc", columns, ops.einsum("oh,bhwc->bowc", rows, inputs))


def resize_to_channels_first(inputs, size, align_corners: bool = True):
    """Resizes [B, h, w, C] as `resize_bilinear` does, to [B, C, H, W].

    By two products with hat matrices, of which the gradient is two more: on a processor they are faster than
    TensorFlow's kernel and its gradient, and what follows can add up over classes in whole rows.
    """
    rows, columns = _hat_matrices(inputs, size, align_corners)
    height, width = inputs.shape[1:3]
    inputs = ops.transpose(inputs, (0, 3, 1, 2))
    inputs = inputs if height == size[0] else ops.matmul(rows, inputs)
    return inputs if width == size[1] else ops.matmul(inputs, ops.transpose(columns))


def resize_nearest(inputs, size, align_corners: bool = True):
    """Resizes [B, h, w, ...] to [B, H, W, ...] by the nearest pixel; arguments as of `resize_bilinear`, of any type."""
    for axis, wanted in zip((1, 2), size, strict=True):
        there, places = ops.shape(inputs)[axis], ops.cast(ops.arange(wanted), "float32")
        if align_corners:
            step = ops.cast(there - 1, "float32") / ops.cast(ops.maximum(wanted - 1, 1), "float32")
            # Half is rounded up, as TensorFlow's nearest neighbour does with aligned corners.
            places = ops.floor(places * step + 0.5)
        else:
            places = ops.floor((places + 0.5) * (ops.cast(there, "float32") / ops.cast(wanted, "float32")))
        inputs = ops.take(inputs, ops.cast(places, "int32"), axis=axis)
    return inputs


def _hat_matrices(inputs, size, align_corners: bool) -> tuple:
    """[H, h] and [W, w] for a map [B, h, w, C] and its new size."""
    there = [static or dynamic for static, dynamic in zip(inputs.shape[1:3], ops.shape(inputs)[1:3], strict=True)]
    return tuple(_hat_matrix(*sizes, inputs.dtype, align_corners) for sizes in zip(there, size, strict=True))


def _hat_matrix(size_in, size_out, dtype, align_corners: bool):
    """[size_out, size_in] weights of linear interpolation; each size an int or a scalar tensor."""
    positions, sources = ops.arange(size_out, dtype="float32"), ops.arange(size_in, dtype="float32")
    last, count = _float(size_in) - 1.0, _float(size_out)
    if align_corners:
        positions = positions * (last / ops.maximum(count - 1.0, 1.0))
    else:
        positions = ops.clip((positions + 0.5) * (_float(size_in) / count) - 0.5, 0.0, last)
    distance = ops.abs(ops.expand_dims(positions, 1) - sources)
    return ops.cast(ops.maximum(0.0, 1.0 - distance), dtype)


def _float(size):
    return float(size) if isinstance(size, int) else ops.cast(size, "float32")


@keras.saving.register_keras_serializable("nas_seg")
class ResizeLike(keras.layers.Layer):
    """Resizes its first input to the height and width of its second: call as `layer([inputs, reference])`.

    Args:
        align_corners: see `resize_bilinear`.
        nearest: takes the nearest pixel.
    """

    def __init__(self, align_corners: bool = True, nearest: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.align_corners, self.nearest = align_corners, nearest

    def call(self, inputs):
        values, reference = inputs
        # Static sizes where they are known, so that a compiled graph sees constants.
        static, dynamic = reference.shape, ops.shape(reference)
        size = tuple(static[axis] if static[axis] is not None else dynamic[axis] for axis in (1, 2))
        if None not in static[1:3] and tuple(values.shape[1:3]) == size:
            return values
        return (resize_nearest if self.nearest else resize_bilinear)(values, size, self.align_corners)

    def compute_output_spec(self, inputs):
        values, reference = inputs
        return keras.KerasTensor((values.shape[0], *reference.shape[1:3], values.shape[3]), values.dtype)

    def compute_output_shape(self, input_shape):
        values, reference = input_shape
        return (values[0], *reference[1:3], values[3])

    def get_config(self):
        return super().get_config() | {"align_corners": self.align_corners, "nearest": self.nearest}
