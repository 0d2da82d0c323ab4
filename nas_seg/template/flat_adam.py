"""Adam over all weights of a network as one vector, with their running average.

A search traces a training step anew for every network. An optimizer that goes through hundreds of variables one by one
takes a large part of that; on one vector it is the same few operations for a network of any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nas_seg.core import conv

# Kingma and Ba (2015), section 2.
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8


class VectorAdam:
    """Adam with weight decay, clipped gradients and averaged weights (Polyak averaging), on one vector.

    Args:
        values: float32 [n], the weights to begin with.
        decay: [n] or a number, the L2 factor on each, a part of the gradient.
        clip_norm: gradients of a greater norm are scaled down to it.
        polyak_decay: of the average, which starts as the weights after the first step; 0: there is none.

    Attributes:
        weights: the vector, a variable.
    """

    def __init__(self, values: Any, decay: Any = 0.0, clip_norm: float = 3.0, polyak_decay: float = 0.0):
        self.clip_norm, self.polyak_decay = clip_norm, polyak_decay
        self._decay = tf.constant(decay, tf.float32)
        self.weights = tf.Variable(values, name="weights")
        self._first, self._second, self._average = (
            tf.Variable(tf.zeros_like(values), name=name) for name in ("first_moment", "second_moment", "average")
        )
        self._step = tf.Variable(0.0, name="step")

    def reset(self, values: Any) -> None:
        """Forgets all steps, and begins with these weights."""
        self.weights.assign(values)
        for state in (self._first, self._second, self._average):
            state.assign(tf.zeros_like(state))
        self._step.assign(0.0)

    def apply(self, gradient: Any, learning_rate: Any) -> Any:
        """One step; meant for inside a traced function.

        Args:
            gradient: of `weights`.
            learning_rate: a scalar, which may differ from step to step.

        Returns:
            the norm of the gradient before it was clipped; not finite where a number of it is not.
        """
        gradient = gradient + self._decay * self.weights
        norm = tf.norm(gradient)
        gradient *= self.clip_norm / tf.maximum(norm, self.clip_norm)
        step = self._step.assign_add(1.0)
        first = self._first.assign(_BETA_1 * self._first + (1.0 - _BETA_1) * gradient)
        second = self._second.assign(_BETA_2 * self._second + (1.0 - _BETA_2) * tf.square(gradient))
        rate = learning_rate * tf.sqrt(1.0 - _BETA_2**step) / (1.0 - _BETA_1**step)
        weights = self.weights.assign_sub(rate * first / (tf.sqrt(second) + _EPSILON))
        if self.polyak_decay:
            decay = tf.where(step > 1.0, self.polyak_decay, 0.0)
            self._average.assign(decay * self._average + (1.0 - decay) * weights)
        return norm

    def take_average(self) -> None:
        """Puts the average in the place of the weights, to score them and to go on from there.

        The moving averages of batch normalisation stay those of the weights themselves.
        """
        if self.polyak_decay and float(self._step):
            self.weights.assign(self._average)


class FlatAdam:
    """`VectorAdam` for the variables of a Keras model.

    Once it is made, nothing else may change the trainable weights; `reset` takes them over anew.

    Args:
        model: its trainable weights are optimised.
        weight_decay: L2 factor on the kernels of `conv.regularized_kernels`.
        clip_norm, polyak_decay: as there; the norm is over all weights.
    """

    def __init__(
        self, model: keras.Model, weight_decay: float = 0.0, clip_norm: float = 3.0, polyak_decay: float = 0.0
    ):
        self.variables = [variable.value for variable in model.trainable_variables]
        self._sizes = [int(np.prod(variable.shape)) for variable in self.variables]
        decayed = {id(kernel) for kernel in conv.regularized_kernels(model)}
        rates = [weight_decay * (id(variable) in decayed) for variable in model.trainable_variables]
        decay = np.repeat(rates, self._sizes)
        self._vector = VectorAdam(self._flat(self.variables), decay, clip_norm, polyak_decay)

    def reset(self) -> None:
        """Forgets all steps, and takes the network's weights as they are."""
        self._vector.reset(self._flat(self.variables))

    def apply(self, gradients: Sequence[Any], learning_rate: Any) -> Any:
        """One step with the gradients of `variables`; see `VectorAdam.apply`."""
        norm = self._vector.apply(self._flat(gradients), learning_rate)
        self._spread()
        return norm

    def take_average(self) -> None:
        """Puts the average in the place of the weights; see `VectorAdam.take_average`."""
        self._vector.take_average()
        self._spread()

    def _flat(self, values: Sequence[Any]) -> Any:
        return tf.concat([tf.reshape(value, [-1]) for value in values], axis=0)

    def _spread(self) -> None:
        parts = tf.split(self._vector.weights, self._sizes)
        for variable, part in zip(self.variables, parts, strict=True):
            variable.assign(tf.reshape(part, variable.shape))
