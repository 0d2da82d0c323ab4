"""The proxy task: train a context module on cached features of a frozen backbone, score it by mIoU.

Source: Chen et al. (2018), the proxy task. The backbone's features do not change during a search, so they are computed
once (`nas_seg.core.feature_cache`) and a trial trains the cell and the logits alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

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
from nas_seg.utils.errors import InputError, unknown

DTYPE_POLICIES = ("float32", "mixed_bfloat16")


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
        crop_size: (height, width) in input pixels of the window of the cached map that a step trains on, drawn
            anew each time; each is k * output_stride + 1. None: the whole map. The score is always of whole maps.
        dtype_policy: Keras' name of the numbers a trial computes in; weights and logits stay float32.
    """

    steps: int = 200
    batch_size: int = 8
    base_learning_rate: float = 0.3
    learning_power: float = 0.9
    momentum: float = 0.9
    weight_decay: float = 4e-5
    label_stride: int = 4
    filters: int = 256
    crop_size: tuple[int, int] | None = None
    dtype_policy: str = "float32"

    def __post_init__(self):
        if self.dtype_policy not in DTYPE_POLICIES:
            raise unknown("dtype_policy", self.dtype_policy, DTYPE_POLICIES)
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
        check_crop(config.crop_size, train.labels.shape[1:3], output_stride)
        self._window = _window(config, output_stride)

    def __call__(self, genotype: DPCGenotype, *, seed: int, report: Report | None = None) -> dict[str, float]:
        """reward (val mIoU), pixel_accuracy, loss, params and madds of the context module, trace_seconds."""
        return self.score(self.head(genotype), seed=seed, report=report) | self.costs(genotype)

    def costs(self, genotype: DPCGenotype) -> dict[str, float]:
        """params and madds of a cell's branches, on the whole cached map."""
        height, width, channels = self.train.features.shape[1:]
        cost = count(genotype, channels, height, width, self.config.filters)
        return {"params": float(cost.params), "madds": float(cost.madds)}

    def head(self, genotype: DPCGenotype) -> Callable[[], keras.Model]:
        """What makes the model of a trial: cached features -> logits."""

        def build() -> keras.Model:
            features = keras.Input((None, None, self.train.features.shape[-1]), name="features")
            backbone = network.BackboneConfig(output_stride=self.output_stride)
            filters = self.config.filters
            config = network.DPCConfig(
                genotype, backbone, filters=filters, concat_filters=filters, crop_size=self.config.crop_size
            )
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
        model, training = self.fit(build_head, seed=seed, report=report)
        return self.measure(model, self.val) | training

    def fit(
        self, build_head: Callable[[], keras.Model], *, seed: int, report: Report | None = None
    ) -> tuple[keras.Model, dict[str, float]]:
        """The trained head, and the loss and the trace_seconds of its training; see `score`."""
        keras.backend.clear_session()
        keras.utils.set_random_seed(seed)
        with _memory_errors():
            model = self.build(build_head)
            return model, _train(model, self.batches(seed), self.config, self.ignore_label, report)

    def build(self, build_head: Callable[[], keras.Model]) -> keras.Model:
        """A head with fresh weights that computes in the numbers of the configuration."""
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self.config.dtype_policy)
        try:
            return build_head()
        finally:
            keras.config.set_dtype_policy(before)

    def batches(self, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(features, labels) of each step of a trial, alike for every head: `make_step` takes them."""
        return _batches(self.train, self.config, self._window, seed)

    def with_config(self, config: ProxyConfig) -> ProxyEvaluator:
        """The same over the same caches with another configuration."""
        facts = (self.num_classes, self.ignore_label, self.output_stride)
        return ProxyEvaluator(self.train, self.val, *facts, config, self.class_names)

    def measure(self, model: keras.Model, cache: FeatureCache) -> dict[str, float]:
        """reward (mIoU), pixel_accuracy and class IoUs of a trained head on the pictures of a cache."""
        with _memory_errors():
            result = _evaluate(model, cache, self.config, self.num_classes, self.ignore_label)
        ious = zip(self.class_names, result["class_iou"], strict=False)
        scores = {REWARD: float(result["miou"]), "pixel_accuracy": float(result["pixel_accuracy"])}
        return scores | {f"iou/{name}": float(iou) for name, iou in ious if not np.isnan(iou)}


@contextlib.contextmanager
def _memory_errors() -> Iterator[None]:
    try:
        yield
    except tf.errors.ResourceExhaustedError:
        raise TrialFailed("out of memory") from None


@dataclasses.dataclass(frozen=True)
class _Window:
    """What a step sees of a cached picture: `rows` x `columns` positions of the map, `stride` pixels apart."""

    rows: int
    columns: int
    stride: int


def check_crop(crop_size: tuple[int, int] | None, size: tuple[int, int], stride: int) -> None:
    """InputError unless a crop lies on the positions of the maps of pictures of a size."""
    for crop, whole in zip(crop_size or size, size, strict=True):
        if crop_size and (crop % stride != 1 or whole % stride != 1 or not stride < crop <= whole):
            raise InputError(
                f"crop_size: expected k * {stride} + 1, at most the pictures' {size[0]},{size[1]} of that form, "
                f"received {crop_size[0]},{crop_size[1]}"
            )


def _window(config: ProxyConfig, stride: int) -> _Window | None:
    """The window of `config.crop_size`; None where that is the whole map."""
    if config.crop_size is None:
        return None
    return _Window(*((crop - 1) // stride + 1 for crop in config.crop_size), stride)


def _train(
    model: keras.Model,
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    config: ProxyConfig,
    ignore_label: int,
    report: Report | None = None,
) -> dict[str, float]:
    conv.set_batch_norm(model, max_momentum=conv.decay_for(config.steps))
    step = make_step(model, config, ignore_label)
    recent = []
    tenth = max(1, config.steps // 10)
    start = time.monotonic()
    trace_seconds = 0.0
    for number, (features, labels) in enumerate(batches):
        loss = float(step(features, labels))
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


def make_step(model: keras.Model, config: ProxyConfig, ignore_label: int) -> Callable:
    """A compiled training step of a head: (features [B, h, w, C], labels int32 [B, H, W]) -> loss."""
    schedule = PolynomialDecay(config.base_learning_rate, config.steps, config.learning_power)
    optimizer = Momentum(schedule, config.momentum)
    variables = model.trainable_variables
    optimizer.build(variables)
    decayed = {id(kernel) for kernel in conv.regularized_kernels(model)}

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

    return step


def _batches(
    cache: FeatureCache, config: ProxyConfig, window: _Window | None, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng((seed, 1))
    every = config.label_stride
    for indices in _indices(len(cache), config, seed):
        if window is None:
            features, labels = cache.features[indices], cache.labels[indices]
        else:
            free = np.subtract(cache.features.shape[1:3], (window.rows, window.columns))
            corners = rng.integers(free + 1, size=(len(indices), 2))
            parts = [_cut(cache, i, corner, window) for i, corner in zip(indices, corners, strict=True)]
            features, labels = (np.stack(part) for part in zip(*parts, strict=True))
        yield features, labels[:, ::every, ::every].astype(np.int32)


def _cut(cache: FeatureCache, index: int, corner, window: _Window) -> tuple[np.ndarray, np.ndarray]:
    """The features and labels of one window; positions of the map lie on every stride-th pixel."""
    y, x = corner
    top, left = y * window.stride, x * window.stride
    height, width = ((n - 1) * window.stride + 1 for n in (window.rows, window.columns))
    features = cache.features[index, y : y + window.rows, x : x + window.columns]
    return features, cache.labels[index, top : top + height, left : left + width]


def _indices(num_pictures: int, config: ProxyConfig, seed: int) -> Iterator[np.ndarray]:
    """Sorted indices of each step's pictures: epochs without repetition."""
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
