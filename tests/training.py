"""A tiny network and endless drawn batches for tests of the training loop; run as a program, it trains."""

import argparse
import os
import signal
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from nas_seg import train
from nas_seg.core.conv import BatchNorm
from nas_seg.utils import distribute

NUM_CLASSES, IGNORE = 4, 255
CONFIG = {
    "training_number_of_steps": 20,
    "train_batch_size": 4,
    "base_learning_rate": 0.1,
    "weight_decay": 1e-3,
    "batch_norm_decay": 0.9,
    "log_steps": 4,
    "save_interval_steps": 6,
    "eval_interval_steps": 10,
}


def tiny_model(seed: int = 0, dropout: float = 0.3, filters: int = 8) -> keras.Model:
    """Images [B, H, W, 3] -> logits of 4 classes, with a backbone, batch norm and dropout."""
    keras.utils.set_random_seed(seed)
    features = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(features)
    x = keras.layers.ReLU()(BatchNorm()(x))
    backbone = keras.Model(features, x, name="backbone")
    images = keras.Input((None, None, 3))
    x = backbone(keras.layers.Rescaling(1 / 127.5, -1)(images))
    x = keras.layers.Dropout(dropout)(x)
    return keras.Model(images, keras.layers.Conv2D(NUM_CLASSES, 1, name="logits")(x))


def batches(start_step: int = 0) -> tf.data.Dataset:
    """Batch k depends on k alone; the four images have more and more ignored pixels."""

    def draw(k):
        seed = tf.cast(tf.stack([k, 7]), tf.int32)
        image = tf.random.stateless_uniform((4, 16, 16, 3), seed, 0, 255)
        label = tf.cast(image[..., 0] // 64, tf.int32)
        share = tf.reshape(tf.range(4.0) / 4, (4, 1, 1))
        return {
            "image": image,
            "label": tf.where(tf.random.stateless_uniform(label.shape, seed) < share, IGNORE, label),
        }

    return tf.data.Dataset.range(start_step, 1 << 40).map(draw)


def values(model: keras.Model) -> list[np.ndarray]:
    """Every variable of a model, those of dropout's random numbers too."""
    return [variable.numpy() for variable in model.variables]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir")
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--dropout", type=float, default=0.3)
    parser.add_argument("--kill_at", type=int, default=-1, help="batch at which the process kills itself")
    arguments = parser.parse_args()
    if arguments.replicas > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * arguments.replicas)
    strategy = distribute.get_strategy(arguments.strategy)
    with strategy.scope():
        model = tiny_model(dropout=arguments.dropout)

    def make_dataset(start_step):
        def fuse(k):
            if k == arguments.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return k

        def light(k, batch):
            with tf.control_dependencies([tf.numpy_function(fuse, [k], tf.int64)]):
                return tf.nest.map_structure(tf.identity, batch)

        numbered = tf.data.Dataset.zip(tf.data.Dataset.range(start_step, 1 << 40), batches(start_step))
        return numbered.map(light)

    config = train.TrainConfig(**CONFIG)
    train.fit(
        model,
        make_dataset if arguments.kill_at >= 0 else batches,
        config,
        arguments.run_dir,
        ignore_label=IGNORE,
        strategy=strategy,
    )
    if distribute.is_chief(strategy):
        np.savez(os.path.join(arguments.run_dir, "values.npz"), *values(model))


if __name__ == "__main__":
    sys.exit(main())
