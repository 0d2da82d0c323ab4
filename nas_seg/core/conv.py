"""Convolutions with batch normalisation, as DeepLab's networks are made of.

Every layer takes [B, H, W, C] and is written in keras.ops alone. A convolution that is followed by batch
normalisation has no bias.
"""

from __future__ import annotations

import keras
from keras import ops

from nas_seg.core.depthwise import DepthwiseConv2D


@keras.saving.register_keras_serializable("nas_seg")
class BatchNorm(keras.layers.BatchNormalization):
    """Batch normalisation whose statistics can be frozen while gamma and beta go on training.

    Keras freezes both at once (`trainable=False`). DeepLab's fine_tune_batch_norm=False normalises with the
    moving averages during training and still trains gamma and beta.

    On TensorFlow it trains with the fused kernel, as DeepLab did: faster than the composed operations, and its moving
    variance is that of the batch with Bessel's correction.

    Args:
        momentum: decay of the moving averages (TF-slim's `decay`).
        update_statistics: False normalises with the moving averages also in training.
    """

    def __init__(self, momentum: float = 0.9997, epsilon: float = 1e-5, update_statistics: bool = True, **kwargs):
        super().__init__(momentum=momentum, epsilon=epsilon, **kwargs)
        self.update_statistics = update_statistics

    def call(self, inputs, training=None, mask=None):
        training = bool(training) and self.update_statistics
        if not training or len(inputs.shape) != 4 or keras.backend.backend() != "tensorflow":
            return super().call(inputs, training=training, mask=mask)
        return self._synchronized(inputs) if self.synchronized else self._fused(inputs)

    def is_fresh(self) -> bool:
        """Whether the moving averages are still those that the layer was made with."""
        return not ops.any(self.moving_mean != 0.0) and not ops.any(self.moving_variance != 1.0)

    def _synchronized(self, inputs):
        """Statistics over all replicas, which no fused kernel has; then Bessel's correction as there."""
        import tensorflow as tf

        replicas = tf.distribute.get_replica_context().num_replicas_in_sync
        count = ops.cast(ops.size(inputs) // inputs.shape[-1] * replicas, self.moving_variance.dtype)
        before = self.moving_variance * self.momentum
        outputs = super().call(inputs, training=True)
        share_of_batch = self.moving_variance - before
        self.moving_variance.assign_add(share_of_batch / ops.maximum(count - 1.0, 1.0))
        return outputs

    def _fused(self, inputs):
        import tensorflow as tf

        scale, offset = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
        averages = (self.moving_mean, self.moving_variance)
        # The kernel moves the averages, too: two small operations where there were ten.
        outputs, *moved = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            tf.cast(scale, tf.float32),
            tf.cast(offset, tf.float32),
            *(tf.cast(tf.convert_to_tensor(average), tf.float32) for average in averages),
            epsilon=self.epsilon,
            is_training=True,
            exponential_avg_factor=1.0 - self.momentum,
        )
        for average, value in zip(averages, moved, strict=True):
            average.assign(ops.cast(value, average.dtype))
        return outputs

    def get_config(self):
        return super().get_config() | {"update_statistics": self.update_statistics}


class _Composite(keras.layers.Layer):
    """A chain of layers, each built on what the one before puts out; `_chain` lists them."""

    _chain: list

    def build(self, input_shape):
        for layer in self._chain:
            layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)
        self.built = True

    def call(self, inputs, training=None):
        for layer in self._chain:
            # Only these kinds behave differently in training; the rest refuse the argument.
            knows = isinstance(layer, (BatchNorm, DepthwiseConv2D, _Composite))
            inputs = layer(inputs, training=training) if knows else layer(inputs)
        return inputs

    def compute_output_shape(self, input_shape):
        for layer in self._chain:
            input_shape = layer.compute_output_shape(input_shape)
        return input_shape


