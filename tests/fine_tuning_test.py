"""Networks that start from a checkpoint of other classes, weights from the labels, and folders of older runs."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from case import recipe_value

from nas_seg import common, convert, gradients, initial_checkpoint, label_weights, losses, optimizers, pipeline, train
from nas_seg import model as model_lib
from nas_seg.core import conv
from nas_seg.core.backbones import BackboneConfig
from nas_seg.core.native_logits import native_logits
from nas_seg.datasets import build_data, data_generator, synthetic
from nas_seg.deeplab.network import DeepLabConfig
from nas_seg.model import ModelConfig
from nas_seg.train_config import TrainConfig
from nas_seg.utils import runs
from nas_seg.utils.errors import InputError

_SMALL = DeepLabConfig(
    BackboneConfig(depth_multiplier=0.35, divisible_by=8), atrous_rates=(), filters=16, dropout_rate=0.0
)
_TRAIN = TrainConfig(
    training_number_of_steps=1, train_batch_size=2, train_crop_size=(33, 33), val_split="", base_learning_rate=0.0,
    initialize_last_layer=False, last_layers_contain_logits_only=True, fine_tune_batch_norm=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "streets"
    build_data.build(synthetic.make_source((3, 1), (48, 65), 0), folder, num_shards=2)
    return folder


@pytest.fixture(scope="module")
def donor(tmp_path_factory):
    """A run folder of 5 classes, its arrays by DeepLab's names, and the same as a TF1 checkpoint."""
    folder = tmp_path_factory.mktemp("donor")
    config = ModelConfig(5, _SMALL)
    keras.utils.set_random_seed(3)
    model = model_lib.build(config)
    names = model_lib.tf1_names(model, config)
    convert._write_run(folder / "run", model, config, {"made": "for a test"})
    convert.to_tf1(folder / "run", folder / "model.ckpt")
    return folder, {name: keras.ops.convert_to_numpy(variable) for name, variable in names.items()}


@pytest.mark.parametrize("source", ["run", "model.ckpt"])
def test_all_but_the_logits_starts_from_a_checkpoint_of_other_classes(source, donor, records, tmp_path, capsys):
    folder, arrays = donor
    config = ModelConfig(8, _SMALL)
    # A rate of 0 leaves every weight where the training started.
    settings = {"tf_initial_checkpoint": str(folder / source)}
    pipeline.train(config, _with(**settings), records, tmp_path / "run")
    assert f"started from {folder / source}: " in capsys.readouterr().out
    names = model_lib.tf1_names(model_lib.load(tmp_path / "run"), config)
    for name, variable in names.items():
        if name.startswith("logits/"):
            assert variable.shape[-1] == 8
        else:
            np.testing.assert_array_equal(variable, arrays[name], err_msg=name)


def _with(**changes):
    return TrainConfig(**{name: getattr(_TRAIN, name) for name in TrainConfig.__dataclass_fields__} | changes)


