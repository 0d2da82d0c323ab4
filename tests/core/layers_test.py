"""Building blocks: align-corners resize, sliding average, convolutions, ASPP."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from case import fixtures, run_layer_test

from nas_seg.core import resize as resize_lib
from nas_seg.core.aspp import ASPP
from nas_seg.core.conv import BatchNorm, ConvNorm, SplitSeparableConv, set_batch_norm
from nas_seg.core.pyramid_pooling import PyramidPooling, average_window
from nas_seg.core.resize import ResizeLike, resize_bilinear


@pytest.mark.parametrize("source, sizes", [("rs_x", ["9x13", "3x4", "1x1", "33x65", "10x14"]), ("rs_x1", ["5x7"])])
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_resize_equals_the_recorded_align_corners_resizes(source, sizes, backend, monkeypatch):
    # On another backend the resize is two products with hat matrices; keras.ops of this one runs them.
    monkeypatch.setattr(resize_lib.keras.backend, "backend", lambda: backend)
    arrays = np.load(fixtures("deeplab", "u_micro") / "micro.npz")
    for size in sizes:
        height, width = map(int, size.split("x"))
        resized = resize_bilinear(keras.ops.convert_to_tensor(arrays[source]), (height, width))
        np.testing.assert_allclose(resized, arrays[f"{source}_to_{size}"], atol=1e-5)


@pytest.mark.parametrize("window", [(1, 1), (3, 2), (5, 7)])
def test_average_window_equals_stride_1_valid_pooling(window):
    x = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype(np.float32)
    expected = keras.ops.average_pool(x, window, strides=1, padding="valid")
    np.testing.assert_allclose(average_window(x, window), expected, atol=1e-6)


@pytest.mark.parametrize(
    "size, grid, window", [(33, 1, 33), (33, 2, 17), (33, 4, 9), (33, 8, 5), (23, 4, 6), (1, 8, 1)]
)
def test_pooling_window_is_the_papers_share_of_the_map(size, grid, window):
    layer = PyramidPooling(2, (grid, 1))
    assert layer._window(np.zeros((1, size, 9, 1), np.float32)) == (window, 9)


def test_pyramid_pooling_of_an_unknown_size_equals_that_of_a_known_one():
    layer = PyramidPooling(4, (2, 4))
    x = np.random.default_rng(0).normal(size=(1, 9, 13, 3)).astype(np.float32)
    inputs = keras.Input((None, None, 3))
    np.testing.assert_allclose(keras.Model(inputs, layer(inputs))(x), layer(x), atol=1e-6)


def test_frozen_statistics_still_train_gamma_and_beta():
    norm = BatchNorm()
    inputs = keras.Input((None, None, 4))
    model = keras.Model(inputs, norm(inputs))
    set_batch_norm(model, update_statistics=False)
    x = np.random.default_rng(0).normal(3, 2, size=(2, 4, 4, 4)).astype(np.float32)
    # Fresh averages are 0 and 1, so frozen statistics leave the values (but for epsilon) as they are.
    np.testing.assert_allclose(model(x, training=True), x, rtol=1e-5)
    np.testing.assert_array_equal(norm.moving_mean, np.zeros(4))
    assert len(norm.trainable_weights) == 2
    set_batch_norm(model, update_statistics=True, max_momentum=0.5)
    model(x, training=True)
    np.testing.assert_allclose(norm.moving_mean, x.mean((0, 1, 2)) / 2, rtol=1e-5)
    # Bessel's correction, as TF1's fused kernel has it: 32 values a channel, divided by 31.
    np.testing.assert_allclose(norm.moving_variance, (1 + x.var((0, 1, 2), ddof=1)) / 2, rtol=1e-5)


def test_fused_and_synchronized_batch_norm_give_the_same_outputs_averages_and_gradients():
    x = tf.constant(np.random.default_rng(0).normal(3, 2, size=(2, 5, 4, 3)).astype(np.float32))
    results = []
    for synchronized in (False, True):  # Synchronised statistics are composed; on one device they are the same.
        norm = BatchNorm(0.9, synchronized=synchronized)
        norm.build(x.shape)
        norm.gamma.assign([1.0, 0.5, 2.0])
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = norm(x, training=True)
            loss = tf.reduce_sum(outputs**3)
        averages = [norm.moving_mean.value, norm.moving_variance.value]
        results.append([outputs, *averages, *tape.gradient(loss, [x, norm.gamma.value, norm.beta.value])])
    for fused, composed in zip(*results, strict=True):
        # Sums over 40 values of order 10 in another order.
        np.testing.assert_allclose(fused, composed, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(
    "layer, arguments, output_channels, trainable",
    [
        (ConvNorm, {"filters": 6, "kernel_size": 3, "dilation_rate": 2}, 6, 3),
        (ConvNorm, {"filters": None, "kernel_size": 3, "activation": "relu6"}, 5, 3),
        (ConvNorm, {"filters": 6, "activation": None}, 6, 3),
        (ConvNorm, {"filters": None, "kernel_size": (3, 1), "activation": "clip6"}, 5, 3),
        (SplitSeparableConv, {"filters": 6, "dilation_rate": (6, 2)}, 6, 6),
        (SplitSeparableConv, {"filters": 6, "activation": "relu6"}, 6, 6),
        (PyramidPooling, {"filters": 6, "grid_size": (2, 4)}, 6, 3),
        (PyramidPooling, {"filters": 6, "window": (40, 3)}, 6, 3),
        (ASPP, {"filters": 6, "atrous_rates": (2, 3), "dropout_rate": 0.0}, 6, 3 + 3 + 6 + 6 + 3),
        (ASPP, {"filters": 6, "atrous_rates": (2,), "image_pooling": False, "separable": False}, 6, 9),
        (BatchNorm, {}, 5, 2),
    ],
)
def test_layer_keeps_the_contract(layer, arguments, output_channels, trainable):
    run_layer_test(layer, arguments, (2, 9, 11, 5), (2, 9, 11, output_channels), trainable)


@pytest.mark.parametrize("explicit", [True, False])
def test_strided_convolution_halves_the_map(explicit):
    arguments = {"filters": 4, "kernel_size": 3, "strides": 2, "explicit_padding": explicit}
    run_layer_test(ConvNorm, arguments, (1, 9, 12, 3), (1, 5, 6, 4), 3)


@pytest.mark.parametrize("filters", [None, 7])
def test_normalisation_at_inference_is_that_of_convolution_and_batch_norm_one_after_the_other(filters):
    layer = ConvNorm(filters, 3, 2, explicit_padding=True)
    x = np.random.default_rng(0).normal(size=(2, 8, 9, 5)).astype(np.float32)
    layer.build(x.shape)
    for i, weight in enumerate(layer.weights[1:]):
        weight.assign(np.random.default_rng(i).uniform(0.5, 1.5, weight.shape))
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    np.testing.assert_allclose(layer(x), tf.nn.relu(layer.norm(layer.conv(padded))), atol=1e-5)


# Recorded output -> name of its kernel and what makes the layer.
_CONVOLUTIONS = {
    "conv2d_same_s2": ("cvw_a/weights", {"filters": 6, "strides": 2, "explicit_padding": True}),
    "conv2d_same_s1_r2": ("cvw_b/weights", {"filters": 6, "dilation_rate": 2, "explicit_padding": True}),
    "slim_conv_SAME_s2": ("cvw_c/weights", {"filters": 6, "strides": 2}),
    "slim_dw_SAME_s2": ("cvw_f/depthwise_weights", {"filters": None, "strides": 2}),
    "dw_rate_6x3": ("cvw_g/depthwise_weights", {"filters": None, "dilation_rate": (6, 3)}),
}


@pytest.mark.parametrize("size", ["9x12", "8x13"])
@pytest.mark.parametrize("recorded", _CONVOLUTIONS)
def test_convolution_is_padded_as_the_recorded_one(recorded, size):
    arrays = np.load(fixtures("deeplab", "u_micro") / "micro.npz")
    kernel, arguments = _CONVOLUTIONS[recorded]
    _check_recorded(arrays, size, recorded, [(kernel, ConvNorm(kernel_size=3, activation=None, **arguments))])


@pytest.mark.parametrize("size", ["9x12", "8x13"])
def test_split_separable_convolution_is_padded_as_the_recorded_one(size):
    arrays = np.load(fixtures("deeplab", "u_micro") / "micro.npz")
    depthwise = ConvNorm(None, 3, 2, activation=None, explicit_padding=True)
    chain = [
        ("cvw_e_depthwise/depthwise_weights", depthwise),
        ("cvw_e_pointwise/weights", ConvNorm(6, activation=None)),
    ]
    _check_recorded(arrays, size, "sep_same_s2_k3_split", chain)


def _check_recorded(arrays, size, recorded, chain):
    x = arrays[f"cv_{size}_in"]
    for kernel, layer in chain:
        layer.norm.epsilon = 0.0  # Fresh statistics then leave every value as it is.
        layer.build(x.shape)
        layer.conv.kernel.assign(arrays[kernel])
        x = layer(x)
    np.testing.assert_allclose(x, arrays[f"cv_{size}_{recorded}"], atol=1e-5)


def test_resize_like_takes_the_size_of_its_reference():
    layer = ResizeLike()
    values, reference = np.ones((1, 3, 3, 2), np.float32), np.zeros((1, 8, 5, 7), np.float32)
    assert layer([values, reference]).shape == (1, 8, 5, 2)
    symbolic = layer([keras.Input((None, None, 2)), keras.Input((None, None, 7))])
    assert symbolic.shape == (None, None, None, 2)
