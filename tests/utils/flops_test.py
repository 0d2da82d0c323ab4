"""Multiply-adds against those counted on the original graphs."""

import keras
import pytest

import nas_seg
from nas_seg.utils.flops import count_madds


def test_one_convolution_costs_its_outputs_times_its_kernel():
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same")(inputs)
    model = keras.Model(inputs, keras.layers.DepthwiseConv2D(5, padding="same", dilation_rate=2)(x))
    assert count_madds(model, 17, 33) == 9 * 17 * 8 * (27 + 25)


@pytest.mark.parametrize(
    "preset, classes, size, billions",
    [
        ("deeplabv3_mobilenet_v2_no_rates", 21, (513, 513), 2.742),
        ("dpc_mobilenet_v2", 19, (1025, 2049), 25.19),
        ("deeplabv3_mobilenet_v2", 19, (1025, 2049), 25.03),
    ],
)
def test_presets_cost_what_the_original_graphs_do(preset, classes, size, billions):
    madds = count_madds(nas_seg.from_preset(preset, classes), *size)
    # The originals' own count takes in the padding that TensorFlow adds to atrous convolutions, up to 0.1%.
    assert madds / 1e9 == pytest.approx(billions, rel=1e-3)
