"""Kernels of 8 bits that cost a network little: rounded one weight after another, each making up for those before it.

Rounded to the nearest step, every weight for itself, the kernels of a MobileNet-v2 with a searched cell take several
labels in a hundred: a depthwise kernel of nine weights is not rounded up as often as down, its channel is then too high
or too low everywhere, the layers after it add to that, and classes that are close change places. Two things help, both
measured on pictures, layer by layer, each after the ones before it:

- What a weight is rounded by is made up for by the weights of its channel that are not rounded yet, as far as the
  inputs of the two go together (Frantar et al., GPTQ, 2022, section 3, after Hassibi and Stork, Optimal Brain Surgeon,
  1993). Neighbouring pixels of a map are much alike, and so are features after a ReLU, which all are positive.
- The mean of every channel is brought back to what it was, by its bias (Nagel et al., Data-Free Quantization Through
  Weight Equalization and Bias Correction, 2019, section 4.2).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
from keras import ops

from nas_seg.core.conv import ConvNorm, all_layers
from nas_seg.core.padding import padded_logits

_STEPS = 127
_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
# Of the products of inputs: positions that they are averaged over, the share of their mean square that is added to each
# input's own (GPTQ's), and the most inputs of a kernel; beyond it is rounded to the nearest, for they fill memory.
_POSITIONS, _DAMPING, _MOST_INPUTS = 8192, 0.01, 4608
# Convolutions before and after the first depthwise one that stay as they are where int8 leaves them in float32.
_BEFORE, _AFTER = 2, 10
# layer, what goes in, what it puts out of that -> what it is to put out.
_Watch = Callable[[keras.layers.Layer, object, Callable[[], object]], object]


@contextlib.contextmanager
def rounded_network(model: keras.Model, images, spare: bool = False) -> Iterator[None]:
    """Within it a network's kernels are rounded to 8 bits, and its biases are those that such kernels need.

    Whoever rounds the kernels again as TFLite does (see `rounded`) finds them on its own steps. Afterwards kernels and
    biases are what they were.

    Args:
        model: images [B, H, W, 3] in [0, 255] -> logits [B, H, W, C].
        images: float [N, H, W, 3], some ten that are typical; all go through the network at once.
        spare: the kernels of `spared` convolutions, in the order in which they are run, stay as they are: for whoever
            runs these in float32.
    """
    layers = all_layers(model)
    kernels = [layer.kernel for layer in layers if isinstance(layer, _CONVOLUTIONS)]
    within = {id(layer.conv) for layer in layers if isinstance(layer, ConvNorm)}
    watched = {
        id(layer): layer
        for layer in layers
        if isinstance(layer, ConvNorm) or (isinstance(layer, _CONVOLUTIONS) and id(layer) not in within)
    }.values()
    biases = [_bias(layer) for layer in watched if _bias(layer) is not None]
    exact = [(variable, ops.copy(variable.value)) for variable in (*kernels, *biases)]
    convolutions = {id(layer): _convolution(layer) for layer in watched}
    means = {}  # In the order of their first use.

    def remember(layer, _inputs, call):
        outputs = call()
        means.setdefault(id(layer), _means(outputs))
        return outputs

    def change(layer, inputs, call):
        if id(layer) not in means:  # It is used again, and has been changed.
            return call()
        mean = means.pop(id(layer))
        if id(layer) not in exact_ones:
            _round(_convolution(layer), inputs)
        outputs, bias = call(), _bias(layer)
        if bias is None:
            return outputs
        shift = _means(outputs) - mean
        bias.assign_sub(shift)
        return outputs - ops.cast(shift, outputs.dtype)

    try:
        with _watching(watched, remember):
            padded_logits(model, images)
        order = [(key, isinstance(convolutions[key], keras.layers.DepthwiseConv2D)) for key in means]
        exact_ones = {order[place][0] for place in spared([one for _, one in order])} if spare else set()
        with _watching(watched, change):
            padded_logits(model, images)
        yield
    finally:
        for variable, value in exact:
            variable.assign(value)


def spared(depthwise: Sequence[bool]) -> range:
    """The convolutions that int8 should leave in float32: the first depthwise one, two before and ten after it.

    In MobileNet-v2 these are all up to the first maps of an eighth of the picture's sides. Theirs are the widest ranges
    for the fewest channels: in 8 bits they cost more labels than the rest of a network with a searched cell.

    Args:
        depthwise: of each convolution, in the order in which they are run, whether it is one.

    Returns:
        Places in that order; none where there is no depthwise convolution.
    """
    if True not in depthwise:
        return range(0)
    first = list(depthwise).index(True)
    return range(max(0, first - _BEFORE), min(len(depthwise), first + _AFTER + 1))


def rounded(kernel, depthwise: bool):
    """A kernel [h, w, in, out] in 127 steps either way of the largest weight of each channel that it puts out.

    Normalisation scales whole channels, so that a kernel which it is folded into is rounded to the same steps.

    Args:
        depthwise: it is one [h, w, channels, multiplier].
    """
    step = ops.max(ops.abs(kernel), axis=(0, 1) if depthwise else (0, 1, 2), keepdims=True) / _STEPS
    return ops.round(kernel / ops.maximum(step, 1e-30)) * step


def rounded_for(weights: np.ndarray, products: np.ndarray) -> np.ndarray:
    """Weights in the steps of `rounded`, such that their sums over typical inputs change little.

    Args:
        weights: float [G, K, M]: of G groups of M sums, each of K inputs.
        products: float [G, K, K]: means of x x^T over inputs x of each group.

    Returns:
        float64 [G, K, M]; the largest weight of each sum stays as it is.
    """
    weights = weights.astype(np.float64)
    largest = np.abs(weights).argmax(axis=1)
    step = np.maximum(np.abs(weights).max(axis=1) / _STEPS, 1e-30)
    exact, found, size = weights.copy(), np.empty_like(weights), weights.shape[1]
    square = np.einsum("gkk->gk", products)
    # An input that is always 0 says nothing, and neither does a group of such.
    damping = np.maximum(_DAMPING * square.mean(axis=1), 1e-12)
    damped = products + damping[:, None, None] * np.eye(size)
    # Of the inverse's upper triangular factor row k is what is left to the inputs after k once k is fixed.
    upper = np.linalg.cholesky(np.linalg.inv(damped)).swapaxes(1, 2)
    for k in range(size):
        places = np.clip(np.round(weights[:, k] / step), -_STEPS, _STEPS)
        # The steps are found anew from the largest weight, which so must not move.
        found[:, k] = np.where(largest == k, exact[:, k], places * step)
        error = (weights[:, k] - found[:, k]) / upper[:, k, k, None]
        weights[:, k + 1 :] -= upper[:, k, k + 1 :, None] * error[:, None]
    return found


def _round(layer: keras.layers.Layer, inputs) -> None:
    """Rounds the kernel of a convolution that is about to see these inputs."""
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    kernel = ops.convert_to_numpy(layer.kernel.value).astype(np.float64)
    height, width, channels, last = kernel.shape
    if not depthwise and height * width * channels > _MOST_INPUTS:
        layer.kernel.assign(rounded(layer.kernel.value, depthwise))
        return
    taps = _taps(layer, ops.convert_to_numpy(ops.cast(inputs, "float32")))
    if depthwise:
        weights = kernel.reshape(height * width, channels, last).swapaxes(0, 1)
        products = np.einsum("pkc,plc->ckl", taps, taps, optimize=True)
    else:
        weights = kernel.reshape(1, -1, last)
        flat = taps.reshape(len(taps), -1)
        products = (flat.T @ flat)[None]
    found = rounded_for(weights, products.astype(np.float64) / len(taps))
    layer.kernel.assign((found.swapaxes(0, 1) if depthwise else found).reshape(kernel.shape))


def _taps(layer: keras.layers.Layer, inputs: np.ndarray) -> np.ndarray:
    """What a kernel's taps see at some positions of its map: float32 [P, h * w, channels]."""
    sizes, steps = inputs.shape[1:3], layer.strides
    places, there = [], []
    rng = np.random.default_rng(0)
    counts = [
        -(-size // step) if layer.padding == "same" else (size - 1 - (k - 1) * rate) // step + 1
        for size, step, k, rate in zip(sizes, steps, layer.kernel_size, layer.dilation_rate, strict=True)
    ]
    pictures, rows, columns = np.unravel_index(
        rng.permutation(len(inputs) * counts[0] * counts[1])[:_POSITIONS], (len(inputs), *counts)
    )
    for axis, position in enumerate((rows, columns)):
        reach = (layer.kernel_size[axis] - 1) * layer.dilation_rate[axis]
        # TensorFlow's SAME: the smaller half of what is missing lies before the map.
        missing = max(0, (counts[axis] - 1) * steps[axis] + reach + 1 - sizes[axis]) if layer.padding == "same" else 0
        place = position[:, None] * steps[axis] + np.arange(0, reach + 1, layer.dilation_rate[axis]) - missing // 2
        places.append(np.clip(place, 0, sizes[axis] - 1))
        there.append((place >= 0) & (place < sizes[axis]))
    taps = inputs[pictures[:, None, None], places[0][:, :, None], places[1][:, None, :]]
    taps *= (there[0][:, :, None] & there[1][:, None, :])[..., None]
    return taps.reshape(len(taps), -1, inputs.shape[-1])


def _convolution(layer: keras.layers.Layer) -> keras.layers.Layer:
    return layer.conv if isinstance(layer, ConvNorm) else layer


def _bias(layer: keras.layers.Layer):
    """The variable that shifts what a layer puts out before its activation; None where there is none."""
    if isinstance(layer, ConvNorm):
        return layer.norm.beta
    return layer.bias if layer.use_bias and layer.activation is keras.activations.linear else None


def _means(outputs):
    return ops.mean(ops.cast(outputs, "float32"), axis=(0, 1, 2))


@contextlib.contextmanager
def _watching(layers, watch: _Watch) -> Iterator[None]:
    """Has `watch` stand between layers, up to their activation, and what goes into them."""

    def through(layer, method):
        return lambda inputs, *more, **named: watch(layer, inputs, lambda: method(inputs, *more, **named))

    # An attribute of the object goes before the method of its class.
    names = [(layer, "_normalized_convolution" if isinstance(layer, ConvNorm) else "call") for layer in layers]
    for layer, name in names:
        object.__setattr__(layer, name, through(layer, getattr(layer, name)))
    try:
        yield
    finally:
        for layer, name in names:
            object.__delattr__(layer, name)
