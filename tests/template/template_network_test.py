"""Template networks whole: recorded ones, any genotype at any size against a literal computation, encoders, counts."""

import json

import keras
import literal_network
import numpy as np
import pytest
import reference_weights
from case import fixtures

from nas_seg.core.backbones import BackboneConfig, build_backbone
from nas_seg.core.conv import regularized_kernels
from nas_seg.template import Template, TemplateGenotype, TemplateSpace, count, published
from nas_seg.template.encoder import NotEmpty, TemplateEncoder
from nas_seg.template.genotype import Layer
from nas_seg.template.network import TemplateConfig, build_network
from nas_seg.utils import config as config_lib
from nas_seg.utils.errors import InputError
from nas_seg.utils.flops import count_madds

SPACE = TemplateSpace()
# Strided dilated convolutions, strided poolings and skips, and outputs of several strides, the coarsest first.
STRIDED = TemplateGenotype.from_lists(
    [
        [[4, 3, 1], [5, 4, 0], [2, 1, 0]],
        [[0, 1, 0, 2, 1], [1, 0, 1, 1, 1], [0, 2, 2, 0, 1], [1, 1, 0, 0, 0], [0, 0, 1, 3, 0]],
    ]
)


def _random(seed: int) -> TemplateGenotype:
    return SPACE.sample(np.random.default_rng(seed))


def _size(variables) -> int:
    return sum(int(np.prod(v.shape)) for v in variables)


def _nchw(tensor) -> np.ndarray:
    return np.moveaxis(np.asarray(tensor), -1, 1)


@pytest.mark.parametrize("case", ["wacv_arch0_cv11", "wacv_rand0_cs19"])
def test_network_equals_the_recorded_one(case):
    folder = fixtures("template")
    info = json.loads((folder / "manifest.json").read_text())[case]
    noise = json.loads((folder / "fp32_noise.json").read_text())[case]["max_abs_err_fp32_vs_fp64"]
    genotype = TemplateGenotype.from_lists(info["config"])
    model = build_network(genotype, info["num_classes"], info["agg_size"], info["sep_repeats"])
    assert _size(model.trainable_variables) == info["params"]["total"]
    assert _size(model.get_layer("backbone").trainable_variables) == info["params"]["encoder"]
    reference_weights.assign(model, np.load(folder / f"{case}.weights.npz"))
    recorded = np.load(folder / f"{case}.io_97x129.npz")
    layers = {"collect": model.get_layer("joined")}
    for layer in model.layers:
        for end, key in (("op1", "op0"), ("op2", "op1"), ("psum", "agg"), ("projection", "agg")):
            if layer.name.startswith("layer") and layer.name.endswith("_" + end):
                number, application, _ = layer.name.split("_")
                layers[f"block{number[5:]}_rep{application[11:]}_{key}"] = layer
    assert {key for key in recorded.files if "_rep" in key} == {key for key in layers if "_rep" in key}
    parts = keras.Model(model.input, {key: layer.output for key, layer in layers.items()} | {"logits": model.output})
    image = np.moveaxis(recorded["input"], 1, -1)
    for key, value in parts(image).items():
        # Sums in another order; the network's own noise in float32 is the measure.
        tolerance = max(4 * noise if key == "logits" else 0.0, 1e-4 * recorded[key].std())
        np.testing.assert_allclose(_nchw(value), recorded[key], rtol=0, atol=tolerance, err_msg=key)


@pytest.mark.parametrize("size", [(33, 49), (64, 96), (30, 47), (4, 60), (1, 1)])
@pytest.mark.parametrize("genotype", [_random(1), _random(2), STRIDED], ids=["random_1", "random_2", "strided"])
def test_any_genotype_computes_at_any_size_what_its_definition_says(genotype, size):
    model = _filled(genotype)
    arrays = reference_weights.random_arrays(model)
    image = np.random.default_rng(0).normal(size=(1, *size, 3)).astype(np.float32)
    expected = literal_network.network(arrays, genotype.to_lists(), np.moveaxis(image[0], -1, 0), 2)["logits"]
    # Float32 against float64 after up to sixty convolutions, some of maps of a single position.
    np.testing.assert_allclose(_nchw(model(image))[0], expected, rtol=0, atol=3e-4 * max(expected.std(), 1.0))


_MODELS = {}


def _filled(genotype) -> keras.Model:
    """A network with `random_arrays`; built once for all sizes."""
    if genotype.digest not in _MODELS:
        model = build_network(genotype, 3, agg_size=8)
        reference_weights.assign(model, reference_weights.random_arrays(model))
        _MODELS[genotype.digest] = model
    return _MODELS[genotype.digest]


@pytest.mark.parametrize(
    ("genotype", "rule"), [(_random(3), "peer"), (STRIDED, "peer"), (STRIDED, "once")], ids=["random_3", "peer", "once"]
)
def test_count_tells_what_the_built_network_costs(genotype, rule):
    model = build_network(genotype, 5, agg_size=12, sep_repeats=2, stride_rule=rule)
    expected = count(genotype, 5, 12, 2, 45, 70, rule)
    assert _size(model.trainable_variables) == expected.params
    assert count_madds(model, 45, 70) == expected.madds


@pytest.mark.parametrize(("name", "classes", "params"), [("arch0", 19, 280_147), ("arch1", 11, 263_619)])
def test_published_networks_have_the_published_parameters(name, classes, params):
    assert _size(build_network(published(name), classes, encoder="keras").trainable_variables) == params


