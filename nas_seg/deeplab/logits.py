"""The logits of DeepLab-v2: atrous pyramid pooling of class scores."""

from __future__ import annotations

import keras

from nas_seg.core.conv import truncated_normal


@keras.saving.register_keras_serializable("nas_seg")
class AtrousLogits(keras.layers.Layer):
    """One convolution to the classes for each rate, with bias, summed; float32 also under mixed precision.

    Source: Chen et al., "DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution, and
    Fully Connected CRFs" (2016), section 3.2; DeepLab's model.py with aspp_with_batch_norm=False and atrous_rates.

    Args:
        num_classes: channels of the logits.
        atrous_rates: in map pixels, at least one.
        kernel_size: of every convolution (logits_kernel_size); at 1 the rates make no difference.
    """

    def __init__(self, num_classes: int, atrous_rates=(6, 12, 18), kernel_size: int = 1, **kwargs):
        super().__init__(**{"dtype": "float32"} | kwargs)
        self.num_classes = num_classes
        self.atrous_rates = tuple(atrous_rates)
        self.kernel_size = kernel_size
        self.branches = [
            keras.layers.Conv2D(
                num_classes,
                kernel_size,
                padding="same",
                dilation_rate=rate,
                kernel_initializer=truncated_normal(0.01),
                name=f"branch{i}",
                dtype=self.dtype_policy,
            )
            for i, rate in enumerate(self.atrous_rates)
        ]

    def build(self, input_shape):
        for branch in self.branches:
            branch.build(input_shape)
        self.built = True

    def call(self, inputs):
        return sum((branch(inputs) for branch in self.branches[1:]), self.branches[0](inputs))

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:3], self.num_classes)

    def get_config(self):
        return super().get_config() | {
            "num_classes": self.num_classes,
            "atrous_rates": self.atrous_rates,
            "kernel_size": self.kernel_size,
        }
