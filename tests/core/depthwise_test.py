"""Depthwise convolutions: the fast gradient is TensorFlow's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from case import run_layer_test

from nas_seg.core import depthwise
from nas_seg.core.depthwise import DepthwiseConv2D, depthwise_conv

CASES = [
    # kernel, strides, padding, rate, height and width of the map
    (5, 1, "same", 1, (9, 12)),
    (5, 2, "same", 1, (9, 12)),
    (5, 2, "valid", 1, (11, 14)),
    (7, 1, "same", 1, (8, 8)),
    ((3, 4), 1, "valid", 1, (7, 9)),
    (5, 1, "same", 6, (13, 10)),
    (5, 1, "same", 3, (2, 3)),
    (5, 3, "same", 1, (2, 1)),
    (3, 1, "same", 1, (6, 6)),
]


def _both(function, x, kernel, upstream):
    x, kernel = tf.constant(x), tf.constant(kernel)
    with tf.GradientTape() as tape:
        tape.watch((x, kernel))
        outputs = function(x, kernel)
    return [outputs, *tape.gradient(outputs, (x, kernel), tf.constant(upstream(outputs.shape)))]


@pytest.mark.parametrize("kernel_size, strides, padding, rate, size", CASES)
def test_values_and_gradients_are_those_of_keras_ops(kernel_size, strides, padding, rate, size):
    random = np.random.default_rng(0)
    sizes = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    x, kernel = random.normal(size=(2, *size, 5)).astype("f"), random.normal(size=(*sizes, 5, 2)).astype("f")

    def upstream(shape):
        return np.random.default_rng(1).normal(size=shape).astype("f")

    def plain(x, kernel):
        return keras.ops.depthwise_conv(x, kernel, strides, padding, dilation_rate=rate)

    def fast(x, kernel):
        return depthwise_conv(x, kernel, strides, padding, rate)

    expected = _both(plain, x, kernel, upstream)
    for function in (fast, tf.function(fast)):
        found = _both(function, x, kernel, upstream)
        np.testing.assert_array_equal(found[0], expected[0])
        for ours, theirs in zip(found[1:], expected[1:], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_gradient_of_a_wide_kernel_is_made_in_strips(monkeypatch):
    made = []
    own = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter
    monkeypatch.setattr(
        tf.raw_ops,
        "DepthwiseConv2dNativeBackpropFilter",
        lambda **arguments: made.append(arguments["filter_sizes"][:2]) or own(**arguments),
    )
    monkeypatch.setattr(depthwise, "_on_processor", lambda: True)
    layer = DepthwiseConv2D(7, padding="same", use_bias=False)
    x = tf.ones((1, 8, 8, 2))
    with tf.GradientTape() as tape:
        outputs = layer(x, training=True)
    tape.gradient(outputs, layer.kernel.value)
    assert made == [(7, 3), (7, 3), (7, 1)]


def test_layer_is_keras_depthwise_convolution():
    run_layer_test(DepthwiseConv2D, {"kernel_size": 5, "padding": "same"}, (2, 9, 8, 3), (2, 9, 8, 3), 2)
    ours, theirs = (
        DepthwiseConv2D(5, strides=2, activation="relu"),
        keras.layers.DepthwiseConv2D(5, 2, activation="relu"),
    )
    x = np.random.default_rng(0).normal(size=(2, 9, 8, 3)).astype("f")
    ours(x), theirs(x)
    theirs.set_weights([np.random.default_rng(1).normal(size=w.shape) for w in ours.weights])
    ours.set_weights(theirs.get_weights())
    for training in (False, True):
        np.testing.assert_array_equal(ours(x, training=training), theirs(x))


def test_maps_of_unknown_size_are_convolved():
    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 2))])
    def convolve(x):
        return depthwise_conv(x, tf.ones((5, 5, 2, 1)), 1, "same")

    assert convolve(tf.ones((1, 5, 7, 2)))[0, 2, 3, 0] == 25.0


class _Listed(keras.layers.Layer):
    def __init__(self, layer_class):
        super().__init__()
        self.layers = [layer_class(3), layer_class(5)]

    def call(self, inputs):
        return self.layers[1](self.layers[0](inputs))


def test_weights_that_were_saved_from_layers_of_keras_in_a_list_load(tmp_path):
    def network(layer_class):
        inputs = keras.Input((9, 9, 2))
        return keras.Model(inputs, _Listed(layer_class)(inputs))

    theirs, ours = network(keras.layers.DepthwiseConv2D), network(DepthwiseConv2D)
    theirs.save_weights(tmp_path / "saved.weights.h5")
    ours.load_weights(tmp_path / "saved.weights.h5")
    for saved, loaded in zip(theirs.weights, ours.weights, strict=True):
        np.testing.assert_array_equal(saved, loaded)
