"""What devices, parts of a batch and numbers of fewer bits change about a training: nothing, or little that is told."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
import training
from case import REPOSITORY

from nas_seg import model as model_lib
from nas_seg import pipeline, train
from nas_seg.core.backbones import BackboneConfig
from nas_seg.core.drop_path import TrainingProgress
from nas_seg.datasets import build_data, data_generator, synthetic
from nas_seg.deeplab.network import DeepLabConfig
from nas_seg.eval import evaluate
from nas_seg.export_model import export_saved_model
from nas_seg.model import ModelConfig
from nas_seg.train_config import TrainConfig
from nas_seg.utils import distribute, runs
from nas_seg.utils.errors import InputError

NETWORK = DeepLabConfig(
    BackboneConfig(depth_multiplier=0.35, divisible_by=8, output_stride=32), head="none", atrous_rates=()
)
TRAIN = TrainConfig(
    train_crop_size=(33, 33),
    train_batch_size=2,
    training_number_of_steps=2,
    base_learning_rate=0.01,
    log_steps=1,
    save_interval_steps=1,
    eval_interval_steps=2,
    # Sums of a few pictures in other orders are far apart where statistics of a handful of numbers divide them.
    fine_tune_batch_norm=False,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(losses by step, all values) by the name of a case in `devices.CASES`."""
    folder = tmp_path_factory.mktemp("devices")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "tests/devices.py", folder], cwd=REPOSITORY, env=environment, check=True)
    return {path.stem: dict(np.load(path)) for path in folder.glob("*.npz")}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("one", "two"),  # Synchronised batch norm; the first device has nothing but ignored pixels.
        ("whole", "parts"),  # Four parts of one picture each.
        ("whole", "two_parts"),  # Two parts on each of two devices.
    ],
)
def test_devices_and_parts_learn_what_one_device_learns_at_once(trained, one, other):
    assert trained[one].keys() == trained[other].keys()
    for name, expected in trained[one].items():
        # Float32 sums in another order. A loss that each device or part divides by itself is off by 1e-2.
        np.testing.assert_allclose(trained[other][name], expected, rtol=1e-6, atol=1e-6, err_msg=name)
    assert len(set(trained[one]["losses"].tolist())) == len(trained[one]["losses"])


def test_steps_whose_float16_gradients_overflow_on_one_device_are_left_out_on_all(trained):
    steep = trained["two_steep"]
    # Twelve steps, each of which halves the scale, 2 ** 15 at the beginning.
    assert steep["iterations"] == 12 and steep["scale"] == 2.0**3
    assert all(np.isfinite(value).all() for value in steep.values())


def config(**changes):
    return train.TrainConfig(**training.CONFIG | {"training_number_of_steps": 4, "decay_steps": 4} | changes)


