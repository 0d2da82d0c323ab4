"""What the supernet's cells compute, several edges at a time: wide convolutions, batch normalisation, resizing.

A relaxed cell is some 16,800 small operations a forward pass (105 cells of 20 edges of 8 ops), and time goes to their
dispatch. So ops that read one source run as one convolution whose output channels are those of all edges, edge by
edge ("T edges of c channels"). What the CPU's kernels do badly is put differently. All of it is exact.

TensorFlow only, NHWC, shapes known when traced.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

# As in the retrained network's cells; gamma and beta there are none, for alpha is a scale already.
EPSILON = 1e-5
# float32 numbers in a vector of the processor.
_LANES = 16


def noinline(function):
    """A traced function that stays a function of its own in whatever graph calls it.

    One trace for all layers: without it TensorFlow would copy the body to each call and optimise it there again.
    """
    return tf.function(function, autograph=False, experimental_attributes={"_noinline": True})


def batch_norm(x, scale=None):
    """Normalises [N, H, W, C] with the statistics of the batch, times `scale` [C] (default 1).

    `scale` is float32 also where x is bfloat16. The fused kernel has no float64, which takes the formula.
    """
    if x.dtype != tf.float64:
        return _fused_batch_norm(x, tf.constant(1.0, shape=x.shape[-1:]) if scale is None else scale)
    mean, variance = tf.nn.moments(x, (0, 1, 2), keepdims=True)
    factor = tf.math.rsqrt(variance + EPSILON)
    return (x - mean) * (factor if scale is None else factor * scale)


@tf.custom_gradient
def _fused_batch_norm(x, scale):
    """Differentiated as TensorFlow does, but without zeros for the outputs that nobody reads: faster to trace.

    oneDNN's forward kernel is five times slower at 24 and 40 channels than the formula, its gradient is not.
    """
    channels = x.shape[-1]
    none = tf.constant([], tf.float32)
    if x.dtype == tf.float32 and channels > _LANES and channels % _LANES:
        mean, variance = tf.nn.moments(x, (0, 1, 2))
        outputs = (x - mean) * (tf.math.rsqrt(variance + EPSILON) * scale)
        reserved = (mean, variance, none)
    else:
        offset = tf.constant(0.0, shape=(channels,))
        outputs, _, _, *reserved = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=scale, offset=offset, mean=none, variance=none, epsilon=EPSILON, is_training=True
        )

    def gradient(upstream):
        by_x, by_scale, *_ = tf.raw_ops.FusedBatchNormGradV3(
            y_backprop=upstream,
            x=x,
            scale=scale,
            reserve_space_1=reserved[0],
            reserve_space_2=reserved[1],
            reserve_space_3=reserved[2],
            epsilon=EPSILON,
            is_training=True,
        )
        return by_x, by_scale

    return outputs, gradient


def by_part(function, parts: int, x):
    """Applies a function to each of the `parts` equal parts of a batch, whose statistics are to stay apart."""
    if parts == 1:
        return function(x)
    return tf.concat([function(part) for part in tf.split(x, parts)], 0)


def conv(x, kernel, strides: int = 1, rate: int = 1):
    """A dense or, where the kernel has fewer inputs than x has channels, grouped convolution, SAME."""
    if rate > 1 and not _trains(x.dtype, rate=rate):
        kernel, rate = _with_holes(kernel, rate), 1
    return tf.nn.conv2d(x, kernel, strides, "SAME", dilations=rate)


def _with_holes(kernel, rate: int):
    """The kernel with rate - 1 zeros between its weights: a convolution with it is one at that rate."""
    height, width, inputs, outputs = kernel.shape
    spread = tf.pad(kernel[:, None, :, None], ((0, 0), (0, rate - 1), (0, 0), (0, rate - 1), (0, 0), (0, 0)))
    return tf.reshape(spread, (height * rate, width * rate, inputs, outputs))[: 1 - rate, : 1 - rate]


def matmul_channels(x, matrix):
    """[N, H, W, C] by [C, D]: a 1x1 convolution."""
    flat = tf.reshape(x, (-1, x.shape[-1]))
    return tf.reshape(flat @ matrix, (*x.shape[:-1], matrix.shape[-1]))


def separable_conv(x, depthwise, pointwise):
    """Depthwise then pointwise convolutions of T edges at once.

    Args:
        x: [N, H, W, c], read by all edges, or [N, H, W, T * c], a part for each.
        depthwise: [k, k, T, c].
        pointwise: [c, T, c].

    Returns:
        [N, H, W, T * c].
    """
    if _trains(x.dtype, groups=2):
        return _separable_conv(x, depthwise, pointwise)
    spread = depthwise_conv(_for_each_edge(x, depthwise), _flat_depthwise(depthwise))
    pairs = zip(tf.split(spread, depthwise.shape[2], -1), tf.unstack(pointwise, axis=1), strict=True)
    return tf.concat([matmul_channels(part, own) for part, own in pairs], -1)


@tf.custom_gradient
def _separable_conv(x, depthwise, pointwise):
    """Keeps x alone for the gradient and computes again what lies between the two convolutions."""

    def between():
        wide = _for_each_edge(x, depthwise)
        return wide, depthwise_conv(wide, _flat_depthwise(depthwise))

    kernel = tf.reshape(pointwise, (1, 1, pointwise.shape[0], -1))

    def gradient(upstream):
        wide, middle = between()
        arguments = {"out_backprop": upstream, "strides": [1, 1, 1, 1], "padding": "SAME"}
        by_kernel = tf.raw_ops.Conv2DBackpropFilter(input=middle, filter_sizes=kernel.shape, **arguments)
        by_middle = tf.raw_ops.Conv2DBackpropInput(input_sizes=middle.shape, filter=kernel, **arguments)
        by_wide, by_depthwise = _depthwise_gradients(wide, _flat_depthwise(depthwise), by_middle)
        if x.shape[-1] != wide.shape[-1]:
            by_wide = tf.add_n(tf.split(by_wide, depthwise.shape[2], -1))
        return by_wide, tf.reshape(by_depthwise, depthwise.shape), tf.reshape(by_kernel, pointwise.shape)

    return conv(between()[1], kernel), gradient


def _for_each_edge(x, depthwise):
    """x itself where it has a part for each edge, else as often as there are edges."""
    _, _, edges, channels = depthwise.shape
    return x if x.shape[-1] == edges * channels else tf.tile(x, (1, 1, 1, edges))


def _flat_depthwise(depthwise):
    """[k, k, T * c, 1] of [k, k, T, c]."""
    return tf.reshape(depthwise, (*depthwise.shape[:2], -1, 1))


def depthwise_conv(x, kernel):
    """Of stride 1, SAME; kernel [k, k, C, 1]."""
    return tf.nn.depthwise_conv2d(x, kernel, (1, 1, 1, 1), "SAME")


def _depthwise_gradients(x, kernel, upstream):
    """Gradients of `depthwise_conv` by x and by the kernel.

    oneDNN's gradient by a kernel is five times slower at five columns than at three, so that of a 5x5 kernel is made
    of its first and its last three columns.
    """
    arguments = {"out_backprop": upstream, "strides": [1, 1, 1, 1]}
    by_x = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
        input_sizes=x.shape, filter=kernel, padding="SAME", **arguments
    )
    by_kernel = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter
    if kernel.shape[1] != 5:
        return by_x, by_kernel(input=x, filter_sizes=kernel.shape, padding="SAME", **arguments)
    padded = tf.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
    sizes = (5, 3, *kernel.shape[2:])
    first, last = (
        by_kernel(input=columns, filter_sizes=sizes, padding="VALID", **arguments)
        for columns in (padded[:, :, :-2], padded[:, :, 2:])
    )
    return by_x, tf.concat([first, last[:, 1:]], 1)


@tf.custom_gradient
def max_pool(x):
    """3x3, stride 1, SAME. Pools again for the gradient: oneDNN's, several times faster than TensorFlow's own, wants
    both in one graph."""

    def pool():
        return tf.nn.max_pool2d(x, 3, 1, "SAME")

    def gradient(upstream):
        window = [1, 3, 3, 1]
        return tf.raw_ops.MaxPoolGrad(
            orig_input=x, orig_output=pool(), grad=upstream, ksize=window, strides=[1, 1, 1, 1], padding="SAME"
        )

    return pool(), gradient


def avg_pool(x):
    """3x3, stride 1, SAME; at the border the mean of the pixels that are there."""
    return tf.nn.avg_pool2d(x, 3, 1, "SAME")


@functools.cache
def _trains(dtype, rate: int = 1, groups: int = 1) -> bool:
    """Whether the device has gradients of such a convolution: oneDNN and cuDNN do, TensorFlow's own kernels on a CPU
    (float64, processors without oneDNN) have none of grouped and dilated ones."""
    with tf.init_scope():
        x = tf.ones((1, 3, 3, groups), dtype)
        try:
            tf.raw_ops.Conv2DBackpropFilter(
                input=x, filter_sizes=(3, 3, 1, groups), out_backprop=x, strides=[1, 1, 1, 1], padding="SAME",
                dilations=[1, rate, rate, 1],
            )  # fmt: skip
        except tf.errors.OpError:
            return False
    return True


def resize(x, size: Sequence[int]):
    """Bilinear with aligned corners, as `nas_seg.core.resize`, by two products with hat matrices.

    For maps as small as these that is faster than TensorFlow's kernel, above all backwards, and it knows float64.
    """
    height, width = x.shape[1:3]
    if (height, width) == tuple(size):
        return x
    rows = tf.constant(_hat_matrix(height, size[0]), x.dtype)
    columns = tf.constant(_hat_matrix(width, size[1]), x.dtype)
    batch, channels = x.shape[0], x.shape[-1]
    x = rows @ tf.reshape(x, (batch, height, width * channels))
    return tf.reshape(columns @ tf.reshape(x, (batch * size[0], width, channels)), (batch, *size, channels))


def _hat_matrix(size_in: int, size_out: int) -> np.ndarray:
    """[size_out, size_in] weights of linear interpolation between aligned corners."""
    positions = np.arange(size_out) * ((size_in - 1) / max(size_out - 1, 1))
    return np.maximum(0.0, 1.0 - np.abs(positions[:, None] - np.arange(size_in)))
