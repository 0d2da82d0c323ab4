"""DeepLab's learning rate and TensorFlow 1's momentum, as Keras objects."""

from __future__ import annotations

import keras
from keras import ops

from nas_seg.train_config import TrainConfig


@keras.saving.register_keras_serializable("nas_seg")
class PolynomialDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Slow start at a constant rate, then polynomial decay (DeepLab, utils/train_utils.py).

    The decay counts its steps from the end of the slow start: with s = max(step - slow_start_step, 0),
    rate = (base - end) * (1 - min(s, decay_steps) / decay_steps) ** power + end.

    Args:
        decay_steps: 0: all steps after the slow start.
    """

    def __init__(
        self,
        base_learning_rate: float,
        training_number_of_steps: int,
        learning_power: float = 0.9,
        decay_steps: int = 0,
        end_learning_rate: float = 0.0,
        slow_start_step: int = 0,
        slow_start_learning_rate: float = 1e-4,
    ):
        self.base_learning_rate = base_learning_rate
        self.training_number_of_steps = training_number_of_steps
        self.learning_power = learning_power
        self.decay_steps = decay_steps
        self.end_learning_rate = end_learning_rate
        self.slow_start_step = slow_start_step
        self.slow_start_learning_rate = slow_start_learning_rate

    def __call__(self, step):
        step = ops.cast(step, "float32")
        span = float(self.decay_steps or self.training_number_of_steps - self.slow_start_step)
        done = ops.clip(step - self.slow_start_step, 0.0, span) / span
        height = self.base_learning_rate - self.end_learning_rate
        decayed = height * ops.power(1.0 - done, self.learning_power) + self.end_learning_rate
        return ops.where(step < self.slow_start_step, self.slow_start_learning_rate, decayed)

    def get_config(self):
        return {
            "base_learning_rate": self.base_learning_rate,
            "training_number_of_steps": self.training_number_of_steps,
            "learning_power": self.learning_power,
            "decay_steps": self.decay_steps,
            "end_learning_rate": self.end_learning_rate,
            "slow_start_step": self.slow_start_step,
            "slow_start_learning_rate": self.slow_start_learning_rate,
        }


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
        total = ops.cast(self.momentum, variable.dtype) * accumulator + ops.cast(gradient, variable.dtype)
        self.assign(accumulator, total)
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * total)

    def get_config(self):
        return super().get_config() | {"momentum": self.momentum}


def from_config(config: TrainConfig) -> Momentum:
    """The optimizer that a training configuration asks for."""
    schedule = PolynomialDecay(
        config.base_learning_rate,
        config.training_number_of_steps,
        config.learning_power,
        config.decay_steps,
        config.end_learning_rate,
        config.slow_start_step,
        config.slow_start_learning_rate,
    )
    average = {"use_ema": True, "ema_momentum": config.polyak_decay} if config.polyak_decay else {}
    return Momentum(schedule, config.momentum, **average)
