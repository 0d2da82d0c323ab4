"""Atrous spatial pyramid pooling, the hand-made context module of DeepLabv3."""

from __future__ import annotations

import keras
from keras import ops

from nas_seg.core.conv import ConvNorm, SplitSeparableConv
from nas_seg.core.pyramid_pooling import PyramidPooling


@keras.saving.register_keras_serializable("nas_seg")
class ASPP(keras.layers.Layer):
    """Image pooling, a 1x1 convolution and one 3x3 atrous convolution a rate, concatenated and projected.

    Source: Chen et al., "Rethinking Atrous Convolution" (2017), section 3.3; DeepLab's model.py. Order of the
    branches: image pooling, 1x1, rates. Dropout stands after the projection (in a dense prediction cell it
    stands before).

    Args:
        filters: channels of every branch and of the projection.
        atrous_rates: rates of the 3x3 branches, in map pixels; empty for none.
        image_pooling: whether to add the image-level feature.
        separable: split-separable 3x3 branches, else dense ones.
        pooling_window: (height, width) of the image pooling in map pixels; None for the whole map.
        dropout_rate: of the dropout after the projection.
    """

    def __init__(
        self,
        filters: int = 256,
        atrous_rates=(),
        image_pooling: bool = True,
        separable: bool = True,
        pooling_window=None,
        dropout_rate: float = 0.1,
        momentum: float = 0.9997,
        epsilon: float = 1e-5,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.atrous_rates = tuple(atrous_rates)
        self.image_pooling = image_pooling
        self.separable = separable
        self.pooling_window = None if pooling_window is None else tuple(pooling_window)
        self.dropout_rate = dropout_rate
        self.momentum = momentum
        self.epsilon = epsilon
        norm = {"momentum": momentum, "epsilon": epsilon, "dtype": self.dtype_policy}
        self.branches = []
        if image_pooling:
            self.branches.append(PyramidPooling(filters, (1, 1), self.pooling_window, name="image_pooling", **norm))
        self.branches.append(ConvNorm(filters, name="aspp0", **norm))
        for i, rate in enumerate(self.atrous_rates, start=1):
            if separable:
                branch = SplitSeparableConv(filters, 3, rate, name=f"aspp{i}", **norm)
            else:
                branch = ConvNorm(filters, 3, dilation_rate=rate, name=f"aspp{i}", **norm)
            self.branches.append(branch)
        self.projection = ConvNorm(filters, name="concat_projection", **norm)
        self.dropout = keras.layers.Dropout(dropout_rate, dtype=self.dtype_policy)

    def build(self, input_shape):
        for branch in self.branches:
            branch.build(input_shape)
        self.projection.build((*input_shape[:3], self.filters * len(self.branches)))
        self.dropout.build(input_shape)
        self.built = True

    def call(self, inputs, training=None):
        outputs = [branch(inputs, training=training) for branch in self.branches]
        projected = self.projection(ops.concatenate(outputs, axis=-1), training=training)
        return self.dropout(projected, training=training)

    def compute_output_spec(self, inputs, training=None):
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:3], self.filters)

    def get_config(self):
        return super().get_config() | {
            "filters": self.filters,
            "atrous_rates": self.atrous_rates,
            "image_pooling": self.image_pooling,
            "separable": self.separable,
            "pooling_window": self.pooling_window,
            "dropout_rate": self.dropout_rate,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
        }
