import dataclasses
import json
import math
import os
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import training

import nas_seg
from nas_seg import gradients, losses, train
from nas_seg.core.backbones import BackboneConfig
from nas_seg.core.encoder_decoder import loss_model
from nas_seg.deeplab.network import DeepLabConfig
from nas_seg.model import ModelConfig
from nas_seg.utils import runs
from nas_seg.utils.errors import InputError


def config(**changes):
    return train.TrainConfig(**training.CONFIG | changes)


def fit(model, run_dir, config, **arguments):
    return train.fit(model, training.batches, config, run_dir, ignore_label=training.IGNORE, **arguments)


def start(run_dir, *arguments, **environment):
    path = os.pathsep.join([os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "tests/training.py", str(run_dir), *arguments],
        env=os.environ | {"PYTHONPATH": path} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def trained(run_dir, *arguments):
    process = start(run_dir, *arguments)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    with np.load(run_dir / "values.npz") as arrays:
        return [arrays[name] for name in arrays.files]


def losses_of(run_dir):
    return [(row["step"], row["loss"]) for row in runs.read_metrics(run_dir) if "loss" in row]


def assert_equal(received, expected):
    for a, b in zip(received, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The values and the rows of one whole training."""
    run_dir = tmp_path_factory.mktemp("whole")
    model = training.tiny_model()
    fit(model, run_dir, config())
    return training.values(model), losses_of(run_dir)


def test_training_learns(uninterrupted):
    _, rows = uninterrupted
    assert rows[-1][1] < 0.8 * rows[0][1]


def test_one_step_is_deeplabs_by_hand(tmp_path):
    # Backbone kernel: gradient + decay. Head kernel: the same times the multiplier. Bias: twice the multiplier and
    # no decay. gamma and beta: the gradient alone.
    model, decay, multiplier, rate = training.tiny_model(dropout=0), 0.01, 10.0, 0.1
    batch = next(iter(training.batches()))
    with tf.GradientTape() as tape:
        loss = losses.MaskedCrossEntropy(training.IGNORE)(batch["label"], model(batch["image"], training=True))
    before = [v.numpy() for v in model.trainable_variables]
    gradients = dict(
        zip(
            [v.path for v in model.trainable_variables],
            tape.gradient(loss, [v.value for v in model.trainable_variables]),
            strict=True,
        )
    )
    fresh = training.tiny_model(dropout=0)
    result = fit(
        fresh,
        tmp_path,
        config(
            training_number_of_steps=1,
            base_learning_rate=rate,
            weight_decay=decay,
            last_layer_gradient_multiplier=multiplier,
        ),
    )
    assert result["loss"] == pytest.approx(float(loss), rel=1e-6)
    checked = set()
    for old, model_variable, new in zip(before, model.trainable_variables, fresh.trainable_variables, strict=True):
        head, kind = "logits" in new.path, new.name
        change = gradients[model_variable.path] + (decay * old if kind == "kernel" else 0)
        change = change * (multiplier if head else 1) * (2 if kind == "bias" else 1)
        np.testing.assert_allclose(new.numpy(), old - rate * change, rtol=1e-5, atol=1e-7)
        checked.add((head, kind))
    assert checked == {(False, "kernel"), (False, "gamma"), (False, "beta"), (True, "kernel"), (True, "bias")}


@pytest.mark.parametrize("stop", [6, 11])
def test_two_parts_equal_the_whole_bit_for_bit(tmp_path, uninterrupted, stop):
    class Stop(Exception):
        pass

    def until_stop(start_step):
        def check(k):
            if k >= stop:
                raise Stop
            return k

        numbers = tf.data.Dataset.range(start_step, 1 << 40).map(lambda k: tf.numpy_function(check, [k], tf.int64))
        return tf.data.Dataset.zip(training.batches(start_step), numbers).map(lambda batch, _: batch)

    with pytest.raises(tf.errors.OpError):
        train.fit(training.tiny_model(), until_stop, config(), tmp_path, ignore_label=training.IGNORE)
    # Another seed: whatever matters must come from the checkpoint.
    again = training.tiny_model(seed=5)
    fit(again, tmp_path, config())
    values, rows = uninterrupted
    assert_equal(training.values(again), values)
    assert losses_of(tmp_path) == rows


def test_kill_9_and_the_same_command_equal_the_whole_bit_for_bit(tmp_path, uninterrupted):
    process = start(tmp_path, "--kill_at=15")
    process.communicate()
    assert process.returncode == -9
    assert runs.read_metrics(tmp_path)[-1]["step"] < 20
    values, rows = uninterrupted
    assert_equal(trained(tmp_path), values)
    assert losses_of(tmp_path) == rows


def test_a_finished_training_is_not_trained_further(tmp_path):
    model = training.tiny_model()
    first = fit(model, tmp_path, config())
    again = training.tiny_model(seed=5)
    assert fit(again, tmp_path, config()) == first
    assert_equal(training.values(again), training.values(model))


def test_two_replicas_learn_what_one_device_learns(tmp_path):
    # No dropout, whose masks depend on the shape of a replica's batch.
    one = trained(tmp_path / "one", "--dropout=0")
    two = trained(tmp_path / "two", "--dropout=0", "--replicas=2", "--strategy=mirrored")
    # Float32 sums in another order, over 20 steps at rate 0.1. A loss normalised by each replica, whose shares of
    # ignored pixels differ, is off by 1e-2.
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(losses_of(tmp_path / "one"), losses_of(tmp_path / "two"), rtol=1e-6)


@pytest.mark.slow
def test_two_workers_learn_what_one_device_learns_and_one_of_them_writes(tmp_path):
    one = trained(tmp_path / "one", "--dropout=0")
    sockets = [socket.create_server(("localhost", 0)) for _ in range(2)]
    workers = [f"localhost:{server.getsockname()[1]}" for server in sockets]
    for server in sockets:
        server.close()
    tasks = [{"cluster": {"worker": workers}, "task": {"type": "worker", "index": i}} for i in range(2)]
    processes = [start(tmp_path / "two", "--dropout=0", TF_CONFIG=json.dumps(task)) for task in tasks]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    with np.load(tmp_path / "two" / "values.npz") as arrays:
        for a, name in zip(one, arrays.files, strict=True):
            np.testing.assert_allclose(a, arrays[name], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(losses_of(tmp_path / "one"), losses_of(tmp_path / "two"), rtol=1e-6)


def test_the_best_weights_are_those_of_the_highest_score(tmp_path):
    model, scores, seen = training.tiny_model(), iter([0.2, 0.5, 0.5, 0.1]), []

    def evaluate():
        seen.append([v.numpy() for v in model.weights])
        return {"miou": next(scores), "class_iou": np.array([0.5, np.nan])}

    result = fit(model, tmp_path, config(eval_interval_steps=5), evaluate=evaluate)
    assert result["best_step"] == 10 and result["val_miou"] == 0.5
    rows = [row for row in runs.read_metrics(tmp_path) if "val_miou" in row]
    assert [row["step"] for row in rows] == [5, 10, 15, 20]
    assert rows[0]["val_class_iou"] == [0.5, None]
    loaded = training.tiny_model(seed=3)
    loaded.load_weights(runs.find_weights(tmp_path, "best"))
    assert_equal([v.numpy() for v in loaded.weights], seen[1])
    loaded.load_weights(runs.find_weights(tmp_path, "last"))
    assert_equal([v.numpy() for v in loaded.weights], [v.numpy() for v in model.weights])


def test_without_any_valid_score_the_last_weights_are_found(tmp_path):
    fit(training.tiny_model(), tmp_path, config(), evaluate=lambda: {"miou": float("nan")})
    assert runs.find_weights(tmp_path).name == "last.weights.h5"


@pytest.mark.parametrize("fine_tune", [True, False])
def test_frozen_batch_norm_keeps_its_averages_and_trains_gamma_and_beta(tmp_path, fine_tune):
    model, fresh = training.tiny_model(), training.tiny_model()
    fit(model, tmp_path, config(fine_tune_batch_norm=fine_tune))
    moved = {
        v.name: not np.array_equal(v.numpy(), old.numpy())
        for v, old in zip(model.variables, fresh.variables, strict=True)
    }
    assert moved["moving_mean"] == moved["moving_variance"] == fine_tune
    assert moved["gamma"] and moved["beta"]


def test_of_the_averages_that_layers_begin_with_a_short_training_leaves_nothing(tmp_path):
    model = training.tiny_model(dropout=0.0)
    convolution, norm = model.get_layer("backbone").layers[1:3]
    # Activations that vary by so little that 0.3% of the first variance, 1, would be a hundred times theirs.
    convolution.kernel.assign(convolution.kernel * 0.01)
    fit(model, tmp_path, config(base_learning_rate=0.0, batch_norm_decay=None))
    images = np.concatenate([batch["image"] for batch in training.batches().take(20)]) / 127.5 - 1
    features = convolution(images).numpy()
    np.testing.assert_allclose(norm.moving_variance, features.var((0, 1, 2)), rtol=0.05)
    np.testing.assert_allclose(norm.moving_mean, features.mean((0, 1, 2)), atol=0.05 * features.std())


def test_a_loss_that_is_not_finite_stops_at_its_step_and_saves_nothing_of_it(tmp_path):
    def broken(start_step):
        def spoil(k, batch):
            image = tf.where(k == 8, float("nan"), batch["image"])
            return batch | {"image": image}

        return tf.data.Dataset.zip(tf.data.Dataset.range(start_step, 100), training.batches(start_step)).map(spoil)

    with pytest.raises(train.Diverged, match="no longer a finite number at step 8$"):
        train.fit(training.tiny_model(), broken, config(), tmp_path, ignore_label=training.IGNORE)
    assert runs.read_metrics(tmp_path)[-1]["step"] == 8
    assert tf.train.latest_checkpoint(str(tmp_path / "ckpt")).endswith("step-6")


@pytest.mark.parametrize("place", ["small", "large", None])
def test_one_number_of_one_gradient_that_is_not_finite_is_noticed(place):
    """Of a gradient that is looked at together with others, and of one that is looked at alone."""
    values = {"small": np.ones(3, np.float32), "large": np.ones((200, 100), np.float32)}
    if place:
        values[place].flat[-1] = np.inf
    assert bool(gradients._all_finite([None, *map(tf.constant, values.values())])) == (place is None)


def test_a_label_out_of_range_is_an_input_error(tmp_path):
    def stray(start_step):
        return training.batches(start_step).map(lambda batch: batch | {"label": tf.minimum(batch["label"], 4)})

    with pytest.raises(InputError, match=r"labels: \d+ pixels of batches 0..3 are neither a class"):
        train.fit(training.tiny_model(), stray, config(), tmp_path, ignore_label=training.IGNORE)


def test_a_checkpoint_of_another_network_is_named_with_its_variable(tmp_path):
    fit(training.tiny_model(), tmp_path, config(training_number_of_steps=1))
    message = (
        r"step-1: checkpoint of another network: .*kernel: expected shape \(3, 3, 3, 16\), received \(3, 3, 3, 8\)"
    )
    with pytest.raises(InputError, match=message):
        fit(training.tiny_model(filters=16), tmp_path, config())


def test_a_broken_checkpoint_is_named(tmp_path):
    fit(training.tiny_model(), tmp_path, config(training_number_of_steps=1))
    (tmp_path / "ckpt" / "step-1.index").write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match=r"step-1: the checkpoint cannot be read"):
        fit(training.tiny_model(), tmp_path, config())


def test_a_multiplier_of_the_last_layers_needs_a_backbone(tmp_path):
    model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(4, 1)])
    with pytest.raises(
        InputError, match="last_layer_gradient_multiplier: expected a model with a layer named 'backbone'"
    ):
        fit(model, tmp_path, config(last_layer_gradient_multiplier=10.0))


def test_hard_pixels_and_label_weights_reach_the_loss(tmp_path):
    changes = {"label_weights": (1.0, 2.0, 0.5, 1.0), "top_k_percent_pixels": 0.25, "hard_example_mining_step": 10}
    first = config(training_number_of_steps=1)
    plain = fit(training.tiny_model(), tmp_path / "plain", first)["loss"]
    received = {
        name: fit(training.tiny_model(), tmp_path / name, dataclasses.replace(first, **{name: value}))["loss"]
        for name, value in changes.items()
        if name != "hard_example_mining_step"
    }
    assert received["top_k_percent_pixels"] > 1.2 * plain
    assert abs(received["label_weights"] - plain) > 1e-3
    both = dataclasses.replace(first, top_k_percent_pixels=0.25, hard_example_mining_step=10)
    # At step 0 the share of kept pixels is still 1.
    assert fit(training.tiny_model(), tmp_path / "both", both)["loss"] == pytest.approx(plain, rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_batch_size": 0}, "train_batch_size: expected 1 or more, received 0"),
        ({"seed": 2**32}, "seed: expected 4294967295 or less, received 4294967296"),
        ({"max_scale_factor": math.inf}, "max_scale_factor: expected a finite number, received inf"),
        ({"base_learning_rate": math.nan}, "base_learning_rate: expected a finite number, received nan"),
        ({"momentum": 1.0}, r"momentum: expected a number in \[0, 1\), received 1.0"),
        ({"slow_start_step": 20}, "slow_start_step: expected fewer than training_number_of_steps 20, received 20"),
        ({"top_k_percent_pixels": 0.0}, r"top_k_percent_pixels: expected a share in \(0, 1\]"),
        ({"max_scale_factor": 0.2}, "max_scale_factor: expected min_scale_factor or more"),
        ({"base_learning_rate": -1.0}, "base_learning_rate: expected 0 or more"),
    ],
)
def test_a_wrong_setting_is_named(changes, message):
    with pytest.raises(InputError, match=message):
        config(**changes)


def test_an_image_pyramid_adds_up_a_loss_for_each_scale_and_one_for_the_merged_logits(tmp_path):
    keras.utils.set_random_seed(0)
    backbone = BackboneConfig(depth_multiplier=0.35, divisible_by=8)
    network = DeepLabConfig(backbone, head="none", atrous_rates=(), image_pyramid=(0.5, 1.0))
    model = nas_seg.build(ModelConfig(training.NUM_CLASSES, network))
    batch = next(iter(training.batches()))
    outputs = loss_model(model)(batch["image"], training=True)
    assert len(outputs) == 3
    expected = 0.0
    for logits in outputs.values():
        total, count = losses.cross_entropy_sum(logits, batch["label"], training.IGNORE)
        expected += float(total / count)
    one_step = config(training_number_of_steps=1, log_steps=1, save_interval_steps=1, eval_interval_steps=1)
    fit(model, tmp_path, one_step)
    # float32 sums in another order.
    assert losses_of(tmp_path)[0][1] == pytest.approx(expected, rel=1e-4)
