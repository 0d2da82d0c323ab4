"""Backbones: recorded features, exact sizes, atrous consistency, TF1 names, endpoints, keras.applications' weights."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from case import fixtures, recipe_value

from nas_seg.core import checkpoint
from nas_seg.core.backbones import (
    BACKBONES,
    BackboneConfig,
    build_backbone,
    identity,
    load_applications_weights,
    mean_pixel,
    normalize,
    tf1_names,
)
from nas_seg.core.backbones.atrous import atrous_plan
from nas_seg.core.backbones.mobilenet_v2 import make_divisible
from nas_seg.core.conv import ConvNorm, all_layers, regularized_kernels
from nas_seg.utils.config import from_json, to_json
from nas_seg.utils.errors import InputError

# Gains that keep the activations of every network of order 1 to 10, as the recorded cases have them.
_RULES = [
    [r"^xception_\d+/(entry_flow/block|middle_flow/|exit_flow/block1/)", 0.8, 0.8],
    [r"^xception_\d+/exit_flow/block2/", 2.0, 1.7],
    [r"/conv3/|/shortcut/", 0.0, 0.3],
    ["", 1.0, 2.0],
]
_SMALL = {"depth_multiplier": 0.35, "divisible_by": 8}
# Trainable parameters: those of Xception-65 and 71 were read off the original graphs. The others are what whole
# networks leave: 28,108,661 (Xception-41) and 26,819,909 (ResNet-50 beta), both with ASPP, decoder and 21 classes, less
# the 3,188,101 of these, which are 41,055,413 less Xception-65; 2,113,557 of MobileNet-v2 less its head. The plain
# ResNets have 7*7*3*64 + 2*64 in place of the beta stem's convolutions and a shortcut of 64 in place of 128 channels;
# 101 has seventeen more units of 1,117,184 than 50.
_PARAMETERS = {
    "mobilenet_v2": 2_113_557 - (2 * (320 * 256 + 512) + 512 * 256 + 512 + 257 * 21),
    "xception_41": 28_108_661 - (41_055_413 - 37_867_312),
    "xception_65": 37_867_312,
    "xception_71": 40_289_736,
    "resnet_v1_50_beta": 26_819_909 - 3_188_101,
}
_PARAMETERS["resnet_v1_101_beta"] = _PARAMETERS["resnet_v1_50_beta"] + 17 * 1_117_184
_STEM_DIFFERENCE = (9 * (3 * 64 + 64 * 64 + 64 * 128) + 2 * 256 + 64 * 256 + 64 * 64) - (49 * 3 * 64 + 2 * 64)
for _depth in (50, 101):
    _PARAMETERS[f"resnet_v1_{_depth}"] = _PARAMETERS[f"resnet_v1_{_depth}_beta"] - _STEM_DIFFERENCE


def _parameters(variables) -> int:
    return sum(int(np.prod(v.shape)) for v in variables)


def _fill(backbone, config, rules=_RULES, seed=0) -> dict:
    names = tf1_names(backbone, config)
    checkpoint.assign(names, {n: recipe_value(n, tuple(v.shape), rules, seed) for n, v in names.items()})
    return names


def _image(height, width) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (1, height, width, 3)).astype(np.float32)


def _close(actual, expected):
    # Float32 sums in another order, after up to 200 convolutions.
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.fixture(scope="module", params=sorted(BACKBONES))
def nominal(request):
    """(config, model with every endpoint, its features and endpoints, the image) at stride 32, weights filled."""
    config = BackboneConfig(request.param, 32)
    backbone = build_backbone(config, (16, 4, 8))
    _fill(backbone, config)
    # Convolutions that are padded on both sides keep dense and strided features apart by nothing at even sizes
    # too; TensorFlow's SAME, MobileNet's, does so at sizes of 32 k + 1 alone.
    image = _image(65, 97) if request.param == "mobilenet_v2" else _image(64, 97)
    return config, backbone, [np.asarray(output) for output in backbone(image)], image


def test_dense_features_subsampled_are_the_features_of_stride_32(nominal):
    config, backbone, outputs, image = nominal
    # The plan of stride 16 is a part of that of 8 in all but the last blocks, so one network of each kind shows it.
    for stride in (8, 16) if config.name in ("mobilenet_v2", "xception_41", "resnet_v1_50") else (8,):
        dense = build_backbone(dataclasses.replace(config, output_stride=stride))
        # `nominal` has endpoints and this has none: neither the weights nor their order depend on that.
        assert [v.path for v in dense.weights] == [v.path for v in backbone.weights]
        dense.set_weights(backbone.get_weights())
        features, step = np.asarray(dense(image)), 32 // stride
        assert features.shape[1:3] == (-(-image.shape[1] // stride), -(-image.shape[2] // stride))
        _close(features[:, ::step, ::step], outputs[0])


def test_size_is_that_of_the_original_network(nominal):
    config, backbone, *_ = nominal
    assert _parameters(backbone.trainable_variables) == _PARAMETERS[config.name]


def test_tf1_names_are_distinct_and_name_every_variable(nominal):
    config, backbone, *_ = nominal
    names = tf1_names(backbone, config)
    assert {id(v) for v in names.values()} == {id(v) for v in backbone.weights}
    assert len(names) == len(backbone.weights)
    assert all(name.startswith(BACKBONES[config.name].root + "/") for name in names)


def test_endpoints_come_in_the_order_asked_for_at_their_stride(nominal):
    config, _, outputs, image = nominal
    # Channels at strides 16, 4 and 8.
    expected = {"mobilenet_v2": (576, 144, 192), "resnet": (1024, 256, 512), "xception": (1024, 256, 728)}
    channels = next(c for name, c in expected.items() if config.name.startswith(name))
    for stride, wanted, output in zip((16, 4, 8), channels, outputs[1:], strict=True):
        assert output.shape == (1, -(-image.shape[1] // stride), -(-image.shape[2] // stride), wanted)


def test_weight_decay_falls_on_full_kernels_alone(nominal):
    _, backbone, *_ = nominal
    kernels = {id(v) for v in regularized_kernels(backbone)}
    convolutions = [layer for layer in all_layers(backbone) if isinstance(layer, ConvNorm)]
    assert kernels == {id(layer.conv.kernel) for layer in convolutions if layer.filters is not None}


_XCEPTION_ENDPOINTS = {
    "entry_flow/conv1_1": "entry_flow_conv1_1",
    "entry_flow/conv1_2": "entry_flow_conv1_2",
    "entry_flow/block1": "entry_flow_block1_unit_1_xception_module_add",
    "entry_flow/block2": "entry_flow_block2_unit_1_xception_module_add",
    "entry_flow/block2/unit_1/xception_module/separable_conv2_pointwise": (
        "entry_flow_block2_unit_1_xception_module_separable_conv2_pointwise"
    ),
    "entry_flow/block3": "entry_flow_block3_unit_1_xception_module_add",
    "middle_flow/block1": "middle_flow_block1_unit_16_xception_module_add",
    "exit_flow/block1": "exit_flow_block1_unit_1_xception_module_add",
}
_ENDPOINTS = {
    "xception_65": {f"xception_65/{name}": layer for name, layer in _XCEPTION_ENDPOINTS.items()},
    "mobilenet_v2": {
        "layer_1": "Conv",
        "layer_2": "expanded_conv_project",
        "layer_4": "expanded_conv_2_add",
        "layer_4/depthwise_output": "expanded_conv_2_depthwise",
        "layer_7": "expanded_conv_5_add",
        "layer_11": "expanded_conv_9_add",
        "layer_14": "expanded_conv_12_add",
        "layer_15": "expanded_conv_13_project",
        "layer_18": "expanded_conv_16_project",
    },
}


@pytest.mark.parametrize(
    "case, file, name, stride",
    [
        ("a_xception65_aspp", "os16_65x97.npz", "xception_65", 16),
        ("c_mobilenetv2_coco_voc", "os16_65x97.npz", "mobilenet_v2", 16),
        ("c_mobilenetv2_coco_voc", "os8_64x96.npz", "mobilenet_v2", 8),
    ],
)
def test_features_and_endpoints_are_those_recorded_from_the_original_code(case, file, name, stride):
    folder = fixtures("deeplab", case)
    info, recorded = json.loads((folder / "info.json").read_text()), np.load(folder / file)
    config = BackboneConfig(name, stride)
    backbone = build_backbone(config)
    names = _fill(backbone, config, info["gain_rules"], info["seed"])
    variables = dict(line.split("\t") for line in (folder / "variables.txt").read_text().splitlines())
    root = BACKBONES[name].root
    ours = {name: ",".join(map(str, v.shape)) for name, v in names.items()}
    assert ours == {name: shape for name, shape in variables.items() if name.startswith(root)}

    layers = {f"ep:{name}": backbone.get_layer(layer).output for name, layer in _ENDPOINTS[name].items()}
    assert layers.keys() == {key for key in recorded if key.startswith("ep:")}
    outputs = keras.Model(backbone.input, layers | {"backbone": backbone.output})(
        normalize(config)(recorded["image"].astype(np.float32))
    )
    for key, output in outputs.items():
        np.testing.assert_allclose(output, recorded[key], rtol=0, atol=1e-4, err_msg=key)


def _norm(names: dict, scope: str, x):
    values = [names[f"{scope}/BatchNorm/{n}"].value for n in ("moving_mean", "moving_variance", "beta", "gamma")]
    return tf.nn.batch_normalization(x, *values, 1e-5)


def _reference_unit(names: dict, scope: str, x, stride: int, rate: int):
    """A ResNet bottleneck in TensorFlow's own operations, at stride 1 and then subsampled."""

    def conv(x, part, rate=1):
        kernel = names[f"{scope}/{part}/weights"].value
        return _norm(names, f"{scope}/{part}", tf.nn.conv2d(x, kernel, 1, "SAME", dilations=rate))

    shortcut = conv(x, "shortcut") if f"{scope}/shortcut/weights" in names else x
    inner = tf.nn.relu(conv(tf.nn.relu(conv(x, "conv1")), "conv2", rate))
    return tf.nn.relu(shortcut + conv(inner, "conv3"))[:, ::stride, ::stride]


