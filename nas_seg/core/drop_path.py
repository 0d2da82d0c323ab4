"""Scheduled drop path: whole paths of a network are dropped for single images, more of them the longer it trains.

Source: Zoph et al., "Learning Transferable Architectures for Scalable Image Recognition" (2018), appendix A.7; the
schedule over layers and steps is DeepLab's (core/nas_cell.py).
"""

from __future__ import annotations

import keras
from keras import ops


def keep_probability(keep_prob: float, cell: int, num_cells: int, progress):
    """The share of images that keep a path of cell `cell`.

    Args:
        keep_prob: of the last cell at the end of the training.
        cell: counted from 0.
        num_cells: of the network; the first cells lose the least.
        progress: share of the training that is over, 0 to 1; a float or a scalar tensor.
    """
    return 1.0 - progress * (cell + 1) / num_cells * (1.0 - keep_prob)


def drop_path(inputs, keep, seed: keras.random.SeedGenerator):
    """Sets all of `inputs`, [B, H, W, C], to 0 for each image with probability 1 - keep, and scales up the others.

    Args:
        inputs: outputs of a path.
        keep: a scalar of (0, 1]; the mean over many draws is `inputs`.
        seed: where the draws come from.
    """
    draws = keras.random.uniform((ops.shape(inputs)[0], 1, 1, 1), dtype="float32", seed=seed)
    factor = ops.floor(draws + keep) / keep
    return inputs * ops.cast(factor, inputs.dtype)


@keras.saving.register_keras_serializable("nas_seg")
class TrainingProgress(keras.layers.Layer):
    """The share of a training that is over: 0 in its first step, 1 from step `total_steps` on.

    It counts the training steps that it has seen itself, in a variable that is saved with the weights and is the same
    on every replica, so that it works in any training loop. Outside of training nothing is counted.

    Args:
        total_steps: of the training.
        calls_per_step: how often the network runs in a step; more than once in an image pyramid.
    """

    def __init__(self, total_steps: int, calls_per_step: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.total_steps = total_steps
        self.calls_per_step = calls_per_step

    def build(self, input_shape):
        # Not summed over replicas: each of them sees every step.
        self.calls = self.add_weight(shape=(), dtype="int", initializer="zeros", trainable=False, name="calls")

    def call(self, inputs, training=None):
        """Any tensor -> a float32 scalar."""
        # Copied before it is counted up.
        step = ops.cast(ops.convert_to_tensor(self.calls) // self.calls_per_step, "float32")
        if training:
            self.calls.assign_add(1)
        return ops.minimum(1.0, step / self.total_steps)

    def compute_output_spec(self, inputs, training=None):
        return keras.KerasTensor((), "float32")

    def compute_output_shape(self, input_shape):
        return ()

    def get_config(self):
        return super().get_config() | {"total_steps": self.total_steps, "calls_per_step": self.calls_per_step}
