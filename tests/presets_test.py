"""The zoo: networks of DeepLab's released checkpoints have the parameters and multiply-adds that were published."""

import numpy as np
import pytest

import nas_seg
from nas_seg import presets
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
