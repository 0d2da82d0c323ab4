"""A genotype's decoder as a function of two vectors, its weights and its statistics: what a trial of a search trains.

The network is that of `decoder.py`, weight for weight and name for name, which tests hold. There it is a graph of Keras
layers, made to be kept. A trial lives for seconds, and of those Keras took a third: each layer is made, called
symbolically and called again in every trace, and each weight is a variable that is read, differentiated and assigned.
Here one operation makes all weights of one variable, and little is traced but what is computed.

TensorFlow only, float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from nas_seg.core.encoder_decoder import LOGITS
from nas_seg.core.resize import resize_bilinear
from nas_seg.template.genotype import TemplateGenotype
from nas_seg.template.ops import NORM
from nas_seg.template.plan import SEPARABLE, Application, Op, output_maps, plan

_HE, _DEPTHWISE, _ONES, _ZEROS = "he", "depthwise", "ones", "zeros"


class Weight(NamedTuple):
    """A weight of the decoder.

    Attributes:
        name: its path in the Keras model.
        shape: of it.
        start: how it is drawn.
    """

    name: str
    shape: tuple[int, ...]
    start: str

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def decays(self) -> bool:
        """Whether weight decay applies: to the kernels of `nas_seg.core.conv.regularized_kernels`."""
        return self.start == _HE


class FlatDecoder:
    """The encoder's maps -> logits at the stride of the finest map that no layer reads.

    Args:
        genotype: the decoder.
        num_classes: channels of the logits.
        agg_size: channels before them.
        sep_repeats, stride_rule: see `nas_seg.template.plan.plan`.
        momentum: of the moving averages of batch normalisation.

    Attributes:
        weights: in the order of the vector; gamma, then beta of all normalisations come last.
        norms: (name, channels) of each normalisation. The vector of statistics is all means, then all variances.
    """

    def __init__(
        self,
        genotype: TemplateGenotype,
        num_classes: int,
        agg_size: int = 64,
        sep_repeats: int = 2,
        stride_rule: str = "peer",
        momentum: float = NORM["momentum"],
    ):
        self.genotype, self.momentum = genotype, momentum
        self._layers = plan(genotype, sep_repeats, stride_rule)
        self._outputs = output_maps(genotype, self._layers)
        found = list(self._declare(num_classes, agg_size))
        self.norms = tuple((name, shape[0]) for name, shape, start in found if start == "norm")
        ends = (("gamma", _ONES), ("beta", _ZEROS))
        scales = [Weight(f"{name}/{end}", (size,), start) for end, start in ends for name, size in self.norms]
        self.weights = (*(Weight(*one) for one in found if one[2] != "norm"), *scales)

    def initial(self) -> tuple[np.ndarray, np.ndarray]:
        """(weights, statistics) as Keras draws them: by the seed that `keras.utils.set_random_seed` has set last."""
        values = [np.ravel(_initializer(weight)(weight.shape)) for weight in self.weights]
        ones = np.ones(sum(size for _, size in self.norms), np.float32)
        return np.concatenate(values), np.concatenate([0.0 * ones, ones])

    def decay(self, rate: float) -> np.ndarray:
        """The factor of weight decay for each number of the vector."""
        rates = [rate * weight.decays for weight in self.weights]
        return np.repeat(rates, [weight.size for weight in self.weights]).astype(np.float32)

    def named(self, weights: Any, statistics: Any) -> dict[str, np.ndarray]:
        """The numbers of both vectors by their paths in the Keras model."""
        shapes = [(weight.name, weight.shape) for weight in self.weights]
        ends = ("moving_mean", "moving_variance")
        shapes += [(f"{name}/{end}", (size,)) for end in ends for name, size in self.norms]
        vector, result, at = np.concatenate([weights, statistics]), {}, 0
        for name, shape in shapes:
            size = int(np.prod(shape))
            result[name], at = vector[at : at + size].reshape(shape), at + size
        return result

    def train(self, weights: Any, statistics: Any, maps: Sequence[Any]) -> tuple[Any, Any]:
        """(logits, statistics after the step); normalised with the statistics of the batch. Meant to be traced.

        Args:
            weights, statistics: the vectors.
            maps: [B, h, w, C] at strides 4 and 8, of static height and width.
        """
        norms = _BatchNorms()
        logits = self._logits(_Run(self._values(weights), norms), maps)
        seen = tf.concat([norms.seen[name][i] for i in range(2) for name, _ in self.norms], 0)
        return logits, statistics * self.momentum + seen * (1.0 - self.momentum)

    def predict(self, weights: Any, statistics: Any, maps: Sequence[Any]) -> Any:
        """Logits; normalised with the statistics."""
        sizes = [size for _, size in self.norms]
        gamma, beta = tf.split(weights[-2 * sum(sizes) :], 2)
        mean, variance = tf.split(statistics, 2)
        factor = gamma * tf.math.rsqrt(variance + NORM["epsilon"])
        factors, biases = (tf.split(value, sizes) for value in (factor, beta - mean * factor))
        scales = {name: (factors[i], biases[i]) for i, (name, _) in enumerate(self.norms)}
        return self._logits(_Run(self._values(weights), _FixedNorms(scales)), maps)

    def _values(self, weights: Any) -> dict[str, Any]:
        parts = tf.split(weights, [weight.size for weight in self.weights])
        pairs = zip(self.weights, parts, strict=True)
        return {one.name: part if len(one.shape) == 1 else tf.reshape(part, one.shape) for one, part in pairs}

    def _declare(self, num_classes: int, agg_size: int) -> Iterator[tuple[str, tuple[int, ...], str]]:
        """(name, shape, start) of all weights in the order in which Keras' layers are made, for each draws a seed."""
        for i, applications in enumerate(self._layers):
            for t, application in enumerate(applications):
                yield from _declare_application(application, f"layer{i}_application{t}")
        yield from _declare_conv_norm("before_logits", sum(m.channels for m in self._outputs), agg_size)
        yield f"{LOGITS}/kernel", (3, 3, agg_size, num_classes), _HE
        yield f"{LOGITS}/bias", (num_classes,), _ZEROS

    def _logits(self, run: _Run, maps: Sequence[Any]) -> Any:
        pool = list(maps)
        for i, (layer, applications) in enumerate(zip(self.genotype.layers, self._layers, strict=True)):
            first, second = pool[layer.input1], pool[layer.input2]
            for t, application in enumerate(applications):
                first, second = second, run.apply(application, (first, second), f"layer{i}_application{t}")
            pool.append(second)
        joined = self._join([pool[number] for number in self.genotype.outputs])
        x = run.conv_norm(tf.nn.relu(joined), "before_logits")
        return run.conv(x, LOGITS) + run.values[f"{LOGITS}/bias"]

    def _join(self, tensors: Sequence[Any]) -> Any:
        """As `decoder.decode` joins them, where the coarser is resized to the finer at each step."""
        parts, stride = [tensors[0]], self._outputs[0].stride
        for tensor, own in zip(tensors[1:], self._outputs[1:], strict=True):
            if own.stride < stride:
                parts, stride = [_resize(part, tensor) for part in parts], own.stride
            elif own.stride > stride:
                tensor = _resize(tensor, parts[0])
            parts.append(tensor)
        return tf.concat(parts, -1)


