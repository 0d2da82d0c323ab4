"""Found networks as backbones and whole: the original's numbers, any path, any size, drop path, refusals."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import reference_network
from case import fixtures, recipe_value

import nas_seg
from nas_seg import model as model_lib
from nas_seg import presets
from nas_seg.auto_deeplab.genotype import AutoDeepLabGenotype, published
from nas_seg.auto_deeplab.network import AutoDeepLabBackbone, low_level_layer
from nas_seg.auto_deeplab.ops import DecayedDepthwiseConv
from nas_seg.core import checkpoint
from nas_seg.core.backbones import BackboneConfig, build_backbone, load_applications_weights
from nas_seg.core.conv import ConvNorm, all_layers, regularized_kernels, set_batch_norm
from nas_seg.core.decoder import DecoderConfig
from nas_seg.core.drop_path import TrainingProgress
from nas_seg.deeplab.network import DeepLabConfig
from nas_seg.dpc import genotype as dpc_genotype
from nas_seg.dpc.network import DPCConfig
from nas_seg.model import AutoDeepLabConfig, AutoDeepLabDPCConfig, ModelConfig
from nas_seg.utils import config as config_lib
from nas_seg.utils.errors import InputError
from nas_seg.utils.flops import count_madds

# Recorded probabilities are float32; a hundred layers of other summation order leave about 1e-5.
_TOLERANCE = 1e-4
# Gains of the recorded cases.
_RULES = [["^hnasnet/|^pnasnet/", 1.0, 1.4], ["", 1.0, 2.0]]
_OPS = ("max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_5x5", "sep_conv_7x7")
# Every op at every source, and blocks that read one input twice.
_MIXED = (
    ((0, "max_pool_3x3"), (1, "dil_conv_5x5")),
    ((1, "skip_connect"), (1, "avg_pool_3x3")),
    ((0, "skip_connect"), (2, "skip_connect")),
    ((3, "dil_conv_3x3"), (0, "sep_conv_7x7")),
)
_CELL, _PNASNET_CELL = published("auto_deeplab").cell, published("pnasnet_os16").cell
_PUBLISHED = ("auto_deeplab", "pnasnet_os8", "pnasnet_os16", "pnasnet_os32")
_PNASNET = AutoDeepLabBackbone(published("pnasnet_os16"))
_SEPARABLE = AutoDeepLabConfig(aspp_with_separable_conv=True, decoder=DecoderConfig())
# Down to stride 32 and back to 8, in short; and hardly anything, but with what drop path and names have to do with.
_SHORT = AutoDeepLabGenotype(_CELL, (0, 1, 2, 3, 2, 1))
_TINY = AutoDeepLabGenotype(_MIXED[:2], (0, 1))


def _size(variables) -> int:
    return sum(int(np.prod(v.shape)) for v in variables)


def _fill(names, rules=_RULES, seed=0) -> None:
    checkpoint.assign(names, {n: recipe_value(n, tuple(v.shape), rules, seed) for n, v in names.items()})


def _image(height, width, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 255, (1, height, width, 3)).astype(np.float32)


def _small(genotype=_SHORT, **fields) -> AutoDeepLabBackbone:
    return AutoDeepLabBackbone(genotype, filter_multiplier=2, **fields)


def _around(backbone, **fields) -> ModelConfig:
    """A network of 3 classes, narrow everywhere."""
    decoder = DecoderConfig(filters=8, use_separable_conv=False, projection_filters=4)
    return ModelConfig(3, AutoDeepLabConfig(backbone, filters=8, **({"decoder": decoder} | fields)))


@pytest.mark.parametrize("file", ["os8_65x97.npz", "os8_129x129.npz"])
def test_network_equals_the_recorded_one_of_the_original_code(file):
    folder = fixtures("deeplab", "e_hnasnet_f20_paper")
    recorded = np.load(fixtures("deeplab", "e_hnasnet_f20_paper", file))
    info = json.loads((folder / "info.json").read_text())
    config = ModelConfig(info["num_classes"], presets.network("auto_deeplab_s"))
    model = nas_seg.build(config)
    names = model_lib.tf1_names(model, config)
    lines = (line.split("\t") for line in (folder / "variables.txt").read_text().splitlines())
    assert {n: tuple(v.shape) for n, v in names.items()} == {n: tuple(map(int, s.split(","))) for n, s in lines}
    assert {id(v) for v in names.values()} == {id(v) for v in model.weights}
    assert _size(model.trainable_variables) == info["trainable_params"] == 10_147_427
    assert _size(model.weights) == info["all_params"]
    _fill(names, info["gain_rules"], info["seed"])

    backbone, image = model.get_layer("backbone"), recorded["image"].astype(np.float32)
    layers = {f"ep:Cell_{i}": f"cell_{i}" for i in range(12)} | {"ep:Stem": "conv2", "backbone": "features"}
    parts = keras.Model(backbone.input, {key: backbone.get_layer(name).output for key, name in layers.items()})
    for key, value in parts(model.get_layer("normalize")(image)).items():
        np.testing.assert_allclose(value, recorded[key], atol=_TOLERANCE, err_msg=key)
    stages = {"head": "aspp", "decoder": "decoder", "logits": "logits"}
    parts = keras.Model(model.input, {key: model.get_layer(name).output for key, name in stages.items()})
    for key, value in parts(image).items():
        np.testing.assert_allclose(value, recorded[key], atol=_TOLERANCE, err_msg=key)
    probabilities = keras.ops.softmax(model(image), axis=-1)
    np.testing.assert_allclose(probabilities, recorded["prob"], atol=_TOLERANCE)
    # Where the two best are this close, rounding may decide.
    best = np.sort(recorded["prob"], axis=-1)
    sure = best[..., -1] - best[..., -2] > 2 * _TOLERANCE
    np.testing.assert_array_equal(np.argmax(probabilities, axis=-1)[sure], recorded["pred"][sure])


@pytest.mark.parametrize(
    "genotype, fields",
    [
        (AutoDeepLabGenotype(_CELL, (0, 1, 2, 3, 3, 2, 1)), {"remove_os32_stride": True}),
        (AutoDeepLabGenotype(_PNASNET_CELL, (1, 2, 3)), {}),
        (AutoDeepLabGenotype(_MIXED, (1, 2, 3, 2, 1, 0, 0, 1)), {}),
        # The first cell's H^{l-2}, the stem's 64 channels, needs no 1x1 convolution.
        (AutoDeepLabGenotype(_MIXED, (0, 1)), {"filter_multiplier": 64}),
        *(pytest.param(published(name), {}, marks=pytest.mark.slow) for name in _PUBLISHED),
    ],
    ids=lambda value: str(getattr(value, "path", value)),
)
def test_networks_equal_the_original_written_out(genotype, fields):
    config = AutoDeepLabBackbone(genotype, **({"filter_multiplier": 3} | fields))
    backbone = build_backbone(config)
    names = config.tf1_names(backbone)
    assert {id(v) for v in names.values()} == {id(v) for v in backbone.weights} and len(names) == len(backbone.weights)
    _fill(names)
    image = _image(65, 97) / 127.5 - 1
    root = config.name.removeprefix("nas_")
    values = {name: v.value for name, v in names.items()}
    expected = reference_network.network(values, root, genotype, image, config.remove_os32_stride)
    layers = ["conv1", "conv2", *(f"cell_{i}" for i in range(genotype.num_layers)), "features"]
    outputs = keras.Model(backbone.input, [backbone.get_layer(name).output for name in layers])(image)
    for name, output, wanted in zip(layers, outputs, expected, strict=True):
        # Float32 sums in another order through up to twelve cells.
        np.testing.assert_allclose(output, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max(), err_msg=name)
    assert tuple(outputs[-1].shape[1:3]) == tuple((n - 1) // config.output_stride + 1 for n in (65, 97))


# Parameters of DeepLab's graphs: F = 20, 32, 48 with dense head and decoder; the same with its separable defaults;
# PNASNet at stride 16 with separable ASPP of three rates and a decoder.
@pytest.mark.parametrize(
    "network, expected",
    [
        (presets.network("auto_deeplab_s"), 10_147_427),
        pytest.param(presets.network("auto_deeplab_m"), 21_622_451, marks=pytest.mark.slow),
        pytest.param(presets.network("auto_deeplab_l"), 44_424_691, marks=pytest.mark.slow),
        pytest.param(_SEPARABLE, 7_784_507, marks=pytest.mark.slow),
        pytest.param(
            dataclasses.replace(_SEPARABLE, backbone=_PNASNET, atrous_rates=(6, 12, 18)),
            2_570_691,
            marks=pytest.mark.slow,
        ),
    ],
    ids=["s", "m", "l", "separable", "pnasnet"],
)
def test_networks_have_the_parameters_of_the_original_graphs(network, expected):
    assert _size(nas_seg.build(ModelConfig(19, network)).trainable_variables) == expected


def test_low_level_features_are_those_of_the_original():
    path = published("auto_deeplab").path
    assert [low_level_layer(path, level) for level in (0, 1, 2)] == [2, 5, 7]
    path = published("pnasnet_os32").path
    assert [low_level_layer(path, level) for level in (0, 1, 2)] == [None, 3, 7]


@pytest.mark.parametrize(
    "path, expected",
    [((1, 1, 2), None), ((0, 1, 0, 1), 2), ((0, 1, 0, 0), 3), ((0, 0), 1), ((1, 2, 1, 0), 3), ((1, 0, 1, 2, 1), 1)],
)
def test_low_level_feature_of_stride_4_is_the_last_such_cell_or_the_stem(path, expected):
    assert low_level_layer(path, 0) == expected
    config = _small(AutoDeepLabGenotype(_MIXED, path))
    backbone = build_backbone(config, (4,))
    name = "conv2" if expected is None else f"cell_{expected}"
    assert backbone.outputs[1] is backbone.get_layer(name).output


def _random_path(random) -> tuple[int, ...]:
    path = []
    for _ in range(int(random.integers(1, 8))):
        before = path[-1] if path else 0
        path.append(int(random.choice([level for level in (before - 1, before, before + 1) if 0 <= level <= 3])))
    return tuple(path)


@pytest.mark.parametrize("seed", range(4))
def test_any_path_builds_with_its_decoder_and_runs_on_any_size(seed):
    random = np.random.default_rng(seed)
    cell = tuple(tuple((int(random.integers(b + 2)), str(random.choice(_OPS))) for _ in range(2)) for b in range(3))
    genotype = AutoDeepLabGenotype(cell, _random_path(random))
    around = model_lib.auto_deeplab_config(genotype)
    assert around.decoder.output_strides == (4,)
    assert [rate * around.backbone.output_stride for rate in around.atrous_rates] == [96, 192, 288]
    model = nas_seg.build(_around(_small(genotype), atrous_rates=around.atrous_rates))
    for size in ((33, 47), (20, 64)):
        logits = np.asarray(model(_image(*size)))
        assert logits.shape == (1, *size, 3) and np.isfinite(logits).all(), genotype.summary()


@pytest.fixture(scope="module")
def small_network():
    config = _around(_small())
    model = nas_seg.build(config)
    _fill(model_lib.tf1_names(model, config))
    return model


@pytest.mark.parametrize("size", [(33, 33), (48, 48), (64, 96), (161, 161), (224, 160), (1, 1), (2, 31)])
def test_maps_of_a_level_have_one_size_at_any_size_of_the_image(small_network, size):
    image = _image(*size)
    assert small_network(image).shape == (1, *size, 3)
    backbone = small_network.get_layer("backbone")
    cells = [backbone.get_layer(f"cell_{i}").output for i in range(_SHORT.num_layers)]
    for output, stride in zip(keras.Model(backbone.input, cells)(image), _SHORT.strides, strict=True):
        assert tuple(output.shape[1:3]) == tuple(-(-n // stride) for n in size)


def test_static_and_dynamic_sizes_agree(small_network):
    image = _image(48, 70)
    inputs = keras.Input((48, 70, 3))
    np.testing.assert_allclose(keras.Model(inputs, small_network(inputs))(image), small_network(image), atol=1e-5)


@pytest.mark.slow
def test_multiply_adds_are_near_the_papers():
    # On the original graph 327.87 B were counted, with what TensorFlow adds to atrous convolutions; the paper has
    # 1.6% more, for which there is no explanation.
    model = nas_seg.from_preset("auto_deeplab_s", 19)
    madds = count_madds(model, 1025, 2049, atrous_padding=True) / 1e9
    assert madds == pytest.approx(327.87, abs=0.01)
    assert madds == pytest.approx(333.25, rel=0.02)


def test_weight_decay_falls_on_depthwise_kernels_too():
    model = nas_seg.build(_around(_small(), aspp_with_separable_conv=True))
    kernels = {id(v) for v in regularized_kernels(model)}
    backbone = all_layers(model.get_layer("backbone"))
    of_backbone = {id(layer.conv.kernel) for layer in backbone if isinstance(layer, ConvNorm)}
    depthwise = {id(layer.kernel) for layer in backbone if isinstance(layer, DecayedDepthwiseConv)}
    # Seven of a cell's ten operators have two of them.
    assert len(depthwise) == _SHORT.num_layers * 14
    assert kernels >= of_backbone | depthwise
    heads = [layer for layer in all_layers(model) if isinstance(layer, ConvNorm) and layer.filters is None]
    assert heads and not kernels & {id(layer.conv.kernel) for layer in heads}


def test_saved_model_file_gives_the_same_logits(tmp_path):
    network = _around(_small(AutoDeepLabGenotype(_MIXED, (0, 1, 2, 1)), drop_path_keep_prob=0.5))
    model = nas_seg.build(network)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(_image(40, 56)), model(_image(40, 56)))


@pytest.mark.parametrize("pyramid", [(), (0.5, 1.0)])
def test_fit_trains_with_drop_path_and_counts_its_steps(pyramid):
    keras.utils.set_random_seed(0)
    backbone = _small(_TINY, drop_path_keep_prob=0.7, drop_path_steps=8)
    model = nas_seg.build(_around(backbone, image_pyramid=pyramid, atrous_rates=(2,)))
    set_batch_norm(model, max_momentum=0.8)
    images = np.concatenate([_image(33, 33, seed) for seed in range(8)])
    labels = (images.mean(axis=-1) > 127).astype(np.int32)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss, jit_compile=False)
    history = model.fit(images, labels, batch_size=4, epochs=5, verbose=0).history["loss"]
    assert history[-1] < history[0]
    progress = next(layer for layer in all_layers(model) if isinstance(layer, TrainingProgress))
    assert float(progress(images)) == 1.0 and int(progress.calls.value) == 10 * max(1, len(pyramid))


def test_drop_path_changes_no_name_and_no_weight():
    plain, dropping = _small(_TINY), _small(_TINY, drop_path_keep_prob=0.8)
    shapes = [
        {name: tuple(v.shape) for name, v in config.tf1_names(build_backbone(config)).items()}
        for config in (plain, dropping)
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    "network",
    [
        AutoDeepLabConfig(_small(AutoDeepLabGenotype(_MIXED, (1, 0)), drop_path_keep_prob=0.9), decoder=None),
        AutoDeepLabDPCConfig(dpc_genotype.published("cityscapes_top1"), _small(remove_os32_stride=True)),
    ],
    ids=["aspp", "dpc"],
)
def test_configuration_survives_json(network, tmp_path):
    config_lib.save(tmp_path / "config.json", ModelConfig(3, network))
    assert config_lib.load(tmp_path / "config.json", ModelConfig) == ModelConfig(3, network)


@pytest.mark.parametrize("head", ["none", "deeplab_v2", "dpc"])
def test_other_heads_stand_on_a_found_backbone(head):
    if head == "dpc":
        cell = dpc_genotype.published("cityscapes_top1")
        config = ModelConfig(3, AutoDeepLabDPCConfig(cell, _small(_TINY), filters=8, concat_filters=8))
    else:
        config = _around(_small(_TINY), head=head, atrous_rates=() if head == "none" else (2, 4), decoder=None)
    model = nas_seg.build(config)
    assert model(_image(33, 49)).shape == (1, 33, 49, 3)
    names = model_lib.tf1_names(model, config)
    assert {id(v) for v in names.values()} == {id(v) for v in model.weights}
    if head == "dpc":
        # The cell's rates double at stride 8.
        assert model.get_layer("dense_prediction_cell").output_stride == 8


def test_a_genotype_file_becomes_a_network_with_rates_for_its_stride(tmp_path):
    genotype = AutoDeepLabGenotype(_CELL, (0, 1, 2))
    genotype.save(tmp_path / "genotype.json")
    config = presets.network_config(3, genotype=tmp_path / "genotype.json", filter_multiplier=8, output_stride=16)
    assert config.network.backbone == AutoDeepLabBackbone(genotype, filter_multiplier=8)
    assert config.network.atrous_rates == (6, 12, 18)
    with pytest.raises(InputError, match="output_stride: expected 16, .*received 8"):
        presets.network_config(3, genotype=tmp_path / "genotype.json", output_stride=8)


def test_a_genotype_of_a_cell_takes_over_a_found_backbone():
    network = DPCConfig(dpc_genotype.published("cityscapes_top1"), filters=8)
    found = model_lib.with_backbone(network, _small())
    assert found == AutoDeepLabDPCConfig(network.genotype, _small(), filters=8)
    assert model_lib.with_backbone(found, BackboneConfig()) == network
    with pytest.raises(InputError, match="expected a backbone of BackboneConfig with DPCConfig"):
        ModelConfig(3, dataclasses.replace(network, backbone=_small()))


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"filter_multiplier": 0}, "filter_multiplier: expected at least 1, received 0"),
        ({"drop_path_keep_prob": 0.0}, r"drop_path_keep_prob: expected a number in \(0, 1\], received 0.0"),
        ({"drop_path_steps": 0}, "drop_path_steps: expected at least 1, received 0"),
    ],
)
def test_impossible_backbone_is_refused_by_field(fields, message):
    with pytest.raises(InputError, match=message):
        AutoDeepLabBackbone(**fields)


def test_decoder_at_a_stride_that_the_path_does_not_come_to_is_refused():
    backbone = _small(AutoDeepLabGenotype(_MIXED, (0, 1)))
    with pytest.raises(InputError, match=r"decoder_output_stride: expected some of \[4, 8\].*received \[16\]"):
        AutoDeepLabConfig(backbone, decoder=DecoderConfig((16,)))


def test_weights_of_keras_applications_are_refused():
    with pytest.raises(InputError, match="expected a run folder for backbone 'nas_hnasnet'"):
        load_applications_weights(None, _small(), "imagenet")


def test_old_configurations_still_read():
    old = config_lib.to_json(ModelConfig(3, DeepLabConfig()))
    assert "kind" not in old["network"]["backbone"]
    assert config_lib.from_json(ModelConfig, old) == ModelConfig(3, DeepLabConfig())