def test_other_classes_with_the_last_layer_are_refused_and_no_folder_is_left(donor, records, tmp_path):
    folder, _ = donor
    settings = _with(tf_initial_checkpoint=str(folder / "run"), initialize_last_layer=True)
    with pytest.raises(InputError, match=r"logits/semantic/.*expected \(.*8.*found .*--initialize_last_layer=false"):
        pipeline.train(ModelConfig(8, _SMALL), settings, records, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_last_layers_are_all_but_the_backbone_or_the_logits_alone():
    names = ["MobilenetV2/Conv/weights", "xception_65/exit_flow/block1/weights", "aspp0/weights", "aspp1_pointwise/w",
             "image_pooling/weights", "concat_projection/weights", "decoder/feature_projection0/weights",
             "meta_architecture/concat_projection/weights", "logits/semantic/biases"]  # fmt: skip
    assert [n for n in names if not initial_checkpoint.is_last_layer(n, logits_only=False)] == names[:2]
    assert [n for n in names if initial_checkpoint.is_last_layer(n, logits_only=True)] == names[-1:]


def test_a_checkpoint_of_nothing_of_the_network_is_refused():
    with pytest.raises(InputError, match="--tf_initial_checkpoint: here: expected variables of this network"):
        initial_checkpoint.choose({"a/weights": np.zeros(3)}, {"b/weights": (3,)}, "here")


def test_weights_from_the_labels_are_the_median_frequency_counted_by_hand(records):
    labels = [batch[common.LABEL][0].numpy() for batch in data_generator.eval_dataset(records, "train")]
    frequency = []
    for c in range(8):
        shown = [label for label in labels if (label == c).any()]
        pixels = sum((label != 255).sum() for label in shown)
        frequency.append(sum((label == c).sum() for label in shown) / pixels if shown else np.nan)
    expected = np.nan_to_num(np.nanmedian(frequency) / np.array(frequency), nan=1.0)
    np.testing.assert_allclose(label_weights.median_frequency(records, "train"), expected, rtol=1e-12)
    with pytest.raises(InputError, match="unknown split 'trian'"):
        label_weights.median_frequency(records, "trian")


@pytest.mark.parametrize(("word", "power"), [("auto", 1.0), ("sqrt", 0.5)])
def test_weights_are_counted_for_a_word_in_place_of_numbers(records, word, power):
    script = (
        "from absl import app, flags; from nas_seg import train_flags; train_flags.define();"
        "flags.DEFINE_string('dataset_dir', None, '');"
        "app.run(lambda _: print('WEIGHTS', *train_flags.read().label_weights))"
    )
    command = [sys.executable, "-c", script, f"--dataset_dir={records}", f"--label_weights={word}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("WEIGHTS")]
    expected = np.array(label_weights.median_frequency(records, "train")) ** power
    np.testing.assert_allclose([float(word) for word in line.split()[1:]], expected, rtol=1e-12)
    assert len(set(expected)) > 2


def test_without_upsampled_logits_the_loss_is_that_of_the_networks_own_size():
    model = model_lib.build(ModelConfig(4, _SMALL))
    # Fresh weights would let features fade to nothing.
    for name, variable in model_lib.tf1_names(model, ModelConfig(4, _SMALL)).items():
        variable.assign(recipe_value(name, tuple(variable.shape), (("", 1.0, 2.0),)))
    rng = np.random.default_rng(0)
    batch = {
        common.IMAGE: tf.constant(rng.uniform(0, 255, (2, 33, 49, 3)), tf.float32),
        common.LABEL: tf.constant(rng.integers(0, 4, (2, 33, 49)), tf.int32),
    }
    logits = native_logits(model)(batch[common.IMAGE])
    total, count = losses.cross_entropy_sum(logits, losses.labels_like(batch[common.LABEL], logits), 255)
    assert logits.shape[1:3] == (3, 4) and int(count) == 2 * 3 * 4
    received = {}
    for upsample in (False, True):
        config = _with(upsample_logits=upsample, tf_initial_checkpoint=None)
        conv.set_batch_norm(model, False, False, max_momentum=0.9)
        optimizer = optimizers.from_config(config)
        optimizer.build(model.trainable_variables)
        steps = train.compile_steps(model, optimizer, config, 255, tf.distribute.get_strategy())
        received[upsample] = float(steps(iter(tf.data.Dataset.from_tensors(batch).repeat()), tf.constant(1))[0])
    # The same float32 numbers in another order.
    assert received[False] == pytest.approx(float(total / count), rel=1e-5)
    assert abs(received[True] - received[False]) > 1e-3


@pytest.mark.parametrize("logits_only", [False, True])
def test_the_gradient_multiplier_is_of_the_same_last_layers(logits_only):
    config = ModelConfig(4, _SMALL)
    model = model_lib.build(config)
    settings = _with(last_layer_gradient_multiplier=10.0, last_layers_contain_logits_only=logits_only, weight_decay=0.0)
    names = {id(variable): name for name, variable in model_lib.tf1_names(model, config).items()}
    for variable, rule in zip(model.trainable_variables, gradients.rules(model, settings, 1), strict=True):
        name = names[id(variable)]
        last = 10.0 if initial_checkpoint.is_last_layer(name, logits_only) else 1.0
        # DeepLab doubles those of biases.
        assert rule(1.0) == last * (2.0 if name.endswith("biases") else 1.0), name


def test_a_run_begun_before_these_options_goes_on(tmp_path):
    new = ("learning_policy", "optimizer", "tf_initial_checkpoint", "initialize_last_layer", "upsample_logits",
           "last_layers_contain_logits_only", "learning_rate_decay_factor", "learning_rate_decay_step",
           "slow_start_burnin_type", "adam_learning_rate", "adam_epsilon")  # fmt: skip
    section = runs.section(tmp_path, "train", TrainConfig(seed=2))
    older = {name: value for name, value in section.items() if name not in new} | {"decay_steps": 0}
    (tmp_path / runs.CONFIG).write_text(json.dumps({"format_version": 1, "train": older}))
    runs.check_run(tmp_path, {"train": runs.section(tmp_path, "train", TrainConfig(seed=2))})
    with pytest.raises(InputError, match="train.*learning_policy|train.*received"):
        runs.check_run(tmp_path, {"train": runs.section(tmp_path, "train", TrainConfig(seed=2, optimizer="adam"))})
