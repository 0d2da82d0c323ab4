"""Kernels of 8 bits that cost a network little, and biases that make up for the rest."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from nas_seg.core import rounded_kernels
from nas_seg.core.conv import ConvNorm, SplitSeparableConv, all_layers
from nas_seg.core.rounded_kernels import rounded, rounded_for, rounded_network, spared


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


def squares(exact, found, products):
    """What a kernel's outputs are off by, squared, on average over the inputs of `products`."""
    error = found - exact
    return np.einsum("gkm,gkl,glm->gm", error, products, error)


def correlated(groups, inputs, seed):
    """Means of x x^T of positive inputs that go together, as neighbouring pixels do."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 1, (groups, 400, 1)) + 0.2 * rng.uniform(0, 1, (groups, 400, inputs))
    return np.einsum("gpk,gpl->gkl", x, x) / 400


def test_of_inputs_that_have_nothing_in_common_every_weight_goes_to_its_nearest_step():
    weights = np.random.default_rng(0).normal(size=(6, 9, 2))
    products = np.tile(np.diag(np.linspace(0.1, 2, 9)), (6, 1, 1))
    nearest = rounded(weights.swapaxes(0, 1).reshape(3, 3, 6, 2), True)
    nearest = ops.convert_to_numpy(nearest).reshape(9, 6, 2).swapaxes(0, 1)
    np.testing.assert_allclose(rounded_for(weights, products), nearest, atol=1e-5)


def test_weights_rounded_for_their_inputs_are_nearly_as_good_as_the_best_of_all_roundings():
    weights, products = np.random.default_rng(0).normal(size=(40, 5, 1)), correlated(40, 5, 1)
    step = np.abs(weights).max(axis=1, keepdims=True) / 127
    below = np.floor(weights / step - 1e-9) * step
    # Up or down, each weight but the largest, which stands on a step.
    largest = np.arange(5)[None, :, None] == np.abs(weights).argmax(axis=1)[:, None]
    ways = [
        np.where(largest, weights, below + step * np.reshape(up, (1, 5, 1)))
        for up in itertools.product((0, 1), repeat=5)
    ]
    best = np.min([squares(weights, way, products) for way in ways], axis=0).sum()
    nearest = squares(weights, np.round(weights / step) * step, products).sum()
    found = rounded_for(weights, products)
    np.testing.assert_allclose(found / step, np.round(found / step), atol=1e-6)
    assert (np.abs(found) <= 127.0001 * step).all()
    # One after another they end near the best, and well before what the nearest steps are off by.
    error = squares(weights, found, products).sum()
    assert best <= error < 2 * best and error < 0.5 * nearest


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.Conv2D(3, 1),
        keras.layers.Conv2D(3, 3, strides=2, padding="same"),
        keras.layers.Conv2D(3, (2, 4), padding="valid"),
        keras.layers.Conv2D(3, 3, dilation_rate=(2, 3), padding="same"),
        keras.layers.DepthwiseConv2D(3, strides=2, padding="same"),
        keras.layers.DepthwiseConv2D(3, dilation_rate=4, padding="same"),
        keras.layers.DepthwiseConv2D(5, strides=2, padding="valid", depth_multiplier=2),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(11, 14), (12, 13)])
def test_what_a_kernel_is_rounded_for_is_what_its_convolution_reads(layer, size):
    pictures = np.random.default_rng(0).normal(size=(2, *size, 4)).astype(np.float32)
    outputs = ops.convert_to_numpy(layer(pictures))
    taps = rounded_kernels._taps(layer, pictures)
    kernel = ops.convert_to_numpy(layer.kernel).reshape(taps.shape[1], 4, -1)
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    found = np.einsum("pkc,kcm->pcm" if depthwise else "pkc,kcm->pm", taps, kernel).reshape(len(taps), -1)
    # Positions are drawn, here all of them.
    expected = outputs.reshape(-1, outputs.shape[-1])
    assert found.shape == expected.shape
    np.testing.assert_allclose(np.sort(found, axis=0), np.sort(expected, axis=0), atol=1e-5)


def test_a_rounded_network_has_the_exact_ones_means_and_is_nearer_to_it():
    def run(model):
        return ops.convert_to_numpy(model(images(), training=False))

    model, plain = network(), network()
    exact = run(model)
    round_kernels(plain)
    with rounded_network(model, images()):
        weights = model.get_weights()
    model.set_weights(weights)
    before = run(model)
    round_kernels(model)
    # TFLite finds the steps anew, and every kernel on them.
    np.testing.assert_allclose(run(model), before, atol=1e-4)
    shift, wrong = (np.abs((run(one) - exact).mean(axis=(0, 1, 2))).max() for one in (model, plain))
    # The layer that is used twice is corrected once; float32 sums make up the rest of the others.
    assert shift < 1e-4 < 1e-3 < wrong
    assert np.square(run(model) - exact).mean() < 0.5 * np.square(run(plain) - exact).mean()


def test_two_convolutions_before_the_first_depthwise_one_and_ten_after_it_are_spared():
    assert spared([False, False, False, True, False, True, *[False] * 12]) == range(1, 14)
    assert spared([False, True, False]) == range(3) and spared([True]) == range(1)
    assert not spared([False] * 5) and not spared([])


@pytest.mark.parametrize("spare", [False, True])
def test_kernels_around_the_first_depthwise_one_are_spared_where_they_are_to_be(spare, monkeypatch):
    monkeypatch.setattr(rounded_kernels, "_AFTER", 2)
    inputs = x = keras.Input((None, None, 3))
    names = ("far", "stem", "expand", "first", "next", "second", "other")
    for name in names:
        x = ConvNorm(None if name in ("first", "second") else 4, 3, activation="relu6", name=name)(x)
    model = keras.Model(inputs, x)
    exact = {name: ops.copy(model.get_layer(name).conv.kernel.value) for name in names}
    with rounded_network(model, images(), spare):
        same = [name for name in names if bool(ops.all(model.get_layer(name).conv.kernel.value == exact[name]))]
    assert same == (["stem", "expand", "first", "next", "second"] if spare else [])


def test_kernels_of_too_many_inputs_are_rounded_to_the_nearest(monkeypatch):
    monkeypatch.setattr(rounded_kernels, "_MOST_INPUTS", 7)
    model = network()
    logits = model.layers[-1]
    kernel = ops.copy(logits.kernel.value)
    with rounded_network(model, images()):
        np.testing.assert_array_equal(logits.kernel.value, rounded(kernel, False))


def test_afterwards_the_network_is_as_it_was_even_if_something_fails():
    model = network()
    before = model.get_weights()
    with pytest.raises(RuntimeError, match="stop"), rounded_network(model, images()):
        inside = model.get_weights()
        raise RuntimeError("stop")
    names = [variable.path for variable in model.weights]
    changed = {
        name.rsplit("/", 1)[-1] for name, old, new in zip(names, before, inside, strict=True) if (old != new).any()
    }
    assert changed == {"beta", "bias", "kernel"}
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not any({"call", "_normalized_convolution"} & vars(layer).keys() for layer in all_layers(model))
