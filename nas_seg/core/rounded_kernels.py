"""What rounding kernels to 8 bits does to the means of a network's features, and biases that make up for it.

A kernel of few weights, above all a depthwise one of nine, is not rounded up as often as down. Its channel is then too
high or too low everywhere, the layers after it add to that, and classes that are close change places: of a DPC network
whose kernels alone were rounded 94.7% of the labels stayed, with corrected biases 98.0%. The correction is that of
Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019 (section 4.2), measured on
pictures: layer by layer, each after the ones before it, the mean of every channel is brought back to what it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import keras
from keras import ops

from nas_seg.core.conv import ConvNorm, all_layers
from nas_seg.core.padding import padded_logits

_STEPS = 127
_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
# layer, what it puts out -> what it is to put out.
_Watch = Callable[[keras.layers.Layer, object], object]


@contextlib.contextmanager
def corrected_biases(model: keras.Model, images) -> Iterator[None]:
    """Within it the biases of a network are those that its kernels need once they are rounded; the kernels are not.

    Whoever rounds them afterwards as TFLite does (see `rounded`) gets features of the float network's means.

    Args:
        model: images [B, H, W, 3] in [0, 255] -> logits [B, H, W, C].
        images: float [N, H, W, 3], some ten that are typical; all go through the network at once.
    """
    layers = all_layers(model)
    kernels = [layer.kernel for layer in layers if isinstance(layer, _CONVOLUTIONS)]
    watched = {id(layer): layer for layer in layers if _bias(layer) is not None}.values()
    exact = [ops.copy(kernel.value) for kernel in kernels]
    biases = [ops.copy(_bias(layer).value) for layer in watched]
    means = {}

    def remember(layer, outputs):
        means.setdefault(id(layer), _means(outputs))
        return outputs

    def correct(layer, outputs):
        if id(layer) not in means:  # It is used again, and has been corrected.
            return outputs
        shift = _means(outputs) - means.pop(id(layer))
        _bias(layer).assign_sub(shift)
        return outputs - ops.cast(shift, outputs.dtype)

    try:
        with _watching(watched, remember):
            padded_logits(model, images)
        for layer in layers:
            if isinstance(layer, _CONVOLUTIONS):
                layer.kernel.assign(rounded(layer.kernel.value, isinstance(layer, keras.layers.DepthwiseConv2D)))
        with _watching(watched, correct):
            padded_logits(model, images)
        for kernel, value in zip(kernels, exact, strict=True):
            kernel.assign(value)
        yield
    finally:
        for kernel, value in zip(kernels, exact, strict=True):
            kernel.assign(value)
        for layer, value in zip(watched, biases, strict=True):
            _bias(layer).assign(value)


def rounded(kernel, depthwise: bool):
    """A kernel [h, w, in, out] in 127 steps either way of the largest weight of each channel that it puts out.

    Normalisation scales whole channels, so that a kernel which it is folded into is rounded to the same steps.

    Args:
        depthwise: it is one [h, w, channels, multiplier].
    """
    step = ops.max(ops.abs(kernel), axis=(0, 1) if depthwise else (0, 1, 2), keepdims=True) / _STEPS
    return ops.round(kernel / ops.maximum(step, 1e-30)) * step


def _bias(layer: keras.layers.Layer):
    """The variable that shifts what a layer puts out before its activation; None where there is none."""
    if isinstance(layer, ConvNorm):
        return layer.norm.beta
    linear = isinstance(layer, keras.layers.Conv2D) and layer.activation is keras.activations.linear
    return layer.bias if linear and layer.use_bias else None


def _means(outputs):
    return ops.mean(ops.cast(outputs, "float32"), axis=(0, 1, 2))


@contextlib.contextmanager
def _watching(layers, watch: _Watch) -> Iterator[None]:
    """Hands what layers put out before their activation to `watch`, and goes on with what that returns."""

    def through(layer, method):
        return lambda *arguments, **keywords: watch(layer, method(*arguments, **keywords))

    # An attribute of the object goes before the method of its class.
    names = [(layer, "_normalized_convolution" if isinstance(layer, ConvNorm) else "call") for layer in layers]
    for layer, name in names:
        object.__setattr__(layer, name, through(layer, getattr(layer, name)))
    try:
        yield
    finally:
        for layer, name in names:
            object.__delattr__(layer, name)
