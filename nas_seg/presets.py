"""The model zoo: one row a name."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import keras

from nas_seg import model as model_lib
from nas_seg.auto_deeplab.network import AutoDeepLabBackbone
from nas_seg.core.backbones import BackboneConfig
from nas_seg.core.decoder import DecoderConfig
from nas_seg.deeplab.network import DeepLabConfig
from nas_seg.dpc.genotype import published
from nas_seg.dpc.network import DPCConfig
from nas_seg.model import AutoDeepLabConfig, ModelConfig, NetworkConfig, TemplateConfig
from nas_seg.template.genotype import published as published_template
from nas_seg.utils.errors import InputError, unknown

_TOP1 = published("cityscapes_top1")
_MOBILENET = BackboneConfig("mobilenet_v2", output_stride=16)
_MOBILENET_050 = BackboneConfig("mobilenet_v2", output_stride=16, depth_multiplier=0.5)
# Channels in multiples of 8, so that keras.applications' ImageNet weights fit.
_MOBILENET_035 = BackboneConfig("mobilenet_v2", output_stride=16, depth_multiplier=0.35, divisible_by=8)
_XCEPTION_41, _XCEPTION_65, _XCEPTION_71 = (BackboneConfig(f"xception_{depth}") for depth in (41, 65, 71))
# The released ResNets were trained with these rates in their last block.
_RESNET_50, _RESNET_101 = (BackboneConfig(f"resnet_v1_{depth}_beta", multi_grid=(1, 2, 4)) for depth in (50, 101))


def _none(backbone: BackboneConfig) -> DeepLabConfig:
    return DeepLabConfig(backbone, head="none", atrous_rates=())


def _v3plus(backbone: BackboneConfig, atrous_rates: tuple[int, ...] = (6, 12, 18)) -> DeepLabConfig:
    return DeepLabConfig(backbone, atrous_rates=atrous_rates, decoder=DecoderConfig())


def _auto_deeplab(filter_multiplier: int) -> AutoDeepLabConfig:
    return AutoDeepLabConfig(AutoDeepLabBackbone(filter_multiplier=filter_multiplier))


_PRESETS = {
    "auto_deeplab_s": _auto_deeplab(20),
    "auto_deeplab_m": _auto_deeplab(32),
    "auto_deeplab_l": _auto_deeplab(48),
    "dpc_mobilenet_v2": DPCConfig(_TOP1, _MOBILENET),
    "dpc_mobilenet_v2_035": DPCConfig(_TOP1, _MOBILENET_035),
    "dpc_xception_71": DPCConfig(_TOP1, _XCEPTION_71, decoder=DecoderConfig()),
    "deeplabv3_mobilenet_v2": DeepLabConfig(_MOBILENET),
    "deeplabv3_mobilenet_v2_035": DeepLabConfig(_MOBILENET_035),
    "deeplabv3_mobilenet_v2_no_rates": DeepLabConfig(_MOBILENET, atrous_rates=()),
    "deeplabv3_mobilenet_v2_050_no_rates": DeepLabConfig(_MOBILENET_050, atrous_rates=()),
    "deeplabv3plus_mobilenet_v2": _v3plus(_MOBILENET),
    "deeplabv3plus_mobilenet_v2_no_rates": _v3plus(_MOBILENET, atrous_rates=()),
    "deeplabv3plus_xception_41": _v3plus(_XCEPTION_41),
    "deeplabv3plus_xception_65": _v3plus(_XCEPTION_65),
    "deeplabv3plus_xception_71": _v3plus(_XCEPTION_71),
    "deeplabv3plus_resnet_v1_50_beta": _v3plus(_RESNET_50),
    "deeplabv3plus_resnet_v1_101_beta": _v3plus(_RESNET_101),
    "mobilenet_v2": _none(_MOBILENET),
    "mobilenet_v2_035": _none(_MOBILENET_035),
    "xception_41": _none(_XCEPTION_41),
    "xception_65": _none(_XCEPTION_65),
    "template_arch0": TemplateConfig(published_template("arch0")),
    "template_arch1": TemplateConfig(published_template("arch1")),
    "xception_71": _none(_XCEPTION_71),
    "resnet_v1_50_beta": _none(_RESNET_50),
    "resnet_v1_101_beta": _none(_RESNET_101),
}


@dataclasses.dataclass(frozen=True)
class Released:
    """A checkpoint of DeepLab's model zoo, which is converted by tools/convert_checkpoint.py.

    Attributes:
        preset: its network.
        file: at http://download.tensorflow.org/models/.
        num_classes: of its last layer; None for a classifier of ImageNet, whose last layer has no place here.
        size: (height, width) of the pictures that it was scored on.
        output_stride: that its multiply-adds were told at.
        madds: multiply-adds of one picture at one scale, in billions, as published; None where they were not.
        miou: as published, with the split and how.
    """

    preset: str
    file: str
    num_classes: int | None
    size: tuple[int, int]
    output_stride: int = 16
    madds: float | None = None
    miou: str = ""


_VOC, _CITYSCAPES, _ADE20K, _IMAGENET = (513, 513), (1025, 2049), (513, 513), (224, 224)
_MULTI_SCALE = "stride 8, several scales, flipped"
_NO_RATES, _NO_RATES_050 = "deeplabv3_mobilenet_v2_no_rates", "deeplabv3_mobilenet_v2_050_no_rates"

RELEASED = {
    "mobilenetv2_dm05_coco_voc_trainaug": Released(
        _NO_RATES_050, "deeplabv3_mnv2_dm05_pascal_trainaug_2018_10_01.tar.gz", 21, _VOC, 16, 0.88, "70.19 val"
    ),
    "mobilenetv2_dm05_coco_voc_trainval": Released(
        _NO_RATES_050, "deeplabv3_mnv2_dm05_pascal_trainval_2018_10_01.tar.gz", 21, _VOC, 8, 2.84, "71.83 test"
    ),
    "mobilenetv2_coco_voc_trainaug": Released(
        _NO_RATES, "deeplabv3_mnv2_pascal_train_aug_2018_01_29.tar.gz", 21, _VOC, 16, 2.75, "75.32 val"
    ),
    "mobilenetv2_coco_voc_trainval": Released(
        _NO_RATES, "deeplabv3_mnv2_pascal_trainval_2018_01_29.tar.gz", 21, _VOC, miou="80.25 test"
    ),
    "xception65_coco_voc_trainaug": Released(
        "deeplabv3plus_xception_65", "deeplabv3_pascal_train_aug_2018_01_04.tar.gz", 21, _VOC, 16, 54.17, "82.20 val"
    ),
    "xception65_coco_voc_trainval": Released(
        "deeplabv3plus_xception_65", "deeplabv3_pascal_trainval_2018_01_04.tar.gz", 21, _VOC, miou="87.80 test"
    ),
    "mobilenetv2_coco_cityscapes_trainfine": Released(
        _NO_RATES, "deeplabv3_mnv2_cityscapes_train_2018_02_05.tar.gz", 19, _CITYSCAPES, 16, 21.27, "70.71 val"
    ),
    "xception65_cityscapes_trainfine": Released(
        "deeplabv3plus_xception_65",
        "deeplabv3_cityscapes_train_2018_02_06.tar.gz",
        19,
        _CITYSCAPES,
        16,
        418.64,
        "78.79 val",
    ),
    "xception71_dpc_cityscapes_trainfine": Released(
        "dpc_xception_71",
        "deeplab_cityscapes_xception71_trainfine_2018_09_08.tar.gz",
        19,
        _CITYSCAPES,
        16,
        502.07,
        "80.31 val",
    ),
    "xception71_dpc_cityscapes_trainval": Released(
        "dpc_xception_71",
        "deeplab_cityscapes_xception71_trainvalfine_2018_09_08.tar.gz",
        19,
        _CITYSCAPES,
        miou=f"82.66 test ({_MULTI_SCALE})",
    ),
    "mobilenetv2_ade20k_train": Released(
        "deeplabv3plus_mobilenet_v2_no_rates",
        "deeplabv3_mnv2_ade20k_train_2018_12_03.tar.gz",
        151,
        (257, 257),
        miou="32.04 val",
    ),
    "xception65_ade20k_train": Released(
        "deeplabv3plus_xception_65",
        "deeplabv3_xception_ade20k_train_2018_05_29.tar.gz",
        151,
        _ADE20K,
        miou=f"45.65 val ({_MULTI_SCALE})",
    ),
    "xception_41_imagenet": Released("xception_41", "xception_41_2018_05_09.tar.gz", None, _IMAGENET),
    "xception_65_imagenet": Released("xception_65", "deeplabv3_xception_2018_01_04.tar.gz", None, _IMAGENET),
    "xception_65_imagenet_coco": Released(
        "xception_65", "xception_65_coco_pretrained_2018_10_02.tar.gz", None, _IMAGENET
    ),
    "xception_71_imagenet": Released("xception_71", "xception_71_2018_05_09.tar.gz", None, _IMAGENET),
    "resnet_v1_50_beta_imagenet": Released("resnet_v1_50_beta", "resnet_v1_50_2018_05_04.tar.gz", None, _IMAGENET),
    "resnet_v1_101_beta_imagenet": Released("resnet_v1_101_beta", "resnet_v1_101_2018_05_04.tar.gz", None, _IMAGENET),
}


def list_presets() -> list[str]:
    """Names that `from_preset` takes; it takes those of `RELEASED` too."""
    return sorted(_PRESETS)


def network(name: str) -> NetworkConfig:
    """The network of a preset or of a released checkpoint, without its number of classes."""
    if name in RELEASED:
        row = RELEASED[name]
        found = _PRESETS[row.preset]
        backbone = dataclasses.replace(found.backbone, output_stride=row.output_stride)
        return dataclasses.replace(found, backbone=backbone)
    if name not in _PRESETS:
        raise unknown("preset", name, [*_PRESETS, *RELEASED])
    return _PRESETS[name]


def from_preset(
    name: str, num_classes: int | None = None, weights: str | None = None, backbone_weights: str | None = None
) -> keras.Model:
    """A network of the zoo.

    Args:
        name: one of `list_presets()`, or of `RELEASED`: the network of a checkpoint of DeepLab's zoo.
        num_classes: channels of the logits; None for those of the released checkpoint.
        weights: None for fresh weights, or a `.weights.h5` file or a run folder with this very network.
        backbone_weights: None, "imagenet", an .h5 file in keras.applications' layout, or a run folder.

    Returns:
        A keras.Model: RGB [B, H, W, 3] in [0, 255] -> float32 logits [B, H, W, num_classes].
    """
    found = network(name)
    if num_classes is None:
        num_classes = RELEASED[name].num_classes if name in RELEASED else None
    if num_classes is None:
        raise InputError(f"num_classes: expected a number for preset {name!r}, received None")
    config = ModelConfig(num_classes, found)
    model = model_lib.build(config)
    model_lib.load_backbone_weights(model, config, backbone_weights)
    if weights is not None:
        model_lib.load_weights(model, weights)
    return model


def network_config(
    num_classes: int,
    *,
    genotype: str | os.PathLike | None = None,
    preset: str | None = None,
    backbone_weights: str | None = None,
    **overrides,
) -> ModelConfig:
    """A ModelConfig from a genotype file of any family, or from a preset, with some fields replaced.

    Args:
        num_classes: channels of the logits.
        genotype: a file that a search wrote, or DeepLab's JSON list of a dense prediction cell.
        preset: a name of `list_presets()`. Exactly one of the two is given.
        backbone_weights: where it is a run folder, a genotype's network takes over its backbone.
        overrides: fields of the family's configuration or of its backbone to replace, such as crop_size or
            output_stride; those that are None stay as they are. The output stride of a network that Auto-DeepLab
            found, and that of a template network's encoder, are their own.
    """
    if (genotype is None) == (preset is None):
        raise InputError("expected exactly one of --genotype and --preset")
    config = network(preset) if preset is not None else model_lib.read_genotype(genotype)
    # A genotype of Auto-DeepLab is a backbone itself, and a template network has an encoder of its own.
    takes_over = genotype is not None and not isinstance(config, AutoDeepLabConfig | TemplateConfig)
    if takes_over and backbone_weights and os.path.isdir(backbone_weights):
        config = model_lib.with_backbone(config, model_lib.read_config(backbone_weights).network.backbone)
    return ModelConfig(num_classes, _replaced(config, {k: v for k, v in overrides.items() if v is not None}))


def _replaced(config: NetworkConfig, values: dict[str, Any]) -> NetworkConfig:
    """A network with other values of its own fields and of its backbone's."""
    own = {field.name for field in dataclasses.fields(config)}
    of_backbone = {field.name for field in dataclasses.fields(config.backbone)}
    for name, value in values.items():
        if name == "output_stride" and name not in of_backbone:
            stride = config.backbone.output_stride
            if value != stride:
                raise InputError(f"{name}: expected {stride}, which is the network's own, received {value}")
        elif name not in own | of_backbone:
            raise InputError(f"{name}: a network of kind {config.KIND!r} has no such field")
    backbone = dataclasses.replace(config.backbone, **{k: v for k, v in values.items() if k in of_backbone})
    return dataclasses.replace(config, backbone=backbone, **{k: v for k, v in values.items() if k in own})