def fit(run_dir, config):
    """The trained model and the losses of its steps."""
    keras.config.set_dtype_policy(config.dtype_policy)
    try:
        model = training.tiny_model()
    finally:
        keras.config.set_dtype_policy("float32")
    train.fit(model, training.batches, config, run_dir, ignore_label=training.IGNORE)
    return model, [row["loss"] for row in runs.read_metrics(run_dir) if "loss" in row]


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_learns_nearly_the_same_and_goes_on_where_it_was_stopped(tmp_path, policy):
    whole = config(dtype_policy=policy, polyak_decay=0.5, log_steps=1, save_interval_steps=2)
    model, losses = fit(tmp_path / "whole", whole)
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    _, exact = fit(tmp_path / "float32", dataclasses.replace(whole, dtype_policy="float32"))
    # Numbers of 8 and 11 bits, and the losses are about 1.5.
    np.testing.assert_allclose(losses, exact, atol=0.05)
    assert losses != exact
    fit(tmp_path / "parts", dataclasses.replace(whole, training_number_of_steps=2))
    again, rows = fit(tmp_path / "parts", whole)
    assert rows == losses
    for a, b in zip(training.values(again), training.values(model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_gradients_that_no_scale_makes_finite_stop_the_training(tmp_path):
    steep = {"label_weights": (1e30,) * training.NUM_CLASSES, "training_number_of_steps": 20, "decay_steps": 20}
    # The scale is 2 ** 15 at step 0, and 1 at step 15.
    with pytest.raises(train.Diverged, match="at step 15$"):
        fit(tmp_path, config(dtype_policy="mixed_float16", **steep))


def test_parts_that_do_not_divide_the_batch_are_refused(tmp_path):
    with pytest.raises(InputError, match="micro_batches: expected a divisor of train_batch_size 4, received 3"):
        config(micro_batches=3)
    strategy = types.SimpleNamespace(num_replicas_in_sync=4)
    with pytest.raises(InputError, match=r"expected a multiple of 8 \(4 devices x 2 micro_batches\), received 4"):
        train.fit(None, None, config(micro_batches=2), tmp_path, ignore_label=255, strategy=strategy)


def test_an_unknown_number_format_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="dtype_policy: unknown dtype_policy 'mixed_float61'.*'mixed_float16'"):
        config(dtype_policy="mixed_float61")


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "streets"
    build_data.build(synthetic.make_source((4, 3), (48, 65), 0), folder, num_shards=1)
    return folder


def test_pictures_of_a_smaller_last_batch_are_counted_once_each(records):
    def predict(images):
        return tf.cast(images[..., 0], tf.int32) // 32

    one, uneven = (
        evaluate(None, data_generator.eval_dataset(records, "val", batch_size=n), 8, 255, predict=predict)
        for n in (1, 2)
    )
    assert uneven["num_images"] == 3 and uneven["images"] == one["images"]
    np.testing.assert_array_equal(uneven["class_iou"], one["class_iou"])


@pytest.mark.slow
def test_a_run_of_fewer_bits_in_parts_is_scored_and_exported_as_any_other(records, tmp_path):
    run_dir, half = tmp_path / "run", dataclasses.replace(TRAIN, dtype_policy="mixed_bfloat16", micro_batches=2)
    pipeline.train(ModelConfig(8, NETWORK), half, records, run_dir)
    model = model_lib.load(run_dir)
    assert model.get_layer("backbone").compute_dtype == "float32"
    assert pipeline.evaluate(run_dir, records, "val")["num_images"] == 3
    export_saved_model(model, tmp_path / "exported")
    image = np.random.default_rng(0).integers(0, 256, (1, 33, 33, 3), np.uint8)
    network = tf.saved_model.load(str(tmp_path / "exported")).signatures["serving_default"]
    labels = network(ImageTensor=tf.constant(image))["SemanticPredictions"]
    np.testing.assert_array_equal(labels, np.argmax(model(image.astype(np.float32)), -1))


def test_settings_that_a_run_was_begun_without_have_their_defaults(tmp_path):
    section = runs.section(tmp_path, "train", TRAIN)
    for name in ("dtype_policy", "micro_batches"):
        del section[name]
    runs.open_run(tmp_path, {"train": section})
    runs.check_run(tmp_path, {"train": runs.section(tmp_path, "train", TRAIN)})
    assert runs.read_section(tmp_path, "train", TrainConfig) == TRAIN


def test_a_network_is_built_in_the_numbers_of_its_training_and_drop_path_counts_steps(monkeypatch):
    def build(config):
        images = keras.Input((None, None, 3))
        return keras.Model(images, TrainingProgress(10, calls_per_step=3)(keras.layers.ReLU()(images)))

    monkeypatch.setattr(model_lib, "build", build)
    model = pipeline._build(None, dataclasses.replace(TRAIN, micro_batches=2, dtype_policy="mixed_bfloat16"))
    assert model.layers[-1].calls_per_step == 6 and model.layers[1].compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == "float32"


def test_fewer_shards_than_workers_are_refused(records, tmp_path, monkeypatch):
    monkeypatch.setattr(distribute, "num_workers", lambda strategy: 2)
    message = "split 'train': expected at least 2 shards, one for each of 2 workers, received 1; .*--num_shards=2"
    with pytest.raises(InputError, match=message):
        pipeline.train(ModelConfig(8, NETWORK), TRAIN, records, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_batches_of_a_training_have_one_static_shape(records):
    # As a TPU asks: nothing about a step may depend on its pictures.
    dataset = data_generator.train_dataset(records, "train", crop_size=(33, 49), batch_size=3, seed=0)
    assert {name: tuple(spec.shape) for name, spec in dataset.element_spec.items()} == {
        "image": (3, 33, 49, 3),
        "label": (3, 33, 49),
    }


_WORKER = """
import dataclasses, sys
from devices_test import NETWORK, TRAIN
from nas_seg import pipeline
from nas_seg.model import ModelConfig
from nas_seg.utils import distribute
strategy = distribute.get_strategy(sys.argv[1])
pipeline.train(ModelConfig(8, NETWORK), TRAIN, sys.argv[2], sys.argv[3], strategy)
"""


@pytest.mark.slow
def test_two_workers_score_what_one_device_scores(tmp_path):
    records = tmp_path / "records"
    build_data.build(synthetic.make_source((4, 3), (48, 65), 0), records, num_shards=2)
    sockets = [socket.create_server(("localhost", 0)) for _ in range(2)]
    workers = [f"localhost:{server.getsockname()[1]}" for server in sockets]
    for server in sockets:
        server.close()

    def start(name, **environment):
        path = os.pathsep.join(["tests", "tests/utils", *sys.path])
        command = [sys.executable, "-c", _WORKER, "multi_worker" if environment else "none", records, tmp_path / name]
        return subprocess.Popen(command, cwd=REPOSITORY, env=os.environ | {"PYTHONPATH": path} | environment)

    tasks = [{"cluster": {"worker": workers}, "task": {"type": "worker", "index": i}} for i in range(2)]
    processes = [start("two", TF_CONFIG=json.dumps(task)) for task in tasks]
    assert [process.wait(timeout=500) for process in processes] == [0, 0]
    assert start("one").wait(timeout=300) == 0
    one, two = (runs.read_metrics(tmp_path / name) for name in ("one", "two"))
    for name in ("loss", "val_miou"):
        received = [[row[name] for row in rows if name in row] for rows in (two, one)]
        # Float32 sums in another order, and labels that are decided by one vote.
        np.testing.assert_allclose(*received, rtol=1e-5)
    assert len(one) == len(two)