class _BatchNorms:
    """Normalisation by the statistics of the batch, which it keeps in `seen`: name -> (mean, variance)."""

    def __init__(self):
        self.seen: dict[str, tuple[Any, Any]] = {}

    def conv(self, x: Any, values: Mapping[str, Any], kernel: str, name: str) -> Any:
        return self(_conv(x, values[kernel]), values, name)

    def __call__(self, x: Any, values: Mapping[str, Any], name: str) -> Any:
        none = tf.constant([], tf.float32)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=values[f"{name}/gamma"], offset=values[f"{name}/beta"], mean=none, variance=none,
            epsilon=NORM["epsilon"], is_training=True,
        )  # fmt: skip
        self.seen[name] = (mean, variance)
        return outputs


class _FixedNorms:
    """Normalisation by given statistics: name -> (factor, bias); within the kernel where one comes before."""

    def __init__(self, scales: Mapping[str, tuple[Any, Any]]):
        self._scales = scales

    def conv(self, x: Any, values: Mapping[str, Any], kernel: str, name: str) -> Any:
        factor, bias = self._scales[name]
        return _conv(x, values[kernel] * factor) + bias

    def __call__(self, x: Any, values: Mapping[str, Any], name: str) -> Any:
        factor, bias = self._scales[name]
        return x * factor + bias


