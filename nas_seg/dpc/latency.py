"""How long a head takes for one picture: a cost that parameters and multiply-adds only hint at."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import keras
import tensorflow as tf

_WARMUP, _REPETITIONS = 3, 15


def head_seconds(model: keras.Model, feature_shape: Sequence[int]) -> float:
    """Seconds of one forward pass of a head at batch 1: the median of several, features [h, w, C] -> logits."""
    features = tf.random.stateless_normal((1, *feature_shape), (0, 0))

    @tf.function
    def predict(inputs):
        return model(inputs, training=False)

    times = []
    for _ in range(_WARMUP + _REPETITIONS):
        start = time.perf_counter()
        predict(features).numpy()
        times.append(time.perf_counter() - start)
    return statistics.median(times[_WARMUP:])
