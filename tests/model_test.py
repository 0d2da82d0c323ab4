"""Whole networks against recorded ones, and the contract of keras.Model."""

import json
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from case import REPOSITORY, fixtures, recipe_value

import nas_seg
from nas_seg import model as model_lib
from nas_seg import presets
from nas_seg.core import checkpoint
from nas_seg.core.backbones import BackboneConfig
from nas_seg.core.conv import all_layers, regularized_kernels
from nas_seg.deeplab import network as deeplab_network
from nas_seg.deeplab.network import DeepLabConfig
from nas_seg.dpc import network as dpc_network
from nas_seg.dpc.genotype import published
from nas_seg.dpc.network import DPCConfig
from nas_seg.model import ModelConfig
from nas_seg.utils import config as config_lib
from nas_seg.utils.errors import InputError

# Recorded probabilities are float32; 60 layers of other summation order leave about 1e-5.
_TOLERANCE = 1e-4
_SMALL = {"backbone": BackboneConfig(depth_multiplier=0.35, divisible_by=8), "filters": 8}


def _parameters(variables) -> int:
    return sum(int(np.prod(v.shape)) for v in variables)


def _recorded(case: str, file: str):
    folder = fixtures("deeplab", case)
    info = json.loads((folder / "info.json").read_text())
    # "big_os16_513x545.npz" was recorded at output stride 16 with images and crop of 513 x 545.
    stride, *crop = map(int, re.search(r"os(\d+)_(\d+)x(\d+)", file).groups())
    backbone = BackboneConfig(output_stride=stride)
    if "dpc" in case:
        config = DPCConfig(published("cityscapes_top1"), backbone, crop_size=tuple(crop))
        names = dpc_network.tf1_names
    else:
        config = DeepLabConfig(backbone, atrous_rates=(), crop_size=tuple(crop))
        names = deeplab_network.tf1_names
    model = nas_seg.build(ModelConfig(info["num_classes"], config))
    table = names(model, config)
    assert len(table) == len(model.weights)
    rules = info["gain_rules"]
    checkpoint.assign(table, {n: recipe_value(n, tuple(v.shape), rules, info["seed"]) for n, v in table.items()})
    recorded_names = {line.split("\t")[0] for line in (folder / "variables.txt").read_text().splitlines()}
    assert recorded_names == set(table)
    return model, info, dict(np.load(folder / file))


@pytest.mark.parametrize(
    "case, file",
    [
        ("d_mobilenetv2_dpc", "os16_65x97.npz"),
        ("d_mobilenetv2_dpc", "os8_65x97.npz"),
        ("d_mobilenetv2_dpc", "big_os16_513x545.npz"),
        ("c_mobilenetv2_coco_voc", "os16_65x97.npz"),
        ("c_mobilenetv2_coco_voc", "os8_64x96.npz"),
    ],
)
def test_network_equals_the_recorded_one_of_the_original_code(case, file):
    model, info, recorded = _recorded(case, file)
    assert _parameters(model.trainable_variables) == info["trainable_params"]
    image = recorded["image"].astype(np.float32)
    logits_model = keras.Model(model.input, model.get_layer("logits").output)
    np.testing.assert_allclose(logits_model(image), recorded["logits"], atol=_TOLERANCE * 5, rtol=1e-4)
    if "prob" in recorded:
        probabilities = keras.ops.softmax(model(image), axis=-1)
        np.testing.assert_allclose(probabilities, recorded["prob"], atol=_TOLERANCE)
        # Where the two best are this close, rounding may decide.
        best = np.sort(recorded["prob"], axis=-1)
        sure = best[..., -1] - best[..., -2] > 2 * _TOLERANCE
        predicted = np.argmax(probabilities, axis=-1)
        np.testing.assert_array_equal(predicted[sure], recorded["pred"][sure])


def _presets():
    """All; by default one of each family runs and the others are built and counted elsewhere."""
    quick = ("dpc_mobilenet_v2_035", "deeplabv3_mobilenet_v2_035", "deeplabv3plus_mobilenet_v2", "mobilenet_v2_035")
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in nas_seg.list_presets()]


@pytest.mark.parametrize("name", _presets())
def test_preset_builds_and_maps_images_to_logits_of_their_size(name):
    model = nas_seg.from_preset(name, num_classes=5)
    logits = model(np.zeros((1, 40, 56, 3), np.float32))
    assert logits.shape == (1, 40, 56, 5)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"


