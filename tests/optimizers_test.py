import json
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from nas_seg import optimizers
from nas_seg.train_config import TrainConfig
from nas_seg.utils.errors import InputError

RECORDED = json.loads(pathlib.Path("tests/golden/deeplab_training.json").read_text())["learning_rate"]


@pytest.mark.parametrize("case", RECORDED, ids=range(len(RECORDED)))
def test_learning_rates_agree_with_those_recorded_from_deeplab(case):
    schedule = optimizers.from_config(TrainConfig(**{"learning_power": 0.9, **case["args"]}))._learning_rate
    received = [float(schedule(step)) for step in case["steps"]]
    # Float32 on both sides. One last bit of s/T, 6e-8, is worth base * 0.9 * 6e-8 * (1 - s/T) ** -0.1, which is
    # 1e-9 one step before the end.
    np.testing.assert_allclose(received, case["lr"], rtol=1e-6, atol=1.1e-9)


def test_momentum_is_tensorflow_1s_under_a_falling_rate():
    rates, gradients = [0.5, 0.1, 0.02], [1.0, -2.0, 0.5]
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0, 1], rates)
    optimizer = optimizers.Momentum(schedule, momentum=0.9)
    variable = keras.Variable([3.0])
    weight, total = 3.0, 0.0
    for rate, gradient in zip(rates, gradients, strict=True):
        optimizer.apply([keras.ops.convert_to_tensor([gradient])], [variable])
        total = 0.9 * total + gradient
        weight -= rate * total
        np.testing.assert_allclose(variable.numpy(), [weight], rtol=1e-6)
    # Keras' own momentum keeps the first, large rate in its velocity.
    sgd, other = keras.optimizers.SGD(schedule, momentum=0.9), keras.Variable([3.0])
    for gradient in gradients:
        sgd.apply([keras.ops.convert_to_tensor([gradient])], [other])
    assert abs(other.numpy()[0] - weight) > 0.1


def test_a_traced_step_of_momentum_is_one_operation_a_variable():
    variables = [keras.Variable([3.0, 1.0]), keras.Variable([[2.0]])]
    optimizer = optimizers.Momentum(0.5)
    optimizer.build(variables)

    @tf.function
    def step(*gradients):
        optimizer.apply(gradients)

    gradients = [tf.constant([1.0, -2.0]), tf.constant([[4.0]])]
    kinds = [operation.type for operation in step.get_concrete_function(*gradients).graph.get_operations()]
    assert kinds.count("ResourceApplyMomentum") == 2 and kinds.count("AssignSubVariableOp") == 0
    step(*gradients)
    step(*gradients)
    # 0.5 of the gradient, then 0.5 of 1.9 gradients.
    np.testing.assert_allclose(variables[0].numpy(), [3.0 - 1.45, 1.0 + 2.9], rtol=1e-6)


@pytest.mark.parametrize("policy", sorted(optimizers.POLICIES))
def test_the_optimizer_survives_saving(policy):
    config = TrainConfig(base_learning_rate=0.3, slow_start_step=10, momentum=0.8, learning_policy=policy)
    optimizer = optimizers.from_config(config)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.get_config() == optimizer.get_config()
    assert again.momentum == 0.8 and float(again._learning_rate(10)) == pytest.approx(0.3)


def test_adam_has_its_own_constant_rate():
    optimizer = optimizers.from_config(
        TrainConfig(optimizer="adam", adam_learning_rate=0.02, adam_epsilon=0.5, base_learning_rate=7.0)
    )
    weight, m, v = 3.0, 0.0, 0.0
    variable = keras.Variable([weight])
    for step, gradient in enumerate([1.0, -2.0, 0.5], start=1):
        optimizer.apply([keras.ops.convert_to_tensor([gradient])], [variable])
        # Kingma and Ba (2015), section 2, at its end: the form that TensorFlow 1 computes.
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        weight -= 0.02 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step) * m / (np.sqrt(v) + 0.5)
        np.testing.assert_allclose(variable.numpy(), [weight], rtol=1e-6)


@pytest.mark.parametrize("name", ["learning_policy", "optimizer", "slow_start_burnin_type"])
def test_a_name_out_of_no_list_is_refused_with_the_nearest(name):
    near = {"learning_policy": ("coisne", "cosine"), "optimizer": ("adaam", "adam")}.get(name, ("lineer", "linear"))
    with pytest.raises(InputError, match=f"{name}: .*{near[0]}.*{near[1]}"):
        TrainConfig(**{name: near[0]})