@keras.saving.register_keras_serializable("nas_seg")
class ConvNorm(_Composite):
    """Convolution, batch normalisation, activation.

    Args:
        filters: output channels; None makes it a depthwise convolution that keeps the channels.
        kernel_size: an int or (height, width).
        strides: an int.
        dilation_rate: an int or (height, width).
        activation: a Keras activation name, "clip6" for values cut to [-6, 6], or None for a linear output.
        momentum, epsilon: of the batch normalisation.
        initializer: of the kernel. Default: Glorot uniform, slim's default for a convolution.
        explicit_padding: a strided convolution is padded by (kernel - 1) // 2 at the beginning and the rest at
            the end, as slim's `conv2d_same`, so that it equals the convolution of stride 1 subsampled. Else, and
            wherever the stride is 1, padding is TensorFlow's SAME, which on even sizes pads less at the beginning.
    """

    def __init__(
        self,
        filters: int | None,
        kernel_size=1,
        strides: int = 1,
        dilation_rate=1,
        activation: str | None = "relu",
        momentum: float = 0.9997,
        epsilon: float = 1e-5,
        initializer="glorot_uniform",
        explicit_padding: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.dilation_rate = dilation_rate
        self.activation = activation
        self.momentum = momentum
        self.epsilon = epsilon
        self.initializer = keras.initializers.get(initializer)
        self.explicit_padding = explicit_padding
        pads = explicit_padding and strides > 1
        shape = {
            "kernel_size": kernel_size,
            "strides": strides,
            "dilation_rate": dilation_rate,
            "padding": "valid" if pads else "same",
            "use_bias": False,
            "dtype": self.dtype_policy,
        }
        if filters is None:
            self.conv = DepthwiseConv2D(depthwise_initializer=self.initializer, name="depthwise", **shape)
        else:
            self.conv = keras.layers.Conv2D(filters, kernel_initializer=self.initializer, name="conv", **shape)
        self.norm = BatchNorm(momentum, epsilon, name="norm", dtype=self.dtype_policy)
        self._chain = [self.conv, self.norm]
        if pads:
            self._chain.insert(0, keras.layers.ZeroPadding2D(_same_padding(kernel_size), dtype=self.dtype_policy))
        if activation is not None:
            function = _ACTIVATIONS.get(activation, activation)
            self._chain.append(keras.layers.Activation(function, dtype=self.dtype_policy))

    def call(self, inputs, training=None):
        if training:
            return super().call(inputs, training=True)
        for layer in self._chain:
            if layer is self.conv:
                inputs = self._normalized_convolution(inputs)
            elif layer is not self.norm:
                inputs = layer(inputs)
        return inputs

    def _normalized_convolution(self, inputs):
        """Convolution and normalisation at inference, with gamma and variance in the kernel and the rest a bias.

        TensorFlow fuses that into fewer passes over the map: 17% (Xception-65) to 40% (MobileNet-v2) less time.
        """
        conv, norm = self.conv, self.norm
        factor = norm.gamma * ops.rsqrt(norm.moving_variance + norm.epsilon)
        bias = norm.beta - norm.moving_mean * factor
        function, by = (ops.depthwise_conv, factor[:, None]) if self.filters is None else (ops.conv, factor)
        kernel = ops.cast(conv.kernel * by, inputs.dtype)
        outputs = function(inputs, kernel, conv.strides, conv.padding, dilation_rate=conv.dilation_rate)
        return outputs + ops.cast(bias, outputs.dtype)

    def get_config(self):
        return super().get_config() | {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "dilation_rate": self.dilation_rate,
            "activation": self.activation,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "initializer": keras.initializers.serialize(self.initializer),
            "explicit_padding": self.explicit_padding,
        }


def _same_padding(kernel_size) -> tuple:
    """((top, bottom), (left, right)) in pixels around a kernel, an int or (height, width), at stride and rate 1."""
    sizes = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    return tuple(((size - 1) // 2, size // 2) for size in sizes)


def _clip6(x):
    return ops.clip(x, -6.0, 6.0)


# Activations beyond those that Keras knows by name.
_ACTIVATIONS = {"clip6": _clip6}


@keras.saving.register_keras_serializable("nas_seg")
class SplitSeparableConv(_Composite):
    """Atrous separable convolution with batch normalisation and activation after both of its halves.

    Depthwise k x k at `dilation_rate`, BN, ReLU, pointwise 1x1, BN, ReLU (DeepLab's
    `split_separable_conv2d`). Depthwise kernels start from a truncated normal of 0.33, pointwise of 0.06.

    Args:
        filters: output channels.
        kernel_size: an int or (height, width) of the depthwise convolution.
        dilation_rate: an int or (height, width); the two may differ, as in (6, 21).
        activation: after both halves; "relu6" in networks with bounded activations.
    """

    def __init__(
        self,
        filters: int,
        kernel_size=3,
        dilation_rate=1,
        momentum: float = 0.9997,
        epsilon: float = 1e-5,
        activation: str | None = "relu",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.dilation_rate = dilation_rate
        self.momentum = momentum
        self.epsilon = epsilon
        self.activation = activation
        shared = {"activation": activation, "momentum": momentum, "epsilon": epsilon, "dtype": self.dtype_policy}
        self.depthwise = ConvNorm(
            None, kernel_size, 1, dilation_rate, initializer=truncated_normal(0.33), name="depthwise", **shared
        )
        self.pointwise = ConvNorm(filters, 1, initializer=truncated_normal(0.06), name="pointwise", **shared)
        self._chain = [self.depthwise, self.pointwise]

    def get_config(self):
        return super().get_config() | {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "dilation_rate": self.dilation_rate,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "activation": self.activation,
        }


def truncated_normal(stddev: float) -> keras.initializers.Initializer:
    """Truncated normal of mean 0, as TF-slim's truncated_normal_initializer."""
    return keras.initializers.TruncatedNormal(stddev=stddev)


def logits_layer(num_classes: int, name: str = "logits") -> keras.layers.Layer:
    """The last 1x1 convolution, with bias; float32 also under mixed precision (DeepLab, model.py)."""
    return keras.layers.Conv2D(num_classes, 1, kernel_initializer=truncated_normal(0.01), dtype="float32", name=name)


def all_layers(layer: keras.layers.Layer) -> list:
    """Every layer inside `layer` at any depth, each once, in the order of construction."""
    return list(layer._flatten_layers(include_self=False))


def regularized_kernels(model: keras.Model) -> list:
    """Trainable kernels that weight decay applies to.

    DeepLab regularises the kernels of full convolutions, pointwise ones included; depthwise kernels, biases, gamma and
    beta are left alone. A layer whose attribute `regularize` is true is an exception: its kernel is regularised.
    """
    kinds = (keras.layers.Conv2D, keras.layers.Dense)
    layers = [layer for layer in all_layers(model) if isinstance(layer, kinds) or getattr(layer, "regularize", False)]
    found = {id(layer.kernel): layer.kernel for layer in layers}
    return [kernel for kernel in found.values() if kernel.trainable]


def first_not_finite(model: keras.Model) -> str | None:
    """The path of a weight that holds NaN or infinity, None where all is well.

    A loss alone does not tell: TensorFlow's CPU kernels turn relu(NaN) into 0, and a network whose features are
    NaN goes on with a finite loss.
    """
    for variable in model.weights:
        if not bool(ops.all(ops.isfinite(variable.value))):
            return variable.path
    return None


def decay_for(steps: int) -> float:
    """Decay of moving averages that a training of `steps` steps can bear: they average over about a fifth of it.

    DeepLab's 0.9997 averages over some 3,000 steps; after a few hundred it is still near its start, and a network
    that is evaluated with it knows nothing.
    """
    return max(0.0, 1.0 - 5.0 / steps)


def set_batch_norm(
    model: keras.Model, update_statistics: bool = True, synchronized: bool = False, max_momentum: float = 1.0
) -> None:
    """Sets how every BatchNorm of a model behaves in training. Call it before the first training step.

    Args:
        model: changed in place.
        update_statistics: False freezes the moving averages (fine_tune_batch_norm=False).
        synchronized: take the statistics over all replicas.
        max_momentum: upper bound of the moving averages' decay, see `decay_for`.
    """
    for layer in all_layers(model):
        if isinstance(layer, BatchNorm):
            layer.update_statistics = update_statistics
            layer.synchronized = synchronized
            layer.momentum = min(layer.momentum, max_momentum)
