"""Spatial pyramid pooling as DeepLab computes it: a sliding average, a 1x1 convolution, a resize back."""

from __future__ import annotations

import keras
from keras import ops

from nas_seg.core.conv import ConvNorm
from nas_seg.core.resize import ResizeLike
from nas_seg.utils.dimension import pooling_window
from nas_seg.utils.errors import unknown


def _quantized_sigmoid(x):
    """The sigmoid of MobileNet-v3, in straight lines; the factor is DeepLab's, and not 1 / 6."""
    return ops.relu6(x + 3.0) * 0.16667


# What a squeeze-and-excitation gate may be.
GATES = {"sigmoid": ops.sigmoid, "quantized_sigmoid": _quantized_sigmoid}


def average_window(inputs, window, strides=(1, 1)):
    """VALID average over a sliding `window`, for maps whose size may be known only at run time.

    A sliding average along one axis is a product with a banded matrix; two small products replace a pooling
    whose window must be a Python int, and stay fast (also backwards) for windows as large as the map.

    Args:
        inputs: [B, H, W, C].
        window: (height, width), ints or scalar tensors, at most the map.
        strides: (vertical, horizontal) steps of the window, ints.

    Returns:
        [B, (H - height) // vertical + 1, (W - width) // horizontal + 1, C].
    """
    shape = ops.shape(inputs)
    rows = _band(shape[1], window[0], strides[0], inputs.dtype)
    columns = _band(shape[2], window[1], strides[1], inputs.dtype)
    return ops.einsum("pw,bowc->bopc", columns, ops.einsum("oh,bhwc->bowc", rows, inputs))


def _band(size, window, stride, dtype):
    """[(size - window) // stride + 1, size], row i holding 1 / window in `window` columns from i * stride on."""
    starts = ops.arange(0, size - window + 1, stride)
    offset = ops.expand_dims(ops.arange(size), 0) - ops.expand_dims(starts, 1)
    inside = ops.logical_and(offset >= 0, offset < window)
    return ops.cast(inside, dtype) / ops.cast(window, dtype)


@keras.saving.register_keras_serializable("nas_seg")
class PyramidPooling(keras.layers.Layer):
    """Average over a window, 1x1 convolution with BN and ReLU, resize to the size of the input.

    Not a grid of g_h x g_w cells: the window is about 1/g of the map and slides by one (DeepLab,
    core/dense_prediction_cell.py). Grid (1, 1) is ASPP's image pooling.

    Args:
        filters: channels of the 1x1 convolution.
        grid_size: (g_h, g_w). A map of h rows is averaged over int((h - 1) / g_h + 1) rows.
        window: (height, width) of the average in map pixels, clipped to the map; None takes it from the
            map as above. DeepLab derives it from the crop size.
        strides: (vertical, horizontal) steps of the window (image_pooling_stride).
        gate: None, or a name of `GATES`: the convolution has a bias and no BN, and this function follows it. Its
            output is what a squeeze-and-excitation multiplies features by.
    """

    def __init__(
        self,
        filters: int,
        grid_size=(1, 1),
        window=None,
        momentum: float = 0.9997,
        epsilon: float = 1e-5,
        strides=(1, 1),
        gate: str | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if gate is not None and gate not in GATES:
            raise unknown("gate", gate, GATES)
        self.filters = filters
        self.grid_size = tuple(grid_size)
        self.window = None if window is None else tuple(window)
        self.momentum = momentum
        self.epsilon = epsilon
        self.strides = tuple(strides)
        self.gate = gate
        if gate is None:
            self.conv = ConvNorm(filters, momentum=momentum, epsilon=epsilon, name="conv", dtype=self.dtype_policy)
        else:
            self.conv = keras.layers.Conv2D(filters, 1, activation=GATES[gate], name="conv", dtype=self.dtype_policy)
        self.resize = ResizeLike(name="resize", dtype=self.dtype_policy)

    def build(self, input_shape):
        self.conv.build((input_shape[0], None, None, input_shape[3]))
        self.built = True

    def call(self, inputs, training=None, window=None):
        """`window` takes the place of the layer's own, for a map of another scale."""
        if self.grid_size == (1, 1) and not (window or self.window):
            pooled = ops.mean(inputs, axis=(1, 2), keepdims=True)
        else:
            pooled = average_window(inputs, self._window(inputs, window), self.strides)
        return self.resize([self.conv(pooled), inputs])  # Keras hands `training` down.

    def _window(self, inputs, window=None):
        size, window = ops.shape(inputs)[1:3], window or self.window
        if window is None:
            return tuple(pooling_window(n, grid) for n, grid in zip(size, self.grid_size, strict=True))
        return tuple(
            min(n, length) if isinstance(n, int) else ops.minimum(n, length)
            for n, length in zip(size, window, strict=True)
        )

    def compute_output_spec(self, inputs, training=None, window=None):
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:3], self.filters)

    def get_config(self):
        return super().get_config() | {
            "filters": self.filters,
            "grid_size": self.grid_size,
            "window": self.window,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "strides": self.strides,
            "gate": self.gate,
        }
