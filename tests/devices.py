"""Short trainings on one device and on two logical CPUs, in one process; run as a program.

`python tests/devices.py FOLDER` writes FOLDER/NAME.npz for each of `CASES`: the losses by step, every variable of the
model, and those of the optimizer.
"""

import functools
import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf
import training

from nas_seg import train
from nas_seg.core import conv
from nas_seg.utils import distribute

_FROZEN = {"fine_tune_batch_norm": False}
# Gradients beyond float16's range at the first scales.
_STEEP = {"label_weights": (3e5,) * training.NUM_CLASSES, "base_learning_rate": 1e-9, "dtype_policy": "mixed_float16"}
STEPS = 3
# Strategy, how many of the four pictures are all ignored from the first one on, how many steps, and what is configured.
CASES = {
    "one": ("none", 2, STEPS, {}),
    "two": ("mirrored", 2, STEPS, {}),
    "whole": ("none", 0, STEPS, _FROZEN),
    "parts": ("none", 0, STEPS, _FROZEN | {"micro_batches": 4}),
    "two_parts": ("mirrored", 0, STEPS, _FROZEN | {"micro_batches": 2}),
    # The second device alone has gradients, and they overflow.
    "two_steep": ("mirrored", 2, 12, _STEEP),
}


# Two strategies of one process would take the same names for their sums over the devices.
_strategy = functools.cache(distribute.get_strategy)


def run(strategy_name: str, void: int, count: int, changes: dict) -> dict[str, np.ndarray]:
    """Trains the tiny network for `count` steps."""
    config = train.TrainConfig(**training.CONFIG | changes)
    strategy = _strategy(strategy_name)
    keras.config.set_dtype_policy(config.dtype_policy)
    with strategy.scope():
        model = training.tiny_model(dropout=0)
        optimizer = train.make_optimizer(config)
        optimizer.build(model.trainable_variables)
    keras.config.set_dtype_policy("float32")
    conv.set_batch_norm(model, config.fine_tune_batch_norm, strategy.num_replicas_in_sync > 1, max_momentum=0.9)
    steps = train.compile_steps(model, optimizer, config, training.IGNORE, strategy)

    def blank(batch):
        kept = tf.reshape(tf.range(4) >= void, (4, 1, 1))
        return batch | {"label": tf.where(kept, batch["label"], training.IGNORE)}

    batches = iter(strategy.experimental_distribute_dataset(training.batches().map(blank)))
    losses = [steps(batches, tf.constant(1))[0].numpy() for _ in range(count)]
    variables = [variable.numpy() for variable in [*model.variables, *optimizer.variables]]
    state = {"iterations": optimizer.iterations.numpy()}
    if hasattr(optimizer, "dynamic_scale"):
        state["scale"] = optimizer.dynamic_scale.numpy()
    return {"losses": np.array(losses)} | state | {f"v{i:03d}": value for i, value in enumerate(variables)}


def main() -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    for name, case in CASES.items():
        np.savez(pathlib.Path(sys.argv[1], f"{name}.npz"), **run(*case))


if __name__ == "__main__":
    main()
