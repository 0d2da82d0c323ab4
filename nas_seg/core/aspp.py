"""Atrous spatial pyramid pooling, the hand-made context module of DeepLabv3."""

from __future__ import annotations

import keras
from keras import ops

from nas_seg.core.conv import ConvNorm, SplitSeparableConv
from nas_seg.core.pyramid_pooling import PyramidPooling
from nas_seg.utils.errors import InputError


@keras.saving.register_keras_serializable("nas_seg")
class ASPP(keras.layers.Layer):
    """Image pooling, a 1x1 convolution and one 3x3 atrous convolution a rate, concatenated and projected.

    Source: Chen et al., "Rethinking Atrous Convolution" (2017), section 3.3; DeepLab's model.py. Order of the
    branches: image pooling, 1x1, rates. Dropout stands after the projection (in a dense prediction cell it
    stands before). With squeeze-and-excitation (MobileNet-v3's head) the pooled image is no branch but a gate
    that the result is multiplied by.

    Args:
        filters: channels of every branch and of the projection.
        atrous_rates: rates of the 3x3 branches, in map pixels; empty for none.
        image_pooling: whether to add the image-level feature.
        separable: split-separable 3x3 branches, else dense ones.
        pooling_window: (height, width) of the image pooling in map pixels; None for the whole map.
        dropout_rate: of the dropout after the projection.
        pooling_strides: (vertical, horizontal) steps of that window.
        concat_projection: False leaves projection and dropout out: the branches' concatenation is the result.
        squeeze_and_excitation: None, or "sigmoid" or "quantized_sigmoid", which the pooled image then passes.
        activation: "relu", or "relu6" for bounded values; the pooled image has "relu" either way, as in DeepLab.
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
        pooling_strides=(1, 1),
        concat_projection: bool = True,
        squeeze_and_excitation: str | None = None,
        activation: str = "relu",
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
        self.pooling_strides = tuple(pooling_strides)
        self.concat_projection = concat_projection
        self.squeeze_and_excitation = squeeze_and_excitation
        self.activation = activation
        check_gate(squeeze_and_excitation, image_pooling, concat_projection, self.atrous_rates)
        norm = {"momentum": momentum, "epsilon": epsilon, "dtype": self.dtype_policy}
        self.branches, self.excitation, self.projection = [], None, None
        if image_pooling:
            window, gate = self.pooling_window, squeeze_and_excitation
            strides = self.pooling_strides
            pooling = PyramidPooling(filters, (1, 1), window, strides=strides, gate=gate, name="image_pooling", **norm)
            if gate is None:
                self.branches.append(pooling)
            else:
                self.excitation = pooling
        norm["activation"] = activation
        self.branches.append(ConvNorm(filters, name="aspp0", **norm))
        for i, rate in enumerate(self.atrous_rates, start=1):
            if separable:
                branch = SplitSeparableConv(filters, 3, rate, name=f"aspp{i}", **norm)
            else:
                branch = ConvNorm(filters, 3, dilation_rate=rate, name=f"aspp{i}", **norm)
            self.branches.append(branch)
        if concat_projection:
            self.projection = ConvNorm(filters, name="concat_projection", **norm)
            self.dropout = keras.layers.Dropout(dropout_rate, dtype=self.dtype_policy)

    def build(self, input_shape):
        for layer in (*self.branches, *([self.excitation] if self.excitation else [])):
            layer.build(input_shape)
        if self.projection:
            self.projection.build((*input_shape[:3], self.filters * len(self.branches)))
            self.dropout.build(input_shape)
        self.built = True

    def call(self, inputs, training=None, pooling_window=None):
        """`pooling_window` takes the place of the layer's own, for a map of another scale."""
        window = {"window": pooling_window}
        outputs = ops.concatenate(
            [
                branch(inputs, training=training, **(window if isinstance(branch, PyramidPooling) else {}))
                for branch in self.branches
            ],
            axis=-1,
        )
        if self.projection:
            outputs = self.dropout(self.projection(outputs, training=training), training=training)
        if self.excitation:
            outputs = outputs * self.excitation(inputs, training=training, **window)
        return outputs

    def compute_output_spec(self, inputs, training=None, pooling_window=None):
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:3], self.filters * (1 if self.projection else len(self.branches)))

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
            "pooling_strides": self.pooling_strides,
            "concat_projection": self.concat_projection,
            "squeeze_and_excitation": self.squeeze_and_excitation,
            "activation": self.activation,
        }


def check_gate(gate: str | None, image_pooling: bool, concat_projection: bool, atrous_rates) -> None:
    """InputError unless a squeeze-and-excitation gate has a pooled image, and features of its own channels."""
    if gate is None:
        return
    if not image_pooling:
        raise InputError("squeeze_and_excitation: expected image pooling, which is the gate; received none")
    if not concat_projection and atrous_rates:
        raise InputError(
            "squeeze_and_excitation: without a concat projection it expects no atrous_rates,"
            f" received {list(atrous_rates)}"
        )