class _Run(NamedTuple):
    """The layers of `ops.py` and `decoder.py` as functions; each finds its weights by its name."""

    values: Mapping[str, Any]
    norms: _BatchNorms | _FixedNorms

    def conv(self, x: Any, name: str) -> Any:
        return _conv(x, self.values[f"{name}/kernel"])

    def conv_norm(self, x: Any, name: str, activate: bool = True) -> Any:
        x = self.norms.conv(x, self.values, f"{name}/conv/kernel", f"{name}/norm")
        return tf.nn.relu(x) if activate else x

    def apply(self, application: Application, inputs: tuple, name: str) -> Any:
        channels, stride = application.output
        outputs, strides = [], [op.output.stride for op in application.ops]
        for k, (op, x) in enumerate(zip(application.ops, inputs, strict=True), 1):
            x = self._op(op, x, f"{name}_op{k}")
            outputs.append(self.conv_norm(x, f"{name}_adapt{k}") if op.output.channels != channels else x)
        for k in range(2):
            if strides[k] != stride:
                outputs[k] = _resize(outputs[k], outputs[1 - k])
        if application.aggregation == "psum":
            a, b = (self.values[f"{name}_psum/{weight}"] for weight in "ab")
            return a * outputs[0] + b * outputs[1]
        x = tf.nn.relu(self.norms(tf.concat(outputs, -1), self.values, f"{name}_norm"))
        return self.conv(x, f"{name}_projection")

    def _op(self, op: Op, x: Any, name: str) -> Any:
        if op.name in SEPARABLE:
            for i, step in enumerate(op.strides):
                x = _depthwise(x, self.values[f"{name}/depthwise_{i}/kernel"], step, SEPARABLE[op.name][1])
                x = self.conv_norm(x, f"{name}/pointwise_{i}")
            return x
        if op.name == "max_pool_3x3":
            (step,) = op.strides
            pooled = tf.nn.max_pool2d(self.conv_norm(x, f"{name}/projection", activate=False), 3, 1, "SAME")
            return pooled if step == 1 else pooled[:, ::step, ::step]
        if op.name == "global_average_pool":
            pooled = self.conv_norm(tf.reduce_mean(x, (1, 2), keepdims=True), f"{name}/projection")
            return pooled + tf.zeros_like(x[..., :1])
        multiple = op.output.channels // op.source.channels
        return x if multiple == 1 else tf.tile(x, (1, 1, 1, multiple))


def _conv(x: Any, kernel: Any) -> Any:
    return tf.raw_ops.Conv2D(input=x, filter=kernel, strides=[1, 1, 1, 1], padding="SAME")


def _depthwise(x: Any, kernel: Any, step: int, rate: int) -> Any:
    """As `ops.RepeatedSeparableConv` strides and pads."""
    padding = "SAME"
    if step > 1 and rate == 1:
        border, padding = [kernel.shape[0] // 2] * 2, "VALID"
        x = tf.pad(x, ([0, 0], border, border, [0, 0]))
    elif step > 1:
        x, step, rate = x[:, ::step, ::step], 1, rate // step
    if rate > 1:
        return tf.nn.depthwise_conv2d(x, kernel, (1, 1, 1, 1), padding, dilations=(rate, rate))
    return tf.raw_ops.DepthwiseConv2dNative(input=x, filter=kernel, strides=[1, step, step, 1], padding=padding)


def _resize(x: Any, like: Any) -> Any:
    size = tuple(like.shape[1:3])
    return x if tuple(x.shape[1:3]) == size else resize_bilinear(x, size, align_corners=False)


def _declare_application(application: Application, name: str) -> Iterator[tuple[str, tuple[int, ...], str]]:
    channels = application.output.channels
    for k, op in enumerate(application.ops, 1):
        yield from _declare_op(op, f"{name}_op{k}")
        if op.output.channels != channels:
            yield from _declare_conv_norm(f"{name}_adapt{k}", op.output.channels, channels)
    if application.aggregation == "psum":
        for weight in "ab":
            yield f"{name}_psum/{weight}", (channels,), _ONES
    else:
        yield f"{name}_norm", (2 * channels,), "norm"
        yield f"{name}_projection/kernel", (1, 1, 2 * channels, channels), _HE


def _declare_op(op: Op, name: str) -> Iterator[tuple[str, tuple[int, ...], str]]:
    inputs, filters = op.source.channels, op.output.channels
    if op.name in SEPARABLE:
        kernel, widths = SEPARABLE[op.name][0], [inputs] + [filters] * (len(op.strides) - 1)
        for i, width in enumerate(widths):
            yield f"{name}/depthwise_{i}/kernel", (kernel, kernel, width, 1), _DEPTHWISE
        for i, width in enumerate(widths):
            yield from _declare_conv_norm(f"{name}/pointwise_{i}", width, filters)
    elif op.name != "skip_connect":
        yield from _declare_conv_norm(f"{name}/projection", inputs, filters)


def _declare_conv_norm(name: str, inputs: int, filters: int) -> Iterator[tuple[str, tuple[int, ...], str]]:
    yield f"{name}/conv/kernel", (1, 1, inputs, filters), _HE
    yield f"{name}/norm", (filters,), "norm"


def _initializer(weight: Weight) -> keras.initializers.Initializer:
    if weight.start == _HE:
        return keras.initializers.HeNormal()
    if weight.start == _DEPTHWISE:
        return keras.initializers.RandomNormal(stddev=1.0 / weight.shape[0])
    return keras.initializers.Ones() if weight.start == _ONES else keras.initializers.Zeros()