def test_resnet_strides_in_the_last_units_pads_its_stem_on_both_sides_and_has_multi_grid_in_its_last_block():
    config = BackboneConfig("resnet_v1_50", 16, multi_grid=(1, 2, 4))
    backbone = build_backbone(config)
    names = _fill(backbone, config)
    image = _image(62, 97)
    padded = tf.pad(image, [(0, 0), (3, 3), (3, 3), (0, 0)])
    x = tf.nn.conv2d(padded, names["resnet_v1_50/conv1/weights"].value, 2, "VALID")
    x = tf.nn.max_pool2d(tf.nn.relu(_norm(names, "resnet_v1_50/conv1", x)), 3, 2, "SAME")
    for block, units in enumerate((3, 4, 6, 3), start=1):
        for unit in range(1, units + 1):
            # Output stride 16 is reached before block 3 would stride: its last unit keeps rate 1, block 4 has 2.
            stride = 2 if unit == units and block < 3 else 1
            rate = 2 * (1, 2, 4)[unit - 1] if block == 4 else 1
            x = _reference_unit(names, f"resnet_v1_50/block{block}/unit_{unit}/bottleneck_v1", x, stride, rate)
    _close(backbone(image), x)


def test_bounded_xception_bounds_every_sum_and_pads_as_tensorflow_does():
    config = BackboneConfig("xception_41", 16, multi_grid=(1, 2, 4), use_bounded_activation=True)
    backbone = build_backbone(config, (4,))
    rules = [["", 4.0, 4.0]]  # Large enough for the bounds to be reached.
    _fill(backbone, config, rules)
    image = _image(64, 96)
    features, low_level = map(np.asarray, backbone(image))
    assert low_level.min() == -6.0 and low_level.max() == 6.0
    assert features.min() == 0.0 and features.max() == 6.0
    convolutions = {layer.name: layer for layer in backbone.layers if isinstance(layer, ConvNorm)}
    # Three of the exit's last block have rates 1, 2, 4 at the doubled rate of output stride 16.
    last = "exit_flow_block2_unit_1_xception_module_separable_conv"
    assert [convolutions[f"{last}{i}_depthwise"].dilation_rate for i in (1, 2, 3)] == [2, 4, 8]
    strided = [name for name, layer in convolutions.items() if layer.strides > 1 and layer.kernel_size == 3]
    # At output stride 16 the exit's first block does not stride.
    units = [f"entry_flow_block{i}_unit_1_xception_module_separable_conv3_depthwise" for i in (1, 2, 3)]
    assert strided == ["entry_flow_conv1_1", *units]
    assert [convolutions[name].conv.padding for name in strided] == ["valid", "same", "same", "same"]


