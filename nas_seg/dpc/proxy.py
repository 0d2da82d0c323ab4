"""The proxy task: train a context module on cached features of a frozen backbone, score it by mIoU.

Source: Chen et al. (2018), the proxy task. The backbone's features do not change during a search, so they are computed
once (`nas_seg.core.feature_cache`) and a trial trains the cell and the logits alone.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from nas_seg import losses
from nas_seg.common import REWARD
from nas_seg.core import conv
from nas_seg.core.feature_cache import FeatureCache
from nas_seg.core.resize import resize_bilinear
from nas_seg.dpc import network
from nas_seg.dpc.genotype import DPCGenotype, count
from nas_seg.metrics import ConfusionMatrix
from nas_seg.optimizers import Momentum, PolynomialDecay
from nas_seg.search.evaluator import Report, TrialFailed
from nas_seg.utils.errors import InputError


@dataclasses.dataclass(frozen=True)
class ProxyConfig:
    """How a trial trains.

    Attributes:
        steps: optimisation steps.
        batch_size: pictures a step.
        base_learning_rate, learning_power, momentum: of momentum SGD under polynomial decay to 0.
        weight_decay: L2 factor on kernels.
        label_stride: the loss is taken on every label_stride-th row and column of the labels, to which the
            logits are resized; the score always on all of them.
        filters: channels of every branch and of the projection.
    """

    steps: int = 200
    batch_size: int = 8
    base_learning_rate: float = 0.3
    learning_power: float = 0.9
    momentum: float = 0.9
    weight_decay: float = 4e-5
    label_stride: int = 4
    filters: int = 256

    def __post_init__(self):
        for name in ("steps", "batch_size", "label_stride", "filters"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: expected at least 1, received {getattr(self, name)}")
        if self.base_learning_rate <= 0:
            raise InputError(f"base_learning_rate: expected a number above 0, received {self.base_learning_rate}")


class ProxyEvaluator:
    """Scores dense prediction cells on cached features (an Evaluator of `nas_seg.search`).

    Args:
        train, val: caches of the two splits, of one backbone.
        num_classes: of the labels.
        ignore_label: left out of loss and score.
        output_stride: of the cached features; at 8 the cell's rates double.
        config: how a trial trains.
        class_names: with them a trial's metrics hold "iou/NAME" of every class that occurs.
    """

    def __init__(
        self,
        train: FeatureCache,
        val: FeatureCache,
        num_classes: int,
        ignore_label: int,
        output_stride: int = 16,
        config: ProxyConfig = ProxyConfig(),
        class_names: Sequence[str] = (),
    ):
        self.train, self.val = train, val
        self.num_classes, self.ignore_label = num_classes, ignore_label
        self.output_stride, self.config = output_stride, config
        self.class_names = tuple(class_names)
        if len(train) < config.batch_size:
            raise InputError(f"batch_size: expected at most the {len(train)} cached pictures, got {config.batch_size}")

    def __call__(self, genotype: DPCGenotype, *, seed: int, report: Report | None = None) -> dict[str, float]:
        """reward (val mIoU), pixel_accuracy, loss, params and madds of the context module, trace_seconds."""
        height, width, channels = self.train.features.shape[1:]
        scores = self.score(self.head(genotype), seed=seed, report=report)
        cost = count(genotype, channels, height, width, self.config.filters)
        return scores | {"params": float(cost.params), "madds": float(cost.madds)}

    def head(self, genotype: DPCGenotype) -> Callable[[], keras.Model]:
        """What makes the model of a trial: cached features -> logits."""

        def build() -> keras.Model:
            features = keras.Input(self.train.features.shape[1:], name="features")
            backbone = network.BackboneConfig(output_stride=self.output_stride)
            filters = self.config.filters
            config = network.DPCConfig(genotype, backbone, filters=filters, concat_filters=filters)
            return keras.Model(features, network.head(config, self.num_classes, features))

        return build

    def score(
        self, build_head: Callable[[], keras.Model], *, seed: int, report: Report | None = None
    ) -> dict[str, float]:
        """Trains any head (features -> logits) as a trial and scores it; cells and baselines go alike.

        `report` is called with the step and the recent mean loss after every tenth of the steps but the last.

        Raises:
            TrialFailed: when the loss is not a finite number, or memory runs out.
        """
        keras.backend.clear_session()
        keras.utils.set_random_seed(seed)
        try:
            model = build_head()
            training = _train(model, self.train, self.config, self.ignore_label, seed, report)
            result = _evaluate(model, self.val, self.config, self.num_classes, self.ignore_label)
        except tf.errors.ResourceExhaustedError:
            raise TrialFailed("out of memory") from None
        ious = zip(self.class_names, result["class_iou"], strict=False)
        scores = {REWARD: float(result["miou"]), "pixel_accuracy": float(result["pixel_accuracy"])}
        return scores | training | {f"iou/{name}": float(iou) for name, iou in ious if not np.isnan(iou)}


def _train(
    model: keras.Model,
    cache: FeatureCache,
    config: ProxyConfig,
    ignore_label: int,
    seed: int,
    report: Report | None = None,
) -> dict:
    schedule = PolynomialDecay(config.base_learning_rate, config.steps, config.learning_power)
    optimizer = Momentum(schedule, config.momentum)
    optimizer.build(model.trainable_variables)
    conv.set_batch_norm(model, max_momentum=conv.decay_for(config.steps))
    decayed = {id(kernel) for kernel in conv.regularized_kernels(model)}
    variables = model.trainable_variables

    @tf.function
    def step(features, labels):
        with tf.GradientTape() as tape:
            logits = model(tf.cast(features, tf.float32), training=True)
            logits = resize_bilinear(logits, labels.shape[1:3])
            total, pixels = losses.cross_entropy_sum(logits, labels, ignore_label)
            loss = tf.math.divide_no_nan(total, pixels)
        gradients = tape.gradient(loss, [v.value for v in variables])
        rules = zip(gradients, variables, strict=True)
        gradients = [g + config.weight_decay * v if id(v) in decayed else g for g, v in rules]
        optimizer.apply(gradients, variables)
        return loss

    recent = []
    tenth = max(1, config.steps // 10)
    start = time.monotonic()
    trace_seconds = 0.0
    for number, indices in enumerate(_batches(len(cache), config, seed)):
        labels = cache.labels[indices, :: config.label_stride, :: config.label_stride]
        loss = float(step(cache.features[indices], labels.astype(np.int32)))
        if not np.isfinite(loss):
            raise TrialFailed(f"diverged: loss {loss} at step {number} of {config.steps}")
        if number == 0:
            trace_seconds = time.monotonic() - start
        recent = [*recent, loss][-tenth:]
        if report is not None and (number + 1) % tenth == 0 and number + 1 < config.steps:
            report(number + 1, float(np.mean(recent)))
    lost = conv.first_not_finite(model)
    if lost:
        raise TrialFailed(f"diverged: {lost} is not finite after {config.steps} steps")
    return {"loss": float(np.mean(recent)), "trace_seconds": trace_seconds}


def _batches(num_pictures: int, config: ProxyConfig, seed: int):
    """Sorted indices of each step's pictures: epochs without repetition, alike for every cell of a search."""
    rng = np.random.default_rng(seed)
    order = np.empty(0, np.int64)
    for _ in range(config.steps):
        while len(order) < config.batch_size:
            order = np.concatenate([order, rng.permutation(num_pictures)])
        yield np.sort(order[: config.batch_size])
        order = order[config.batch_size :]


def _evaluate(model, cache: FeatureCache, config: ProxyConfig, num_classes: int, ignore_label: int) -> dict:
    @tf.function
    def predict(features):
        logits = model(tf.cast(features, tf.float32), training=False)
        return tf.argmax(resize_bilinear(logits, cache.labels.shape[1:3]), axis=-1, output_type=tf.int32)

    matrix = ConfusionMatrix(num_classes, ignore_label)
    for first in range(0, len(cache), config.batch_size):
        some = slice(first, first + config.batch_size)
        matrix.update(cache.labels[some], predict(cache.features[some]).numpy())
    return matrix.result()
