"""The zoo: networks of DeepLab's released checkpoints have the parameters and multiply-adds that were published."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import nas_seg
from nas_seg import export_model, presets
from nas_seg.utils.errors import InputError
from nas_seg.utils.flops import count_madds

_COUNTED = {name: row for name, row in presets.RELEASED.items() if row.madds is not None}


def _parameters(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


@pytest.mark.parametrize("name", _COUNTED)
def test_released_networks_cost_what_was_published(name):
    row = presets.RELEASED[name]
    madds = count_madds(nas_seg.from_preset(name), *row.size, atrous_padding=True) / 1e9
    # The zoo was counted with tfprof, which has a little beside the convolutions; of the half-width network that, and
    # two decimals, make up to 1.4%.
    assert madds == pytest.approx(row.madds, rel=0.015 if "dm05" in name else 3e-3)


# Read off the original graphs, or their sums (Xception-71 with ASPP: the "DeepLabv3+" of the Auto-DeepLab paper).
@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        ("deeplabv3_mobilenet_v2_050_no_rates", 21, 697_013),
        ("deeplabv3plus_xception_41", 21, 28_108_661),
        ("deeplabv3plus_xception_65", 21, 41_055_413),
        ("deeplabv3plus_xception_71", 19, 43_477_323),
        ("dpc_xception_71", 19, 41_608_523),
        ("deeplabv3plus_resnet_v1_50_beta", 21, 26_819_909),
        ("template_arch0", 19, 280_147),
        ("template_arch1", 11, 263_619),
    ],
)
def test_presets_have_the_parameters_of_the_original_graphs(name, classes, parameters):
    assert _parameters(nas_seg.from_preset(name, classes)) == parameters


def test_a_released_checkpoints_network_has_its_classes_and_stride():
    for name, row in presets.RELEASED.items():
        assert row.preset in nas_seg.list_presets()
        assert presets.network(name).backbone.output_stride == row.output_stride
    assert nas_seg.from_preset("mobilenetv2_coco_voc_trainaug").output_shape[-1] == 21
    assert nas_seg.from_preset("mobilenetv2_coco_voc_trainaug", 5).output_shape[-1] == 5


@pytest.mark.parametrize("name", ["mobilenet_v2", "xception_41_imagenet"])
def test_a_network_without_classes_of_its_own_asks_for_them(name):
    with pytest.raises(InputError, match=f"num_classes: expected a number for preset '{name}'"):
        nas_seg.from_preset(name)


def _by_family():
    """All; by default one of each family."""
    quick = ("dpc_mobilenet_v2_035", "deeplabv3_mobilenet_v2_035", "template_arch1")
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in nas_seg.list_presets()]


@pytest.mark.parametrize("name", _by_family())
def test_preset_saves_loads_and_exports(name, tmp_path):
    model = nas_seg.from_preset(name, num_classes=5)
    image = np.random.default_rng(0).integers(0, 256, (1, 65, 97, 3), np.uint8)
    model.save(tmp_path / "model.keras")
    logits = keras.models.load_model(tmp_path / "model.keras")(image.astype(np.float32), training=False)
    np.testing.assert_array_equal(logits, model(image.astype(np.float32), training=False))
    export_model.export_saved_model(model, tmp_path / "exported")
    signature = tf.saved_model.load(tmp_path / "exported").signatures["serving_default"]
    labels = signature(ImageTensor=image)["SemanticPredictions"].numpy()
    best = np.sort(logits, axis=-1)
    # Fresh logits are close to one another; where the best two nearly tie, rounding decides.
    sure = best[..., -1] - best[..., -2] > 1e-5 * np.abs(best).max()
    np.testing.assert_array_equal(labels[sure], np.argmax(logits, axis=-1)[sure])
