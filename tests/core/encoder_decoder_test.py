"""What all families share around their context modules: decoders, image pyramids, names, refusals."""

import dataclasses

import keras
import numpy as np
import pytest

import nas_seg
from nas_seg.core import backbones, encoder_decoder
from nas_seg.core.conv import ConvNorm
from nas_seg.core.decoder import DecoderConfig
from nas_seg.core.encoder_decoder import ResizeToScale
from nas_seg.core.resize import resize_bilinear
from nas_seg.deeplab import network as deeplab_network
from nas_seg.deeplab.network import DeepLabConfig
from nas_seg.dpc import network as dpc_network
from nas_seg.dpc.genotype import DPCGenotype
from nas_seg.dpc.network import DPCConfig
from nas_seg.model import ModelConfig
from nas_seg.utils import config as config_lib
from nas_seg.utils.dimension import scale_dimension
from nas_seg.utils.errors import InputError

_CELL = DPCGenotype.from_list(
    [
        {"op": "conv", "kernel": 3, "rate": [1, 6], "input": -1},
        {"op": "pyramid_pooling", "grid_size": [2, 1], "input": 0},
    ]
)
_DEEPLAB = DeepLabConfig(atrous_rates=(2,), filters=8)
_DPC = DPCConfig(_CELL, filters=8, concat_filters=8)
_TOLERANCE = 1e-5
_DECODER = DecoderConfig(filters=8, projection_filters=4)
_NAMES = {DeepLabConfig: deeplab_network.tf1_names, DPCConfig: dpc_network.tf1_names}


@pytest.fixture(autouse=True)
def _small_backbone(monkeypatch):
    """Four strided convolutions stand in for a backbone of sixty layers."""

    def build(config, low_level_strides=()):
        images = x = keras.Input((None, None, 3))
        maps = {}
        for stride in (2, 4, 8, 16):
            x = maps[stride] = ConvNorm(4, 3, 2, name=f"stride_{stride}")(x)
        outputs = [x, *(maps[stride] for stride in low_level_strides)]
        return keras.Model(images, outputs if low_level_strides else x, name="backbone")

    monkeypatch.setattr(encoder_decoder, "build_backbone", build)
    monkeypatch.setattr(backbones, "tf1_names", lambda model, config: {v.path: v for v in model.variables})


def _build(network, num_classes=3):
    """A network with weights from a fixed seed, in which no normalisation is the identity."""
    model = nas_seg.build(ModelConfig(num_classes, network))
    random = np.random.default_rng(0)
    for variable in model.variables:
        if "gamma" in variable.path or "variance" in variable.path:
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
        else:
            fan_in = np.prod(variable.shape[:-1]) if "depthwise" not in variable.path else 9
            variable.assign(random.normal(0, np.sqrt(2 / fan_in) if len(variable.shape) == 4 else 0.1, variable.shape))
    return model


def _image(height=65, width=97):
    return np.random.default_rng(1).uniform(0, 255, (1, height, width, 3)).astype(np.float32)


def _logits(model, image):
    return np.asarray(keras.Model(model.input, model.get_layer("logits").output)(image))


@pytest.mark.parametrize("network", [_DEEPLAB, _DPC], ids=["deeplab", "dpc"])
@pytest.mark.parametrize(
    "decoder",
    [_DECODER, dataclasses.replace(_DECODER, output_strides=(8, 4)), DecoderConfig((4,), 3, True, True, True)],
)
def test_logits_after_a_decoder_have_the_size_of_its_stride(network, decoder):
    model = _build(dataclasses.replace(network, decoder=decoder))
    for size in ((65, 97), (64, 96)):
        assert _logits(model, _image(*size)).shape == (1, *(scale_dimension(n, 1 / 4) for n in size), 3)
        assert model(_image(*size)).shape == (1, *size, 3)


