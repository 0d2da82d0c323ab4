"""Scheduled drop path: the original's schedule, unbiased drops, a step that every way of training counts."""

import json

import keras
import numpy as np
import pytest
from case import fixtures

from nas_seg.core.drop_path import TrainingProgress, drop_path, keep_probability


def test_schedule_is_the_recorded_one():
    samples = json.loads((fixtures("deeplab", "u_micro") / "micro.json").read_text())["drop_path"]["samples"]
    for sample in samples:
        progress = min(1.0, sample["step"] / sample["total"])
        keep = keep_probability(sample["p"], sample["cell"], sample["ncells"], progress)
        assert keep == pytest.approx(sample["keep"], abs=1e-12)


def test_kept_images_are_scaled_so_that_the_mean_stays():
    x = np.random.default_rng(0).normal(size=(4000, 2, 2, 3)).astype(np.float32)
    factors = np.asarray(drop_path(x, 0.8, keras.random.SeedGenerator(0))) / x
    # Each image is dropped or kept as a whole.
    np.testing.assert_allclose(np.ptp(factors, axis=(1, 2, 3)), 0, atol=1e-5)
    kept = factors[:, 0, 0, 0]
    np.testing.assert_allclose(np.unique(kept.round(4)), [0.0, 1.25])
    # The standard deviation of the mean is 0.5 / sqrt(4000) = 0.008.
    assert kept.mean() == pytest.approx(1.0, abs=0.04)


def test_kept_with_certainty_nothing_changes():
    x = np.ones((8, 2, 2, 3), np.float32)
    np.testing.assert_array_equal(drop_path(x, np.float32(1.0), keras.random.SeedGenerator(0)), x)


def test_progress_counts_training_steps_alone():
    layer, x = TrainingProgress(4), np.zeros((1, 2, 2, 3), np.float32)
    assert [float(layer(x, training=True)) for _ in range(6)] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    for _ in range(3):
        assert float(layer(x)) == 1.0
    assert int(layer.calls.value) == 6
    twice = TrainingProgress(2, calls_per_step=2)
    assert [float(twice(x, training=True)) for _ in range(5)] == [0.0, 0.0, 0.5, 0.5, 1.0]


def test_progress_survives_its_configuration_and_a_compiled_training(tmp_path):
    images = keras.Input((None, None, 3))
    layer = TrainingProgress(10, 1)
    shared = keras.layers.Lambda(lambda pair: pair[0] * (1.0 + pair[1]))([images, layer(images)])
    model = keras.Model(images, keras.layers.Conv2D(1, 1)(shared))
    model.compile("sgd", "mse")
    x = np.ones((4, 3, 3, 3), np.float32)
    model.fit(x, x[..., :1], batch_size=2, epochs=2, verbose=0)
    model.evaluate(x, x[..., :1], verbose=0)
    assert int(layer.calls.value) == 4
    model.save_weights(tmp_path / "model.weights.h5")
    layer.calls.assign(0)
    model.load_weights(tmp_path / "model.weights.h5")
    assert int(layer.calls.value) == 4
    twin = TrainingProgress.from_config(layer.get_config())
    assert (twin.total_steps, twin.calls_per_step) == (10, 1)
    assert twin.compute_output_shape((1, 2, 2, 3)) == ()
