"""Averaged weights: what is evaluated and kept, that training itself does not change, several devices, resume."""

import subprocess
import sys

import numpy as np
import pytest
import training
from case import REPOSITORY

from nas_seg import train
from nas_seg.utils import runs
from nas_seg.utils.errors import InputError

_DECAY = 0.8


def _config(**changes):
    return train.TrainConfig(**training.CONFIG | {"training_number_of_steps": 6, "eval_interval_steps": 1} | changes)


def _trained(run_dir, config):
    """(the weights that each evaluation met, the model as the training left it)."""
    model, met = training.tiny_model(), []

    def evaluate():
        met.append([v.numpy() for v in model.trainable_variables])
        return {"miou": 0.1 * len(met)}

    train.fit(model, training.batches, config, run_dir, ignore_label=training.IGNORE, evaluate=evaluate)
    return met, model


def _kept(run_dir, name) -> list[np.ndarray]:
    model = training.tiny_model(seed=1)
    model.load_weights(runs.weights_path(run_dir, name))
    return [v.numpy() for v in model.trainable_variables]


def _close(actual, expected, atol=1e-6):
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=atol)


def test_evaluations_and_files_have_the_averages_and_training_goes_on_from_the_weights(tmp_path):
    plain, model = _trained(tmp_path / "plain", _config())
    averaged, other = _trained(tmp_path / "polyak", _config(polyak_decay=_DECAY))
    expected = [plain[0]]
    for weights in plain[1:]:
        pairs = zip(expected[-1], weights, strict=True)
        expected.append([_DECAY * average + (1 - _DECAY) * value for average, value in pairs])
    for actual, wanted in zip(averaged, expected, strict=True):
        _close(actual, wanted)
    _close(_kept(tmp_path / "polyak", runs.LAST), expected[-1])
    _close(_kept(tmp_path / "polyak", runs.BEST), expected[-1])
    # Statistics and random states too: averaging leaves the training itself as it is, bit for bit.
    for actual, wanted in zip(training.values(other), training.values(model), strict=True):
        np.testing.assert_array_equal(actual, wanted)
    assert max(np.abs(a - b).max() for a, b in zip(plain[-1], expected[-1], strict=True)) > 1e-3


def test_averages_are_a_part_of_the_checkpoint(tmp_path):
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    for run_dir, steps in ((parts, 3), (parts, 6), (whole, 6)):
        _trained(run_dir, _config(polyak_decay=_DECAY, training_number_of_steps=steps, decay_steps=6))
    for actual, wanted in zip(_kept(parts, runs.LAST), _kept(whole, runs.LAST), strict=True):
        np.testing.assert_array_equal(actual, wanted)


_TWO_REPLICAS = f"""
import sys
sys.path.insert(0, "tests")
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import training
from nas_seg import train
from nas_seg.utils import distribute
strategy = distribute.get_strategy("mirrored")
with strategy.scope():
    model = training.tiny_model(dropout=0)
config = train.TrainConfig(**training.CONFIG | {{"training_number_of_steps": 6, "polyak_decay": {_DECAY}}})
train.fit(model, training.batches, config, sys.argv[1], ignore_label=training.IGNORE, strategy=strategy)
"""


def test_two_replicas_average_what_one_device_averages(tmp_path):
    config = _config(polyak_decay=_DECAY)
    train.fit(training.tiny_model(dropout=0), training.batches, config, tmp_path / "one", ignore_label=training.IGNORE)
    command = [sys.executable, "-c", _TWO_REPLICAS, str(tmp_path / "two")]
    subprocess.run(command, cwd=REPOSITORY, check=True)
    # Sums in another order, in six steps.
    _close(_kept(tmp_path / "two", runs.LAST), _kept(tmp_path / "one", runs.LAST), atol=1e-5)


def test_a_decay_that_is_none_is_refused():
    with pytest.raises(InputError, match=r"polyak_decay: expected a number in \[0, 1\), received 1.0"):
        _config(polyak_decay=1.0)