@pytest.mark.parametrize("network", [_DEEPLAB, _DPC], ids=["deeplab", "dpc"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"decoder": dataclasses.replace(_DECODER, output_strides=(8, 4))},
        {"decoder": DecoderConfig((4,), 3, True, True, True)},
        {"decoder": _DECODER, "image_pyramid": (0.5, 1.0, 1.75)},
    ],
    ids=["bare", "two_stages", "logits", "pyramid"],
)
def test_tf1_names_name_every_variable_once(network, fields):
    network = dataclasses.replace(network, **fields)
    model = _build(network)
    names = _NAMES[type(network)](model, network)
    assert {id(v) for v in names.values()} == {id(v) for v in model.weights} and len(names) == len(model.weights)


@pytest.mark.parametrize("network", [_DEEPLAB, _DPC], ids=["deeplab", "dpc"])
def test_configuration_survives_json_and_old_files_read_without_the_new_fields(network, tmp_path):
    full = ModelConfig(3, dataclasses.replace(network, decoder=_DECODER, image_pyramid=(0.5, 1.0), merge_method="avg"))
    config_lib.save(tmp_path / "config.json", full)
    assert config_lib.load(tmp_path / "config.json", ModelConfig) == full
    old = config_lib.to_json(ModelConfig(3, network))
    for name in ("decoder", "image_pyramid", "merge_method"):
        del old["network"][name]
    assert config_lib.from_json(ModelConfig, old) == ModelConfig(3, network)


def _scaled_image(image, scale):
    # Pixels are resized before the normalisation, which is linear: the same but for rounding.
    return np.asarray(resize_bilinear(image, [scale_dimension(n, scale) for n in image.shape[1:3]]))


@pytest.mark.parametrize(
    "method, merge, decoder, scales",
    [
        ("max", np.max, None, (0.5, 1.0, 1.75)),
        ("avg", np.mean, _DECODER, (0.5, 1.0, 1.75)),
        ("max", np.max, _DECODER, (0.5, 0.7)),
    ],
)
def test_pyramid_merges_the_logits_of_the_single_scales(method, merge, decoder, scales):
    network = dataclasses.replace(_DEEPLAB, decoder=decoder)
    model = _build(dataclasses.replace(network, image_pyramid=scales, merge_method=method))
    single, image = _build(network), _image()
    single.set_weights(model.get_weights())
    stride = 4 if decoder else 16
    size = [scale_dimension(n, max(1.0, *scales) / stride) for n in image.shape[1:3]]
    each = [np.asarray(resize_bilinear(_logits(single, _scaled_image(image, scale)), size)) for scale in scales]
    merged = merge(each, axis=0)
    expected = np.asarray(resize_bilinear(merged, image.shape[1:3]))
    # Normalising before or after the resize differs by rounding.
    np.testing.assert_allclose(model(image), expected, atol=_TOLERANCE)

    losses = encoder_decoder.loss_model(model)(image)
    assert set(losses) == {"merged_logits", *(f"logits_{scale:.2f}" for scale in scales)}
    np.testing.assert_allclose(losses["merged_logits"], model(image), atol=1e-6)
    for scale, logits in zip(scales, each, strict=True):
        at_image_size = resize_bilinear(logits, image.shape[1:3])
        np.testing.assert_allclose(losses[f"logits_{scale:.2f}"], at_image_size, atol=_TOLERANCE)


def test_network_of_one_scale_has_one_loss():
    model = _build(dataclasses.replace(_DEEPLAB, image_pyramid=(0.5,)))
    assert encoder_decoder.loss_model(model) is model
    plain = _build(dataclasses.replace(_DEEPLAB, image_pyramid=(1.0,)))
    assert [type(layer) for layer in plain.layers] == [type(layer) for layer in _build(_DEEPLAB).layers]


def test_pooling_window_grows_with_the_scale_of_the_pyramid():
    network = dataclasses.replace(_DEEPLAB, pooling_crop_size=(33, 33))
    model = _build(dataclasses.replace(network, image_pyramid=(1.0, 1.75)))
    single = _build(dataclasses.replace(network, pooling_crop_size=(57, 57)))
    single.set_weights(model.get_weights())
    expected = _logits(single, _scaled_image(_image(), 1.75))
    large = keras.Model(model.input, model.get_layer("logits_1.75").output)(_image())
    np.testing.assert_allclose(large, expected, atol=_TOLERANCE)
    assert not np.allclose(large, _logits(_with_weights(network, model), _scaled_image(_image(), 1.75)), atol=1e-2)


