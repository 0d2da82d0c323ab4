"""ASPP: its contract, its options, and the outputs recorded from the original code."""

import json

import keras
import numpy as np
import pytest
from case import fixtures, recipe_value, run_layer_test

from nas_seg.core import checkpoint
from nas_seg.core.aspp import ASPP
from nas_seg.core.pyramid_pooling import GATES, PyramidPooling, average_window
from nas_seg.utils.errors import InputError

# float32 sums over some thousand terms in another order differ by about 1e-5 of values of order 1 to 10.
_TOLERANCE = 1e-4


def _fill(layer, folder):
    """Gives an ASPP of a recorded case the weights that it was recorded with."""
    info = json.loads((folder / "info.json").read_text())
    names = {}
    for part in (*layer.branches, layer.projection):
        names |= checkpoint.names_of(part, part.name)
    arrays = {n: recipe_value(n, tuple(v.shape), info["gain_rules"], info["seed"]) for n, v in names.items()}
    checkpoint.assign(names, arrays)


@pytest.mark.parametrize(
    "case, file, rates, separable",
    [
        ("a_xception65_aspp", "os16_65x97.npz", (6, 12, 18), True),
        ("c_mobilenetv2_coco_voc", "os16_65x97.npz", (), True),
        ("c_mobilenetv2_coco_voc", "os8_64x96.npz", (), True),
        ("e_hnasnet_f20_paper", "os8_65x97.npz", (12, 24, 36), False),
    ],
)
def test_aspp_equals_the_recorded_output_of_the_original_code(case, file, rates, separable):
    folder = fixtures("deeplab", case)
    recorded = np.load(folder / file)
    features = recorded["backbone"]
    layer = ASPP(256, rates, separable=separable)
    layer.build(features.shape)
    _fill(layer, folder)
    np.testing.assert_allclose(layer(features), recorded["head"], atol=_TOLERANCE, rtol=_TOLERANCE)
    if "t:aspp0/Relu:0" in recorded:
        np.testing.assert_allclose(layer.branches[1](features), recorded["t:aspp0/Relu:0"], atol=_TOLERANCE)
        # Recorded before the resize: one value a channel, which the resize tiles.
        pooled = np.broadcast_to(recorded["t:image_pooling/Relu:0"], (*features.shape[:3], 256))
        np.testing.assert_allclose(layer.branches[0](features), pooled, atol=_TOLERANCE)


@pytest.mark.parametrize(
    "arguments, channels, trainable",
    [
        ({"atrous_rates": (2, 3), "activation": "relu6"}, 6, 3 + 3 + 6 + 6 + 3),
        ({"atrous_rates": (2,), "concat_projection": False}, 18, 3 + 3 + 6),
        ({"squeeze_and_excitation": "sigmoid", "pooling_strides": (2, 3), "pooling_window": (4, 5)}, 6, 2 + 3 + 3),
        ({"squeeze_and_excitation": "quantized_sigmoid", "concat_projection": False}, 6, 2 + 3),
        ({"atrous_rates": (2,), "squeeze_and_excitation": "sigmoid", "separable": False}, 6, 2 + 3 + 3 + 3),
    ],
)
def test_aspp_with_options_keeps_the_layer_contract(arguments, channels, trainable):
    arguments = {"filters": 6, "dropout_rate": 0.0} | arguments
    run_layer_test(ASPP, arguments, (2, 9, 11, 5), (2, 9, 11, channels), trainable)


@pytest.mark.parametrize("gate", GATES)
def test_gate_keeps_the_layer_contract(gate):
    run_layer_test(PyramidPooling, {"filters": 6, "gate": gate, "strides": (2, 1)}, (2, 9, 11, 5), (2, 9, 11, 6), 2)


