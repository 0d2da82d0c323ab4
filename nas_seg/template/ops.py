"""The operations of template networks as layers, padded on both sides alike where they stride.

All take [B, H, W, C]. Source: the authors' code, of which the paper gives the names alone; see README.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from nas_seg.core.conv import ConvNorm
from nas_seg.core.depthwise import DepthwiseConv2D
from nas_seg.template.plan import SEPARABLE, Op

# PyTorch's defaults, which the authors left as they are.
NORM = {"momentum": 0.9, "epsilon": 1e-5}


def conv_norm(filters: int, activation: str | None = "relu", **kwargs) -> ConvNorm:
    """1x1 convolution, batch normalisation, ReLU."""
    return ConvNorm(filters, 1, activation=activation, initializer="he_normal", **NORM, **kwargs)


def make_op(op: Op, **kwargs) -> keras.layers.Layer:
    """The layer of an op of a plan."""
    if op.name in SEPARABLE:
        kernel_size, rate = SEPARABLE[op.name]
        return RepeatedSeparableConv(op.output.channels, kernel_size, op.strides, rate, **kwargs)
    if op.name == "max_pool_3x3":
        return ProjectedMaxPool(op.output.channels, op.strides[0], **kwargs)
    if op.name == "global_average_pool":
        return ProjectedGlobalPool(op.output.channels, **kwargs)
    return TileChannels(op.output.channels // op.source.channels, **kwargs)


@keras.saving.register_keras_serializable("nas_seg")
class RepeatedSeparableConv(keras.layers.Layer):
    """Several times in a row: depthwise k x k, pointwise 1 x 1, batch normalisation, ReLU; nothing between the halves.

    Args:
        filters: output channels.
        kernel_size: of the depthwise convolutions, an odd int.
        strides: of each repeat.
        rate: of the depthwise convolutions; a multiple of every stride, or 1.
    """

    def __init__(self, filters: int, kernel_size: int = 3, strides: Sequence[int] = (1,), rate: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = tuple(strides)
        self.rate = rate
        if rate > 1 and any(rate % step for step in self.strides):
            raise ValueError(f"Expected a rate that is a multiple of the strides. Received: {rate=}, {strides=}")
        self.depthwise = [self._depthwise(step, i) for i, step in enumerate(self.strides)]
        self.pointwise = [
            conv_norm(filters, dtype=self.dtype_policy, name=f"pointwise_{i}") for i in range(len(self.strides))
        ]

    def _depthwise(self, step: int, index: int) -> DepthwiseConv2D:
        pads = self._pads(step)
        return DepthwiseConv2D(
            self.kernel_size,
            step if pads else 1,
            padding="valid" if pads else "same",
            # Every tap of a rate that the stride divides falls on a position that the stride keeps, so that the
            # convolution can be run on these alone.
            dilation_rate=self.rate if pads else self.rate // step,
            use_bias=False,
            # What comes out has the variance of what goes in.
            depthwise_initializer=keras.initializers.RandomNormal(stddev=1.0 / self.kernel_size),
            dtype=self.dtype_policy,
            name=f"depthwise_{index}",
        )

    def _pads(self, step: int) -> bool:
        return step > 1 and self.rate == 1

    def build(self, input_shape):
        channels = input_shape[-1]
        for depthwise, pointwise in zip(self.depthwise, self.pointwise, strict=True):
            depthwise.build((None, None, None, channels))
            pointwise.build((None, None, None, channels))
            channels = self.filters
        self.built = True

    def call(self, inputs, training=None):
        for step, depthwise, pointwise in zip(self.strides, self.depthwise, self.pointwise, strict=True):
            if self._pads(step):
                border = (self.kernel_size // 2, self.kernel_size // 2)
                inputs = ops.pad(inputs, ((0, 0), border, border, (0, 0)))
            elif step > 1:
                inputs = inputs[:, ::step, ::step]
            inputs = pointwise(depthwise(inputs, training=training), training=training)
        return inputs

    def compute_output_shape(self, input_shape):
        for step in self.strides:
            input_shape = strided_shape(input_shape, step)
        return (*input_shape[:3], self.filters)

    def get_config(self):
        return super().get_config() | {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "rate": self.rate,
        }


@keras.saving.register_keras_serializable("nas_seg")
class ProjectedMaxPool(keras.layers.Layer):
    """1x1 convolution, batch normalisation, then the maximum of 3 x 3 positions; what lies outside never is it.

    Args:
        filters: output channels.
        strides: of the pooling, an int.
    """

    def __init__(self, filters: int, strides: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.strides = strides
        self.projection = conv_norm(filters, activation=None, dtype=self.dtype_policy, name="projection")

    def build(self, input_shape):
        self.projection.build(input_shape)
        self.built = True

    def call(self, inputs, training=None):
        outputs = self.projection(inputs, training=training)
        # SAME pads both sides alike at stride 1 and, for stride 2, on odd sizes, and without the infinities that a
        # quantised network has no room for. Elsewhere the maxima of all positions are thinned out.
        odd = all(size is not None and size % 2 for size in outputs.shape[1:3])
        if self.strides == 1 or (self.strides == 2 and odd):
            return ops.max_pool(outputs, 3, self.strides, "same")
        return ops.max_pool(outputs, 3, 1, "same")[:, :: self.strides, :: self.strides]

    def compute_output_shape(self, input_shape):
        return (*strided_shape(input_shape, self.strides)[:3], self.filters)

    def get_config(self):
        return super().get_config() | {"filters": self.filters, "strides": self.strides}


@keras.saving.register_keras_serializable("nas_seg")
class ProjectedGlobalPool(keras.layers.Layer):
    """The mean of the whole map, 1x1 convolution, batch normalisation, ReLU, and that at every position of the map.

    Args:
        filters: output channels.
    """

    def __init__(self, filters: int, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.projection = conv_norm(filters, dtype=self.dtype_policy, name="projection")

    def build(self, input_shape):
        self.projection.build(input_shape)
        self.built = True

    def call(self, inputs, training=None):
        pooled = self.projection(ops.mean(inputs, axis=(1, 2), keepdims=True), training=training)
        return pooled + ops.zeros_like(inputs[..., :1])

    def compute_output_shape(self, input_shape):
        return (*input_shape[:3], self.filters)

    def get_config(self):
        return super().get_config() | {"filters": self.filters}


@keras.saving.register_keras_serializable("nas_seg")
class TileChannels(keras.layers.Layer):
    """All channels in a row, `multiple` times: c0 c1 c0 c1."""

    def __init__(self, multiple: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.multiple = multiple

    def call(self, inputs):
        return inputs if self.multiple == 1 else ops.tile(inputs, (1, 1, 1, self.multiple))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:3], input_shape[3] * self.multiple)

    def get_config(self):
        return super().get_config() | {"multiple": self.multiple}


@keras.saving.register_keras_serializable("nas_seg")
class ChannelWeightedSum(keras.layers.Layer):
    """a * x + b * y with a weight for each channel, 1 to begin with; call as `layer([x, y])`, two maps of one shape."""

    def build(self, input_shape):
        channels = (input_shape[0][-1],)
        self.a = self.add_weight(shape=channels, initializer="ones", name="a")
        self.b = self.add_weight(shape=channels, initializer="ones", name="b")
        self.built = True

    def call(self, inputs):
        x, y = inputs
        return self.a * x + self.b * y

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[0])


def strided_shape(shape, strides: int) -> tuple:
    """[B, H, W, C] of a map that an op with these strides puts out, None where it is not known."""
    height, width = (None if size is None else -(-size // strides) for size in shape[1:3])
    return shape[0], height, width, shape[3]
