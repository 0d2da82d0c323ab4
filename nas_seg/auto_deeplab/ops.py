"""The operators of a found cell, from a name to a layer.

Source: section 3.1 of the paper for which there are; DeepLab's code (core/nas_cell.py) for what each consists of.
All take [B, H, W, F] and give [B, ceil(H / strides), ceil(W / strides), F]: a cell brings its inputs to F channels.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import ops

from nas_seg.core.conv import ConvNorm
from nas_seg.core.depthwise import DepthwiseConv2D
from nas_seg.core.resize import resize_bilinear

NORM = {"momentum": 0.9997, "epsilon": 1e-3}


def kernel_initializer() -> keras.initializers.Initializer:
    """Uniform within 1 / sqrt(fan_in), also for depthwise kernels, whose fan_in counts all channels here."""
    return keras.initializers.VarianceScaling(1.0 / 3.0, mode="fan_in", distribution="uniform")


def conv_norm(filters: int, kernel_size: int = 1, strides: int = 1, rate: int = 1, **kwargs) -> ConvNorm:
    """Convolution and batch normalisation without an activation, padded on both sides where it strides."""
    return ConvNorm(
        filters,
        kernel_size,
        strides,
        rate,
        activation=None,
        initializer=kernel_initializer(),
        explicit_padding=True,
        **NORM,
        **kwargs,
    )


@keras.saving.register_keras_serializable("nas_seg")
class DecayedDepthwiseConv(DepthwiseConv2D):
    """A depthwise convolution whose kernel weight decay applies to, as to that of a full one.

    DeepLab builds the searched networks' separable convolutions as one, with one regulariser for both halves, and
    leaves the depthwise kernels of all other networks alone.
    """

    regularize = True


@keras.saving.register_keras_serializable("nas_seg")
class SeparableConv(keras.layers.Layer):
    """Twice: ReLU, depthwise k x k, pointwise 1 x 1, batch normalisation; nothing between the two halves.

    Args:
        filters: channels.
        kernel_size: of the depthwise convolution, an int.
        strides: of the first depthwise convolution.
    """

    def __init__(self, filters: int, kernel_size: int = 3, strides: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.depthwise = [self._depthwise(strides, 1), self._depthwise(1, 2)]
        self.pointwise = [conv_norm(filters, dtype=self.dtype_policy, name=f"pointwise_{i}") for i in (1, 2)]

    def _depthwise(self, strides: int, index: int) -> DecayedDepthwiseConv:
        return DecayedDepthwiseConv(
            self.kernel_size,
            strides,
            padding="same" if strides == 1 else "valid",
            use_bias=False,
            depthwise_initializer=kernel_initializer(),
            dtype=self.dtype_policy,
            name=f"depthwise_{index}",
        )

    def build(self, input_shape):
        for depthwise, pointwise in zip(self.depthwise, self.pointwise, strict=True):
            depthwise.build((*input_shape[:1], None, None, input_shape[3]))
            pointwise.build((*input_shape[:1], None, None, input_shape[3]))
            input_shape = (*input_shape[:3], self.filters)
        self.built = True

    def call(self, inputs, training=None):
        for depthwise, pointwise in zip(self.depthwise, self.pointwise, strict=True):
            inputs = ops.relu(inputs)
            if depthwise.strides[0] > 1:
                # On both sides, which on even sizes SAME would not do.
                before, after = (self.kernel_size - 1) // 2, self.kernel_size // 2
                inputs = ops.pad(inputs, ((0, 0), (before, after), (before, after), (0, 0)))
            inputs = pointwise(depthwise(inputs), training=training)
        return inputs

    def compute_output_shape(self, input_shape):
        return _output_shape(input_shape, self.strides, self.filters)

    def get_config(self):
        own = {"filters": self.filters, "kernel_size": self.kernel_size, "strides": self.strides}
        return super().get_config() | own


@keras.saving.register_keras_serializable("nas_seg")
class AtrousConv(keras.layers.Layer):
    """ReLU, dense k x k convolution at rate 2, batch normalisation.

    With strides the map is halved by bilinear interpolation first and the rate is 1: the same field of view.

    Args:
        filters: channels.
        kernel_size: an int.
        strides: 1 or 2.
    """

    def __init__(self, filters: int, kernel_size: int = 3, strides: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        rate = 2 if strides == 1 else 1
        self.conv = conv_norm(filters, kernel_size, rate=rate, dtype=self.dtype_policy, name="conv")

    def build(self, input_shape):
        self.conv.build((*input_shape[:1], None, None, input_shape[3]))
        self.built = True

    def call(self, inputs, training=None):
        inputs = ops.relu(inputs)
        if self.strides > 1:
            inputs = resize_bilinear(inputs, tuple(-(-n // self.strides) for n in ops.shape(inputs)[1:3]))
        return self.conv(inputs, training=training)

    def compute_output_shape(self, input_shape):
        return _output_shape(input_shape, self.strides, self.filters)

    def get_config(self):
        own = {"filters": self.filters, "kernel_size": self.kernel_size, "strides": self.strides}
        return super().get_config() | own


@keras.saving.register_keras_serializable("nas_seg")
class SkipConnect(keras.layers.Layer):
    """The input itself; with strides ReLU, 1 x 1 convolution, batch normalisation.

    Args:
        filters: channels.
        strides: 1 or 2.
    """

    def __init__(self, filters: int, strides: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.strides = strides
        self.conv = conv_norm(filters, strides=strides, dtype=self.dtype_policy, name="conv") if strides > 1 else None

    def build(self, input_shape):
        if self.conv:
            self.conv.build((*input_shape[:1], None, None, input_shape[3]))
        self.built = True

    def call(self, inputs, training=None):
        return self.conv(ops.relu(inputs), training=training) if self.conv else inputs

    def compute_output_shape(self, input_shape):
        return _output_shape(input_shape, self.strides, self.filters)

    def get_config(self):
        return super().get_config() | {"filters": self.filters, "strides": self.strides}


def _output_shape(input_shape, strides: int, filters: int) -> tuple:
    return (input_shape[0], *(None if n is None else -(-n // strides) for n in input_shape[1:3]), filters)


def _pool(layer: type[keras.layers.Layer]) -> Callable[..., keras.layers.Layer]:
    return lambda filters, strides, **kwargs: layer(3, strides, padding="same", **kwargs)


def _conv(layer: type[keras.layers.Layer], kernel_size: int) -> Callable[..., keras.layers.Layer]:
    return lambda filters, strides, **kwargs: layer(filters, kernel_size, strides, **kwargs)


# Name -> (filters, strides, **arguments of a layer) -> layer.
_OPS: dict[str, Callable[..., keras.layers.Layer]] = {
    "max_pool_3x3": _pool(keras.layers.MaxPooling2D),
    "avg_pool_3x3": _pool(keras.layers.AveragePooling2D),
    "skip_connect": SkipConnect,
    "sep_conv_3x3": _conv(SeparableConv, 3),
    "sep_conv_5x5": _conv(SeparableConv, 5),
    "sep_conv_7x7": _conv(SeparableConv, 7),
    "dil_conv_3x3": _conv(AtrousConv, 3),
    "dil_conv_5x5": _conv(AtrousConv, 5),
}


def make_op(op: str, filters: int, strides: int = 1, **kwargs) -> keras.layers.Layer:
    """The layer of one of the genotype's FIXED_OPS; `kwargs` are those of every layer."""
    return _OPS[op](filters, strides, **kwargs)