def test_paper_presets_have_the_parameters_of_the_original_networks():
    # Trainable parameters read off the original graphs: MobileNet-v2 + DPC with 19 classes, the zoo's
    # MobileNet-v2 network with 21 and the one without any head.
    for name, classes, expected in (
        ("dpc_mobilenet_v2", 19, 2_506_195),
        ("deeplabv3_mobilenet_v2_no_rates", 21, 2_113_557),
        ("mobilenet_v2", 21, 1_818_453),
    ):
        assert _parameters(nas_seg.from_preset(name, classes).trainable_variables) == expected


def test_unknown_preset_names_the_nearest_one():
    with pytest.raises(InputError, match="unknown preset 'dpc_mobilenet'.*Did you mean 'dpc_mobilenet_v2'"):
        nas_seg.from_preset("dpc_mobilenet", num_classes=2)


def test_model_fit_lowers_the_loss():
    keras.utils.set_random_seed(0)
    model = nas_seg.build(ModelConfig(2, DeepLabConfig(**_SMALL, atrous_rates=(1,))))
    random = np.random.default_rng(0)
    images = random.uniform(0, 255, (8, 33, 33, 3)).astype(np.float32)
    labels = (images.mean(axis=-1) > 127).astype(np.int32)
    model.compile(keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = model.fit(images, labels, batch_size=4, epochs=3, verbose=0).history["loss"]
    assert history[-1] < history[0]


def test_saved_model_file_gives_the_same_logits(tmp_path):
    for network in (DeepLabConfig(**_SMALL), DPCConfig(published("cityscapes_top1"), **_SMALL)):
        model = nas_seg.build(ModelConfig(3, network))
        path = tmp_path / f"{network.KIND}.keras"
        model.save(path)
        again = keras.models.load_model(path)
        x = np.random.default_rng(0).uniform(0, 255, (1, 33, 49, 3)).astype(np.float32)
        np.testing.assert_array_equal(model(x), again(x))


def test_model_config_survives_json(tmp_path):
    for name in nas_seg.list_presets():
        # A template network pools nothing by a crop, and its encoder has no choice of stride.
        changes = {} if name.startswith("template_") else {"crop_size": (65, 97), "output_stride": 8}
        config = presets.network_config(7, preset=name, **changes)
        config_lib.save(tmp_path / "config.json", config)
        assert config_lib.load(tmp_path / "config.json", ModelConfig) == config


def test_network_config_takes_deeplabs_own_list_and_our_file(tmp_path):
    cell = published("cityscapes_top1")
    (tmp_path / "list.json").write_text(json.dumps(cell.to_list()))
    cell.save(tmp_path / "ours.json")
    configs = [presets.network_config(3, genotype=tmp_path / name) for name in ("list.json", "ours.json")]
    assert configs[0] == configs[1] == ModelConfig(3, DPCConfig(cell))


def test_genotype_of_an_unknown_family_is_refused_by_name(tmp_path):
    (tmp_path / "g.json").write_text('{"format_version": 1, "kind": "dpcc"}')
    with pytest.raises(InputError, match=r"g\.json: unknown kind of genotype 'dpcc'.*'dpc'"):
        presets.network_config(3, genotype=tmp_path / "g.json")


def test_override_that_the_family_lacks_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match="atrous_rates.*'dpc'"):
        presets.network_config(3, preset="dpc_mobilenet_v2", atrous_rates=(6,))


def test_weights_of_another_network_are_refused_naming_the_file(tmp_path):
    path = tmp_path / "other.weights.h5"
    nas_seg.build(ModelConfig(3, DeepLabConfig(**_SMALL))).save_weights(path)
    other = nas_seg.build(ModelConfig(4, DeepLabConfig(**_SMALL)))
    with pytest.raises(InputError, match=r"other\.weights\.h5: expected weights of this network"):
        model_lib.load_weights(other, path)


def test_weight_decay_falls_on_full_kernels_alone():
    model = nas_seg.build(ModelConfig(3, DPCConfig(published("cityscapes_top1"), **_SMALL)))
    kernels = {id(v) for v in regularized_kernels(model)}
    convolutions = [layer for layer in all_layers(model) if isinstance(layer, keras.layers.Conv2D)]
    assert kernels == {id(layer.kernel) for layer in convolutions}
    # 17 blocks, the first without expansion, and the stem; 5 branches, projection, logits.
    assert len(convolutions) == 1 + 17 * 2 - 1 + 5 + 1 + 1


def test_modules_are_reached_from_the_package_and_others_are_not():
    code = "import nas_seg; nas_seg.metrics.ConfusionMatrix(3, 255); nas_seg.dpc.DPCSpace(); nas_seg.nothing"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert "AttributeError: module 'nas_seg' has no attribute 'nothing'" in done.stderr


def test_importing_the_package_does_not_import_tensorflow():
    code = "import nas_seg, nas_seg.dpc, sys; assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0
