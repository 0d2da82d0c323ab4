"""DeepLab networks: whole ones against the original code's, heads by name and size, DeepLab-v2's logits, refusals."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from case import fixtures, recipe_value, run_layer_test

import nas_seg
from nas_seg.core import checkpoint
from nas_seg.core.backbones import BackboneConfig
from nas_seg.core.decoder import DecoderConfig
from nas_seg.deeplab import network as deeplab_network
from nas_seg.deeplab.logits import AtrousLogits
from nas_seg.deeplab.network import DeepLabConfig
from nas_seg.dpc.genotype import published
from nas_seg.dpc.network import DPCConfig
from nas_seg.model import ModelConfig
from nas_seg.utils import config as config_lib
from nas_seg.utils.errors import InputError
from nas_seg.utils.flops import count_madds

# Recorded probabilities are float32; a hundred layers of other summation order leave about 1e-5.
_TOLERANCE = 1e-4
_MOBILENET = BackboneConfig("mobilenet_v2")
_XCEPTION_65 = DeepLabConfig(BackboneConfig("xception_65"), decoder=DecoderConfig())


def _size(variables) -> int:
    return sum(int(np.prod(v.shape)) for v in variables)


def _variables(folder) -> dict:
    """Name -> shape of every variable of a recorded case."""
    lines = (line.split("\t") for line in (folder / "variables.txt").read_text().splitlines())
    return {name: tuple(map(int, shape.split(","))) for name, shape in lines}


def _fill(names, info) -> None:
    arrays = {n: recipe_value(n, tuple(v.shape), info["gain_rules"], info["seed"]) for n, v in names.items()}
    checkpoint.assign(names, arrays)


def test_xception_with_aspp_and_decoder_equals_the_recorded_network():
    folder = fixtures("deeplab", "a_xception65_aspp")
    recorded, info = np.load(folder / "os16_65x97.npz"), json.loads((folder / "info.json").read_text())
    model = nas_seg.build(ModelConfig(info["num_classes"], _XCEPTION_65))
    names = deeplab_network.tf1_names(model, _XCEPTION_65)
    assert {name: tuple(v.shape) for name, v in names.items()} == _variables(folder)
    assert {id(v) for v in names.values()} == {id(v) for v in model.weights}
    assert _size(model.trainable_variables) == info["trainable_params"] == 41_055_413
    assert _size(model.weights) == info["all_params"] == 41_258_213
    _fill(names, info)
    stages = {"head": "aspp", "decoder": "decoder", "logits": "logits"}
    parts = keras.Model(model.input, {ours: model.get_layer(name).output for ours, name in stages.items()})
    image = recorded["image"].astype(np.float32)
    for name, value in parts(image).items():
        np.testing.assert_allclose(value, recorded[name], atol=_TOLERANCE, err_msg=name)
    probabilities = keras.ops.softmax(model(image), axis=-1)
    np.testing.assert_allclose(probabilities, recorded["prob"], atol=_TOLERANCE)
    # Where the two best are this close, rounding may decide.
    best = np.sort(recorded["prob"], axis=-1)
    sure = best[..., -1] - best[..., -2] > 2 * _TOLERANCE
    np.testing.assert_array_equal(np.argmax(probabilities, axis=-1)[sure], recorded["pred"][sure])


def test_dense_head_and_decoder_have_the_variables_of_the_recorded_case():
    # The recorded network's backbone puts out 200 channels at stride 8 and 100 at stride 4.
    folder = fixtures("deeplab", "e_hnasnet_f20_paper")
    recorded, info = np.load(folder / "os8_65x97.npz"), json.loads((folder / "info.json").read_text())
    config = DeepLabConfig(
        BackboneConfig(output_stride=8),
        atrous_rates=(12, 24, 36),
        aspp_with_separable_conv=False,
        decoder=DecoderConfig(use_separable_conv=False),
    )
    inputs = keras.Input((None, None, 200)), keras.Input((None, None, 100))
    model = keras.Model(inputs, deeplab_network.head(config, info["num_classes"], inputs[0], inputs[1:]))
    names = deeplab_network.head_tf1_names(model)
    expected = {name: shape for name, shape in _variables(folder).items() if not name.startswith("hnasnet/")}
    assert {name: tuple(v.shape) for name, v in names.items()} == expected
    assert _size(model.trainable_variables) == 10_147_427 - 7_030_832
    _fill(names, info)
    logits = model([recorded["backbone"], recorded["ep:Cell_2"]])
    np.testing.assert_allclose(logits, recorded["logits"], atol=_TOLERANCE)


@pytest.mark.parametrize(
    "network, classes, expected",
    [
        (DPCConfig(published("cityscapes_top1"), BackboneConfig("xception_71"), decoder=DecoderConfig()), 19, 41608523),
        (DPCConfig(published("cityscapes_top1"), _MOBILENET, decoder=DecoderConfig()), 19, 2_663_747),
        (DeepLabConfig(_MOBILENET, head="none", atrous_rates=()), 21, 1_818_453),
        (DeepLabConfig(dataclasses.replace(_MOBILENET, depth_multiplier=0.5), atrous_rates=()), 21, 697_013),
    ],
    ids=["xception_71_dpc_decoder", "mobilenet_v2_dpc_decoder", "no_head", "half_width"],
)
def test_networks_have_the_parameters_of_the_original_graphs(network, classes, expected):
    assert _size(nas_seg.build(ModelConfig(classes, network)).trainable_variables) == expected


@pytest.mark.slow
def test_xception_65_costs_what_was_published():
    model = nas_seg.build(ModelConfig(21, _XCEPTION_65))
    assert count_madds(model, 513, 513) / 1e9 == pytest.approx(54.17, rel=3e-3)


def test_logits_of_deeplab_v2_are_a_sum_of_atrous_convolutions():
    layer = AtrousLogits(4, (2, 3), 3)
    features = np.random.default_rng(0).normal(size=(1, 9, 11, 5)).astype(np.float32)
    layer.build(features.shape)
    for branch, bias in zip(layer.branches, (0.5, -0.2), strict=True):
        branch.bias.assign(np.full(4, bias))
    expected = sum(
        keras.ops.conv(features, branch.kernel, padding="same", dilation_rate=rate) + np.asarray(branch.bias)
        for branch, rate in zip(layer.branches, (2, 3), strict=True)
    )
    np.testing.assert_allclose(layer(features), expected, atol=1e-6)


@pytest.mark.parametrize("rates, trainable", [((6,), 2), ((2, 3), 4)])
def test_logits_of_deeplab_v2_keep_the_layer_contract(rates, trainable):
    arguments = {"num_classes": 4, "atrous_rates": rates, "kernel_size": 3}
    run_layer_test(AtrousLogits, arguments, (2, 9, 11, 5), (2, 9, 11, 4), trainable)


def test_deeplab_v2_has_the_original_names_and_a_convolution_a_rate():
    config = DeepLabConfig(head="deeplab_v2", atrous_rates=(6, 12, 18, 24), logits_kernel_size=3)
    features = keras.Input((None, None, 320))
    model = keras.Model(features, deeplab_network.head(config, 21, features))
    names = deeplab_network.head_tf1_names(model)
    scopes = ["logits/semantic", *(f"logits/semantic_{i}" for i in (1, 2, 3))]
    assert set(names) == {f"{scope}/{leaf}" for scope in scopes for leaf in ("weights", "biases")}
    rates = [layer.dilation_rate for layer in model.get_layer("logits").branches]
    assert rates == [(6, 6), (12, 12), (18, 18), (24, 24)]
    assert names["logits/semantic_2/weights"] is model.get_layer("logits").branches[2].kernel


def test_bounded_activations_reach_head_and_decoder():
    backbone = dataclasses.replace(_MOBILENET, use_bounded_activation=True)
    config = DeepLabConfig(backbone, filters=8, decoder=DecoderConfig(filters=8))
    features, low_level = keras.Input((None, None, 16)), keras.Input((None, None, 4))
    model = keras.Model([features, low_level], deeplab_network.head(config, 3, features, [low_level]))
    aspp, stage = model.get_layer("aspp"), model.get_layer("decoder")
    parts = [*aspp.branches[1:], aspp.projection, stage.projection, *stage.convs]
    assert {part.activation for part in parts} == {"relu6"}


def test_squeeze_and_excitation_head_has_the_original_names():
    # MobileNet-v3's head: no projection, a gate with a bias, sums in the decoder, which puts out the logits.
    config = DeepLabConfig(
        atrous_rates=(),
        filters=128,
        image_pooling_stride=(4, 5),
        pooling_crop_size=(769, 769),
        aspp_with_concat_projection=False,
        squeeze_and_excitation="quantized_sigmoid",
        decoder=DecoderConfig((8,), 19, use_sum_merge=True, output_is_logits=True),
    )
    inputs = keras.Input((None, None, 320)), keras.Input((None, None, 192))
    model = keras.Model(inputs, deeplab_network.head(config, 19, inputs[0], inputs[1:]))
    names = deeplab_network.head_tf1_names(model)
    biased = ("image_pooling", "decoder/feature_projection0", "decoder/decoder_conv0")
    norm = ("weights", *(f"BatchNorm/{v}" for v in ("gamma", "beta", "moving_mean", "moving_variance")))
    expected = {f"{scope}/{leaf}" for scope in biased for leaf in ("weights", "biases")}
    assert set(names) == expected | {f"aspp0/{leaf}" for leaf in norm}
    assert names["decoder/decoder_conv0/weights"].shape == (1, 1, 128, 19)
    maps = [np.zeros((1, 33, 65, 320), np.float32), np.zeros((1, 129, 257, 192), np.float32)]
    assert model(maps).shape == (1, 129, 257, 19)


def test_every_option_survives_json(tmp_path):
    config = DeepLabConfig(
        BackboneConfig("xception_41", use_bounded_activation=True),
        atrous_rates=(),
        pooling_crop_size=(33, 65),
        image_pooling_stride=(4, 5),
        squeeze_and_excitation="sigmoid",
        aspp_with_concat_projection=False,
        decoder=DecoderConfig((8, 4), 16, False, True, False, 8),
        image_pyramid=(0.5, 1.0),
        merge_method="avg",
    )
    config_lib.save(tmp_path / "config.json", config)
    assert config_lib.load(tmp_path / "config.json", DeepLabConfig) == config


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"head": "asp"}, "unknown head 'asp'.*Did you mean 'aspp'"),
        (
            {"head": "none", "atrous_rates": (6, 12)},
            r"atrous_rates: expected none with head 'none', received \[6, 12\]",
        ),
        ({"head": "deeplab_v2", "atrous_rates": ()}, "atrous_rates: expected at least one with head 'deeplab_v2'"),
        ({"logits_kernel_size": 3}, "logits_kernel_size: expected 1 with head 'aspp', received 3"),
        ({"head": "deeplab_v2", "logits_kernel_size": 0}, "logits_kernel_size: expected at least 1, received 0"),
        ({"image_pooling_stride": (0, 1)}, r"image_pooling_stride: expected steps of at least 1, received \[0, 1\]"),
        (
            {"squeeze_and_excitation": "hard"},
            "unknown squeeze_and_excitation 'hard': expected one of quantized_sigmoid",
        ),
        ({"squeeze_and_excitation": "sigmoid", "add_image_level_feature": False}, "expected image pooling"),
        (
            {"head": "deeplab_v2", "decoder": DecoderConfig(output_is_logits=True)},
            "decoder_output_is_logits: expected False with head 'deeplab_v2'",
        ),
    ],
)
def test_impossible_network_is_refused_by_field(fields, message):
    with pytest.raises(InputError, match=message):
        DeepLabConfig(**fields)