def _with_weights(network, model):
    other = _build(network)
    other.set_weights(model.get_weights())
    return other


def test_scales_share_the_cell_and_its_windows_are_scaled_with_the_image():
    network = dataclasses.replace(_DPC, image_pyramid=(0.5,), pooling_crop_size=(65, 49))
    model = _build(network)
    # One scale alone: its logits are those of the image at this scale, by a network whose windows are of half the crop.
    half = dataclasses.replace(network, image_pyramid=(), pooling_crop_size=(33, 25))
    expected = _logits(_with_weights(half, model), _scaled_image(_image(), 0.5))
    size = _logits(model, _image()).shape[1:3]
    np.testing.assert_allclose(_logits(model, _image()), resize_bilinear(expected, size), atol=1e-5)
    both = dataclasses.replace(network, image_pyramid=(1.0, 0.5), decoder=_DECODER)
    alone = dataclasses.replace(both, image_pyramid=())
    # The original has meta_architecture_1 besides.
    assert set(dpc_network.tf1_names(_build(both), both)) == set(dpc_network.tf1_names(_build(alone), alone))


@pytest.mark.parametrize("network", [_DEEPLAB, _DPC], ids=["deeplab", "dpc"])
def test_saved_model_with_pyramid_and_decoder_gives_the_same_logits(network, tmp_path):
    network = dataclasses.replace(network, decoder=_DECODER, image_pyramid=(1.0, 0.5), pooling_crop_size=(33, 33))
    model = _build(network)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(_image()), model(_image()))


def test_resize_to_scale_takes_deeplabs_sizes_known_or_not():
    inputs = keras.Input((None, None, 2))
    for scale in (0.25, 0.5, 0.7, 1.3, 1.75):
        layer = ResizeToScale(scale)
        unknown_size = keras.Model(inputs, layer([inputs, inputs]))
        for size in ((11, 65), (64, 97)):
            x = np.zeros((1, *size, 2), np.float32)
            expected = (1, *(scale_dimension(n, scale) for n in size), 2)
            assert layer([x, x]).shape == layer.compute_output_shape([x.shape] * 2) == expected
            assert unknown_size.predict(x, verbose=0).shape == expected
    assert ResizeToScale.from_config(layer.get_config()).scale == 1.75


@pytest.mark.parametrize("network", [_DEEPLAB, _DPC], ids=["deeplab", "dpc"])
@pytest.mark.parametrize(
    "fields, message",
    [
        ({"decoder": DecoderConfig((16, 4))}, r"decoder_output_stride: expected strides below output_stride 16.*16, 4"),
        ({"merge_method": "sum"}, "unknown merge_method 'sum': expected one of avg, max"),
        ({"image_pyramid": (1.0, 0.0)}, r"image_pyramid: expected different scales above 0, received \[1.0, 0.0\]"),
        ({"image_pyramid": (0.5, 0.501)}, "image_pyramid: expected different scales"),
        ({"image_pyramid": (0.5, float("nan"))}, "image_pyramid: expected different scales"),
        ({"image_pyramid": (float("inf"),)}, "image_pyramid: expected different scales"),
        ({"pooling_crop_size": (0, 33)}, r"^pooling_crop_size: expected two sizes of 1 or more, received \[0, 33\]"),
        ({"crop_size": (33, -1)}, r"^crop_size: expected two sizes of 1 or more, received \[33, -1\]"),
    ],
)
def test_impossible_surroundings_are_refused_by_field(network, fields, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(network, **fields)


def test_decoder_that_puts_out_logits_has_a_filter_for_each_class():
    network = dataclasses.replace(_DPC, decoder=DecoderConfig((4,), 4, output_is_logits=True))
    with pytest.raises(InputError, match="decoder_filters: expected the 3 classes.*received 4"):
        nas_seg.build(ModelConfig(3, network))


def test_head_without_the_low_level_maps_of_its_decoder_is_refused():
    network = dataclasses.replace(_DPC, decoder=_DECODER)
    with pytest.raises(InputError, match="decoder: expected 1 low-level maps, received 0"):
        dpc_network.head(network, 3, keras.Input((None, None, 8)))