def tf1_names(op: keras.layers.Layer, scope: str) -> dict:
    """DeepLab's TF1 variable name -> variable of an operator; `scope` is that of its side of the block."""
    if isinstance(op, SeparableConv):
        names, size = {}, f"{op.kernel_size}x{op.kernel_size}"
        for i, (depthwise, pointwise) in enumerate(zip(op.depthwise, op.pointwise, strict=True), start=1):
            names[f"{scope}/separable_{size}_{i}/depthwise_weights"] = depthwise.kernel
            kernel = f"{scope}/separable_{size}_{i}/pointwise_weights"
            names |= conv_norm_tf1_names(pointwise, kernel, f"{scope}/bn_sep_{size}_{i}")
        return names
    if isinstance(op, AtrousConv):
        size = f"{op.kernel_size}x{op.kernel_size}"
        return conv_norm_tf1_names(op.conv, f"{scope}/atrous_{size}/weights", f"{scope}/bn_atr_{size}")
    if isinstance(op, SkipConnect) and op.conv:
        return conv_norm_tf1_names(op.conv, f"{scope}/1x1/weights", f"{scope}/bn_1")
    return {}


def conv_norm_tf1_names(layer: ConvNorm, kernel: str, norm: str) -> dict:
    """The names of a convolution whose batch normalisation has a scope of its own beside it."""
    variables = ("gamma", "beta", "moving_mean", "moving_variance")
    return {kernel: layer.conv.kernel} | {f"{norm}/{name}": getattr(layer.norm, name) for name in variables}