def test_a_stride_that_counts_once_leaves_larger_maps():
    layer = Layer(0, 0, 0, repeats=3, stride=2)
    genotype = TemplateGenotype((Template("sep_conv_3x3", "sep_conv_3x3", "psum"),), (layer, Layer(0, 0, 0)))
    shapes = {}
    for rule in ("peer", "once"):
        model = build_network(genotype, 2, 4, 2, stride_rule=rule)
        maps = keras.Model(model.input, model.get_layer("layer0_application2_psum").output)
        shapes[rule] = maps(np.zeros((1, 256, 256, 3), np.float32)).shape[1:3]
    # From stride 4: one halving at the first application; or two at the first, then of x2 at stride 4 and y0 at 16 the
    # smaller, twice more.
    assert shapes["once"] == (32, 32) and shapes["peer"] == (1, 1)


def test_keras_encoder_with_imagenets_layout_gives_the_features_of_keras_applications(tmp_path):
    theirs = keras.applications.MobileNetV2(input_shape=(97, 130, 3), include_top=False, weights=None)
    random = np.random.default_rng(0)
    for layer in theirs.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            pairs = zip(_RANGES, layer.weights, strict=True)
            layer.set_weights([random.uniform(*limits, w.shape) for limits, w in pairs])
    path = str(tmp_path / "mobilenet.weights.h5")
    theirs.save_weights(path)
    config = TemplateEncoder("keras")
    ours = build_backbone(config, (4,))
    config.load_pretrained(ours, path)
    parts = keras.Model(theirs.input, [theirs.get_layer(name).output for name in ("block_5_add", "block_2_add")])
    image = random.uniform(-1, 1, (2, 97, 130, 3)).astype(np.float32)
    for actual, expected in zip(ours(image), parts(image), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * float(np.std(expected)))
    # In training the added normalisation leaves what the stem puts out nearly as it is, if the stem's statistics hold.
    extra = ours.get_layer("expanded_conv_expand")
    stem = ours.get_layer("Conv").norm
    values = random.normal(stem.beta, np.abs(stem.gamma), (1, 200, 200, 32)).clip(0, 6).astype(np.float32)
    np.testing.assert_allclose(extra(values, training=True), values, atol=0.1)


# Of gamma, beta, moving mean and moving variance.
_RANGES = ((0.5, 1.5), (-0.1, 0.5), (-0.1, 0.1), (0.5, 1.5))


def test_encoder_of_the_authors_takes_no_weights_of_keras():
    config = TemplateEncoder("peer")
    with pytest.raises(InputError, match="weights.h5: .* need encoder 'keras', received 'peer'"):
        config.load_pretrained(build_backbone(config), "weights.h5")
    with pytest.raises(InputError, match="encoder: unknown variant 'pear'.*Did you mean 'peer'"):
        build_network(published("arch0"), 3, encoder="pear")


def test_encoder_takes_over_the_beginning_of_a_trained_mobilenet_v2():
    whole, config = build_backbone(BackboneConfig(output_stride=32)), TemplateEncoder()
    ours = build_backbone(config, (4,))
    config.take_over(ours, whole)
    ends = [whole.get_layer(name).output for name in ("expanded_conv_5_add", "expanded_conv_2_add")]
    image = np.random.default_rng(0).uniform(-1, 1, (1, 40, 57, 3)).astype(np.float32)
    for actual, expected in zip(ours(image), keras.Model(whole.input, ends)(image), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * float(np.std(expected)))
    # Weight decay falls on full kernels: the stem's, and two of each of the six blocks.
    assert len(regularized_kernels(ours)) == 1 + 6 * 2
    narrow = build_backbone(BackboneConfig(output_stride=32, depth_multiplier=0.35, divisible_by=8))
    with pytest.raises(InputError, match=r"expected a MobileNet-v2 of depth multiplier 1.0, .* layer Conv has"):
        config.take_over(ours, narrow)


def test_network_is_saved_and_loaded_with_its_outputs(tmp_path):
    model = build_network(STRIDED, 3, agg_size=8)
    model.save(tmp_path / "model.keras")
    image = np.random.default_rng(0).normal(size=(2, 40, 56, 3)).astype(np.float32)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(image), model(image))
    assert model.output_shape == (None, None, None, 3) and model(image).shape == (2, 10, 14, 3)


def test_images_without_pixels_are_refused():
    with pytest.raises(InputError, match="image: expected a height and a width of at least 1, received 0x64"):
        NotEmpty()(np.zeros((1, 0, 64, 3), np.float32))


def test_config_has_a_json_form_and_refuses_what_cannot_be_built():
    config = TemplateConfig(published("arch1"), TemplateEncoder("peer"), agg_size=48, sep_repeats=1)
    assert config_lib.from_json(TemplateConfig, config_lib.to_json(config)) == config
    for fields, expected in (
        ({"agg_size": 0}, "agg_size: expected at least 1, received 0"),
        ({"sep_repeats": 0}, "sep_repeats: expected at least 1, received 0"),
        ({"stride_rule": "one"}, "stride_rule: unknown rule 'one'.*Did you mean 'once'"),
    ):
        with pytest.raises(InputError, match=expected):
            TemplateConfig(published("arch0"), **fields)
    with pytest.raises(InputError, match="num_classes: expected at least 1, received 0"):
        build_network(published("arch0"), 0)
