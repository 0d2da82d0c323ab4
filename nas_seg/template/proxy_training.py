"""What a trial of a template network compiles: a step and a prediction of the decoder, and the encoder's, made once.

A network is new in every trial, and TensorFlow traces it anew. So little is traced: the decoder is a function of one
vector (`flat_decoder.py`), and there is one step of it, which serves both stages, for it takes the encoder's maps and
gives the gradients with respect to them; and one prediction from maps. What the encoder adds to that in the second
stage is the same in every trial and traced once in a search.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from nas_seg import losses
from nas_seg.core import conv
from nas_seg.core.resize import resize_bilinear
from nas_seg.search.evaluator import TrialFailed
from nas_seg.template.flat_adam import FlatAdam, VectorAdam
from nas_seg.template.flat_decoder import FlatDecoder
from nas_seg.template.genotype import TemplateGenotype
from nas_seg.template.ops import NORM
from nas_seg.template.proxy_config import TemplateProxyConfig
from nas_seg.utils.tracing import quick_tracing


class Pictures(NamedTuple):
    """What the second stage needs.

    Attributes:
        encoder: normalised images -> the maps at strides 8 and 4, with pretrained weights.
        normalize: RGB in [0, 255] -> what the encoder takes.
        train: seed -> endless (images [B, H, W, 3] of the crop size, labels [B, H, W]) of as many as a step sees.
        val: () -> images [B, H, W, 3] of the cached pictures of the validation split, in their order.
    """

    encoder: keras.Model
    normalize: Callable[[Any], Any]
    train: Callable[[int], Iterable[tuple[Any, Any]]]
    val: Callable[[], Iterable[Any]]


class Decoder:
    """The network of a trial from the encoder's maps on, its optimizer, and its two compiled functions.

    Args:
        genotype: the network.
        config: how it trains.
        num_classes, ignore_label: of the labels.
        shapes: [h, w, C] of the finer and of the coarser map of whole pictures.
        size: (height, width) of their labels.
    """

    def __init__(
        self,
        genotype: TemplateGenotype,
        config: TemplateProxyConfig,
        num_classes: int,
        ignore_label: int,
        shapes: Sequence[Sequence[int]],
        size: tuple[int, int],
    ):
        start = time.monotonic()
        steps = [steps for steps in (config.stage0_steps, config.stage1_steps) if steps]
        momentum = min(NORM["momentum"], conv.decay_for(min(steps)))
        self.network = FlatDecoder(genotype, num_classes, **config.options, momentum=momentum)
        weights, statistics = self.network.initial()
        decay = self.network.decay(config.weight_decay)
        self.optimizer = VectorAdam(weights, decay, config.clip_norm, config.polyak_decay)
        self.statistics = tf.Variable(statistics, name="statistics")
        self._built = time.monotonic() - start
        self._step = Timed(_make_step(self, ignore_label, bool(config.stage1_steps)))
        self._predict = Timed(_make_predict(self, shapes, size))

    def step(self, maps, labels, teacher, distillation: float, learning_rate: float) -> tuple[float, Any]:
        """(loss, gradients with respect to the maps) of one step; TrialFailed where it is no number."""
        constants = (tf.constant(value, tf.float32) for value in (distillation, learning_rate))
        with quick_tracing():
            loss, gradients = self._step(tuple(maps), labels, teacher, *constants)
        loss = float(loss)
        if not np.isfinite(loss):
            raise TrialFailed(f"diverged: loss {loss}")
        return loss, gradients

    def predict(self, fine, coarse) -> np.ndarray:
        """Class indices int32 [B, H, W]."""
        with quick_tracing():
            return self._predict(fine, coarse).numpy()

    def check_finite(self) -> None:
        """TrialFailed where a weight is no number: ReLU hides that from a loss."""
        vectors = self.optimizer.weights.numpy(), self.statistics.numpy()
        if not all(np.isfinite(vector).all() for vector in vectors):
            named = self.network.named(*vectors).items()
            raise TrialFailed(_diverged(next(name for name, values in named if not np.isfinite(values).all())))

    def trace_seconds(self) -> float:
        """Spent so far on making the network and on tracing."""
        return self._built + self._step.trace_seconds() + self._predict.trace_seconds()


class Encoder:
    """The pretrained encoder and its optimizer, the same in every trial of a search."""

    def __init__(self, pictures: Pictures, config: TemplateProxyConfig):
        self.pictures = pictures
        self._pretrained = pictures.encoder.get_weights()
        # The statistics of a few windows are worse than those that the decoder has learnt with.
        conv.set_batch_norm(pictures.encoder, update_statistics=False)
        self.optimizer = FlatAdam(pictures.encoder, config.weight_decay, config.clip_norm, config.polyak_decay)
        rate = config.encoder_learning_rate

        def run(training: bool) -> Callable:
            @tf.function(autograph=False)
            def maps(images):
                coarse, fine = pictures.encoder(pictures.normalize(images), training=training)
                return fine, coarse

            return Timed(maps)

        self.forward, self._predict = run(True), run(False)
        self.backward = Timed(tf.function(lambda gradients: self.optimizer.apply(gradients, rate), autograph=False))

    def reset(self) -> None:
        """Back to the pretrained weights."""
        self.pictures.encoder.set_weights(self._pretrained)
        self.optimizer.reset()

    def check_finite(self) -> None:
        """As `Decoder.check_finite`."""
        lost = conv.first_not_finite(self.pictures.encoder)
        if lost:
            raise TrialFailed(_diverged(lost))

    def val_maps(self) -> Iterator[tuple[Any, Any]]:
        """The maps of the validation pictures under the weights of now."""
        return (self._predict(images) for images in self.pictures.val())

    def trace_seconds(self) -> float:
        """Spent on tracing since this was asked for last: 0 but in the first trial."""
        return sum(timed.trace_seconds() for timed in (self.forward, self.backward, self._predict))


def _diverged(name: str) -> str:
    return f"diverged: {name} is not finite"


def _make_step(decoder: Decoder, ignore_label: int, with_maps: bool) -> Callable:
    network, optimizer, statistics = decoder.network, decoder.optimizer, decoder.statistics

    @tf.function(autograph=False)
    def step(maps, labels, teacher, distillation, learning_rate):
        weights = tf.convert_to_tensor(optimizer.weights)
        sources = [weights, *(maps if with_maps else ())]
        with tf.GradientTape() as tape:
            tape.watch(sources)
            logits, seen = network.train(weights, tf.convert_to_tensor(statistics), maps)
            logits = _resized(logits, labels.shape[1:3])
            total, pixels = losses.cross_entropy_sum(logits, labels, ignore_label)
            loss = tf.math.divide_no_nan(total, pixels)
            if teacher is not None:
                loss += distillation * tf.reduce_mean(tf.math.squared_difference(logits, teacher))
        none = tf.UnconnectedGradients.ZERO
        gradient, *of_maps = tape.gradient(loss, sources, unconnected_gradients=none)
        statistics.assign(seen)
        norm = optimizer.apply(gradient, learning_rate)
        # TensorFlow's CPU kernels turn relu(NaN) into 0, so a loss may stay finite; the gradients do not.
        return tf.where(tf.math.is_finite(norm), loss, float("nan")), of_maps

    return step


def _make_predict(decoder: Decoder, shapes: Sequence[Sequence[int]], size: tuple[int, int]) -> Callable:
    # One trace for all batches, also the last one, which may be smaller.
    @tf.function(autograph=False, input_signature=[tf.TensorSpec((None, *shape)) for shape in shapes])
    def predict(fine, coarse):
        weights, statistics = (tf.convert_to_tensor(one) for one in (decoder.optimizer.weights, decoder.statistics))
        logits = _resized(decoder.network.predict(weights, statistics, (fine, coarse)), size)
        return tf.argmax(logits, axis=-1, output_type=tf.int32)

    return predict


class Timed:
    """A compiled function, and how much longer its first call took than the others."""

    def __init__(self, function: Callable):
        self._function, self._seconds, self._told = function, [], False

    def __call__(self, *arguments):
        start = time.monotonic()
        result = self._function(*arguments)
        # A call may come back before it is done.
        for value in tf.nest.flatten(result)[:1]:
            value.numpy()
        self._seconds.append(time.monotonic() - start)
        return result

    def trace_seconds(self) -> float:
        """The difference; 0 when it has been told before."""
        if self._told or not self._seconds:
            return 0.0
        self._told = True
        first, *others = self._seconds
        return max(0.0, first - statistics.median(others or [0.0]))


def _resized(logits, size):
    return logits if tuple(logits.shape[1:3]) == tuple(size) else resize_bilinear(logits, size)