@pytest.mark.parametrize(
    "target, expected",
    [(1, [(1, 1), (1, 1), (1, 2), (1, 2), (1, 4)]), (2, [(1, 1), (2, 1), (1, 1), (1, 1), (1, 2)])],
)
def test_rate_grows_after_the_unit_that_would_stride(target, expected):
    assert list(atrous_plan([1, 2, 1, 2, 1], target)) == expected


@pytest.mark.parametrize("name", ["xception_65", "resnet_v1_50"])
def test_normalisation_is_that_of_the_original_and_maps_the_mean_pixel_to_0(name):
    arrays = np.load(fixtures("deeplab", "u_micro") / "micro.npz")
    layer = normalize(BackboneConfig(name))
    assert layer.name == "normalize"
    np.testing.assert_allclose(layer(arrays[f"pp_{name}_image"][None]), arrays[f"pp_{name}_normalised"], atol=1e-6)
    pixel = mean_pixel(layer)
    assert pixel == {"xception_65": (127.5,) * 3, "resnet_v1_50": (123.15, 115.90, 103.06)}[name]
    np.testing.assert_allclose(layer(np.float32(pixel)), 0.0, atol=1e-6)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert mean_pixel(again) == pixel


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """(keras.applications' MobileNetV2 of width 0.35, the path of its weights)."""
    keras.utils.set_random_seed(0)
    theirs = keras.applications.MobileNetV2(input_shape=(64, 96, 3), alpha=0.35, include_top=False, weights=None)
    path = str(tmp_path_factory.mktemp("applications") / "narrow.weights.h5")
    theirs.save_weights(path)
    return theirs, path


