"""Biases that make up for kernels of 8 bits."""

import keras
import numpy as np
import pytest
from keras import ops

from nas_seg.core.conv import ConvNorm, SplitSeparableConv, all_layers
from nas_seg.core.rounded_kernels import corrected_biases, rounded


def network():
    keras.utils.set_random_seed(0)
    images = keras.Input((None, None, 3))
    x = ConvNorm(8, 3, 2, activation="relu6")(keras.layers.Rescaling(1 / 127.5, -1, name="normalize")(images))
    shared = SplitSeparableConv(8)
    x = shared(shared(keras.layers.Add()([x, ConvNorm(None, 3, activation=None)(x)])))
    model = keras.Model(images, keras.layers.Conv2D(4, 1)(x))
    rng = np.random.default_rng(0)
    for layer in all_layers(model):
        if isinstance(layer, ConvNorm):
            layer.norm.set_weights(
                [rng.uniform(*span, layer.norm.beta.shape) for span in [(1, 2), (-1, 1), (-1, 1), (1, 2)]]
            )
    return model


def images(count=4, size=33):
    return np.random.default_rng(1).uniform(0, 255, (count, size, size, 3)).astype(np.float32)


def round_kernels(model):
    for layer in all_layers(model):
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
            layer.kernel.assign(rounded(layer.kernel.value, isinstance(layer, keras.layers.DepthwiseConv2D)))


def test_kernels_are_rounded_to_127_steps_of_each_channels_largest_weight():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 5, 2)).astype(np.float32)
    for depthwise, axes in ((False, (0, 1, 2)), (True, (0, 1))):
        step = np.abs(kernel).max(axes, keepdims=True) / 127
        found = ops.convert_to_numpy(rounded(kernel, depthwise))
        assert np.abs(found - kernel).max() > 0 and (np.abs(found - kernel) <= step * 0.5001).all()
        np.testing.assert_allclose(found / step, np.round(found / step), atol=1e-3)
        # Rounded again it stays: what rounds it later finds the same steps.
        np.testing.assert_allclose(rounded(found, depthwise), found, rtol=1e-6)
    np.testing.assert_array_equal(rounded(kernel * 0, True), kernel * 0)


def test_with_corrected_biases_rounded_kernels_give_the_means_of_the_exact_ones():
    def mean(model):
        return ops.convert_to_numpy(ops.mean(model(images(), training=False), axis=(0, 1, 2)))

    model, plain = network(), network()
    exact = mean(model)
    round_kernels(plain)
    wrong = np.abs(mean(plain) - exact).max()
    with corrected_biases(model, images()):
        biases = model.get_weights()
    model.set_weights(biases)
    round_kernels(model)
    # The layer that is used twice is corrected once; float32 sums make up the rest of the others.
    assert np.abs(mean(model) - exact).max() < 1e-5 < 1e-3 < wrong


def test_afterwards_the_network_is_as_it_was_even_if_something_fails():
    model = network()
    before = model.get_weights()
    with pytest.raises(RuntimeError, match="stop"), corrected_biases(model, images()):
        inside = model.get_weights()
        raise RuntimeError("stop")
    names = [variable.path for variable in model.weights]
    changed = {
        name.rsplit("/", 1)[-1] for name, old, new in zip(names, before, inside, strict=True) if (old != new).any()
    }
    assert changed == {"beta", "bias"}
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not any({"call", "_normalized_convolution"} & vars(layer).keys() for layer in all_layers(model))
