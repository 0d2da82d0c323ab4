"""A trial of a template network, in two stages: the decoder on cached maps of the encoder, then all weights.

Source: the authors' code (Nekrasov et al.), which trains a sampled network so: "task 0" and "task 1".
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from nas_seg.common import REJECTED, REWARD
from nas_seg.core.feature_cache import FeatureCache
from nas_seg.metrics import ConfusionMatrix
from nas_seg.search.evaluator import Report, TrialFailed
from nas_seg.template.genotype import TemplateGenotype
from nas_seg.template.proxy_config import COARSE_STRIDE, LABEL_STRIDE, TemplateProxyConfig, check_crop
from nas_seg.template.proxy_training import Decoder, Encoder, Pictures
from nas_seg.template.rejection import Rejection
from nas_seg.utils.errors import InputError

# Names of metrics: of both stages, and whether a trial ended with the first.
STAGE0, STAGE1 = "stage0_reward", "stage1_reward"


class Scored(NamedTuple):
    """What early rejection needs to know of the trials before: how it judges, and their metrics in their order."""

    rejection: Rejection
    metrics: Sequence[Mapping[str, float]]


class TemplateProxyEvaluator:
    """Scores template networks (an Evaluator of `nas_seg.search`).

    Args:
        train, val: caches of the two splits: the map at stride 8, then that at stride 4, then in `train` perhaps a
            teacher's logits at stride 4.
        num_classes: of the labels.
        ignore_label: left out of loss and score.
        config: how a trial trains.
        class_names: with them a trial's metrics hold "iou/NAME" of every class that occurs.
        pictures: needed where the configuration has a second stage.
    """

    def __init__(
        self,
        train: FeatureCache,
        val: FeatureCache,
        num_classes: int,
        ignore_label: int,
        config: TemplateProxyConfig,
        class_names: Sequence[str] = (),
        pictures: Pictures | None = None,
    ):
        self.train, self.val, self.config = train, val, config
        self.num_classes, self.ignore_label = num_classes, ignore_label
        self.class_names = tuple(class_names)
        self.size = tuple(train.labels.shape[1:3])
        if len(train) < config.batch_size:
            raise InputError(f"batch_size: expected at most the {len(train)} cached pictures, got {config.batch_size}")
        check_crop(config.crop_size, self.size)
        self._encoder = Encoder(pictures, config) if config.stage1_steps else None

    def __call__(
        self,
        genotype: TemplateGenotype,
        *,
        seed: int,
        report: Report | None = None,
        scored: Callable[[], Scored] | None = None,
    ) -> dict[str, float]:
        """Trains and scores a network.

        Args:
            genotype: the network.
            seed: of everything random in the trial.
            report: called with the step and the recent mean loss after every tenth of the steps but the last.
            scored: with it a network may be rejected after the first stage.

        Returns:
            reward, miou, mean_accuracy, fw_iou, iou/NAME of the last stage that it went through, stage0_reward and
            stage1_reward of the stages that it did, rejected (0 or 1), loss, params and madds of the network as it was
            trained, trace_seconds and their share of the trial. The reward is the cube root of miou * mean_accuracy *
            fw_iou; that of a rejected network is an estimate, see `estimate`.

        Raises:
            TrialFailed: when the loss is not a finite number, or memory runs out.
        """
        start = time.monotonic()
        keras.backend.clear_session()
        keras.utils.set_random_seed(seed)
        with _memory_errors():
            decoder = self._build(genotype)
            metrics = self._stages(decoder, seed, _Progress(self.config, report), _judge(scored, genotype, seed))
        cost = self.config.costs(genotype, self.num_classes, self.size)
        traced = decoder.trace_seconds() + (self._encoder.trace_seconds() if self._encoder else 0.0)
        spent = time.monotonic() - start
        timing = {"trace_seconds": round(traced, 3), "trace_share": round(traced / spent, 4)}
        return metrics | {"params": float(cost.params), "madds": float(cost.madds)} | timing

    def _stages(self, decoder: Decoder, seed: int, progress: _Progress, judge: Callable) -> dict[str, float]:
        stages, scores, config = {REJECTED: 0.0}, {}, self.config
        if config.stage0_steps:
            for *maps, labels, teacher in self.batches(seed):
                progress.loss(decoder.step(maps, labels, teacher, config.distillation, config.stage0_learning_rate)[0])
            decoder.optimizer.take_average()
            decoder.check_finite()
            scores = self._measure(decoder, self._cached_val())
            stages[STAGE0] = scores[REWARD]
            reward = judge(scores[REWARD]) if config.stage1_steps else None
            if reward is not None:
                return scores | stages | {REWARD: reward, REJECTED: 1.0, "loss": progress.recent}
        if config.stage1_steps:
            self._train_all(decoder, seed, progress)
            scores = self._measure(decoder, self._encoder.val_maps())
            stages[STAGE1] = scores[REWARD]
        return scores | stages | {"loss": progress.recent}

    def _build(self, genotype: TemplateGenotype) -> Decoder:
        fine, coarse = (cached.shape[1:] for cached in (self.val.more[0], self.val.features))
        return Decoder(genotype, self.config, self.num_classes, self.ignore_label, (fine, coarse), self.size)

    def batches(self, seed: int) -> Iterator[tuple[Any, ...]]:
        """(fine map, coarse map, labels, teacher's logits or None) of each step of the first stage."""
        rng, config, cache = np.random.default_rng(seed), self.config, self.train
        height, width = size = config.crop_size or self.size
        free = [(whole - part) // COARSE_STRIDE + 1 for whole, part in zip(self.size, size, strict=True)]
        order = np.empty(0, np.int64)
        for _ in range(config.stage0_steps):
            while len(order) < config.batch_size:
                order = np.concatenate([order, rng.permutation(len(cache))])
            indices, order = np.sort(order[: config.batch_size]), order[config.batch_size :]
            corners = rng.integers(free, size=(config.batch_size, 2))

            def cut(array, stride, indices=indices, corners=corners):
                rows, columns = ((side - 1) // stride + 1 for side in (height, width))
                starts = corners * (COARSE_STRIDE // stride)
                parts = zip(indices, starts, strict=True)
                return np.stack([array[i, y : y + rows, x : x + columns] for i, (y, x) in parts])

            labels = cut(cache.labels, 1)[:, ::LABEL_STRIDE, ::LABEL_STRIDE]
            fine, coarse = cut(cache.more[0], LABEL_STRIDE), cut(cache.features, COARSE_STRIDE)
            teacher = _floats(cut(cache.more[1], LABEL_STRIDE)) if len(cache.more) > 1 else None
            yield _floats(fine), _floats(coarse), tf.cast(labels, tf.int32), teacher

    def _train_all(self, decoder: Decoder, seed: int, progress: _Progress) -> None:
        config, encoder = self.config, self._encoder
        encoder.reset()
        for images, labels in itertools.islice(encoder.pictures.train(seed), config.stage1_steps):
            labels = tf.cast(labels[:, ::LABEL_STRIDE, ::LABEL_STRIDE], tf.int32)
            with tf.GradientTape() as tape:
                maps = encoder.forward(images)
            # A teacher says nothing of crops that are drawn anew.
            teacher = None if len(self.train.more) < 2 else tf.zeros((*labels.shape, self.num_classes))
            loss, gradients = decoder.step(maps, labels, teacher, 0.0, config.stage1_learning_rate)
            encoder.backward(tape.gradient(maps, encoder.optimizer.variables, gradients))
            progress.loss(loss)
        for optimizer in (decoder.optimizer, encoder.optimizer):
            optimizer.take_average()
        for part in (decoder, encoder):
            part.check_finite()

    def _cached_val(self) -> Iterator[tuple[Any, Any]]:
        for first in range(0, len(self.val), self.config.batch_size):
            some = slice(first, first + self.config.batch_size)
            yield _floats(self.val.more[0][some]), _floats(self.val.features[some])

    def _measure(self, decoder: Decoder, batches: Iterable[tuple[Any, Any]]) -> dict[str, float]:
        matrix, first = ConfusionMatrix(self.num_classes, self.ignore_label), 0
        for maps in batches:
            predicted = decoder.predict(*maps)
            matrix.update(self.val.labels[first : first + len(predicted)], predicted)
            first += len(predicted)
        return scores_of(matrix, self.class_names)


def scores_of(matrix: ConfusionMatrix, class_names: Sequence[str] = ()) -> dict[str, float]:
    """reward (the cube root of the product of the next three), miou, mean_accuracy, fw_iou and iou/NAME of each class.

    Classes that occur neither in the labels nor in the predictions are left out, and of the mean accuracy all that do
    not occur in the labels.
    """
    result = matrix.result()
    parts = {
        "miou": float(result["miou"]),
        "mean_accuracy": float(result["mean_accuracy"]),
        "fw_iou": float(result["frequency_weighted_iou"]),
    }
    ious = zip(class_names, result["class_iou"], strict=False)
    classes = {f"iou/{name}": float(iou) for name, iou in ious if not np.isnan(iou)}
    return {REWARD: float(np.cbrt(np.prod(list(parts.values())))), **parts, **classes}


def estimate(score: float, metrics: Iterable[Mapping[str, float]]) -> float | None:
    """The reward of a network that is rejected with this score of the first stage.

    It is the score and what the second stage added on average to those that went through both, so that all rewards of
    a study are on the scale of the second stage, and like them within 0 and 1. None where no trial tells.
    """
    gains = [one[STAGE1] - one[STAGE0] for one in metrics if STAGE0 in one and STAGE1 in one]
    return float(np.clip(score + statistics.fmean(gains), 0, 1)) if gains else None


def _judge(scored: Callable[[], Scored] | None, genotype: TemplateGenotype, seed: int) -> Callable:
    """Takes the score of the first stage; gives the reward to end with, or None to go on."""

    def judge(score: float) -> float | None:
        if scored is None:
            return None
        rejection, metrics = scored()
        earlier = [one[STAGE0] for one in metrics if STAGE0 in one]
        draw = np.random.default_rng([seed, int(genotype.digest, 16)]).random()
        return estimate(score, metrics) if rejection.rejects(earlier, score, draw) else None

    return judge


class _Progress:
    """The losses of a trial: what is reported of them, and their mean over the last tenth of all steps."""

    def __init__(self, config: TemplateProxyConfig, report: Report | None):
        self._total = config.stage0_steps + config.stage1_steps
        self._tenth = max(1, self._total // 10)
        self._report, self._losses = report, []

    @property
    def recent(self) -> float:
        return float(np.mean(self._losses[-self._tenth :]))

    def loss(self, value: float) -> None:
        self._losses.append(value)
        done = len(self._losses)
        if self._report is not None and done % self._tenth == 0 and done < self._total:
            self._report(done, self.recent)


def _floats(values: np.ndarray) -> tf.Tensor:
    return tf.cast(values, tf.float32)


@contextlib.contextmanager
def _memory_errors() -> Iterator[None]:
    try:
        yield
    except tf.errors.ResourceExhaustedError:
        raise TrialFailed("out of memory") from None