def test_applications_weights_give_the_features_of_keras_applications(narrow):
    theirs, path = narrow
    config = BackboneConfig(output_stride=32, **_SMALL)
    ours = build_backbone(config)
    load_applications_weights(ours, config, path)
    cut = keras.Model(theirs.input, theirs.get_layer("block_16_project_BN").output)
    image = _image(64, 96)
    np.testing.assert_allclose(ours(image), cut(image), atol=1e-6)


def test_weights_of_another_width_are_refused_naming_the_file(narrow):
    _, path = narrow
    config = BackboneConfig()
    with pytest.raises(InputError, match="narrow.weights.h5: expected MobileNetV2 weights"):
        load_applications_weights(build_backbone(config), config, path)
    unrounded = BackboneConfig(depth_multiplier=0.35)
    with pytest.raises(InputError, match="divisible_by=8"):
        load_applications_weights(build_backbone(unrounded), unrounded, path)


def test_applications_weights_of_a_backbone_that_keras_has_otherwise_are_refused():
    with pytest.raises(InputError, match="imagenet: expected a run folder for backbone 'xception_65'.*mobilenet_v2"):
        load_applications_weights(None, BackboneConfig("xception_65"), "imagenet")


@pytest.mark.parametrize(
    "value, divisor, minimum, expected",
    [
        (32 * 0.35, 8, None, 16),
        (24 * 0.35, 8, None, 8),
        (16 * 0.5, 1, 1, 8),
        (12.0, 8, None, 16),
        (11.2, 1, 1, 11),
        # Nothing is left of 3.2 but the least, 1, which is too far down.
        (3.2, 8, 1, 9),
    ],
)
def test_channels_round_as_slim_does(value, divisor, minimum, expected):
    assert make_divisible(value, divisor, minimum) == expected