@pytest.mark.parametrize("window, strides", [((5, 4), (4, 5)), ((2, 3), (3, 1)), ((9, 13), (4, 5))])
def test_strided_average_equals_strided_valid_pooling(window, strides):
    x = np.random.default_rng(0).normal(size=(2, 9, 13, 3)).astype(np.float32)
    expected = keras.ops.average_pool(x, window, strides=strides, padding="valid")
    np.testing.assert_allclose(average_window(x, window, strides), expected, atol=1e-6)
    inputs = keras.Input((None, None, 3))
    unknown_size = keras.Model(inputs, keras.layers.Lambda(lambda x: average_window(x, window, strides))(inputs))
    np.testing.assert_allclose(unknown_size(x), expected, atol=1e-6)


def test_quantized_sigmoid_is_the_line_of_mobilenet_v3():
    values = GATES["quantized_sigmoid"](np.array([-4.0, -3.0, 0.0, 1.5, 3.0, 9.0], np.float32))
    # Factor 0.16667 and not 1 / 6.
    np.testing.assert_allclose(values, [0.0, 0.0, 0.50001, 0.750015, 1.00002, 1.00002], rtol=1e-6)


def test_squeeze_and_excitation_multiplies_the_projection_by_the_gate():
    features = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype(np.float32)
    layer = ASPP(4, (2,), squeeze_and_excitation="sigmoid")
    gated = layer(features)
    layer.excitation.conv.bias.assign([0.5, -1.0, 2.0, 0.0])
    kernel, bias = (np.asarray(v) for v in layer.excitation.conv.weights)
    gate = 1.0 / (1.0 + np.exp(-(features.mean((1, 2)) @ kernel[0, 0] + bias)))
    joined = np.concatenate([branch(features) for branch in layer.branches], axis=-1)
    expected = np.asarray(layer.projection(joined)) * gate[:, None, None]
    np.testing.assert_allclose(layer(features), expected, atol=1e-5)
    assert len(layer.branches) == 2 and not np.allclose(gated, layer(features))


def test_bounded_aspp_stays_at_6_but_for_the_pooled_image():
    features = np.random.default_rng(0).normal(size=(1, 5, 5, 3)).astype(np.float32) * 1e3 + 1e3
    layer = ASPP(4, (2,), activation="relu6", concat_projection=False)
    layer.build(features.shape)
    layer.branches[0].conv.conv.kernel.assign(np.ones((1, 1, 3, 4)))
    outputs = np.asarray(layer(features))
    assert outputs[..., 4:].max() == 6.0 and outputs[..., :4].max() > 6.0


def test_window_of_a_call_takes_the_place_of_the_layers_own():
    features = np.random.default_rng(0).normal(size=(1, 9, 9, 3)).astype(np.float32)
    own, other = ASPP(4, pooling_window=(5, 3)), ASPP(4, pooling_window=(2, 2))
    other.build(features.shape)
    other.set_weights([np.asarray(w) for w in (own(features), own.get_weights())[1]])
    np.testing.assert_array_equal(other(features, pooling_window=(5, 3)), own(features))
    assert not np.allclose(other(features), own(features))


def test_statistics_inside_every_part_move_in_training():
    features = np.random.default_rng(0).normal(3.0, size=(2, 5, 5, 3)).astype(np.float32)
    layer = ASPP(4, (2,))
    layer(features, training=True)
    for part in (*layer.branches, layer.projection):
        before = part.non_trainable_weights
        assert before and all(not np.allclose(v, 0.0) for v in before), part.name


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"squeeze_and_excitation": "sigmoid", "image_pooling": False}, "squeeze_and_excitation: expected image pool"),
        (
            {"squeeze_and_excitation": "sigmoid", "concat_projection": False, "atrous_rates": (6,)},
            r"squeeze_and_excitation.*no atrous_rates.*\[6\]",
        ),
        ({"squeeze_and_excitation": "sigmoyd"}, "unknown gate 'sigmoyd'.*Did you mean 'sigmoid'"),
    ],
)
def test_options_that_exclude_each_other_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        ASPP(**arguments)
