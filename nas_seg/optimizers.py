"""DeepLab's learning rates and TensorFlow 1's momentum, as Keras objects."""

from __future__ import annotations

import inspect
import math

import keras
from keras import ops

from nas_seg.train_config import TrainConfig


class _SlowStart(keras.optimizers.schedules.LearningRateSchedule):
    """A slow start, then a decay that counts its steps from the end of it (DeepLab, utils/train_utils.py).

    A subclass has `decayed(steps)`, and keeps every argument of its constructor as an attribute.

    Args:
        slow_start_step: steps before the decay.
        slow_start_learning_rate: the rate of these steps.
        slow_start_burnin_type: "none", or "linear": from that rate on a straight line to base_learning_rate.
    """

    def __init__(
        self,
        base_learning_rate: float,
        slow_start_step: int = 0,
        slow_start_learning_rate: float = 1e-4,
        slow_start_burnin_type: str = "none",
    ):
        self.base_learning_rate = base_learning_rate
        self.slow_start_step = slow_start_step
        self.slow_start_learning_rate = slow_start_learning_rate
        self.slow_start_burnin_type = slow_start_burnin_type

    def __call__(self, step):
        step = ops.cast(step, "float32")
        slow = self.slow_start_learning_rate
        if self.slow_start_burnin_type == "linear":
            slow = slow + (self.base_learning_rate - slow) * step / max(self.slow_start_step, 1)
        decayed = self.decayed(ops.maximum(step - self.slow_start_step, 0.0))
        return ops.where(step < self.slow_start_step, slow, decayed)

    def get_config(self):
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}


@keras.saving.register_keras_serializable("nas_seg")
class PolynomialDecay(_SlowStart):
    """rate = (base - end) * (1 - min(s, decay_steps) / decay_steps) ** power + end, s steps after the slow start.

    Args:
        decay_steps: 0: all steps after the slow start.
    """

    def __init__(
        self,
        base_learning_rate: float,
        training_number_of_steps: int,
        learning_power: float = 0.9,
        decay_steps: float = 0,
        end_learning_rate: float = 0.0,
        slow_start_step: int = 0,
        slow_start_learning_rate: float = 1e-4,
        slow_start_burnin_type: str = "none",
    ):
        super().__init__(base_learning_rate, slow_start_step, slow_start_learning_rate, slow_start_burnin_type)
        self.training_number_of_steps = training_number_of_steps
        self.learning_power = learning_power
        self.decay_steps = decay_steps
        self.end_learning_rate = end_learning_rate

    def decayed(self, steps):
        height = self.base_learning_rate - self.end_learning_rate
        return height * ops.power(1.0 - self._done(steps), self.learning_power) + self.end_learning_rate

    def _done(self, steps):
        """The share of the decay that is over, 0 to 1."""
        span = float(self.decay_steps or self.training_number_of_steps - self.slow_start_step)
        return ops.minimum(steps, span) / span


@keras.saving.register_keras_serializable("nas_seg")
class CosineDecay(PolynomialDecay):
    """rate = (base - end) * (1 + cos(pi * min(s, decay_steps) / decay_steps)) / 2 + end; learning_power has no part."""

    def decayed(self, steps):
        height = self.base_learning_rate - self.end_learning_rate
        return height * 0.5 * (1.0 + ops.cos(math.pi * self._done(steps))) + self.end_learning_rate


@keras.saving.register_keras_serializable("nas_seg")
class StepDecay(_SlowStart):
    """rate = base * learning_rate_decay_factor ** floor(s / learning_rate_decay_step), s steps after the slow start."""

    def __init__(
        self,
        base_learning_rate: float,
        learning_rate_decay_factor: float = 0.1,
        learning_rate_decay_step: int = 2000,
        slow_start_step: int = 0,
        slow_start_learning_rate: float = 1e-4,
        slow_start_burnin_type: str = "none",
    ):
        super().__init__(base_learning_rate, slow_start_step, slow_start_learning_rate, slow_start_burnin_type)
        self.learning_rate_decay_factor = learning_rate_decay_factor
        self.learning_rate_decay_step = learning_rate_decay_step

    def decayed(self, steps):
        falls = ops.floor(steps / self.learning_rate_decay_step)
        return self.base_learning_rate * ops.power(self.learning_rate_decay_factor, falls)


# By the name of the policy in a training configuration, whose fields are the arguments.
POLICIES = {"poly": PolynomialDecay, "cosine": CosineDecay, "step": StepDecay}


@keras.saving.register_keras_serializable("nas_seg")
class Momentum(keras.optimizers.Optimizer):
    """Gradient descent with TensorFlow 1's momentum: a = momentum * a + gradient; w = w - learning_rate * a.

    keras.optimizers.SGD keeps the learning rate inside its velocity, so that a falling rate acts on new
    gradients only; here it acts on the whole sum, as in the original trainings.
    """

    def __init__(self, learning_rate=1e-4, momentum: float = 0.9, name: str = "momentum", **kwargs):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = momentum

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.accumulators = self.add_optimizer_variables(variables, "accumulator")

    def update_step(self, gradient, variable, learning_rate):
        accumulator = self.accumulators[self._get_variable_index(variable)]
        # Keras hands out variables of TensorFlow, and keeps its own.
        plain = [_plain(variable), _plain(accumulator)]
        if all(one is not None for one in plain):
            import tensorflow as tf

            # The same in one operation: a network has hundreds of small variables.
            tf.raw_ops.ResourceApplyMomentum(
                var=plain[0].handle,
                accum=plain[1].handle,
                lr=ops.cast(learning_rate, variable.dtype),
                grad=ops.cast(gradient, variable.dtype),
                momentum=ops.cast(self.momentum, variable.dtype),
            )
            return
        total = ops.cast(self.momentum, variable.dtype) * accumulator + ops.cast(gradient, variable.dtype)
        self.assign(accumulator, total)
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * total)

    def get_config(self):
        return super().get_config() | {"momentum": self.momentum}


def _plain(variable):
    """The one TensorFlow variable that a variable is; None for any other, as one for each of several devices."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    value = variable.value if isinstance(variable, keras.Variable) else variable
    plain = isinstance(value, tf.Variable) and not isinstance(value, tf.distribute.DistributedValues)
    return value if plain else None


def from_config(config: TrainConfig) -> keras.optimizers.Optimizer:
    """The optimizer that a training configuration asks for.

    Adam's learning rate is constant, whatever the policy, as in DeepLab.
    """
    average = {"use_ema": True, "ema_momentum": config.polyak_decay} if config.polyak_decay else {}
    if config.optimizer == "adam":
        return keras.optimizers.Adam(config.adam_learning_rate, epsilon=config.adam_epsilon, **average)
    policy = POLICIES[config.learning_policy]
    schedule = policy(**{name: getattr(config, name) for name in inspect.signature(policy).parameters})
    return Momentum(schedule, config.momentum, **average)
