"""Adam on one vector is Adam: step for step that of Keras, averages included."""

import keras
import numpy as np
import tensorflow as tf

from nas_seg.template.flat_adam import FlatAdam


def _model() -> keras.Model:
    keras.utils.set_random_seed(3)
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(keras.layers.Conv2D(5, 3)(inputs)))
    return keras.Model(inputs, keras.layers.Conv2D(2, 1)(x))


def _gradients(model, scale: float) -> list[list[np.ndarray]]:
    rng = np.random.default_rng(1)
    draw = lambda v: (scale * rng.normal(size=v.shape)).astype(np.float32)  # noqa: E731
    return [[draw(v) for v in model.trainable_variables] for _ in range(5)]


def _values(model) -> list[np.ndarray]:
    return [v.numpy() for v in model.trainable_variables]


def _close(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)  # Five steps of float32 in another order.


def test_steps_and_averages_are_those_of_keras_adam_also_where_gradients_are_clipped():
    ours, theirs = _model(), _model()
    adam = keras.optimizers.Adam(0.01, epsilon=1e-8, global_clipnorm=3.0, use_ema=True, ema_momentum=0.8)
    adam.build(theirs.trainable_variables)
    flat = FlatAdam(ours, clip_norm=3.0, polyak_decay=0.8)
    step = tf.function(lambda gradients: flat.apply(gradients, 0.01), autograph=False)
    # The norm of some 170 numbers is below 3 with the first scale and above with the second.
    for gradients in _gradients(ours, 0.1) + _gradients(ours, 1.0):
        norm = float(step([tf.constant(g) for g in gradients]))
        np.testing.assert_allclose(norm, np.sqrt(sum((g**2).sum() for g in gradients)), rtol=1e-5)
        adam.apply([tf.constant(g) for g in gradients], theirs.trainable_variables)
    _close(_values(ours), _values(theirs))
    flat.take_average()
    adam.finalize_variable_values(theirs.trainable_variables)
    _close(_values(ours), _values(theirs))


def test_weight_decay_is_a_gradient_of_kernels_alone():
    model = _model()
    flat = FlatAdam(model, weight_decay=1.0, clip_norm=1e9)
    before = _values(model)
    flat.apply([tf.zeros(v.shape) for v in model.trainable_variables], 0.01)
    moved = [not np.array_equal(a, b) for a, b in zip(before, _values(model), strict=True)]
    assert moved == [v.name == "kernel" for v in model.trainable_variables]


def test_after_a_reset_it_is_as_new():
    model = _model()
    start, flat = model.get_weights(), FlatAdam(model, polyak_decay=0.9)
    gradients = _gradients(model, 1.0)
    ends = []
    for _ in range(2):
        model.set_weights(start)
        flat.reset()
        for one in gradients:
            flat.apply(one, 0.1)
        flat.take_average()
        ends.append(_values(model))
    for a, b in zip(*ends, strict=True):
        np.testing.assert_array_equal(a, b)


def test_without_steps_or_a_decay_there_is_no_average():
    model = _model()
    before = _values(model)
    FlatAdam(model, polyak_decay=0.9).take_average()
    for a, b in zip(before, _values(model), strict=True):
        np.testing.assert_array_equal(a, b)
