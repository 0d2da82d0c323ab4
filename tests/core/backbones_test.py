"""Backbones: atrous consistency, keras.applications' weights, channel rounding."""

import keras
import numpy as np
import pytest

from nas_seg.core.backbones import BackboneConfig, build_backbone, load_applications_weights
from nas_seg.core.backbones.mobilenet_v2 import make_divisible
from nas_seg.utils.errors import InputError


def _randomize(model):
    random = np.random.default_rng(0)
    for variable in model.variables:
        if "moving_variance" in variable.path or "gamma" in variable.path:
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
        elif len(variable.shape) == 4:
            fan_in = np.prod(variable.shape[:2]) * (1 if "depthwise" in variable.path else variable.shape[2])
            variable.assign(random.normal(0, np.sqrt(2 / fan_in), variable.shape))


@pytest.mark.parametrize("stride", [8, 16])
def test_dense_features_subsampled_are_the_features_of_stride_32(stride):
    # With size 32k + 1 the positions of stride 32 are among those of every smaller stride. MobileNet-v2 pads
    # TensorFlow's way, which on odd sizes is symmetric, as atrous conversion supposes.
    image = np.random.default_rng(1).uniform(-1, 1, (1, 97, 129, 3)).astype(np.float32)
    nominal = build_backbone(BackboneConfig(output_stride=32, depth_multiplier=0.35, divisible_by=8))
    _randomize(nominal)
    dense = build_backbone(BackboneConfig(output_stride=stride, depth_multiplier=0.35, divisible_by=8))
    dense.set_weights(nominal.get_weights())
    step = 32 // stride
    expected = np.asarray(nominal(image))
    # Values are of order 1 to 10 after 17 blocks; float32 sums in another order differ by 1e-5 of that.
    np.testing.assert_allclose(dense(image)[:, ::step, ::step], expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("alpha", [1.0, 0.35])
def test_applications_weights_give_the_features_of_keras_applications(alpha, tmp_path):
    keras.utils.set_random_seed(0)
    theirs = keras.applications.MobileNetV2(input_shape=(64, 96, 3), alpha=alpha, include_top=False, weights=None)
    theirs.save_weights(tmp_path / "theirs.weights.h5")
    config = BackboneConfig(output_stride=32, depth_multiplier=alpha, divisible_by=8)
    ours = build_backbone(config)
    load_applications_weights(ours, config, str(tmp_path / "theirs.weights.h5"))
    cut = keras.Model(theirs.input, theirs.get_layer("block_16_project_BN").output)
    image = np.random.default_rng(0).uniform(-1, 1, (1, 64, 96, 3)).astype(np.float32)
    np.testing.assert_allclose(ours(image), cut(image), atol=1e-6)


def test_weights_of_another_width_are_refused_naming_the_file(tmp_path):
    theirs = keras.applications.MobileNetV2(input_shape=(64, 64, 3), alpha=0.35, include_top=False, weights=None)
    path = str(tmp_path / "narrow.weights.h5")
    theirs.save_weights(path)
    config = BackboneConfig()
    with pytest.raises(InputError, match="narrow.weights.h5: expected MobileNetV2 weights"):
        load_applications_weights(build_backbone(config), config, path)
    unrounded = BackboneConfig(depth_multiplier=0.35)
    with pytest.raises(InputError, match="divisible_by=8"):
        load_applications_weights(build_backbone(unrounded), unrounded, path)


@pytest.mark.parametrize(
    "value, divisor, expected", [(32 * 0.35, 8, 16), (24 * 0.35, 8, 8), (16 * 0.5, 1, 8), (12.0, 8, 16), (11.2, 1, 11)]
)
def test_channels_round_as_slim_does(value, divisor, expected):
    assert make_divisible(value, divisor) == expected


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"name": "mobilenet_v3"}, "unknown backbone 'mobilenet_v3'.*Did you mean 'mobilenet_v2'"),
        ({"output_stride": 4}, "output_stride: expected 8, 16 or 32, received 4"),
        ({"depth_multiplier": 0.0}, "depth_multiplier"),
    ],
)
def test_impossible_backbone_is_refused_by_field(fields, message):
    with pytest.raises(InputError, match=message):
        BackboneConfig(**fields)
