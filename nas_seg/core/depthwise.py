"""Depthwise convolution whose gradient by the kernel is fast on a processor, too.

TensorFlow's gradient by a depthwise kernel of five columns is five times slower there than by one of three. So that of
a wide kernel is made in strips of at most three columns; the numbers are the same.
"""

from __future__ import annotations

import functools

import keras
from keras import ops

_STRIP = 3


@keras.saving.register_keras_serializable("nas_seg")
class DepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """keras.layers.DepthwiseConv2D; in training on a processor `depthwise_conv` is what it computes.

    It has the same name, for weights in a list of layers are filed under the names of their classes.
    """

    def call(self, inputs, training=None):
        if not training or self.data_format != "channels_last":
            return super().call(inputs)
        outputs = depthwise_conv(inputs, self.kernel, self.strides, self.padding, self.dilation_rate)
        if self.use_bias:
            outputs = ops.add(outputs, self.bias)
        return outputs if self.activation is None else self.activation(outputs)


def depthwise_conv(inputs, kernel, strides=1, padding: str = "valid", dilation_rate=1):
    """keras.ops.depthwise_conv of [B, H, W, C], with another way to the gradient by the kernel [h, w, C, multiplier].

    Only where TensorFlow computes on a processor and the kernel has more than three columns; the sizes of the map must
    be known when it is traced. Elsewhere it is the function of keras.ops.
    """
    wide = kernel.shape[1] > _STRIP and None not in tuple(inputs.shape[1:])
    if not wide or keras.backend.backend() != "tensorflow" or not _on_processor():
        return ops.depthwise_conv(inputs, kernel, strides, padding, dilation_rate=dilation_rate)
    import tensorflow as tf

    kernel, padding = tf.convert_to_tensor(kernel), padding.upper()
    strides, rates = ((n, n) if isinstance(n, int) else tuple(n) for n in (strides, dilation_rate))
    if rates == (1, 1):
        return _undilated(inputs, kernel, strides, padding)

    def between(grid, _, padding):
        return _undilated(grid, kernel, strides, padding)

    # What tf.nn.depthwise_conv2d does for a rate above 1.
    return tf.compat.v1.nn.with_space_to_batch(inputs, rates, padding, between, filter_shape=tf.shape(kernel))


def _undilated(inputs, kernel, strides: tuple[int, int], padding: str):
    import tensorflow as tf

    def compute(x, kernel):
        return tf.nn.depthwise_conv2d(x, kernel, (1, *strides, 1), padding)

    if None in tuple(inputs.shape[1:]):
        return compute(inputs, kernel)

    @tf.custom_gradient
    def convolve(x, kernel):
        return compute(x, kernel), functools.partial(_gradients, x, kernel, strides, padding)

    return convolve(inputs, kernel)


def _gradients(x, kernel, strides: tuple[int, int], padding: str, upstream):
    """By x and by the kernel."""
    import tensorflow as tf

    arguments = {"out_backprop": upstream, "strides": [1, *strides, 1]}
    by_x = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
        input_sizes=tf.shape(x), filter=kernel, padding=padding, **arguments
    )
    height, width = kernel.shape[:2]
    if padding == "SAME":
        x = tf.pad(x, ((0, 0), *map(_same, x.shape[1:3], kernel.shape[:2], strides), (0, 0)))
    strips = []
    # From the first to the last column that the first column of the kernel meets.
    reach = (upstream.shape[2] - 1) * strides[1] + 1
    for first in range(0, width, _STRIP):
        columns = min(_STRIP, width - first)
        strips.append(
            tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
                input=x[:, :, first : first + reach + columns - 1],
                filter_sizes=(height, columns, *kernel.shape[2:]),
                padding="VALID",
                **arguments,
            )
        )
    return by_x, tf.concat(strips, 1)


def _same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Rows of zeros before and after a map of `size` rows, TensorFlow's SAME."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


@functools.cache
def _on_processor() -> bool:
    import tensorflow as tf

    return not (tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("TPU"))