def test_half_a_mobilenet_has_the_channels_of_the_zoos_network():
    config = BackboneConfig(depth_multiplier=0.5)
    backbone = build_backbone(config)
    # Trainable parameters of the whole network with 21 classes, less its head of image pooling, 1x1 and projection.
    head = 2 * (160 * 256 + 512) + 512 * 256 + 512 + 257 * 21
    assert _parameters(backbone.trainable_variables) == 697_013 - head
    projections = [layer.filters for layer in backbone.layers if layer.name.endswith("_project")]
    assert projections[:4] == [8, 12, 12, 16] and projections[-2:] == [80, 160]


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"name": "mobilenet_v3"}, "unknown backbone 'mobilenet_v3'.*Did you mean 'mobilenet_v2'"),
        ({"name": "xception_66"}, "Did you mean 'xception_65'"),
        ({"output_stride": 4}, "output_stride: expected 8, 16 or 32, received 4"),
        ({"depth_multiplier": 0.0}, "depth_multiplier"),
        ({"depth_multiplier": float("nan")}, "depth_multiplier: expected a finite number above 0, received nan"),
        ({"depth_multiplier": float("inf")}, "depth_multiplier: expected a finite number above 0, received inf"),
        ({"name": "xception_65", "depth_multiplier": 0.5}, "depth_multiplier: expected 1.0 .*'xception_65'.*mobilenet"),
        ({"name": "resnet_v1_50", "divisible_by": 8}, "divisible_by: expected None for backbone 'resnet_v1_50'"),
        ({"multi_grid": (1, 2, 4)}, "multi_grid: expected None for backbone 'mobilenet_v2'.*xception_41"),
        ({"name": "xception_41", "multi_grid": (1, 2)}, r"multi_grid: expected three rates.*received \[1, 2\]"),
        ({"name": "xception_41", "multi_grid": (1, 0, 2)}, r"multi_grid: expected three rates"),
    ],
)
def test_impossible_backbone_is_refused_by_field(fields, message):
    with pytest.raises(InputError, match=message):
        BackboneConfig(**fields)


@pytest.mark.parametrize("stride, asked", [(16, 16), (8, 8), (32, 2)])
def test_low_level_stride_without_endpoint_is_refused_naming_those_that_have_one(stride, asked):
    known = {8: "4", 16: "4, 8", 32: "4, 8, 16"}[stride]
    with pytest.raises(InputError, match=f"low-level stride {asked}: mobilenet_v2 .*endpoints of stride {known}$"):
        build_backbone(BackboneConfig(output_stride=stride, **_SMALL), (asked,))


def test_configuration_written_before_some_fields_existed_is_read_and_identified_as_it_was():
    old = {"name": "mobilenet_v2", "output_stride": 8, "depth_multiplier": 0.5, "divisible_by": None}
    config = from_json(BackboneConfig, old)
    assert config == BackboneConfig(output_stride=8, depth_multiplier=0.5)
    assert identity(config) == old
    grid = BackboneConfig("xception_41", multi_grid=(1, 2, 4))
    assert from_json(BackboneConfig, to_json(grid)) == grid
    assert identity(grid)["multi_grid"] == [1, 2, 4] and "use_bounded_activation" not in identity(grid)
